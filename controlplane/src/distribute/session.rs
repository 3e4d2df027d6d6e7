//! One node's stream.
//!
//! Nothing is queued for a node but a few commands. What it is to get is computed when it can take it, from the revision
//! it acknowledged; at most one delta is on its way. So a slow node holds two chunks of memory, and several changes
//! reach it as one.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tidegate_proto::config::v1::{
    self as config, ControlMessage, NodeMessage, control_message, node_message,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tonic::{Status, Streaming};

use super::{
    bundles::Bundles,
    feed::{Feed, Reader},
    registry::Connection,
    source::BundleKey,
    tickets::Ring,
};
use crate::{model::Refusal, store::Store};

/// Chunks that wait between a session and its connection.
pub(super) const OUTBOUND: usize = 2;
/// Commands that wait for an answer on one stream.
const PENDING_MAX: usize = 256;
/// Commands that wait to be sent on one stream.
const URGENT_MAX: usize = 16;
/// How long a node may take nothing before its stream is ended; it comes back and goes on from where it is.
const STALLED: Duration = Duration::from_secs(60);
/// How long a node may work on one delta: a first one with 100,000 APIs takes a while to build.
const UNACKNOWLEDGED: Duration = Duration::from_secs(600);
/// Revisions that change nothing on a node are told to it only now and then, so that its disk does not fall too far
/// behind what is still known of changes.
const SILENT_MAX: u64 = 10_000;

/// A command for a node.
pub(super) struct Command {
    /// The command; its id is set by the session.
    pub(super) message: control_message::Message,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// A node's answer to a command.
pub(super) enum Reply {
    Probe(config::ProbeResult),
    Flush(config::FlushResult),
}

/// What a session works with.
pub(super) struct Session {
    pub(super) store: Arc<dyn Store>,
    pub(super) bundles: Arc<Bundles>,
    pub(super) reader: Reader,
    pub(super) connection: Connection,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) outbound: mpsc::Sender<Result<ControlMessage, Status>>,
    /// The keys of session tickets, for a node that answers HTTPS.
    pub(super) tickets: Option<watch::Receiver<Arc<Ring>>>,
    pub(super) stopping: watch::Receiver<bool>,
}

/// Where a session stands.
struct State {
    /// What the node has, as it said.
    acknowledged: u64,
    /// What its disk has: silent steps are not told to it.
    told: u64,
    feed: Option<Feed>,
    chunk: Option<config::Delta>,
    /// The revision whose acknowledgement is awaited.
    awaited: Option<u64>,
    /// The node lacks the newest ticket keys.
    tickets_due: bool,
    urgent: VecDeque<ControlMessage>,
    pending: HashMap<String, oneshot::Sender<Reply>>,
    commands_given: u64,
    /// When the node must have taken what is to be sent.
    send_by: Instant,
    /// When the node must have acknowledged.
    acknowledge_by: Instant,
}

// === impl Session ===

impl Session {
    /// Serves the node until it leaves, is replaced, or fails.
    pub(super) async fn run(mut self, inbound: Streaming<NodeMessage>, from: u64, missing: Vec<BundleKey>) {
        if let Err(status) = self.converse(inbound, from, missing).await {
            tracing::info!(
                node = self.connection.node_id(),
                reason = status.message(),
                "the node's stream ends"
            );
            // Full: then the node does not read, and learns from the closed stream.
            let _ = self.outbound.try_send(Err(status));
        }
    }

    async fn converse(
        &mut self,
        mut inbound: Streaming<NodeMessage>,
        from: u64,
        missing: Vec<BundleKey>,
    ) -> Result<(), Status> {
        let mut revisions = self.store.revisions();
        let until = *revisions.borrow_and_update();
        let mut state = State {
            acknowledged: from,
            told: from,
            feed: Some(self.feed(from, until, missing).await?),
            chunk: None,
            awaited: None,
            tickets_due: self.tickets.is_some(),
            urgent: VecDeque::new(),
            pending: HashMap::new(),
            commands_given: 0,
            send_by: Instant::now() + STALLED,
            acknowledge_by: Instant::now() + UNACKNOWLEDGED,
        };
        loop {
            if state.chunk.is_none()
                && let Some(feed) = &mut state.feed
            {
                state.chunk = feed.next().await.map_err(failed)?;
                if state.chunk.is_none() {
                    state.feed = None;
                }
            }
            // Before the next delta: whoever turned the keys over and then waits for a roll-out has waited for both.
            state.tickets_due |= self
                .tickets
                .as_ref()
                .is_some_and(|ring| ring.has_changed().unwrap_or(false));
            let has_output = state.chunk.is_some() || !state.urgent.is_empty() || state.tickets_due;
            let idle = state.feed.is_none() && state.awaited.is_none();
            tokio::select! {
                message = inbound.message() => match message? {
                    Some(NodeMessage { message: Some(message) }) => self.hear(&mut state, message)?,
                    Some(NodeMessage { message: None }) => {}
                    None => return Ok(()),
                },
                permit = self.outbound.reserve(), if has_output => {
                    let Ok(permit) = permit else { return Ok(()) };
                    state.send_by = Instant::now() + STALLED;
                    let keys = self.tickets.as_mut().filter(|_| std::mem::take(&mut state.tickets_due));
                    permit.send(Ok(match keys {
                        Some(ring) => told(&ring.borrow_and_update()),
                        None => state.next_message(),
                    }));
                }
                command = self.commands.recv(),
                    if state.urgent.len() < URGENT_MAX && state.pending.len() < PENDING_MAX =>
                {
                    let superseded = || Status::aborted("the node was removed, or has opened another stream");
                    let command = command.ok_or_else(superseded)?;
                    if !has_output {
                        state.send_by = Instant::now() + STALLED;
                    }
                    state.take(command);
                }
                () = changed(&self.tickets), if !state.tickets_due => {
                    state.tickets_due = true;
                    if !has_output {
                        state.send_by = Instant::now() + STALLED;
                    }
                }
                changed = revisions.changed(), if idle => {
                    changed.map_err(|_| Status::unavailable("the control plane is stopping"))?;
                    let until = *revisions.borrow_and_update();
                    self.go_on(&mut state, until).await?;
                }
                () = async { drop(self.stopping.wait_for(|stopping| *stopping).await) } => {
                    return Err(Status::unavailable("the control plane is stopping"));
                }
                () = sleep_until(state.send_by), if has_output => {
                    return Err(Status::deadline_exceeded("the node takes no messages"));
                }
                () = sleep_until(state.acknowledge_by), if state.awaited.is_some() => {
                    return Err(Status::deadline_exceeded("the node does not acknowledge what it got"));
                }
            }
        }
    }

