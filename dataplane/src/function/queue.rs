//! One function's invocations: those that wait for a worker, those that a worker has, and the workers that wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::{Bounds, Caller, Invocation, Outcome};

/// A connection of a worker.
pub(super) type ConnectionId = u64;

/// A worker's place among those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// What is said when a worker's result comes for an invocation that nobody waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown;

/// An invocation that has ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) invocation: Invocation,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    waiting: VecDeque<Invocation>,
    waiting_bytes: usize,
    held: HashMap<Arc<str>, Held>,
    /// Asynchronous invocations in any state, those that wait to be tried again included.
    events: usize,
    idle: VecDeque<(Ticket, Waker)>,
    tickets: u64,
    /// Workers that ask and find nothing are sent away.
    closing: bool,
}

#[derive(Debug)]
struct Held {
    invocation: Invocation,
    connection: ConnectionId,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            held: HashMap::new(),
            events: 0,
            idle: VecDeque::new(),
            tickets: 0,
            closing: false,
        }
    }

    /// Takes an invocation in. It comes back where there is no room.
    pub(super) fn push(&mut self, invocation: Invocation, now: Instant) -> Result<(), Box<Invocation>> {
        if self.is_full(&invocation) {
            self.forget_late(now);
            if self.is_full(&invocation) {
                return Err(Box::new(invocation));
            }
        }
        if let Caller::Nobody { failures: 0 } = invocation.caller {
            self.events += 1;
        }
        self.waiting_bytes += invocation.payload.len();
        self.waiting.push_back(invocation);
        self.wake();
        Ok(())
    }

    /// The next invocation for a worker; `Ready(None)`: ask another process. `ticket` keeps its place while it waits.
    pub(super) fn poll_next(
        &mut self,
        cx: &Context<'_>,
        ticket: &mut Option<Ticket>,
        connection: ConnectionId,
        now: Instant,
    ) -> Poll<Option<Invocation>> {
        while let Some(invocation) = self.waiting.pop_front() {
            self.waiting_bytes -= invocation.payload.len();
            if invocation.until <= now {
                self.ended(&invocation);
                continue;
            }
            self.leave(ticket);
            let held = Held {
                invocation: invocation.clone(),
                connection,
            };
            self.held.insert(Arc::clone(&invocation.id), held);
            return Poll::Ready(Some(invocation));
        }
        if self.closing {
            self.leave(ticket);
            return Poll::Ready(None);
        }
        let own = *ticket.get_or_insert_with(|| {
            self.tickets += 1;
            Ticket(self.tickets)
        });
        match self.idle.iter_mut().find(|(ticket, _)| *ticket == own) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => self.idle.push_back((own, cx.waker().clone())),
        }
        Poll::Pending
    }

    /// A worker that waited has gone, or has been served.
    pub(super) fn leave(&mut self, ticket: &mut Option<Ticket>) {
        let Some(own) = ticket.take() else { return };
        match self.idle.iter().position(|(ticket, _)| *ticket == own) {
            Some(at) => drop(self.idle.remove(at)),
            // It had been woken: another takes its place, if there is anything left to take.
            None if !self.waiting.is_empty() => self.wake(),
            None => {}
        }
    }

    /// A worker's result.
    pub(super) fn finish(&mut self, id: &str, outcome: Outcome) -> Result<Done, Unknown> {
        let held = self.held.remove(id).ok_or(Unknown)?;
        Ok(Done {
            invocation: held.invocation,
            outcome,
        })
    }

    /// The time of an invocation is over.
    pub(super) fn expire(&mut self, id: &str, after: Duration) -> Option<Done> {
        let error = json!({
            "errorType": "Sandbox.Timedout",
            "errorMessage": format!("RequestId: {id} Error: Task timed out after {:.2} seconds", after.as_secs_f64()),
        });
        self.finish(id, error_outcome(&error)).ok()
    }

    /// A worker's connection has ended: with it what the worker had in hand.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) -> Vec<Done> {
        let lost: Vec<_> = self
            .held
            .iter()
            .filter(|(_, held)| held.connection == connection)
            .map(|(id, _)| Arc::clone(id))
            .collect();
        let lost = lost.iter().filter_map(|id| {
            let error = json!({
                "errorType": "Runtime.ExitError",
                "errorMessage": format!("RequestId: {id} Error: Runtime exited without providing a reason"),
            });
            self.finish(id, error_outcome(&error)).ok()
        });
        lost.collect()
    }

    /// A worker could not start: the invocation that has waited longest fails with what it says.
    pub(super) fn failed_to_start(&mut self, error: Bytes, now: Instant) -> Option<Done> {
        self.forget_late(now);
        let invocation = self.waiting.pop_front()?;
        self.waiting_bytes -= invocation.payload.len();
        Some(Done {
            invocation,
            outcome: Outcome::Error(error),
        })
    }

    /// What comes of an invocation that failed and nobody waits for: whether it is to be tried again, and when.
    pub(super) fn again(&mut self, invocation: &mut Invocation, now: Instant) -> Option<Duration> {
        let Caller::Nobody { failures } = &mut invocation.caller else {
            return None;
        };
        *failures += 1;
        let delay = self.bounds.retry_delay * *failures;
        (*failures <= self.bounds.retries && now + delay < invocation.until).then_some(delay)
    }

    /// An invocation has ended for good.
    pub(super) fn ended(&mut self, invocation: &Invocation) {
        if let Caller::Nobody { .. } = invocation.caller {
            self.events = self.events.saturating_sub(1);
        }
    }

    /// Sends workers away: half of those that wait now, and who asks later when there is nothing for it.
    pub(super) fn close(&mut self) {
        self.closing = true;
        for _ in 0..self.idle.len().div_ceil(2) {
            self.wake();
        }
    }

    /// The function is gone: whatever has not ended ends so.
    pub(super) fn abandon(&mut self) -> Vec<Done> {
        self.closing = true;
        while !self.idle.is_empty() {
            self.wake();
        }
        self.waiting_bytes = 0;
        let held = self.held.drain().map(|(_, held)| held.invocation);
        let all = self.waiting.drain(..).chain(held);
        all.map(|invocation| Done {
            invocation,
            outcome: Outcome::Gone,
        })
        .collect()
    }

    fn is_full(&self, next: &Invocation) -> bool {
        let bytes = self.waiting_bytes + next.payload.len() > self.bounds.queue_bytes;
        // One is always taken.
        let bytes = bytes && !self.waiting.is_empty();
        match next.caller {
            Caller::Shard { .. } => bytes || self.waiting.len() >= self.bounds.queue + self.events,
            Caller::Nobody { failures: 0 } => bytes || self.events >= self.bounds.events,
            // It has its place among the events already.
            Caller::Nobody { .. } => false,
        }
    }

    /// Drops what nobody waits for any more.
    fn forget_late(&mut self, now: Instant) {
        let (late, kept): (VecDeque<_>, VecDeque<_>) = self
            .waiting
            .drain(..)
            .partition(|invocation| invocation.until <= now);
        self.waiting = kept;
        for invocation in late {
            self.waiting_bytes -= invocation.payload.len();
            self.ended(&invocation);
        }
    }

    fn wake(&mut self) {
        if let Some((_, waker)) = self.idle.pop_front() {
            waker.wake();
        }
    }
}

