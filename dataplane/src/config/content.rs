//! From a bundle's message to the plan's types: everything is checked here, once, so that a shard never is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tidegate_plan::checks::{BodyModel, Checks, Location, Required};
use tidegate_plan::gateway_response::GivenTwice;
use tidegate_plan::integration::{
    BackendMethod, IntegrationError, Mapping, MappingSource, MappingTarget, Mock, ResponseSelection,
    UriPartSpec,
};
use tidegate_plan::names::NameError;
use tidegate_plan::schema::{Models, Schema, SchemaError};
use tidegate_plan::stage::Variables;
use tidegate_plan::{
    AccessLog, AccountId, ApiId, BackendHttp2, Canary, DeploymentId, GatewayResponse, GatewayResponses,
    HeaderName, HeaderValue, HttpBackend, Integration, Method, MethodKey, PassThrough, Plan, PlanBuilder,
    PlanError, ProxyProtocol, Region, ResourceId, ResponseType, StageName, StagePlan, Status, Target,
    Throttle, Verb,
};
use tidegate_proto::config::v1 as proto;

use super::{Certificate, Settings};
use crate::net::tls;

/// Why a bundle's content cannot be used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum ContentError {
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("{0}")]
    Plan(#[from] PlanError),
    #[error("{0}")]
    GivenTwice(#[from] GivenTwice),
    #[error("{0}")]
    Endpoint(#[from] IntegrationError),
    #[error("a binding needs {0}")]
    Binding(&'static str),
    #[error("{verb} {path}: {error}")]
    Integration {
        verb: String,
        path: String,
        error: IntegrationError,
    },
    #[error("{verb} {path}: {what} is missing or not known to this version of the node")]
    Unknown {
        verb: String,
        path: String,
        what: &'static str,
    },
    #[error("{verb} {path}: {error}")]
    Schema {
        verb: String,
        path: String,
        error: SchemaError,
    },
    #[error("{0}")]
    Models(SchemaError),
    #[error("the stage has no plan")]
    NoPlan,
    #[error("the bundle is called {0} and holds {1}")]
    Misnamed(String, String),
    #[error("the certificate chain is not PEM with at least one certificate")]
    Chain,
    #[error("the private key is not one that TLS can use")]
    Key,
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
}

/// A stage's plan.
pub(super) fn stage(bundle: proto::StageBundle) -> Result<StagePlan, ContentError> {
    let all = throttle(bundle.throttle)?;
    let primary = plan(bundle.primary.ok_or(ContentError::NoPlan)?, all)?;
    let canary = match bundle.canary {
        None => None,
        Some(canary) => {
            let variables = bundle.canary_variables.into_iter().collect();
            Some(Canary::new(plan(canary, all)?, bundle.canary_percent, variables)?)
        }
    };
    Ok(StagePlan {
        api: ApiId::parse(&bundle.api_id)?,
        stage: StageName::parse(&bundle.stage)?,
        account: AccountId::parse(&bundle.account_id)?,
        region: Region::parse(&bundle.region)?,
        api_name: bundle.api_name.into(),
        disable_execute_api_endpoint: bundle.disable_execute_api_endpoint,
        primary,
        canary,
        variables: bundle.variables.into_iter().collect::<Variables>(),
        access_log: bundle.access_log.map(|log| AccessLog {
            destination: log.destination.into(),
            format: log.format.into(),
        }),
        metrics_enabled: bundle.metrics_enabled,
        node_selector: bundle.node_selector.into_iter().collect(),
    })
}

/// A certificate with its key, checked to belong together.
pub(super) fn certificate(bundle: proto::CertificateBundle) -> Result<Certificate, ContentError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bundle.chain_pem)
        .collect::<Result<_, _>>()
        .map_err(|_| ContentError::Chain)?;
    if chain.is_empty() {
        return Err(ContentError::Chain);
    }
    let key = PrivateKeyDer::from_pem_slice(&bundle.private_key_pem).map_err(|_| ContentError::Key)?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| ContentError::Key)?;
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        // Unknown: the kind of key cannot say; then the handshake does.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => return Err(ContentError::KeyMismatch),
        Err(_) => return Err(ContentError::Chain),
    }
    let names = bundle
        .names
        .into_iter()
        .map(|name| name.to_ascii_lowercase())
        .collect();
    let mut certificate = Certificate::new(bundle.id.into(), names, Arc::new(key));
    if !bundle.ocsp.is_empty() {
        let until = u64::try_from(bundle.ocsp_until).unwrap_or(0);
        certificate = certificate.stapled(bundle.ocsp, until);
    }
    // This thread may take its time; a shard's first client should not wait for it.
    tls::warm_up(&certificate);
    Ok(certificate)
}

