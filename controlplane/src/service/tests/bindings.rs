//! Bindings of functions and credentials.

use tidegate_proto::config::v1::{BindingBundle, CredentialsTarget, binding_bundle::Target};

use super::*;

impl Fixture {
    async fn binding(&self, name: &str) -> Option<BindingBundle> {
        let key = BundleKey {
            kind: BundleKind::Binding,
            id: name.strip_prefix("bindings/").expect("a binding").into(),
        };
        let compiler = Compiler::new(self.service.store().clone());
        let compiled = compiler.compiled(&key, FORMAT).await.expect("compiled")?;
        Some(prost::Message::decode(compiled.content).expect("decodes"))
    }
}

/// C9, RES-102: a function's name is one of this region and account; workers of each function have a port that nobody
/// else's have, and keep it.
#[tokio::test]
async fn functions() {
    let f = Fixture::new().await;
    let bound = async |pattern: &str, target: &str| {
        let body = json!({ "kind": "function", "pattern": pattern, "target": target });
        f.put("bindings", body).await.map(|stored| stored.key.to_string())
    };
    let before = f.revision();
    let first = bound("hello", "runtime").await.expect("bound");
    let stored = f.get(&first).await.expect("there");
    assert_eq!(
        stored["pattern"],
        "arn:aws:lambda:us-east-1:000000000000:function:hello"
    );
    assert_eq!(stored["target"], "runtime://127.0.0.1:26000");
    let changed = Compiler::new(f.service.store().clone())
        .changed(before)
        .await
        .expect("changed");
    assert_eq!(changed.present.len(), 1);
    let bundle = f.binding(&first).await.expect("nodes are told");
    assert_eq!(bundle.pattern, stored["pattern"]);
    let second = bound("arn:aws:lambda:us-east-1:000000000000:function:other", "runtime")
        .await
        .expect("bound");
    assert_eq!(
        f.get(&second).await.expect("there")["target"],
        "runtime://127.0.0.1:26001"
    );
    // Bound again, with workers elsewhere and back.
    f.put(&second, json!({ "target": "runtime" }))
        .await
        .expect("changed");
    assert_eq!(
        f.get(&second).await.expect("there")["target"],
        "runtime://127.0.0.1:26001"
    );
    f.delete(&first).await.expect("deleted");
    assert_eq!(f.binding(&first).await, None);
    let third = bound("hello:prod", "runtime").await.expect("bound");
    assert_eq!(
        f.get(&third).await.expect("there")["target"],
        "runtime://127.0.0.1:26000"
    );

    for (pattern, target, refused) in [
        (
            "other",
            "http://h",
            "binds the function arn:aws:lambda:us-east-1:000000000000:function:other already",
        ),
        (
            "new",
            "runtime://127.0.0.1:26001",
            "is where workers of another function ask",
        ),
        (
            "arn:aws:sqs:us-east-1:000000000000:queue",
            "runtime",
            "names no Lambda function",
        ),
        ("new", "nowhere", "the URI is no URL"),
    ] {
        let refusal = bound(pattern, target).await.expect_err("refused");
        assert!(refusal.message.contains(refused), "{}", refusal.message);
    }
    let refusal = f
        .put(&third, json!({ "kind": "log-sink" }))
        .await
        .expect_err("refused");
    assert!(refusal.message.contains("stays"), "{}", refusal.message);
}

/// C7: the secret of an access key is sealed, told to nodes, and shown to nobody.
#[tokio::test]
async fn credentials() {
    let f = Fixture::new().await;
    let role = "arn:aws:iam::000000000000:role/invoker";
    let put = async |name: &str, target: &str, options: Value| {
        f.put(
            name,
            json!({ "kind": "credentials", "pattern": role, "target": target, "options": options }),
        )
        .await
        .map(|stored| stored.key.to_string())
    };
    assert!(put("bindings", "AKIDA", json!({})).await.is_err());
    let secret = json!({ "secret-access-key": "hush-key", "session-token": "hush-token" });
    let name = put("bindings", "AKIDA", secret).await.expect("bound");
    let shown = f.get(&name).await.expect("there");
    assert!(!shown.to_string().contains("hush"), "{shown}");
    let told = async || match f.binding(&name).await.expect("nodes are told").target {
        Some(Target::Credentials(credentials)) => credentials,
        other => panic!("{other:?}"),
    };
    let CredentialsTarget {
        access_key_id,
        secret_access_key,
        session_token,
    } = told().await;
    assert_eq!(
        (
            access_key_id.as_str(),
            secret_access_key.as_str(),
            session_token.as_str()
        ),
        ("AKIDA", "hush-key", "hush-token")
    );
    assert!(!format!("{:?}", f.binding(&name).await).contains("hush"));
    // A change of something else keeps the secret; another access key has another.
    put(&name, "AKIDA", json!({ "nodes": "site=lab" }))
        .await
        .expect("changed");
    assert_eq!(told().await.secret_access_key, "hush-key");
    assert!(put(&name, "AKIDB", json!({})).await.is_err());
    put(&name, "AKIDB", json!({ "secret-access-key": "hush-other" }))
        .await
        .expect("changed");
    assert_eq!(told().await.secret_access_key, "hush-other");
    assert_eq!(told().await.session_token, "");
}
