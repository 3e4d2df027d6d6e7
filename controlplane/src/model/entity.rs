//! One type over all managed entities: what stores, faces and changes of single members have in common.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::*;

/// A member's path and its new value; no value removes it.
pub type MemberChange = (Vec<String>, Option<Value>);

/// Any entity that users manage.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant holds the entity of its name")]
pub enum Entity {
    RestApi(RestApi),
    ApiResource(ApiResource),
    Method(Method),
    Model(Model),
    RequestValidator(RequestValidator),
    Authorizer(Authorizer),
    GatewayResponse(GatewayResponse),
    DocumentationPart(DocumentationPart),
    DocumentationVersion(DocumentationVersion),
    Deployment(Deployment),
    Stage(Stage),
    ApiKey(ApiKey),
    UsagePlan(UsagePlan),
    UsagePlanKey(UsagePlanKey),
    DomainName(DomainName),
    BasePathMapping(BasePathMapping),
    DomainNameAccessAssociation(DomainNameAccessAssociation),
    ClientCertificate(ClientCertificate),
    VpcLink(VpcLink),
    Account(Account),
    Binding(Binding),
    Certificate(Certificate),
    Principal(Principal),
}

impl Entity {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::RestApi(_) => Kind::RestApi,
            Self::ApiResource(_) => Kind::ApiResource,
            Self::Method(_) => Kind::Method,
            Self::Model(_) => Kind::Model,
            Self::RequestValidator(_) => Kind::RequestValidator,
            Self::Authorizer(_) => Kind::Authorizer,
            Self::GatewayResponse(_) => Kind::GatewayResponse,
            Self::DocumentationPart(_) => Kind::DocumentationPart,
            Self::DocumentationVersion(_) => Kind::DocumentationVersion,
            Self::Deployment(_) => Kind::Deployment,
            Self::Stage(_) => Kind::Stage,
            Self::ApiKey(_) => Kind::ApiKey,
            Self::UsagePlan(_) => Kind::UsagePlan,
            Self::UsagePlanKey(_) => Kind::UsagePlanKey,
            Self::DomainName(_) => Kind::DomainName,
            Self::BasePathMapping(_) => Kind::BasePathMapping,
            Self::DomainNameAccessAssociation(_) => Kind::DomainNameAccessAssociation,
            Self::ClientCertificate(_) => Kind::ClientCertificate,
            Self::VpcLink(_) => Kind::VpcLink,
            Self::Account(_) => Kind::Account,
            Self::Binding(_) => Kind::Binding,
            Self::Certificate(_) => Kind::Certificate,
            Self::Principal(_) => Kind::Principal,
        }
    }

    /// Its members as JSON; absent ones are absent.
    pub fn to_json(&self) -> Result<Value, Refusal> {
        match self {
            Self::RestApi(e) => value(e),
            Self::ApiResource(e) => value(e),
            Self::Method(e) => value(e),
            Self::Model(e) => value(e),
            Self::RequestValidator(e) => value(e),
            Self::Authorizer(e) => value(e),
            Self::GatewayResponse(e) => value(e),
            Self::DocumentationPart(e) => value(e),
            Self::DocumentationVersion(e) => value(e),
            Self::Deployment(e) => value(e),
            Self::Stage(e) => value(e),
            Self::ApiKey(e) => value(e),
            Self::UsagePlan(e) => value(e),
            Self::UsagePlanKey(e) => value(e),
            Self::DomainName(e) => value(e),
            Self::BasePathMapping(e) => value(e),
            Self::DomainNameAccessAssociation(e) => value(e),
            Self::ClientCertificate(e) => value(e),
            Self::VpcLink(e) => value(e),
            Self::Account(e) => value(e),
            Self::Binding(e) => value(e),
            Self::Certificate(e) => value(e),
            Self::Principal(e) => value(e),
        }
    }

    /// From JSON; a member of the wrong type is refused by name.
    pub fn from_json(kind: Kind, json: Value) -> Result<Self, Refusal> {
        Ok(match kind {
            Kind::RestApi => Self::RestApi(read(json)?),
            Kind::ApiResource => Self::ApiResource(read(json)?),
            Kind::Method => Self::Method(read(json)?),
            Kind::Model => Self::Model(read(json)?),
            Kind::RequestValidator => Self::RequestValidator(read(json)?),
            Kind::Authorizer => Self::Authorizer(read(json)?),
            Kind::GatewayResponse => Self::GatewayResponse(read(json)?),
            Kind::DocumentationPart => Self::DocumentationPart(read(json)?),
            Kind::DocumentationVersion => Self::DocumentationVersion(read(json)?),
            Kind::Deployment => Self::Deployment(read(json)?),
            Kind::Stage => Self::Stage(read(json)?),
            Kind::ApiKey => Self::ApiKey(read(json)?),
            Kind::UsagePlan => Self::UsagePlan(read(json)?),
            Kind::UsagePlanKey => Self::UsagePlanKey(read(json)?),
            Kind::DomainName => Self::DomainName(read(json)?),
            Kind::BasePathMapping => Self::BasePathMapping(read(json)?),
            Kind::DomainNameAccessAssociation => Self::DomainNameAccessAssociation(read(json)?),
            Kind::ClientCertificate => Self::ClientCertificate(read(json)?),
            Kind::VpcLink => Self::VpcLink(read(json)?),
            Kind::Account => Self::Account(read(json)?),
            Kind::Binding => Self::Binding(read(json)?),
            Kind::Certificate => Self::Certificate(read(json)?),
            Kind::Principal => Self::Principal(read(json)?),
            Kind::Setting
            | Kind::CallerKey
            | Kind::Node
            | Kind::JoinToken
            | Kind::Authority
            | Kind::TicketKeys => {
                return Err(Refusal::internal(format!(
                    "{} is not managed by users",
                    kind.as_str()
                )));
            }
        })
    }

    /// Fills what the entity has although nobody said so. `within` is what a method's resource is.
    pub fn fill_defaults(&mut self, within: &str) {
        match self {
            Self::RestApi(e) => e.fill_defaults(),
            Self::Method(e) => e.fill_defaults(within),
            Self::RequestValidator(e) => e.fill_defaults(),
            Self::Authorizer(e) => e.fill_defaults(),
            Self::GatewayResponse(e) => e.default_response = Some(false),
            Self::Stage(e) => e.fill_defaults(),
            Self::ApiKey(e) => e.fill_defaults(),
            Self::UsagePlan(e) => e.fill_defaults(),
            Self::UsagePlanKey(e) => e.fill_defaults(),
            Self::BasePathMapping(e) => e.fill_defaults(),
            Self::VpcLink(e) => e.fill_defaults(),
            Self::Account(e) => e.fill_defaults(),
            Self::ApiResource(_)
            | Self::Model(_)
            | Self::DocumentationPart(_)
            | Self::DocumentationVersion(_)
            | Self::Deployment(_)
            | Self::DomainName(_)
            | Self::DomainNameAccessAssociation(_)
            | Self::ClientCertificate(_)
            | Self::Binding(_)
            | Self::Certificate(_)
            | Self::Principal(_) => {}
        }
    }

    /// The rules that the entity obeys by itself.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::RestApi(e) => e.check(),
            Self::ApiResource(e) => e
                .path_part
                .as_deref()
                .map_or(Ok(()), |part| PathPart::parse(part).map(|_| ())),
            Self::Method(e) => e.check(),
            Self::Model(e) => e.check(),
            Self::RequestValidator(e) => e.check(),
            Self::Authorizer(e) => e.check(),
            Self::GatewayResponse(e) => e.check(),
            Self::DocumentationPart(e) => e.check(),
            Self::DocumentationVersion(e) => e.check(),
            Self::Deployment(_) => Ok(()),
            Self::Stage(e) => e.check(),
            Self::ApiKey(e) => e.check(),
            Self::UsagePlan(e) => e.check(),
            Self::UsagePlanKey(e) => e.check(),
            Self::DomainName(e) => e.check(),
            Self::BasePathMapping(e) => e.check(),
            Self::DomainNameAccessAssociation(e) => e.check(),
            Self::ClientCertificate(e) => e.check(),
            Self::VpcLink(e) => e.check(),
            Self::Account(e) => e.check(),
            Self::Binding(e) => e.check(),
            Self::Certificate(e) => e.check(),
            Self::Principal(e) => e.check(),
        }
    }

    /// Sets or removes members: `path` is `description` or `accessLogSettings.format`; no value removes. Every way of
    /// changing an entity ends here; the caller runs [`Entity::check`] when all its changes are made.
    pub fn set(self, changes: Vec<MemberChange>) -> Result<Self, Refusal> {
        let kind = self.kind();
        let mut json = self.to_json()?;
        for (path, new) in changes {
            let shown = path.join("/");
            let first = path.first().map(String::as_str).unwrap_or_default();
            if kind.read_only().contains(&first) {
                return Err(Refusal::bad_request(format!("Invalid patch path /{shown}")));
            }
            set_member(&mut json, &path, new)
                .ok_or_else(|| Refusal::bad_request(format!("Invalid patch path /{shown}")))?;
        }
        Self::from_json(kind, json)
    }
}

