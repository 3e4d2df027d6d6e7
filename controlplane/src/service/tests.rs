//! The use cases over a real store.

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

    async fn delete(&self, name: &str) -> Result<Rollout, Refusal> {
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

/// RES-001, OBV-026, OBV-029, OBV-054, OBV-120: a new API has its defaults, a root and two models.
#[tokio::test]
async fn new_api() {
    let f = Fixture::new().await;
    let api = f
        .put("restApis", json!({ "name": "pets", "id": "ignored" }))
        .await
        .expect("created");
    let body = api.entity.to_json().expect("json");
    let mut names: Vec<_> = body.as_object().expect("object").keys().cloned().collect();
    names.sort();
    assert_eq!(
        names,
        [
            "apiKeySource",
            "createdDate",
            "disableExecuteApiEndpoint",
            "endpointConfiguration",
            "id",
            "name",
            "rootResourceId"
        ]
    );
    let (id, root) = (api.key.id, body["rootResourceId"].as_str().expect("root"));
    assert_eq!((id.len(), root.len()), (10, 10));
    assert_eq!(
        f.get(&format!("restApis/{id}/resources/{root}"))
            .await
            .expect("root"),
        json!({ "id": root, "path": "/" })
    );
    for model in ["Empty", "Error"] {
        let body = f
            .get(&format!("restApis/{id}/models/{model}"))
            .await
            .expect("model");
        assert_eq!(body["contentType"], "application/json");
        assert!(body["id"].is_string());
    }
}

/// OBV-035, OBV-060, OBV-061, OBV-062, OBV-068, OBV-069, OBV-070, OBV-071, OBV-072, OBV-092, OBV-126: texts.
#[tokio::test]
async fn refusals() {
    let f = Fixture::new().await;
    let (api, root, pets) = f.pets().await;
    let resources = format!("restApis/{api}/resources");
    f.put(&resources, json!({ "parentId": root, "pathPart": "{proxy+}" }))
        .await
        .expect("created");
    let proxies = f
        .service
        .list(&f.caller, &Collection::parse(&resources).expect("parses"), 0, "")
        .await
        .expect("listed");
    let greedy = &proxies.entities.last().expect("there").key.id;
    let method = |resource: &str, verb: &str| format!("restApis/{api}/resources/{resource}/methods/{verb}");
    let with = |member: &str, value: Value| {
        let mut body = mock();
        body[member] = value;
        body
    };
    let cases = [
        (
            f.get("restApis/Unknown").await.err(),
            Code::NotFound,
            "Invalid API identifier specified 000000000000:Unknown",
        ),
        (
            f.put(&resources, json!({ "parentId": "nosuch", "pathPart": "a" }))
                .await
                .err(),
            Code::NotFound,
            "Invalid Resource identifier specified",
        ),
        (
            f.put(&resources, json!({ "parentId": root, "pathPart": "{dynamic}" }))
                .await
                .err(),
            Code::BadRequest,
            "A sibling ({proxy+}) of this resource already has a variable path part -- only one is allowed",
        ),
        (
            f.put(&resources, json!({ "parentId": greedy, "pathPart": "child" }))
                .await
                .err(),
            Code::BadRequest,
            "Cannot create a child of a resource with a greedy path variable: {proxy+}",
        ),
        (
            f.put(&method("nosuch", "GET"), mock()).await.err(),
            Code::NotFound,
            "Invalid Resource identifier specified",
        ),
        (
            f.put(&format!("restApis/nosuch/resources/{pets}/methods/GET"), mock())
                .await
                .err(),
            Code::NotFound,
            "Invalid Resource identifier specified",
        ),
        (
            f.put(&method(&pets, "WRONG"), mock()).await.err(),
            Code::BadRequest,
            "Invalid HttpMethod specified. Valid options are GET,PUT,POST,DELETE,PATCH,OPTIONS,HEAD,ANY",
        ),
        (
            f.put(&method(&pets, "PUT"), with("authorizationType", "CUSTOM".into()))
                .await
                .err(),
            Code::BadRequest,
            "Invalid authorizer ID specified. Setting the authorization type to CUSTOM or COGNITO_USER_POOLS requires a \
             valid authorizer.",
        ),
        (
            f.put(&method(&pets, "PUT"), with("requestValidatorId", "nosuch".into()))
                .await
                .err(),
            Code::BadRequest,
            "Invalid Request Validator identifier specified",
        ),
        (
            f.put(
                &method(&pets, "PUT"),
                with("requestModels", json!({ "application/json": "Nosuch" })),
            )
            .await
            .err(),
            Code::BadRequest,
            "Invalid model identifier specified: Nosuch",
        ),
        (
            f.get(&method(&pets, "DELETE")).await.err(),
            Code::NotFound,
            "Invalid Method identifier specified",
        ),
        (
            f.delete("vpcLinks/nosuch").await.err(),
            Code::NotFound,
            "Invalid Vpc Link identifier specified",
        ),
        (
            f.delete(&format!("restApis/{api}/models/Nosuch")).await.err(),
            Code::NotFound,
            "Invalid model name specified: Nosuch",
        ),
    ];
    for (refusal, expected, text) in cases {
        assert_eq!(code(refusal.expect(text)), (expected, text.to_owned()));
    }
}

/// DEP-040 to DEP-052, DEP-147: a draft reaches a stage through a deployment, an older one comes back by pointing to
/// it, and a deployment that is served cannot be deleted.
#[tokio::test]
async fn deploy_and_roll_back() {
    let f = Fixture::new().await;
    let (api, _, pets) = f.pets().await;
    let first = f.deploy(&api, "prod").await;
    let stage = format!("restApis/{api}/stages/prod");
    let body = |bundle: &StageBundle| {
        let routes = &bundle.primary.as_ref().expect("a plan").routes;
        let method = &routes
            .iter()
            .find(|route| route.path == "/pets")
            .expect("the route")
            .methods[0];
        match &method.integration.as_ref().and_then(|i| i.kind.as_ref()) {
            Some(Step::Mock(mock)) => mock.body.clone(),
            other => panic!("a mock, not {other:?}"),
        }
    };
    assert_eq!(
        body(&f.bundle(&api, "prod").await.expect("served")),
        "{\"ok\":true}"
    );

    let before = f.revision();
    let method = format!("restApis/{api}/resources/{pets}/methods/GET");
    let mut changed = mock();
    changed["methodIntegration"]["integrationResponses"]["200"]["responseTemplates"]["application/json"] =
        "new".into();
    f.put(&method, changed).await.expect("changed");
    assert_eq!(
        body(&f.bundle(&api, "prod").await.expect("served")),
        "{\"ok\":true}"
    );
    assert_eq!(f.stages_changed(before).await, Vec::<String>::new());

    let second = f.deploy(&api, "prod").await;
    assert_eq!(body(&f.bundle(&api, "prod").await.expect("served")), "new");
    assert_eq!(f.stages_changed(before).await, [format!("{api}/prod")]);

    let id = |deployed: &Deployed| deployed.deployment.key.id.clone();
    f.put(&stage, json!({ "deploymentId": id(&first) }))
        .await
        .expect("rolled back");
    assert_eq!(
        body(&f.bundle(&api, "prod").await.expect("served")),
        "{\"ok\":true}"
    );
    let refused = f
        .delete(&first.deployment.key.to_string())
        .await
        .expect_err("refused");
    assert_eq!(
        refused.message,
        "Active stages pointing to this deployment must be moved or deleted"
    );
    f.delete(&second.deployment.key.to_string())
        .await
        .expect("deleted");
    f.delete(&stage).await.expect("deleted");
    assert_eq!(f.bundle(&api, "prod").await, None);
    assert!(
        f.get(&first.deployment.key.to_string()).await.is_ok(),
        "DEP-064: the deployment survives"
    );
}

/// The texts for what cannot be deployed.
#[tokio::test]
async fn undeployable() {
    let f = Fixture::new().await;
    let api = f
        .put("restApis", json!({ "name": "empty" }))
        .await
        .expect("created");
    let root = api.entity.to_json().expect("json")["rootResourceId"]
        .as_str()
        .expect("root")
        .to_owned();
    let deploy = |stage: &str| Deploy {
        api: api.key.id.clone(),
        stage: Some(stage.into()),
        ..Deploy::default()
    };
    let refused = f
        .service
        .deploy(&f.caller, deploy("s"))
        .await
        .expect_err("refused");
    assert_eq!(refused.message, "The REST API doesn't contain any methods");
    let name = format!("restApis/{}/resources/{root}/methods/GET", api.key.id);
    f.put(&name, json!({ "authorizationType": "none" }))
        .await
        .expect("created");
    let refused = f
        .service
        .deploy(&f.caller, deploy("s"))
        .await
        .expect_err("refused");
    assert_eq!(refused.message, "No integration defined for method");
    f.put(&name, mock()).await.expect("changed");
    let canary = Deploy {
        canary: Some(Default::default()),
        ..deploy("nosuch")
    };
    f.service.deploy(&f.caller, canary).await.expect_err("DEP-114");
    let list = Collection::parse(&format!("restApis/{}/deployments", api.key.id)).expect("parses");
    assert_eq!(
        f.service
            .list(&f.caller, &list, 0, "")
            .await
            .expect("listed")
            .entities,
        []
    );
}

/// DEP-102 to DEP-118: a canary deployment changes only the canary; promotion moves the stage.
#[tokio::test]
async fn canary() {
    let f = Fixture::new().await;
    let (api, ..) = f.pets().await;
    let first = f.deploy(&api, "prod").await.deployment.key.id;
    let second = Deploy {
        api: api.clone(),
        stage: Some("prod".into()),
        canary: Some(crate::model::CanarySettings {
            percent_traffic: Some(10.5),
            stage_variable_overrides: Some(BTreeMap::from([("sv1".into(), "val2".into())])),
            ..Default::default()
        }),
        ..Deploy::default()
    };
    let second = f
        .service
        .deploy(&f.caller, second)
        .await
        .expect("deployed")
        .deployment
        .key
        .id;
    let name = format!("restApis/{api}/stages/prod");
    let stage = f.get(&name).await.expect("stage");
    assert_eq!(stage["deploymentId"], first.as_str());
    assert_eq!(stage["canarySettings"]["deploymentId"], second.as_str());
    let bundle = f.bundle(&api, "prod").await.expect("served");
    assert_eq!(bundle.canary_percent, 10.5);
    assert_eq!(bundle.canary.expect("a canary").deployment_id, second);
    let plain = Deploy {
        api: api.clone(),
        stage: Some("prod".into()),
        ..Deploy::default()
    };
    f.service.deploy(&f.caller, plain).await.expect_err("DEP-110");
    f.put(&name, json!({ "deploymentId": second }))
        .await
        .expect("promoted");
    assert_eq!(
        f.get(&name).await.expect("stage")["deploymentId"],
        second.as_str()
    );
}

/// DEP-092, DEP-094: stage variables act without a deployment, each stage has its own.
#[tokio::test]
async fn stage_variables() {
    let f = Fixture::new().await;
    let (api, _, pets) = f.pets().await;
    let method = format!("restApis/{api}/resources/{pets}/methods/POST");
    f.put(&method, proxy("http://${stageVariables.url}"))
        .await
        .expect("created");
    f.deploy(&api, "beta").await;
    let stage = format!("restApis/{api}/stages/beta");
    let step = |bundle: StageBundle| {
        let plan = bundle.primary.expect("a plan");
        let route = plan
            .routes
            .into_iter()
            .find(|route| route.path == "/pets")
            .expect("the route");
        let method = route
            .methods
            .into_iter()
            .find(|method| method.http_method == "POST")
            .expect("the method");
        method
            .integration
            .and_then(|integration| integration.kind)
            .expect("a step")
    };
    assert!(matches!(
        step(f.bundle(&api, "beta").await.expect("served")),
        Step::Broken(_)
    ));
    f.put(&stage, json!({ "variables": { "url": "example.com/pets?x=1" } }))
        .await
        .expect("changed");
    match step(f.bundle(&api, "beta").await.expect("served")) {
        Step::HttpProxy(proxy) => assert_eq!((proxy.host.as_str(), proxy.port), ("example.com", 80)),
        other => panic!("a proxy, not {other:?}"),
    }
}

/// C4: what guards a method and cannot be run yet closes the method, with a warning; nothing is open by omission.
#[tokio::test]
async fn guards_fail_closed() {
    let f = Fixture::new().await;
    let (api, root, pets) = f.pets().await;
    let method = |resource: &str, verb: &str| format!("restApis/{api}/resources/{resource}/methods/{verb}");
    let mut iam = mock();
    iam["authorizationType"] = "AWS_IAM".into();
    f.put(&method(&pets, "POST"), iam).await.expect("created");
    let mut keyed = mock();
    keyed["apiKeyRequired"] = true.into();
    f.put(&method(&root, "GET"), keyed).await.expect("created");
    let deployed = f.deploy(&api, "prod").await;
    assert_eq!(deployed.warnings.len(), 2, "{:?}", deployed.warnings);
    let broken = |bundle: StageBundle| {
        let methods = bundle
            .primary
            .expect("a plan")
            .routes
            .into_iter()
            .flat_map(|route| route.methods);
        methods
            .filter(|m| {
                matches!(
                    m.integration.as_ref().and_then(|i| i.kind.as_ref()),
                    Some(Step::Broken(_))
                )
            })
            .count()
    };
    assert_eq!(broken(f.bundle(&api, "prod").await.expect("served")), 2);

    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"*","Resource":"execute-api:/*"}]}"#;
    f.put(&format!("restApis/{api}"), json!({ "policy": policy }))
        .await
        .expect("changed");
    assert_eq!(
        broken(f.bundle(&api, "prod").await.expect("served")),
        2,
        "frozen: not before a deployment"
    );
    f.deploy(&api, "prod").await;
    assert_eq!(broken(f.bundle(&api, "prod").await.expect("served")), 3);
    f.put(
        &format!("restApis/{api}/stages/prod"),
        json!({ "webAclArn": "arn:x" }),
    )
    .await
    .expect("read only");
}

