//! The nodes and how far each has come: the roll-out state (decision C2).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tidegate_proto::{admin::v1 as admin, config::v1 as config, telemetry::v1 as telemetry};
use tokio::sync::{mpsc, watch};

use super::session::Command;

/// The longest time [`Rollout::wait`] waits, whatever is asked for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Bundles refused that are kept for one node; more are counted by the node itself, in its log.
pub const REFUSALS_KEPT: usize = 256;

/// Commands that wait for a session to take them up.
const COMMANDS: usize = 16;

/// The nodes of the installation. Cheap to clone; all clones are one registry.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

/// How a caller waits until the connected nodes run a revision.
#[derive(Clone)]
pub struct Rollout {
    registry: Registry,
}

/// What is known of a node beyond its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Given at the join, stands in the certificate.
    pub id: String,
    /// For people; not unique.
    pub name: String,
    /// When the last certificate issued to it ends.
    pub certificate_expires: SystemTime,
}

/// A node's standing as a connected one; dropping it disconnects. Held by the node's stream.
pub struct Connection {
    registry: Registry,
    id: String,
    session: u64,
}

struct Inner {
    nodes: Mutex<Nodes>,
    /// The lowest revision that a connected node has acknowledged; `u64::MAX` when none is connected.
    lowest: watch::Sender<u64>,
}

#[derive(Default)]
struct Nodes {
    by_id: HashMap<String, Node>,
    /// How many connected nodes have acknowledged each revision: gives the lowest without a walk over 10,000 nodes.
    revisions: BTreeMap<u64, usize>,
    next_session: u64,
}

struct Node {
    record: NodeRecord,
    hello: Option<config::Hello>,
    /// The session that holds the stream; none: not connected.
    session: Option<u64>,
    /// The way to the session; dropping it ends the stream.
    commands: Option<mpsc::Sender<Command>>,
    revision: u64,
    refused: Vec<config::BundleOutcome>,
    last_seen: Option<SystemTime>,
    status: Option<telemetry::NodeStatus>,
}

// === impl Registry ===

impl Registry {
    /// A registry that knows the given nodes, none of them connected.
    pub fn new(records: impl IntoIterator<Item = NodeRecord>) -> Self {
        let by_id = records
            .into_iter()
            .map(|record| (record.id.clone(), Node::new(record)))
            .collect();
        let nodes = Nodes {
            by_id,
            ..Nodes::default()
        };
        Self {
            inner: Arc::new(Inner {
                nodes: Mutex::new(nodes),
                lowest: watch::channel(u64::MAX).0,
            }),
        }
    }

    /// Adds a node that has joined, or notes its newer certificate.
    pub fn admit(&self, record: NodeRecord) {
        let mut nodes = self.lock();
        match nodes.by_id.get_mut(&record.id) {
            Some(node) => node.record = record,
            None => {
                nodes.by_id.insert(record.id.clone(), Node::new(record));
            }
        }
    }

    /// Forgets a node: its stream ends and its certificate is refused from now on. `false`: there was none.
    pub fn remove(&self, id: &str) -> bool {
        let mut nodes = self.lock();
        let Some(node) = nodes.by_id.remove(id) else {
            return false;
        };
        if node.session.is_some() {
            nodes.leave(node.revision);
        }
        self.publish(&nodes);
        true
    }

    /// Whether the node may speak.
    pub fn knows(&self, id: &str) -> bool {
        self.lock().by_id.contains_key(id)
    }

