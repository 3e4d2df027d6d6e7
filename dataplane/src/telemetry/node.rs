//! What a node counts about itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tidegate_proto::telemetry::v1::NodeStatus;

use super::histogram::bump;

/// A number that only goes up. Written by one thread, read by any.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only from the owning thread.
    pub fn add(&self, by: u64) {
        bump(&self.0, by);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down. Written by one thread, read by any.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// One more; only from the owning thread.
    pub fn increment(&self) {
        bump(&self.0, 1);
    }

    /// One less; only from the owning thread.
    pub fn decrement(&self) {
        self.set(self.get().saturating_sub(1));
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One shard's own numbers. The shard sets them as things happen, or once a turn.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// Requests answered, whether an API was found for them or not. [`Shard::record`](super::Shard::record)
    /// counts them.
    pub requests: Counter,
    /// Client connections accepted.
    pub accepted: Counter,
    /// Client connections open.
    pub connections: Gauge,
    /// Requests begun and not finished.
    pub in_flight: Gauge,
    /// Connections closed for want of a PROXY protocol header that counts.
    pub proxy_header_failures: Counter,
    /// Times that a listener stood at the bound of connections.
    pub connections_held: Counter,
    /// Idle connections that were closed to make room.
    pub connections_yielded: Counter,
    /// Accepts and TLS handshakes that waited for their turn.
    pub newcomers_delayed: Counter,
    /// Requests answered 503 because too many waited.
    pub overload_answered: Counter,
    /// Requests that got no answer because there was no time even for a 503.
    pub overload_closed: Counter,
    /// TLS handshakes that failed.
    pub handshake_failures: Counter,
    /// Connections that speak HTTP/2.
    pub http2_connections: Counter,
    /// HTTP/2 streams accepted.
    pub http2_streams: Counter,
    /// HTTP/2 connections ended because the client flooded them (ENHANCE_YOUR_CALM).
    pub http2_floods: Counter,
    /// Exchanges that have become tunnels.
    pub tunnels: Counter,
    /// Connections made to backends.
    pub upstream_connects: Counter,
    /// Connections to backends that could not be made.
    pub upstream_connect_failures: Counter,
    /// Ejections of backends' addresses, each found by this shard.
    pub upstream_ejections: Counter,
    /// Backend connections that carry a request.
    pub upstream_active: Gauge,
    /// Backend connections kept for the next request.
    pub upstream_idle: Gauge,
    /// Bytes of pool buffers in use.
    pub pool_used_bytes: Gauge,
    /// Bytes of pool buffers kept for use.
    pub pool_free_bytes: Gauge,
    /// Sends to clients and backends. Shared, so that the runtime can count into it.
    pub sends: Arc<AtomicU64>,
    /// Panics caught, each of which ended one connection (D7). Shared, so that the runtime can count into it.
    pub panics: Arc<AtomicU64>,
}

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The program's version.
    pub version: String,
    /// The I/O driver in use: `uring-defer`, `uring-coop` or `epoll`.
    pub driver: String,
    /// Differs at every start.
    pub boot_id: String,
}

/// The node's own state and its shards' numbers.
#[derive(Debug)]
pub struct Node {
    info: NodeInfo,
    started: Instant,
    started_unix_seconds: u64,
    shards: Vec<Arc<ShardCounters>>,
    /// Set once the node has joined.
    id: Mutex<String>,
    revision: AtomicU64,
    draining: AtomicBool,
    blockers: Mutex<Vec<(&'static str, String)>>,
}

impl Node {
    /// A node that has just started.
    pub(super) fn new(info: NodeInfo, shards: usize) -> Node {
        Node {
            info,
            started: Instant::now(),
            started_unix_seconds: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            shards: (0..shards).map(|_| Arc::default()).collect(),
            id: Mutex::default(),
            revision: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            blockers: Mutex::new(Vec::new()),
        }
    }