/// C10: own keys, expected revisions, rehearsals, masks and pruning.
#[tokio::test]
async fn apply() {
    let f = Fixture::new().await;
    let one = f
        .put_as("restApis", Some("pets"), json!({ "name": "a" }))
        .await
        .expect("created");
    let two = f
        .put_as(
            "restApis",
            Some("pets"),
            json!({ "name": "b", "description": "d" }),
        )
        .await
        .expect("changed");
    assert_eq!(one.key, two.key);
    let name = two.key.to_string();
    let with = |change: fn(&mut ApplyEntity)| {
        let mut entity = ApplyEntity {
            name: name.clone(),
            ..ApplyEntity::default()
        };
        change(&mut entity);
        Apply {
            entities: vec![entity],
            ..Apply::default()
        }
    };
    let stale = with(|e| {
        e.body = members(json!({ "name": "c" }));
        e.expected_revision = Some(1);
    });
    assert_eq!(
        f.service.apply(&f.caller, stale).await.expect_err("refused").code,
        Code::Conflict
    );
    let masked = with(|e| e.mask = Some(vec!["description".into()]));
    f.service.apply(&f.caller, masked).await.expect("changed");
    assert_eq!(f.get(&name).await.expect("api").get("description"), None);
    let rehearsed = Apply {
        dry_run: true,
        ..with(|e| e.body = members(json!({ "name": "z" })))
    };
    let before = f.revision();
    f.service.apply(&f.caller, rehearsed).await.expect("rehearsed");
    assert_eq!(
        (f.get(&name).await.expect("api")["name"].clone(), f.revision()),
        ("b".into(), before)
    );

    // A name may go through the caller's own keys.
    let model = "restApis/key:pets/models/Pet";
    let schema = json!({ "schema": "{\"type\":\"object\"}", "contentType": "application/json" });
    f.put(model, schema).await.expect("created");
    let prune = Apply {
        prune: Some(name.clone()),
        ..Apply::default()
    };
    let pruned = f.service.apply(&f.caller, prune).await.expect("pruned").pruned;
    assert_eq!(pruned, [format!("{name}/models/Pet")]);
}

