//! What a data directory tells of the data plane on it: whom to ask for an upgrade, and what came of the last one.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::RUN;

/// The content of `run/upgrade.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The process that starts an upgrade at SIGUSR2: a supervisor, or a data plane that has none.
    pub pid: u32,
    /// When that process began, in the kernel's clock ticks: tells it from another one of the same id.
    pub started: u64,
    /// The data plane's process.
    pub data_plane: u32,
    /// The data plane's program version, where known.
    #[serde(default)]
    pub version: String,
    /// Upgrades that have ended, well or not.
    pub ended: u64,
    /// Why the last one failed; absent where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Why no upgrade can be asked for.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// There is no file, or whoever wrote it has ended.
    #[error(
        "no data plane runs on {0}: start one with `tidegate up` or `tidegate dataplane`, or name another directory with --data-dir"
    )]
    Nobody(PathBuf),
    /// The file cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// The process cannot be signalled.
    #[error("process {0} cannot be signalled: {1}; run as the user that runs Tidegate")]
    Signal(u32, io::Error),
}

// === impl Status ===

impl Status {
    /// As told by the calling process, which takes SIGUSR2, of a data plane; `before` is what stood there.
    pub fn of(data_plane: u32, version: &str) -> Self {
        let pid = std::process::id();
        Self {
            pid,
            started: started(pid).unwrap_or_default(),
            data_plane,
            version: version.to_owned(),
            ended: 0,
            failure: None,
        }
    }

    /// Reads what a data directory tells, whoever wrote it.
    ///
    /// # Errors
    /// When there is nothing to read.
    pub fn read(data_dir: &Path) -> Result<Self, StatusError> {
        let path = path(data_dir);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| StatusError::File(path, error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StatusError::Nobody(data_dir.to_owned()))
            }
            Err(error) => Err(StatusError::File(path, error)),
        }
    }

    /// Whether the process that takes SIGUSR2 runs.
    pub fn is_alive(&self) -> bool {
        started(self.pid).is_some_and(|started| started == self.started)
    }

    /// Asks for an upgrade.
    ///
    /// # Errors
    /// When the process does not run, or is another user's.
    pub fn ask(&self, data_dir: &Path) -> Result<(), StatusError> {
        let nobody = || StatusError::Nobody(data_dir.to_owned());
        if !self.is_alive() {
            return Err(nobody());
        }
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(nobody)?;
        kill_process(pid, Signal::USR2).map_err(|error| StatusError::Signal(self.pid, error.into()))
    }

    /// Writes it for others to read: whole, or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn publish(&self, data_dir: &Path) -> Result<(), StatusError> {
        let path = path(data_dir);
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let write = || {
            std::fs::create_dir_all(data_dir.join(RUN))?;
            let file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            serde_json::to_writer(file, self)?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|error| StatusError::File(path.clone(), error))
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(RUN).join("upgrade.json")
}

/// When a process began; `None` when there is none. Field 22 of proc_pid_stat(5).
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field may hold blanks and brackets, none of those behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    (fields.next()? != "Z")
        .then(|| fields.nth(18)?.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_published_is_read_and_alive() {
        let home = tempfile::tempdir().unwrap();
        assert!(matches!(Status::read(home.path()), Err(StatusError::Nobody(_))));
        let mut status = Status::of(7, "0.1.0");
        status.ended = 3;
        status.publish(home.path()).unwrap();
        assert_eq!(Status::read(home.path()).unwrap(), status);
        assert!(status.is_alive() && status.started > 0);
        // The same id, another process.
        status.started += 1;
        assert!(!status.is_alive());
        assert!(matches!(status.ask(home.path()), Err(StatusError::Nobody(_))));
    }
}
