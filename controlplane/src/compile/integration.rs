//! Integrations become what a shard runs.

use std::collections::BTreeMap;

use regex::Regex;
use tidegate_proto::config::v1::{self as config, ParameterLocation, integration::Kind};

use super::{Warnings, mapping, uri};
use crate::model::{BackendHttp2, Integration, IntegrationResponse, IntegrationType, Method, PassThrough};

/// A step that answers the service's 500.
pub(super) fn broken(reason: String) -> config::Integration {
    config::Integration {
        kind: Some(Kind::Broken(config::Broken { reason })),
        timeout_ms: 0,
    }
}

/// Compiles a method's integration; `at` names the method in warnings.
pub(super) fn compile(
    at: &str,
    method: &Method,
    variables: &BTreeMap<String, String>,
    warnings: &mut Warnings,
) -> config::Integration {
    let Some(integration) = &method.method_integration else {
        return refuse(at, "no integration is defined".into(), warnings);
    };
    let timeout_ms = integration
        .timeout_in_millis
        .and_then(|timeout| u32::try_from(timeout).ok())
        .unwrap_or(0);
    if integration.content_handling.is_some() {
        warnings.add(format!("{at}: contentHandling: payloads are passed as they are"));
    }
    if integration
        .cache_key_parameters
        .as_ref()
        .is_some_and(|parameters| !parameters.is_empty())
    {
        warnings.add(format!("{at}: cacheKeyParameters: responses are not cached yet"));
    }
    let kind = match integration.integration_type() {
        Some(IntegrationType::HttpProxy) => http(at, integration, variables, warnings).map(Kind::HttpProxy),
        Some(IntegrationType::Http) => http_with_responses(at, method, integration, variables, warnings),
        Some(IntegrationType::Mock) => mock(at, method, integration, warnings).map(Kind::Mock),
        Some(kind @ (IntegrationType::Aws | IntegrationType::AwsProxy)) => {
            let name = if kind == IntegrationType::Aws {
                "AWS"
            } else {
                "AWS_PROXY"
            };
            Err(format!("integration type {name} is not supported yet"))
        }
        None => Err("the integration has no known type".into()),
    };
    match kind {
        Ok(kind) => config::Integration {
            kind: Some(kind),
            timeout_ms,
        },
        Err(reason) => refuse(at, reason, warnings),
    }
}

fn refuse(at: &str, reason: String, warnings: &mut Warnings) -> config::Integration {
    warnings.add(format!("{at}: {reason}: the method answers 500"));
    broken(reason)
}

fn http(
    at: &str,
    integration: &Integration,
    variables: &BTreeMap<String, String>,
    warnings: &mut Warnings,
) -> Result<config::HttpProxy, String> {
    if integration.connection_type.as_deref() == Some("VPC_LINK") {
        return Err("VPC links are not supported yet".into());
    }
    if integration.integration_type() == Some(IntegrationType::HttpProxy)
        && integration
            .request_templates
            .as_ref()
            .is_some_and(|templates| !templates.is_empty())
    {
        // OBV-101, OBV-258: accepted and ignored, there as here.
        warnings.add(format!(
            "{at}: requestTemplates: HTTP_PROXY integrations ignore them"
        ));
    }
    let parameters = mapping::request(
        integration
            .request_parameters
            .as_ref()
            .unwrap_or(&BTreeMap::new()),
    )?;
    let written = integration.uri.as_deref().unwrap_or_default();
    if warnings.without_variables && uri::has_variables(written) {
        return Ok(config::HttpProxy::default());
    }
    let backend = uri::parse(&uri::substitute(written, variables))?;
    for name in &backend.placeholders {
        let mapped = parameters
            .iter()
            .any(|mapping| mapping.target() == ParameterLocation::Path && mapping.target_name == *name);
        if !mapped {
            return Err(format!(
                "nothing is mapped to integration.request.path.{name}, which the URI needs"
            ));
        }
    }
    Ok(config::HttpProxy {
        http_method: integration
            .http_method
            .as_deref()
            .unwrap_or("ANY")
            .to_ascii_uppercase(),
        scheme: backend.scheme.into(),
        host: backend.host,
        port: backend.port.into(),
        path: backend.path,
        parameters,
        insecure_skip_verification: integration
            .tls_config
            .as_ref()
            .and_then(|tls| tls.insecure_skip_verification)
            .unwrap_or(false),
        responses: Vec::new(),
        proxy_protocol: match integration.proxy_protocol.as_deref() {
            Some("v1") => config::ProxyProtocol::V1,
            Some("v2") => config::ProxyProtocol::V2,
            _ => config::ProxyProtocol::Unspecified,
        }
        .into(),
        pass_through: integration.pass_through.as_ref().and_then(pass_through),
    })
}

