//! APIs, their resources, and the texts of refusals.

use super::*;

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
