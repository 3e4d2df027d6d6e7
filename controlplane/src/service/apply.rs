//! Apply: many entities, by name or by the caller's own keys, in one transaction (C10).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{
    Apply, ApplyEntity, Stored,
    texts::{check_parent, check_revision, is_generated, missing, own_key},
    unit::Unit,
};
use crate::{
    model::{Collection, Key, Kind, MemberChange, Refusal},
    store::{List, Put, Secret},
};

/// The entities as they are now, and the names of what was pruned.
pub(super) type Outcome = (Vec<Stored>, Vec<String>);

impl Unit<'_> {
    pub(super) async fn apply(&mut self, apply: Apply) -> Result<Outcome, Refusal> {
        let mut done = Vec::with_capacity(apply.entities.len());
        let mut mentioned = BTreeSet::new();
        for entity in apply.entities {
            let stored = self.apply_one(entity).await?;
            mentioned.insert(stored.key.clone());
            done.push(stored);
        }
        let pruned = match apply.prune.as_deref() {
            Some(above) if !above.is_empty() => self.prune(above, &mentioned).await?,
            _ => Vec::new(),
        };
        Ok((done, pruned))
    }

    async fn apply_one(&mut self, entity: ApplyEntity) -> Result<Stored, Refusal> {
        let name = self.resolve_name(&entity.name).await?;
        let named = Key::parse(&name).map(|key| own_key(key, &self.caller, &self.options));
        let (collection, mut key) = match named {
            Ok(key) => (collection_of(&key), Some(key)),
            Err(refusal) => (Collection::parse(&name).map_err(|_| refusal)?, None),
        };
        self.caller.may_write(collection.kind)?;
        if let Some(caller_key) = &entity.key {
            if key.is_some() {
                return Err(Refusal::bad_request(format!(
                    "Invalid name: {name}. With a key of your own, name the collection"
                )));
            }
            key = self.behind(&name, caller_key).await?;
        } else if key.is_none()
            && let Some(id) = natural_id(&collection, &entity.body)
        {
            key = Some(id);
        }
        let existing = match &key {
            Some(key) => self.tx.get(key).await?,
            None => None,
        };
        if let Some(expected) = entity.expected_revision {
            check_revision(&name, existing.as_ref(), expected)?;
        }
        let stored = match (existing, key) {
            (Some(row), Some(key)) => {
                let changes = changes_of(collection.kind, &entity.body, entity.mask.as_deref())?;
                self.change_row(&key, row, changes).await?
            }
            (None, Some(key)) if is_generated(collection.kind) => return Err(missing(&self.caller, &key)),
            (_, key) => self.create(&collection, key, entity.body).await?,
        };
        if let Some(caller_key) = &entity.key {
            self.remember(&name, caller_key, &stored.key).await?;
        }
        Ok(stored)
    }

    /// Replaces the segments `key:{key}` of a name by the ids behind them.
    async fn resolve_name(&mut self, name: &str) -> Result<String, Refusal> {
        if !name.contains("key:") {
            return Ok(name.into());
        }
        let mut resolved = String::new();
        for segment in name.split('/') {
            match segment.strip_prefix("key:") {
                Some(caller_key) => {
                    let entity = self.behind(&resolved, caller_key).await?.ok_or_else(|| {
                        Refusal::not_found(format!(
                            "Nothing in {resolved} is known under the key {caller_key}"
                        ))
                    })?;
                    resolved = entity.to_string();
                }
                None if resolved.is_empty() => resolved = segment.into(),
                None => resolved = format!("{resolved}/{segment}"),
            }
        }
        Ok(resolved)
    }

    /// The entity that a caller knows under a key of its own, if it is still there.
    async fn behind(&mut self, collection: &str, caller_key: &str) -> Result<Option<Key>, Refusal> {
        let Some(row) = self.tx.get(&self.caller_key(collection, caller_key)).await? else {
            return Ok(None);
        };
        let name = row
            .body
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let key = Key::parse(&name)?;
        Ok(self.tx.get(&key).await?.map(|row| row.key))
    }

    async fn remember(&mut self, collection: &str, caller_key: &str, key: &Key) -> Result<(), Refusal> {
        if caller_key.is_empty() || caller_key.len() > 256 || caller_key.contains('/') {
            return Err(Refusal::bad_request(
                "Invalid key: a key of your own has 1 to 256 characters and no slash".to_owned(),
            ));
        }
        let row = Put {
            key: self.caller_key(collection, caller_key),
            account: self.caller.account.clone(),
            region: self.region(),
            body: serde_json::json!({ "name": key.to_string() }),
            secret: Secret::Clear,
        };
        Ok(self.tx.put_quietly(row).await?)
    }

    fn caller_key(&self, collection: &str, caller_key: &str) -> Key {
        Key::within(
            Kind::CallerKey,
            format!("{}/{collection}", self.caller.account),
            caller_key,
        )
    }

    async fn prune(&mut self, above: &str, mentioned: &BTreeSet<Key>) -> Result<Vec<String>, Refusal> {
        let above = self.resolve_name(above).await?;
        let mut doomed = Vec::new();
        if let Ok(collection) = Collection::parse(&above) {
            self.caller.may_write(collection.kind)?;
            let list = List {
                account: self.caller.account_filter(collection.kind),
                ..list_of(&collection)
            };
            doomed.extend(self.tx.list(&list).await?.into_iter().map(|row| row.key));
        } else {
            let key = Key::parse(&above)?;
            self.caller.may_write(key.kind)?;
            check_parent(
                self.tx.as_read(),
                &self.caller,
                &Key::within(Kind::Stage, key.id.clone(), ""),
            )
            .await?;
            for kind in prunable(key.kind) {
                doomed.extend(
                    self.tx
                        .list(&List::within(*kind, key.id.clone()))
                        .await?
                        .into_iter()
                        .map(|row| row.key),
                );
            }
        }
        let mut pruned = Vec::new();
        for key in doomed {
            if mentioned.contains(&key) || self.is_built_in(&key).await? {
                continue;
            }
            // What lay in something that was deleted before it is gone already.
            if self.tx.get(&key).await?.is_some() {
                self.remove(&key).await?;
                pruned.push(key.to_string());
            }
        }
        Ok(pruned)
    }

    /// Root resources and the default models are not anybody's to mention.
    async fn is_built_in(&mut self, key: &Key) -> Result<bool, Refusal> {
        Ok(match key.kind {
            Kind::Model => matches!(key.id.as_str(), "Empty" | "Error"),
            Kind::ApiResource => self
                .tx
                .get(key)
                .await?
                .is_some_and(|row| row.body.get("parentId").is_none()),
            _ => false,
        })
    }
}

