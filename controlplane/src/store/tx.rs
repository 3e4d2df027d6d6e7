//! Transactions over one SQLite connection: the writer's, and the readers' views.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Sqlite, SqliteConnection, Transaction};

use super::{Audit, Change, List, Put, Read, Row, Secret, StoreError, Write, seal::Sealer, sql};
use crate::model::{Key, Kind, Timestamp};

/// Creations that one transaction can number.
const POSITIONS: u64 = 1 << 20;

/// The writer's transaction.
pub(super) struct Writing<'c> {
    connection: &'c mut SqliteConnection,
    sealer: Arc<Sealer>,
    principal: String,
    revision: Option<u64>,
    seq: u64,
}

impl<'c> Writing<'c> {
    pub(super) fn new(connection: &'c mut SqliteConnection, sealer: Arc<Sealer>) -> Self {
        Self {
            connection,
            sealer,
            principal: String::new(),
            revision: None,
            seq: 0,
        }
    }

    /// The transaction's revision and the next number within it.
    async fn step(&mut self) -> Result<(u64, u64), StoreError> {
        let revision = match self.revision {
            Some(revision) => revision,
            None => *self.revision.insert(sql::next_revision(self.connection).await?),
        };
        self.seq += 1;
        if self.seq >= POSITIONS {
            return Err(StoreError::Corrupt(format!(
                "a transaction with more than {POSITIONS} changes"
            )));
        }
        Ok((revision, self.seq))
    }