fn error_outcome(error: &serde_json::Value) -> Outcome {
    Outcome::Error(Bytes::from(error.to_string()))
}

#[cfg(test)]
mod tests {
    use tidegate_plan::Limits;

    use super::*;

    const WORKER: ConnectionId = 1;

    fn queue(change: impl FnOnce(&mut Bounds)) -> Queue {
        let mut bounds = Bounds::new(&Limits::default());
        change(&mut bounds);
        Queue::new(bounds)
    }

    fn invocation(id: &str, until: Instant, caller: Caller) -> Invocation {
        Invocation {
            id: id.into(),
            arn: "arn".into(),
            payload: Bytes::from_static(b"{}"),
            trace: None,
            client_context: None,
            until,
            caller,
        }
    }

    fn waited_for(id: &str, until: Instant) -> Invocation {
        invocation(id, until, Caller::Shard { shard: 0, call: 0 })
    }

    fn next(queue: &mut Queue, now: Instant) -> Option<String> {
        let cx = Context::from_waker(Waker::noop());
        match queue.poll_next(&cx, &mut None, WORKER, now) {
            Poll::Ready(invocation) => invocation.map(|invocation| invocation.id.to_string()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn workers_get_invocations_in_order_and_none_too_late() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut queue = queue(|_| {});
        for (id, until) in [("a", later), ("late", now), ("b", later)] {
            queue.push(waited_for(id, until), now).unwrap();
        }
        assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
        assert_eq!(next(&mut queue, now).as_deref(), Some("b"));
        assert_eq!(next(&mut queue, now), None);
        let done = queue.finish("b", Outcome::Result("x".into())).unwrap();
        assert_eq!(&*done.invocation.id, "b");
        // A second result, and one for what never was.
        assert_eq!(queue.finish("b", Outcome::Kept).unwrap_err(), Unknown);
        assert_eq!(queue.finish("c", Outcome::Kept).unwrap_err(), Unknown);
    }

    #[test]
    fn what_waits_is_bounded_and_late_ones_make_room() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut queue = queue(|bounds| bounds.queue = 2);
        queue
            .push(waited_for("a", now + Duration::from_millis(1)), now)
            .unwrap();
        queue.push(waited_for("b", later), now).unwrap();
        assert!(queue.push(waited_for("c", later), now).is_err());
        queue
            .push(waited_for("c", later), now + Duration::from_millis(1))
            .unwrap();
        let mut small = tests::queue(|bounds| bounds.queue_bytes = 3);
        small.push(waited_for("a", later), now).unwrap();
        assert!(small.push(waited_for("b", later), now).is_err());
        assert_eq!(next(&mut small, now).as_deref(), Some("a"));
        small.push(waited_for("b", later), now).unwrap();
    }

    /// A worker that dies with an invocation in hand fails it as the service would; one whose time is over, too.
    #[test]
    fn what_is_lost_fails() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut queue = queue(|_| {});
        for id in ["a", "b"] {
            queue.push(waited_for(id, later), now).unwrap();
        }
        next(&mut queue, now);
        assert!(queue.disconnected(WORKER + 1).is_empty());
        let lost = queue.disconnected(WORKER);
        assert_eq!(
            lost[0].outcome,
            Outcome::Error(
                r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: a Error: Runtime exited without providing a reason"}"#
                    .into()
            )
        );
        next(&mut queue, now);
        let late = queue.expire("b", Duration::from_millis(3000)).unwrap();
        assert_eq!(
            late.outcome,
            Outcome::Error(
                r#"{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: b Error: Task timed out after 3.00 seconds"}"#
                    .into()
            )
        );
        assert!(queue.expire("b", Duration::ZERO).is_none());
    }

