//! A draft becomes a definition.

use std::collections::BTreeMap;

use serde_json::Value;

use super::unit;
use crate::{
    model::{DEFINITION_VERSION, DefinedResource, Definition, Key, Kind, Refusal, RestApi},
    store::{List, Read},
};

/// Reads the whole draft of an API (DEP-040).
pub(super) async fn definition(view: &mut dyn Read, api: &str) -> Result<Definition, Refusal> {
    let row = view
        .get(&Key::top(Kind::RestApi, api))
        .await?
        .ok_or_else(|| Refusal::internal(format!("{api} vanished while it was read")))?;
    let mut rest_api: RestApi = unit::read_body(row)?;
    // Not part of what is served, and different at each import.
    rest_api.warnings = None;
    let mut resources: BTreeMap<String, DefinedResource> = BTreeMap::new();
    for row in view.list(&List::within(Kind::ApiResource, api)).await? {
        let id = row.key.id.clone();
        resources.insert(
            id,
            DefinedResource {
                resource: unit::read_body(row)?,
                methods: BTreeMap::new(),
            },
        );
    }
    for (resource, verb, method) in unit::methods(view, api).await? {
        if let Some(resource) = resources.get_mut(&resource) {
            resource.methods.insert(verb, method);
        }
    }
    Ok(Definition {
        version: DEFINITION_VERSION,
        rest_api,
        resources,
        models: all(view, Kind::Model, api).await?,
        request_validators: all(view, Kind::RequestValidator, api).await?,
        authorizers: all(view, Kind::Authorizer, api).await?,
        gateway_responses: all(view, Kind::GatewayResponse, api).await?,
    })
}

async fn all<T: serde::de::DeserializeOwned>(
    view: &mut dyn Read,
    kind: Kind,
    api: &str,
) -> Result<BTreeMap<String, T>, Refusal> {
    let rows = view.list(&List::within(kind, api)).await?;
    rows.into_iter()
        .map(|row| Ok((row.key.id.clone(), unit::read_body(row)?)))
        .collect()
}

/// Writes out what a resource policy abbreviates, as it is stored (OBV-052, OBV-053).
pub(super) fn expand_policy(api: &mut RestApi, id: &str, account: &str, region: &str) {
    let Some(policy) = api.policy.as_deref() else {
        return;
    };
    if policy.is_empty() {
        api.policy = None;
        return;
    }
    // What is no JSON is refused by the API's own rules.
    let Ok(mut document) = serde_json::from_str::<Value>(policy) else {
        return;
    };
    let prefix = format!("arn:aws:execute-api:{region}:{account}:{id}/");
    let expand = |text: &mut String| {
        if let Some(rest) = text.strip_prefix("execute-api:/") {
            *text = format!("{prefix}{rest}");
        }
    };
    let statements = match document.get_mut("Statement") {
        Some(Value::Array(statements)) => statements.as_mut_slice(),
        Some(statement @ Value::Object(_)) => std::slice::from_mut(statement),
        _ => return,
    };
    for statement in statements {
        for member in ["Resource", "NotResource"] {
            match statement.get_mut(member) {
                Some(Value::String(text)) => expand(text),
                Some(list @ Value::Array(_)) => {
                    for text in list.as_array_mut().into_iter().flatten() {
                        if let Value::String(text) = text {
                            expand(text);
                        }
                    }
                    if let [only @ Value::String(_)] = list.as_array().map_or(&[][..], Vec::as_slice) {
                        *list = only.clone();
                    }
                }
                _ => {}
            }
        }
    }
    api.policy = Some(document.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-052, OBV-053: abbreviated resources are written out, lists of one become that one.
    #[test]
    fn policies() {
        let mut api = RestApi {
            policy: Some(r#"{"Statement":[{"Effect":"Allow","Resource":["execute-api:/*"]}]}"#.into()),
            ..RestApi::default()
        };
        expand_policy(&mut api, "abc", "000000000000", "us-east-1");
        assert_eq!(
            api.policy.as_deref(),
            Some(
                r#"{"Statement":[{"Effect":"Allow","Resource":"arn:aws:execute-api:us-east-1:000000000000:abc/*"}]}"#
            )
        );
    }
}