/// `None` where nothing is on: such a method is a plain one to the data plane.
fn pass_through(pass: &PassThrough) -> Option<config::PassThrough> {
    let http2 = match pass.http2.as_deref().and_then(BackendHttp2::parse) {
        None => config::BackendHttp2::Unspecified,
        Some(BackendHttp2::PriorKnowledge) => config::BackendHttp2::PriorKnowledge,
        Some(BackendHttp2::Alpn) => config::BackendHttp2::Alpn,
    };
    let compiled = config::PassThrough {
        upgrade: pass.upgrade.unwrap_or(false),
        trailers: pass.trailers.unwrap_or(false),
        http2: http2.into(),
        forwarded: pass.forwarded.unwrap_or(false),
        via: pass.via.unwrap_or(false),
    };
    (compiled != config::PassThrough::default()).then_some(compiled)
}

fn http_with_responses(
    at: &str,
    method: &Method,
    integration: &Integration,
    variables: &BTreeMap<String, String>,
    warnings: &mut Warnings,
) -> Result<Kind, String> {
    if integration
        .request_templates
        .as_ref()
        .is_some_and(|templates| !templates.is_empty())
    {
        return Err("request templates are not supported yet".into());
    }
    if integration.passthrough_behavior.as_deref() == Some("NEVER") {
        return Err("passthroughBehavior NEVER without templates takes no request".into());
    }
    let mut proxy = http(at, integration, variables, warnings)?;
    for response in ordered(integration) {
        let pattern = response.selection_pattern.clone().unwrap_or_default();
        if !pattern.is_empty() {
            full_match(&pattern)?;
        }
        if has_templates(response) {
            return Err("response templates are not supported yet".into());
        }
        proxy.responses.push(config::ResponseSelection {
            pattern,
            status: status(method, response)?,
            headers: headers(at, response, warnings),
        });
    }
    if proxy.responses.is_empty() {
        // RES-116: nothing to select is a configuration error.
        return Err("no integration response is defined".into());
    }
    Ok(Kind::Http(proxy))
}

fn mock(
    at: &str,
    method: &Method,
    integration: &Integration,
    warnings: &mut Warnings,
) -> Result<config::Mock, String> {
    let templates = integration.request_templates.iter().flatten();
    let template = templates
        .clone()
        .find(|(media, _)| media.as_str() == "application/json")
        .or_else(|| templates.clone().next())
        .map(|(_, template)| template.as_str())
        .ok_or("a MOCK integration without request template has no status")?;
    if is_dynamic(template) {
        return Err("request templates with references or directives are not supported yet".into());
    }
    let code =
        mock_status(template).ok_or("the request template of the MOCK integration names no statusCode")?;
    let response = select(integration, code)?;
    let status = status(method, response)?;
    let templates = response.response_templates.iter().flatten();
    let chosen = templates
        .clone()
        .find(|(media, _)| media.as_str() == "application/json")
        .or_else(|| templates.clone().next());
    let (content_type, body) = match chosen {
        Some((_, body)) if is_dynamic(body) => {
            return Err("response templates with references or directives are not supported yet".into());
        }
        Some((media, body)) => (media.clone(), body.clone()),
        None => ("application/json".to_owned(), String::new()),
    };
    Ok(config::Mock {
        status,
        body,
        content_type,
        headers: headers(at, response, warnings),
    })
}

