//! What a shard does when more comes than it can serve (decision D16): whoever is connected goes before whoever wants to
//! be, and saying no costs little.
//!
//! | Over which bound | What happens |
//! | --- | --- |
//! | connections of a shard | no more are accepted; connections that have been idle for a while are closed to make room |
//! | time for newcomers | accepting and TLS handshakes wait while there are requests to serve |
//! | requests that wait for a backend | 503 and an end; beyond the time for that, an end without an answer |

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidegate_rt as rt;
use tidegate_rt::Instant;

use super::Shard;

/// Time that may be taken in advance: a few handshakes of clients that happen to come together.
const HEADWAY: Duration = Duration::from_millis(5);

/// What accepting a connection and ending it again costs, apart from TLS: an estimate on the high side.
pub(super) const ACCEPT_COST: Duration = Duration::from_micros(30);

/// How long a connection has at least for the first byte of its first request.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// How soon connections are asked for their place again after too few were idle: asking costs a look at each of them.
const AGAIN: Duration = Duration::from_millis(250);

/// In nanoseconds.
const PERCENT_OF_A_SECOND: i64 = 10_000_000;

/// What a refused request costs besides its answer: to receive and route it, to send, to close. Mostly the kernel's part.
const REFUSED_COST: Duration = Duration::from_micros(30);

/// Places that are wanted of connections which do not need theirs.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Listeners that wait for a place.
    held: Cell<usize>,
    /// How many connections were asked for and have not been found.
    left: Cell<usize>,
    asked: Cell<Option<Instant>>,
}

impl Wanted {
    /// Whether a connection that can do without its place is to give it up.
    pub(super) fn any(&self) -> bool {
        self.left.get() > 0 && self.held.get() > 0
    }

    /// Notes that a connection gives its place up.
    pub(super) fn found(&self) {
        self.left.set(self.left.get().saturating_sub(1));
    }

    /// A listener begins to wait for a place.
    pub(super) fn hold(&self) {
        self.held.set(self.held.get() + 1);
    }

    /// A listener has its place.
    pub(super) fn release(&self) {
        self.held.set(self.held.get().saturating_sub(1));
    }

    /// Whether connections are to be asked for so many places: not when they were a moment ago and had too few.
    pub(super) fn ask(&self, count: usize, now: Instant) -> bool {
        if self.left.get() > 0 && self.asked.get().is_some_and(|asked| now < asked + AGAIN) {
            return false;
        }
        self.left.set(count);
        self.asked.set(Some(now));
        true
    }

    /// When to ask again at the latest.
    pub(super) fn again(&self, now: Instant) -> Instant {
        self.asked.get().unwrap_or(now) + AGAIN
    }
}

/// Shares a shard's time between those who come and those who are there.
///
/// Accepting and handshakes charge what they cost. Once they have had their share, they queue; a few are let in at a
/// time, each time after the kernel was asked for what the others have to do, and only when enough time has passed or
/// nothing else was done meanwhile. So a storm of handshakes takes all the time that nobody else wants, and no more than
/// its share of the rest.
#[derive(Debug)]
pub(super) struct Newcomers {
    /// In percent of the shard's time; 0: only what nobody else wants.
    share: u32,
    a_turn: usize,
    debt: Cell<Duration>,
    as_of: Cell<Instant>,
    queue: RefCell<VecDeque<(u64, Waker)>>,
    last_ticket: Cell<u64>,
    /// Tickets up to this one are let in.
    called: Cell<u64>,
    usher: RefCell<Option<Waker>>,
}

/// A newcomer's place in the queue.
#[derive(Debug, Default)]
pub(super) struct Place(Option<u64>);

impl Newcomers {
    /// For a share in percent; `a_turn` are let in at a time.
    pub(super) fn new(share: u64, a_turn: usize, now: Instant) -> Self {
        let share = u32::try_from(share).unwrap_or(100).min(100);
        Self {
            share,
            a_turn: a_turn.max(1),
            debt: Cell::new(Duration::ZERO),
            as_of: Cell::new(now),
            queue: RefCell::default(),
            last_ticket: Cell::new(0),
            called: Cell::new(0),
            usher: RefCell::default(),
        }
    }

