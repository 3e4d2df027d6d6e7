//! One call's work in its transaction: creating and changing entities under their rules.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    Caller, ServiceOptions, Stored, audit_of, bindings, export, freeze, ocsp, references, special,
    texts::{check_parent, conflict, is_generated, is_live, missing, top_of},
};
use crate::{
    model::{
        ApiResource, Collection, Entity, Key, Kind, MemberChange, Method, Refusal, RestApi, Stage, Timestamp,
        check_place, id,
    },
    store::{List, Put, Read, Row, Secret, Write},
};

/// Most resources of one API.
pub(super) const MAX_RESOURCES: usize = 10_000;
/// Tries for an id that nobody has; a second one is never needed in practice.
const ID_TRIES: usize = 16;

/// A call in its transaction.
pub(super) struct Unit<'t> {
    pub(super) tx: &'t mut dyn Write,
    pub(super) caller: Caller,
    pub(super) options: ServiceOptions,
    /// Something changed that nodes have to know.
    pub(super) live: bool,
}

impl<'t> Unit<'t> {
    pub(super) fn new(tx: &'t mut dyn Write, caller: Caller, options: ServiceOptions) -> Self {
        tx.act_as(&caller.principal);
        Self {
            tx,
            caller,
            options,
            live: false,
        }
    }

    /// Whether something changed that nodes have to know.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Where new things go.
    pub(super) fn region(&self) -> String {
        self.caller
            .region
            .clone()
            .unwrap_or_else(|| self.options.region.clone())
    }

    /// Writes who did it, if anything was done.
    pub(super) async fn audit(&mut self, operation: &str, target: &str) -> Result<(), Refusal> {
        if self.tx.revision().is_some() {
            self.tx.audit(&audit_of(&self.caller, operation, target)).await?;
        }
        Ok(())
    }

    // === Creating ===

    /// Creates an entity in a collection. `key` is given where the caller chose the id.
    pub(super) async fn create(
        &mut self,
        collection: &Collection,
        key: Option<Key>,
        body: Map<String, Value>,
    ) -> Result<Stored, Refusal> {
        let kind = collection.kind;
        self.caller.may_write(kind)?;
        let mut key = match key {
            Some(key) => key,
            None => self.new_key(collection).await?,
        };
        check_parent(self.tx.as_read(), &self.caller, &key).await?;
        let mut body = body;
        for member in kind.read_only() {
            body.shift_remove(*member);
        }
        if let Some(member) = kind.id_member() {
            let own = key.method_parts().map_or(key.id.as_str(), |(_, verb)| verb);
            body.insert(member.into(), own.into());
        }
        let mut entity = Entity::from_json(kind, Value::Object(body))?;
        entity.fill_defaults(key.method_parts().map_or("", |(resource, _)| resource));
        let mut secret = Secret::Clear;
        match &mut entity {
            Entity::RestApi(api) => return self.create_api(key, api.clone()).await,
            Entity::ApiResource(resource) => self.place(&key, resource).await?,
            // OBV-067: the resource is looked for before the verb is judged.
            Entity::Method(_) => references::method_resource(self.tx.as_read(), &key).await?,
            Entity::Model(model) => {
                // A model is found by its name and has an id beside it.
                model.id = Some(self.free_id(id::SHORT).await?);
            }
            Entity::DocumentationVersion(version) => version.created_date = Some(Timestamp::now()),
            Entity::Stage(stage) => {
                let now = Timestamp::now();
                stage.created_date = Some(now);
                stage.last_updated_date = Some(now);
            }
            Entity::Deployment(_) => {
                return Err(Refusal::bad_request(
                    "A deployment is made by Deploy, not by Apply",
                ));
            }
            Entity::Principal(_) => {
                return Err(Refusal::bad_request(
                    "A principal is made by CreatePrincipal, not by Apply",
                ));
            }
            Entity::ApiKey(api_key) => secret = special::new_api_key(self.tx.as_read(), api_key).await?,
            Entity::Certificate(certificate) => {
                secret =
                    special::read_certificate(certificate, &key.id, &self.caller.account, &self.region())?;
                ocsp::check(certificate)?;
            }
            Entity::ClientCertificate(certificate) => {
                secret = special::new_client_certificate(certificate, &key.id)?;
            }
            Entity::DomainName(domain) => {
                let id = self.free_id(id::LONG).await?;
                special::name_domain(domain, id, &self.caller.account, &self.region());
            }
            Entity::Binding(binding) => {
                let region = self.region();
                let place = (region.as_str(), self.caller.account.as_str());
                secret = bindings::bind(self.tx.as_read(), &key.id, None, binding, place).await?;
            }
            Entity::BasePathMapping(mapping) => {
                // The default may have changed what it is called.
                key.id = mapping.base_path.clone().unwrap_or_default();
            }
            _ => {}
        }
        entity.check()?;
        references::check(self.tx.as_read(), &self.caller, &key, &entity).await?;
        if let Some(row) = self.tx.get(&key).await? {
            return Err(conflict(&row.key));
        }
        self.put(key, &entity, secret, true).await
    }

