//! How many connections the node may hold to one target: one number for all shards (decision D11).
//!
//! A shard takes a permit with one atomic operation before it connects, and the permit goes with the connection,
//! also while that is idle. Who finds none waits; the permit that is given back next is announced by mail to a shard
//! that waits. So that idle connections of one shard do not starve another, a shard that begins to wait asks the
//! others to close an idle one.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tidegate_plan::Target;
use tidegate_rt as rt;

use super::health::{Health, HealthLimits};
use crate::shard::mail::{Mailboxes, ShardMessage};

/// A target as the whole node knows it. It stays the same for as long as any plan or connection refers to it.
pub struct Endpoint {
    /// Where it is and how it is spoken to.
    pub target: Target,
    /// Which of its addresses get no connections.
    pub health: Health,
    id: u32,
    max: u32,
    in_use: AtomicU32,
    /// One flag a shard: it has requests waiting for a permit.
    waiting: Box<[AtomicBool]>,
    waiters: AtomicU32,
    mail: Mailboxes,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({:?})", self.target)
    }
}

/// The node's targets. Asked when configuration is applied, never while a request is served.
#[derive(Debug)]
pub struct Endpoints {
    known: Mutex<Known>,
    max_connections: u32,
    health: HealthLimits,
    mail: Mailboxes,
}

#[derive(Debug, Default)]
struct Known {
    by_target: HashMap<Target, Weak<Endpoint>>,
    next_id: u32,
}

impl Endpoints {
    /// No targets yet; each will have at most `max_connections` connections over the node.
    pub fn new(max_connections: u32, health: HealthLimits, mail: Mailboxes) -> Self {
        Self {
            known: Mutex::default(),
            max_connections: max_connections.max(1),
            health,
            mail,
        }
    }

    /// The target of this key: the one that is in use, or a new one.
    pub fn resolve(&self, target: &Target) -> Arc<Endpoint> {
        let mut known = self
            .known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(endpoint) = known.by_target.get(target).and_then(Weak::upgrade) {
            return endpoint;
        }
        known.by_target.retain(|_, endpoint| endpoint.strong_count() > 0);
        let id = known.next_id;
        known.next_id = id.wrapping_add(1);
        let endpoint = Arc::new(Endpoint {
            target: target.clone(),
            health: Health::new(self.health, rt::now()),
            id,
            max: self.max_connections,
            in_use: AtomicU32::new(0),
            waiting: (0..self.mail.shards()).map(|_| AtomicBool::new(false)).collect(),
            waiters: AtomicU32::new(0),
            mail: self.mail.clone(),
        });
        known.by_target.insert(target.clone(), Arc::downgrade(&endpoint));
        endpoint
    }
}

impl Endpoint {
    /// Its number, as mail names it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Connections over the node, idle ones included.
    pub fn connections(&self) -> u32 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// A permit for one more connection, if there is one.
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        self.in_use
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |used| {
                (used < self.max).then_some(used + 1)
            })
            .ok()
            .map(|_| Permit {
                endpoint: Arc::clone(self),
            })
    }

    /// Notes that `shard` waits, so that the next freed permit is announced to it, and asks the others to close an
    /// idle connection. To be followed by one more [`Endpoint::try_acquire`]: a permit may have come in between.
    pub fn wait(&self, shard: usize) {
        let Some(flag) = self.waiting.get(shard) else {
            return;
        };
        if flag.swap(true, Ordering::SeqCst) {
            return;
        }
        self.waiters.fetch_add(1, Ordering::SeqCst);
        for other in (0..self.waiting.len()).filter(|&other| other != shard) {
            self.mail.send(other, ShardMessage::PermitWanted(self.id));
        }
    }

    /// Whether some shard has requests waiting for a permit.
    pub fn is_waited_for(&self) -> bool {
        self.waiters.load(Ordering::Relaxed) > 0
    }

    /// `shard` does not wait any more.
    pub fn stop_waiting(&self, shard: usize) -> bool {
        let waited = self
            .waiting
            .get(shard)
            .is_some_and(|flag| flag.swap(false, Ordering::SeqCst));
        if waited {
            self.waiters.fetch_sub(1, Ordering::SeqCst);
        }
        waited
    }

    fn release(&self) {
        self.in_use.fetch_sub(1, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return;
        }
        for shard in 0..self.waiting.len() {
            if self.stop_waiting(shard) {
                self.mail.send(shard, ShardMessage::PermitFreed(self.id));
                return;
            }
        }
    }
}

/// The right to one connection to a target. Given back when dropped.
#[derive(Debug)]
pub struct Permit {
    endpoint: Arc<Endpoint>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.endpoint.release();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HEALTH: HealthLimits = HealthLimits {
        failures: 5,
        time: Duration::from_secs(30),
        longest: Duration::from_secs(300),
        percent: 50,
    };

    fn target(port: u32) -> Target {
        Target::new("http", "127.0.0.1", port, false).unwrap()
    }

    #[test]
    fn permits_are_bounded_and_come_back() {
        let endpoints = Endpoints::new(2, HEALTH, Mailboxes::new(Vec::new()));
        let endpoint = endpoints.resolve(&target(80));
        let first = endpoint.try_acquire().unwrap();
        let _second = endpoint.try_acquire().unwrap();
        assert!(endpoint.try_acquire().is_none());
        drop(first);
        assert!(endpoint.try_acquire().is_some());
    }

    #[test]
    fn an_endpoint_is_shared_while_in_use() {
        let endpoints = Endpoints::new(2, HEALTH, Mailboxes::new(Vec::new()));
        let endpoint = endpoints.resolve(&target(80));
        assert!(Arc::ptr_eq(&endpoint, &endpoints.resolve(&target(80))));
        assert!(!Arc::ptr_eq(&endpoint, &endpoints.resolve(&target(81))));
        let id = endpoint.id();
        drop(endpoint);
        assert_ne!(endpoints.resolve(&target(80)).id(), id);
    }
}
