//! An operation to a method (OAP-056 to OAP-060, OAX-023, OAX-137).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    context::{Context, Version, scalar},
    error::ImportError,
    integration,
    reference::{resolve, resolve_object, target},
    schema::Schemas,
    security::Security,
};
use crate::model::{Method, MethodResponse};

/// What operations of one document share.
pub(super) struct Shared<'a> {
    /// Models.
    pub(super) schemas: Schemas,
    /// Security schemes.
    pub(super) security: Security,
    /// Names of request validators.
    pub(super) validators: BTreeSet<String>,
    /// The validator of methods that name none.
    pub(super) validator: Option<String>,
    /// Media types of requests and responses that name none (Swagger 2.0).
    pub(super) consumes: Vec<String>,
    /// As `consumes`, for responses.
    pub(super) produces: Vec<String>,
    /// Parameters that hold for every operation of the path.
    pub(super) parameters: Vec<&'a Value>,
}

/// The method that `operation` describes on `path`.
pub(super) fn read<'a>(
    context: &mut Context<'a>,
    shared: &mut Shared<'a>,
    verb: &str,
    path: &str,
    operation: &'a Map<String, Value>,
) -> Result<Method, ImportError> {
    let place = format!("'{verb}' for resource at path '{path}'");
    context.leftovers(&place, operation, known(context.version));
    let mut method = Method {
        http_method: Some(verb.to_owned()),
        operation_name: context.text(&place, operation, "operationId"),
        ..Method::default()
    };
    shared.security.apply(context, &place, operation, &mut method);
    parameters(context, shared, &place, verb, path, operation, &mut method)?;
    if let Some(body) = operation.get("requestBody")
        && context.version == Version::OpenApi3
        && let Some(body) = resolve_object(context, &place, body)?
    {
        let content = context.object(&place, body, "content");
        let models = content_models(context, shared, &place, &words(verb, path, "Request"), content);
        method.request_models = Some(models).filter(|models| !models.is_empty());
    }
    method.method_responses = responses(context, shared, &place, verb, path, operation)?;
    method.request_validator_id = validator(context, shared, &place, operation);
    match operation.get("x-amazon-apigateway-integration") {
        Some(value) => {
            if let Some(members) = resolve_object(context, &place, value)? {
                method.method_integration = integration::read(context, &place, path, members, &mut method);
            }
        }
        None => context.warn(format!(
            "{place}: x-amazon-apigateway-integration is missing; the method has no backend"
        )),
    }
    let integration = method.method_integration.take();
    if let Err(refusal) = method.check() {
        context.error(format!("Unable to put method {place}: {}", refusal.message));
    }
    method.method_integration = integration;
    Ok(method)
}

/// Parameters of the path and of the operation; the operation's stand for the path's of the same name and place.
fn parameters<'a>(
    context: &mut Context<'a>,
    shared: &mut Shared<'a>,
    place: &str,
    verb: &str,
    path: &str,
    operation: &'a Map<String, Value>,
    method: &mut Method,
) -> Result<(), ImportError> {
    let own = match operation.get("parameters") {
        Some(Value::Array(list)) => list.as_slice(),
        Some(Value::Null) | None => &[],
        Some(_) => {
            context.warn(format!(
                "{place}: `parameters` is not a list and was not imported"
            ));
            &[]
        }
    };
    let mut declared: BTreeMap<String, bool> = BTreeMap::new();
    for value in shared.parameters.clone().into_iter().chain(own) {
        let Some(parameter) = resolve_object(context, place, value)? else {
            continue;
        };
        let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
        let location = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
        let required = context
            .flag(place, parameter, "required")
            .unwrap_or(location == "path");
        let location = match location {
            "query" => "querystring",
            "path" | "header" => location,
            "body" if context.version == Version::Swagger2 => {
                body_parameter(context, shared, place, verb, path, operation, parameter, method);
                continue;
            }
            other => {
                context.warn(format!(
                    "{place}: parameter `{name}` is in `{other}`, which is not supported; not imported"
                ));
                continue;
            }
        };
        if name.is_empty() {
            context.warn(format!("{place}: a parameter has no name; not imported"));
            continue;
        }
        declared.insert(format!("method.request.{location}.{name}"), required);
    }
    if !declared.is_empty() {
        method.request_parameters = Some(declared);
    }
    Ok(())
}

#[allow(
    clippy::too_many_arguments,
    reason = "one call site; a struct for it would say no more"
)]
fn body_parameter(
    context: &mut Context<'_>,
    shared: &mut Shared<'_>,
    place: &str,
    verb: &str,
    path: &str,
    operation: &Map<String, Value>,
    parameter: &Map<String, Value>,
    method: &mut Method,
) {
    let Some(schema) = parameter.get("schema") else {
        return;
    };
    let Some(model) = shared
        .schemas
        .model_for(context, place, &words(verb, path, "Request"), schema)
    else {
        return;
    };
    let media = context
        .texts(place, operation, "consumes")
        .unwrap_or_else(|| shared.consumes.clone());
    let media = if media.is_empty() {
        vec!["application/json".to_owned()]
    } else {
        media
    };
    method.request_models = Some(media.into_iter().map(|media| (media, model.clone())).collect());
}

/// Media type to model of a `content` object.
fn content_models(
    context: &mut Context<'_>,
    shared: &mut Shared<'_>,
    place: &str,
    suggestion: &str,
    content: Option<&Map<String, Value>>,
) -> BTreeMap<String, String> {
    let mut models = BTreeMap::new();
    for (media, value) in content.into_iter().flatten() {
        let Some(schema) = value.get("schema") else {
            continue;
        };
        if is_primitive(schema) {
            context.warn(format!(
                "{place}: the schema of `{media}` is no object; imported without a model"
            ));
            continue;
        }
        if let Some(model) = shared.schemas.model_for(context, place, suggestion, schema) {
            models.insert(media.clone(), model);
        }
    }
    models
}

