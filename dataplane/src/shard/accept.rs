//! From a listener to connections: as many as the bound allows, then none until one ends (decision D16).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tidegate_rt as rt;

use super::Shard;
use super::client::Origin;
use super::connection;

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

/// Accepts until the shard drains.
pub(super) async fn accept(shard: Rc<Shard>, listener: rt::Listener, protocol: Protocol) {
    let address = listener.local_addr();
    let loopback = address.as_ref().is_ok_and(|address| address.ip().is_loopback());
    let port = address.map_or(0, |address| address.port());
    while !shard.draining() {
        let Some(slot) = Slot::take(&shard).await else {
            break;
        };
        let accepted = poll_fn(|cx| {
            shard.gate.note(cx.waker());
            if shard.draining() {
                return Poll::Ready(None);
            }
            listener.poll_accept(cx).map(Some)
        })
        .await;
        match accepted {
            None => break,
            Some(Ok((stream, peer))) => {
                let origin = Origin {
                    peer,
                    protocol,
                    loopback: loopback && peer.ip().is_loopback(),
                    port,
                };
                drop(rt::spawn(connection::run(
                    Rc::clone(&shard),
                    stream,
                    origin,
                    slot,
                )));
            }
            Some(Err(error)) if is_peers(&error) => {}
            Some(Err(error)) => {
                tracing::warn!(shard = shard.index, %error, "cannot accept connections; trying again shortly");
                rt::sleep(REST).await;
            }
        }
    }
    listener.close();
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
    /// Waits for a place; `None` when the shard drains.
    async fn take(shard: &Rc<Shard>) -> Option<Self> {
        poll_fn(|cx| {
            if shard.draining() {
                return Poll::Ready(None);
            }
            if shard.gate.is_full() {
                // Idle keep-alive connections are closed to make room; the kernel's queue holds who comes meanwhile.
                shard.gate.note(cx.waker());
                shard.close_idle();
                return Poll::Pending;
            }
            shard.gate.open.set(shard.gate.open.get() + 1);
            Poll::Ready(Some(Self {
                shard: Rc::clone(shard),
            }))
        })
        .await
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
