//! One call's work in its transaction: creating, changing and deleting entities under their rules.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    Apply, ApplyEntity, Caller, ServiceOptions, Stored, audit_of, export, freeze, references, special,
};
use crate::{
    model::{
        ApiResource, Collection, Entity, Key, Kind, Method, Refusal, RestApi, Stage, Timestamp, check_place,
        id,
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
    live: bool,
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

    // === Apply ===

    pub(super) async fn apply(&mut self, apply: Apply) -> Result<(Vec<Stored>, Vec<String>), Refusal> {
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
            }
            Entity::ClientCertificate(certificate) => {
                secret = special::new_client_certificate(certificate, &key.id)?;
            }
            Entity::DomainName(domain) => {
                let id = self.free_id(id::LONG).await?;
                special::name_domain(domain, id, &self.caller.account, &self.region());
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
    async fn change_row(
        &mut self,
        key: &Key,
        row: Row,
        changes: Vec<(Vec<String>, Option<Value>)>,
    ) -> Result<Stored, Refusal> {
        if !self.caller.sees(&row.account) {
            return Err(missing(&self.caller, key));
        }
        check_parent(self.tx.as_read(), &self.caller, key).await?;
        self.tx.lock(&top_of(key)).await?;
        let before = Entity::from_json(key.kind, row.body.clone())?;
        let mut entity = before.clone().set(changes)?;
        entity.fill_defaults(key.method_parts().map_or("", |(resource, _)| resource));
        if let Some(member) = key.kind.id_member() {
            if member_of(&before, member)? != member_of(&entity, member)? {
                return Err(Refusal::bad_request(format!("Invalid patch path /{member}")));
            }
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
            (_, Entity::Certificate(certificate)) => {
                let new = special::read_certificate(certificate, &key.id, &row.account, &row.region);
                secret = match new {
                    Ok(secret) => secret,
                    // The chain stays, and with it the key.
                    Err(_)
                        if matches!((&before, &entity), (Entity::Certificate(a), Entity::Certificate(b))
                        if a.chain_pem == b.chain_pem && b.private_key_pem.is_none()) =>
                    {
                        Secret::Keep
                    }
                    Err(refusal) => return Err(refusal),
                };
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

    // === Deleting ===

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

/// Kinds whose changes nodes have to know without a deployment (C4).
fn is_live(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Stage | Kind::Certificate | Kind::Setting | Kind::Binding
    )
}

/// Kinds whose ids are generated.
fn is_generated(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Method
            | Kind::Model
            | Kind::GatewayResponse
            | Kind::DocumentationVersion
            | Kind::Stage
            | Kind::UsagePlanKey
            | Kind::DomainName
            | Kind::BasePathMapping
            | Kind::Account
    )
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

/// The account's own settings are called `account` by everybody.
pub(super) fn own_key(key: Key, caller: &Caller, options: &ServiceOptions) -> Key {
    if key.kind != Kind::Account {
        return key;
    }
    let region = caller.region.as_deref().unwrap_or(&options.region);
    Key::top(Kind::Account, format!("{}/{region}", caller.account))
}

/// The row under whose lock an entity is changed.
fn top_of(key: &Key) -> Key {
    match key.kind.place().0 {
        Some("restApis") => Key::top(Kind::RestApi, key.parent.clone()),
        Some("usagePlans") => Key::top(Kind::UsagePlan, key.parent.clone()),
        Some("domainNames") => Key::top(Kind::DomainName, key.parent.clone()),
        _ => key.clone(),
    }
}

/// Refuses where what the entity lies in does not exist, or is another account's.
pub(super) async fn check_parent(view: &mut dyn Read, caller: &Caller, key: &Key) -> Result<(), Refusal> {
    if key.parent.is_empty() {
        return Ok(());
    }
    let top = view.get(&top_of(key)).await?;
    if top.is_some_and(|row| caller.sees(&row.account)) {
        return Ok(());
    }
    Err(match key.kind {
        // OBV-068, OBV-098, OBV-111: the API is not named.
        Kind::ApiResource | Kind::Method => Refusal::unknown_resource(),
        Kind::UsagePlanKey => missing(caller, &Key::top(Kind::UsagePlan, key.parent.clone())),
        Kind::BasePathMapping => missing(caller, &Key::top(Kind::DomainName, key.parent.clone())),
        // OBV-130.
        Kind::RequestValidator => Refusal::bad_request("Invalid REST API identifier specified"),
        _ => Refusal::unknown_api(&caller.account, &key.parent),
    })
}

/// The text for an entity that is not there.
pub(super) fn missing(caller: &Caller, key: &Key) -> Refusal {
    let text = match key.kind {
        Kind::RestApi => return Refusal::unknown_api(&caller.account, &key.id),
        Kind::ApiResource => return Refusal::unknown_resource(),
        Kind::Method => return Refusal::unknown_method(),
        Kind::Model => return Refusal::not_found(format!("Invalid model name specified: {}", key.id)),
        Kind::RequestValidator => "Invalid Request Validator identifier specified",
        Kind::Authorizer => "Invalid Authorizer identifier specified",
        Kind::GatewayResponse => "Invalid gateway response type specified",
        Kind::DocumentationPart => "Invalid Documentation part identifier specified",
        Kind::DocumentationVersion => "Invalid Documentation version specified",
        Kind::Deployment => "Invalid Deployment identifier specified",
        Kind::Stage => "Invalid stage identifier specified",
        Kind::ApiKey => "Invalid API Key identifier specified",
        Kind::UsagePlan => "Invalid Usage Plan ID specified",
        Kind::UsagePlanKey => "Invalid API Key identifier specified",
        Kind::DomainName => "Invalid domain name identifier specified",
        Kind::BasePathMapping => "Invalid base path mapping identifier specified",
        Kind::ClientCertificate => "Invalid Client Certificate identifier specified",
        Kind::VpcLink => "Invalid Vpc Link identifier specified",
        _ => return Refusal::not_found(format!("Invalid identifier specified: {key}")),
    };
    Refusal::not_found(text)
}

fn conflict(key: &Key) -> Refusal {
    Refusal::conflict(match key.kind {
        Kind::Method => "Method already exists for this resource",
        Kind::Model => "Model name already exists for this REST API", // OBV-126
        Kind::Stage => "Stage already exists",
        Kind::UsagePlanKey => "Usage Plan already has this API Key",
        Kind::DomainName => "The domain name you provided already exists.",
        Kind::BasePathMapping => "Base path already exists for this domain name",
        _ => return Refusal::conflict(format!("{key} already exists")),
    })
}

fn check_revision(name: &str, row: Option<&Row>, expected: u64) -> Result<(), Refusal> {
    let found = row.map_or(0, |row| row.revision);
    if found == expected {
        return Ok(());
    }
    Err(Refusal::conflict(match (found, expected) {
        (_, 0) => format!("{name} already exists, at revision {found}"),
        (0, _) => format!("{name} does not exist; revision {expected} was expected"),
        _ => format!("{name} is at revision {found}, not {expected}: somebody has changed it meanwhile"),
    }))
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

/// What an Apply changes in an entity that exists. Members that only the service sets are passed over, unless the mask
/// names them: what was read may be sent back.
fn changes_of(
    kind: Kind,
    body: &Map<String, Value>,
    mask: Option<&[String]>,
) -> Result<Vec<(Vec<String>, Option<Value>)>, Refusal> {
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
const NESTED: [&str; 9] = [
    "accessLogSettings",
    "canarySettings",
    "endpointConfiguration",
    "location",
    "methodIntegration",
    "mutualTlsAuthentication",
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
