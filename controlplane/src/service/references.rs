//! Rules between entities: what one names has to be there.

use super::{Caller, texts, unit};
use crate::{
    model::{Authorizer, BasePathMapping, Entity, Key, Kind, Method, Refusal, Stage, invalid_authorizer},
    store::{List, Read},
};

/// Refuses an entity that names something that is not there.
pub(super) async fn check(
    view: &mut dyn Read,
    caller: &Caller,
    key: &Key,
    entity: &Entity,
) -> Result<(), Refusal> {
    match entity {
        Entity::Method(method) => check_method(view, key, method).await,
        Entity::Stage(stage) => check_stage(view, &key.parent, stage).await,
        Entity::BasePathMapping(mapping) => check_mapping(view, caller, mapping).await,
        Entity::UsagePlanKey(_) => exists(view, caller, &Key::top(Kind::ApiKey, key.id.clone())).await,
        Entity::UsagePlan(plan) => {
            for stage in plan.api_stages.iter().flatten() {
                let api = stage.api_id.clone().unwrap_or_default();
                exists(view, caller, &Key::top(Kind::RestApi, api.clone())).await?;
                let name = stage.stage.clone().unwrap_or_default();
                if view.get(&Key::within(Kind::Stage, api, name)).await?.is_none() {
                    return Err(Refusal::not_found("API Stage not found"));
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Refuses to delete a deployment that a stage or a canary serves.
pub(super) async fn deployment_unused(view: &mut dyn Read, key: &Key) -> Result<(), Refusal> {
    for row in view.list(&List::within(Kind::Stage, key.parent.clone())).await? {
        let stage: Stage = unit::read_body(row)?;
        let canary = stage
            .canary_settings
            .as_ref()
            .and_then(|canary| canary.deployment_id.as_ref());
        if stage.deployment_id.as_ref() == Some(&key.id) || canary == Some(&key.id) {
            return Err(Refusal::bad_request(
                "Active stages pointing to this deployment must be moved or deleted",
            ));
        }
    }
    Ok(())
}

/// The resource that a method is on has to be there.
pub(super) async fn method_resource(view: &mut dyn Read, key: &Key) -> Result<(), Refusal> {
    let (resource, _) = key.method_parts().ok_or_else(Refusal::unknown_method)?;
    match view
        .get(&Key::within(Kind::ApiResource, key.parent.clone(), resource))
        .await?
    {
        Some(_) => Ok(()),
        None => Err(Refusal::unknown_resource()),
    }
}

async fn check_method(view: &mut dyn Read, key: &Key, method: &Method) -> Result<(), Refusal> {
    method_resource(view, key).await?;
    if let Some(id) = &method.authorizer_id {
        let row = view
            .get(&Key::within(Kind::Authorizer, key.parent.clone(), id.clone()))
            .await?;
        let authorizer: Option<Authorizer> = row.map(unit::read_body).transpose()?;
        let kind = method.authorization_type.as_deref().unwrap_or_default();
        if !authorizer.is_some_and(|authorizer| authorizer.serves(kind)) {
            return Err(invalid_authorizer());
        }
    }
    if let Some(id) = &method.request_validator_id
        && view
            .get(&Key::within(
                Kind::RequestValidator,
                key.parent.clone(),
                id.clone(),
            ))
            .await?
            .is_none()
    {
        // OBV-071.
        return Err(Refusal::bad_request(
            "Invalid Request Validator identifier specified",
        ));
    }
    for name in model_names(method) {
        let key = Key::within(Kind::Model, key.parent.clone(), name.clone());
        if view.get(&key).await?.is_none() {
            return Err(invalid_model(&name));
        }
    }
    Ok(())
}

/// The models that a method's requests and responses name.
pub(super) fn model_names(method: &Method) -> Vec<String> {
    let responses = method.method_responses.iter().flatten();
    responses
        .filter_map(|(_, response)| response.response_models.as_ref())
        .chain(method.request_models.as_ref())
        .flatten()
        .map(|(_, name)| name.clone())
        .collect()
}

/// OBV-072.
pub(super) fn invalid_model(name: &str) -> Refusal {
    Refusal::bad_request(format!("Invalid model identifier specified: {name}"))
}

async fn check_stage(view: &mut dyn Read, api: &str, stage: &Stage) -> Result<(), Refusal> {
    let canary = stage
        .canary_settings
        .as_ref()
        .and_then(|canary| canary.deployment_id.clone());
    for id in stage.deployment_id.clone().into_iter().chain(canary) {
        if view.get(&Key::within(Kind::Deployment, api, id)).await?.is_none() {
            return Err(Refusal::not_found("Invalid Deployment identifier specified"));
        }
    }
    Ok(())
}

async fn check_mapping(
    view: &mut dyn Read,
    caller: &Caller,
    mapping: &BasePathMapping,
) -> Result<(), Refusal> {
    let api = mapping.rest_api_id.clone().unwrap_or_default();
    let row = view.get(&Key::top(Kind::RestApi, api.clone())).await?;
    if !row.is_some_and(|row| caller.sees(&row.account)) {
        return Err(Refusal::bad_request("Invalid REST API identifier specified"));
    }
    if let Some(stage) = mapping.stage.clone().filter(|stage| !stage.is_empty())
        && view.get(&Key::within(Kind::Stage, api, stage)).await?.is_none()
    {
        return Err(Refusal::bad_request("Invalid stage identifier specified"));
    }
    Ok(())
}

async fn exists(view: &mut dyn Read, caller: &Caller, key: &Key) -> Result<(), Refusal> {
    match view.get(key).await? {
        Some(row) if caller.sees(&row.account) => Ok(()),
        _ => Err(texts::missing(caller, key)),
    }
}