/// OBV-057, OBV-058, OBV-059: renaming moves what lies below, deleting takes it along.
#[tokio::test]
async fn resource_tree() {
    let f = Fixture::new().await;
    let (api, root, pets) = f.pets().await;
    let resources = format!("restApis/{api}/resources");
    let child = f
        .put(&resources, json!({ "parentId": pets, "pathPart": "{petId}" }))
        .await
        .expect("created");
    f.put(&format!("{resources}/{pets}"), json!({ "pathPart": "cats" }))
        .await
        .expect("renamed");
    assert_eq!(
        f.get(&child.key.to_string()).await.expect("child")["path"],
        "/cats/{petId}"
    );
    let below = json!({ "parentId": child.key.id });
    assert!(
        f.put(&format!("{resources}/{pets}"), below).await.is_err(),
        "not below itself"
    );
    f.delete(&format!("{resources}/{pets}")).await.expect("deleted");
    let gone = f.delete(&child.key.to_string()).await.expect_err("gone");
    assert_eq!(gone.message, "Invalid Resource identifier specified");
    assert!(f.get(&format!("{resources}/{pets}/methods/GET")).await.is_err());
    assert!(
        f.delete(&format!("{resources}/{root}")).await.is_err(),
        "the root stays"
    );
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

/// RES-025, RES-017: imports make the tree; overwriting removes what is not there, merging keeps it; ids stay; the same
/// document again changes nothing.
#[tokio::test]
async fn import() {
    let f = Fixture::new().await;
    let run = async |api: Option<&str>, mode, paths: &[(&str, &str)]| {
        let import = Import {
            api: api.map(str::to_owned),
            mode,
            imported: imported(paths),
            ..Import::default()
        };
        f.service.import(&f.caller, import).await
    };
    let first = run(
        None,
        ImportMode::Overwrite,
        &[("/pets/{petId}", "GET"), ("/pets", "POST")],
    )
    .await
    .expect("imported");
    let api = first.rest_api.key.id.clone();
    let paths = async || {
        let list = Collection::parse(&format!("restApis/{api}/resources")).expect("parses");
        let page = f.service.list(&f.caller, &list, 500, "").await.expect("listed");
        let mut paths = BTreeMap::new();
        for stored in page.entities {
            paths.insert(
                stored.entity.to_json().expect("json")["path"]
                    .as_str()
                    .expect("path")
                    .to_owned(),
                stored.key.id,
            );
        }
        paths
    };
    let before = paths().await;
    assert!(before.keys().eq(["/", "/pets", "/pets/{petId}"]));
    run(Some(&api), ImportMode::Merge, &[("/cats", "GET")])
        .await
        .expect("merged");
    assert!(paths().await.keys().eq(["/", "/cats", "/pets", "/pets/{petId}"]));
    run(Some(&api), ImportMode::Overwrite, &[("/pets", "GET")])
        .await
        .expect("overwritten");
    let after = paths().await;
    assert!(after.keys().eq(["/", "/pets"]));
    assert_eq!(after["/pets"], before["/pets"]);
    assert!(
        f.get(&format!(
            "restApis/{api}/resources/{}/methods/POST",
            after["/pets"]
        ))
        .await
        .is_err()
    );
    let refused = run(Some(&api), ImportMode::Merge, &[("/{a}", "GET"), ("/{b}", "GET")])
        .await
        .expect_err("refused");
    assert!(
        refused.message.starts_with("A sibling ({a})"),
        "{}",
        refused.message
    );
    assert!(paths().await.keys().eq(["/", "/pets"]), "all or nothing");
}

/// C6: tokens are principals' credentials; an account's principal neither sees another account nor the installation.
#[tokio::test]
async fn principals() {
    let f = Fixture::new().await;
    let (api, ..) = f.pets().await;
    let (stored, token) = f
        .service
        .create_principal(&f.caller, "other", Some("111122223333".into()), false)
        .await
        .expect("created");
    let principal = f.service.authenticate(&token).await.expect("authentic");
    assert_eq!(principal.id.as_deref(), Some(stored.key.id.as_str()));
    assert_eq!(
        f.service.authenticate("wrong").await.expect_err("refused").code,
        Code::Unauthorized
    );
    let other = Caller {
        principal: stored.key.id.clone(),
        account: "111122223333".into(),
        ..Caller::default()
    };
    let key = Key::top(Kind::RestApi, api.clone());
    let refused = f.service.get(&other, &key).await.expect_err("refused");
    assert_eq!(
        refused.message,
        format!("Invalid API identifier specified 111122223333:{api}")
    );
    assert!(f.service.delete(&other, key, None, None).await.is_err());
    let all = Collection::parse("restApis").expect("parses");
    assert_eq!(
        f.service
            .list(&other, &all, 0, "")
            .await
            .expect("listed")
            .entities,
        []
    );
    let deploy = Deploy {
        api,
        ..Deploy::default()
    };
    assert_eq!(
        f.service.deploy(&other, deploy).await.expect_err("refused").code,
        Code::NotFound
    );
    let principals = Collection::parse("principals").expect("parses");
    assert_eq!(
        f.service
            .list(&other, &principals, 0, "")
            .await
            .expect_err("denied")
            .code,
        Code::AccessDenied
    );
    f.delete(&stored.key.to_string()).await.expect("deleted");
    assert!(f.service.authenticate(&token).await.is_err());
}

/// OBV-156, OBV-158, OBV-161, OBV-164, OBV-166: keys show their value when made; plans lose deleted keys.
#[tokio::test]
async fn api_keys() {
    let f = Fixture::new().await;
    let key = f.put("apiKeys", json!({ "name": "k" })).await.expect("created");
    let value = key.entity.to_json().expect("json")["value"]
        .as_str()
        .expect("shown once")
        .to_owned();
    assert!(value.len() >= 20);
    assert_eq!(f.get(&key.key.to_string()).await.expect("key").get("value"), None);
    let plan = f
        .put("usagePlans", json!({ "name": "gold" }))
        .await
        .expect("created");
    let place = format!("usagePlans/{}/keys", plan.key.id);
    f.put(&place, json!({ "id": key.key.id, "type": "API_KEY" }))
        .await
        .expect("created");
    let place = format!("{place}/{}", key.key.id);
    assert_eq!(
        f.get(&place).await.expect("place"),
        json!({ "id": key.key.id, "type": "API_KEY", "value": value, "name": "k" })
    );
    f.delete(&key.key.to_string()).await.expect("deleted");
    assert!(f.get(&place).await.is_err());
}

/// C9: a binding changes the bundles of the stages it leads somewhere, and no others.
#[tokio::test]
async fn bindings_touch_stages() {
    let f = Fixture::new().await;
    let (api, ..) = f.pets().await;
    f.deploy(&api, "logged").await;
    f.deploy(&api, "silent").await;
    let arn = "arn:aws:logs:us-east-1:000000000000:log-group:pets";
    f.put(
        &format!("restApis/{api}/stages/logged"),
        json!({ "accessLogSettings": { "destinationArn": arn } }),
    )
    .await
    .expect("changed");
    let destination = async || {
        f.bundle(&api, "logged")
            .await
            .expect("served")
            .access_log
            .expect("a log")
            .destination
    };
    assert_eq!(destination().await, "access-logs/pets.log");
    let before = f.revision();
    let binding = json!({ "kind": "log-sink", "pattern": "arn:aws:logs:*", "target": "/var/log/pets.log" });
    let binding = f.put("bindings", binding).await.expect("bound");
    assert_eq!(f.stages_changed(before).await, [format!("{api}/logged")]);
    assert_eq!(destination().await, "/var/log/pets.log");
    f.delete(&binding.key.to_string()).await.expect("deleted");
    assert_eq!(destination().await, "access-logs/pets.log");
}

/// DEP-064: deleting an API ends its stages.
#[tokio::test]
async fn delete_api() {
    let f = Fixture::new().await;
    let (api, ..) = f.pets().await;
    f.deploy(&api, "prod").await;
    let before = f.revision();
    f.delete(&format!("restApis/{api}")).await.expect("deleted");
    let changed = Compiler::new(f.service.store().clone())
        .changed(before)
        .await
        .expect("changed");
    assert_eq!(changed.gone.len(), 1);
    assert_eq!(f.bundle(&api, "prod").await, None);
    let mut view = f.service.store().read().await.expect("view");
    for kind in [
        Kind::ApiResource,
        Kind::Method,
        Kind::Model,
        Kind::Deployment,
        Kind::Stage,
    ] {
        assert_eq!(view.count(kind, &api).await.expect("count"), 0);
    }
}

/// C1: 1,000 APIs of 20 routes cost at most 512 bytes a route.
#[tokio::test]
async fn bundle_sizes() {
    const APIS: usize = 1_000;
    const ROUTES: usize = 20;
    let f = Fixture::new().await;
    let mut total = 0;
    for n in 0..APIS {
        let mut document = imported(&[]);
        document.draft.rest_api.name = Some(format!("api {n}"));
        for route in 0..ROUTES {
            let mut method: Method = serde_json::from_value(proxy(&format!(
                "https://backend-{n}.internal.example.com:8443/v1/collection-{route}/{{id}}"
            )))
            .expect("reads");
            if let Some(integration) = &mut method.method_integration {
                integration.request_parameters = Some(BTreeMap::from([(
                    "integration.request.path.id".into(),
                    "method.request.path.id".into(),
                )]));
            }
            let path = format!("/collection-{route}/{{id}}");
            document
                .draft
                .paths
                .entry(path)
                .or_default()
                .insert("GET".into(), method);
        }
        // One in a hundred is enough to go through the store; the rest only differ in their names.
        if n % 100 == 0 {
            let import = Import {
                imported: document,
                ..Import::default()
            };
            let api = f
                .service
                .import(&f.caller, import)
                .await
                .expect("imported")
                .rest_api
                .key
                .id;
            f.deploy(&api, "prod").await;
            let bundle = f.bundle(&api, "prod").await.expect("served");
            total += prost::Message::encoded_len(&bundle) * 100;
        }
    }
    let per_route = total / (APIS * ROUTES);
    assert!(per_route <= 512, "{per_route} bytes a route");
    println!("{per_route} bytes a route");
}
