//! `x-amazon-apigateway-integration` (OAX-091 to OAX-131, OAP-052 to OAP-055).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::context::{Context, scalar};
use crate::model::{Integration, IntegrationResponse, Method, PassThrough, TlsConfig};

/// The integration of the method `verb path`; `method` learns of parameters that only the integration names.
/// `None`: what stands there is no integration of a REST API, which is a warning.
pub(super) fn read(
    context: &mut Context<'_>,
    place: &str,
    path: &str,
    members: &Map<String, Value>,
    method: &mut Method,
) -> Option<Integration> {
    context.leftovers(&format!("{place} integration"), members, &KNOWN);
    for name in HTTP_API_ONLY.iter().filter(|name| members.contains_key(**name)) {
        context.warn(format!(
            "{place}: `{name}` of the integration is for HTTP APIs and was not imported"
        ));
    }
    let upper = |text: Option<String>| text.map(|text| text.to_ascii_uppercase());
    let mut integration = Integration {
        kind: upper(context.text(place, members, "type")),
        http_method: upper(context.text(place, members, "httpMethod")),
        uri: context.text(place, members, "uri"),
        connection_type: upper(context.text(place, members, "connectionType")),
        connection_id: context.text(place, members, "connectionId"),
        credentials: context.text(place, members, "credentials"),
        request_parameters: context.text_map(place, members, "requestParameters"),
        request_templates: context.text_map(place, members, "requestTemplates"),
        passthrough_behavior: upper(context.text(place, members, "passthroughBehavior")),
        content_handling: upper(context.text(place, members, "contentHandling")),
        timeout_in_millis: context.number(place, members, "timeoutInMillis"),
        cache_namespace: context.text(place, members, "cacheNamespace"),
        cache_key_parameters: context.texts(place, members, "cacheKeyParameters"),
        integration_responses: responses(context, place, members),
        tls_config: tls(context, place, members),
        response_transfer_mode: upper(context.text(place, members, "responseTransferMode")),
        integration_target: context.text(place, members, "integrationTarget"),
        proxy_protocol: context.text(place, members, PROXY_PROTOCOL),
        pass_through: pass_through(context, place, members),
    };
    if members.contains_key("integrationSubtype") {
        context.warn(format!(
            "{place}: the integration calls a service in the manner of HTTP APIs; imported without it"
        ));
        return None;
    }
    drop_foreign_mappings(context, place, &mut integration);
    map_path_variables(path, &mut integration, method);
    declare_sources(context, place, &integration, method);
    if let Err(refusal) = integration.check() {
        if is_unresolved(&integration) {
            context.warn(format!(
                "{place}: the integration needs a value that only a template's other resources have ({}); imported \
                 without it",
                refusal.message
            ));
            return None;
        }
        context.error(format!(
            "Unable to put integration on {place}: {}",
            refusal.message
        ));
    }
    Some(integration)
}

/// A reference of a template stands where the backend's address should.
fn is_unresolved(integration: &Integration) -> bool {
    integration.uri.as_deref().is_some_and(|uri| {
        uri.match_indices("${")
            .any(|(at, _)| !uri[at..].starts_with("${stageVariables."))
    })
}

/// Mappings whose target no REST integration has: they are an HTTP API's.
fn drop_foreign_mappings(context: &mut Context<'_>, place: &str, integration: &mut Integration) {
    let Some(parameters) = &mut integration.request_parameters else {
        return;
    };
    parameters.retain(|name, value| {
        let ours = name.starts_with("integration.request.");
        if !ours {
            context.warn(format!(
                "{place}: mapping `{name}` is for HTTP APIs and was not imported"
            ));
        }
        // OPEN in the list of mappings: `$context.X` and `context.X` mean the same.
        if let Some(bare) = value.strip_prefix('$')
            && (bare.starts_with("context.") || bare.starts_with("stageVariables."))
        {
            *value = bare.to_owned();
        }
        ours
    });
}

/// SCN-081: a variable of the path that stands in the backend's URL means the same there, unless it is mapped.
fn map_path_variables(path: &str, integration: &mut Integration, method: &mut Method) {
    if !matches!(integration.kind.as_deref(), Some("HTTP" | "HTTP_PROXY")) {
        return;
    }
    let Some(uri) = integration.uri.as_deref() else {
        return;
    };
    for part in path.split('/') {
        let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
            continue;
        };
        let name = name.trim_end_matches('+');
        let target = format!("integration.request.path.{name}");
        let mapped = integration
            .request_parameters
            .as_ref()
            .is_some_and(|all| all.contains_key(&target));
        if uri.contains(&format!("{{{name}}}")) && !mapped {
            let source = format!("method.request.path.{name}");
            method
                .request_parameters
                .get_or_insert_default()
                .entry(source.clone())
                .or_insert(true);
            integration
                .request_parameters
                .get_or_insert_default()
                .insert(target, source);
        }
    }
}