    /// Ready when it is this newcomer's turn.
    pub(super) fn poll_turn(&self, cx: &Context<'_>, place: &mut Place) -> Poll<()> {
        match place.0 {
            Some(ticket) if ticket <= self.called.get() => {
                place.0 = None;
                Poll::Ready(())
            }
            Some(_) => Poll::Pending,
            None if self.queue.borrow().is_empty() && !self.in_debt(rt::now()) => Poll::Ready(()),
            None => {
                let ticket = self.last_ticket.get() + 1;
                self.last_ticket.set(ticket);
                place.0 = Some(ticket);
                self.queue.borrow_mut().push_back((ticket, cx.waker().clone()));
                if let Some(usher) = self.usher.borrow_mut().take() {
                    usher.wake();
                }
                Poll::Pending
            }
        }
    }

    /// Whether this newcomer had to queue.
    pub(super) fn waits(&self, place: &Place) -> bool {
        place.0.is_some_and(|ticket| ticket > self.called.get())
    }

    /// Notes what a newcomer cost.
    pub(super) fn charge(&self, cost: Duration, now: Instant) {
        self.settle(now);
        self.debt.set(self.debt.get() + self.worth(cost));
    }

    /// Nobody else wants the time: what newcomers had of it beyond their share is not held against them later.
    fn forgive(&self) {
        self.debt.set(self.debt.get().min(self.worth(HEADWAY)));
    }

    fn in_debt(&self, now: Instant) -> bool {
        self.settle(now);
        self.share == 0 || self.debt.get() > self.worth(HEADWAY)
    }

    /// The time of which this cost is the share.
    fn worth(&self, cost: Duration) -> Duration {
        cost * 100 / self.share.max(1)
    }