    /// What does not change.
    pub fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// When the process began, seconds since 1970.
    pub(super) fn started_unix_seconds(&self) -> u64 {
        self.started_unix_seconds
    }

    /// The shards' numbers, in order.
    pub fn shards(&self) -> &[Arc<ShardCounters>] {
        &self.shards
    }

    /// The id the control plane gave this node.
    pub fn set_id(&self, id: &str) {
        id.clone_into(&mut self.id.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Every shard runs the configuration up to this revision.
    pub fn set_revision(&self, revision: u64) {
        self.revision.store(revision, Ordering::Relaxed);
    }

    /// The revision in force.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// The node takes no new connections any more.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the node is on its way out.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Makes the node not ready for a reason, in words for an operator; `name` is what it is lifted by. Blocking
    /// again replaces the reason.
    pub fn block(&self, name: &'static str, reason: impl Into<String>) {
        let mut blockers = self.blockers();
        blockers.retain(|(known, _)| *known != name);
        blockers.push((name, reason.into()));
    }

    /// Lifts what [`block`](Self::block) set.
    pub fn unblock(&self, name: &str) {
        self.blockers().retain(|(known, _)| *known != name);
    }

    /// Why the node is not ready; empty where it is.
    pub fn not_ready_because(&self) -> Vec<String> {
        let draining = self
            .draining()
            .then(|| "draining: finishing what was begun, taking nothing new".to_owned());
        let blockers = self.blockers();
        draining
            .into_iter()
            .chain(blockers.iter().map(|(name, reason)| format!("{name}: {reason}")))
            .collect()
    }

    fn blockers(&self) -> std::sync::MutexGuard<'_, Vec<(&'static str, String)>> {
        self.blockers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the node reports to the control plane.
    pub fn status(&self) -> NodeStatus {
        let sum = |of: fn(&ShardCounters) -> u64| self.shards.iter().map(|shard| of(shard)).sum();
        NodeStatus {
            node_id: self.id.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            boot_id: self.info.boot_id.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: self.not_ready_because().is_empty(),
            draining: self.draining(),
            revision: self.revision(),
            connections: sum(|shard| shard.connections.get()),
            requests_total: sum(|shard| shard.requests.get()),
            panics_total: sum(|shard| shard.panics.load(Ordering::Relaxed)),
            rss_bytes: resident_bytes().unwrap_or(0),
        }
    }
}

/// Memory of the process that is in RAM; unknown where /proc is not mounted.
pub(super) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let info = NodeInfo {
            version: "0.1.0".into(),
            driver: "epoll".into(),
            boot_id: "b00t".into(),
        };
        Node::new(info, 2)
    }

    #[test]
    fn readiness_says_why_not() {
        let node = node();
        assert!(node.not_ready_because().is_empty());
        node.block("configuration", "nothing on disk");
        node.block("configuration", "waiting for the control plane at 127.0.0.1:7001");
        node.block("shards", "0 of 2 run");
        assert_eq!(
            node.not_ready_because(),
            [
                "configuration: waiting for the control plane at 127.0.0.1:7001",
                "shards: 0 of 2 run"
            ]
        );
        node.unblock("configuration");
        node.unblock("shards");
        assert!(node.status().ready);
        node.set_draining();
        assert!(!node.status().ready && node.status().draining);
    }

    #[test]
    fn the_status_sums_the_shards() {
        let node = node();
        node.set_id("n1");
        node.set_revision(42);
        for shard in node.shards() {
            shard.connections.increment();
            shard.connections.increment();
            shard.connections.decrement();
            shard.requests.add(10);
            shard.panics.fetch_add(1, Ordering::Relaxed);
        }
        let status = node.status();
        assert_eq!(
            (status.node_id.as_str(), status.boot_id.as_str(), status.revision),
            ("n1", "b00t", 42)
        );
        assert_eq!(
            (status.connections, status.requests_total, status.panics_total),
            (2, 20, 2)
        );
        assert!(status.rss_bytes > 100_000);
    }
}