/// OAX-116: what a mapping reads must be declared; where it is not, it is from now on.
fn declare_sources(context: &mut Context<'_>, place: &str, integration: &Integration, method: &mut Method) {
    for source in integration
        .request_parameters
        .iter()
        .flatten()
        .map(|(_, source)| source)
    {
        let Some(rest) = source.strip_prefix("method.request.") else {
            continue;
        };
        let location = rest.split('.').next().unwrap_or_default();
        if !matches!(
            location,
            "path" | "querystring" | "header" | "multivaluequerystring" | "multivalueheader"
        ) {
            continue;
        }
        let declared = method.request_parameters.get_or_insert_default();
        if !declared.contains_key(source) {
            declared.insert(source.clone(), location == "path");
            context.warn(format!(
                "{place}: a mapping reads `{source}`, which the operation does not declare; it was added"
            ));
        }
    }
}

/// `responses`: by pattern, or `default` (OAP-054, OAX-119 to OAX-127).
fn responses(
    context: &mut Context<'_>,
    place: &str,
    members: &Map<String, Value>,
) -> Option<BTreeMap<String, IntegrationResponse>> {
    let patterns = context.object(place, members, "responses")?;
    let mut responses: BTreeMap<String, IntegrationResponse> = BTreeMap::new();
    for (pattern, value) in patterns {
        let place = format!("{place} integration response `{pattern}`");
        let Value::Object(members) = value else {
            context.warn(format!("{place}: an object is expected; not imported"));
            continue;
        };
        context.leftovers(&place, members, &RESPONSE_KNOWN);
        let Some(status) = members.get("statusCode").and_then(scalar) else {
            context.error(format!("{place}: `statusCode` is missing"));
            continue;
        };
        let response = IntegrationResponse {
            status_code: Some(status.clone()),
            selection_pattern: (pattern != "default").then(|| pattern.clone()),
            response_parameters: context.text_map(&place, members, "responseParameters"),
            response_templates: context.text_map(&place, members, "responseTemplates"),
            content_handling: context
                .text(&place, members, "contentHandling")
                .map(|text| text.to_ascii_uppercase()),
        };
        if let Some(other) = responses.insert(status.clone(), response) {
            context.warn(format!(
                "{place}: status {status} was taken by `{}`; an integration has one response a status, the later one stays",
                other.selection_pattern.as_deref().unwrap_or("default")
            ));
        }
    }
    Some(responses)
}

fn tls(context: &mut Context<'_>, place: &str, members: &Map<String, Value>) -> Option<TlsConfig> {
    let config = context.object(place, members, "tlsConfig")?;
    if config.contains_key("serverNameToVerify") {
        context.warn(format!(
            "{place}: `serverNameToVerify` is for HTTP APIs and was not imported"
        ));
    }
    context.leftovers(
        &format!("{place} tlsConfig"),
        config,
        &["insecureSkipVerification", "serverNameToVerify"],
    );
    Some(TlsConfig {
        insecure_skip_verification: context.flag(place, config, "insecureSkipVerification"),
    })
}

const PROXY_PROTOCOL: &str = "x-tidegate-proxy-protocol";
/// `x-tidegate-pass-through` (decision D13).
fn pass_through(context: &mut Context<'_>, place: &str, members: &Map<String, Value>) -> Option<PassThrough> {
    let pass = context.object(place, members, PASS_THROUGH)?;
    let place = format!("{place} {PASS_THROUGH}");
    context.leftovers(
        &place,
        pass,
        &["upgrade", "trailers", "http2", "forwarded", "via"],
    );
    Some(PassThrough {
        upgrade: context.flag(&place, pass, "upgrade"),
        trailers: context.flag(&place, pass, "trailers"),
        http2: context.text(&place, pass, "http2"),
        forwarded: context.flag(&place, pass, "forwarded"),
        via: context.flag(&place, pass, "via"),
    })
}

const PASS_THROUGH: &str = "x-tidegate-pass-through";

const KNOWN: [&str; 24] = [
    "type",
    "uri",
    "httpMethod",
    "connectionType",
    "connectionId",
    "credentials",
    "cacheKeyParameters",
    "cacheNamespace",
    "contentHandling",
    "passthroughBehavior",
    "requestParameters",
    "requestTemplates",
    "responses",
    "timeoutInMillis",
    "tlsConfig",
    "responseTransferMode",
    "integrationTarget",
    PROXY_PROTOCOL,
    PASS_THROUGH,
    // Said in words of their own.
    "payloadFormatVersion",
    "integrationSubtype",
    "responseParameters",
    "authorizationType",
    "description",
];

/// OAX-102, OAX-103: members of HTTP APIs.
const HTTP_API_ONLY: [&str; 2] = ["payloadFormatVersion", "responseParameters"];

const RESPONSE_KNOWN: [&str; 4] = [
    "statusCode",
    "responseTemplates",
    "responseParameters",
    "contentHandling",
];