    async fn create_api(&mut self, key: Key, mut api: RestApi) -> Result<Stored, Refusal> {
        api.created_date = Some(Timestamp::now());
        api.check()?;
        let root = self.free_id(id::LONG).await?;
        api.root_resource_id = Some(root.clone());
        let id = key.id.clone();
        freeze::expand_policy(&mut api, &id, &self.caller.account, &self.region());
        let stored = self.put(key, &Entity::RestApi(api), Secret::Clear, false).await?;
        let resource = Entity::ApiResource(ApiResource::root(root.clone()));
        self.put(
            Key::within(Kind::ApiResource, id.clone(), root),
            &resource,
            Secret::Clear,
            false,
        )
        .await?;
        for mut model in crate::model::Model::defaults() {
            model.id = Some(self.free_id(id::SHORT).await?);
            let key = Key::within(Kind::Model, id.clone(), model.name.clone().unwrap_or_default());
            self.put(key, &Entity::Model(model), Secret::Clear, false).await?;
        }
        Ok(stored)
    }

    /// Finds a new resource its place in the tree (OBV-060, OBV-061, OBV-062).
    async fn place(&mut self, key: &Key, resource: &mut ApiResource) -> Result<(), Refusal> {
        let all = self.resources(&key.parent).await?;
        if all.len() >= MAX_RESOURCES {
            return Err(Refusal::new(
                crate::model::Code::LimitExceeded,
                format!("An API has at most {MAX_RESOURCES} resources"),
            ));
        }
        let parent = resource
            .parent_id
            .as_ref()
            .and_then(|id| all.get(id))
            .ok_or_else(Refusal::unknown_resource)?;
        let part = resource.path_part.as_deref().unwrap_or_default();
        check_place(
            part,
            parent.path_part.as_deref(),
            siblings(&all, &resource.parent_id, &key.id),
        )?;
        resource.path = Some(ApiResource::child_path(
            parent.path.as_deref().unwrap_or("/"),
            part,
        ));
        Ok(())
    }

    async fn new_key(&mut self, collection: &Collection) -> Result<Key, Refusal> {
        let length = match collection.kind {
            Kind::RestApi | Kind::ApiKey => id::LONG,
            kind if is_generated(kind) => id::SHORT,
            kind => {
                let member = kind.id_member().unwrap_or("name");
                return Err(Refusal::bad_request(format!("{member} is required")));
            }
        };
        let id = self.free_id(length).await?;
        Ok(Key::within(collection.kind, collection.parent.clone(), id))
    }

    /// An id that nothing in the installation has (C8).
    pub(super) async fn free_id(&mut self, length: usize) -> Result<String, Refusal> {
        for _ in 0..ID_TRIES {
            let id = id::random(length)?;
            if !self.tx.id_taken(&id).await? {
                return Ok(id);
            }
        }
        Err(Refusal::internal("no free id was found"))
    }

    // === Changing ===

