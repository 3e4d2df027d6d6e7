//! A shard's calls of functions with workers that have not been answered.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use tidegate_plan::binding::Function;

use super::{Caller, Functions, Invocation, Outcome, Reply};

/// A shard's side of the functions' thread.
#[derive(Debug)]
pub struct Calls {
    functions: Functions,
    shard: usize,
    next: Cell<u64>,
    open: RefCell<HashMap<u64, State, ahash::RandomState>>,
}

#[derive(Debug)]
enum State {
    Waiting(Waker),
    Done(Outcome),
}

/// A call that waits for its outcome. Dropping it gives up waiting; the function may run all the same.
#[derive(Debug)]
pub struct Pending<'c> {
    calls: &'c Calls,
    call: u64,
}

/// What is called, and with what.
#[derive(Debug)]
pub struct Call {
    /// The invocation's request id.
    pub id: Arc<str>,
    /// The function, as it was called.
    pub arn: Arc<str>,
    /// The event.
    pub payload: Bytes,
    /// `X-Amzn-Trace-Id`.
    pub trace: Option<Arc<str>>,
    /// What the caller says of itself.
    pub client_context: Option<Arc<str>>,
}

impl Calls {
    /// No calls yet, of this shard.
    pub fn new(functions: Functions, shard: usize) -> Self {
        Self {
            functions,
            shard,
            next: Cell::new(0),
            open: RefCell::default(),
        }
    }

    /// Calls a function; a worker that comes free after `until` does not take it. `None`: too many calls are under way.
    pub fn call(&self, function: &Arc<Function>, call: Call, until: Instant) -> Option<Pending<'_>> {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let caller = Caller::Shard {
            shard: self.shard,
            call: number,
        };
        let invocation = call.by(caller, until);
        if !self.functions.invoke(function, invocation) {
            return None;
        }
        self.open
            .borrow_mut()
            .insert(number, State::Waiting(Waker::noop().clone()));
        Some(Pending {
            calls: self,
            call: number,
        })
    }

    /// Calls a function asynchronously (RES-148); `false`: too many calls are under way. Whether the function keeps the
    /// event is not waited for: the bound of events is in its log.
    pub fn send(&self, function: &Arc<Function>, call: Call, now: Instant) -> bool {
        let until = now + self.functions.event_age;
        let invocation = call.by(Caller::Nobody { failures: 0 }, until);
        self.functions.invoke(function, invocation)
    }

    /// Takes an outcome in.
    pub fn settle(&self, reply: Reply) {
        let mut open = self.open.borrow_mut();
        // Nobody may wait any more.
        let Some(state) = open.get_mut(&reply.call) else {
            return;
        };
        if let State::Waiting(waker) = std::mem::replace(state, State::Done(reply.outcome)) {
            drop(open);
            waker.wake();
        }
    }
}

impl Call {
    fn by(self, caller: Caller, until: Instant) -> Invocation {
        Invocation {
            id: self.id,
            arn: self.arn,
            payload: self.payload,
            trace: self.trace,
            client_context: self.client_context,
            until,
            caller,
        }
    }
}

impl Future for Pending<'_> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut open = self.calls.open.borrow_mut();
        match open.get_mut(&self.call) {
            Some(State::Waiting(waker)) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            Some(State::Done(outcome)) => Poll::Ready(outcome.clone()),
            // It is there until this is dropped.
            None => Poll::Ready(Outcome::Gone),
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.calls.open.borrow_mut().remove(&self.call);
    }
}
