//! The side of the process that serves: offers what it has, and goes on should the other one fail.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};

use super::wire::{Message, VERSIONS, receive, send, send_sockets};
use super::{HandoverError, LEVELS, STEP, socket};
use crate::config::Handle;
use crate::net::tls::Tickets;
use crate::shard::mail::Mailboxes;
use crate::sockets::Sockets;

/// What a node has to hand over.
#[derive(Debug)]
pub(crate) struct Estate {
    /// Where it is found.
    pub(crate) data_dir: PathBuf,
    /// Its listening sockets.
    pub(crate) sockets: Arc<Sockets>,
    /// Its session ticket keys.
    pub(crate) tickets: Option<Arc<Tickets>>,
    /// The way to its shards.
    pub(crate) mailboxes: Mailboxes,
    /// The way to its configuration thread.
    pub(crate) config: Handle,
    /// How long the other process may take to get ready.
    pub(crate) patience: Duration,
}

/// What came of a hand-over.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Another process serves. This one accepts no more.
    Relieved {
        /// That process.
        pid: u32,
    },
    /// Everything is as before.
    Failed(String),
}

/// Who connected.
struct Peer {
    pid: u32,
    process: OwnedFd,
}

/// Waits for processes that want to take over, on a thread of its own, until one has.
pub(crate) fn listen(estate: Estate, tell: impl Fn(Outcome) + Send + 'static) -> io::Result<()> {
    let listener = socket::bind(&estate.data_dir)?;
    let serve = move || {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a process that wants to take over");
                    thread::sleep(Duration::from_secs(1));
                    continue;
                }
            };
            match estate.hand_over(stream) {
                Ok(pid) => return tell(Outcome::Relieved { pid }),
                Err(error) => tell(Outcome::Failed(error.to_string())),
            }
        }
    };
    thread::Builder::new()
        .name("upgrade".into())
        .spawn(serve)
        .map(drop)
}

impl Estate {
    fn hand_over(&self, mut stream: UnixStream) -> Result<u32, HandoverError> {
        let peer = Peer::of(&stream)?;
        let step = STEP.min(self.patience);
        for bound in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            bound(&stream, Some(step)).map_err(|error| HandoverError::System("a time-out", error))?;
        }
        let version = match self.greet(&mut stream) {
            Ok(version) => version,
            Err(error) => {
                refuse(&mut stream, &error);
                return Err(error);
            }
        };
        let mut paused = false;
        let exchanged = self.exchange(&mut stream, version, &mut paused);
        let Err(error) = exchanged else {
            return Ok(peer.pid);
        };
        refuse(&mut stream, &error);
        drop(stream);
        // From here on nobody but this process accepts or writes.
        peer.end();
        if paused {
            match self.sockets.assign(self.mailboxes.shards()) {
                Ok(listeners) => self.mailboxes.listen(listeners),
                Err(error) => tracing::error!(%error, "cannot accept connections again"),
            }
        }
        if let Err(error) = self.config.thaw(STEP) {
            tracing::warn!(%error, "the configuration is slow to go on");
        }
        Err(error)
    }

    fn greet(&self, stream: &mut UnixStream) -> Result<u32, HandoverError> {
        let Message::Hello { versions, program } = receive(stream)? else {
            return Err(HandoverError::Malformed("it does not begin with hello".into()));
        };
        tracing::info!(program, "another process is taking over");
        VERSIONS
            .into_iter()
            .find(|version| versions.contains(version))
            .ok_or_else(|| {
                HandoverError::Refused(format!(
                    "the running data plane ({}) hands over in the versions {VERSIONS:?}, the new one ({program}) takes \
                     {versions:?}: restart instead",
                    env!("CARGO_PKG_VERSION")
                ))
            })
    }

    fn exchange(
        &self,
        stream: &mut UnixStream,
        version: u32,
        paused: &mut bool,
    ) -> Result<(), HandoverError> {
        let busy = |error: crate::config::NoAnswer| HandoverError::Refused(error.to_string());
        let disk = self.config.freeze(STEP).map_err(busy)?;
        let sockets = self
            .sockets
            .copies()
            .map_err(|error| HandoverError::System("cannot copy a socket", error))?;
        let offer = Message::Offer {
            version,
            disk,
            ticket_keys: self
                .tickets
                .as_ref()
                .map(|tickets| tickets.save())
                .unwrap_or_default(),
            sockets: sockets.iter().map(|(role, _)| *role).collect(),
        };
        send(stream, &offer)?;
        send_sockets(stream, &sockets)?;
        drop(sockets);
        let wait = |stream: &UnixStream, time| {
            stream
                .set_read_timeout(Some(time))
                .map_err(|error| HandoverError::System("a time-out", error))
        };
        wait(stream, self.patience)?;
        match receive(stream) {
            Ok(Message::Ready) => {}
            Ok(other) => return Err(unexpected(&other)),
            Err(HandoverError::Late(..)) => return Err(HandoverError::Late("getting ready", self.patience)),
            Err(error) => return Err(error),
        }
        *paused = true;
        self.pause()?;
        let levels = self.config.levels(LEVELS, STEP).map_err(busy)?;
        send(stream, &Message::Go { levels })?;
        let step = STEP.min(self.patience);
        wait(stream, step)?;
        match receive(stream) {
            Ok(Message::Serving) => Ok(()),
            Ok(other) => Err(unexpected(&other)),
            Err(HandoverError::Late(..)) => Err(HandoverError::Late("beginning to accept", step)),
            Err(error) => Err(error),
        }
    }

    /// Returns when no shard accepts any more and what was accepted is being served.
    fn pause(&self) -> Result<(), HandoverError> {
        let told = self.mailboxes.pause();
        let deadline = Instant::now() + STEP;
        for _ in 0..self.mailboxes.shards() {
            let left = deadline.saturating_duration_since(Instant::now());
            told.recv_timeout(left)
                .map_err(|_| HandoverError::Late("pausing the shards", STEP))?;
        }
        Ok(())
    }
}

