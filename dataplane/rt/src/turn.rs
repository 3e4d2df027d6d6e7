//! The end of a turn: after the tasks that were ready have run, before the shard waits for the kernel (decision D5).
//!
//! A turn is one pass over the ready queue. What several tasks of a turn want done once (one flush for many writers, one
//! batch of records) is done here. Every task that was ready when the turn began has been polled by then, and so, as a
//! rule, has every task that those made ready.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use monoio::net::TcpStream;

use crate::op::{Op, Port};
use crate::runtime;

/// Turns in a row that may begin with tasks woken from here without anything heard from the kernel. The runtime looks
/// for completions only when it parks, and it parks only when no task is ready: tasks that wait for one turn's end
/// after the other would keep it from ever doing so.
const UNHEARD: u32 = 32;

/// Waits for the end of the current turn. Also the way to let other tasks run: a task that wakes itself while it runs
/// is put in front of the queue by the runtime, not behind.
///
/// The task that waits goes on in a turn of its own, which costs a system call for the thread, however many wait.
/// Work that needs no task belongs in [`defer`].
pub fn end() -> End {
    End { registered: false }
}

/// Waits until the shard has asked the kernel what has happened, and what was ready then stands in the queue beside this
/// task. The way to give way to connections that have something to do, again and again, at about two system calls a time.
pub fn breath() -> Breath {
    Breath { registered: false }
}

/// Runs `f` once, at the end of the current turn, outside of any task.
///
/// What `f` starts in the kernel goes out with the shard's next wait. A panic in `f` is caught and counted as one of a
/// task ([`crate::panics`]). Outside of [`crate::run`] it never runs.
pub fn defer(f: impl FnOnce() + 'static) {
    with(|turn| turn.calls.push(Box::new(f)));
}

/// The future that [`end`] returns.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct End {
    registered: bool,
}

impl Future for End {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.registered {
            return Poll::Ready(());
        }
        self.registered = true;
        with(|turn| turn.wakers.push(cx.waker().clone()));
        Poll::Pending
    }
}

/// The future that [`breath`] returns.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Breath {
    registered: bool,
}

impl Future for Breath {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.registered {
            return Poll::Ready(());
        }
        self.registered = true;
        with(|turn| turn.breathless.push(cx.waker().clone()));
        Poll::Pending
    }
}

#[derive(Default)]
struct Turn {
    calls: Vec<Box<dyn FnOnce()>>,
    wakers: Vec<Waker>,
    /// Tasks that wait for the kernel to be asked, which has not begun for them.
    breathless: Vec<Waker>,
    /// Gets the main future polled, which happens at the end of a turn. `None` while nobody runs here.
    main: Option<Waker>,
}

thread_local! {
    static TURN: RefCell<Turn> = RefCell::default();
}

fn with(register: impl FnOnce(&mut Turn)) {
    TURN.with_borrow_mut(|turn| {
        register(turn);
        if let Some(main) = &turn.main {
            main.wake_by_ref();
        }
    });
}

/// Runs the ends of turns; the main future polls it each time it is polled itself.
#[derive(Default)]
pub(crate) struct Ends {
    /// Turns in a row that woke tasks, and how many operations had completed when they began.
    streak: (u32, u64),
    /// An operation that completes at once, but only through the kernel.
    breath: Option<Op<(), ()>>,
    /// Tasks that go on when it has completed.
    breathing: Vec<Waker>,
}

impl Ends {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        let mut calls = TURN.with_borrow_mut(|turn| {
            if turn.main.is_none() {
                turn.main = Some(cx.waker().clone());
            }
            std::mem::take(&mut turn.calls)
        });
        crate::clock::new_event();
        for call in calls.drain(..) {
            crate::task::guard(call);
        }
        if self.must_park(cx) {
            return;
        }
        let mut wakers = TURN.with_borrow_mut(|turn| {
            // Keep the memory for the next turn, unless a call has begun a new list meanwhile.
            if turn.calls.is_empty() {
                turn.calls = calls;
            }
            std::mem::take(&mut turn.wakers)
        });
        for waker in wakers.drain(..) {
            waker.wake();
        }
        TURN.with_borrow_mut(|turn| {
            if turn.wakers.is_empty() {
                turn.wakers = wakers;
            }
        });
    }

    /// Whether the tasks that wait must do so until the shard has parked once more.
    fn must_park(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(breath) = self.breath.as_mut().filter(|breath| breath.is_armed()) {
            if breath.poll(cx).is_pending() {
                return true;
            }
            self.breathing.drain(..).for_each(Waker::wake);
        }
        self.breathing
            .append(&mut TURN.with_borrow_mut(|turn| std::mem::take(&mut turn.breathless)));
        if !self.breathing.is_empty() {
            return self.take_breath(cx);
        }
        let heard = runtime::completed();
        let waiting = TURN.with_borrow(|turn| !turn.wakers.is_empty());
        if !waiting || heard != self.streak.1 {
            self.streak = (0, heard);
            return false;
        }
        self.streak.0 += 1;
        // On epoll the runtime looks for events also while tasks are ready.
        if self.streak.0 < UNHEARD || !runtime::driver().is_some_and(|kind| kind.is_uring()) {
            return false;
        }
        self.streak.0 = 0;
        self.take_breath(cx)
    }

    fn take_breath(&mut self, cx: &mut Context<'_>) -> bool {
        if self.breath.is_none() && runtime::driver().is_some_and(|kind| kind.is_uring()) {
            self.breath = self::breathing().ok();
        }
        if let Some(breath) = &mut self.breath {
            breath.arm(());
            if breath.poll(cx).is_pending() {
                return true;
            }
        }
        // Epoll, or no descriptor for it: then rather unfair than stuck.
        self.breathing.drain(..).for_each(Waker::wake);
        false
    }
}

fn breathing() -> io::Result<Op<(), ()>> {
    let (near, far) = UnixStream::pair()?;
    let near = TcpStream::from_std(std::os::fd::OwnedFd::from(near).into())?;
    Ok(Op::new(|port| breathe(near, far, port)))
}

/// `near` is always writable, as nothing is ever written; the answer still comes only with a wait for the kernel.
async fn breathe(near: TcpStream, _far: UnixStream, port: Port<(), ()>) -> Infallible {
    loop {
        port.request().await;
        let _ = near.writable(true).await;
        port.finish(());
    }
}

/// Wakes the main future: it is polled at the end of this turn.
pub(crate) fn request() {
    with(|_| {});
}

/// Forgets everything, at the end of [`crate::run`].
pub(crate) fn reset() {
    let old = TURN.with_borrow_mut(std::mem::take);
    drop(old);
}
