//! The store on a real file.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::model::Kind;

async fn open(directory: &std::path::Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(directory).await.expect("opens"))
}

fn put(kind: Kind, id: &str, body: Value) -> Put {
    Put {
        key: Key::top(kind, id),
        account: "000000000000".into(),
        region: "us-east-1".into(),
        body,
        secret: Secret::Keep,
    }
}

async fn write(store: &dyn Store, row: Put) -> u64 {
    let (_, revision) = transact(store, move |tx| Box::pin(async move { Ok(tx.put(row).await?) }))
        .await
        .expect("written");
    revision.expect("a revision")
}

async fn body(store: &dyn Store, key: &Key) -> Option<Value> {
    store
        .read()
        .await
        .expect("view")
        .get(key)
        .await
        .expect("read")
        .map(|row| row.body)
}

/// C5: revisions are numbered in commit order without gaps, whoever writes and however many at a time; a refused
/// transaction leaves nothing, and none of its neighbours in the same commit notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_writers_share_commits() {
    let directory = tempfile::tempdir().expect("directory");
    let store = open(directory.path()).await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..200u64 {
        let store = store.clone();
        writers.spawn(async move {
            transact(store.as_ref(), move |tx| {
                Box::pin(async move {
                    tx.put(put(Kind::RestApi, &format!("api{n}"), json!({ "n": n })))
                        .await?;
                    if n % 10 == 3 {
                        return Err(Refusal::bad_request("on purpose"));
                    }
                    assert!(n % 10 != 7, "a panic on purpose");
                    Ok(n)
                })
            })
            .await
        });
    }
    let mut revisions = Vec::new();
    let mut refused = 0;
    while let Some(done) = writers.join_next().await {
        match done.expect("joined") {
            Ok((_, revision)) => revisions.push(revision.expect("a revision")),
            Err(_) => refused += 1,
        }
    }
    assert_eq!(refused, 40);
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=160).collect::<Vec<_>>());
    let mut view = store.read().await.expect("view");
    assert_eq!(view.bounds().await.expect("bounds"), (160, 0));
    assert_eq!(view.count(Kind::RestApi, "").await.expect("count"), 160);
    let changes = view.changes(0, 1_000).await.expect("changes");
    assert!(changes.iter().map(|change| change.revision).eq(1..=160));
    assert_eq!(*store.revisions().borrow(), 160);
}

/// C5: read, change, write is one step: no update is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn read_modify_write_loses_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let store = open(directory.path()).await;
    write(store.as_ref(), put(Kind::RestApi, "api", json!({ "n": 0 }))).await;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let store = store.clone();
        writers.spawn(async move {
            transact(store.as_ref(), |tx| {
                Box::pin(async move {
                    let key = Key::top(Kind::RestApi, "api");
                    tx.lock(&key).await?;
                    let row = tx.get(&key).await?.expect("there");
                    let n = row.body["n"].as_u64().expect("a number");
                    tx.put(put(Kind::RestApi, "api", json!({ "n": n + 1 }))).await?;
                    Ok(())
                })
            })
            .await
            .expect("written");
        });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("joined");
    }
    assert_eq!(
        body(store.as_ref(), &Key::top(Kind::RestApi, "api")).await,
        Some(json!({ "n": 100 }))
    );
}

/// What was acknowledged is there after the store is closed or just dropped; revisions go on; the installation stays.
#[tokio::test]
async fn survives_restarts() {
    let directory = tempfile::tempdir().expect("directory");
    let store = open(directory.path()).await;
    let installation = store.installation().to_owned();
    assert_eq!(
        write(store.as_ref(), put(Kind::RestApi, "a", json!({ "n": 1 }))).await,
        1
    );
    store.close().await;
    assert!(
        store
            .write(Box::new(|_| Box::pin(async { Ok(()) })), true)
            .await
            .is_err()
    );
    drop(store);

    let store = open(directory.path()).await;
    assert_eq!(store.installation(), installation);
    assert_eq!(*store.revisions().borrow(), 1);
    assert_eq!(
        body(store.as_ref(), &Key::top(Kind::RestApi, "a")).await,
        Some(json!({ "n": 1 }))
    );
    assert_eq!(write(store.as_ref(), put(Kind::RestApi, "b", json!({}))).await, 2);
}

/// A rehearsal tells the revision it would have had and leaves nothing.
#[tokio::test]
async fn rehearsals_leave_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let store = open(directory.path()).await;
    rehearse(store.as_ref(), |tx| {
        Box::pin(async move { Ok(tx.put(put(Kind::RestApi, "a", json!({}))).await?) })
    })
    .await
    .expect("rehearsed");
    assert_eq!(body(store.as_ref(), &Key::top(Kind::RestApi, "a")).await, None);
    assert_eq!(write(store.as_ref(), put(Kind::RestApi, "b", json!({}))).await, 1);
}

