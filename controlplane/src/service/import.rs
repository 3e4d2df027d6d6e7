//! A whole definition becomes a draft.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Caller, Service, Stored, freeze, references,
    unit::{self, MAX_RESOURCES, Unit},
};
use crate::{
    model::{
        ApiResource, Code, Collection, Draft, Entity, ImportMode, Imported, Key, Kind, Method, Refusal,
        RestApi, check_place, id,
    },
    store::{self, List, Secret},
};

/// A definition to take over.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// The API to change; `None`: a new one.
    pub api: Option<String>,
    /// How it meets what is there.
    pub mode: ImportMode,
    /// Refuse, and do nothing, where anything was not understood (RES-017).
    pub fail_on_warnings: bool,
    /// The definition.
    pub imported: Imported,
}

/// What an import did.
#[derive(Clone, Debug)]
pub struct ImportOutcome {
    /// The API.
    pub rest_api: Stored,
    /// What was not understood, by name.
    pub warnings: Vec<String>,
    /// The revision; 0 where nothing was different.
    pub revision: u64,
}

impl Service {
    /// Makes an API of a definition, or makes one what the definition says; all or nothing.
    pub async fn import(&self, caller: &Caller, import: Import) -> Result<ImportOutcome, Refusal> {
        caller.may_write(Kind::RestApi)?;
        if import.fail_on_warnings && !import.imported.warnings.is_empty() {
            return Err(Refusal::bad_request(format!(
                "Warnings found during import:\n\t{}",
                import.imported.warnings.join("\n\t")
            )));
        }
        let (who, options) = (caller.clone(), self.options().clone());
        let warnings = import.imported.warnings.clone();
        let (rest_api, revision) = store::transact(self.store().as_ref(), move |tx| {
            Box::pin(async move {
                let mut unit = Unit::new(tx, who, options);
                let operation = if import.api.is_some() {
                    "PutRestApi"
                } else {
                    "ImportRestApi"
                };
                let stored = unit.import(import).await?;
                unit.audit(operation, &stored.key.to_string()).await?;
                Ok(stored)
            })
        })
        .await?;
        Ok(ImportOutcome {
            rest_api,
            warnings,
            revision: revision.unwrap_or(0),
        })
    }
}

/// Names in the document to ids in the store.
struct Names {
    authorizers: BTreeMap<String, String>,
    validators: BTreeMap<String, String>,
    models: BTreeSet<String>,
}

