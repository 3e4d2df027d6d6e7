//! The shard's clock.

use std::cell::Cell;

/// A moment on the shard's clock.
pub use quanta::Instant;

thread_local! {
    static CACHED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The time, read once for each poll of a task (an event edge) and the same for all that the poll does.
///
/// Outside of a task the clock is read on every call.
pub fn now() -> Instant {
    match CACHED.get() {
        Some(now) => now,
        None => {
            let now = Instant::now();
            if crate::task::in_poll() {
                CACHED.set(Some(now));
            }
            now
        }
    }
}

/// Begins a new event: the next [`now`] reads the clock.
pub(crate) fn new_event() {
    CACHED.set(None);
}
