//! A copy of a store becomes a store of its own.

use std::path::Path;

use sqlx::{
    ConnectOptions, Connection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{StoreError, schema, seal::Sealer};
use crate::model::{Kind, id};

/// Makes a backup's copy ready to be opened: gives it an installation id of its own and drops what must not exist twice.
///
/// Revisions count within an installation. Two stores from one backup go different ways under the same numbers, and a
/// node that has followed the one would take a delta of the other for what it lacks; under a new id every node takes
/// everything anew. Join tokens are good once, in one installation.
///
/// # Errors
/// When the file is not a store, is a newer program's, or is not sealed with this key file.
pub async fn restore(database: &Path, key_file: &Path) -> Result<(), StoreError> {
    let mut connection = SqliteConnectOptions::new()
        .filename(database)
        // Leaves nothing beside the file.
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await
        .map_err(|_| not_a_store(database))?;
    let found = schema::version(&mut connection)
        .await
        .map_err(|_| not_a_store(database))?
        .filter(|version| *version > 0)
        .ok_or_else(|| not_a_store(database))?;
    if found > schema::NEWEST {
        return Err(StoreError::Newer {
            found,
            known: schema::NEWEST,
        });
    }
    let sealed_with = schema::meta(&mut connection, "keys").await?;
    if sealed_with != Some(Sealer::open(key_file)?.check_value()) {
        return Err(StoreError::Seal(format!(
            "{} is not the key file of this backup: name the one that lay beside its store",
            key_file.display()
        )));
    }
    let installation = id::random(20).map_err(|refusal| StoreError::Seal(refusal.message))?;
    let mut transaction = connection.begin().await?;
    schema::set_meta(&mut transaction, "installation", &installation).await?;
    sqlx::query("DELETE FROM entities WHERE kind = $1")
        .bind(Kind::JoinToken.as_str())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}

fn not_a_store(file: &Path) -> StoreError {
    StoreError::Corrupt(format!(
        "{} is not what tidegate backup writes, or is damaged",
        file.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        model::Key,
        store::{Put, Secret, SqliteStore, Store, transact},
    };

    async fn store_with_a_token(directory: &Path) -> Arc<SqliteStore> {
        let store = Arc::new(SqliteStore::open(directory).await.unwrap());
        let row = |kind, id: &str| Put {
            key: Key::top(kind, id),
            account: String::new(),
            region: String::new(),
            body: json!({ "name": id }),
            secret: Secret::Sealed(b"hush".to_vec()),
        };
        let (token, api) = (row(Kind::JoinToken, "token"), row(Kind::RestApi, "api"));
        transact(&*store, move |tx| {
            Box::pin(async move {
                tx.put_quietly(token).await?;
                Ok(tx.put(api).await?)
            })
        })
        .await
        .unwrap();
        store
    }

    /// C1, C8: the copy is another installation with the same content, revisions and secrets, and without join tokens.
    #[tokio::test]
    async fn a_copy_is_another_installation() {
        let home = tempfile::tempdir().unwrap();
        let (old, new) = (home.path().join("old"), home.path().join("new"));
        let store = store_with_a_token(&old).await;
        std::fs::create_dir(&new).unwrap();
        let database = new.join("store.db");
        store.copy_to(&database).await.unwrap();
        std::fs::copy(old.join("secrets.key"), new.join("secrets.key")).unwrap();
        restore(&database, &new.join("secrets.key")).await.unwrap();

        let copy = SqliteStore::open(&new).await.unwrap();
        assert_ne!(copy.installation(), store.installation());
        assert_eq!(*copy.revisions().borrow(), *store.revisions().borrow());
        let mut view = copy.read().await.unwrap();
        let (api, token) = (Key::top(Kind::RestApi, "api"), Key::top(Kind::JoinToken, "token"));
        assert_eq!(view.secret(&api).await.unwrap().as_deref(), Some(&b"hush"[..]));
        assert_eq!(view.get(&token).await.unwrap(), None);
        let mut view = store.read().await.unwrap();
        assert!(view.get(&token).await.unwrap().is_some(), "the original keeps it");
    }

    /// C7: another installation's key file is refused before anything is changed; so is what is no store.
    #[tokio::test]
    async fn wrong_keys_and_other_files_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let (old, other) = (home.path().join("old"), home.path().join("other"));
        let store = store_with_a_token(&old).await;
        drop(SqliteStore::open(&other).await.unwrap());
        let copy = home.path().join("copy");
        store.copy_to(&copy).await.unwrap();
        let before = std::fs::read(&copy).unwrap();
        let error = restore(&copy, &other.join("secrets.key")).await.unwrap_err();
        assert!(error.to_string().contains("not the key file"), "{error}");
        assert_eq!(std::fs::read(&copy).unwrap(), before);
        std::fs::write(&copy, b"SQLite format 3\0and so on").unwrap();
        let error = restore(&copy, &old.join("secrets.key")).await.unwrap_err();
        assert!(error.to_string().contains("tidegate backup"), "{error}");
    }
}
