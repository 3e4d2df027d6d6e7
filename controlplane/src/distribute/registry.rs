//! The nodes and how far each has come: the roll-out state (decision C2).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tidegate_proto::{admin::v1 as admin, config::v1 as config, telemetry::v1 as telemetry};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, timeout, timeout_at},
};

use super::session::Command;

/// The longest time [`Rollout::wait`] waits, whatever is asked for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Bundles refused that are kept for one node; more are counted by the node itself, in its log.
pub const REFUSALS_KEPT: usize = 256;

/// How long a node that is away is told of in roll-outs.
pub const AWAY_TOLD: Duration = Duration::from_secs(24 * 3_600);

/// Commands that wait for a session to take them up.
const COMMANDS: usize = 16;

/// How long after the start of a control plane the nodes that were connected to the one before are waited for: nodes try
/// again every 10 seconds at the latest.
const RETURN: Duration = Duration::from_secs(15);

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
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRecord {
    /// Given at the join, stands in the certificate.
    pub id: String,
    /// For people; not unique.
    pub name: String,
    /// When the last certificate issued to it ends.
    pub certificate_expires: SystemTime,
    /// How it stood when it was last looked at; none: it has never been connected.
    pub standing: Option<Standing>,
}

/// What outlives the control plane of a node's last connection. A node that is killed together with the control plane may
/// have come further than this says, never less far.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// What it said of itself; addresses, version, labels.
    pub hello: config::Hello,
    /// The revision that it acknowledged.
    pub revision: u64,
    /// When it was last heard of.
    pub last_seen: SystemTime,
    /// It was connected.
    pub connected: bool,
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
    /// How many nodes were connected to the control plane before this one and have not come back.
    missing: watch::Sender<usize>,
    /// Until when these are waited for.
    return_by: Instant,
    /// Nodes came or went: their standing is to be kept soon.
    moved: Notify,
}

#[derive(Default)]
struct Nodes {
    by_id: HashMap<String, Node>,
    /// Ids of those that were connected before this control plane began.
    missing: HashSet<String>,
    /// Ids of those whose standing differs from what was last kept.
    unkept: HashSet<String>,
    /// How many connected nodes have acknowledged each revision: gives the lowest without a walk over 10,000 nodes.
    revisions: BTreeMap<u64, usize>,
    next_session: u64,
}

struct Node {
    id: String,
    name: String,
    certificate_expires: SystemTime,
    /// What it said when it last connected, to this control plane or one before.
    hello: Option<config::Hello>,
    /// The session that holds the stream; none: not connected.
    session: Option<u64>,
    /// The way to the session; dropping it ends the stream.
    commands: Option<mpsc::Sender<Command>>,
    revision: u64,
    refused: Vec<config::BundleOutcome>,
    last_seen: Option<SystemTime>,
    /// Since when it is away, where it ever was connected.
    left: Option<SystemTime>,
    status: Option<telemetry::NodeStatus>,
}

// === impl Registry ===

impl Registry {
    /// A registry that knows the given nodes, none of them connected.
    pub fn new(records: impl IntoIterator<Item = NodeRecord>) -> Self {
        Self::awaiting(records, RETURN)
    }

    fn awaiting(records: impl IntoIterator<Item = NodeRecord>, patience: Duration) -> Self {
        let mut nodes = Nodes::default();
        for record in records {
            if record
                .standing
                .as_ref()
                .is_some_and(|standing| standing.connected)
            {
                nodes.missing.insert(record.id.clone());
            }
            nodes.by_id.insert(record.id.clone(), Node::new(record));
        }
        Self {
            inner: Arc::new(Inner {
                lowest: watch::channel(u64::MAX).0,
                missing: watch::channel(nodes.missing.len()).0,
                return_by: Instant::now() + patience,
                moved: Notify::new(),
                nodes: Mutex::new(nodes),
            }),
        }
    }

