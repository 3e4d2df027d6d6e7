//! What the node asks of its configuration thread when another process takes over (D17).
//!
//! A frozen thread reads nothing from its stream and writes nothing to disk, but keeps the stream open: the control plane
//! goes on waiting for this node, and whoever takes over opens a stream of its own, which ends this one. Two processes of
//! one node so never answer the control plane in turn.

use std::sync::mpsc as answers;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::limit::Level;

/// What the disk holds when the thread froze.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// Whose configuration it is.
    pub installation: String,
    /// Up to which revision all of it is there.
    pub revision: u64,
}

/// An order, and where its answer goes. Answers go to a thread that may wait for them.
#[derive(Debug)]
pub(super) enum Order {
    /// Stop taking configuration and let go of the disk.
    Freeze(answers::Sender<Frozen>),
    /// The levels of at most so many limits.
    Levels(usize, answers::Sender<Vec<Level>>),
    /// Put limits to these levels.
    Restore(Vec<Level>, answers::Sender<()>),
    /// Go on, or begin: take the disk where it was let go of, then follow the control plane.
    Thaw(answers::Sender<()>),
}

/// The configuration thread's inbox.
pub(super) type Orders = mpsc::UnboundedReceiver<Order>;

/// Gives orders to the configuration thread. Clones give them to the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: mpsc::UnboundedSender<Order>,
}

/// The configuration thread does not answer: it has ended, or is busy for longer than anyone should wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration thread is busy or has ended; try again")]
pub struct NoAnswer;

// === impl Handle ===

impl Handle {
    pub(super) fn new() -> (Self, Orders) {
        // One order is under way at a time: whoever gives one waits for its answer.
        let (orders, inbox) = mpsc::unbounded_channel();
        (Self { orders }, inbox)
    }

    /// Has the thread take no more configuration and let go of the disk.
    ///
    /// # Errors
    /// When it does not answer in `patience`; it then does not stay frozen either.
    pub fn freeze(&self, patience: Duration) -> Result<Frozen, NoAnswer> {
        self.ask(patience, Order::Freeze)
    }

    /// The levels of the limits that are not full, at most so many.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn levels(&self, most: usize, patience: Duration) -> Result<Vec<Level>, NoAnswer> {
        self.ask(patience, |answer| Order::Levels(most, answer))
    }

    /// Puts limits to levels that they had in another process.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn restore(&self, levels: Vec<Level>, patience: Duration) -> Result<(), NoAnswer> {
        self.ask(patience, |answer| Order::Restore(levels, answer))
    }

    /// Has the thread go on after [`Handle::freeze`], or begin where it was started frozen.
    ///
    /// # Errors
    /// When it does not answer; it goes on all the same, when it can.
    pub fn thaw(&self, patience: Duration) -> Result<(), NoAnswer> {
        self.ask(patience, Order::Thaw)
    }

    fn ask<T>(
        &self,
        patience: Duration,
        order: impl FnOnce(answers::Sender<T>) -> Order,
    ) -> Result<T, NoAnswer> {
        let (answer, answered) = answers::channel();
        self.orders.send(order(answer)).map_err(|_| NoAnswer)?;
        answered.recv_timeout(patience).map_err(|_| NoAnswer)
    }
}