impl Kind {
    /// Members that only the service sets.
    pub fn read_only(self) -> &'static [&'static str] {
        match self {
            Self::RestApi => RestApi::READ_ONLY,
            Self::ApiResource => ApiResource::READ_ONLY,
            Self::Method => Method::READ_ONLY,
            Self::Model => Model::READ_ONLY,
            Self::RequestValidator => RequestValidator::READ_ONLY,
            Self::Authorizer => Authorizer::READ_ONLY,
            Self::GatewayResponse => GatewayResponse::READ_ONLY,
            Self::DocumentationPart => DocumentationPart::READ_ONLY,
            Self::DocumentationVersion => DocumentationVersion::READ_ONLY,
            Self::Deployment => Deployment::READ_ONLY,
            Self::Stage => Stage::READ_ONLY,
            Self::ApiKey => ApiKey::READ_ONLY,
            Self::UsagePlan => UsagePlan::READ_ONLY,
            Self::UsagePlanKey => UsagePlanKey::READ_ONLY,
            Self::DomainName => DomainName::READ_ONLY,
            Self::BasePathMapping => BasePathMapping::READ_ONLY,
            Self::DomainNameAccessAssociation => DomainNameAccessAssociation::READ_ONLY,
            Self::ClientCertificate => ClientCertificate::READ_ONLY,
            Self::VpcLink => VpcLink::READ_ONLY,
            Self::Account => Account::READ_ONLY,
            Self::Binding => Binding::READ_ONLY,
            Self::Certificate => Certificate::READ_ONLY,
            Self::Principal => Principal::READ_ONLY,
            Self::Setting
            | Self::CallerKey
            | Self::Node
            | Self::JoinToken
            | Self::Authority
            | Self::TicketKeys => &[],
        }
    }

    /// The member that holds the entity's own id, where it has one.
    pub fn id_member(self) -> Option<&'static str> {
        match self {
            Self::Method => Some("httpMethod"),
            Self::GatewayResponse => Some("responseType"),
            Self::DocumentationVersion => Some("version"),
            Self::Stage => Some("stageName"),
            Self::DomainName => Some("domainName"),
            Self::BasePathMapping => Some("basePath"),
            Self::ClientCertificate => Some("clientCertificateId"),
            Self::Account => None,
            Self::Model => Some("name"),
            _ => Some("id"),
        }
    }
}