impl Unit<'_> {
    async fn import(&mut self, import: Import) -> Result<Stored, Refusal> {
        let Imported { mut draft, warnings } = import.imported;
        let merge = import.mode == ImportMode::Merge && import.api.is_some();
        let stored = self
            .import_api(import.api, &draft.rest_api, &warnings, merge)
            .await?;
        let api = stored.key.id.clone();
        draft.address_models(&api);
        self.tx.lock(&stored.key).await?;

        let authorizers = self
            .import_named(&api, Kind::Authorizer, authorizers_of(&draft), merge)
            .await?;
        let validators = self
            .import_named(&api, Kind::RequestValidator, validators_of(&draft), merge)
            .await?;
        let models = self.import_models(&api, &draft, merge).await?;
        self.import_gateway_responses(&api, &draft, merge).await?;
        self.import_documentation(&api, &draft, merge).await?;
        let names = Names {
            authorizers,
            validators,
            models,
        };
        self.import_paths(&api, &draft.paths, &names, merge).await?;
        Ok(stored)
    }

    async fn import_api(
        &mut self,
        api: Option<String>,
        given: &RestApi,
        warnings: &[String],
        merge: bool,
    ) -> Result<Stored, Refusal> {
        let warnings = (!warnings.is_empty()).then(|| warnings.to_vec());
        let Some(id) = api else {
            let body = Entity::RestApi(given.clone()).to_json()?;
            let body = body.as_object().cloned().unwrap_or_default();
            let collection = Collection {
                kind: Kind::RestApi,
                parent: String::new(),
                resource: None,
            };
            let stored = self.create(&collection, None, body).await?;
            let Entity::RestApi(mut api) = stored.entity.clone() else {
                return Ok(stored);
            };
            if warnings.is_none() {
                return Ok(stored);
            }
            api.warnings = warnings;
            return self
                .put(stored.key, &Entity::RestApi(api), Secret::Keep, false)
                .await;
        };
        let key = Key::top(Kind::RestApi, id.clone());
        let row = self
            .tx
            .get(&key)
            .await?
            .filter(|row| self.caller.sees(&row.account));
        let row = row.ok_or_else(|| Refusal::unknown_api(&self.caller.account, &id))?;
        let owner = (row.account.clone(), row.region.clone());
        let before = row.clone();
        let mut api: RestApi = unit::read_body(row)?;
        api = overlaid(api, given, merge);
        api.warnings = warnings;
        api.fill_defaults();
        freeze::expand_policy(&mut api, &id, &owner.0, &owner.1);
        api.check()?;
        let entity = Entity::RestApi(api);
        if entity.to_json()? == before.body {
            return super::export::stored(self.tx.as_read(), before, false).await;
        }
        self.put_in(key, &entity, Secret::Keep, false, owner).await
    }

    /// Entities that a document knows by name and the store by id. One of the same name keeps its id.
    async fn import_named(
        &mut self,
        api: &str,
        kind: Kind,
        given: BTreeMap<String, Entity>,
        merge: bool,
    ) -> Result<BTreeMap<String, String>, Refusal> {
        let mut ids = BTreeMap::new();
        for row in self.tx.list(&List::within(kind, api)).await? {
            let name = row
                .body
                .get("name")
                .and_then(|name| name.as_str())
                .unwrap_or_default()
                .to_owned();
            if merge || given.contains_key(&name) {
                ids.insert(name, row.key.id);
            } else {
                self.tx.delete(&row.key).await?;
            }
        }
        for (name, mut entity) in given {
            let id = match ids.get(&name) {
                Some(id) => id.clone(),
                None => self.free_id(id::SHORT).await?,
            };
            match &mut entity {
                Entity::Authorizer(authorizer) => {
                    authorizer.id = Some(id.clone());
                    authorizer.name = Some(name.clone());
                }
                Entity::RequestValidator(validator) => {
                    validator.id = Some(id.clone());
                    validator.name = Some(name.clone());
                }
                _ => {}
            }
            entity.fill_defaults("");
            entity.check().map_err(|refusal| at(&name, refusal))?;
            self.put_changed(Key::within(kind, api, id.clone()), &entity)
                .await?;
            ids.insert(name, id);
        }
        Ok(ids)
    }

    async fn import_models(
        &mut self,
        api: &str,
        draft: &Draft,
        merge: bool,
    ) -> Result<BTreeSet<String>, Refusal> {
        let mut names = BTreeSet::new();
        let mut ids = BTreeMap::new();
        for row in self.tx.list(&List::within(Kind::Model, api)).await? {
            let name = row.key.id.clone();
            let built_in = matches!(name.as_str(), "Empty" | "Error");
            if merge || built_in || draft.models.contains_key(&name) {
                ids.insert(
                    name.clone(),
                    row.body.get("id").and_then(|id| id.as_str()).map(str::to_owned),
                );
                names.insert(name);
            } else {
                self.tx.delete(&row.key).await?;
            }
        }
        for (name, model) in &draft.models {
            let mut model = model.clone();
            model.name = Some(name.clone());
            model
                .content_type
                .get_or_insert_with(|| "application/json".into());
            model.id = match ids.get(name).cloned().flatten() {
                Some(id) => Some(id),
                None => Some(self.free_id(id::SHORT).await?),
            };
            model.check().map_err(|refusal| at(name, refusal))?;
            self.put_changed(Key::within(Kind::Model, api, name.clone()), &Entity::Model(model))
                .await?;
            names.insert(name.clone());
        }
        Ok(names)
    }

    async fn import_gateway_responses(
        &mut self,
        api: &str,
        draft: &Draft,
        merge: bool,
    ) -> Result<(), Refusal> {
        if !merge {
            for row in self.tx.list(&List::within(Kind::GatewayResponse, api)).await? {
                if !draft.gateway_responses.contains_key(&row.key.id) {
                    self.tx.delete(&row.key).await?;
                }
            }
        }
        for (name, response) in &draft.gateway_responses {
            let mut entity = Entity::GatewayResponse(crate::model::GatewayResponse {
                response_type: Some(name.clone()),
                ..response.clone()
            });
            entity.fill_defaults("");
            entity.check().map_err(|refusal| at(name, refusal))?;
            self.put_changed(Key::within(Kind::GatewayResponse, api, name.clone()), &entity)
                .await?;
        }
        Ok(())
    }

    /// Parts are told apart by what they speak of; in a document's order (OBV-143, OBV-146).
    async fn import_documentation(&mut self, api: &str, draft: &Draft, merge: bool) -> Result<(), Refusal> {
        let mut known = Vec::new();
        for row in self.tx.list(&List::within(Kind::DocumentationPart, api)).await? {
            let key = row.key.clone();
            let part: crate::model::DocumentationPart = unit::read_body(row)?;
            if merge
                || draft
                    .documentation_parts
                    .iter()
                    .any(|given| given.location == part.location)
            {
                known.push((part.location, key.id));
            } else {
                self.tx.delete(&key).await?;
            }
        }
        for part in &draft.documentation_parts {
            let id = match known.iter().find(|(location, _)| *location == part.location) {
                Some((_, id)) => id.clone(),
                None => self.free_id(id::SHORT).await?,
            };
            let part = crate::model::DocumentationPart {
                id: Some(id.clone()),
                ..part.clone()
            };
            part.check()?;
            let key = Key::within(Kind::DocumentationPart, api, id);
            self.put_changed(key, &Entity::DocumentationPart(part)).await?;
        }
        Ok(())
    }

    /// Resources and methods. A path that is there already keeps its resource's id, so that what hangs on it stays.
    async fn import_paths(
        &mut self,
        api: &str,
        given: &BTreeMap<String, BTreeMap<String, Method>>,
        names: &Names,
        merge: bool,
    ) -> Result<(), Refusal> {
        let mut tree = Tree::new(self.resources(api).await?)?;
        let mut wanted = BTreeSet::from(["/".to_owned()]);
        for path in given.keys() {
            wanted.extend(ancestors(path)?);
        }
        if !merge {
            // Children before parents.
            let gone: Vec<String> = tree
                .ids
                .keys()
                .rev()
                .filter(|path| !wanted.contains(*path))
                .cloned()
                .collect();
            for path in gone {
                if let Some(id) = tree.remove(&path) {
                    self.remove_methods(api, &id, &BTreeMap::new()).await?;
                    self.tx.delete(&Key::within(Kind::ApiResource, api, id)).await?;
                }
            }
        }
        for path in &wanted {
            if !tree.ids.contains_key(path) {
                if tree.ids.len() >= MAX_RESOURCES {
                    return Err(Refusal::new(
                        Code::LimitExceeded,
                        format!("An API has at most {MAX_RESOURCES} resources"),
                    ));
                }
                let id = self.free_id(id::SHORT).await?;
                let resource = tree.add(path, id.clone())?;
                let key = Key::within(Kind::ApiResource, api, id);
                self.put_changed(key, &Entity::ApiResource(resource)).await?;
            }
        }
        let none = BTreeMap::new();
        let paths: Vec<(String, String)> = tree
            .ids
            .iter()
            .map(|(path, id)| (path.clone(), id.clone()))
            .collect();
        for (path, resource) in paths {
            let methods = given.get(&path).unwrap_or(&none);
            if !merge {
                self.remove_methods(api, &resource, methods).await?;
            }
            for (verb, method) in methods {
                let method = resolved(verb, method, &resource, names)
                    .map_err(|refusal| at(&format!("{verb} {path}"), refusal))?;
                self.put_changed(Key::method(api, &resource, verb), &Entity::Method(method))
                    .await?;
            }
        }
        Ok(())
    }

    async fn remove_methods(
        &mut self,
        api: &str,
        resource: &str,
        keep: &BTreeMap<String, Method>,
    ) -> Result<(), Refusal> {
        let list = List {
            id_prefix: Some(format!("{resource}/")),
            ..List::within(Kind::Method, api)
        };
        for row in self.tx.list(&list).await? {
            if row
                .key
                .method_parts()
                .is_some_and(|(_, verb)| !keep.contains_key(verb))
            {
                self.tx.delete(&row.key).await?;
            }
        }
        Ok(())
    }

    /// Writes an entity unless it is as it was: an import of the same document changes nothing.
    async fn put_changed(&mut self, key: Key, entity: &Entity) -> Result<(), Refusal> {
        let body = entity.to_json()?;
        if self.tx.get(&key).await?.is_some_and(|row| row.body == body) {
            return Ok(());
        }
        self.put(key, entity, Secret::Keep, false).await.map(|_| ())
    }
}