    /// Adds a node that has joined, or notes its newer certificate.
    pub fn admit(&self, record: NodeRecord) {
        let mut nodes = self.lock();
        match nodes.by_id.get_mut(&record.id) {
            Some(node) => {
                node.name = record.name;
                node.certificate_expires = record.certificate_expires;
            }
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
        nodes.missing.remove(id);
        nodes.unkept.remove(id);
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
        nodes.missing.remove(id);
        nodes.unkept.insert(id.to_owned());
        self.publish(nodes);
        self.inner.moved.notify_one();
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
            .filter(|known| node.is_none_or(|wanted| known.id == wanted || known.name == wanted))
            .filter_map(|known| Some((known.id.clone(), known.commands.clone()?)))
            .collect()
    }

    /// The ids of the connected nodes.
    pub fn connected(&self) -> Vec<String> {
        let nodes = self.lock();
        nodes
            .by_id
            .values()
            .filter(|node| node.session.is_some())
            .map(|node| node.id.clone())
            .collect()
    }

    /// Every registered node, by name and id.
    pub fn list(&self) -> Vec<admin::Node> {
        let nodes = self.lock();
        let mut list: Vec<_> = nodes.by_id.values().map(Node::describe).collect();
        list.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        list
    }

    /// Where nodes say that they answer, HTTP and HTTPS: the first connected one by name that says so, else the one that
    /// left last.
    pub fn addresses(&self) -> (Option<String>, Option<String>) {
        let nodes = self.lock();
        let mut known: Vec<_> = nodes
            .by_id
            .values()
            .filter_map(|node| Some((node, node.hello.as_ref()?)))
            .collect();
        known.sort_by(|(a, _), (b, _)| match (a.session, b.session) {
            (None, None) => b.left.cmp(&a.left),
            (a_connected, b_connected) => b_connected
                .is_some()
                .cmp(&a_connected.is_some())
                .then_with(|| (&a.name, &a.id).cmp(&(&b.name, &b.id))),
        });
        let first = |address: fn(&config::Hello) -> &String| {
            known
                .iter()
                .map(|(_, hello)| address(hello))
                .find(|address| !address.is_empty())
                .cloned()
        };
        (
            first(|hello| &hello.http_address),
            first(|hello| &hello.https_address),
        )
    }

    /// Waits until a node comes or goes.
    pub(super) async fn moved(&self) {
        self.inner.moved.notified().await;
    }

    /// Nodes whose standing is to be kept, at most so many; they count as kept.
    pub(super) fn take_unkept(&self, most: usize) -> Vec<NodeRecord> {
        let mut guard = self.lock();
        let nodes = &mut *guard;
        let ids: Vec<String> = nodes.unkept.iter().take(most).cloned().collect();
        ids.iter()
            .filter_map(|id| {
                nodes.unkept.remove(id);
                nodes.by_id.get(id).map(Node::record)
            })
            .collect()
    }

    /// These could not be kept: they are offered again.
    pub(super) fn not_kept(&self, records: &[NodeRecord]) {
        let mut nodes = self.lock();
        nodes
            .unkept
            .extend(records.iter().map(|record| record.id.clone()));
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
        let missing = nodes.missing.len();
        self.inner
            .missing
            .send_if_modified(|value| std::mem::replace(value, missing) != missing);
    }
}

// === impl Rollout ===

impl Rollout {
    /// Returns when every connected node has acknowledged `revision`, or after `patience`, with each node's outcome.
    ///
    /// `complete` says that each connected node runs it: none lags and none has a bundle that it refused. With no node
    /// connected it is complete at once: whoever connects later begins with it. Shortly after the start of a control
    /// plane the nodes that were connected to the one before are waited for as well, because they are on their way back.
    pub async fn wait(&self, revision: u64, patience: Duration) -> admin::Rollout {
        let inner = &self.registry.inner;
        let (mut lowest, mut missing) = (inner.lowest.subscribe(), inner.missing.subscribe());
        let reached = async {
            let returned = missing.wait_for(|missing| *missing == 0);
            // Who has not come back by then is away like any other.
            let _ = timeout_at(inner.return_by, returned).await;
            lowest.wait_for(|lowest| *lowest >= revision).await.is_ok()
        };
        // An elapsed wait is not a failure: the state below says who lags.
        let _ = timeout(patience.min(LONGEST_WAIT), reached).await;
        self.state(revision)
    }

    /// How far a revision has come right now.
    pub fn state(&self, revision: u64) -> admin::Rollout {
        let now = SystemTime::now();
        let nodes = self.registry.lock();
        let mut list: Vec<_> = nodes
            .by_id
            .values()
            .filter(|node| node.session.is_some() || node.left_of_late(now))
            .map(|node| admin::NodeRollout {
                node_id: node.id.clone(),
                node_name: node.name.clone(),
                revision: node.revision,
                refused: node.refused.clone(),
                away: node.session.is_none(),
                last_seen: node.last_seen.map(timestamp),
            })
            .collect();
        list.sort_by(|a, b| (&a.node_name, &a.node_id).cmp(&(&b.node_name, &b.node_id)));
        let complete = list
            .iter()
            .all(|node| node.away || (node.revision >= revision && node.refused.is_empty()));
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
        nodes.unkept.insert(self.id.clone());
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
        node.last_seen = Some(SystemTime::now());
        node.left = node.last_seen;
        let revision = node.revision;
        nodes.leave(revision);
        nodes.unkept.insert(self.id.clone());
        self.registry.publish(nodes);
        self.registry.inner.moved.notify_one();
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
        let standing = record.standing;
        let last_seen = standing.as_ref().map(|standing| standing.last_seen);
        // Who was connected until the last control plane ended is away from now on.
        let left = match &standing {
            Some(standing) if standing.connected => Some(SystemTime::now()),
            _ => last_seen,
        };
        Self {
            id: record.id,
            name: record.name,
            certificate_expires: record.certificate_expires,
            session: None,
            commands: None,
            revision: standing.as_ref().map_or(0, |standing| standing.revision),
            hello: standing.map(|standing| standing.hello),
            refused: Vec::new(),
            last_seen,
            left,
            status: None,
        }
    }