/// The status that a mock's request template names; the key may stand without quotes (OBV-225), and anything may stand
/// before the object (OBV-226).
fn mock_status(template: &str) -> Option<u16> {
    let (_, rest) = template.split_once("statusCode")?;
    let value = rest
        .trim_start_matches(['"', '\'', ' ', '\t', '\n', '\r'])
        .strip_prefix(':')?;
    let digits: String = value
        .trim_start_matches(['"', '\'', ' ', '\t', '\n', '\r'])
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok().filter(|status| (100..=599).contains(status))
}

/// The response for a backend's status: the first whose pattern matches all of it, else the default (RES-112, OBV-227).
fn select(integration: &Integration, code: u16) -> Result<&IntegrationResponse, String> {
    let text = code.to_string();
    for response in ordered(integration) {
        if response.is_default()
            || full_match(response.selection_pattern.as_deref().unwrap_or_default())?.is_match(&text)
        {
            return Ok(response);
        }
    }
    Err(format!("no integration response is selected by status {code}"))
}

/// In the order in which they are tried: by status, the default last.
fn ordered(integration: &Integration) -> Vec<&IntegrationResponse> {
    let mut all: Vec<_> = integration
        .integration_responses
        .iter()
        .flatten()
        .map(|(_, response)| response)
        .collect();
    all.sort_by_key(|response| response.is_default());
    all
}

/// A pattern that has to match the whole text, as the service's do (RES-114).
fn full_match(pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?s:{pattern})$"))
        .map_err(|_| format!("the selection pattern {pattern} cannot be read as a regular expression"))
}

/// The client's status; one that the method does not declare is a configuration error (RES-080, RES-118).
fn status(method: &Method, response: &IntegrationResponse) -> Result<u32, String> {
    let code = response.status_code.as_deref().unwrap_or_default();
    if !method
        .method_responses
        .as_ref()
        .is_some_and(|declared| declared.contains_key(code))
    {
        return Err(format!("the integration response {code} has no method response"));
    }
    code.parse().map_err(|_| format!("{code} is no status"))
}

/// The response headers that are the same for every answer.
fn headers(at: &str, response: &IntegrationResponse, warnings: &mut Warnings) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (target, source) in response.response_parameters.iter().flatten() {
        let name = target.strip_prefix("method.response.header.");
        match (name, mapping::literal(source)) {
            (Some(name), Some(value)) => {
                headers.insert(name.to_owned(), value.to_owned());
            }
            _ => warnings.add(format!(
                "{at}: response parameter {target} = {source} is not supported yet: left out"
            )),
        }
    }
    headers
}

fn has_templates(response: &IntegrationResponse) -> bool {
    response
        .response_templates
        .as_ref()
        .is_some_and(|templates| !templates.is_empty())
}

/// Whether a template is more than its text.
fn is_dynamic(template: &str) -> bool {
    template.contains(['$', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-225, OBV-226, RES-109: the status of a mock.
    #[test]
    fn mock_statuses() {
        for (template, status) in [
            (r#"{"statusCode": 200}"#, Some(200)),
            ("{statusCode: 200}", Some(200)),
            ("\n\n null {\"statusCode\" : \"503\"}", Some(503)),
            ("{}", None),
            (r#"{"statusCode": 20}"#, None),
        ] {
            assert_eq!(mock_status(template), status, "{template}");
        }
    }

    /// RES-114, OBV-227: patterns match the whole status.
    #[test]
    fn patterns() {
        assert!(full_match(r"2\d{2}").expect("reads").is_match("200"));
        assert!(!full_match("20").expect("reads").is_match("200"));
        assert!(full_match("4..|5..").expect("reads").is_match("503"));
        assert!(!full_match("4..|5..").expect("reads").is_match("5031"));
        assert!(full_match("(").is_err());
    }
}
