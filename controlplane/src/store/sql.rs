//! The statements, in the SQL that SQLite and PostgreSQL share.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{Change, List, Row, StoreError};
use crate::model::{Key, Kind, Timestamp};

const ROW: &str = "SELECT kind, parent, id, account, region, position, revision, body, \
                   CASE WHEN sealed IS NULL THEN 0 ELSE 1 END FROM entities";
const CHANGE: &str =
    "SELECT revision, kind, parent, id, account, region, deleted, principal, time FROM changes";

pub(super) async fn get(c: &mut SqliteConnection, key: &Key) -> Result<Option<Row>, StoreError> {
    let sql = format!("{ROW} WHERE kind = $1 AND parent = $2 AND id = $3");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(key.kind.as_str())
        .bind(key.parent.as_str())
        .bind(key.id.as_str())
        .fetch_optional(c)
        .await?;
    row.as_ref().map(read_row).transpose()
}

pub(super) async fn list(c: &mut SqliteConnection, list: &List) -> Result<Vec<Row>, StoreError> {
    // Only the conditions that are there, so that each form can use its index.
    let mut sql = format!("{ROW} WHERE kind = $1 AND position > $2");
    let mut texts: Vec<&str> = Vec::new();
    for (column, value) in [
        ("parent", &list.parent),
        ("account", &list.account),
        ("region", &list.region),
    ] {
        if let Some(value) = value {
            texts.push(value);
            sql.push_str(&format!(" AND {column} = ${}", texts.len() + 3));
        }
    }
    if let Some(prefix) = &list.id_prefix {
        texts.push(prefix);
        let at = texts.len() + 3;
        sql.push_str(&format!(" AND substr(id, 1, length(${at})) = ${at}"));
    }
    sql.push_str(" ORDER BY position LIMIT $3");
    let mut query = sqlx::query(AssertSqlSafe(sql))
        .bind(list.kind.as_str())
        .bind(signed(list.after))
        .bind(i64::from(list.limit));
    for text in texts {
        query = query.bind(text);
    }
    query.fetch_all(c).await?.iter().map(read_row).collect()
}

pub(super) async fn find(
    c: &mut SqliteConnection,
    kind: Kind,
    lookup: &[u8],
) -> Result<Option<Row>, StoreError> {
    let sql = format!("{ROW} WHERE kind = $1 AND lookup = $2");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(kind.as_str())
        .bind(lookup)
        .fetch_optional(c)
        .await?;
    row.as_ref().map(read_row).transpose()
}

pub(super) async fn sealed(
    c: &mut SqliteConnection,
    key: &Key,
) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let row = sqlx::query(
        "SELECT sealed_by, sealed FROM entities WHERE kind = $1 AND parent = $2 AND id = $3 AND sealed IS NOT NULL",
    )
    .bind(key.kind.as_str())
    .bind(key.parent.as_str())
    .bind(key.id.as_str())
    .fetch_optional(c)
    .await?;
    Ok(row
        .map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?)))
        .transpose()?)
}

pub(super) async fn definition(
    c: &mut SqliteConnection,
    sha256: &str,
) -> Result<Option<(u32, Vec<u8>)>, StoreError> {
    let row = sqlx::query("SELECT version, content FROM definitions WHERE sha256 = $1")
        .bind(sha256)
        .fetch_optional(c)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let version = u32::try_from(row.try_get::<i64, _>(0)?)
        .map_err(|_| StoreError::Corrupt(format!("the version of definition {sha256}")))?;
    Ok(Some((version, row.try_get(1)?)))
}

