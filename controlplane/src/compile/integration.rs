//! Integrations become what a shard runs.

use std::collections::BTreeMap;

use tidegate_plan::custom::mock_status;
use tidegate_plan::pattern::Pattern;
use tidegate_proto::config::v1::{self as config, ParameterLocation, integration::Kind};

use super::{Warnings, custom, function::Functions, mapping, uri};
use crate::model::{BackendHttp2, Integration, IntegrationResponse, IntegrationType, Method, PassThrough};

/// A step that answers the service's 500.
pub(super) fn broken(reason: String) -> config::Integration {
    config::Integration {
        kind: Some(Kind::Broken(config::Broken { reason })),
        timeout_ms: 0,
    }
}

/// What an API does to payloads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recoding {
    /// It has binary media types, so that payloads may be converted.
    pub(super) binary: bool,
    /// It compresses answers.
    pub(super) compressed: bool,
}

/// Compiles a method's integration; `at` names the method in warnings. `recoding`: what
/// the API does to payloads whatever the method.
pub(super) fn compile(
    at: &str,
    method: &Method,
    recoding: Recoding,
    variables: &BTreeMap<String, String>,
    functions: &Functions<'_>,
    warnings: &mut Warnings,
) -> config::Integration {
    let Some(integration) = &method.method_integration else {
        return refuse(at, "no integration is defined".into(), warnings);
    };
    let timeout_ms = integration
        .timeout_in_millis
        .and_then(|timeout| u32::try_from(timeout).ok())
        .unwrap_or(0);
    if integration
        .cache_key_parameters
        .as_ref()
        .is_some_and(|parameters| !parameters.is_empty())
    {
        warnings.add(format!("{at}: cacheKeyParameters: responses are not cached yet"));
    }
    let kind = match integration.integration_type() {
        Some(IntegrationType::HttpProxy) => {
            if integration.content_handling.is_some() {
                warnings.add(format!(
                    "{at}: contentHandling: HTTP_PROXY passes payloads as they are"
                ));
            }
            http(at, integration, false, variables, warnings).map(Kind::HttpProxy)
        }
        Some(IntegrationType::Http) => {
            http_with_responses(at, method, integration, recoding.binary, variables, warnings)
        }
        Some(IntegrationType::Mock) => mock(
            at,
            method,
            integration,
            recoding.binary || recoding.compressed,
            warnings,
        ),
        Some(IntegrationType::AwsProxy) => functions
            .lambda_proxy(at, integration, variables, warnings)
            .map(Kind::LambdaProxy),
        Some(IntegrationType::Aws) => Err("integration type AWS is not supported yet".into()),
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

/// `filled`: placeholders may be filled by a template, so that none needs a mapping.
fn http(
    at: &str,
    integration: &Integration,
    filled: bool,
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
    if integration.pass_through.as_ref().and_then(pass_through).is_some()
        && parameters.iter().any(mapping::is_rich)
    {
        return Err("passThrough and mappings of bodies or of repeated parameters exclude each other".into());
    }
    let backend = uri::parse(&uri::substitute(written, variables))?;
    for name in &backend.placeholders {
        let mapped = parameters
            .iter()
            .any(|mapping| mapping.target() == ParameterLocation::Path && mapping.target_name == *name);
        if !mapped && !filled {
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
    converts: bool,
    variables: &BTreeMap<String, String>,
    warnings: &mut Warnings,
) -> Result<Kind, String> {
    let templates = integration.request_templates.as_ref();
    let filled = templates.is_some_and(|templates| !templates.is_empty());
    let mut proxy = http(at, integration, filled, variables, warnings)?;
    if converts || custom::reshapes(integration, &proxy.parameters) {
        let parameters = std::mem::take(&mut proxy.parameters);
        let backend = config::custom::Backend::Http(proxy);
        return custom::custom(at, method, integration, backend, parameters, warnings).map(Kind::Custom);
    }
    for response in custom::ordered(integration) {
        let pattern = response.selection_pattern.clone().unwrap_or_default();
        if !pattern.is_empty() {
            Pattern::parse(&pattern).map_err(|error| format!("the selection pattern {error}"))?;
        }
        proxy.responses.push(config::ResponseSelection {
            pattern,
            status: status(method, response)?,
            headers: headers(response),
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
    converts: bool,
    warnings: &mut Warnings,
) -> Result<Kind, String> {
    if converts || !custom::is_fixed_mock(integration) {
        let backend = config::custom::Backend::Mock(config::PlayedBackend {});
        // OBV-096: kept, and never used.
        let parameters = Vec::new();
        return custom::custom(at, method, integration, backend, parameters, warnings).map(Kind::Custom);
    }
    let templates = integration.request_templates.iter().flatten();
    let template = templates
        .map(|(_, text)| text.as_str())
        .next()
        .unwrap_or_default();
    if mock_status(template).is_none() {
        return Err("the request template of the MOCK integration names no statusCode".into());
    }
    let ordered = custom::ordered(integration);
    let response = ordered.first().ok_or("no integration response is defined")?;
    let templates = response.response_templates.iter().flatten();
    let (content_type, body) = match templates.into_iter().next() {
        Some((media, body)) => (media.clone(), body.clone()),
        None => ("application/json".to_owned(), String::new()),
    };
    Ok(Kind::Mock(config::Mock {
        status: status(method, response)?,
        body,
        content_type,
        headers: headers(response),
    }))
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

/// The response headers, which are the same for every answer.
fn headers(response: &IntegrationResponse) -> BTreeMap<String, String> {
    let parameters = response.response_parameters.iter().flatten();
    parameters
        .into_iter()
        .filter_map(|(target, source)| {
            let name = target.strip_prefix("method.response.header.")?;
            Some((name.to_owned(), mapping::literal(source)?.to_owned()))
        })
        .collect()
}
