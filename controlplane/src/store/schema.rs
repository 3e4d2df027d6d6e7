//! The tables, and how an older file becomes a newer one.

use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use super::StoreError;

/// One step a schema version; a step that has been released is never changed. `{bytes}` stands for the database's type
/// of bytes, the only one in which SQLite and PostgreSQL differ here.
const MIGRATIONS: [&[&str]; 1] = [&[
    "CREATE TABLE counters (name TEXT NOT NULL PRIMARY KEY, value BIGINT NOT NULL)",
    "INSERT INTO counters (name, value) VALUES ('revision', 0), ('trimmed', 0)",
    "CREATE TABLE entities (
        kind TEXT NOT NULL,
        parent TEXT NOT NULL,
        id TEXT NOT NULL,
        account TEXT NOT NULL,
        region TEXT NOT NULL,
        position BIGINT NOT NULL,
        revision BIGINT NOT NULL,
        body TEXT NOT NULL,
        sealed {bytes},
        sealed_by BIGINT,
        lookup {bytes},
        PRIMARY KEY (kind, parent, id)
    )",
    "CREATE INDEX entities_position ON entities (kind, parent, position)",
    "CREATE INDEX entities_order ON entities (kind, position)",
    "CREATE INDEX entities_id ON entities (id)",
    "CREATE INDEX entities_lookup ON entities (kind, lookup) WHERE lookup IS NOT NULL",
    "CREATE INDEX entities_sealed ON entities (sealed_by) WHERE sealed_by IS NOT NULL",
    "CREATE TABLE changes (
        revision BIGINT NOT NULL,
        seq BIGINT NOT NULL,
        kind TEXT NOT NULL,
        parent TEXT NOT NULL,
        id TEXT NOT NULL,
        account TEXT NOT NULL,
        region TEXT NOT NULL,
        deleted BIGINT NOT NULL,
        principal TEXT NOT NULL,
        time BIGINT NOT NULL,
        PRIMARY KEY (revision, seq)
    )",
    "CREATE TABLE audit (
        revision BIGINT NOT NULL,
        seq BIGINT NOT NULL,
        time BIGINT NOT NULL,
        principal TEXT NOT NULL,
        account TEXT NOT NULL,
        source TEXT NOT NULL,
        face TEXT NOT NULL,
        request_id TEXT NOT NULL,
        operation TEXT NOT NULL,
        target TEXT NOT NULL,
        PRIMARY KEY (revision, seq)
    )",
    "CREATE TABLE definitions (sha256 TEXT NOT NULL PRIMARY KEY, version BIGINT NOT NULL, content {bytes} NOT NULL)",
]];

/// This program's version of the schema.
pub(super) const NEWEST: i64 = MIGRATIONS.len() as i64;

/// Brings the schema to this program's version; refuses one that is newer.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("CREATE TABLE IF NOT EXISTS meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)")
        .execute(&mut *connection)
        .await?;
    let known = NEWEST;
    let found = version(connection).await?.unwrap_or(0);
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for (step, statements) in MIGRATIONS
        .iter()
        .enumerate()
        .skip(usize::try_from(found).unwrap_or(0))
    {
        let mut transaction = connection.begin().await?;
        for statement in *statements {
            let statement = statement.replace("{bytes}", "BLOB");
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut *transaction)
                .await?;
        }
        set_meta(&mut transaction, "schema", &(step + 1).to_string()).await?;
        transaction.commit().await?;
    }
    Ok(())
}

/// The schema version of the file; none: it has no facts about itself yet.
pub(super) async fn version(connection: &mut SqliteConnection) -> Result<Option<i64>, StoreError> {
    let text = meta(connection, "schema").await?;
    text.map(|text| {
        text.parse()
            .map_err(|_| StoreError::Corrupt(format!("schema version {text}")))
    })
    .transpose()
}

/// A fact about the whole store.
pub(super) async fn meta(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT value FROM meta WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Sets a fact about the whole store.
pub(super) async fn set_meta(
    connection: &mut SqliteConnection,
    name: &str,
    value: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
        .bind(name)
        .bind(value)
        .execute(connection)
        .await?;
    Ok(())
}