    /// Changes members of an entity that is there.
    pub(super) async fn change_row(
        &mut self,
        key: &Key,
        row: Row,
        changes: Vec<MemberChange>,
    ) -> Result<Stored, Refusal> {
        if !self.caller.sees(&row.account) {
            return Err(missing(&self.caller, key));
        }
        check_parent(self.tx.as_read(), &self.caller, key).await?;
        self.tx.lock(&top_of(key)).await?;
        let before = Entity::from_json(key.kind, row.body.clone())?;
        let mut entity = before.clone().set(changes)?;
        entity.fill_defaults(key.method_parts().map_or("", |(resource, _)| resource));
        if let Some(member) = key.kind.id_member()
            && member_of(&before, member)? != member_of(&entity, member)?
        {
            return Err(Refusal::bad_request(format!("Invalid patch path /{member}")));
        }
        let mut secret = Secret::Keep;
        match (&before, &mut entity) {
            (Entity::ApiResource(old), Entity::ApiResource(new)) => {
                return self.move_resource(key, old, new.clone()).await;
            }
            (Entity::Stage(old), Entity::Stage(new)) => {
                change_deployment(old, new)?;
                new.last_updated_date = Some(Timestamp::now());
            }
            (_, Entity::ApiKey(api_key)) => {
                if api_key.value.take().is_some() {
                    return Err(Refusal::bad_request("Invalid patch path /value"));
                }
                api_key.last_updated_date = Some(Timestamp::now());
            }
            (Entity::Certificate(old), Entity::Certificate(certificate)) => {
                let same_chain = old.chain_pem == certificate.chain_pem;
                // Where the chain stays and no key is given, the key stays.
                if !same_chain || certificate.private_key_pem.is_some() {
                    secret = special::read_certificate(certificate, &key.id, &row.account, &row.region)?;
                }
                if !same_chain && old.ocsp_response == certificate.ocsp_response {
                    // It was the old chain's.
                    certificate.ocsp_response = None;
                }
                ocsp::check(certificate)?;
            }
            (Entity::Binding(old), Entity::Binding(new)) => {
                let place = (row.region.as_str(), row.account.as_str());
                secret = bindings::bind(self.tx.as_read(), &key.id, Some(old), new, place).await?;
            }
            (_, Entity::RestApi(api)) => freeze::expand_policy(api, &key.id, &row.account, &row.region),
            _ => {}
        }
        entity.check()?;
        references::check(self.tx.as_read(), &self.caller, key, &entity).await?;
        if before == entity && matches!(secret, Secret::Keep) {
            return export::stored(self.tx.as_read(), row, false).await;
        }
        self.put_in(key.clone(), &entity, secret, false, (row.account, row.region))
            .await
    }

    /// Renames or moves a resource; everything below it gets its new path (OBV-057).
    async fn move_resource(
        &mut self,
        key: &Key,
        old: &ApiResource,
        mut new: ApiResource,
    ) -> Result<Stored, Refusal> {
        let mut all = self.resources(&key.parent).await?;
        if old.is_root() {
            if new.parent_id.is_some() || new.path_part.is_some() {
                return Err(Refusal::bad_request(
                    "The root resource cannot be renamed or moved",
                ));
            }
        } else {
            let part = new.path_part.clone().unwrap_or_default();
            let parent = new
                .parent_id
                .as_ref()
                .and_then(|id| all.get(id))
                .ok_or_else(Refusal::unknown_resource)?;
            let mut above = Some(parent);
            while let Some(resource) = above {
                if resource.id.as_deref() == Some(&key.id) {
                    return Err(Refusal::bad_request("A resource cannot be moved below itself"));
                }
                above = resource.parent_id.as_ref().and_then(|id| all.get(id));
            }
            check_place(
                &part,
                parent.path_part.as_deref(),
                siblings(&all, &new.parent_id, &key.id),
            )?;
            let greedy = part.ends_with("+}");
            if greedy
                && all
                    .values()
                    .any(|child| child.parent_id.as_deref() == Some(&key.id))
            {
                return Err(Refusal::bad_request(format!(
                    "Cannot create a child of a resource with a greedy path variable: {part}"
                )));
            }
            new.path = Some(ApiResource::child_path(
                parent.path.as_deref().unwrap_or("/"),
                &part,
            ));
        }
        all.insert(key.id.clone(), new.clone());
        let stored = self
            .put(key.clone(), &Entity::ApiResource(new), Secret::Keep, false)
            .await?;
        if old.path != stored_path(&stored) {
            let mut above = vec![key.id.clone()];
            while let Some(parent) = above.pop() {
                let path = all
                    .get(&parent)
                    .and_then(|resource| resource.path.clone())
                    .unwrap_or_default();
                let children: Vec<String> = all
                    .iter()
                    .filter(|(_, child)| child.parent_id.as_deref() == Some(&parent))
                    .map(|(id, _)| id.clone())
                    .collect();
                for child in children {
                    if let Some(resource) = all.get_mut(&child) {
                        let part = resource.path_part.clone().unwrap_or_default();
                        resource.path = Some(ApiResource::child_path(&path, &part));
                        let entity = Entity::ApiResource(resource.clone());
                        let key = Key::within(Kind::ApiResource, key.parent.clone(), child.clone());
                        self.put(key, &entity, Secret::Keep, false).await?;
                    }
                    above.push(child);
                }
            }
        }
        Ok(stored)
    }

    // === Rows ===

    /// The resources of an API by id.
    pub(super) async fn resources(&mut self, api: &str) -> Result<BTreeMap<String, ApiResource>, Refusal> {
        let rows = self.tx.list(&List::within(Kind::ApiResource, api)).await?;
        rows.into_iter()
            .map(|row| {
                Ok((
                    row.key.id,
                    serde_json::from_value(row.body).map_err(Refusal::internal)?,
                ))
            })
            .collect()
    }

