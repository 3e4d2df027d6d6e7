//! What stands at a document's root: the API's own settings, validators, gateway responses, documentation, base path.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    BasePath,
    context::{Context, Version},
};
use crate::model::{
    DocumentationPart, DocumentationPartLocation, EndpointConfiguration, GatewayResponse, RequestValidator,
    RestApi,
};

/// The API's settings: title, version, media types, policy and the like.
pub(super) fn rest_api(context: &mut Context<'_>) -> RestApi {
    let root = context.root;
    let known = match context.version {
        Version::Swagger2 => &SWAGGER2[..],
        Version::OpenApi3 => &OPENAPI3[..],
    };
    let place = "document";
    let extensions: Vec<&str> = known.iter().chain(&EXTENSIONS).copied().collect();
    context.leftovers(place, root, &extensions);
    let info = context.object(place, root, "info");
    let info_text = |context: &mut Context<'_>, name: &str| {
        info.and_then(|info| context.text("info", info, name))
            .filter(|text| !text.trim().is_empty())
    };
    let mut api = RestApi {
        name: info_text(context, "title"),
        description: info_text(context, "description"),
        version: info_text(context, "version"),
        binary_media_types: context.texts(place, root, "x-amazon-apigateway-binary-media-types"),
        minimum_compression_size: context.number(place, root, "x-amazon-apigateway-minimum-compression-size"),
        api_key_source: context
            .text(place, root, "x-amazon-apigateway-api-key-source")
            .map(|text| text.to_ascii_uppercase()),
        policy: policy(context),
        ..RestApi::default()
    };
    endpoint(context, &mut api);
    if root.contains_key("security") {
        // QUO-163.
        context.warn("document: `security` at the root is not used; it must stand at the operations");
    }
    if root.contains_key("x-amazon-apigateway-cors") {
        // OAX-031.
        context.warn("document: `x-amazon-apigateway-cors` is for HTTP APIs and was not imported");
    }
    // The name is the caller's to check: an update may keep the one that is there.
    let mut named = api.clone();
    named.name.get_or_insert_with(|| "unnamed".to_owned());
    if let Err(refusal) = named.check() {
        context.error(refusal.message);
    }
    api
}

/// OAX-134. Short resources (`execute-api:/*`) become whole ARNs where the API's id is known (OAX-135).
fn policy(context: &mut Context<'_>) -> Option<String> {
    let policy = match context.root.get("x-amazon-apigateway-policy")? {
        Value::Null => return None,
        Value::String(text) => match serde_json::from_str(text) {
            Ok(policy) => policy,
            Err(error) => {
                context.error(format!("x-amazon-apigateway-policy is no JSON: {error}"));
                return None;
            }
        },
        value => value.clone(),
    };
    Some(policy.to_string())
}

/// OAX-077 to OAX-079: at the root in Swagger 2.0, in a server in OpenAPI 3.0; both are read.
fn endpoint(context: &mut Context<'_>, api: &mut RestApi) {
    let name = "x-amazon-apigateway-endpoint-configuration";
    let servers = context.root.get("servers").and_then(Value::as_array);
    let places =
        std::iter::once(context.root).chain(servers.into_iter().flatten().filter_map(Value::as_object));
    for place in places {
        let Some(members) = context.object("document", place, name) else {
            continue;
        };
        context.leftovers(
            name,
            members,
            &["disableExecuteApiEndpoint", "vpcEndpointIds", "ipAddressType"],
        );
        if let Some(flag) = context.flag(name, members, "disableExecuteApiEndpoint") {
            api.disable_execute_api_endpoint = Some(flag);
        }
        let ids = context.texts(name, members, "vpcEndpointIds");
        let family = context.text(name, members, "ipAddressType");
        if ids.is_some() || family.is_some() {
            let endpoint: &mut EndpointConfiguration = api.endpoint_configuration.get_or_insert_default();
            if ids.is_some() {
                // Only private APIs have them (OAX-079).
                endpoint.types = Some(vec!["PRIVATE".to_owned()]);
                endpoint.vpc_endpoint_ids = ids;
            } else {
                endpoint.types.get_or_insert_with(|| vec!["EDGE".to_owned()]);
            }
            endpoint.ip_address_type = family.or_else(|| endpoint.ip_address_type.take());
        }
    }
}