fn value(entity: &impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(entity).map_err(Refusal::internal)
}

fn read<T: DeserializeOwned>(json: Value) -> Result<T, Refusal> {
    serde_json::from_value(json)
        .map_err(|error| Refusal::bad_request(format!("Invalid request body: {error}")))
}

/// Walks to the member and sets or removes it; maps on the way come into being. `None` where the way leads through
/// something that is no object.
fn set_member(json: &mut Value, path: &[String], new: Option<Value>) -> Option<()> {
    let (last, way) = path.split_last()?;
    let mut at = json;
    for step in way {
        let object = at.as_object_mut()?;
        if new.is_none() && !object.contains_key(step) {
            return Some(());
        }
        at = object
            .entry(step.clone())
            .or_insert_with(|| Value::Object(Map::new()));
    }
    let object = at.as_object_mut()?;
    match new {
        Some(new) => object.insert(last.clone(), new),
        None => object.shift_remove(last),
    };
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('/').map(str::to_owned).collect()
    }

    /// OBV-020, OBV-043, OBV-151, OBV-152: members come and go; what only the service sets cannot be set.
    #[test]
    fn members() {
        let stage = Entity::Stage(Stage {
            stage_name: Some("prod".into()),
            ..Stage::default()
        });
        let stage = stage
            .set(vec![
                (path("accessLogSettings/destinationArn"), Some("arn:x".into())),
                (path("variables/url"), Some("example.com".into())),
                (path("description"), None),
            ])
            .expect("set");
        assert_eq!(
            stage.to_json().expect("json"),
            serde_json::json!({
                "stageName": "prod", "variables": {"url": "example.com"},
                "accessLogSettings": {"destinationArn": "arn:x"},
            })
        );
        let stage = stage.set(vec![(path("accessLogSettings"), None)]).expect("set");
        assert_eq!(stage.to_json().expect("json").get("accessLogSettings"), None);
        let refused = stage
            .clone()
            .set(vec![(path("createdDate"), Some("2026-01-01T00:00:00Z".into()))]);
        assert_eq!(
            refused.expect_err("refused").message,
            "Invalid patch path /createdDate"
        );
        assert!(
            stage
                .set(vec![(path("tracingEnabled"), Some("yes".into()))])
                .is_err()
        );
    }
}
