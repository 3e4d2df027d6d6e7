//! Who may what: principals, keys, bindings.

use super::*;

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