    async fn record(
        &mut self,
        key: &Key,
        account: &str,
        region: &str,
        deleted: bool,
    ) -> Result<u64, StoreError> {
        let (revision, seq) = self.step().await?;
        sqlx::query(
            "INSERT INTO changes (revision, seq, kind, parent, id, account, region, deleted, principal, time) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(sql::signed(revision))
        .bind(sql::signed(seq))
        .bind(key.kind.as_str())
        .bind(key.parent.as_str())
        .bind(key.id.as_str())
        .bind(account)
        .bind(region)
        .bind(i64::from(deleted))
        .bind(self.principal.as_str())
        .bind(Timestamp::now().unix())
        .execute(&mut *self.connection)
        .await?;
        Ok(revision)
    }

    async fn upsert(&mut self, put: &Put, revision: u64, position: u64) -> Result<(), StoreError> {
        let body = serde_json::to_string(&put.body)
            .map_err(|error| StoreError::Corrupt(format!("{}: {error}", put.key)))?;
        let (sealed_by, sealed, lookup) = match &put.secret {
            Secret::Keep | Secret::Clear => (None, None, None),
            Secret::Sealed(secret) => {
                let (by, sealed) = self.sealer.seal(&put.key, secret)?;
                (Some(by), Some(sealed), None)
            }
            Secret::SealedAndFound(secret) => {
                let (by, sealed) = self.sealer.seal(&put.key, secret)?;
                (
                    Some(by),
                    Some(sealed),
                    Some(self.sealer.lookup(put.key.kind, secret)),
                )
            }
            Secret::Hashed(secret) => (None, None, Some(self.sealer.lookup(put.key.kind, secret))),
        };
        let statement = match put.secret {
            Secret::Keep => {
                "INSERT INTO entities \
                 (kind, parent, id, account, region, position, revision, body, sealed_by, sealed, lookup) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (kind, parent, id) DO UPDATE SET \
                 account = excluded.account, region = excluded.region, revision = excluded.revision, \
                 body = excluded.body"
            }
            _ => {
                "INSERT INTO entities \
                 (kind, parent, id, account, region, position, revision, body, sealed_by, sealed, lookup) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (kind, parent, id) DO UPDATE SET \
                 account = excluded.account, region = excluded.region, revision = excluded.revision, \
                 body = excluded.body, sealed_by = excluded.sealed_by, sealed = excluded.sealed, \
                 lookup = excluded.lookup"
            }
        };
        sqlx::query(statement)
            .bind(put.key.kind.as_str())
            .bind(put.key.parent.as_str())
            .bind(put.key.id.as_str())
            .bind(put.account.as_str())
            .bind(put.region.as_str())
            .bind(sql::signed(position))
            .bind(sql::signed(revision))
            .bind(body)
            .bind(sealed_by)
            .bind(sealed)
            .bind(lookup)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    async fn remove(&mut self, key: &Key) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM entities WHERE kind = $1 AND parent = $2 AND id = $3")
            .bind(key.kind.as_str())
            .bind(key.parent.as_str())
            .bind(key.id.as_str())
            .execute(&mut *self.connection)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}

#[async_trait]
impl Write for Writing<'_> {
    async fn lock(&mut self, _key: &Key) -> Result<(), StoreError> {
        // SQLite has one writer at a time: the whole store is locked.
        Ok(())
    }

    async fn put(&mut self, put: Put) -> Result<u64, StoreError> {
        let revision = self.record(&put.key, &put.account, &put.region, false).await?;
        // Positions grow with revisions, and within one with its changes: the order of creation without a counter.
        let position = revision.saturating_mul(POSITIONS).saturating_add(self.seq);
        self.upsert(&put, revision, position).await?;
        Ok(revision)
    }

    async fn put_quietly(&mut self, put: Put) -> Result<(), StoreError> {
        let position = u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(0);
        self.upsert(&put, 0, position).await
    }

    async fn touch(&mut self, key: &Key) -> Result<(), StoreError> {
        let Some(row) = sql::get(self.connection, key).await? else {
            return Ok(());
        };
        let revision = self.record(key, &row.account, &row.region, false).await?;
        sqlx::query("UPDATE entities SET revision = $1 WHERE kind = $2 AND parent = $3 AND id = $4")
            .bind(sql::signed(revision))
            .bind(key.kind.as_str())
            .bind(key.parent.as_str())
            .bind(key.id.as_str())
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    async fn delete(&mut self, key: &Key) -> Result<bool, StoreError> {
        let Some(row) = sql::get(self.connection, key).await? else {
            return Ok(false);
        };
        self.record(key, &row.account, &row.region, true).await?;
        self.remove(key).await
    }

    async fn delete_quietly(&mut self, key: &Key) -> Result<bool, StoreError> {
        self.remove(key).await
    }

    async fn put_definition(&mut self, sha256: &str, version: u32, content: &[u8]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO definitions (sha256, version, content) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(sha256)
        .bind(i64::from(version))
        .bind(content)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    async fn drop_definition(&mut self, sha256: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM definitions WHERE sha256 = $1")
            .bind(sha256)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    async fn audit(&mut self, audit: &Audit) -> Result<(), StoreError> {
        let (revision, seq) = self.step().await?;
        sqlx::query(
            "INSERT INTO audit \
             (revision, seq, time, principal, account, source, face, request_id, operation, target) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(sql::signed(revision))
        .bind(sql::signed(seq))
        .bind(Timestamp::now().unix())
        .bind(audit.principal.as_str())
        .bind(audit.account.as_str())
        .bind(audit.source.as_str())
        .bind(audit.face.as_str())
        .bind(audit.request_id.as_str())
        .bind(audit.operation.as_str())
        .bind(audit.target.as_str())
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    fn act_as(&mut self, principal: &str) {
        self.principal = principal.into();
    }

    fn revision(&self) -> Option<u64> {
        self.revision
    }

    fn as_read(&mut self) -> &mut dyn Read {
        self
    }
}

/// A reader's view.
pub(super) struct Reading {
    transaction: Transaction<'static, Sqlite>,
    sealer: Arc<Sealer>,
}

impl Reading {
    pub(super) fn new(transaction: Transaction<'static, Sqlite>, sealer: Arc<Sealer>) -> Self {
        Self { transaction, sealer }
    }
}

/// Gives a view its connection and its keys.
trait View: Send {
    fn parts(&mut self) -> (&mut SqliteConnection, &Sealer);
}

impl View for Writing<'_> {
    fn parts(&mut self) -> (&mut SqliteConnection, &Sealer) {
        (self.connection, &self.sealer)
    }
}

impl View for Reading {
    fn parts(&mut self) -> (&mut SqliteConnection, &Sealer) {
        (&mut self.transaction, &self.sealer)
    }
}

#[async_trait]
impl<V: View> Read for V {
    async fn get(&mut self, key: &Key) -> Result<Option<Row>, StoreError> {
        sql::get(self.parts().0, key).await
    }

    async fn list(&mut self, list: &List) -> Result<Vec<Row>, StoreError> {
        sql::list(self.parts().0, list).await
    }

    async fn find(&mut self, kind: Kind, secret: &[u8]) -> Result<Option<Row>, StoreError> {
        let (connection, sealer) = self.parts();
        let lookup = sealer.lookup(kind, secret);
        sql::find(connection, kind, &lookup).await
    }

    async fn secret(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let (connection, sealer) = self.parts();
        match sql::sealed(connection, key).await? {
            Some((by, sealed)) => sealer.open_sealed(key, by, &sealed).map(Some),
            None => Ok(None),
        }
    }

    async fn definition(&mut self, sha256: &str) -> Result<Option<(u32, Vec<u8>)>, StoreError> {
        sql::definition(self.parts().0, sha256).await
    }

    async fn changes(&mut self, after: u64, limit: u32) -> Result<Vec<Change>, StoreError> {
        sql::changes(self.parts().0, after, limit).await
    }

    async fn changed(&mut self, after: u64, kinds: &[Kind]) -> Result<Vec<Change>, StoreError> {
        sql::changed(self.parts().0, after, kinds).await
    }

    async fn bounds(&mut self) -> Result<(u64, u64), StoreError> {
        let connection = self.parts().0;
        Ok((
            sql::counter(connection, "revision").await?,
            sql::counter(connection, "trimmed").await?,
        ))
    }

    async fn count(&mut self, kind: Kind, parent: &str) -> Result<u64, StoreError> {
        sql::count(self.parts().0, kind, parent).await
    }

    async fn id_taken(&mut self, id: &str) -> Result<bool, StoreError> {
        sql::id_taken(self.parts().0, id).await
    }
}
