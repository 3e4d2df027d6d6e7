//! The embedded store: one SQLite file, one writer, several readers.
//!
//! `synchronous=FULL` makes every commit wait for the disk, so writers that queue up meanwhile share the next commit:
//! each runs in a savepoint of its own within one transaction, and a refused one undoes only itself.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, Connection, Row as _, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::{
    BoxFuture, Read, Store, StoreError, Work, Write, schema,
    seal::Sealer,
    sql,
    tx::{Reading, Writing},
};
use crate::model::{Code, Key, Kind, Refusal, id};

/// Writers that may wait for their turn; more wait to be let into the queue.
const QUEUE: usize = 1_024;
/// Most transactions in one commit: bounds how long the first of them waits for the rest.
const BATCH: usize = 64;
/// Views that can be open at a time.
const READERS: u32 = 8;
/// Changes kept for watchers and nodes that were away; who missed more starts anew.
const CHANGES_KEPT: u64 = 1_000_000;
/// Rows sealed anew in one transaction of a rotation.
const ROTATED_AT_ONCE: i64 = 500;

/// The embedded store.
pub struct SqliteStore {
    readers: SqlitePool,
    jobs: mpsc::Sender<Job>,
    revisions: watch::Receiver<u64>,
    installation: String,
    keys: Arc<RwLock<Arc<Sealer>>>,
    rotation: Mutex<()>,
    writer: Mutex<Option<tokio::task::JoinHandle<()>>>,
    closing: watch::Sender<bool>,
    _lock: File,
}

enum Job {
    Work {
        work: Work,
        keep: bool,
        done: oneshot::Sender<Result<Option<u64>, Refusal>>,
    },
    /// Seals some rows anew; answers how many.
    Reseal {
        done: oneshot::Sender<Result<u64, StoreError>>,
    },
    /// Overwrites what is not needed any more.
    Scrub {
        done: oneshot::Sender<Result<(), StoreError>>,
    },
}

impl SqliteStore {
    /// Opens the store in a directory, which is made if it is not there: `store.db`, its key file `secrets.key`, and a
    /// lock that keeps a second control plane out.
    pub async fn open(directory: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).map_err(|error| file_error(directory, error))?;
        let lock = lock(&directory.join("store.lock"))?;
        let database = directory.join("store.db");
        // The file's owner alone may read it; SQLite gives its journals the same mode.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&database)
            .map_err(|error| file_error(&database, error))?;

        let options = SqliteConnectOptions::new()
            .filename(&database)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What is deleted is overwritten: forgotten keys are to be nowhere.
            .pragma("secure_delete", "ON")
            .busy_timeout(Duration::from_secs(5));
        let mut connection = options.connect().await?;
        schema::migrate(&mut connection).await?;
        let sealer = Arc::new(open_keys(&mut connection, &directory.join("secrets.key")).await?);
        let installation = installation(&mut connection).await?;
        let revision = sql::counter(&mut connection, "revision").await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await?;

        let keys = Arc::new(RwLock::new(sealer));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (announce, revisions) = watch::channel(revision);
        let (closing, closed) = watch::channel(false);
        let writer = Writer {
            connection,
            queue,
            announce,
            keys: keys.clone(),
            closed,
        };
        Ok(Self {
            readers,
            jobs,
            revisions,
            installation,
            keys,
            rotation: Mutex::new(()),
            writer: Mutex::new(Some(tokio::spawn(writer.run()))),
            closing,
            _lock: lock,
        })
    }

    fn sealer(&self) -> Arc<Sealer> {
        self.keys
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    fn set_sealer(&self, sealer: Sealer) {
        *self.keys.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(sealer);
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn write(&self, work: Work, keep: bool) -> Result<Option<u64>, Refusal> {
        let (done, result) = oneshot::channel();
        self.jobs
            .send(Job::Work { work, keep, done })
            .await
            .map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    async fn read(&self) -> Result<Box<dyn Read>, StoreError> {
        Ok(Box::new(Reading::new(self.readers.begin().await?, self.sealer())))
    }

    fn revisions(&self) -> watch::Receiver<u64> {
        self.revisions.clone()
    }

    fn installation(&self) -> &str {
        &self.installation
    }

    async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let target = path
            .to_str()
            .ok_or_else(|| StoreError::Corrupt(format!("the path {}", path.display())))?;
        // SQLite takes an empty file as it is: made beforehand, it is its owner's alone from the first byte on.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| file_error(path, error))?;
        let mut connection = self.readers.acquire().await?;
        sqlx::query("VACUUM INTO $1")
            .bind(target)
            .execute(&mut *connection)
            .await?;
        drop(connection);
        let mut copy = SqliteConnectOptions::new()
            .filename(path)
            .pragma("secure_delete", "ON")
            // Leaves nothing beside the file.
            .journal_mode(SqliteJournalMode::Memory)
            .synchronous(SqliteSynchronous::Full)
            .connect()
            .await?;
        sqlx::query("DELETE FROM entities WHERE kind = $1")
            .bind(Kind::TicketKeys.as_str())
            .execute(&mut copy)
            .await?;
        copy.close().await?;
        Ok(())
    }

    async fn scrub(&self) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        self.jobs
            .send(Job::Scrub { done })
            .await
            .map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    async fn rotate_key(&self) -> Result<u64, Refusal> {
        let _one_at_a_time = self.rotation.lock().await;
        self.set_sealer(self.sealer().with_new_key()?);
        let mut total = 0;
        loop {
            let (done, result) = oneshot::channel();
            self.jobs
                .send(Job::Reseal { done })
                .await
                .map_err(|_| StoreError::Closed)?;
            match result.await.map_err(|_| StoreError::Closed)?? {
                0 => break,
                some => total += some,
            }
        }
        self.set_sealer(self.sealer().without_old_keys()?);
        Ok(total)
    }

    async fn close(&self) {
        self.closing.send_replace(true);
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the store's writer ended badly");
        }
        self.readers.close().await;
    }
}