/// The installation's settings.
pub(super) fn settings(bundle: proto::SettingsBundle) -> Result<Settings, ContentError> {
    let account = throttle(bundle.account_throttle)?;
    Ok(Settings {
        domain_suffixes: bundle
            .domain_suffixes
            .into_iter()
            .map(|suffix| suffix.to_ascii_lowercase())
            .collect(),
        invoke_by_path_everywhere: bundle.invoke_by_path_everywhere,
        account_throttle: account.map(|throttle| (throttle.rate(), throttle.burst())),
        service_limits: bundle.service_limits,
    })
}

/// `all`: the throttle of each method that has no setting of its own.
fn plan(plan: proto::Plan, all: Option<Throttle>) -> Result<Plan, ContentError> {
    let mut builder = PlanBuilder::new(DeploymentId::parse(&plan.deployment_id)?);
    let models = plan
        .models
        .iter()
        .map(|model| (model.address.as_str(), model.schema.as_str()));
    let mut schemas = Schemas {
        models: Models::parse(models).map_err(ContentError::Models)?,
        compiled: HashMap::new(),
    };
    for route in plan.routes {
        let methods = route
            .methods
            .into_iter()
            .map(|one| method(one, &route.path, all, &mut builder, &mut schemas))
            .collect::<Result<Vec<_>, _>>()?;
        builder.route(ResourceId::parse(&route.resource_id)?, &route.path, methods)?;
    }
    let overrides = plan
        .gateway_responses
        .into_iter()
        .map(gateway_response)
        .collect::<Result<_, _>>()?;
    builder.gateway_responses(GatewayResponses::new(overrides)?);
    builder.binary_media_types(plan.binary_media_types);
    Ok(builder.finish())
}