    /// Writes an entity; things in an API belong to whom the API belongs to.
    pub(super) async fn put(
        &mut self,
        key: Key,
        entity: &Entity,
        secret: Secret,
        reveal: bool,
    ) -> Result<Stored, Refusal> {
        let owner = match key.parent.as_str() {
            "" => None,
            _ => self
                .tx
                .get(&top_of(&key))
                .await?
                .map(|row| (row.account, row.region)),
        };
        let owner = owner.unwrap_or_else(|| (self.caller.account.clone(), self.region()));
        self.put_in(key, entity, secret, reveal, owner).await
    }

    pub(super) async fn put_in(
        &mut self,
        key: Key,
        entity: &Entity,
        secret: Secret,
        reveal: bool,
        (account, region): (String, String),
    ) -> Result<Stored, Refusal> {
        let body = entity.to_json()?;
        if let Entity::Binding(_) = entity {
            special::touch_bound(self.tx, &body).await?;
        }
        let put = Put {
            key: key.clone(),
            account: account.clone(),
            region: region.clone(),
            body,
            secret,
        };
        let row = Row {
            key: key.clone(),
            account,
            region,
            body: put.body.clone(),
            revision: 0,
            position: 0,
            has_secret: false,
        };
        let revision = self.tx.put(put).await?;
        self.live |= is_live(key.kind);
        export::stored(self.tx.as_read(), Row { revision, ..row }, reveal).await
    }
}

fn siblings<'a>(
    all: &'a BTreeMap<String, ApiResource>,
    parent: &'a Option<String>,
    own: &'a str,
) -> impl Iterator<Item = &'a str> {
    all.iter()
        .filter(move |(id, resource)| *id != own && resource.parent_id == *parent && parent.is_some())
        .filter_map(|(_, resource)| resource.path_part.as_deref())
}

fn member_of(entity: &Entity, member: &str) -> Result<Option<Value>, Refusal> {
    Ok(entity.to_json()?.get(member).cloned())
}

fn stored_path(stored: &Stored) -> Option<String> {
    match &stored.entity {
        Entity::ApiResource(resource) => resource.path.clone(),
        _ => None,
    }
}

/// DEP-110: while a stage has a canary, its deployment changes to the canary's or not at all.
fn change_deployment(old: &Stage, new: &Stage) -> Result<(), Refusal> {
    let Some(canary) = &new.canary_settings else {
        return Ok(());
    };
    if old.canary_settings.is_none() || old.deployment_id == new.deployment_id {
        return Ok(());
    }
    if new.deployment_id == canary.deployment_id {
        return Ok(());
    }
    Err(Refusal::bad_request(
        "Deployment id of a stage with canary cannot be changed: promote the canary, or remove the canary settings first",
    ))
}

/// A row's body as the entity's type.
pub(super) fn read_body<T: serde::de::DeserializeOwned>(row: Row) -> Result<T, Refusal> {
    serde_json::from_value(row.body).map_err(|error| Refusal::internal(format!("{}: {error}", row.key)))
}

/// What a method and a deployment need to know of each other's rows.
pub(super) type MethodRow = (String, String, Method);

/// The methods of an API: resource, verb, method.
pub(super) async fn methods(view: &mut dyn Read, api: &str) -> Result<Vec<MethodRow>, Refusal> {
    let rows = view.list(&List::within(Kind::Method, api)).await?;
    rows.into_iter()
        .filter_map(|row| {
            let (resource, verb) = row.key.method_parts()?;
            let (resource, verb) = (resource.to_owned(), verb.to_owned());
            Some(read_body(row).map(|method| (resource, verb, method)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DEP-110, DEP-123: the stage's deployment moves to the canary's only.
    #[test]
    fn canary_pins_deployment() {
        let stage = |deployment: &str, canary: Option<&str>| Stage {
            deployment_id: Some(deployment.into()),
            canary_settings: canary.map(|id| crate::model::CanarySettings {
                deployment_id: Some(id.into()),
                ..Default::default()
            }),
            ..Stage::default()
        };
        let old = stage("d1", Some("d2"));
        assert_eq!(change_deployment(&old, &stage("d2", Some("d2"))), Ok(()));
        assert!(change_deployment(&old, &stage("d3", Some("d2"))).is_err());
        assert_eq!(change_deployment(&old, &stage("d3", None)), Ok(()));
    }
}