impl Peer {
    /// The process at the other end: it must be ours.
    fn of(stream: &UnixStream) -> Result<Self, HandoverError> {
        let failed =
            |error: rustix::io::Errno| HandoverError::System("cannot tell who connected", error.into());
        let credentials = socket_peercred(stream).map_err(failed)?;
        if credentials.uid != geteuid() && !credentials.uid.is_root() {
            return Err(HandoverError::Refused(format!(
                "a process of another user ({}) wants to take over",
                credentials.uid.as_raw()
            )));
        }
        let process = pidfd_open(credentials.pid, PidfdFlags::empty()).map_err(failed)?;
        Ok(Self {
            pid: credentials.pid.as_raw_nonzero().get().unsigned_abs(),
            process,
        })
    }

    /// Waits a little for the process to end by itself, as one does that was refused, then ends it.
    fn end(&self) {
        if self.ended(POLITE) {
            return;
        }
        tracing::warn!(pid = self.pid, "the process that was taking over is killed");
        // Gone meanwhile: then it needs no signal.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        self.ended(STEP);
    }

    fn ended(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(left) = Timespec::try_from(left) else {
                return false;
            };
            match poll(&mut [PollFd::new(&self.process, PollFlags::IN)], Some(&left)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Tells the other side why it ends. It may be gone.
fn refuse(stream: &mut UnixStream, error: &HandoverError) {
    let reason = error.to_string();
    let _ = send(stream, &Message::Refused { reason });
}

fn unexpected(message: &Message) -> HandoverError {
    let name = match message {
        Message::Hello { .. } => "hello",
        Message::Offer { .. } => "offer",
        Message::Ready => "ready",
        Message::Go { .. } => "go",
        Message::Serving => "serving",
        Message::Refused { .. } => "refused",
    };
    HandoverError::Malformed(format!("{name} comes out of turn"))
}

/// How long a process that was refused has to end by itself.
const POLITE: Duration = Duration::from_secs(1);
