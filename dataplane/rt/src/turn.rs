//! The end of a turn: after the tasks that were ready have run, before the shard waits for the kernel (decision D5).
//!
//! A turn is one pass over the ready queue. What several tasks of a turn want done once (one flush for many writers, one
//! batch of records) is done here. Every task that was ready when the turn began has been polled by then, and so, as a
//! rule, has every task that those made ready.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Waits for the end of the current turn. Also the way to let other tasks run: a task that wakes itself while it runs
/// is put in front of the queue by the runtime, not behind.
///
/// The task that waits goes on in a turn of its own, which costs a system call for the thread, however many wait.
/// Work that needs no task belongs in [`defer`].
pub fn end() -> End {
    End { registered: false }
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

#[derive(Default)]
struct Turn {
    calls: Vec<Box<dyn FnOnce()>>,
    wakers: Vec<Waker>,
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

/// Called by the main future each time it is polled. Returns how many tasks it made ready.
pub(crate) fn run_end(main: &Waker) -> usize {
    let (mut calls, mut wakers) = TURN.with_borrow_mut(|turn| {
        if turn.main.is_none() {
            turn.main = Some(main.clone());
        }
        (std::mem::take(&mut turn.calls), std::mem::take(&mut turn.wakers))
    });
    crate::clock::new_event();
    for call in calls.drain(..) {
        crate::task::guard(call);
    }
    let woken = wakers.len();
    for waker in wakers.drain(..) {
        waker.wake();
    }
    // Keep the vectors' memory for the next turn, unless a call has begun new ones meanwhile.
    TURN.with_borrow_mut(|turn| {
        if turn.calls.is_empty() {
            turn.calls = calls;
        }
        if turn.wakers.is_empty() {
            turn.wakers = wakers;
        }
    });
    woken
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