fn authorizers_of(draft: &Draft) -> BTreeMap<String, Entity> {
    draft
        .authorizers
        .iter()
        .map(|(name, e)| (name.clone(), Entity::Authorizer(e.clone())))
        .collect()
}

fn validators_of(draft: &Draft) -> BTreeMap<String, Entity> {
    draft
        .request_validators
        .iter()
        .map(|(name, e)| (name.clone(), Entity::RequestValidator(e.clone())))
        .collect()
}

/// An API's own members as the document has them.
fn overlaid(mut api: RestApi, given: &RestApi, merge: bool) -> RestApi {
    // A document says nothing of what only management calls set: endpoint, tags and the like stay in either mode.
    let keep = |new: &Option<String>, old: &Option<String>| {
        new.clone().or_else(|| if merge { old.clone() } else { None })
    };
    api.name = given.name.clone().or(api.name);
    api.description = keep(&given.description, &api.description);
    api.version = keep(&given.version, &api.version);
    api.policy = keep(&given.policy, &api.policy);
    api.api_key_source = given.api_key_source.clone().or(api.api_key_source);
    api.endpoint_configuration = given
        .endpoint_configuration
        .clone()
        .or(api.endpoint_configuration);
    api.disable_execute_api_endpoint = given
        .disable_execute_api_endpoint
        .or(api.disable_execute_api_endpoint);
    api.minimum_compression_size =
        given
            .minimum_compression_size
            .or(if merge { api.minimum_compression_size } else { None });
    api.binary_media_types = match (&given.binary_media_types, merge) {
        (Some(new), true) => {
            let mut all = api.binary_media_types.unwrap_or_default();
            all.extend(
                new.iter()
                    .filter(|media| !all.contains(media))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
            Some(all)
        }
        (Some(new), false) => Some(new.clone()),
        (None, true) => api.binary_media_types,
        (None, false) => None,
    };
    if given.tags.is_some() {
        api.tags = given.tags.clone();
    }
    api
}

/// A method as it is stored: names have become ids, defaults are filled, rules obeyed.
fn resolved(verb: &str, method: &Method, resource: &str, names: &Names) -> Result<Method, Refusal> {
    let mut method = method.clone();
    method.http_method = Some(verb.into());
    method.authorization_type.get_or_insert_with(|| "NONE".into());
    if let Some(name) = &method.authorizer_id {
        let id = names
            .authorizers
            .get(name)
            .ok_or_else(crate::model::invalid_authorizer)?;
        method.authorizer_id = Some(id.clone());
    }
    if let Some(name) = &method.request_validator_id {
        let id = names
            .validators
            .get(name)
            .ok_or_else(|| Refusal::bad_request("Invalid Request Validator identifier specified"))?;
        method.request_validator_id = Some(id.clone());
    }
    method.fill_defaults(resource);
    method.check()?;
    match references::model_names(&method)
        .into_iter()
        .find(|name| !names.models.contains(name))
    {
        Some(name) => Err(references::invalid_model(&name)),
        None => Ok(method),
    }
}

/// The resources of an API by path.
struct Tree {
    ids: BTreeMap<String, String>,
    children: BTreeMap<String, Vec<String>>,
}

impl Tree {
    fn new(resources: BTreeMap<String, ApiResource>) -> Result<Self, Refusal> {
        let mut tree = Self {
            ids: BTreeMap::new(),
            children: BTreeMap::new(),
        };
        for (id, resource) in resources {
            let path = resource.path.unwrap_or_default();
            if let (Some(parent), Some(part)) = (parent_of(&path), resource.path_part) {
                tree.children.entry(parent).or_default().push(part);
            }
            tree.ids.insert(path, id);
        }
        if tree.ids.contains_key("/") {
            Ok(tree)
        } else {
            Err(Refusal::internal("an API has lost its root"))
        }
    }

    fn add(&mut self, path: &str, id: String) -> Result<ApiResource, Refusal> {
        let parent = parent_of(path).ok_or_else(|| Refusal::internal("the root cannot be added"))?;
        let part = path.rsplit('/').next().unwrap_or_default();
        let parent_part = parent.rsplit('/').next().filter(|part| !part.is_empty());
        let siblings = self.children.entry(parent.clone()).or_default();
        check_place(part, parent_part, siblings.iter().map(String::as_str))
            .map_err(|refusal| at(path, refusal))?;
        siblings.push(part.into());
        let parent_id = self.ids.get(&parent).cloned();
        self.ids.insert(path.into(), id.clone());
        Ok(ApiResource {
            id: Some(id),
            parent_id,
            path_part: Some(part.into()),
            path: Some(path.into()),
        })
    }

    fn remove(&mut self, path: &str) -> Option<String> {
        let part = path.rsplit('/').next().unwrap_or_default();
        if let Some(siblings) = parent_of(path).and_then(|parent| self.children.get_mut(&parent)) {
            siblings.retain(|sibling| sibling != part);
        }
        self.ids.remove(path)
    }
}

/// The path above; `None` for the root.
fn parent_of(path: &str) -> Option<String> {
    let (parent, part) = path.rsplit_once('/')?;
    match (parent, part) {
        ("", "") => None,
        ("", _) => Some("/".into()),
        (parent, _) => Some(parent.into()),
    }
}

/// A path and all above it, the root left out (RES-025).
fn ancestors(path: &str) -> Result<Vec<String>, Refusal> {
    if path == "/" {
        return Ok(Vec::new());
    }
    let segments = path
        .strip_prefix('/')
        .filter(|rest| !rest.is_empty() && !rest.split('/').any(str::is_empty));
    let segments = segments.ok_or_else(|| {
        Refusal::bad_request(format!(
            "Invalid path {path}: a path begins with a slash and has no empty segment"
        ))
    })?;
    let mut all = Vec::new();
    let mut so_far = String::new();
    for segment in segments.split('/') {
        so_far = format!("{so_far}/{segment}");
        all.push(so_far.clone());
    }
    Ok(all)
}

/// Says in which part of the document the refusal arose.
fn at(place: &str, refusal: Refusal) -> Refusal {
    Refusal {
        message: format!("{} (at {place})", refusal.message),
        ..refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RES-025: paths and what lies above them.
    #[test]
    fn paths() {
        assert_eq!(
            ancestors("/pets/{petId}").expect("reads"),
            ["/pets", "/pets/{petId}"]
        );
        assert_eq!(ancestors("/").expect("reads"), Vec::<String>::new());
        assert!(ancestors("pets").is_err() && ancestors("//pets").is_err() && ancestors("/pets/").is_err());
        assert_eq!(parent_of("/pets").as_deref(), Some("/"));
        assert_eq!(parent_of("/"), None);
    }
}