fn method(
    method: proto::Method,
    path: &str,
    all: Option<Throttle>,
    builder: &mut PlanBuilder,
    schemas: &mut Schemas,
) -> Result<Method, ContentError> {
    let verb = method.http_method;
    let fails = |error: IntegrationError| ContentError::Integration {
        verb: verb.clone(),
        path: path.to_owned(),
        error,
    };
    let unknown = |what| ContentError::Unknown {
        verb: verb.clone(),
        path: path.to_owned(),
        what,
    };
    let checks = match method.checks {
        None => None,
        Some(checks) => Some(self::checks(checks, schemas, &unknown, &|error| {
            ContentError::Schema {
                verb: verb.clone(),
                path: path.to_owned(),
                error,
            }
        })?),
    };
    let integration = method.integration.unwrap_or_default();
    let timeout = integration.timeout_ms;
    let integration = match integration.kind {
        Some(proto::integration::Kind::HttpProxy(http)) => {
            Integration::HttpProxy(Box::new(backend(http, timeout, builder, &fails, &unknown)?))
        }
        Some(proto::integration::Kind::Http(http)) => {
            Integration::Http(Box::new(backend(http, timeout, builder, &fails, &unknown)?))
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
        Some(proto::integration::Kind::Broken(broken)) => Integration::Broken(broken.reason.into()),
        None => return Err(unknown("the integration")),
    };
    Ok(Method {
        key: MethodKey::parse(&verb)?,
        checks: checks.filter(|checks| !checks.is_empty()).map(Box::new),
        integration,
        // A method that is set to no limit has none, whatever the others have (DEP-077).
        throttle: match method.throttle {
            None => all,
            own => throttle(own)?,
        },
        metrics_enabled: method.metrics_enabled,
        operation_name: Some(method.operation_name)
            .filter(|name| !name.is_empty())
            .map(Into::into),
    })
}

/// A plan's models, each compiled once however many methods it checks.
struct Schemas {
    models: Models,
    compiled: HashMap<String, Schema>,
}

impl Schemas {
    fn get(&mut self, address: String) -> Result<Schema, SchemaError> {
        if let Some(schema) = self.compiled.get(&address) {
            return Ok(schema.clone());
        }
        let schema = Schema::compile(&self.models, &address)?;
        self.compiled.insert(address, schema.clone());
        Ok(schema)
    }
}

fn checks(
    checks: proto::Checks,
    schemas: &mut Schemas,
    unknown: &dyn Fn(&'static str) -> ContentError,
    fails: &dyn Fn(SchemaError) -> ContentError,
) -> Result<Checks, ContentError> {
    let required = checks
        .required
        .into_iter()
        .map(|one| {
            let location = match one.location() {
                proto::ParameterLocation::Path => Location::Path(None),
                proto::ParameterLocation::Query => Location::Query,
                proto::ParameterLocation::Header => Location::Header,
                _ => return Err(unknown("where a required parameter stands")),
            };
            Ok(Required {
                location,
                name: one.name.into(),
            })
        })
        .collect::<Result<_, _>>()?;
    let models = checks
        .models
        .into_iter()
        .map(|one| {
            Ok(BodyModel {
                media_type: Some(one.media_type.to_ascii_lowercase().into())
                    .filter(|media_type: &Box<str>| !media_type.is_empty()),
                schema: schemas.get(one.model).map_err(fails)?,
            })
        })
        .collect::<Result<_, ContentError>>()?;
    Ok(Checks::new(required, models))
}

fn backend(
    http: proto::HttpProxy,
    timeout: u32,
    builder: &mut PlanBuilder,
    fails: &dyn Fn(IntegrationError) -> ContentError,
    unknown: &dyn Fn(&'static str) -> ContentError,
) -> Result<HttpBackend, ContentError> {
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
    let through = http
        .pass_through
        .map(|pass| Ok::<_, ContentError>((pass_through(pass, unknown)?, target.clone())))
        .transpose()?;
    let target = builder.target(target)?;
    let verb = match http.http_method.as_str() {
        "ANY" => BackendMethod::Same,
        verb => BackendMethod::Fixed(
            Verb::from_token(verb.as_bytes()).ok_or_else(|| unknown("the backend's method"))?,
        ),
    };
    let uri = http
        .path
        .into_iter()
        .map(|part| match part.part {
            Some(proto::uri_part::Part::Literal(text)) => Ok(UriPartSpec::Literal(text)),
            Some(proto::uri_part::Part::PathParameter(name)) => Ok(UriPartSpec::PathParameter(name)),
            Some(proto::uri_part::Part::StageVariable(name)) => Ok(UriPartSpec::StageVariable(name)),
            None => Err(unknown("a part of the URI")),
        })
        .collect::<Result<_, _>>()?;
    let mappings = http
        .parameters
        .into_iter()
        .map(|mapping| {
            let target = match mapping.target() {
                proto::ParameterLocation::Path => MappingTarget::Path,
                proto::ParameterLocation::Query => MappingTarget::Query,
                proto::ParameterLocation::Header => MappingTarget::Header,
                _ => return Err(unknown("what a mapping fills")),
            };
            let name = mapping.source_name.as_str();
            let source = match mapping.source() {
                proto::ParameterLocation::Path => MappingSource::path(name),
                proto::ParameterLocation::Query => MappingSource::Query(name.into()),
                proto::ParameterLocation::Header => MappingSource::Header(name.into()),
                proto::ParameterLocation::Literal => MappingSource::Literal(name.into()),
                proto::ParameterLocation::StageVariable => MappingSource::StageVariable(name.into()),
                proto::ParameterLocation::Context => MappingSource::Context(name.into()),
                proto::ParameterLocation::Unspecified => return Err(unknown("the source of a mapping")),
            };
            Mapping::new(target, &mapping.target_name, source).map_err(fails)
        })
        .collect::<Result<_, _>>()?;
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
    let backend = HttpBackend::new(target, verb, uri, mappings, responses, timeout).map_err(fails)?;
    match through {
        None => Ok(backend),
        Some((pass, target)) => backend.with_pass_through(pass, &target).map_err(fails),
    }
}

fn pass_through(
    pass: proto::PassThrough,
    unknown: &dyn Fn(&'static str) -> ContentError,
) -> Result<PassThrough, ContentError> {
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

fn gateway_response(response: proto::GatewayResponse) -> Result<GatewayResponse, ContentError> {
    Ok(GatewayResponse {
        kind: ResponseType::parse(&response.response_type)?,
        status: match response.status {
            0 => None,
            status => Some(Status::new(status)?),
        },
        headers: headers(response.headers)?,
        templates: response.templates.into_iter().collect(),
    })
}

fn headers(pairs: BTreeMap<String, String>) -> Result<Vec<(HeaderName, HeaderValue)>, ContentError> {
    let parse = |(name, value): (String, String)| {
        Ok((HeaderName::parse(&name)?, HeaderValue::parse(value.as_bytes())?))
    };
    pairs.into_iter().map(parse).collect()
}

fn throttle(throttle: Option<proto::Throttle>) -> Result<Option<Throttle>, ContentError> {
    match throttle {
        None => Ok(None),
        Some(throttle) => Ok(Throttle::new(throttle.rate, throttle.burst)?),
    }
}