    /// Begins the next delta, unless it would be empty.
    async fn go_on(&self, state: &mut State, until: u64) -> Result<(), Status> {
        let feed = self.feed(state.acknowledged, until, Vec::new()).await?;
        if feed.is_empty() && feed.to() - state.told < SILENT_MAX {
            state.acknowledged = feed.to();
            self.connection.advance(feed.to());
            return Ok(());
        }
        state.send_by = Instant::now() + STALLED;
        state.feed = Some(feed);
        Ok(())
    }

    fn hear(&self, state: &mut State, message: node_message::Message) -> Result<(), Status> {
        use node_message::Message;
        match message {
            Message::Hello(_) => return Err(Status::invalid_argument("Hello is said once")),
            Message::Ack(ack) => {
                if state.awaited != Some(ack.revision) {
                    return Err(Status::invalid_argument(format!(
                        "revision {} is not awaited",
                        ack.revision
                    )));
                }
                state.awaited = None;
                state.acknowledged = ack.revision;
                state.told = ack.revision;
                for outcome in &ack.outcomes {
                    tracing::warn!(
                        node = self.connection.node_id(),
                        bundle = outcome.id,
                        revision = outcome.revision,
                        reason = outcome.refusal,
                        "a node refuses a bundle and keeps its old content"
                    );
                }
                self.connection.acknowledge(ack);
            }
            Message::ProbeResult(result) => {
                if let Some(reply) = state.pending.remove(&result.id) {
                    let _ = reply.send(Reply::Probe(result));
                }
            }
            Message::FlushResult(result) => {
                if let Some(reply) = state.pending.remove(&result.id) {
                    let _ = reply.send(Reply::Flush(result));
                }
            }
            Message::Status(status) => {
                self.connection.report(status);
                // Whoever gave up waiting for an answer does not hold a place.
                state.pending.retain(|_, reply| !reply.is_closed());
            }
            // Left unacknowledged: the node keeps its counts until a control plane takes them.
            Message::Usage(_) => {}
        }
        Ok(())
    }

    async fn feed(&self, from: u64, until: u64, missing: Vec<BundleKey>) -> Result<Feed, Status> {
        let installation = self.store.installation();
        Feed::new(
            self.bundles.clone(),
            self.reader.clone(),
            installation,
            from,
            until,
            missing,
        )
        .await
        .map_err(failed)
    }
}

// === impl State ===

impl State {
    /// What goes out next; asked only when there is something.
    fn next_message(&mut self) -> ControlMessage {
        if let Some(command) = self.urgent.pop_front() {
            return command;
        }
        let delta = self.chunk.take().unwrap_or_default();
        if delta.last {
            self.awaited = Some(delta.to_revision);
            self.acknowledge_by = Instant::now() + UNACKNOWLEDGED;
            self.feed = None;
        }
        ControlMessage {
            message: Some(control_message::Message::Delta(delta)),
        }
    }

    fn take(&mut self, command: Command) {
        use control_message::Message;
        self.commands_given += 1;
        let id = self.commands_given.to_string();
        let message = match command.message {
            Message::Probe(probe) => Message::Probe(config::Probe {
                id: id.clone(),
                ..probe
            }),
            Message::Flush(flush) => Message::Flush(config::Flush {
                id: id.clone(),
                ..flush
            }),
            other => other,
        };
        self.pending.insert(id, command.reply);
        self.urgent.push_back(ControlMessage {
            message: Some(message),
        });
    }
}

/// When there are other ticket keys than were sent.
async fn changed(tickets: &Option<watch::Receiver<Arc<Ring>>>) {
    let ended = match tickets {
        // Marks nothing as seen: that is for when they are sent.
        Some(ring) => ring.clone().changed().await.is_err(),
        None => true,
    };
    // Never again.
    if ended {
        std::future::pending().await
    }
}

fn told(ring: &Ring) -> ControlMessage {
    ControlMessage {
        message: Some(control_message::Message::TicketKeys(ring.message())),
    }
}

fn failed(refusal: Refusal) -> Status {
    tracing::error!(error = refusal.message, "cannot compute what a node has to get");
    Status::unavailable(refusal.message)
}