    /// RES-153: asynchronous invocations are tried three times, and bounded.
    #[test]
    fn events_are_tried_again() {
        let now = Instant::now();
        let until = now + Duration::from_secs(3600);
        let event = |id| invocation(id, until, Caller::Nobody { failures: 0 });
        let mut queue = queue(|bounds| bounds.events = 1);
        queue.push(event("a"), now).unwrap();
        assert!(queue.push(event("b"), now).is_err());
        // Nor does an event take the room of those that somebody waits for.
        queue.push(waited_for("c", until), now).unwrap();
        let minute = Duration::from_secs(60);
        for delay in [Some(minute), Some(2 * minute), None] {
            let mut taken = loop {
                let id = next(&mut queue, now).unwrap();
                let done = queue.finish(&id, Outcome::Error("{}".into())).unwrap();
                if id == "a" {
                    break done.invocation;
                }
            };
            assert_eq!(queue.again(&mut taken, now), delay);
            match delay {
                Some(_) => queue.push(taken, now).unwrap(),
                None => queue.ended(&taken),
            }
        }
        queue.push(event("b"), now).unwrap();
        // One that is too old by then is not tried again.
        let mut old = invocation("d", now + minute, Caller::Nobody { failures: 0 });
        assert_eq!(queue.again(&mut old, now), None);
        let mut waited = waited_for("e", until);
        assert_eq!(queue.again(&mut waited, now), None);
    }

    #[test]
    fn workers_are_woken_one_an_invocation() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let count = Arc::new(Count(0.into()));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let woken = || count.0.swap(0, std::sync::atomic::Ordering::Relaxed);
        let mut queue = queue(|_| {});
        let mut tickets = [None, None, None];
        for ticket in &mut tickets {
            assert!(queue.poll_next(&cx, ticket, WORKER, now).is_pending());
        }
        queue.push(waited_for("a", later), now).unwrap();
        assert_eq!(woken(), 1);
        // The one that was woken leaves without having asked: another is woken in its place.
        queue.leave(&mut tickets[0]);
        assert_eq!(woken(), 1);
        assert!(queue.poll_next(&cx, &mut tickets[1], WORKER, now).is_ready());
        assert_eq!(tickets[1], None);
        // Another process takes over: the one that is left goes there.
        queue.close();
        assert_eq!(woken(), 1);
        assert!(matches!(
            queue.poll_next(&cx, &mut tickets[2], WORKER, now),
            Poll::Ready(None)
        ));
    }

    #[test]
    fn a_worker_that_cannot_start_fails_the_one_that_waits() {
        let now = Instant::now();
        let mut queue = queue(|_| {});
        assert!(queue.failed_to_start("{}".into(), now).is_none());
        queue
            .push(waited_for("a", now + Duration::from_secs(1)), now)
            .unwrap();
        let done = queue.failed_to_start("{}".into(), now).unwrap();
        assert_eq!(done.outcome, Outcome::Error("{}".into()));
        queue
            .push(waited_for("b", now + Duration::from_secs(1)), now)
            .unwrap();
        next(&mut queue, now);
        queue
            .push(waited_for("c", now + Duration::from_secs(1)), now)
            .unwrap();
        assert_eq!(queue.abandon().len(), 2);
    }
}
