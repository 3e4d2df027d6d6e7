//! Time limits that cost next to nothing to move.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::{Instant, now};

/// Longest time that the runtime's timer wheel is asked to wait; a later deadline is reached in steps.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A time limit, used again and again: one for each connection and phase, not one for each read.
///
/// Setting and clearing it are two stores. The runtime's timer is touched only when somebody polls and the deadline has
/// moved *closer*; one that moved away is noticed when the old one passes, and waited for again. So a keep-alive limit
/// that is moved on by every request costs one wake-up per limit, not per request. Resolution is a millisecond; it never
/// fires early.
#[derive(Default)]
pub struct Timer {
    deadline: Option<Instant>,
    /// Made on first use, kept for good.
    sleep: Option<Pin<Box<monoio::time::Sleep>>>,
    /// When the runtime will wake the task, and which task.
    alarm: Option<(Instant, Waker)>,
}

/// The time limit passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl Timer {
    /// A timer with no deadline: it never elapses.
    pub fn new() -> Timer {
        Timer::default()
    }

    /// Sets the deadline, whatever it was before.
    pub fn set(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// Sets the deadline to `limit` from now.
    pub fn set_after(&mut self, limit: Duration) {
        // A limit beyond the clock's range is no limit.
        self.deadline = now().checked_add(limit);
    }

    /// Takes the deadline away.
    pub fn clear(&mut self) {
        self.deadline = None;
    }

    /// The deadline.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Ready when the deadline has passed, and so on every call until it is set anew or cleared.
    ///
    /// # Panics
    /// Outside of [`crate::run`].
    pub fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let now = now();
        if now >= deadline {
            return Poll::Ready(());
        }
        // Whether the alarm has rung is the runtime's to say: it waits by the system's clock, which may run ahead of the
        // one that deadlines are in, by some parts in a million.
        if let Some((at, waker)) = &self.alarm
            && now < *at
            && *at <= deadline
            && waker.will_wake(cx.waker())
            && self.sleep.as_ref().is_some_and(|sleep| !sleep.is_elapsed())
        {
            return Poll::Pending;
        }
        self.set_alarm(deadline, now, cx)
    }

    #[cold]
    #[inline(never)]
    fn set_alarm(&mut self, deadline: Instant, mut now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let wait = (deadline - now).min(LONGEST);
            let until = monoio::time::Instant::now() + wait;
            let sleep = match &mut self.sleep {
                Some(sleep) => {
                    sleep.as_mut().reset(until);
                    sleep
                }
                None => self.sleep.insert(Box::pin(monoio::time::sleep_until(until))),
            };
            if sleep.as_mut().poll(cx).is_pending() {
                self.alarm = Some((now + wait, cx.waker().clone()));
                return Poll::Pending;
            }
            now = Instant::now();
            if now >= deadline {
                return Poll::Ready(());
            }
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("deadline", &self.deadline).finish()
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit has passed")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for std::io::Error {
    fn from(_: Elapsed) -> std::io::Error {
        std::io::ErrorKind::TimedOut.into()
    }
}

/// The result of `future`, unless the timer's deadline passes first.
///
/// `future` is polled first: what is ready in time counts. With the futures of this crate nothing is lost when the limit
/// wins; another future is dropped where it stands.
pub async fn with_deadline<F: Future>(timer: &mut Timer, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        timer.poll_elapsed(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// Waits for `duration`.
pub fn sleep(duration: Duration) -> Sleep {
    let mut timer = Timer::new();
    timer.set_after(duration);
    Sleep { timer }
}

/// The future that [`sleep`] returns.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    timer: Timer,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.poll_elapsed(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DriverKind, RuntimeOptions, run};

    /// The system's clock runs ahead of ours, so the runtime wakes the task before its deadline: it must be woken again.
    #[test]
    fn an_alarm_that_rings_early_is_set_again() {
        let rang = run(RuntimeOptions::new(DriverKind::Epoll), async {
            let begun = Instant::now();
            let limit = Duration::from_millis(50);
            let mut timer = Timer::new();
            timer.set(begun + limit);
            let mut ahead = true;
            let mut patience = Timer::new();
            patience.set(begun + Duration::from_secs(20));
            std::future::poll_fn(|cx| {
                let polled = timer.poll_elapsed(cx);
                if std::mem::take(&mut ahead) {
                    let sleep = timer.sleep.as_mut().expect("the alarm is set");
                    sleep
                        .as_mut()
                        .reset(monoio::time::Instant::now() + Duration::from_millis(5));
                }
                if patience.poll_elapsed(cx).is_ready() {
                    return Poll::Ready(false);
                }
                polled.map(|()| begun.elapsed() >= limit)
            })
            .await
        });
        assert!(rang.expect("the runtime starts"), "woken once, and never again");
    }
}