/// The one writer.
struct Writer {
    connection: SqliteConnection,
    queue: mpsc::Receiver<Job>,
    announce: watch::Sender<u64>,
    keys: Arc<RwLock<Arc<Sealer>>>,
    closed: watch::Receiver<bool>,
}

/// A transaction of a batch that waits for the commit.
struct Waiting {
    done: oneshot::Sender<Result<Option<u64>, Refusal>>,
    result: Result<Option<u64>, Refusal>,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let job = tokio::select! {
                biased;
                job = self.queue.recv() => job,
                () = closed(&mut self.closed) => {
                    // What is in the queue is still done; nothing new gets in.
                    self.queue.close();
                    self.queue.recv().await
                }
            };
            match job {
                None => break,
                Some(Job::Work { work, keep, done }) => self.batch(work, keep, done).await,
                Some(other) => self.other(other).await,
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::error!(%error, "closing the store");
        }
    }

    /// Runs this and whatever else is queued, commits once, answers all.
    async fn batch(&mut self, work: Work, keep: bool, done: oneshot::Sender<Result<Option<u64>, Refusal>>) {
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut after = None;
        let mut next = Some((work, keep, done));
        let mut outcome = self.execute("BEGIN IMMEDIATE").await;
        while let Some((work, keep, done)) = next.take() {
            if outcome.is_ok() {
                match self.one(work, keep).await {
                    Ok(result) => waiting.push(Waiting { done, result }),
                    Err(error) => {
                        waiting.push(Waiting {
                            done,
                            result: Ok(None),
                        });
                        outcome = Err(error);
                    }
                }
            } else {
                waiting.push(Waiting {
                    done,
                    result: Ok(None),
                });
            }
            if outcome.is_ok() && waiting.len() < BATCH {
                match self.queue.try_recv() {
                    Ok(Job::Work { work, keep, done }) => next = Some((work, keep, done)),
                    Ok(other) => after = Some(other),
                    Err(_) => {}
                }
            }
        }
        if outcome.is_ok() {
            outcome = self.execute("COMMIT").await;
        }
        match outcome {
            Ok(()) => {
                let last = waiting
                    .iter()
                    .filter_map(|w| w.result.as_ref().ok().copied().flatten())
                    .max();
                if let Some(last) = last {
                    self.announce.send_if_modified(|revision| {
                        let newer = last > *revision;
                        *revision = last.max(*revision);
                        newer
                    });
                }
                for Waiting { done, result } in waiting {
                    let _gone = done.send(result);
                }
                self.trim().await;
            }
            Err(error) => {
                tracing::error!(%error, "a commit failed");
                // After some errors SQLite has rolled back by itself, and this one says so: nothing to do about it.
                let _already = self.execute("ROLLBACK").await;
                let refusal = Refusal::new(Code::Internal, format!("Nothing was written: {error}"));
                for Waiting { done, .. } in waiting {
                    let _gone = done.send(Err(refusal.clone()));
                }
            }
        }
        if let Some(job) = after {
            self.other(job).await;
        }
    }

    /// A job that is no caller's transaction.
    async fn other(&mut self, job: Job) {
        match job {
            Job::Work { work, keep, done } => Box::pin(self.batch(work, keep, done)).await,
            Job::Reseal { done } => {
                let result = self.reseal().await;
                let _gone = done.send(result);
            }
            Job::Scrub { done } => {
                let result = self.execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
                let _gone = done.send(result);
            }
        }
    }

    /// One transaction of a batch. The inner result is the caller's; the outer one says whether the batch can go on.
    async fn one(&mut self, work: Work, keep: bool) -> Result<Result<Option<u64>, Refusal>, StoreError> {
        self.execute("SAVEPOINT work").await?;
        let sealer = self
            .keys
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone();
        let mut writing = Writing::new(&mut self.connection, sealer);
        let result = caught(work(&mut writing)).await;
        let revision = writing.revision();
        if result.is_err() || !keep {
            self.execute("ROLLBACK TO work").await?;
        }
        self.execute("RELEASE work").await?;
        // What was undone announces nothing.
        Ok(result.map(|()| revision.filter(|_| keep)))
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), StoreError> {
        sqlx::query(statement).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Seals some rows anew that an older key has sealed.
    async fn reseal(&mut self) -> Result<u64, StoreError> {
        let sealer = self
            .keys
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone();
        let mut transaction = self.connection.begin().await?;
        let rows = sqlx::query(
            "SELECT kind, parent, id, sealed_by, sealed FROM entities WHERE sealed_by < $1 ORDER BY sealed_by LIMIT $2",
        )
        .bind(sealer.current())
        .bind(ROTATED_AT_ONCE)
        .fetch_all(&mut *transaction)
        .await?;
        for row in &rows {
            let kind: &str = row.try_get(0)?;
            let kind = Kind::parse(kind).ok_or_else(|| StoreError::Corrupt(format!("kind {kind}")))?;
            let key = Key {
                kind,
                parent: row.try_get(1)?,
                id: row.try_get(2)?,
            };
            let secret = sealer.open_sealed(&key, row.try_get(3)?, row.try_get(4)?)?;
            let (by, sealed) = sealer.seal(&key, &secret)?;
            sqlx::query(
                "UPDATE entities SET sealed_by = $1, sealed = $2 WHERE kind = $3 AND parent = $4 AND id = $5",
            )
            .bind(by)
            .bind(sealed)
            .bind(key.kind.as_str())
            .bind(key.parent.as_str())
            .bind(key.id.as_str())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(rows.len() as u64)
    }

    /// Forgets changes that are too old, some thousands at a time.
    async fn trim(&mut self) {
        let newest = *self.announce.borrow();
        let Some(until) = newest
            .checked_sub(CHANGES_KEPT)
            .filter(|until| until % 1_000 == 0 && *until > 0)
        else {
            return;
        };
        if let Err(error) = self.forget(until).await {
            tracing::error!(%error, "old changes could not be forgotten");
        }
    }

    async fn forget(&mut self, until: u64) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin().await?;
        sqlx::query("DELETE FROM changes WHERE revision <= $1")
            .bind(sql::signed(until))
            .execute(&mut *transaction)
            .await?;
        sqlx::query("UPDATE counters SET value = $1 WHERE name = 'trimmed'")
            .bind(sql::signed(until))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error says that the store itself is gone, which is as good.
    let _either = closing.wait_for(|closed| *closed).await;
}

/// A panic in a piece of work is that work's failure, not the writer's end.
async fn caught(mut work: BoxFuture<'_, Result<(), Refusal>>) -> Result<(), Refusal> {
    std::future::poll_fn(move |context| {
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))).unwrap_or_else(|_| {
            Poll::Ready(Err(Refusal::internal(
                "a defect of the control plane; see its log",
            )))
        })
    })
    .await
}

