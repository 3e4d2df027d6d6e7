//! The life of a shard's runtime: build, run, drain.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use monoio::time::TimeDriver;
use monoio::{Driver, IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

use crate::driver::{DriverError, DriverKind, ring_builder};
use crate::task::{self, End};
use crate::turn;

/// Entries of the submission queue by default. With the completion queue of four times as many, a ring takes 64 KiB of
/// locked memory.
pub(crate) const DEFAULT_ENTRIES: u32 = 512;

/// How a runtime is built and watched.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// The driver, from [`crate::probe`].
    pub kind: DriverKind,
    /// Entries of the ring's submission queue (at least 256), or events taken from epoll at once.
    pub entries: u32,
    /// How long the end of [`run`] waits for operations in flight. After that their memory and the ring are leaked:
    /// the kernel may still write to them.
    pub drain: Duration,
    /// Counts caught panics for other threads.
    pub panics: Option<Arc<AtomicU64>>,
    /// Counts the sends that streams start, for other threads.
    pub sends: Option<Arc<AtomicU64>>,
    /// Shows other threads how many operations are in flight.
    pub in_flight: Option<Arc<AtomicUsize>>,
}

impl RuntimeOptions {
    /// Options with defaults: 512 entries, 5 s to drain, nobody watching.
    pub fn new(kind: DriverKind) -> RuntimeOptions {
        RuntimeOptions {
            kind,
            entries: DEFAULT_ENTRIES,
            drain: Duration::from_secs(5),
            panics: None,
            sends: None,
            in_flight: None,
        }
    }
}

/// Runs `main` and every task that it spawns on this thread, until `main` ends.
///
/// Then the other tasks are dropped where they stand, sockets they leave with operations in flight are shut down, and
/// the call returns when the kernel has answered all of those.
///
/// # Errors
/// The driver cannot be built.
///
/// # Panics
/// With the panic of `main`, after draining; or if this thread already runs one.
pub fn run<F>(options: RuntimeOptions, main: F) -> Result<F::Output, DriverError>
where
    F: Future + 'static,
{
    assert!(driver().is_none(), "a runtime is already running on this thread");
    match options.kind {
        DriverKind::UringDefer | DriverKind::UringCoop => {
            let runtime = RuntimeBuilder::<IoUringDriver>::new()
                .uring_builder(ring_builder(options.kind, options.entries))
                .with_entries(options.entries)
                .enable_timer()
                .build();
            drive(runtime.map_err(DriverError::from_ring)?, options, main)
        }
        DriverKind::Epoll => {
            let runtime = RuntimeBuilder::<LegacyDriver>::new()
                .with_entries(options.entries)
                .enable_timer()
                .build();
            drive(runtime.map_err(DriverError::Other)?, options, main)
        }
    }
}

/// Operations that are in flight in the kernel on behalf of this thread.
pub fn in_flight() -> usize {
    CURRENT.with(|current| current.in_flight.get())
}

/// The driver of the runtime that this thread is running, if it is.
pub fn driver() -> Option<DriverKind> {
    CURRENT.try_with(|current| current.kind.get()).unwrap_or(None)
}

fn drive<D, F>(
    runtime: Runtime<TimeDriver<D>>,
    options: RuntimeOptions,
    main: F,
) -> Result<F::Output, DriverError>
where
    D: Driver + 'static,
    F: Future + 'static,
{
    // Freed only when nothing is in flight; see below.
    let mut runtime = ManuallyDrop::new(runtime);
    let entered = Entered::new(&options);
    let result = runtime.block_on(async {
        let main = task::spawn(main);
        let mut ends = turn::Ends::default();
        let mut result = None;
        std::future::poll_fn(|cx| {
            ends.poll(cx);
            match main.poll_end(cx) {
                Poll::Ready(end) => {
                    result = Some(end);
                    Poll::Ready(())
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        drain(options.drain, ends).await;
        result
    });
    drop(entered);
    if in_flight() == 0 {
        drop(ManuallyDrop::into_inner(runtime));
    } else {
        // The kernel may write to buffers of these operations at any time. They and the ring are left alone, and the
        // count is taken back so that the thread's next run starts from nought.
        CURRENT.with(|current| current.in_flight.set(0));
    }
    match result {
        Some(Ok(value)) => Ok(value),
        Some(Err(End::Panicked(panic))) => std::panic::resume_unwind(panic),
        Some(Err(End::Stopped)) | None => unreachable!("tasks are stopped only after main has ended"),
    }
}

/// Ends all tasks and waits until nothing is in flight.
async fn drain(limit: Duration, mut ends: turn::Ends) {
    CURRENT.with(|current| current.draining.set(true));
    task::stop_all();
    let mut deadline = pin!(monoio::time::sleep(limit));
    std::future::poll_fn(|cx| {
        ends.poll(cx);
        if in_flight() == 0 && task::running() == 0 {
            return Poll::Ready(());
        }
        deadline.as_mut().poll(cx)
    })
    .await;
}

struct Current {
    kind: Cell<Option<DriverKind>>,
    in_flight: Cell<usize>,
    completed: Cell<u64>,
    draining: Cell<bool>,
    gauge: RefCell<Option<Arc<AtomicUsize>>>,
    sends: RefCell<Option<Arc<AtomicU64>>>,
}

thread_local! {
    static CURRENT: Current = const {
        Current {
            kind: Cell::new(None),
            in_flight: Cell::new(0),
            completed: Cell::new(0),
            draining: Cell::new(false),
            gauge: RefCell::new(None),
            sends: RefCell::new(None),
        }
    };
}

/// Marks this thread as running a runtime.
struct Entered;

impl Entered {
    fn new(options: &RuntimeOptions) -> Entered {
        CURRENT.with(|current| {
            current.kind.set(Some(options.kind));
            *current.gauge.borrow_mut() = options.in_flight.clone();
            *current.sends.borrow_mut() = options.sends.clone();
        });
        task::begin(options.panics.clone());
        Entered
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|current| {
            current.kind.set(None);
            current.draining.set(false);
            *current.gauge.borrow_mut() = None;
            *current.sends.borrow_mut() = None;
        });
        turn::reset();
        task::finish();
    }
}

/// Operations that have been answered on this thread, ever.
pub(crate) fn completed() -> u64 {
    CURRENT.with(|current| current.completed.get())
}

/// A stream starts a send.
pub(crate) fn count_send() {
    CURRENT.with(|current| {
        if let Some(sends) = &*current.sends.borrow() {
            // This thread alone writes to it: two plain accesses, not a locked one.
            sends.store(sends.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    });
}

/// One more operation is in flight.
pub(crate) fn begin_operation() {
    CURRENT.with(|current| current.set_in_flight(current.in_flight.get() + 1));
}

/// One operation has been answered.
pub(crate) fn end_operation() {
    CURRENT.with(|current| {
        let left = current.in_flight.get() - 1;
        current.set_in_flight(left);
        current.completed.set(current.completed.get() + 1);
        if current.draining.get() {
            turn::request();
        }
    });
}

impl Current {
    fn set_in_flight(&self, count: usize) {
        self.in_flight.set(count);
        if let Some(gauge) = &*self.gauge.borrow() {
            gauge.store(count, Ordering::Relaxed);
        }
    }
}
