//! The installation's keys for TLS session tickets (D18): made here, sealed in the store, sent to the nodes, turned over.
//!
//! A key lives three turns. During the first every node gets to hold it, so that none meets a ticket that it cannot open;
//! during the second nodes seal with it; during the third they only open. Then it is gone everywhere: what it sealed
//! cannot be opened any more, by us or by whoever takes a machine.
//!
//! Keys are found due by their times in the row, in the transaction that replaces them: whoever comes second, with
//! however many control planes on one store, finds it done.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_proto::config::v1::{TicketKey, TicketKeys};
use tokio::{sync::watch, time::sleep};
use zeroize::Zeroizing;

use crate::{
    model::{Key, Kind, Refusal, id},
    store::{Put, Read, Secret, Store, StoreError, Write, transact},
};

/// How long nodes seal with one key where nothing else is set.
pub const TICKET_KEY_ROTATION: Duration = Duration::from_secs(12 * 3_600);

const SECRET: usize = 32;
/// How soon a failed rotation is tried again, and how often the store's is looked at: another control plane may have
/// turned the keys over.
const LOOK: Duration = Duration::from_secs(60);

/// The keys in force, followed by every session.
pub(super) struct Tickets {
    rotation: Duration,
    ring: watch::Sender<Arc<Ring>>,
}

/// The keys that are good now or will be next, oldest first.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Ring(Vec<Master>);

#[derive(Clone, PartialEq)]
struct Master {
    secret: Zeroizing<[u8; SECRET]>,
    times: Times,
}

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Times {
    seals_from: i64,
    seals_until: i64,
    opens_until: i64,
}

// === impl Tickets ===

impl Tickets {
    /// The keys of the store; made when there are none.
    pub(super) async fn open(store: &dyn Store, rotation: Duration) -> Result<Self, Refusal> {
        let this = Self {
            rotation,
            ring: watch::channel(Arc::default()).0,
        };
        this.step(store, false).await?;
        Ok(this)
    }

    /// Follows the keys.
    pub(super) fn follow(&self) -> watch::Receiver<Arc<Ring>> {
        self.ring.subscribe()
    }

    /// Turns the keys over when it is time, until it is dropped.
    pub(super) async fn keep(&self, store: &dyn Store) {
        loop {
            let due = self.ring.borrow().due_in(now());
            sleep(due.min(LOOK)).await;
            if let Err(error) = self.step(store, false).await {
                tracing::error!(
                    error = error.message,
                    "the session ticket keys cannot be turned over; tried again later"
                );
                sleep(LOOK).await;
            }
        }
    }

    /// Turns the keys over where it is time, or at once.
    pub(super) async fn step(&self, store: &dyn Store, at_once: bool) -> Result<(), Refusal> {
        let rotation = millis(self.rotation);
        let work = transact(store, move |tx| {
            Box::pin(async move {
                let mut ring = load(tx.as_read()).await?;
                let now = if at_once { ring.hurry(now()) } else { now() };
                let forgotten = ring.turn(now, rotation)?;
                if let Some(forgotten) = forgotten {
                    keep(tx, &ring).await?;
                    return Ok((ring, Some(forgotten)));
                }
                Ok((ring, None))
            })
        });
        let ((ring, forgotten), _) = work.await?;
        if forgotten.is_some() {
            tracing::info!(
                keys = ring.0.len(),
                forgotten,
                "the session ticket keys were turned over"
            );
        }
        if forgotten.is_some_and(|count| count > 0) {
            store.scrub().await?;
        }
        let ring = Arc::new(ring);
        self.ring.send_if_modified(|held| {
            let differs = *held != ring;
            *held = ring;
            differs
        });
        Ok(())
    }
}

// === impl Ring ===

impl Ring {
    /// As it is sent to a node at this moment.
    pub(super) fn message(&self) -> TicketKeys {
        let now = now();
        let keys = self.0.iter().map(|master| TicketKey {
            secret: master.secret.to_vec(),
            seals_from_ms: master.times.seals_from.saturating_sub(now),
            seals_until_ms: master.times.seals_until.saturating_sub(now),
            opens_until_ms: master.times.opens_until.saturating_sub(now),
        });
        TicketKeys { keys: keys.collect() }
    }

