//! Deployments, stages, and the bundles they become.

use super::*;

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
