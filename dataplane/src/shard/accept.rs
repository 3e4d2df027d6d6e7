//! From a listener to connections: as many as the bound allows, then none until one ends (decision D16).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tidegate_rt as rt;

use super::Shard;
use super::client::Origin;
use super::connection;
use super::overload::{ACCEPT_COST, Place};

/// How long accepting rests after an error that a new attempt would meet at once (no descriptors, no memory).
const REST: Duration = Duration::from_millis(50);

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP over plain TCP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// Accepts until the listener is closed, and then what was accepted by that time.
pub(super) async fn accept(shard: Rc<Shard>, listener: rt::Listener, protocol: Protocol) {
    let _accepting = Accepting::new(&shard);
    let address = listener.local_addr();
    let loopback = address.as_ref().is_ok_and(|address| address.ip().is_loopback());
    let local = address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let mut left = shard.bounds.newcomers;
    loop {
        let slot = Slot::take(&shard, &listener).await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                let origin = Origin {
                    peer,
                    protocol,
                    loopback: loopback && peer.ip().is_loopback(),
                    local: match local.ip().is_unspecified() && shard.upstreams.tell_clients() {
                        // On all addresses: which one it was is asked only where somebody is told.
                        true => stream.local_addr().unwrap_or(local),
                        false => local,
                    },
                };
                drop(rt::spawn(connection::run(
                    Rc::clone(&shard),
                    stream,
                    origin,
                    slot,
                )));
                shard.newcomers.charge(ACCEPT_COST, rt::now());
                left -= 1;
                if left == 0 {
                    left = shard.bounds.newcomers;
                    // Those who were accepted, and others, have their turn.
                    rt::turn::end().await;
                    turn(&shard, &listener).await;
                }
            }
            Err(_) if listener.is_closed() => return,
            Err(error) if is_peers(&error) => {}
            Err(error) => {
                tracing::warn!(shard = shard.index, %error, "cannot accept connections; trying again shortly");
                drop(slot);
                rt::sleep(REST).await;
            }
        }
    }
}

/// An accept task's place among the shard's.
struct Accepting {
    shard: Rc<Shard>,
}

impl Accepting {
    fn new(shard: &Rc<Shard>) -> Self {
        shard.accepting.set(shard.accepting.get() + 1);
        Self {
            shard: Rc::clone(shard),
        }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.shard.accepting.set(self.shard.accepting.get() - 1);
        self.shard.note_paused();
        if self.shard.draining() {
            self.shard.gate.wake();
        }
    }
}

/// Waits until more may be accepted, or nothing is any more.
async fn turn(shard: &Shard, listener: &rt::Listener) {
    let mut place = Place::default();
    poll_fn(|cx| {
        if listener.is_closed() {
            return Poll::Ready(());
        }
        shard.gate.note(cx.waker());
        shard.poll_newcomer(cx, &mut place)
    })
    .await;
}

/// Errors of one connection that ended before it was accepted (accept(2) lists them): the next one is not concerned.
fn is_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Counts connections and holds the listeners back at the bound.
#[derive(Debug)]
pub(super) struct Gate {
    open: Cell<usize>,
    bound: usize,
    waiting: RefCell<Vec<Waker>>,
}

impl Gate {
    /// A gate for at most `bound` connections.
    pub(super) fn new(bound: usize) -> Self {
        Self {
            open: Cell::new(0),
            bound: bound.max(1),
            waiting: RefCell::default(),
        }
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    /// Whether there is room for no more.
    pub(super) fn is_full(&self) -> bool {
        self.open.get() >= self.bound
    }

    /// How many idle connections make room at a time: asking costs a look at each of them.
    fn batch(&self) -> usize {
        (self.bound / 64).max(1)
    }

    /// Wakes whoever waits: there is room, or the shard drains.
    pub(super) fn wake(&self) {
        let woken = std::mem::take(&mut *self.waiting.borrow_mut());
        woken.into_iter().for_each(Waker::wake);
    }

    /// Has [`Gate::wake`] wake this task.
    pub(super) fn note(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }
}

/// One connection's place under the bound. Given back when dropped.
pub(super) struct Slot {
    shard: Rc<Shard>,
}

impl Slot {
    /// Waits for a place. A listener that is closed does not wait: what it has accepted already, at most a few
    /// connections, is served.
    async fn take(shard: &Rc<Shard>, listener: &rt::Listener) -> Self {
        let mut timer = rt::Timer::new();
        let mut held = None;
        poll_fn(|cx| {
            if shard.gate.is_full() && !listener.is_closed() {
                // Idle keep-alive connections are closed to make room; the kernel's queue holds who comes meanwhile.
                shard.gate.note(cx.waker());
                held.get_or_insert_with(|| Held::new(shard));
                loop {
                    timer.set(shard.ask_for_places(shard.gate.batch()));
                    if timer.poll_elapsed(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
            held = None;
            shard.gate.open.set(shard.gate.open.get() + 1);
            Poll::Ready(Self {
                shard: Rc::clone(shard),
            })
        })
        .await
    }
}

/// A listener that waits for a place.
struct Held<'a>(&'a Shard);

impl<'a> Held<'a> {
    fn new(shard: &'a Shard) -> Self {
        shard.counters().connections_held.add(1);
        shard.wanted.hold();
        Self(shard)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.wanted.release();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let gate = &self.shard.gate;
        let was_full = gate.is_full();
        gate.open.set(gate.open.get() - 1);
        if was_full || (gate.open.get() == 0 && self.shard.draining()) {
            gate.wake();
        }
    }
}