    /// Drops what is not good any more, and makes what is missing: a key to seal with, and the one after it. `None`:
    /// nothing was to be done; else how many keys were dropped.
    fn turn(&mut self, now: i64, rotation: i64) -> Result<Option<usize>, Refusal> {
        let before: Vec<_> = self.0.iter().map(|master| master.times).collect();
        let count = before.len();
        // What lies further ahead than the next turn was made by a clock that was wrong, or for a longer turn.
        self.0
            .retain(|master| master.times.opens_until > now && master.times.seals_from <= now + rotation);
        for Master { times, .. } in &mut self.0 {
            times.seals_until = times.seals_until.min(times.seals_from.max(now) + rotation);
            times.opens_until = times.opens_until.min(times.seals_until + rotation);
        }
        let forgotten = count - self.0.len();
        loop {
            let last = self.0.last().map(|master| master.times);
            match last {
                Some(last) if last.seals_from > now => break,
                last => {
                    let from = last.map_or(now, |last| last.seals_until.max(now));
                    self.0.push(Master::random(from, rotation)?);
                }
            }
        }
        let same = self.0.iter().map(|master| master.times).eq(before);
        Ok((!same).then_some(forgotten))
    }

    /// Ends the sealing of the current key, as if its time had come; returns the moment that follows.
    fn hurry(&mut self, now: i64) -> i64 {
        let next = self
            .0
            .iter()
            .map(|master| master.times.seals_from)
            .find(|from| *from > now);
        let early = next.map_or(0, |from| from - now);
        for Master { times, .. } in &mut self.0 {
            times.seals_from -= early;
            times.seals_until -= early;
            times.opens_until -= early;
        }
        now
    }

    /// How long until a key is to be made or dropped.
    fn due_in(&self, now: i64) -> Duration {
        let starts = self.0.iter().map(|master| master.times.seals_from);
        let ends = self.0.iter().map(|master| master.times.opens_until);
        let due = starts.chain(ends).filter(|at| *at > now).min().unwrap_or(now);
        Duration::from_millis(u64::try_from(due - now).unwrap_or(0))
    }
}

impl Master {
    fn random(seals_from: i64, rotation: i64) -> Result<Self, Refusal> {
        let mut secret = Zeroizing::new([0; SECRET]);
        id::fill(&mut *secret)?;
        let seals_until = seals_from + rotation;
        Ok(Self {
            secret,
            times: Times {
                seals_from,
                seals_until,
                opens_until: seals_until + rotation,
            },
        })
    }
}

fn row() -> Key {
    Key::top(Kind::TicketKeys, "https")
}

async fn load(tx: &mut dyn Read) -> Result<Ring, Refusal> {
    let corrupt = || StoreError::Corrupt("the session ticket keys' row".into());
    let key = row();
    let Some(row) = tx.get(&key).await? else {
        return Ok(Ring::default());
    };
    let times = row.body.get("keys").cloned().unwrap_or_default();
    let times: Vec<Times> = serde_json::from_value(times).map_err(|_| corrupt())?;
    let secrets = Zeroizing::new(tx.secret(&key).await?.ok_or_else(corrupt)?);
    let (secrets, rest) = secrets.as_chunks::<SECRET>();
    if !rest.is_empty() || secrets.len() != times.len() {
        return Err(corrupt().into());
    }
    let masters = secrets.iter().zip(times).map(|(secret, times)| Master {
        secret: Zeroizing::new(*secret),
        times,
    });
    Ok(Ring(masters.collect()))
}

async fn keep(tx: &mut dyn Write, ring: &Ring) -> Result<(), Refusal> {
    let times: Vec<_> = ring.0.iter().map(|master| master.times).collect();
    let secrets = ring.0.iter().flat_map(|master| *master.secret).collect();
    tx.put_quietly(Put {
        key: row(),
        account: String::new(),
        region: String::new(),
        body: json!({ "keys": times }),
        secret: Secret::Sealed(secrets),
    })
    .await?;
    Ok(())
}