    fn record(&self) -> NodeRecord {
        NodeRecord {
            id: self.id.clone(),
            name: self.name.clone(),
            certificate_expires: self.certificate_expires,
            standing: self.hello.clone().map(|hello| Standing {
                hello,
                revision: self.revision,
                last_seen: self.last_seen.unwrap_or(SystemTime::UNIX_EPOCH),
                connected: self.session.is_some(),
            }),
        }
    }

    fn left_of_late(&self, now: SystemTime) -> bool {
        // A clock that was set back makes it no older.
        self.left
            .is_some_and(|left| now.duration_since(left).unwrap_or_default() <= AWAY_TOLD)
    }

    fn describe(&self) -> admin::Node {
        let hello = self.hello.clone().unwrap_or_default();
        admin::Node {
            id: self.id.clone(),
            name: self.name.clone(),
            connected: self.session.is_some(),
            version: hello.version,
            driver: hello.driver,
            shards: hello.shards,
            revision: self.revision,
            refused: self.refused.clone(),
            last_seen: self.last_seen.map(timestamp),
            certificate_expires: Some(timestamp(self.certificate_expires)),
            labels: hello.labels,
            status: self.status.clone(),
            http_address: hello.http_address,
            https_address: hello.https_address,
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
            standing: None,
        }))
    }

    /// Another control plane's registry, of what the first one kept.
    fn again(registry: &Registry, patience: Duration) -> Registry {
        let nodes = registry.lock();
        Registry::awaiting(nodes.by_id.values().map(Node::record), patience)
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
        let outcome = wait.await.unwrap();
        assert!(outcome.complete);
        // It is told of, as what it is.
        assert!(outcome.nodes[0].away);
        assert_eq!(outcome.nodes[0].revision, 1);
        assert!(!registry.list()[0].connected);
    }

    /// C2: what is complete says nothing of nodes that are away, which are named with what they last ran, for a day.
    #[tokio::test]
    async fn nodes_that_are_away_are_named() {
        let registry = registry(&["a", "b", "never"]);
        let (a, _commands) = registry.connect("a", at(4)).unwrap();
        let (b, _commands) = registry.connect("b", at(4)).unwrap();
        drop(b);
        a.acknowledge(ack(5));
        let outcome = registry.rollout().state(5);
        assert!(outcome.complete);
        let told: Vec<_> = outcome
            .nodes
            .iter()
            .map(|node| (node.node_id.as_str(), node.revision, node.away))
            .collect();
        assert_eq!(told, [("a", 5, false), ("b", 4, true)]);
        let long_ago = SystemTime::now() - AWAY_TOLD - Duration::from_secs(1);
        registry.lock().by_id.get_mut("b").unwrap().left = Some(long_ago);
        assert_eq!(registry.rollout().state(5).nodes.len(), 1);
    }

    /// C2: addresses outlive the control plane, and a change waits for the nodes that are on their way back.
    #[tokio::test]
    async fn a_restart_remembers_and_waits_for_those_who_return() {
        let before = registry(&["a", "b"]);
        let hello = |address: &str| config::Hello {
            http_address: address.into(),
            ..at(4)
        };
        let (_a, _commands) = before.connect("a", hello("127.0.0.1:1")).unwrap();
        let (b, _commands) = before.connect("b", hello("127.0.0.1:2")).unwrap();
        drop(b);

        let after = again(&before, Duration::from_secs(3_600));
        assert_eq!(after.addresses().0.as_deref(), Some("127.0.0.1:1"), "left last");
        let (b, _commands) = after.connect("b", hello("127.0.0.1:2")).unwrap();
        assert_eq!(after.addresses().0.as_deref(), Some("127.0.0.1:2"), "connected");
        drop(b);
        let rollout = after.rollout();
        let wait = tokio::spawn(async move { rollout.wait(5, Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        assert!(!wait.is_finished(), "a was connected and is waited for");
        let (a, _commands) = after.connect("a", hello("127.0.0.1:1")).unwrap();
        a.acknowledge(ack(5));
        let outcome = wait.await.unwrap();
        assert!(outcome.complete && outcome.nodes[1].away, "{outcome:?}");

        // Who does not come back is away like any other, after a while.
        drop(a);
        let (_a, _commands) = after.connect("a", at(5)).unwrap();
        let third = again(&after, Duration::ZERO);
        let outcome = third.rollout().wait(6, Duration::from_secs(60)).await;
        assert!(outcome.complete && outcome.nodes.iter().all(|node| node.away));
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