/// C7: planted secrets are in no file of the store, in no backup; they open, they are found, also after a rotation.
#[tokio::test]
async fn secrets_are_sealed() {
    const PLANTED: [&str; 3] = [
        "planted-sealed-secret",
        "planted-found-secret",
        "planted-hashed-secret",
    ];
    let directory = tempfile::tempdir().expect("directory");
    let store = open(directory.path()).await;
    let secrets = [
        ("a", Secret::Sealed(PLANTED[0].into())),
        ("b", Secret::SealedAndFound(PLANTED[1].into())),
        ("c", Secret::Hashed(PLANTED[2].into())),
    ];
    for (id, secret) in secrets {
        write(
            store.as_ref(),
            Put {
                secret,
                ..put(Kind::ApiKey, id, json!({}))
            },
        )
        .await;
    }
    store
        .copy_to(&directory.path().join("copy.db"))
        .await
        .expect("copied");
    assert_eq!(store.rotate_key().await.expect("rotated"), 2);

    let mut view = store.read().await.expect("view");
    assert_eq!(
        view.secret(&Key::top(Kind::ApiKey, "a"))
            .await
            .expect("opened")
            .as_deref(),
        Some(PLANTED[0].as_bytes())
    );
    assert_eq!(
        view.secret(&Key::top(Kind::ApiKey, "c")).await.expect("read"),
        None
    );
    for (id, planted) in [("b", PLANTED[1]), ("c", PLANTED[2])] {
        let found = view
            .find(Kind::ApiKey, planted.as_bytes())
            .await
            .expect("looked")
            .expect("found");
        assert_eq!(found.key.id, id);
        assert_eq!(
            view.find(Kind::Principal, planted.as_bytes())
                .await
                .expect("looked"),
            None
        );
    }
    assert_eq!(
        view.find(Kind::ApiKey, PLANTED[0].as_bytes())
            .await
            .expect("looked"),
        None
    );
    drop(view);
    let mut files = 0;
    for entry in std::fs::read_dir(directory.path()).expect("directory") {
        let bytes = std::fs::read(entry.expect("entry").path()).expect("read");
        files += 1;
        for planted in PLANTED {
            assert!(
                !bytes
                    .windows(planted.len())
                    .any(|window| window == planted.as_bytes()),
                "{planted}"
            );
        }
    }
    assert!(files >= 4, "database, copy, key file and lock");
}

/// A store without its key file, with another's, of a newer schema, or in use: each is refused with what to do.
#[tokio::test]
async fn refuses_what_it_cannot_be_sure_of() {
    let refusal = |result: Result<SqliteStore, StoreError>| result.err().expect("refused").to_string();
    let (one, two) = (
        tempfile::tempdir().expect("directory"),
        tempfile::tempdir().expect("directory"),
    );
    let store = SqliteStore::open(one.path()).await.expect("opens");
    assert!(refusal(SqliteStore::open(one.path()).await).contains("in use by another control plane"));
    store.close().await;
    drop(store);
    SqliteStore::open(two.path()).await.expect("opens").close().await;

    let key = one.path().join("secrets.key");
    std::fs::copy(two.path().join("secrets.key"), &key).expect("copied");
    assert!(refusal(SqliteStore::open(one.path()).await).contains("belongs to another store"));
    std::fs::remove_file(&key).expect("removed");
    assert!(refusal(SqliteStore::open(one.path()).await).contains("is missing"));

    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&format!(
        "sqlite:{}",
        two.path().join("store.db").display()
    ))
    .await
    .expect("connects");
    schema::set_meta(&mut connection, "schema", "99")
        .await
        .expect("set");
    drop(connection);
    assert!(refusal(SqliteStore::open(two.path()).await).contains("run the newer version"));
}

/// C11: pages by keyset, in the order of creation, each row once.
#[tokio::test]
async fn pages() {
    let directory = tempfile::tempdir().expect("directory");
    let store = open(directory.path()).await;
    transact(store.as_ref(), |tx| {
        Box::pin(async move {
            for n in 0..55 {
                // Ids in another order than creation.
                tx.put(put(Kind::RestApi, &format!("api{:02}", 99 - n), json!({})))
                    .await?;
            }
            Ok(())
        })
    })
    .await
    .expect("written");
    let mut view = store.read().await.expect("view");
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let rows = view
            .list(&List {
                after,
                limit: 25,
                ..List::within(Kind::RestApi, "")
            })
            .await
            .expect("listed");
        let Some(last) = rows.last() else { break };
        after = last.position;
        seen.extend(rows.into_iter().map(|row| row.key.id));
    }
    assert_eq!(
        seen,
        (0..55).map(|n| format!("api{:02}", 99 - n)).collect::<Vec<_>>()
    );
}

/// Changes: one revision is never cut; each entity once in `changed`, with its last change.
#[tokio::test]
async fn changes_by_revision() {
    let directory = tempfile::tempdir().expect("directory");
    let store = open(directory.path()).await;
    for n in 0..3 {
        transact(store.as_ref(), move |tx| {
            Box::pin(async move {
                tx.act_as("p1");
                tx.put(put(Kind::RestApi, "a", json!({ "n": n }))).await?;
                tx.put(put(Kind::RestApi, &format!("b{n}"), json!({}))).await?;
                tx.put_quietly(put(Kind::Node, "quiet", json!({ "n": n })))
                    .await?;
                Ok(())
            })
        })
        .await
        .expect("written");
    }
    transact(store.as_ref(), |tx| {
        Box::pin(async move { Ok(tx.delete(&Key::top(Kind::RestApi, "a")).await?) })
    })
    .await
    .expect("deleted");
    let mut view = store.read().await.expect("view");
    let first = view.changes(0, 1).await.expect("changes");
    assert_eq!(
        first.iter().map(|change| change.revision).collect::<Vec<_>>(),
        [1, 1]
    );
    assert_eq!(first[0].principal, "p1");
    let changed = view.changed(1, &[Kind::RestApi]).await.expect("changed");
    let summary: Vec<_> = changed
        .iter()
        .map(|c| (c.key.id.as_str(), c.revision, c.deleted))
        .collect();
    assert_eq!(summary, [("a", 4, true), ("b1", 2, false), ("b2", 3, false)]);
}