fn now() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SqliteStore;

    const HOUR: i64 = 3_600_000;

    fn secrets(ring: &Ring) -> Vec<[u8; SECRET]> {
        ring.0.iter().map(|master| *master.secret).collect()
    }

    /// D18: each key is held a turn before it seals, and a turn after; at every moment exactly one seals.
    #[test]
    fn a_key_is_next_then_current_then_previous_then_gone() {
        let mut ring = Ring::default();
        let start = 1_000 * HOUR;
        assert_eq!(ring.turn(start, 12 * HOUR).unwrap(), Some(0));
        let first = secrets(&ring);
        assert_eq!(first.len(), 2, "current and next");
        assert_eq!(ring.turn(start + 12 * HOUR - 1, 12 * HOUR).unwrap(), None);
        assert_eq!(ring.turn(start + 12 * HOUR, 12 * HOUR).unwrap(), Some(0));
        let second = secrets(&ring);
        assert_eq!(
            (&second[..2], second.len()),
            (&first[..], 3),
            "previous, current, next"
        );
        assert_eq!(ring.turn(start + 24 * HOUR, 12 * HOUR).unwrap(), Some(1));
        let third = secrets(&ring);
        assert_eq!((&third[..2], third.len()), (&second[1..], 3));
        for at in 0..24 {
            let at = start + 12 * HOUR + at * HOUR;
            let sealing = ring
                .0
                .iter()
                .filter(|one| one.times.seals_from <= at && at < one.times.seals_until);
            assert_eq!(sealing.count(), 1, "{at}");
        }
    }

    /// However long nobody looked, and whatever the clock or the setting did, one seals now and one is next.
    #[test]
    fn the_ring_mends_itself() {
        let start = 1_000 * HOUR;
        for (now, rotation) in [
            (start + 13 * HOUR, 12 * HOUR),
            (start + 30 * HOUR, 12 * HOUR),
            (start + 900 * HOUR, 12 * HOUR),
            (start - 900 * HOUR, 12 * HOUR),
            (start + HOUR, HOUR),
            (start + HOUR, 84 * HOUR),
        ] {
            let mut ring = Ring::default();
            ring.turn(start, 12 * HOUR).unwrap();
            ring.turn(now, rotation).unwrap();
            let sealing = |at| {
                let seals = move |one: &&Master| one.times.seals_from <= at && at < one.times.seals_until;
                ring.0.iter().filter(seals).count()
            };
            assert!(sealing(now) == 1, "{now} {rotation}: {:?}", times(&ring));
            let next = ring.0.last().unwrap().times;
            assert!(
                next.seals_from > now && next.seals_from <= now + 12 * HOUR,
                "{now} {rotation}"
            );
            assert_eq!(sealing(next.seals_from), 1, "{now} {rotation}");
            assert!(
                ring.0
                    .iter()
                    .all(|one| one.times.opens_until <= now + 3 * rotation.max(12 * HOUR))
            );
            assert!(ring.due_in(now) > Duration::ZERO);
        }
    }

    fn times(ring: &Ring) -> Vec<Times> {
        ring.0.iter().map(|master| master.times).collect()
    }

    /// C5: a second control plane on the same store turns nothing over again, and a restart goes on with what was there.
    #[tokio::test]
    async fn the_store_holds_them() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path()).await.unwrap();
        let one = Tickets::open(&store, TICKET_KEY_ROTATION).await.unwrap();
        let two = Tickets::open(&store, TICKET_KEY_ROTATION).await.unwrap();
        assert!(*one.follow().borrow() == *two.follow().borrow());
        one.step(&store, true).await.unwrap();
        two.step(&store, false).await.unwrap();
        assert!(*one.follow().borrow() == *two.follow().borrow());
        assert_eq!(one.follow().borrow().0.len(), 3);
    }

    /// C7: no key lies in any file unsealed, and a key that is gone does not even lie there sealed.
    #[tokio::test]
    async fn forgotten_keys_are_in_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path()).await.unwrap();
        let tickets = Tickets::open(&store, TICKET_KEY_ROTATION).await.unwrap();
        let mut known = secrets(&tickets.follow().borrow());
        for turn in 0..4 {
            let sealed = sealed(directory.path()).await;
            assert!(contains(directory.path(), &sealed), "the row is there");
            tickets.step(&store, true).await.unwrap();
            known.extend(secrets(&tickets.follow().borrow()));
            // The first turn forgets nothing.
            assert!(turn == 0 || !contains(directory.path(), &sealed), "turn {turn}");
        }
        store.copy_to(&directory.path().join("copy.db")).await.unwrap();
        for secret in &known {
            assert!(!contains(directory.path(), secret));
        }
        let sealed = sealed(directory.path()).await;
        assert!(
            !std::fs::read(directory.path().join("copy.db"))
                .unwrap()
                .windows(sealed.len())
                .any(|window| window == sealed)
        );
    }

    fn contains(directory: &std::path::Path, bytes: &[u8]) -> bool {
        std::fs::read_dir(directory).unwrap().any(|entry| {
            let content = std::fs::read(entry.unwrap().path()).unwrap();
            content.windows(bytes.len()).any(|window| window == bytes)
        })
    }

    /// The row's secret as the database has it.
    async fn sealed(directory: &std::path::Path) -> Vec<u8> {
        use sqlx::{ConnectOptions, Row, sqlite::SqliteConnectOptions};
        let options = SqliteConnectOptions::new()
            .filename(directory.join("store.db"))
            .read_only(true);
        let mut connection = options.connect().await.unwrap();
        let row = sqlx::query("SELECT sealed FROM entities WHERE kind = 'ticket-keys'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        row.try_get(0).unwrap()
    }
}
