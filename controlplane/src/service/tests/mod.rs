//! The use cases over a real store.

mod access;
mod apis;
mod bindings;
mod changes;
mod deployments;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};
use tidegate_proto::config::v1::{BundleKind, StageBundle, integration::Kind as Step};

use super::*;
use crate::{
    compile::{Compiler, FORMAT},
    distribute::{BundleKey, Source},
    model::{Code, Draft, Entity, ImportMode, Imported, Method, RestApi},
    store::SqliteStore,
};

struct Fixture {
    service: Service,
    caller: Caller,
    _directory: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let store = Arc::new(SqliteStore::open(directory.path()).await.expect("opens"));
        let service = Service::new(store, Arc::new(NoFleet), ServiceOptions::default());
        service.bootstrap(Bootstrap::default()).await.expect("bootstraps");
        Self {
            service,
            caller: Caller::local("000000000000"),
            _directory: directory,
        }
    }

    async fn put(&self, name: &str, body: Value) -> Result<Stored, Refusal> {
        self.put_as(name, None, body).await
    }

    async fn put_as(&self, name: &str, key: Option<&str>, body: Value) -> Result<Stored, Refusal> {
        let entity = ApplyEntity {
            name: name.into(),
            key: key.map(str::to_owned),
            body: members(body),
            ..ApplyEntity::default()
        };
        let apply = Apply {
            entities: vec![entity],
            ..Apply::default()
        };
        Ok(self.service.apply(&self.caller, apply).await?.entities.remove(0))
    }

    /// An API named `pets` with a mock method on `/pets`; its id, the root's, and that of `/pets`.
    async fn pets(&self) -> (String, String, String) {
        let api = self
            .put("restApis", json!({ "name": "pets" }))
            .await
            .expect("created");
        let Entity::RestApi(RestApi {
            root_resource_id: Some(root),
            ..
        }) = &api.entity
        else {
            panic!("an API")
        };
        let id = api.key.id.clone();
        let resource = self
            .put(
                &format!("restApis/{id}/resources"),
                json!({ "parentId": root, "pathPart": "pets" }),
            )
            .await
            .expect("created");
        let name = format!("restApis/{id}/resources/{}/methods/GET", resource.key.id);
        self.put(&name, mock()).await.expect("created");
        (id, root.clone(), resource.key.id)
    }

    async fn deploy(&self, api: &str, stage: &str) -> Deployed {
        let deploy = Deploy {
            api: api.into(),
            stage: Some(stage.into()),
            ..Deploy::default()
        };
        self.service.deploy(&self.caller, deploy).await.expect("deployed")
    }

    async fn get(&self, name: &str) -> Result<Value, Refusal> {
        let stored = self.service.get(&self.caller, &Key::parse(name)?).await?;
        stored.entity.to_json()
    }

    async fn delete(&self, name: &str) -> Result<Option<Rollout>, Refusal> {
        self.service
            .delete(&self.caller, Key::parse(name)?, None, None)
            .await
    }

    async fn bundle(&self, api: &str, stage: &str) -> Option<StageBundle> {
        let key = BundleKey {
            kind: BundleKind::Stage,
            id: format!("{api}/{stage}"),
        };
        let compiler = Compiler::new(self.service.store().clone());
        let compiled = compiler.compiled(&key, FORMAT).await.expect("compiled")?;
        Some(prost::Message::decode(compiled.content).expect("decodes"))
    }

    async fn stages_changed(&self, since: u64) -> Vec<String> {
        let changed = Compiler::new(self.service.store().clone())
            .changed(since)
            .await
            .expect("changed");
        assert!(!changed.full || since == 0);
        changed
            .present
            .into_iter()
            .filter(|key| key.kind == BundleKind::Stage)
            .map(|key| key.id)
            .collect()
    }

    fn revision(&self) -> u64 {
        *self.service.store().revisions().borrow()
    }
}

fn members(body: Value) -> Map<String, Value> {
    body.as_object().cloned().expect("an object")
}

fn mock() -> Value {
    json!({
        "authorizationType": "NONE",
        "methodResponses": {"200": {}},
        "methodIntegration": {
            "type": "MOCK",
            "requestTemplates": {"application/json": "{\"statusCode\": 200}"},
            "integrationResponses": {"200": {"responseTemplates": {"application/json": "{\"ok\":true}"}}},
        },
    })
}

fn proxy(uri: &str) -> Value {
    json!({
        "authorizationType": "NONE",
        "methodIntegration": {"type": "HTTP_PROXY", "httpMethod": "GET", "uri": uri},
    })
}

fn code(refusal: Refusal) -> (Code, String) {
    (refusal.code, refusal.message)
}

fn imported(paths: &[(&str, &str)]) -> Imported {
    let mut draft = Draft {
        rest_api: RestApi {
            name: Some("imported".into()),
            ..RestApi::default()
        },
        ..Draft::default()
    };
    for (path, verb) in paths {
        let method: Method = serde_json::from_value(mock()).expect("reads");
        draft
            .paths
            .entry((*path).into())
            .or_default()
            .insert((*verb).into(), method);
    }
    Imported {
        draft,
        warnings: Vec::new(),
    }
}
