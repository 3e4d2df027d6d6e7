//! Which limits exist on this node. Owned by the configuration thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cell::{Cell, Limit, Nanos, Recall, Spent};

/// What a limit limits. Stays the same over deployments, so that the bucket does too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LimitId {
    /// All APIs of an account in a region together (SEC-081).
    Account {
        /// Twelve digits.
        account: String,
        /// The region's name.
        region: String,
    },
    /// One method of one resource in one stage: what is set for a whole stage is set for each of its methods
    /// (SEC-077, SEC-078).
    Method {
        /// The API's id.
        api: String,
        /// The stage's name.
        stage: String,
        /// The resource's path, `/pets/{petId}`: ids of resources change when an API is imported again.
        resource: String,
        /// The method, or `ANY`.
        method: String,
    },
}

/// Where a shard finds its credit for a limit. Small numbers, reused after a limit has aged out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitIndex(pub u32);

/// A limit in use. Held by whatever names its index (a stage's plan): while one exists the index stays taken.
#[derive(Clone, Debug)]
pub struct LimitHandle {
    index: LimitIndex,
    cell: Arc<Cell>,
    /// Counts the handles; the cell's own count includes the shards' credits.
    in_use: Arc<()>,
}

impl LimitHandle {
    /// The dense index that plans carry.
    pub fn index(&self) -> LimitIndex {
        self.index
    }

    /// The bucket.
    pub fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    /// Has the bucket follow `limit` from now on, at the level that it has.
    pub fn put_in_force(&self, limit: Limit, now: Nanos) {
        if self.cell.limit() != limit {
            self.cell.reconfigure(limit, now);
        }
    }
}

/// The node's limits by id.
#[derive(Debug)]
pub struct Registry {
    limits: HashMap<LimitId, Entry>,
    free: Vec<LimitIndex>,
    next: u32,
    capacity: usize,
    recall: Arc<Recall>,
}

#[derive(Debug)]
struct Entry {
    handle: LimitHandle,
    unused_since: Option<Nanos>,
}

/// How far a limit's bucket is from full, for the process that takes over (D17). Full buckets need not travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    id: LimitId,
    limit: Limit,
    spent: Spent,
}

/// The node's table of limits is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node holds {0} throttling limits, which is the most it may; raise `throttle-cells` or serve fewer stages on this node"
)]
pub struct TooManyLimits(pub usize);

impl Registry {
    /// An empty registry for at most `capacity` limits (`throttle-cells` in the table of limits).
    pub fn new(capacity: usize) -> Registry {
        Registry {
            limits: HashMap::new(),
            free: Vec::new(),
            next: 0,
            capacity: capacity.min(u32::MAX as usize),
            recall: Arc::default(),
        }
    }

    /// The bucket for `id` with `limit` in force: a full one where there was none, the same one at the level it
    /// had where there was. Shards that hold credit of a bucket whose limit changed settle when they apply the
    /// configuration ([`Credits::settle_all`](super::Credits::settle_all)).
    pub fn resolve(&mut self, id: LimitId, limit: Limit, now: Nanos) -> Result<LimitHandle, TooManyLimits> {
        let handle = self.find(id, limit)?;
        handle.put_in_force(limit, now);
        Ok(handle)
    }

    /// The bucket for `id`: a full one with `limit` where there was none, the same one as it is where there was.
    pub fn find(&mut self, id: LimitId, limit: Limit) -> Result<LimitHandle, TooManyLimits> {
        if let Some(entry) = self.limits.get_mut(&id) {
            entry.unused_since = None;
            return Ok(entry.handle.clone());
        }
        if self.limits.len() >= self.capacity {
            return Err(TooManyLimits(self.capacity));
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            LimitIndex(self.next - 1)
        });
        let handle = LimitHandle {
            index,
            cell: Arc::new(Cell::new(limit, Arc::clone(&self.recall))),
            in_use: Arc::new(()),
        };
        self.limits.insert(
            id,
            Entry {
                handle: handle.clone(),
                unused_since: None,
            },
        );
        Ok(handle)
    }

    /// Forgets the limits that nobody has named for a while, and says which indexes became free, for the shards
    /// to [`forget`](super::Credits::forget): tell them before anything that is resolved later, as it may get the
    /// same index. Call it every minute or so.
    ///
    /// A bucket that is not full yet stays for up to a day: a stage that is deleted and made again must not get
    /// a second burst by it.
    pub fn sweep(&mut self, now: Nanos) -> Vec<LimitIndex> {
        let mut gone = Vec::new();
        self.limits.retain(|_, entry| {
            if Arc::strong_count(&entry.handle.in_use) > 1 {
                entry.unused_since = None;
                return true;
            }
            let unused = now.saturating_sub(*entry.unused_since.get_or_insert(now));
            let aged = unused >= nanos(KEEP_UNUSED) && entry.handle.cell.is_untouched(now);
            let stay = !aged && unused < nanos(KEEP_AT_MOST);
            if !stay {
                gone.push(entry.handle.index);
            }
            stay
        });
        self.free.extend(&gone);
        gone
    }

    /// The buckets that are not full, at most so many. What shards hold as credit counts as spent.
    pub fn levels(&self, now: Nanos, most: usize) -> Vec<Level> {
        let level = |(id, entry): (&LimitId, &Entry)| {
            let cell = &entry.handle.cell;
            let spent = cell.spent(now);
            (spent != Spent::default()).then(|| Level {
                id: id.clone(),
                limit: cell.limit(),
                spent,
            })
        };
        self.limits.iter().filter_map(level).take(most).collect()
    }

    /// Puts buckets to the levels that they had in another process. A limit that nothing names here stays until it has
    /// aged out, as it would have there; one that has no room is full when it is named.
    pub fn restore(&mut self, levels: Vec<Level>, now: Nanos) {
        for Level { id, limit, spent } in levels {
            if !limit.is_sound() {
                continue;
            }
            let known = self.limits.get(&id).map(|entry| entry.handle.clone());
            let handle = match known {
                Some(handle) => handle,
                None => match self.resolve(id, limit, now) {
                    Ok(handle) => handle,
                    Err(TooManyLimits(_)) => continue,
                },
            };
            handle.cell.spend(&limit, spent, now);
        }
    }

    /// How many limits there are.
    pub fn len(&self) -> usize {
        self.limits.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }
}

