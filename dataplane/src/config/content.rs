//! From a bundle's message to the plan's types: everything is checked here, once, so that a shard never is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tidegate_plan::checks::{BodyModel, Checks, Location, Required};
use tidegate_plan::gateway_response::GivenTwice;
use tidegate_plan::integration::IntegrationError;
use tidegate_plan::names::NameError;
use tidegate_plan::schema::{Models, Schema, SchemaError};
use tidegate_plan::stage::Variables;
use tidegate_plan::{
    AccessLog, AccountId, ApiId, Canary, DeploymentId, GatewayResponse, GatewayResponses, HeaderName,
    HeaderValue, Method, MethodKey, Plan, PlanBuilder, PlanError, Region, ResourceId, ResponseType,
    StageName, StagePlan, Status, Throttle,
};
use tidegate_proto::config::v1 as proto;

use super::{Certificate, Settings, integration};
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
    if let Some(bytes) = plan.minimum_compression_size {
        builder.minimum_compression(bytes.into());
    }
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
    let integration = integration::integration(integration, builder, &fails, &unknown)?;
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
                media_type: match one.media_type.as_str() {
                    "" => None,
                    media_type => Some(media_type.to_ascii_lowercase().into()),
                },
                schema: schemas.get(one.model).map_err(fails)?,
            })
        })
        .collect::<Result<_, ContentError>>()?;
    Ok(Checks::new(required, models))
}

fn gateway_response(response: proto::GatewayResponse) -> Result<GatewayResponse, ContentError> {
    Ok(GatewayResponse {
        kind: ResponseType::parse(&response.response_type)?,
        status: match response.status {
            0 => None,
            status => Some(Status::new(status)?),
        },
        headers: headers(response.headers)?,
        mapped: response
            .mapped_headers
            .into_iter()
            .map(|(name, source)| Ok((HeaderName::parse(&name)?, source)))
            .collect::<Result<_, NameError>>()?,
        templates: response.templates.into_iter().collect(),
    })
}

pub(super) fn headers(
    pairs: BTreeMap<String, String>,
) -> Result<Vec<(HeaderName, HeaderValue)>, ContentError> {
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
