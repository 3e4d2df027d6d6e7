//! Tasks: spawned futures whose panics end only themselves (decision D7).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

/// Starts a task on this thread. A panic in it is caught, counted ([`panics`]) and ends this task alone. Dropping the
/// handle leaves the task running.
///
/// # Panics
/// Outside of [`crate::run`].
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    let shared = Rc::new(Shared {
        result: Cell::new(None),
        waiter: Cell::new(None),
    });
    let task = Task {
        future: Some(future),
        shared: shared.clone(),
        slot: None,
    };
    drop(monoio::spawn(task));
    JoinHandle { shared }
}

/// Awaits a future that is polled by a function of its own. What that one needs of the stack is then no part of its
/// caller's frame, which is made, and its pages touched, on every poll of the caller, whatever it waits for.
pub async fn apart<F: Future>(future: F) -> F::Output {
    #[inline(never)]
    fn poll<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        future.poll(cx)
    }
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| poll(future.as_mut(), cx)).await
}

/// How many panics have been caught on this thread, in tasks and in end-of-turn calls.
pub fn panics() -> u64 {
    STATE.with(|state| state.panics.get())
}

/// Waits for a task's result.
pub struct JoinHandle<T> {
    shared: Rc<Shared<T>>,
}

/// Why a task has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// It panicked.
    Panicked,
    /// [`crate::run`] ended first.
    Stopped,
}

impl<T> JoinHandle<T> {
    /// Whether the task has ended and its result waits here.
    pub fn is_finished(&self) -> bool {
        let result = self.shared.result.take();
        let finished = result.is_some();
        self.shared.result.set(result);
        finished
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_end(cx).map_err(|end| match end {
            End::Panicked(_) => JoinError::Panicked,
            End::Stopped => JoinError::Stopped,
        })
    }
}

impl<T> JoinHandle<T> {
    /// The result, with the panic itself if the task ended so.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<T, End>> {
        match self.shared.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                self.shared.waiter.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinHandle")
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JoinError::Panicked => "the task panicked",
            JoinError::Stopped => "the shard ended before the task did",
        })
    }
}

impl std::error::Error for JoinError {}

/// How a task ends without a result.
pub(crate) enum End {
    Panicked(Box<dyn Any + Send>),
    Stopped,
}

struct Shared<T> {
    result: Cell<Option<Result<T, End>>>,
    waiter: Cell<Option<Waker>>,
}

impl<T> Shared<T> {
    fn finish(&self, result: Result<T, End>) {
        self.result.set(Some(result));
        // A task that is dropped with the runtime itself must wake nobody: the runtime takes it for another thread.
        if let Some(waiter) = self.waiter.take()
            && crate::runtime::driver().is_some()
        {
            waiter.wake();
        }
    }
}

struct Task<F: Future> {
    /// `None` once it has ended.
    future: Option<F>,
    shared: Rc<Shared<F::Output>>,
    /// Where this task's waker is registered, so that the end of `run` can reach it.
    slot: Option<usize>,
}

impl<F: Future> Task<F> {
    fn end(&mut self, result: Result<F::Output, End>) {
        if let Some(slot) = self.slot.take() {
            // The thread's state is gone only when the thread itself is.
            let _ = STATE.try_with(|state| state.tasks.borrow_mut().remove(slot));
        }
        if STOPPING.get() {
            // The end of `run` waits for this.
            crate::turn::request();
        }
        self.shared.finish(result);
    }
}

impl<F: Future> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `future` is only ever moved into this struct before the first poll and dropped in place after (by
        // assigning `None`); the other fields are never pinned.
        let this = unsafe { self.get_unchecked_mut() };
        if this.slot.is_none() {
            this.slot = Some(STATE.with(|state| state.tasks.borrow_mut().insert(cx.waker().clone())));
        }
        let Some(future) = this.future.as_mut().filter(|_| !STOPPING.get()) else {
            guard(|| this.future = None);
            this.end(Err(End::Stopped));
            return Poll::Ready(());
        };
        // SAFETY: see above.
        let future = unsafe { Pin::new_unchecked(future) };
        let _event = Event::begin();
        let result = match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(value)) => Ok(value),
            Err(panic) => {
                count_panic();
                Err(End::Panicked(panic))
            }
        };
        guard(|| this.future = None);
        this.end(result);
        Poll::Ready(())
    }
}

impl<F: Future> Drop for Task<F> {
    fn drop(&mut self) {
        if self.future.is_some() {
            guard(|| self.future = None);
            self.end(Err(End::Stopped));
        }
    }
}

/// Runs `f`; a panic is caught and counted.
pub(crate) fn guard(f: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(f)).is_err() {
        count_panic();
    }
}

/// Whether a task is being polled on this thread.
pub(crate) fn in_poll() -> bool {
    IN_POLL.get()
}

/// Prepares this thread's state for a run.
pub(crate) fn begin(panics: Option<Arc<AtomicU64>>) {
    STOPPING.set(false);
    STATE.with(|state| *state.shared_panics.borrow_mut() = panics);
}

/// Ends every task: each drops its future when it is next polled, which this makes happen.
pub(crate) fn stop_all() {
    STOPPING.set(true);
    let wakers = STATE.with(|state| state.tasks.borrow().wakers());
    for waker in wakers {
        waker.wake();
    }
}

/// How many tasks have begun and not ended.
pub(crate) fn running() -> usize {
    STATE.with(|state| state.tasks.borrow().len)
}

/// Forgets what a run left behind.
pub(crate) fn finish() {
    STOPPING.set(false);
    STATE.with(|state| *state.shared_panics.borrow_mut() = None);
}

#[derive(Default)]
struct State {
    panics: Cell<u64>,
    shared_panics: RefCell<Option<Arc<AtomicU64>>>,
    tasks: RefCell<Tasks>,
}

thread_local! {
    static STATE: State = State::default();
    /// The end of `run` has come: every task ends when it is polled.
    static STOPPING: Cell<bool> = const { Cell::new(false) };
    /// A task is being polled.
    static IN_POLL: Cell<bool> = const { Cell::new(false) };
}

/// Wakers of the tasks that run, by slot.
#[derive(Default)]
struct Tasks {
    slots: Vec<Option<Waker>>,
    vacant: Vec<usize>,
    len: usize,
}

impl Tasks {
    fn insert(&mut self, waker: Waker) -> usize {
        self.len += 1;
        match self.vacant.pop() {
            Some(slot) => {
                self.slots[slot] = Some(waker);
                slot
            }
            None => {
                self.slots.push(Some(waker));
                self.slots.len() - 1
            }
        }
    }

    fn remove(&mut self, slot: usize) -> Option<Waker> {
        let waker = self.slots.get_mut(slot)?.take()?;
        self.len -= 1;
        self.vacant.push(slot);
        Some(waker)
    }

    fn wakers(&self) -> Vec<Waker> {
        self.slots.iter().flatten().cloned().collect()
    }
}

/// Marks that a task is being polled, and that the clock is to be read anew.
struct Event;

impl Event {
    fn begin() -> Event {
        crate::clock::new_event();
        IN_POLL.set(true);
        Event
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        IN_POLL.set(false);
        crate::clock::new_event();
    }
}

fn count_panic() {
    let _ = STATE.try_with(|state| {
        state.panics.set(state.panics.get() + 1);
        if let Some(shared) = &*state.shared_panics.borrow() {
            shared.fetch_add(1, Ordering::Relaxed);
        }
    });
}
