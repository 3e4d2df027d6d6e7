//! Entities between the contract's messages and the model, through the JSON form that both share.

use serde_json::{Map, Value, json};
use tidegate_proto::admin::v1 as admin;
use tonic::Status;

use super::status;
use crate::{
    model::{Kind, Refusal},
    service::{ApplyEntity, Stored},
};

/// The members of [`admin::Entity`]'s body, by kind.
const BODIES: [(Kind, &str); 23] = [
    (Kind::RestApi, "restApi"),
    (Kind::ApiResource, "resource"),
    (Kind::Method, "method"),
    (Kind::Model, "model"),
    (Kind::RequestValidator, "requestValidator"),
    (Kind::Authorizer, "authorizer"),
    (Kind::GatewayResponse, "gatewayResponse"),
    (Kind::DocumentationPart, "documentationPart"),
    (Kind::DocumentationVersion, "documentationVersion"),
    (Kind::Deployment, "deployment"),
    (Kind::Stage, "stage"),
    (Kind::ApiKey, "apiKey"),
    (Kind::UsagePlan, "usagePlan"),
    (Kind::UsagePlanKey, "usagePlanKey"),
    (Kind::DomainName, "domainName"),
    (Kind::BasePathMapping, "basePathMapping"),
    (Kind::DomainNameAccessAssociation, "domainNameAccessAssociation"),
    (Kind::ClientCertificate, "clientCertificate"),
    (Kind::VpcLink, "vpcLink"),
    (Kind::Account, "account"),
    (Kind::Binding, "binding"),
    (Kind::Certificate, "certificate"),
    (Kind::Principal, "principal"),
];

/// An entity as the contract has it.
pub(super) fn to_message(stored: &Stored) -> Result<admin::Entity, Status> {
    let kind = stored.key.kind;
    let member = BODIES
        .iter()
        .find(|(known, _)| *known == kind)
        .map(|(_, member)| *member);
    let member = member.ok_or_else(|| status(Refusal::internal(format!("{kind:?} has no message"))))?;
    let mut body = stored.entity.to_json().map_err(status)?;
    if kind == Kind::Deployment {
        wrap_summary(&mut body);
    }
    let message =
        json!({ "name": stored.key.to_string(), "revision": stored.revision.to_string(), member: body });
    serde_json::from_value(message).map_err(|error| status(Refusal::internal(error)))
}

/// What an Apply changes.
pub(super) fn to_apply(apply: admin::ApplyEntity) -> Result<ApplyEntity, Status> {
    let entity = apply.entity.unwrap_or_default();
    let body = match serde_json::to_value(&entity) {
        Ok(Value::Object(members)) => body_of(members),
        _ => Map::new(),
    };
    Ok(ApplyEntity {
        name: entity.name,
        body,
        key: Some(apply.key).filter(|key| !key.is_empty()),
        mask: apply.field_mask.map(|mask| mask.paths),
        expected_revision: apply.expected_revision,
    })
}

/// The members of a message's body, whichever it is.
fn body_of(members: Map<String, Value>) -> Map<String, Value> {
    let body = members
        .into_iter()
        .find(|(name, _)| BODIES.iter().any(|(_, member)| member == name));
    match body {
        Some((_, Value::Object(body))) => body,
        _ => Map::new(),
    }
}

/// The contract has no map of maps: what is under a path is a message with one member.
fn wrap_summary(body: &mut Value) {
    let Some(summary) = body.get_mut("apiSummary").and_then(Value::as_object_mut) else {
        return;
    };
    for (_, methods) in summary.iter_mut() {
        *methods = json!({ "methods": methods.take() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Entity, Key, Stage};

    /// C10: what goes out as a message comes back as the same members.
    #[test]
    fn both_ways() {
        let stage: Stage = serde_json::from_value(json!({
            "stageName": "prod", "deploymentId": "abc123", "variables": {"a": "b"},
            "methodSettings": {"*/*": {"throttlingRateLimit": 10.5, "throttlingBurstLimit": 5}},
            "createdDate": "2026-01-01T00:00:00Z",
        }))
        .expect("reads");
        let stored = Stored {
            key: Key::within(Kind::Stage, "api", "prod"),
            revision: 7,
            entity: Entity::Stage(stage.clone()),
        };
        let message = to_message(&stored).expect("converts");
        assert_eq!(
            (message.name.as_str(), message.revision),
            ("restApis/api/stages/prod", 7)
        );
        let apply = to_apply(admin::ApplyEntity {
            entity: Some(message),
            ..Default::default()
        })
        .expect("converts");
        assert_eq!(
            serde_json::from_value::<Stage>(Value::Object(apply.body)).expect("reads"),
            stage
        );
    }
}
