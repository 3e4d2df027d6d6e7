//! What passes between the configuration thread and the shards.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tidegate_proto::config::v1 as proto;
use tokio::sync::oneshot;

use super::bindings::Bindings;
use super::build::{Certificate, Settings};
use super::live::Stage;
use crate::limit::LimitIndex;

/// The way from the configuration thread to the shards' mailboxes. Implemented by the shards' side.
pub trait ShardSink: Send + Sync + 'static {
    /// How many shards there are; fixed for the life of the process.
    fn shards(&self) -> usize;

    /// Puts a message into one shard's mailbox. Never blocks.
    fn send(&self, shard: usize, message: ConfigMessage) -> Result<(), SendError>;
}

/// Why a mailbox did not take a message.
pub enum SendError {
    /// The mailbox is full: the message comes back and may be sent again.
    Full(ConfigMessage),
    /// The shard has ended; the node is going down.
    Gone,
}

/// What the configuration thread asks of a shard.
pub enum ConfigMessage {
    /// Switch to new content. Every shard gets it.
    Apply(Apply),
    /// Run one request and say what happened. One shard gets it.
    Probe(ProbeCall),
    /// Empty a cache. One shard gets it and sees to it that all follow.
    Flush(FlushCall),
}

/// New content for a shard, to be taken over between two requests.
///
/// A request in flight keeps the `Arc` it began with. The configuration thread keeps another clone of whatever is
/// replaced until no shard holds one, so that large plans are never dropped on a shard.
pub struct Apply {
    /// In order: a later change of the same thing wins.
    pub changes: Arc<[Change]>,
    /// To be confirmed when this shard runs the new content. Dropping it unconfirmed tells that the shard failed.
    pub confirmation: Confirmation,
}

/// One bundle's worth of change.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// A stage is new or has new content.
    Stage(Arc<Stage>),
    /// A stage is gone.
    StageRemoved {
        /// The API's id.
        api_id: Arc<str>,
        /// The stage's name.
        name: Arc<str>,
    },
    /// A certificate is new or was replaced.
    Certificate(Arc<Certificate>),
    /// A certificate is gone.
    CertificateRemoved {
        /// Its id.
        id: Arc<str>,
    },
    /// The installation's settings.
    Settings(Arc<Settings>),
    /// Where cloud names lead; all of them.
    Bindings(Arc<Bindings>),
    /// Limits that nothing names any more: their indexes may come again for others.
    LimitsForgotten(Arc<[LimitIndex]>),
}

/// A request to be run outside of traffic.
pub struct ProbeCall {
    /// What to run.
    pub probe: Box<proto::Probe>,
    /// The probe's ephemeral bundle, built. It is never routable.
    pub stage: Option<Arc<Stage>>,
    /// Where the outcome goes. A dropped sender is reported as an error.
    pub reply: oneshot::Sender<proto::ProbeResult>,
}

/// A cache to be emptied.
pub struct FlushCall {
    /// Which.
    pub flush: Box<proto::Flush>,
    /// Where the outcome goes. A dropped sender is reported as an error.
    pub reply: oneshot::Sender<proto::FlushResult>,
}

/// One shard's share of a countdown: the last confirmation resolves the receiver of [`confirmation`].
pub struct Confirmation {
    countdown: Arc<Countdown>,
}

/// A countdown over `shards` confirmations. The receiver resolves when each was confirmed, and fails when one was dropped.
pub fn confirmation(shards: usize) -> (Vec<Confirmation>, oneshot::Receiver<()>) {
    let (done, receiver) = oneshot::channel();
    let countdown = Arc::new(Countdown {
        open: AtomicUsize::new(shards),
        done: std::sync::Mutex::new(Some(done)),
    });
    let shares = (0..shards)
        .map(|_| Confirmation {
            countdown: countdown.clone(),
        })
        .collect();
    if shards == 0 {
        countdown.finish();
    }
    (shares, receiver)
}

struct Countdown {
    open: AtomicUsize,
    // Taken once, by the last confirmation: never contended.
    done: std::sync::Mutex<Option<oneshot::Sender<()>>>,
}

impl Confirmation {
    /// This shard runs the new content.
    pub fn confirm(self) {
        if self.countdown.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.countdown.finish();
        }
    }
}

impl Countdown {
    fn finish(&self) {
        let sender = self
            .done
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(sender) = sender {
            let _ = sender.send(());
        }
    }
}

impl fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirmation")
            .field("open", &self.countdown.open)
            .finish()
    }
}

impl fmt::Debug for ConfigMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apply(apply) => write!(f, "Apply({} changes)", apply.changes.len()),
            Self::Probe(call) => write!(f, "Probe({})", call.probe.id),
            Self::Flush(call) => write!(f, "Flush({})", call.flush.id),
        }
    }
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(message) => write!(f, "Full({message:?})"),
            Self::Gone => f.write_str("Gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C2: the countdown is over when every shard confirmed, and not before.
    #[tokio::test]
    async fn the_last_confirmation_ends_the_countdown() {
        let (mut shares, mut done) = confirmation(3);
        shares.pop().unwrap().confirm();
        shares.pop().unwrap().confirm();
        assert!(done.try_recv().is_err());
        shares.pop().unwrap().confirm();
        assert!(done.await.is_ok());
    }

    /// C2: a shard that dies with a confirmation in hand fails the countdown at once, it does not hang it.
    #[tokio::test]
    async fn a_dropped_confirmation_fails_the_countdown() {
        let (mut shares, done) = confirmation(2);
        shares.pop().unwrap().confirm();
        drop(shares);
        assert!(done.await.is_err());
    }
}