pub(super) async fn changes(
    c: &mut SqliteConnection,
    after: u64,
    limit: u32,
) -> Result<Vec<Change>, StoreError> {
    let sql = format!("{CHANGE} WHERE revision > $1 ORDER BY revision, seq LIMIT $2");
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(&mut *c)
        .await?;
    let mut changes = rows.iter().map(read_change).collect::<Result<Vec<_>, _>>()?;
    if rows.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
        return Ok(changes);
    }
    // The last revision may be cut: take it whole.
    let Some(last) = changes.last().map(|change| change.revision) else {
        return Ok(changes);
    };
    changes.retain(|change| change.revision != last);
    let sql = format!("{CHANGE} WHERE revision = $1 ORDER BY seq");
    for row in sqlx::query(AssertSqlSafe(sql))
        .bind(signed(last))
        .fetch_all(c)
        .await?
    {
        changes.push(read_change(&row)?);
    }
    Ok(changes)
}

pub(super) async fn changed(
    c: &mut SqliteConnection,
    after: u64,
    kinds: &[Kind],
) -> Result<Vec<Change>, StoreError> {
    let mut last = BTreeMap::new();
    let sql = format!("{CHANGE} WHERE revision > $1 AND kind = $2 ORDER BY revision, seq");
    for kind in kinds {
        let rows = sqlx::query(AssertSqlSafe(sql.as_str()))
            .bind(signed(after))
            .bind(kind.as_str())
            .fetch_all(&mut *c)
            .await?;
        for row in &rows {
            let change = read_change(row)?;
            last.insert(change.key.clone(), change);
        }
    }
    Ok(last.into_values().collect())
}

pub(super) async fn counter(c: &mut SqliteConnection, name: &str) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT value FROM counters WHERE name = $1")
        .bind(name)
        .fetch_one(c)
        .await?;
    Ok(unsigned(row.try_get(0)?))
}

pub(super) async fn count(c: &mut SqliteConnection, kind: Kind, parent: &str) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT COUNT(*) FROM entities WHERE kind = $1 AND parent = $2")
        .bind(kind.as_str())
        .bind(parent)
        .fetch_one(c)
        .await?;
    Ok(unsigned(row.try_get(0)?))
}

pub(super) async fn id_taken(c: &mut SqliteConnection, id: &str) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM entities WHERE id = $1 LIMIT 1")
        .bind(id)
        .fetch_optional(c)
        .await?;
    Ok(row.is_some())
}

/// Takes the next revision; the row stays locked until the transaction ends (C5).
pub(super) async fn next_revision(c: &mut SqliteConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("UPDATE counters SET value = value + 1 WHERE name = 'revision' RETURNING value")
        .fetch_one(c)
        .await?;
    Ok(unsigned(row.try_get(0)?))
}

/// Counters and revisions are BIGINT: the sign bit is never used.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn read_row(row: &SqliteRow) -> Result<Row, StoreError> {
    let body: &str = row.try_get(7)?;
    let key = read_key(row, 0)?;
    Ok(Row {
        account: row.try_get(3)?,
        region: row.try_get(4)?,
        position: unsigned(row.try_get(5)?),
        revision: unsigned(row.try_get(6)?),
        body: serde_json::from_str(body).map_err(|error| StoreError::Corrupt(format!("{key}: {error}")))?,
        has_secret: row.try_get::<i64, _>(8)? != 0,
        key,
    })
}

fn read_change(row: &SqliteRow) -> Result<Change, StoreError> {
    let time = row.try_get(8)?;
    Ok(Change {
        revision: unsigned(row.try_get(0)?),
        key: read_key(row, 1)?,
        account: row.try_get(4)?,
        region: row.try_get(5)?,
        deleted: row.try_get::<i64, _>(6)? != 0,
        principal: row.try_get(7)?,
        time: Timestamp::from_unix(time)
            .ok_or_else(|| StoreError::Corrupt(format!("time {time} of a change")))?,
    })
}

fn read_key(row: &SqliteRow, at: usize) -> Result<Key, StoreError> {
    let kind: &str = row.try_get(at)?;
    let kind = Kind::parse(kind).ok_or_else(|| StoreError::Corrupt(format!("kind {kind}")))?;
    Ok(Key {
        kind,
        parent: row.try_get(at + 1)?,
        id: row.try_get(at + 2)?,
    })
}