/// OAX-138 to OAX-140.
pub(super) fn validators(context: &mut Context<'_>) -> BTreeMap<String, RequestValidator> {
    let name = "x-amazon-apigateway-request-validators";
    let mut validators = BTreeMap::new();
    let members = context.object("document", context.root, name);
    for (key, value) in members.into_iter().flatten() {
        let place = format!("request validator `{key}`");
        let Value::Object(flags) = value else {
            context.warn(format!("{place}: an object is expected; not imported"));
            continue;
        };
        context.leftovers(
            &place,
            flags,
            &["validateRequestBody", "validateRequestParameters"],
        );
        validators.insert(
            key.clone(),
            RequestValidator {
                id: None,
                name: Some(key.clone()),
                validate_request_body: Some(
                    context
                        .flag(&place, flags, "validateRequestBody")
                        .unwrap_or(false),
                ),
                validate_request_parameters: Some(
                    context
                        .flag(&place, flags, "validateRequestParameters")
                        .unwrap_or(false),
                ),
            },
        );
    }
    validators
}

/// OAX-080 to OAX-087.
pub(super) fn gateway_responses(context: &mut Context<'_>) -> BTreeMap<String, GatewayResponse> {
    let mut responses = BTreeMap::new();
    let members = context.object("document", context.root, "x-amazon-apigateway-gateway-responses");
    for (kind, value) in members.into_iter().flatten() {
        let place = format!("gateway response {kind}");
        let Value::Object(members) = value else {
            context.warn(format!("{place}: an object is expected; not imported"));
            continue;
        };
        context.leftovers(
            &place,
            members,
            &["statusCode", "responseParameters", "responseTemplates"],
        );
        let mut parameters: Option<BTreeMap<String, String>> =
            context.text_map(&place, members, "responseParameters");
        if let Some(parameters) = &mut parameters {
            parameters.retain(|name, _| {
                let has_effect = !["path", "querystring"]
                    .iter()
                    .any(|location| name.starts_with(&format!("gatewayresponse.{location}.")));
                if !has_effect {
                    context.warn(format!(
                        "{place}: `{name}` has no effect on a response and was not imported"
                    ));
                }
                has_effect
            });
        }
        let response = GatewayResponse {
            response_type: Some(kind.clone()),
            status_code: context.text(&place, members, "statusCode"),
            response_parameters: parameters,
            response_templates: context.text_map(&place, members, "responseTemplates"),
            default_response: Some(false),
        };
        match response.check() {
            Ok(()) => {
                responses.insert(kind.clone(), response);
            }
            Err(refusal) => context.error(format!("{place}: {}", refusal.message)),
        }
    }
    responses
}

/// OAX-073 to OAX-076, OBV-143, OBV-145.
pub(super) fn documentation(context: &mut Context<'_>) -> Vec<DocumentationPart> {
    let name = "x-amazon-apigateway-documentation";
    let Some(members) = context.object("document", context.root, name) else {
        return Vec::new();
    };
    // A version is made by publishing, not by importing.
    context.leftovers(
        name,
        members,
        &["documentationParts", "version", "createdDate", "description"],
    );
    let mut parts = Vec::new();
    let list = members.get("documentationParts").and_then(Value::as_array);
    for (index, value) in list.into_iter().flatten().enumerate() {
        let place = format!("documentation part {}", index + 1);
        let location = value.get("location").and_then(Value::as_object);
        let Some(location) = location else {
            context.warn(format!("{place}: `location` is missing; not imported"));
            continue;
        };
        let kind = context
            .text(&place, location, "type")
            .map(|kind| kind.to_ascii_uppercase());
        let has_path = !matches!(kind.as_deref(), Some("API" | "MODEL" | "AUTHORIZER"));
        let path = context.text(&place, location, "path");
        let part = DocumentationPart {
            id: None,
            location: Some(DocumentationPartLocation {
                kind,
                path: if has_path {
                    Some(path.unwrap_or_else(|| "/".to_owned()))
                } else {
                    None
                },
                method: context.text(&place, location, "method"),
                status_code: context.text(&place, location, "statusCode"),
                name: context.text(&place, location, "name"),
            }),
            properties: match value.get("properties") {
                Some(Value::String(text)) => Some(text.clone()),
                Some(value) => Some(value.to_string()),
                None => None,
            },
        };
        match part.check() {
            Ok(()) => parts.push(part),
            Err(refusal) => context.error(format!("{place}: {}", refusal.message)),
        }
    }
    parts
}