async fn open_keys(connection: &mut SqliteConnection, path: &Path) -> Result<Sealer, StoreError> {
    let known = schema::meta(connection, "keys").await?;
    let sealer = match (&known, path.exists()) {
        (_, true) => Sealer::open(path)?,
        (None, false) => Sealer::create(path)?,
        (Some(_), false) => {
            return Err(StoreError::Seal(format!(
                "{} is missing, and what is in the store is sealed with it: restore the file",
                path.display()
            )));
        }
    };
    let value = sealer.check_value();
    match known {
        Some(known) if known != value => Err(StoreError::Seal(format!(
            "{} belongs to another store: restore the file that goes with this one",
            path.display()
        ))),
        Some(_) => Ok(sealer),
        None => {
            schema::set_meta(connection, "keys", &value).await?;
            Ok(sealer)
        }
    }
}

async fn installation(connection: &mut SqliteConnection) -> Result<String, StoreError> {
    if let Some(id) = schema::meta(connection, "installation").await? {
        return Ok(id);
    }
    let id = id::random(20).map_err(|refusal| StoreError::Seal(refusal.message))?;
    schema::set_meta(connection, "installation", &id).await?;
    Ok(id)
}

fn lock(path: &PathBuf) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| file_error(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(
            path.parent().unwrap_or(path).display().to_string(),
        )),
        Err(TryLockError::Error(error)) => Err(file_error(path, error)),
    }
}

fn file_error(path: &Path, error: std::io::Error) -> StoreError {
    StoreError::File {
        path: path.display().to_string(),
        error,
    }
}
