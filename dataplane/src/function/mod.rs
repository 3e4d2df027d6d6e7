//! Functions whose workers ask for invocations: the Lambda Runtime API (RES-102; the Lambda guide's topic "Using the
//! Lambda runtime API for custom runtimes").
//!
//! ```text
//!  shard ── invocation ──> [server], a helper thread ── GET …/next ──> worker
//!  shard <── mail ───────  [queue], one a function   <── POST …/response
//! ```
//!
//! Each function has a listener of its own, as neither the protocol's paths nor its headers name one. Workers are
//! processes that anybody may start; `tidegate worker` does. An invocation that a worker has taken ends with the
//! worker's result, with the function's time, or with the worker's connection.

mod calls;
mod queue;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_plan::binding::{Function, FunctionKind};
use tidegate_plan::{Limit, Limits};
use tokio::sync::{mpsc, oneshot};

pub use calls::{Call, Calls, Pending};
pub use server::Worker;

use crate::config::Bindings;

/// One call of a function, on its way to a worker.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The invocation's request id.
    pub id: Arc<str>,
    /// The function, as it was called.
    pub arn: Arc<str>,
    /// The event.
    pub payload: Bytes,
    /// `X-Amzn-Trace-Id`.
    pub trace: Option<Arc<str>>,
    /// What the caller says of itself: the Invoke API's `X-Amz-Client-Context`, decoded.
    pub client_context: Option<Arc<str>>,
    /// No worker takes it later than this.
    pub until: Instant,
    /// Whom its outcome is told.
    pub caller: Caller,
}

/// Who waits for an invocation's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A request on a shard.
    Shard {
        /// Which shard.
        shard: usize,
        /// The call's number there.
        call: u64,
    },
    /// Nobody: the invocation is asynchronous. It has failed so often.
    Nobody {
        /// Failures.
        failures: u32,
    },
}

/// What came of an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The function's result.
    Result(Bytes),
    /// A function error: an object with `errorMessage` and `errorType` (RES-154, OBV-217).
    Error(Bytes),
    /// It is kept, and will be tried (RES-148).
    Kept,
    /// The function takes no more: too many wait.
    TooMany,
    /// There is no such function here, or not any more.
    Gone,
}

/// An outcome, as mailed to a shard.
#[derive(Debug)]
pub struct Reply {
    /// The call's number.
    pub call: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// Bounds of functions with workers, from the table of limits.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long an invocation runs where its function does not say.
    pub timeout: Duration,
    /// Synchronous invocations of one function that wait for a worker.
    pub queue: usize,
    /// Bytes of one function's events that wait for a worker.
    pub queue_bytes: usize,
    /// Asynchronous invocations of one function that have not ended.
    pub events: usize,
    /// How often an asynchronous invocation is tried again.
    pub retries: u32,
    /// Between the first try and the second; twice that before the third.
    pub retry_delay: Duration,
    /// How long an asynchronous invocation is kept.
    pub event_age: Duration,
    /// A worker's result.
    pub result_bytes: usize,
    /// Connections of all workers.
    pub connections: usize,
    /// Invocations on their way from the shards.
    pub calls: usize,
}

impl Bounds {
    /// The rows in force.
    pub fn new(limits: &Limits) -> Self {
        Self {
            timeout: limits.duration(Limit::FunctionTimeout),
            queue: limits.count(Limit::FunctionQueue),
            queue_bytes: limits.count(Limit::FunctionQueueBytes),
            events: limits.count(Limit::FunctionEvents),
            retries: u32::try_from(limits.get(Limit::FunctionEventRetries)).unwrap_or(u32::MAX),
            retry_delay: limits.duration(Limit::FunctionEventRetryDelay),
            event_age: limits.duration(Limit::FunctionEventAge),
            result_bytes: limits.count(Limit::FunctionResultBytes),
            connections: limits.count(Limit::FunctionConnections),
            calls: limits.count(Limit::FunctionCalls),
        }
    }
}

/// The way to the functions' thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Functions {
    orders: mpsc::Sender<Order>,
    event_age: Duration,
}

#[derive(Debug)]
enum Order {
    /// Listen for the workers of these functions, and no others.
    Listen(Vec<Arc<Function>>, oneshot::Sender<()>),
    /// The function of this binding is called.
    Invoke(Arc<Function>, Invocation),
    /// Another process takes over.
    Retire,
}

impl Functions {
    /// The functions and their thread's work, to be run on a thread of its own with [`Worker::run`].
    pub fn new(bounds: Bounds) -> (Self, Worker) {
        let (orders, inbox) = mpsc::channel(bounds.calls);
        let functions = Self {
            orders,
            event_age: bounds.event_age,
        };
        (functions, Worker::new(inbox, bounds))
    }

    /// Has the functions with workers listen, and those that are gone stop. Returns when that has been done or tried.
    pub async fn listen(&self, bindings: &Bindings) {
        let with_workers = bindings
            .functions()
            .filter(|function| matches!(function.kind, FunctionKind::Runtime(_)))
            .cloned()
            .collect();
        let (done, wait) = oneshot::channel();
        // The thread has ended: so will the node.
        if self.orders.send(Order::Listen(with_workers, done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// Gives up listening, for another process; workers that wait are shared with it.
    pub fn retire(&self) {
        let _ = self.orders.try_send(Order::Retire);
    }

    /// Gives an invocation to a function; `false` when too many are under way.
    fn invoke(&self, function: &Arc<Function>, invocation: Invocation) -> bool {
        let order = Order::Invoke(Arc::clone(function), invocation);
        self.orders.try_send(order).is_ok()
    }
}
