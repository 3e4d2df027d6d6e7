//! The shard's open connections, each with a place: how draining reaches them, and how a long wait is told from a short
//! one.
//!
//! A read that is armed before its bytes are there costs the kernel a poll request besides the read. Most waits of a
//! busy connection are over in less time than that pays for: so what matters in a long wait only (whether the client is
//! still there while a backend thinks, whether an idle backend hangs up) is not looked at before the wait has lasted a
//! while. One timer a shard tells so to all, and none while nothing waits.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tidegate_rt as rt;

use super::Shard;

/// The shard's sense of how long things have been waiting, in periods.
#[derive(Debug)]
pub struct Lulls {
    /// How many have begun.
    period: Cell<u32>,
    /// Something has begun to wait since this one began.
    noted: Cell<bool>,
    /// Wakes who counts, while nothing waits.
    asleep: RefCell<Option<Waker>>,
}

impl Default for Lulls {
    fn default() -> Self {
        Self {
            // The first one, so that it differs from no wait.
            period: Cell::new(1),
            noted: Cell::new(false),
            asleep: RefCell::default(),
        }
    }
}

impl Lulls {
    /// Something waits. It is told at the end of the next period.
    pub fn note(&self) {
        if !self.noted.replace(true)
            && let Some(counter) = self.asleep.take()
        {
            counter.wake();
        }
    }

    /// Waits until something waits, and then for one period.
    pub(super) async fn period(&self, length: Duration) {
        poll_fn(|cx| {
            if self.noted.take() {
                return Poll::Ready(());
            }
            self.asleep.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        rt::sleep(length).await;
        self.period.set(self.period.get().wrapping_add(1).max(1));
    }
}

/// The places of open connections.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: Vec<Option<Place>>,
    vacant: Vec<usize>,
}

#[derive(Debug)]
struct Place {
    waker: Waker,
    wait: Rc<Cell<Wait>>,
}

/// How long a connection has been waiting for the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// It is not.
    No,
    /// Since some moment of this period.
    Since(u32),
    /// For longer than a period.
    Long,
}

impl Places {
    /// Wakes all.
    pub(super) fn wake_all(&self) {
        self.places
            .iter()
            .flatten()
            .for_each(|place| place.waker.wake_by_ref());
    }

    /// Tells those that have been waiting since an earlier period. Who waits since this one is told after the next.
    pub(super) fn notice(&self, lulls: &Lulls) {
        let current = lulls.period.get();
        for place in self.places.iter().flatten() {
            if let Wait::Since(period) = place.wait.get() {
                if current.wrapping_sub(period) > 1 {
                    place.wait.set(Wait::Long);
                    place.waker.wake_by_ref();
                } else {
                    lulls.note();
                }
            }
        }
    }
}

/// A connection's place among the shard's. Left when dropped.
pub(crate) struct Registered {
    shard: Rc<Shard>,
    place: usize,
    wait: Rc<Cell<Wait>>,
    counted: bool,
}

impl Registered {
    /// Has draining, closing of idle connections and the end of a period wake `waker`.
    pub(crate) fn new(shard: &Rc<Shard>, waker: Waker) -> Self {
        shard.counters().accepted.add(1);
        shard.counters().connections.increment();
        let mut registered = Self::uncounted(shard, waker);
        registered.counted = true;
        registered
    }

    /// As [`Registered::new`], for what is no client's connection and is not counted as one.
    pub(crate) fn uncounted(shard: &Rc<Shard>, waker: Waker) -> Self {
        let wait = Rc::new(Cell::new(Wait::No));
        let taken = Some(Place {
            waker,
            wait: Rc::clone(&wait),
        });
        let mut connections = shard.connections.borrow_mut();
        let place = match connections.vacant.pop() {
            Some(place) => {
                connections.places[place] = taken;
                place
            }
            None => {
                connections.places.push(taken);
                connections.places.len() - 1
            }
        };
        Self {
            shard: Rc::clone(shard),
            place,
            wait,
            counted: false,
        }
    }

    /// Whether this wait, which begins with the first call, has lasted for one period or two. Wakes the connection
    /// when it has.
    pub(crate) fn waits_long(&self) -> bool {
        match self.wait.get() {
            Wait::Long => true,
            Wait::Since(_) => false,
            Wait::No => {
                self.wait.set(Wait::Since(self.shard.lulls.period.get()));
                self.shard.lulls.note();
                false
            }
        }
    }

    /// What was waited for has come.
    pub(crate) fn rests(&self) {
        self.wait.set(Wait::No);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let place = {
            let mut connections = self.shard.connections.borrow_mut();
            connections.vacant.push(self.place);
            connections.places[self.place].take()
        };
        drop(place);
        if self.counted {
            self.shard.counters().connections.decrement();
        }
    }
}
