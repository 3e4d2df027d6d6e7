//! What the control plane remembers (C5).
//!
//! One row an entity. Everything a call changes happens in one transaction, which is given a revision when its first
//! change is written: revisions are numbered under a row lock, so that their order is the order of commits. The
//! `changes` table holds what each revision changed; it feeds Watch, the configuration stream and the audit log.

mod restore;
mod schema;
mod seal;
mod sql;
mod sqlite;
mod tx;

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;

use crate::model::{Code, Key, Kind, Refusal, Timestamp};

pub use restore::restore;
pub use sqlite::SqliteStore;

/// A future of a boxed piece of work.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What is done in a transaction. It may run together with others in one commit, so it awaits nothing but the
/// transaction it is given. An error undoes all it wrote.
pub type Work = Box<dyn for<'t> FnOnce(&'t mut dyn Write) -> BoxFuture<'t, Result<(), Refusal>> + Send>;

/// The store: SQLite in one file.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Does `work` in a transaction; returns the revision it was given, once it is durable. With `keep` false all is
    /// undone at the end, and the revision is the one it would have had. Prefer [`transact`] and [`rehearse`].
    async fn write(&self, work: Work, keep: bool) -> Result<Option<u64>, Refusal>;

    /// A consistent view for reading.
    async fn read(&self) -> Result<Box<dyn Read>, StoreError>;

    /// The last committed revision, and how to wait for the next.
    fn revisions(&self) -> watch::Receiver<u64>;

    /// A random id made when the store was: whose revisions these are.
    fn installation(&self) -> &str;

    /// Writes a consistent copy of the store, sealed secrets included, to a file that does not exist yet. The keys of
    /// session tickets are left out: a copy outlives them.
    async fn copy_to(&self, path: &std::path::Path) -> Result<(), StoreError>;

    /// Seals every secret anew under a new key and forgets the old one (C7). Returns how many there were.
    async fn rotate_key(&self) -> Result<u64, Refusal>;

    /// Overwrites what was deleted or replaced, in the journal too. Best called when it matters: it waits for views that
    /// are open.
    async fn scrub(&self) -> Result<(), StoreError>;

    /// Takes no more work, finishes what it has, closes the files.
    async fn close(&self);
}

/// Reading, in one consistent view.
#[async_trait]
pub trait Read: Send {
    /// One row.
    async fn get(&mut self, key: &Key) -> Result<Option<Row>, StoreError>;

    /// Rows of a kind, in the order in which they were created.
    async fn list(&mut self, list: &List) -> Result<Vec<Row>, StoreError>;

    /// The row that holds this secret, by its keyed hash.
    async fn find(&mut self, kind: Kind, secret: &[u8]) -> Result<Option<Row>, StoreError>;

    /// The secret of a row, opened.
    async fn secret(&mut self, key: &Key) -> Result<Option<Vec<u8>>, StoreError>;

    /// A frozen definition by its hash: format version and compressed content.
    async fn definition(&mut self, sha256: &str) -> Result<Option<(u32, Vec<u8>)>, StoreError>;

    /// Changes after a revision, in commit order. A revision is never cut in two: `limit` may be passed by the rest of
    /// the last one.
    async fn changes(&mut self, after: u64, limit: u32) -> Result<Vec<Change>, StoreError>;

    /// What has changed after a revision, each entity once, with its last change.
    async fn changed(&mut self, after: u64, kinds: &[Kind]) -> Result<Vec<Change>, StoreError>;

    /// The last committed revision of this view, and the oldest one after which every change is still known.
    async fn bounds(&mut self) -> Result<(u64, u64), StoreError>;

    /// How many rows of a kind lie in `parent`.
    async fn count(&mut self, kind: Kind, parent: &str) -> Result<u64, StoreError>;

    /// Whether any row of any of the kinds has this id, wherever it lies (C8).
    async fn id_taken(&mut self, id: &str) -> Result<bool, StoreError>;
}

/// Writing, in one transaction.
#[async_trait]
pub trait Write: Read {
    /// Locks a row until the transaction ends, so that what is read and written under it is one step.
    async fn lock(&mut self, key: &Key) -> Result<(), StoreError>;

    /// Creates or replaces a row; returns the transaction's revision, which is now the row's.
    async fn put(&mut self, put: Put) -> Result<u64, StoreError>;

    /// Creates or replaces a row that is nobody's business: no revision, no change. For what runs, not what is defined.
    async fn put_quietly(&mut self, put: Put) -> Result<(), StoreError>;

    /// Gives a row the transaction's revision because something it depends on has changed.
    async fn touch(&mut self, key: &Key) -> Result<(), StoreError>;

    /// Deletes a row; false if there was none.
    async fn delete(&mut self, key: &Key) -> Result<bool, StoreError>;

    /// Deletes a row of what runs; false if there was none.
    async fn delete_quietly(&mut self, key: &Key) -> Result<bool, StoreError>;

    /// Keeps a frozen definition under its hash.
    async fn put_definition(&mut self, sha256: &str, version: u32, content: &[u8]) -> Result<(), StoreError>;

    /// Drops a frozen definition.
    async fn drop_definition(&mut self, sha256: &str) -> Result<(), StoreError>;

    /// Writes who did what, under the transaction's revision (C6).
    async fn audit(&mut self, audit: &Audit) -> Result<(), StoreError>;

    /// Whose changes these are, for the changes that follow.
    fn act_as(&mut self, principal: &str);

    /// The transaction's revision, if anything has been changed.
    fn revision(&self) -> Option<u64>;

    /// The same transaction, for reading.
    fn as_read(&mut self) -> &mut dyn Read;
}