    /// Registers the stream of a node that said hello; an older stream of the same node ends. `None`: no such node.
    ///
    /// Commands for the node come through the receiver; it ends when this stream is no longer the node's.
    pub(super) fn connect(
        &self,
        id: &str,
        hello: config::Hello,
    ) -> Option<(Connection, mpsc::Receiver<Command>)> {
        let mut guard = self.lock();
        let nodes = &mut *guard;
        nodes.next_session += 1;
        let session = nodes.next_session;
        let node = nodes.by_id.get_mut(id)?;
        let before = node.session.replace(session).map(|_| node.revision);
        let (sender, commands) = mpsc::channel(COMMANDS);
        node.commands = Some(sender);
        node.revision = hello.revision;
        node.refused = hello.missing.clone();
        node.refused.truncate(REFUSALS_KEPT);
        node.last_seen = Some(SystemTime::now());
        node.hello = Some(hello);
        let revision = node.revision;
        if let Some(before) = before {
            nodes.leave(before);
        }
        *nodes.revisions.entry(revision).or_default() += 1;
        self.publish(nodes);
        Some((
            Connection {
                registry: self.clone(),
                id: id.to_owned(),
                session,
            },
            commands,
        ))
    }

    /// The ways to connected nodes: to the one of this id or name, or to all of them in no order.
    pub(super) fn commands(&self, node: Option<&str>) -> Vec<(String, mpsc::Sender<Command>)> {
        let nodes = self.lock();
        nodes
            .by_id
            .values()
            .filter(|known| {
                node.is_none_or(|wanted| known.record.id == wanted || known.record.name == wanted)
            })
            .filter_map(|known| Some((known.record.id.clone(), known.commands.clone()?)))
            .collect()
    }

    /// The ids of the connected nodes.
    pub fn connected(&self) -> Vec<String> {
        let nodes = self.lock();
        nodes
            .by_id
            .values()
            .filter(|node| node.session.is_some())
            .map(|node| node.record.id.clone())
            .collect()
    }

    /// Every registered node, by name and id.
    pub fn list(&self) -> Vec<admin::Node> {
        let nodes = self.lock();
        let mut list: Vec<_> = nodes.by_id.values().map(Node::describe).collect();
        list.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        list
    }

    /// Where connected nodes say that they answer, HTTP and HTTPS; the first by name that says so.
    pub fn addresses(&self) -> (Option<String>, Option<String>) {
        let nodes = self.lock();
        let mut hellos: Vec<_> = nodes
            .by_id
            .values()
            .filter(|node| node.session.is_some())
            .filter_map(|node| node.hello.as_ref())
            .collect();
        hellos.sort_by(|a, b| (&a.node_name, &a.node_id).cmp(&(&b.node_name, &b.node_id)));
        let first = |address: fn(&config::Hello) -> &String| {
            hellos
                .iter()
                .map(|hello| address(hello))
                .find(|address| !address.is_empty())
                .cloned()
        };
        (
            first(|hello| &hello.http_address),
            first(|hello| &hello.https_address),
        )
    }

    /// The lowest revision that a connected node has acknowledged; the highest number there is when none is connected.
    pub fn lowest(&self) -> watch::Receiver<u64> {
        self.inner.lowest.subscribe()
    }