fn responses<'a>(
    context: &mut Context<'a>,
    shared: &mut Shared<'a>,
    place: &str,
    verb: &str,
    path: &str,
    operation: &'a Map<String, Value>,
) -> Result<Option<BTreeMap<String, MethodResponse>>, ImportError> {
    let Some(by_status) = context.object(place, operation, "responses") else {
        return Ok(None);
    };
    let mut responses = BTreeMap::new();
    for (status, value) in by_status {
        if status.starts_with("x-") {
            continue;
        }
        let place = format!("{place} response {status}");
        if !(status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit())) {
            context.warn(format!(
                "{place}: a method's responses have status codes; not imported"
            ));
            continue;
        }
        let Some(members) = resolve_object(context, &place, value)? else {
            continue;
        };
        let suggestion = words(verb, path, &format!("Response{status}"));
        let models = match context.version {
            Version::OpenApi3 => {
                let content = context.object(&place, members, "content");
                content_models(context, shared, &place, &suggestion, content)
            }
            Version::Swagger2 => match members.get("schema") {
                Some(schema) if is_primitive(schema) => {
                    // QUO-162.
                    context.error(format!(
                        "{place}: the schema of a response must be an object, not a primitive"
                    ));
                    BTreeMap::new()
                }
                Some(schema) => {
                    let media = context
                        .texts(&place, operation, "produces")
                        .unwrap_or_else(|| shared.produces.clone());
                    let media = if media.is_empty() {
                        vec!["application/json".to_owned()]
                    } else {
                        media
                    };
                    match shared.schemas.model_for(context, &place, &suggestion, schema) {
                        Some(model) => media.into_iter().map(|media| (media, model.clone())).collect(),
                        None => BTreeMap::new(),
                    }
                }
                None => BTreeMap::new(),
            },
        };
        if members.contains_key("links") {
            context.warn(format!("{place}: `links` is not supported and was not imported"));
        }
        let headers = context.object(&place, members, "headers");
        let parameters: BTreeMap<String, bool> = headers
            .into_iter()
            .flatten()
            .map(|(name, _)| (format!("method.response.header.{name}"), false))
            .collect();
        responses.insert(
            status.clone(),
            MethodResponse {
                status_code: Some(status.clone()),
                response_parameters: Some(parameters).filter(|all| !all.is_empty()),
                response_models: Some(models).filter(|all| !all.is_empty()),
            },
        );
    }
    Ok(Some(responses).filter(|all| !all.is_empty()))
}

/// The operation's validator, else the document's (OAX-137).
fn validator(
    context: &mut Context<'_>,
    shared: &Shared<'_>,
    place: &str,
    operation: &Map<String, Value>,
) -> Option<String> {
    let name = match operation.get("x-amazon-apigateway-request-validator") {
        Some(value) => scalar(value)?,
        None => shared.validator.clone()?,
    };
    if !shared.validators.contains(&name) {
        context.error(format!("{place}: the request validator `{name}` is not defined"));
        return None;
    }
    Some(name)
}

/// A schema written in place whose value is neither object nor array.
fn is_primitive(schema: &Value) -> bool {
    target(schema).is_none()
        && matches!(
            schema.get("type").and_then(Value::as_str),
            Some("string" | "number" | "integer" | "boolean")
        )
}

/// A name for a schema that has none: `GetPetsPetIdResponse200`.
fn words(verb: &str, path: &str, suffix: &str) -> String {
    let mut name = String::new();
    for word in [verb.to_ascii_lowercase().as_str()]
        .into_iter()
        .chain(path.split(|c: char| !c.is_ascii_alphanumeric()))
    {
        let mut letters = word.chars();
        if let Some(first) = letters.next() {
            name.push(first.to_ascii_uppercase());
            name.extend(letters);
        }
    }
    name.push_str(suffix);
    name
}

/// The parameters that a path item states for all its operations.
pub(super) fn path_parameters<'a>(
    context: &mut Context<'a>,
    path: &str,
    item: &'a Map<String, Value>,
) -> Result<Vec<&'a Value>, ImportError> {
    match item.get("parameters") {
        Some(Value::Array(list)) => {
            let mut found = Vec::with_capacity(list.len());
            for value in list {
                found.extend(resolve(context, &format!("path '{path}'"), value)?);
            }
            Ok(found)
        }
        Some(Value::Null) | None => Ok(Vec::new()),
        Some(_) => {
            context.warn(format!(
                "path '{path}': `parameters` is not a list and was not imported"
            ));
            Ok(Vec::new())
        }
    }
}

fn known(version: Version) -> &'static [&'static str] {
    match version {
        Version::Swagger2 => &SWAGGER2,
        Version::OpenApi3 => &OPENAPI3,
    }
}

/// `summary`, `description`, `tags` and `deprecated` speak to people only (OAP-060, QUO-158).
const SWAGGER2: [&str; 15] = [
    "summary",
    "description",
    "tags",
    "deprecated",
    "externalDocs",
    "operationId",
    "parameters",
    "responses",
    "security",
    "consumes",
    "produces",
    "schemes",
    "x-amazon-apigateway-integration",
    "x-amazon-apigateway-auth",
    "x-amazon-apigateway-request-validator",
];

const OPENAPI3: [&str; 13] = [
    "summary",
    "description",
    "tags",
    "deprecated",
    "externalDocs",
    "operationId",
    "parameters",
    "responses",
    "security",
    "requestBody",
    "x-amazon-apigateway-integration",
    "x-amazon-apigateway-auth",
    "x-amazon-apigateway-request-validator",
];