/// Kinds that a prune deletes below an entity. Deployments are history, not definition.
fn prunable(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::RestApi => &[
            Kind::Stage,
            Kind::Method,
            Kind::ApiResource,
            Kind::Model,
            Kind::RequestValidator,
            Kind::Authorizer,
            Kind::GatewayResponse,
            Kind::DocumentationPart,
            Kind::DocumentationVersion,
        ],
        Kind::UsagePlan => &[Kind::UsagePlanKey],
        Kind::DomainName => &[Kind::BasePathMapping],
        _ => &[],
    }
}

/// The key of an entity that is called by one of its own members.
fn natural_id(collection: &Collection, body: &Map<String, Value>) -> Option<Key> {
    if is_generated(collection.kind) {
        return None;
    }
    let own = body.get(collection.kind.id_member()?)?.as_str()?;
    Some(match &collection.resource {
        Some(resource) => Key::method(&collection.parent, resource, own),
        None => Key::within(collection.kind, collection.parent.clone(), own),
    })
}

fn collection_of(key: &Key) -> Collection {
    Collection {
        kind: key.kind,
        parent: key.parent.clone(),
        resource: key.method_parts().map(|(resource, _)| resource.to_owned()),
    }
}

fn list_of(collection: &Collection) -> List {
    List {
        id_prefix: collection
            .resource
            .as_ref()
            .map(|resource| format!("{resource}/")),
        ..List::within(collection.kind, collection.parent.clone())
    }
}

/// What an Apply changes in an entity that exists. Members that only the service sets are passed over, unless the mask
/// names them: what was read may be sent back.
fn changes_of(
    kind: Kind,
    body: &Map<String, Value>,
    mask: Option<&[String]>,
) -> Result<Vec<MemberChange>, Refusal> {
    let Some(mask) = mask else {
        return Ok(body
            .iter()
            .filter(|(member, _)| {
                !kind.read_only().contains(&member.as_str()) && kind.id_member() != Some(member)
            })
            .map(|(member, value)| (vec![member.clone()], Some(value.clone())))
            .collect());
    };
    let mut changes = Vec::with_capacity(mask.len());
    for path in mask {
        let path = mask_path(path);
        let mut value = None;
        for (depth, step) in path.iter().enumerate() {
            let from = if depth == 0 {
                body.get(step)
            } else {
                value.and_then(|v: &Value| v.get(step))
            };
            value = from;
        }
        changes.push((path, value.cloned()));
    }
    Ok(changes)
}

/// Members whose own members a mask may name; below any other member stand keys of a map.
const NESTED: [&str; 10] = [
    "accessLogSettings",
    "canarySettings",
    "endpointConfiguration",
    "location",
    "methodIntegration",
    "mutualTlsAuthentication",
    "passThrough",
    "quota",
    "throttle",
    "tlsConfig",
];

/// A mask's path in the members' spelling: `access_log_settings.destination_arn` and
/// `accessLogSettings.destinationArn` are the same. Keys of maps stay as they are.
fn mask_path(path: &str) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    let mut in_map = false;
    for step in path.split('.') {
        let step = if in_map { step.to_owned() } else { camel_case(step) };
        in_map = in_map || !NESTED.contains(&step.as_str());
        steps.push(step);
    }
    steps
}

fn camel_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut raise = false;
    for c in name.chars() {
        if c == '_' {
            raise = true;
        } else if std::mem::take(&mut raise) {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C10: masks in either spelling; keys of maps stay as they are.
    #[test]
    fn masks() {
        assert_eq!(
            mask_path("access_log_settings.destination_arn"),
            ["accessLogSettings", "destinationArn"]
        );
        assert_eq!(mask_path("variables.my_name"), ["variables", "my_name"]);
        assert_eq!(
            mask_path("methodIntegration.request_templates.a_b"),
            ["methodIntegration", "requestTemplates", "a_b"]
        );
    }
}
