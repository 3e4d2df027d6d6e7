//! From an integration's message to the plan's types.

use std::sync::Arc;

use tidegate_plan::custom::{
    Backend, Choice, ContentHandling, Custom, IntegrationResponse, Passthrough, ResponseSource, Templates,
};
use tidegate_plan::integration::{
    BackendMethod, BodyPath, IntegrationError, Lambda, Mapping, MappingSource, MappingTarget, Mock,
    ResponseSelection, UriPartSpec,
};
use tidegate_plan::pattern::Pattern;
use tidegate_plan::{
    BackendHttp2, HeaderName, HeaderValue, HttpBackend, Integration, PassThrough, PlanBuilder, ProxyProtocol,
    Status, Target, TargetIndex, Verb,
};
use tidegate_proto::config::v1 as proto;
use tidegate_vtl::Template;

use super::content::{ContentError, headers};

/// Says of which method a part cannot be used.
type Fails<'a> = &'a dyn Fn(IntegrationError) -> ContentError;
/// Says which part of a method this version does not know.
type Unknown<'a> = &'a dyn Fn(&'static str) -> ContentError;

/// What answers a method.
pub(super) fn integration(
    integration: proto::Integration,
    builder: &mut PlanBuilder,
    fails: Fails<'_>,
    unknown: Unknown<'_>,
) -> Result<Integration, ContentError> {
    let timeout = integration.timeout_ms;
    Ok(match integration.kind {
        Some(proto::integration::Kind::HttpProxy(http)) => {
            Integration::HttpProxy(Box::new(backend(http, timeout, builder, fails, unknown)?))
        }
        Some(proto::integration::Kind::Http(http)) => {
            Integration::Http(Box::new(backend(http, timeout, builder, fails, unknown)?))
        }
        Some(proto::integration::Kind::Mock(mock)) => {
            let content_type = match mock.content_type.is_empty() {
                true => None,
                false => Some(HeaderValue::parse(mock.content_type.as_bytes())?),
            };
            Integration::Mock(Box::new(Mock {
                status: Status::new(mock.status)?,
                headers: headers(mock.headers)?.into(),
                content_type,
                body: mock.body.into_bytes().into(),
            }))
        }
        Some(proto::integration::Kind::Custom(one)) => {
            Integration::Custom(Box::new(custom(one, timeout, builder, fails, unknown)?))
        }
        Some(proto::integration::Kind::LambdaProxy(lambda)) => Integration::LambdaProxy(Box::new(
            Lambda::new(&lambda.function, &lambda.credentials, timeout).map_err(fails)?,
        )),
        Some(proto::integration::Kind::Broken(broken)) => Integration::Broken(broken.reason.into()),
        None => return Err(unknown("the integration")),
    })
}

/// A backend's address, method and URI.
struct Called {
    target: Target,
    index: TargetIndex,
    method: BackendMethod,
    uri: Vec<UriPartSpec>,
}

fn called(
    http: &mut proto::HttpProxy,
    builder: &mut PlanBuilder,
    fails: Fails<'_>,
    unknown: Unknown<'_>,
) -> Result<Called, ContentError> {
    let target = Target::new(
        &http.scheme,
        &http.host,
        http.port,
        http.insecure_skip_verification,
    )
    .map_err(fails)?
    .with_proxy_protocol(match proto::ProxyProtocol::try_from(http.proxy_protocol) {
        Ok(proto::ProxyProtocol::Unspecified) => None,
        Ok(proto::ProxyProtocol::V1) => Some(ProxyProtocol::V1),
        Ok(proto::ProxyProtocol::V2) => Some(ProxyProtocol::V2),
        Err(_) => return Err(unknown("the version of the PROXY protocol")),
    });
    let index = builder.target(target.clone())?;
    let method = match http.http_method.as_str() {
        "ANY" => BackendMethod::Same,
        verb => BackendMethod::Fixed(
            Verb::from_token(verb.as_bytes()).ok_or_else(|| unknown("the backend's method"))?,
        ),
    };
    let uri = std::mem::take(&mut http.path)
        .into_iter()
        .map(|part| match part.part {
            Some(proto::uri_part::Part::Literal(text)) => Ok(UriPartSpec::Literal(text)),
            Some(proto::uri_part::Part::PathParameter(name)) => Ok(UriPartSpec::PathParameter(name)),
            Some(proto::uri_part::Part::StageVariable(name)) => Ok(UriPartSpec::StageVariable(name)),
            None => Err(unknown("a part of the URI")),
        })
        .collect::<Result<_, _>>()?;
    Ok(Called {
        target,
        index,
        method,
        uri,
    })
}

fn backend(
    mut http: proto::HttpProxy,
    timeout: u32,
    builder: &mut PlanBuilder,
    fails: Fails<'_>,
    unknown: Unknown<'_>,
) -> Result<HttpBackend, ContentError> {
    let called = called(&mut http, builder, fails, unknown)?;
    let mappings = mappings(http.parameters, fails, unknown)?;
    let responses = http
        .responses
        .into_iter()
        .map(|one| {
            Ok(ResponseSelection {
                pattern: Some(one.pattern)
                    .filter(|pattern| !pattern.is_empty())
                    .map(Into::into),
                status: Status::new(one.status)?,
                headers: headers(one.headers)?.into(),
            })
        })
        .collect::<Result<_, ContentError>>()?;
    let backend = HttpBackend::new(
        called.index,
        called.method,
        called.uri,
        mappings,
        responses,
        timeout,
    );
    let backend = backend.map_err(fails)?;
    match http.pass_through {
        None => Ok(backend),
        Some(pass) => {
            let pass = pass_through(pass, unknown)?;
            backend.with_pass_through(pass, &called.target).map_err(fails)
        }
    }
}

fn mappings(
    parameters: Vec<proto::ParameterMapping>,
    fails: Fails<'_>,
    unknown: Unknown<'_>,
) -> Result<Vec<Mapping>, ContentError> {
    use proto::ParameterLocation as Location;
    let one = |mapping: proto::ParameterMapping| {
        let target = match mapping.target() {
            Location::Path => MappingTarget::Path,
            Location::Query => MappingTarget::Query,
            Location::Header => MappingTarget::Header,
            _ => return Err(unknown("what a mapping fills")),
        };
        let name = mapping.source_name.as_str();
        let source = match mapping.source() {
            Location::Path => MappingSource::path(name),
            Location::Query => MappingSource::Query(name.into()),
            Location::Queries => MappingSource::Queries(name.into()),
            Location::Header => MappingSource::Header(name.into()),
            Location::Headers => MappingSource::Headers(name.into()),
            Location::Body => MappingSource::Body,
            Location::BodyPath => MappingSource::BodyPath(body_path(name, unknown)?),
            Location::Literal => MappingSource::Literal(name.into()),
            Location::StageVariable => MappingSource::StageVariable(name.into()),
            Location::Context => MappingSource::Context(name.into()),
            Location::Unspecified => return Err(unknown("the source of a mapping")),
        };
        Mapping::new(target, &mapping.target_name, source).map_err(fails)
    };
    parameters.into_iter().map(one).collect()
}

fn body_path(text: &str, unknown: Unknown<'_>) -> Result<BodyPath, ContentError> {
    BodyPath::parse(text).map_err(|_| unknown("a JSONPath"))
}

fn custom(
    custom: proto::Custom,
    timeout: u32,
    builder: &mut PlanBuilder,
    fails: Fails<'_>,
    unknown: Unknown<'_>,
) -> Result<Custom, ContentError> {
    let passthrough = match custom.passthrough() {
        proto::Passthrough::Unspecified => Passthrough::WhenNoMatch,
        proto::Passthrough::WhenNoTemplates => Passthrough::WhenNoTemplates,
        proto::Passthrough::Never => Passthrough::Never,
    };
    let content_handling = handling(custom.content_handling, unknown)?;
    let backend = match custom.backend {
        Some(proto::custom::Backend::Mock(proto::PlayedBackend {})) => Backend::Mock,
        Some(proto::custom::Backend::Http(mut http)) => {
            let called = called(&mut http, builder, fails, unknown)?;
            let made = HttpBackend::behind_templates(called.index, called.method, called.uri, timeout);
            Backend::Http(made.map_err(fails)?)
        }
        None => return Err(unknown("what a custom integration calls")),
    };
    let responses = custom
        .responses
        .into_iter()
        .map(|one| response(one, unknown))
        .collect::<Result<_, _>>()?;
    Ok(Custom {
        backend,
        mappings: mappings(custom.parameters, fails, unknown)?.into(),
        templates: templates(custom.request_templates, unknown)?,
        passthrough,
        content_handling,
        responses,
    })
}

fn handling(number: i32, unknown: Unknown<'_>) -> Result<Option<ContentHandling>, ContentError> {
    match proto::ContentHandling::try_from(number) {
        Ok(proto::ContentHandling::Unspecified) => Ok(None),
        Ok(proto::ContentHandling::ConvertToBinary) => Ok(Some(ContentHandling::ToBinary)),
        Ok(proto::ContentHandling::ConvertToText) => Ok(Some(ContentHandling::ToText)),
        Err(_) => Err(unknown("how content is handled")),
    }
}

fn templates(templates: Vec<proto::Template>, unknown: Unknown<'_>) -> Result<Templates, ContentError> {
    let one = |template: proto::Template| {
        let choice = match template.text.is_empty() {
            true => Choice::Unmapped,
            false => {
                let parsed = Template::parse(&template.text).map_err(|_| unknown("a mapping template"))?;
                Choice::Template(Arc::new(parsed))
            }
        };
        Ok((template.media_type.into_boxed_str(), choice))
    };
    let all: Vec<_> = templates
        .into_iter()
        .map(one)
        .collect::<Result<_, ContentError>>()?;
    Ok(Templates::new(all))
}

fn response(
    response: proto::IntegrationResponse,
    unknown: Unknown<'_>,
) -> Result<IntegrationResponse, ContentError> {
    let content_handling = handling(response.content_handling, unknown)?;
    let headers = response
        .headers
        .into_iter()
        .map(|one| header(one, unknown))
        .collect::<Result<_, _>>()?;
    Ok(IntegrationResponse {
        pattern: match response.pattern.as_str() {
            "" => None,
            pattern => Some(Pattern::parse(pattern).map_err(|_| unknown("a selection pattern"))?),
        },
        status: match response.status {
            0 => None,
            status => Some(Status::new(status)?),
        },
        headers,
        templates: templates(response.templates, unknown)?,
        content_handling,
    })
}

fn header(
    mapping: proto::HeaderMapping,
    unknown: Unknown<'_>,
) -> Result<(HeaderName, ResponseSource), ContentError> {
    use proto::ParameterLocation as Location;
    let name = mapping.source_name.as_str();
    let source = match mapping.source() {
        Location::Header => ResponseSource::Header(name.into()),
        Location::Headers => ResponseSource::Headers(name.into()),
        Location::Body => ResponseSource::Body,
        Location::BodyPath => ResponseSource::BodyPath(body_path(name, unknown)?),
        Location::Literal => ResponseSource::Literal(name.into()),
        Location::StageVariable => ResponseSource::StageVariable(name.into()),
        Location::Context => ResponseSource::Context(name.into()),
        Location::Path | Location::Query | Location::Queries | Location::Unspecified => {
            return Err(unknown("the source of a response header"));
        }
    };
    Ok((HeaderName::parse(&mapping.name)?, source))
}

fn pass_through(pass: proto::PassThrough, unknown: Unknown<'_>) -> Result<PassThrough, ContentError> {
    let http2 = match proto::BackendHttp2::try_from(pass.http2) {
        Ok(proto::BackendHttp2::Unspecified) => None,
        Ok(proto::BackendHttp2::PriorKnowledge) => Some(BackendHttp2::PriorKnowledge),
        Ok(proto::BackendHttp2::Alpn) => Some(BackendHttp2::Alpn),
        Err(_) => return Err(unknown("how the backend is spoken to")),
    };
    Ok(PassThrough {
        upgrade: pass.upgrade,
        trailers: pass.trailers,
        http2,
        forwarded: pass.forwarded,
        via: pass.via,
    })
}
