//! What users define: one file an entity, with its members, defaults and rules.
//!
//! Members have the names and shapes of the service's public model. An absent member was never set; an empty map is
//! something else (OBV-020), so every member is an `Option`.

mod account;
mod api_key;
mod authorizer;
mod binding;
mod certificate;
mod client_certificate;
mod definition;
mod deployment;
mod documentation;
mod domain_name;
mod entity;
mod gateway_response;
pub mod id;
mod integration;
mod integration_response;
mod kind;
mod method;
mod method_response;
mod name;
mod pass_through;
mod principal;
mod refusal;
mod request_validator;
mod resource;
mod rest_api;
mod rules;
mod schema_model;
mod stage;
mod timestamp;
mod usage_plan;
mod vpc_link;

pub use account::Account;
pub use api_key::ApiKey;
pub use authorizer::{Authorizer, JwtAdditionalClaim, JwtConfiguration, JwtIssuer};
pub use binding::{BINDING_KINDS, Binding, RUNTIME_PORTS};
pub use certificate::Certificate;
pub use client_certificate::ClientCertificate;
pub use definition::{
    DEFINITION_VERSION, DefinedResource, Definition, Draft, ImportMode, Imported, OWN_MODELS,
};
pub use deployment::{Deployment, MethodSnapshot};
pub use documentation::{DocumentationPart, DocumentationPartLocation, DocumentationVersion};
pub use domain_name::{BasePathMapping, DomainName, DomainNameAccessAssociation, MutualTlsAuthentication};
pub use entity::{Entity, MemberChange};
pub use gateway_response::{GatewayResponse, RESPONSE_TYPES};
pub use integration::{Integration, IntegrationType, Templates, TlsConfig};
pub use integration_response::IntegrationResponse;
pub use kind::Kind;
pub use method::{AUTHORIZATION_TYPES, Method, VERBS, invalid_authorizer};
pub use method_response::MethodResponse;
pub use name::{Collection, Key};
pub use pass_through::{BackendHttp2, PassThrough};
pub use principal::Principal;
pub use refusal::{Code, Refusal};
pub use request_validator::RequestValidator;
pub use resource::{ApiResource, PathPart, check_place};
pub use rest_api::{EndpointConfiguration, RestApi};
pub use schema_model::Model;
pub use stage::{AccessLogSettings, CanarySettings, MethodSetting, Stage, method_key};
pub use timestamp::Timestamp;
pub use usage_plan::{ApiStage, QuotaSettings, ThrottleSettings, UsagePlan, UsagePlanKey};
pub use vpc_link::VpcLink;