/// What goes in front of every path, without a slash at its end; empty: nothing (OAP-029 to OAP-039).
pub(super) fn base_path(context: &mut Context<'_>) -> String {
    let stated = match context.version {
        Version::Swagger2 => context
            .text("document", context.root, "basePath")
            .unwrap_or_default(),
        Version::OpenApi3 => server_path(context.root),
    };
    let segments: Vec<&str> = stated.split('/').filter(|segment| !segment.is_empty()).collect();
    let kept = match context.options.base_path {
        BasePath::Ignore => &[][..],
        BasePath::Prepend => &segments[..],
        BasePath::Split => segments.get(1..).unwrap_or_default(),
    };
    kept.iter().map(|segment| format!("/{segment}")).collect()
}

/// The first `basePath` variable of any server, else the path of the first server's URL.
fn server_path(root: &Map<String, Value>) -> String {
    // `servers` is a list; some documents have one server in its place.
    let servers: Vec<&Value> = match root.get("servers") {
        Some(Value::Array(list)) => list.iter().collect(),
        Some(server @ Value::Object(_)) => vec![server],
        _ => return String::new(),
    };
    let default = |server: &Value, name: &str| {
        server
            .get("variables")?
            .get(name)?
            .get("default")?
            .as_str()
            .map(str::to_owned)
    };
    if let Some(path) = servers.iter().find_map(|server| default(server, "basePath")) {
        return path;
    }
    let Some(server) = servers.first() else {
        return String::new();
    };
    let url = server.get("url").and_then(Value::as_str).unwrap_or_default();
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => url,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.split('/')
        .map(
            |segment| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) => default(server, name).unwrap_or_else(|| segment.to_owned()),
                None => segment.to_owned(),
            },
        )
        .collect::<Vec<_>>()
        .join("/")
}

/// `tags` and `externalDocs` speak to people only.
const SWAGGER2: [&str; 15] = [
    "swagger",
    "info",
    "host",
    "basePath",
    "schemes",
    "consumes",
    "produces",
    "paths",
    "definitions",
    "parameters",
    "responses",
    "securityDefinitions",
    "security",
    "tags",
    "externalDocs",
];

const OPENAPI3: [&str; 8] = [
    "openapi",
    "info",
    "servers",
    "paths",
    "components",
    "security",
    "tags",
    "externalDocs",
];

/// OAX-001 to OAX-018: those that may stand at the root. The version of HTTP API imports is ignored (OAX-090).
const EXTENSIONS: [&str; 11] = [
    "x-amazon-apigateway-api-key-source",
    "x-amazon-apigateway-binary-media-types",
    "x-amazon-apigateway-cors",
    "x-amazon-apigateway-documentation",
    "x-amazon-apigateway-endpoint-configuration",
    "x-amazon-apigateway-gateway-responses",
    "x-amazon-apigateway-importexport-version",
    "x-amazon-apigateway-minimum-compression-size",
    "x-amazon-apigateway-policy",
    "x-amazon-apigateway-request-validator",
    "x-amazon-apigateway-request-validators",
];
