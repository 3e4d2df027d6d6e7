//! Hot upgrade (decision D17): a new process takes over from the one that serves, without a connection refused or lost.
//!
//! The running data plane listens on a Unix socket in its data directory. A process started with `--take-over` connects to
//! it; what follows is bounded at every step, and until the last one the old process goes on as if nothing had been,
//! should the new one fail:
//!
//! ```text
//!  new                                   old
//!   | -- Hello: versions, program -------> |
//!   |                                      | freezes its configuration, lets go of the disk
//!   | <-- Offer: revision, ticket keys --- |
//!   | <-- listening sockets (SCM_RIGHTS) - |
//!   | starts shards, loads the last        |
//!   | known good, accepts nothing yet      |
//!   | -- Ready --------------------------> |
//!   |                                      | stops accepting, reaps the accepts under way and serves what they brought
//!   | <-- Go: bucket levels -------------- |
//!   | accepts                              |
//!   | -- Serving ------------------------> |
//!   | follows the control plane            | answers what it has, each connection's last with `Connection: close`
//! ```
//!
//! Two processes never accept from one socket at a time, so their I/O drivers may differ; between `Ready` and `Serving`
//! connections wait in the sockets' queues. Only one process writes to the data directory, and only one follows the control
//! plane ([`crate::config::Handle`]).
//!
//! Old and new are of one user, and the socket lies in a directory that is this user's alone.

mod adopt;
mod offer;
mod socket;
mod status;
mod wire;

pub(crate) use adopt::Adoption;
pub(crate) use offer::{Estate, Outcome, listen};
pub use status::{Status, StatusError};

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a step takes at most that needs no work: reading a message that is there, pausing the shards.
const STEP: Duration = Duration::from_secs(10);

/// Buckets whose levels travel. The rest begins full.
const LEVELS: usize = 200_000;

/// Below the data directory: what only lives while the process does.
pub(crate) const RUN: &str = "run";

/// Where a test says at which point the next process that takes over fails: see [`Fault`].
const FAULT_FILE: &str = "upgrade-fault";

/// Why a hand-over ended.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Nobody is there to take over from.
    #[error("no data plane runs on {0}: start one without --take-over")]
    Nobody(PathBuf),
    /// The other side said no.
    #[error("{0}")]
    Refused(String),
    /// The other side went away.
    #[error("the other process ended in the middle of the hand-over")]
    Gone,
    /// The other side took too long.
    #[error("{0} took longer than {1:?} (limit `upgrade-timeout`)")]
    Late(&'static str, Duration),
    /// A message that cannot be understood.
    #[error("a message of the hand-over cannot be understood: {0}")]
    Malformed(String),
    /// The system refuses.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

/// A failure that a test asks for: only where the process was told to allow faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// End before saying that it is ready.
    EndBeforeReady,
    /// Never get ready.
    HangBeforeReady,
    /// End when it has been told to accept.
    EndAfterGo,
    /// Never accept.
    HangAfterGo,
}

impl Fault {
    /// What the file below `data_dir` asks for.
    pub(crate) fn wanted(data_dir: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(data_dir.join(RUN).join(FAULT_FILE)).ok()?;
        match text.trim() {
            "end-before-ready" => Some(Self::EndBeforeReady),
            "hang-before-ready" => Some(Self::HangBeforeReady),
            "end-after-go" => Some(Self::EndAfterGo),
            "hang-after-go" => Some(Self::HangAfterGo),
            _ => None,
        }
    }

    /// Fails, if this is the point.
    pub(crate) fn strike(wanted: Option<Self>, end: Self, hang: Self) {
        if wanted == Some(end) {
            // As by a kill: no destructor runs.
            std::process::abort();
        }
        while wanted == Some(hang) {
            std::thread::park();
        }
    }
}