    fn settle(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.as_of.replace(now));
        self.debt.set(self.debt.get().saturating_sub(passed));
    }

    fn poll_queued(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.queue.borrow().is_empty() {
            return Poll::Ready(());
        }
        *self.usher.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn call_next(&self) {
        let next: Vec<_> = {
            let mut queue = self.queue.borrow_mut();
            let count = queue.len().min(self.a_turn);
            queue.drain(..count).collect()
        };
        if let Some((ticket, _)) = next.last() {
            self.called.set(*ticket);
        }
        next.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// Lets newcomers in, for as long as the shard lives.
pub(super) async fn usher(shard: Rc<Shard>) {
    let newcomers = &shard.newcomers;
    let mut served = 0;
    loop {
        std::future::poll_fn(|cx| newcomers.poll_queued(cx)).await;
        rt::turn::breath().await;
        let requests = shard.counters().requests.get();
        let idle = std::mem::replace(&mut served, requests) == requests;
        if idle {
            newcomers.forgive();
        }
        if idle || !newcomers.in_debt(rt::now()) {
            newcomers.call_next();
        }
    }
}

/// Time for telling clients that there is too much to do.
#[derive(Debug)]
pub struct Refusals {
    percent: u32,
    /// Nanoseconds that may be used now; below 0 where the last answer took more than was left.
    left: Cell<i64>,
    as_of: Cell<Instant>,
}

impl Refusals {
    /// For a share of the shard's time in percent. A second's worth can be saved up.
    pub fn new(percent: u64, now: Instant) -> Self {
        let percent = u32::try_from(percent).unwrap_or(100).min(100);
        Self {
            percent,
            left: Cell::new(i64::from(percent) * PERCENT_OF_A_SECOND),
            as_of: Cell::new(now),
        }
    }

    /// Whether there is time for an answer.
    pub fn may_answer(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.as_of.replace(now));
        let earned = passed.as_nanos().min(1 << 60) as i64 / 100 * i64::from(self.percent);
        let most = i64::from(self.percent) * PERCENT_OF_A_SECOND;
        self.left.set(self.left.get().saturating_add(earned).min(most));
        self.left.get() > 0
    }

    /// Notes what it cost to make an answer.
    pub fn charge(&self, cost: Duration) {
        let cost = (cost + REFUSED_COST).as_nanos().min(1 << 60) as i64;
        self.left.set(self.left.get().saturating_sub(cost));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(newcomers: &Newcomers, place: &mut Place) -> bool {
        let cx = Context::from_waker(Waker::noop());
        newcomers.poll_turn(&cx, place).is_ready()
    }

    const HANDSHAKE: Duration = Duration::from_micros(500);

    /// D16: those who come together are let in at once; beyond that they queue, and are let in by order.
    #[test]
    fn newcomers_queue_once_they_have_had_their_share() {
        let start = Instant::now();
        let newcomers = Newcomers::new(20, 2, start);
        for _ in 0..10 {
            assert!(ready(&newcomers, &mut Place::default()));
            newcomers.charge(HANDSHAKE, start);
        }
        newcomers.charge(HANDSHAKE * 1_000, start);
        let mut places: Vec<Place> = (0..5).map(|_| Place::default()).collect();
        for place in &mut places {
            assert!(!ready(&newcomers, place));
            assert!(newcomers.waits(place));
        }
        newcomers.call_next();
        let let_in: Vec<bool> = places.iter_mut().map(|place| ready(&newcomers, place)).collect();
        assert_eq!(let_in, [true, true, false, false, false]);
        // Who has been in stands at the end again.
        assert!(!ready(&newcomers, &mut places[0]));
        newcomers.call_next();
        newcomers.call_next();
        let let_in: Vec<bool> = places.iter_mut().map(|place| ready(&newcomers, place)).collect();
        assert_eq!(let_in, [true, false, true, true, true]);
    }

    /// D16: places are asked for again when all were found, and else not before a while has passed.
    #[test]
    fn places_are_asked_for_as_long_as_it_helps() {
        let start = Instant::now();
        let wanted = Wanted::default();
        assert!(wanted.ask(2, start));
        assert!(!wanted.any(), "nobody waits");
        wanted.hold();
        assert!(wanted.any());
        wanted.found();
        assert!(!wanted.ask(2, start), "too few are idle");
        wanted.found();
        assert!(!wanted.any());
        assert!(wanted.ask(2, start), "more may be");
        let again = wanted.again(start);
        assert!(!wanted.ask(2, again - Duration::from_millis(1)));
        assert!(wanted.ask(2, again));
        wanted.release();
        assert!(!wanted.any());
    }

    /// D16: a fifth of the time, over any length of it.
    #[test]
    fn newcomers_get_their_share_of_a_busy_shard() {
        let start = Instant::now();
        let newcomers = Newcomers::new(20, 2, start);
        let mut used = Duration::ZERO;
        for step in 0..100_000_u32 {
            let now = start + Duration::from_micros(100) * step;
            if !newcomers.in_debt(now) {
                newcomers.charge(HANDSHAKE, now);
                used += HANDSHAKE;
            }
        }
        let share = used.as_secs_f64() / 10.0;
        assert!((0.19..=0.22).contains(&share), "{share}");
    }

    /// D16: what newcomers had while nobody else wanted it costs them nothing when the shard gets busy.
    #[test]
    fn idle_time_is_free() {
        let start = Instant::now();
        let newcomers = Newcomers::new(20, 2, start);
        newcomers.charge(HANDSHAKE * 10_000, start);
        newcomers.forgive();
        assert!(!newcomers.in_debt(start));
        newcomers.charge(HANDSHAKE, start);
        assert!(newcomers.in_debt(start));
        assert!(!newcomers.in_debt(start + HANDSHAKE * 5));
    }

    /// D16: without a share they have the time that nobody else wants.
    #[test]
    fn newcomers_without_a_share_always_queue() {
        let start = Instant::now();
        let newcomers = Newcomers::new(0, 2, start);
        let mut place = Place::default();
        assert!(!ready(&newcomers, &mut place));
        newcomers.call_next();
        assert!(ready(&newcomers, &mut place));
    }

    /// D16: answers to whom nothing else can be done stay within their budget, also after a quiet time.
    #[test]
    fn refusals_stay_within_their_budget() {
        let start = Instant::now();
        let refusals = Refusals::new(5, start);
        let cost = Duration::from_micros(30);
        let mut used = Duration::ZERO;
        for step in 0..1_000_000_u32 {
            let now = start + Duration::from_secs(100) + Duration::from_micros(10) * step;
            if refusals.may_answer(now) {
                refusals.charge(cost);
                used += cost + REFUSED_COST;
            }
        }
        // Ten seconds, and what was saved up before.
        let most = Duration::from_millis(550) + cost + REFUSED_COST;
        assert!(used <= most && used >= most * 9 / 10, "{used:?}");
        let none = Refusals::new(0, start);
        assert!(!none.may_answer(start + Duration::from_secs(10)));
    }
}