/// A stored entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is called.
    pub key: Key,
    /// Whose it is: 12 digits.
    pub account: String,
    /// Where it is.
    pub region: String,
    /// The members.
    pub body: Value,
    /// Its last change.
    pub revision: u64,
    /// The order of creation.
    pub position: u64,
    /// Whether it holds a secret.
    pub has_secret: bool,
}

/// A row to be written.
#[derive(Clone, Debug)]
pub struct Put {
    /// What it is called.
    pub key: Key,
    /// Whose it is.
    pub account: String,
    /// Where it is.
    pub region: String,
    /// The members; no secrets among them.
    pub body: Value,
    /// What becomes of its secret.
    pub secret: Secret,
}

/// What becomes of a row's secret.
#[derive(Clone, Default)]
pub enum Secret {
    /// It stays as it is.
    #[default]
    Keep,
    /// It goes.
    Clear,
    /// Sealed; can be opened, not looked up.
    Sealed(Vec<u8>),
    /// Sealed, and its keyed hash kept for look-up.
    SealedAndFound(Vec<u8>),
    /// Only its keyed hash: can be looked up, never shown again.
    Hashed(Vec<u8>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "Keep",
            Self::Clear => "Clear",
            Self::Sealed(_) => "Sealed(..)",
            Self::SealedAndFound(_) => "SealedAndFound(..)",
            Self::Hashed(_) => "Hashed(..)",
        })
    }
}

/// Which rows to list.
#[derive(Clone, Debug)]
pub struct List {
    /// Their kind.
    pub kind: Kind,
    /// What they lie in; `None`: anywhere.
    pub parent: Option<String>,
    /// Whose they are; `None`: anybody's.
    pub account: Option<String>,
    /// Where they are; `None`: anywhere.
    pub region: Option<String>,
    /// Only ids that begin with this.
    pub id_prefix: Option<String>,
    /// Only what was created after this position (a page's last row).
    pub after: u64,
    /// At most so many.
    pub limit: u32,
}

impl List {
    /// All rows of a kind in `parent`.
    pub fn within(kind: Kind, parent: impl Into<String>) -> Self {
        Self {
            parent: Some(parent.into()),
            ..Self::all(kind)
        }
    }

    /// All rows of a kind.
    pub fn all(kind: Kind) -> Self {
        Self {
            kind,
            parent: None,
            account: None,
            region: None,
            id_prefix: None,
            after: 0,
            limit: u32::MAX,
        }
    }
}

/// What one revision did to one entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The revision.
    pub revision: u64,
    /// The entity.
    pub key: Key,
    /// Whose it is.
    pub account: String,
    /// Where it is.
    pub region: String,
    /// Whether it is gone.
    pub deleted: bool,
    /// Who did it.
    pub principal: String,
    /// When.
    pub time: Timestamp,
}

/// Who did what, for the record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Audit {
    /// The principal's id.
    pub principal: String,
    /// The account it acted in.
    pub account: String,
    /// Where the call came from.
    pub source: String,
    /// Through which face.
    pub face: String,
    /// The call's id.
    pub request_id: String,
    /// What was asked: `CreateDeployment`.
    pub operation: String,
    /// Of what: the entity's name.
    pub target: String,
}

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused.
    #[error("the store failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A file could not be used.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// What was read makes no sense.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
    /// A secret could not be sealed or opened.
    #[error("a secret cannot be opened: {0}")]
    Seal(String),
    /// The store was written by a newer program.
    #[error(
        "the store has schema {found}, this program knows {known}: run the newer version of Tidegate that wrote it, or \
         restore a backup from before the upgrade"
    )]
    Newer {
        /// The schema found.
        found: i64,
        /// The newest schema known.
        known: i64,
    },
    /// Another process has it open.
    #[error("{0} is in use by another control plane: stop that one, or choose another data directory")]
    InUse(String),
    /// It is closed or closing.
    #[error("the store is closed")]
    Closed,
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed => Self::new(Code::Unavailable, "The control plane is stopping. Try again"),
            other => {
                tracing::error!(error = %other, "store");
                Self::internal(other)
            }
        }
    }
}

/// Does `work` in a transaction and returns what it returned, and the transaction's revision (`None` where it changed
/// nothing), once it is durable.
pub async fn transact<T, F>(store: &dyn Store, work: F) -> Result<(T, Option<u64>), Refusal>
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut dyn Write) -> BoxFuture<'t, Result<T, Refusal>> + Send + 'static,
{
    run(store, work, true).await
}

/// As [`transact`], but undoes everything at the end: what would happen.
pub async fn rehearse<T, F>(store: &dyn Store, work: F) -> Result<(T, Option<u64>), Refusal>
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut dyn Write) -> BoxFuture<'t, Result<T, Refusal>> + Send + 'static,
{
    run(store, work, false).await
}

/// [`transact`] or, with `keep` false, [`rehearse`].
pub async fn run<T, F>(store: &dyn Store, work: F, keep: bool) -> Result<(T, Option<u64>), Refusal>
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut dyn Write) -> BoxFuture<'t, Result<T, Refusal>> + Send + 'static,
{
    let result = Arc::new(Mutex::new(None));
    let slot = result.clone();
    let boxed: Work = Box::new(move |tx| {
        Box::pin(async move {
            let value = work(tx).await?;
            *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(value);
            Ok(())
        })
    });
    let revision = store.write(boxed, keep).await?;
    let value = result
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .take();
    value
        .map(|value| (value, revision))
        .ok_or_else(|| Refusal::internal("a transaction left no result"))
}

#[cfg(test)]
mod tests;
