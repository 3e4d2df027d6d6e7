//! Deleting entities, and all that lies in them.

use serde_json::Value;

use super::{
    references, special,
    texts::{check_parent, check_revision, is_live, missing, top_of},
    unit::Unit,
};
use crate::{
    model::{Key, Kind, Refusal},
    store::List,
};

impl Unit<'_> {
    /// Refuses unless the entity has the revision that the caller expects.
    pub(super) async fn expect_revision(&mut self, key: &Key, expected: Option<u64>) -> Result<(), Refusal> {
        match expected {
            Some(expected) => check_revision(&key.to_string(), self.tx.get(key).await?.as_ref(), expected),
            None => Ok(()),
        }
    }

    /// Deletes an entity and all that lies in it.
    pub(super) async fn remove(&mut self, key: &Key) -> Result<(), Refusal> {
        self.caller.may_write(key.kind)?;
        let row = self
            .tx
            .get(key)
            .await?
            .filter(|row| self.caller.sees(&row.account));
        let Some(row) = row else {
            return Err(missing(&self.caller, key));
        };
        check_parent(self.tx.as_read(), &self.caller, key).await?;
        self.tx.lock(&top_of(key)).await?;
        match key.kind {
            Kind::RestApi => {
                for kind in BELOW_API {
                    self.remove_all(List::within(*kind, key.id.clone())).await?;
                }
                self.drop_definitions(&[]).await?;
            }
            Kind::ApiResource => {
                if row.body.get("parentId").is_none() {
                    return Err(Refusal::bad_request("Root resource cannot be deleted"));
                }
                self.remove_subtree(&key.parent, &key.id).await?;
            }
            Kind::Deployment => {
                references::deployment_unused(self.tx.as_read(), key).await?;
                let name = row
                    .body
                    .get("definitionSha256")
                    .and_then(Value::as_str)
                    .map(str::to_owned);
                self.drop_definitions(name.as_slice()).await?;
            }
            Kind::ApiKey => {
                // OBV-166.
                let places = self
                    .tx
                    .list(&List {
                        id_prefix: Some(key.id.clone()),
                        ..List::all(Kind::UsagePlanKey)
                    })
                    .await?;
                for place in places {
                    if place.key.id == key.id {
                        self.tx.delete(&place.key).await?;
                    }
                }
            }
            Kind::UsagePlan => {
                self.remove_all(List::within(Kind::UsagePlanKey, key.id.clone()))
                    .await?
            }
            Kind::DomainName => {
                self.remove_all(List::within(Kind::BasePathMapping, key.id.clone()))
                    .await?
            }
            Kind::Binding => special::touch_bound(self.tx, &row.body).await?,
            Kind::Principal if row.key.id == self.caller.principal => {
                return Err(Refusal::bad_request("A principal cannot delete itself"));
            }
            _ => {}
        }
        self.tx.delete(key).await?;
        self.live |= is_live(key.kind);
        Ok(())
    }

    async fn remove_all(&mut self, list: List) -> Result<(), Refusal> {
        for row in self.tx.list(&list).await? {
            self.tx.delete(&row.key).await?;
            self.live |= is_live(row.key.kind);
        }
        Ok(())
    }

    /// Deletes everything below a resource, and its own methods (OBV-058).
    pub(super) async fn remove_subtree(&mut self, api: &str, resource: &str) -> Result<(), Refusal> {
        let all = self.resources(api).await?;
        let mut below = vec![resource.to_owned()];
        while let Some(id) = below.pop() {
            let children = all
                .iter()
                .filter(|(_, child)| child.parent_id.as_deref() == Some(&id));
            below.extend(children.map(|(child, _)| child.clone()));
            let methods = List {
                id_prefix: Some(format!("{id}/")),
                ..List::within(Kind::Method, api)
            };
            self.remove_all(methods).await?;
            if id != resource {
                self.tx.delete(&Key::within(Kind::ApiResource, api, id)).await?;
            }
        }
        Ok(())
    }

    /// Drops definitions that no deployment names any more. The one being deleted still names its own.
    async fn drop_definitions(&mut self, names: &[String]) -> Result<(), Refusal> {
        for name in names {
            let users = self.tx.list(&List::all(Kind::Deployment)).await?;
            let named = users
                .iter()
                .filter(|row| row.body.get("definitionSha256").and_then(Value::as_str) == Some(name))
                .count();
            if named <= 1 {
                self.tx.drop_definition(name).await?;
            }
        }
        Ok(())
    }
}

/// Kinds that lie in an API.
const BELOW_API: &[Kind] = &[
    Kind::Stage,
    Kind::Deployment,
    Kind::Method,
    Kind::ApiResource,
    Kind::Model,
    Kind::RequestValidator,
    Kind::Authorizer,
    Kind::GatewayResponse,
    Kind::DocumentationPart,
    Kind::DocumentationVersion,
];