fn nanos(duration: Duration) -> Nanos {
    duration.as_nanos() as Nanos
}

const KEEP_UNUSED: Duration = Duration::from_secs(600);
const KEEP_AT_MOST: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Credits;

    const SECOND: Nanos = 1_000_000_000;

    fn method(name: &str) -> LimitId {
        LimitId::Method {
            api: "a1b2c3d4e5".into(),
            stage: "prod".into(),
            resource: "/pets".into(),
            method: name.into(),
        }
    }

    /// D9: a redeployment with another rate finds the bucket as it was.
    #[test]
    fn the_same_id_is_the_same_bucket() {
        let mut registry = Registry::new(10);
        let first = registry
            .resolve(method("GET"), Limit::new(1.0, 10).unwrap(), 0)
            .unwrap();
        let mut credits = Credits::new(2);
        credits.install(&first);
        for _ in 0..10 {
            credits.admit(0, &[first.index()]).unwrap();
        }
        drop(first);
        let again = registry
            .resolve(method("GET"), Limit::new(2.0, 10).unwrap(), 0)
            .unwrap();
        credits.install(&again);
        assert!(credits.admit(0, &[again.index()]).is_err());
        assert!(credits.admit(SECOND / 2, &[again.index()]).is_ok());
        let other = registry
            .resolve(method("PUT"), Limit::new(2.0, 10).unwrap(), 0)
            .unwrap();
        assert_ne!(other.index(), again.index());
    }

    /// D17, D9: a bucket goes on at its level in the process that takes over, whatever that one's clock says; under
    /// another limit it has as many tokens too few as before.
    #[test]
    fn levels_travel() {
        let mut old = Registry::new(10);
        let now = 7000 * SECOND;
        let (get, put) = (method("GET"), method("PUT"));
        let limit = Limit::new(10.0, 100).unwrap();
        let first = old.resolve(get.clone(), limit, now).unwrap();
        let _full = old.resolve(put.clone(), limit, now).unwrap();
        let mut credits = Credits::new(1);
        credits.install(&first);
        for _ in 0..70 {
            credits.admit(now, &[first.index()]).unwrap();
        }
        credits.settle_all();
        let levels = old.levels(now, 10);
        assert_eq!(levels.len(), 1, "a full bucket stays at home: {levels:?}");
        let text = serde_json::to_string(&levels).unwrap();
        let levels: Vec<Level> = serde_json::from_str(&text).unwrap();
        for (named, after) in [
            (Some(limit), 30),
            (Some(Limit::new(1.0, 80).unwrap()), 10),
            (None, 30),
        ] {
            let mut new = Registry::new(10);
            let start = 3 * SECOND;
            if let Some(limit) = named {
                new.resolve(get.clone(), limit, 0).unwrap();
            }
            new.restore(levels.clone(), start);
            let handle = new.resolve(get.clone(), named.unwrap_or(limit), start).unwrap();
            assert_eq!(handle.cell().level(start), after, "{named:?}");
        }
        // No room: the bucket will be full, nothing breaks.
        let mut full = Registry::new(1);
        full.resolve(put, limit, 0).unwrap();
        full.restore(levels, 0);
        assert_eq!(full.len(), 1);
    }

    /// D9: ids that vanish age out, but not before their bucket is full again.
    #[test]
    fn unused_limits_age_out_and_their_index_is_used_again() {
        let mut registry = Registry::new(2);
        let slow = registry
            .resolve(method("GET"), Limit::new(0.001, 5).unwrap(), 0)
            .unwrap();
        let quick = registry
            .resolve(method("PUT"), Limit::new(100.0, 5).unwrap(), 0)
            .unwrap();
        assert_eq!(
            registry.resolve(method("PATCH"), Limit::NONE, 0).unwrap_err(),
            TooManyLimits(2)
        );
        let mut credits = Credits::new(2);
        credits.install(&slow);
        credits.install(&quick);
        credits.admit(0, &[slow.index(), quick.index()]).unwrap();
        let (slow_index, quick_index) = (slow.index(), quick.index());
        assert_eq!(registry.sweep(SECOND), []);
        drop((slow, quick));
        assert_eq!(registry.sweep(2 * SECOND), []);
        assert_eq!(registry.sweep(602 * SECOND), [quick_index]);
        let reused = registry.resolve(method("PATCH"), Limit::NOTHING, 0).unwrap();
        assert_eq!(reused.index(), quick_index);
        credits.install(&reused);
        assert!(credits.admit(0, &[quick_index]).is_err());
        assert_eq!(registry.sweep(1003 * SECOND), [slow_index]);
        assert_eq!(registry.len(), 1);
    }
}
