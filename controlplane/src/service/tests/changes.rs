//! Apply and import.

use super::*;

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
