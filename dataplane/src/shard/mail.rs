//! What the rest of the process may say to the shards.
//!
//! One bounded mailbox a shard. Who sends finds a full mailbox out at once and decides what that means; a shard never
//! waits for a sender, nor a sender for a shard (decision D6).

use std::net::TcpListener;
use std::sync::{Arc, mpsc};

use tidegate_rt as rt;

use crate::config::{ConfigMessage, SendError, ShardSink};
use crate::function::Reply;
use crate::net::dns::Resolved;
use crate::shard::Protocol;

/// Messages that a shard's mailbox holds. Configuration comes one message at a time, names and permits one a target.
pub const MAILBOX_CAPACITY: usize = 4_096;

/// A message to one shard.
#[derive(Debug)]
pub enum ShardMessage {
    /// From the configuration thread: new content, a probe, a flush.
    Config(ConfigMessage),
    /// Accept connections from these, too.
    Listen(Vec<(TcpListener, Protocol)>),
    /// Accept no more, from any listener. The shard says its number when the last accept under way has come back and what
    /// it brought is being served, and has settled its credits.
    Pause(mpsc::Sender<usize>),
    /// Another process has taken over: end every connection after its current or next response. Idle ones stay until then,
    /// so that no request meets a connection that is being closed.
    Retire,
    /// Close the listeners and idle connections; end the others after their current response.
    Drain,
    /// The time for draining is over: end every connection now.
    Stop,
    /// The answer to a name that this shard asked for.
    Resolved(Resolved),
    /// What came of an invocation that this shard asked for.
    Invoked(Reply),
    /// A connection permit of the target with this number is free, and this shard had a request waiting for one.
    PermitFreed(u32),
    /// Another shard waits for a permit of this target: close an idle connection, if there is one.
    PermitWanted(u32),
}

/// The way in to every shard. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mailboxes {
    senders: Arc<[rt::mail::Sender<ShardMessage>]>,
}

impl Mailboxes {
    /// Mailboxes over one sender a shard, in shard order.
    pub fn new(senders: Vec<rt::mail::Sender<ShardMessage>>) -> Self {
        Self {
            senders: senders.into(),
        }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.senders.len()
    }

    /// Sends one message to one shard; `false` when its mailbox is full or the shard is gone.
    pub fn send(&self, shard: usize, message: ShardMessage) -> bool {
        self.senders
            .get(shard)
            .is_some_and(|sender| sender.send(message).is_ok())
    }

    /// Gives every shard its listeners.
    pub fn listen(&self, listeners: Vec<Vec<(TcpListener, Protocol)>>) {
        for (shard, listeners) in listeners.into_iter().enumerate() {
            self.send(shard, ShardMessage::Listen(listeners));
        }
    }

    /// Tells every shard to pause; each answers with its number.
    pub fn pause(&self) -> mpsc::Receiver<usize> {
        let (told, tell) = mpsc::channel();
        for shard in 0..self.shards() {
            self.send(shard, ShardMessage::Pause(told.clone()));
        }
        tell
    }

    /// Tells every shard to retire.
    pub fn retire(&self) {
        for shard in 0..self.shards() {
            self.send(shard, ShardMessage::Retire);
        }
    }

    /// Tells every shard to drain.
    pub fn drain(&self) {
        for shard in 0..self.shards() {
            self.send(shard, ShardMessage::Drain);
        }
    }

    /// Tells every shard to end its connections now.
    pub fn stop(&self) {
        for shard in 0..self.shards() {
            self.send(shard, ShardMessage::Stop);
        }
    }
}

impl ShardSink for Mailboxes {
    fn shards(&self) -> usize {
        self.senders.len()
    }

    fn send(&self, shard: usize, message: ConfigMessage) -> Result<(), SendError> {
        let Some(sender) = self.senders.get(shard) else {
            return Err(SendError::Gone);
        };
        sender
            .send(ShardMessage::Config(message))
            .map_err(|full| match full.0 {
                ShardMessage::Config(message) => SendError::Full(message),
                _ => SendError::Gone,
            })
    }
}