    /// The means to wait for a revision.
    pub fn rollout(&self) -> Rollout {
        Rollout {
            registry: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Nodes> {
        // Nothing under this lock panics half-way through a change.
        self.inner.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, nodes: &Nodes) {
        let lowest = nodes.revisions.keys().next().copied().unwrap_or(u64::MAX);
        self.inner
            .lowest
            .send_if_modified(|value| std::mem::replace(value, lowest) != lowest);
    }
}

// === impl Rollout ===

impl Rollout {
    /// Returns when every connected node has acknowledged `revision`, or after `patience`, with each node's outcome.
    ///
    /// `complete` says that each connected node runs it: none lags and none has a bundle that it refused. With no node
    /// connected it is complete at once: whoever connects later begins with it.
    pub async fn wait(&self, revision: u64, patience: Duration) -> admin::Rollout {
        let mut lowest = self.registry.inner.lowest.subscribe();
        let reached = lowest.wait_for(|lowest| *lowest >= revision);
        // An elapsed wait is not a failure: the state below says who lags.
        let _ = tokio::time::timeout(patience.min(LONGEST_WAIT), reached).await;
        self.state(revision)
    }

    /// How far a revision has come right now.
    pub fn state(&self, revision: u64) -> admin::Rollout {
        let nodes = self.registry.lock();
        let mut list: Vec<_> = nodes
            .by_id
            .values()
            .filter(|node| node.session.is_some())
            .map(|node| admin::NodeRollout {
                node_id: node.record.id.clone(),
                node_name: node.record.name.clone(),
                revision: node.revision,
                refused: node.refused.clone(),
            })
            .collect();
        list.sort_by(|a, b| (&a.node_name, &a.node_id).cmp(&(&b.node_name, &b.node_id)));
        let complete = list
            .iter()
            .all(|node| node.revision >= revision && node.refused.is_empty());
        admin::Rollout {
            revision,
            complete,
            nodes: list,
        }
    }
}

// === impl Connection ===

impl Connection {
    /// The node has handled everything up to `ack.revision`, but for what it refused.
    pub fn acknowledge(&self, ack: config::Ack) {
        let mut guard = self.registry.lock();
        let nodes = &mut *guard;
        let Some(node) = nodes.session(self) else { return };
        let before = std::mem::replace(&mut node.revision, ack.revision);
        node.last_seen = Some(SystemTime::now());
        node.refused = ack.outcomes;
        node.refused.truncate(REFUSALS_KEPT);
        nodes.leave(before);
        *nodes.revisions.entry(ack.revision).or_default() += 1;
        self.registry.publish(nodes);
    }

    /// The node reports of itself.
    pub fn report(&self, status: telemetry::NodeStatus) {
        let mut nodes = self.registry.lock();
        if let Some(node) = nodes.session(self) {
            node.last_seen = Some(SystemTime::now());
            node.status = Some(status);
        }
    }

    /// The node is as good as at this revision: nothing in between concerns it.
    pub(super) fn advance(&self, revision: u64) {
        let mut guard = self.registry.lock();
        let nodes = &mut *guard;
        let Some(node) = nodes.session(self) else { return };
        let before = std::mem::replace(&mut node.revision, revision);
        nodes.leave(before);
        *nodes.revisions.entry(revision).or_default() += 1;
        self.registry.publish(nodes);
    }

    /// The node's id.
    pub fn node_id(&self) -> &str {
        &self.id
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut guard = self.registry.lock();
        let nodes = &mut *guard;
        let Some(node) = nodes.session(self) else { return };
        node.session = None;
        node.commands = None;
        let revision = node.revision;
        nodes.leave(revision);
        self.registry.publish(nodes);
    }
}

// === impl Nodes ===

impl Nodes {
    /// The node, if this connection is still the one that speaks for it.
    fn session(&mut self, connection: &Connection) -> Option<&mut Node> {
        self.by_id
            .get_mut(&connection.id)
            .filter(|node| node.session == Some(connection.session))
    }

    fn leave(&mut self, revision: u64) {
        if let Some(count) = self.revisions.get_mut(&revision) {
            *count -= 1;
            if *count == 0 {
                self.revisions.remove(&revision);
            }
        }
    }
}

impl Node {
    fn new(record: NodeRecord) -> Self {
        Self {
            record,
            hello: None,
            session: None,
            commands: None,
            revision: 0,
            refused: Vec::new(),
            last_seen: None,
            status: None,
        }
    }

    fn describe(&self) -> admin::Node {
        let hello = self.hello.clone().unwrap_or_default();
        admin::Node {
            id: self.record.id.clone(),
            name: self.record.name.clone(),
            connected: self.session.is_some(),
            version: hello.version,
            driver: hello.driver,
            shards: hello.shards,
            revision: self.revision,
            refused: self.refused.clone(),
            last_seen: self.last_seen.map(timestamp),
            certificate_expires: Some(timestamp(self.record.certificate_expires)),
            labels: hello.labels,
            status: self.status.clone(),
        }
    }
}

fn timestamp(time: SystemTime) -> pbjson_types::Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    pbjson_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(ids: &[&str]) -> Registry {
        Registry::new(ids.iter().map(|id| NodeRecord {
            id: (*id).to_owned(),
            name: format!("name-{id}"),
            certificate_expires: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
        }))
    }

    fn at(revision: u64) -> config::Hello {
        config::Hello {
            revision,
            ..Default::default()
        }
    }

    fn ack(revision: u64) -> config::Ack {
        config::Ack {
            revision,
            outcomes: Vec::new(),
        }
    }

    /// C2: with nobody connected there is nobody to wait for.
    #[tokio::test]
    async fn no_node_is_a_complete_rollout() {
        let rollout = registry(&["a"]).rollout().wait(5, Duration::from_secs(60)).await;
        assert!(rollout.complete);
        assert!(rollout.nodes.is_empty());
    }

    /// C2: the wait ends with the last connected node's acknowledgement.
    #[tokio::test]
    async fn the_last_acknowledgement_ends_the_wait() {
        let registry = registry(&["a", "b"]);
        let (a, _commands) = registry.connect("a", at(1)).unwrap();
        let (b, _commands) = registry.connect("b", at(1)).unwrap();
        let rollout = registry.rollout();
        let wait = tokio::spawn(async move { rollout.wait(2, Duration::from_secs(60)).await });
        a.acknowledge(ack(2));
        assert!(!registry.rollout().state(2).complete);
        b.acknowledge(ack(3));
        let outcome = wait.await.unwrap();
        assert!(outcome.complete);
        assert_eq!(
            outcome.nodes.iter().map(|node| node.revision).collect::<Vec<_>>(),
            [2, 3]
        );
    }

    /// C2: after the wait each node's revision stands in the answer.
    #[tokio::test]
    async fn the_wait_ends_in_time_and_names_who_lags() {
        let registry = registry(&["a", "b"]);
        let (a, _commands) = registry.connect("a", at(0)).unwrap();
        let (_b, _commands) = registry.connect("b", at(1)).unwrap();
        a.acknowledge(ack(2));
        let outcome = registry.rollout().wait(2, Duration::ZERO).await;
        assert!(!outcome.complete);
        assert_eq!(
            outcome.nodes.iter().map(|node| node.revision).collect::<Vec<_>>(),
            [2, 1]
        );
    }

    /// C1, C2: a refusal is an acknowledgement with the bundle's name: nobody waits, and it is not complete.
    #[tokio::test]
    async fn a_refused_bundle_is_told_at_once() {
        let registry = registry(&["a"]);
        let (a, _commands) = registry.connect("a", at(0)).unwrap();
        let refused = config::BundleOutcome {
            id: "x/prod".into(),
            refusal: "sha-256".into(),
            ..Default::default()
        };
        a.acknowledge(config::Ack {
            revision: 2,
            outcomes: vec![refused.clone()],
        });
        let outcome = registry.rollout().wait(2, Duration::from_secs(60)).await;
        assert!(!outcome.complete);
        assert_eq!(outcome.nodes[0].refused, [refused]);
        a.acknowledge(ack(3));
        assert!(registry.rollout().state(3).complete);
    }

    /// C2: a node that leaves is not waited for any longer.
    #[tokio::test]
    async fn a_node_that_leaves_ends_the_wait() {
        let registry = registry(&["a"]);
        let (a, _commands) = registry.connect("a", at(1)).unwrap();
        let rollout = registry.rollout();
        let wait = tokio::spawn(async move { rollout.wait(2, Duration::from_secs(60)).await });
        drop(a);
        assert!(wait.await.unwrap().complete);
        assert!(!registry.list()[0].connected);
    }

    /// A second stream of one node replaces the first, whose end then changes nothing.
    #[tokio::test]
    async fn a_newer_stream_replaces_the_older() {
        let registry = registry(&["a"]);
        let (old, mut old_commands) = registry.connect("a", at(1)).unwrap();
        let (new, mut new_commands) = registry.connect("a", at(4)).unwrap();
        assert!(old_commands.recv().await.is_none());
        old.acknowledge(ack(9));
        drop(old);
        assert_eq!(registry.rollout().state(4).nodes[0].revision, 4);
        assert!(registry.remove("a"));
        assert!(new_commands.recv().await.is_none());
        drop(new);
        assert!(registry.connect("a", at(1)).is_none());
        assert!(!registry.knows("a"));
    }
}
