//! Load from many keep-alive connections that counts every answer and every failure, so that a test can say "none".

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::process::PATIENCE;
use crate::raw::Connection;

/// What the load has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// What went wrong, the first hundred texts; each is a request that got no complete answer.
    pub failures: Vec<String>,
    /// How many requests got no complete answer.
    pub failed: u64,
    /// Connections that the gateway ended between two requests.
    pub closed: u64,
    /// Answers whose body was not the expected one.
    pub wrong_bodies: u64,
}

impl Seen {
    /// All complete answers.
    pub fn answered(&self) -> u64 {
        self.by_status.values().sum()
    }

    /// Answers with this status.
    pub fn status(&self, status: u16) -> u64 {
        self.by_status.get(&status).copied().unwrap_or_default()
    }

    /// Fails unless every request was answered with one of these statuses, on connections that nobody dropped.
    pub fn ensure_flawless(&self, statuses: &[u16]) -> Result<()> {
        ensure!(
            self.failed == 0,
            "{} requests failed: {:?}",
            self.failed,
            self.failures
        );
        ensure!(self.closed == 0, "{} connections were dropped", self.closed);
        ensure!(
            self.wrong_bodies == 0,
            "{} answers had the wrong body",
            self.wrong_bodies
        );
        ensure!(self.answered() > 0, "no request was answered");
        ensure!(
            self.by_status.keys().all(|status| statuses.contains(status)),
            "answers by status: {:?}",
            self.by_status
        );
        Ok(())
    }
}

/// What every connection sends, over and over.
#[derive(Debug, Clone)]
pub struct Target {
    /// The gateway.
    pub address: SocketAddr,
    /// The bytes of one request.
    pub request: Vec<u8>,
    /// What the body of a 200 must be; `None` when any will do.
    pub body: Option<Vec<u8>>,
}

/// When a request was under way, from the moment before it was sent to the one after its answer was read. Whatever the
/// gateway decided about it, it decided in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timed {
    /// Since the load began.
    pub sent: Duration,
    /// Since the load began.
    pub received: Duration,
    /// The answer's status.
    pub status: u16,
}

/// Load that runs until it is told to stop.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Seen>,
    changed: Condvar,
    /// Since when answers are timed, and those that were.
    timed: Option<(Instant, Mutex<Vec<Timed>>)>,
}

impl Load {
    /// Starts `connections` connections, each a request at a time.
    pub fn start(target: &Target, connections: usize) -> Self {
        Self::with(target, connections, Shared::default())
    }

    /// The same, and notes of every answer when its request was under way.
    pub fn start_timed(target: &Target, connections: usize) -> Self {
        let shared = Shared {
            timed: Some((Instant::now(), Mutex::default())),
            ..Shared::default()
        };
        Self::with(target, connections, shared)
    }

    fn with(target: &Target, connections: usize, shared: Shared) -> Self {
        let shared = Arc::new(shared);
        let workers = (0..connections)
            .map(|_| {
                let (shared, target) = (shared.clone(), target.clone());
                std::thread::spawn(move || shared.work(&target))
            })
            .collect();
        Self { shared, workers }
    }

    /// Waits until `more` further requests have been answered, whatever the status.
    pub fn await_answers(&self, more: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.shared.lock();
        let goal = seen.answered() + more;
        while seen.answered() < goal {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(
                !left.is_zero(),
                "the load stands still at {} of {goal} answers: {:?}",
                seen.answered(),
                *seen
            );
            seen = self
                .shared
                .changed
                .wait_timeout(seen, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(())
    }

    /// What has been seen so far.
    pub fn seen(&self) -> Seen {
        self.shared.lock().clone()
    }

    /// Lets every connection finish its request, and says what was seen.
    pub fn stop(self) -> Seen {
        self.stop_timed().0
    }

    /// As [`Load::stop`], with what [`Load::start_timed`] noted.
    pub fn stop_timed(mut self) -> (Seen, Vec<Timed>) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                self.shared.lock().failed += 1;
            }
        }
        let timed = match &self.shared.timed {
            Some((_, timed)) => std::mem::take(&mut *timed.lock().unwrap_or_else(PoisonError::into_inner)),
            None => Vec::new(),
        };
        (self.seen(), timed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, target: &Target) {
        let mut connection = None;
        let mut used = false;
        while !self.stop.load(Ordering::SeqCst) {
            let mut open = match connection
                .take()
                .map_or_else(|| Connection::open(target.address), Ok)
            {
                Ok(open) => open,
                Err(error) => {
                    self.fail(format!("{error:#}"));
                    // Nobody listens: do not burn the core that is starting what should.
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
            };
            let sent = Instant::now();
            match open.send(&target.request).and_then(|()| open.response()) {
                Ok(response) => {
                    if let Some((began, timed)) = &self.timed {
                        let timing = Timed {
                            sent: sent.duration_since(*began),
                            received: began.elapsed(),
                            status: response.status,
                        };
                        timed.lock().unwrap_or_else(PoisonError::into_inner).push(timing);
                    }
                    let mut seen = self.lock();
                    *seen.by_status.entry(response.status).or_default() += 1;
                    if response.status == 200
                        && target.body.as_ref().is_some_and(|body| *body != response.body)
                    {
                        seen.wrong_bodies += 1;
                    }
                    let closes = response.until_close
                        || response
                            .header("connection")
                            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
                    if closes {
                        seen.closed += 1;
                    } else {
                        connection = Some(open);
                    }
                    used = !closes;
                    drop(seen);
                    self.changed.notify_all();
                }
                Err(error) => {
                    self.fail(format!(
                        "{error:#} ({} connection)",
                        if used { "used" } else { "new" }
                    ));
                    used = false;
                }
            }
        }
    }

    fn fail(&self, text: String) {
        let mut seen = self.lock();
        seen.failed += 1;
        if seen.failures.len() < 100 {
            seen.failures.push(text);
        }
        drop(seen);
        self.changed.notify_all();
    }
}
