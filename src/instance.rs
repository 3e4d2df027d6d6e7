//! How commands find the running instance: a file in the data directory with its addresses and process id.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, test_kill_process},
};
use serde::{Deserialize, Serialize};

/// What the instance file of a data directory says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Instance {
    /// The process that the instance lives and dies with.
    pub(crate) pid: u32,
    /// Where the Admin API listens.
    pub(crate) admin: SocketAddr,
    /// A file with the token that the Admin API takes.
    pub(crate) admin_token_file: PathBuf,
    /// The authority behind the Admin API's certificate, where it speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) authority_file: Option<PathBuf>,
}

impl Instance {
    /// Reads the instance file of `data_dir` and checks that the process lives.
    pub(crate) fn find(data_dir: &Path) -> anyhow::Result<Self> {
        let file = data_dir.join(FILE_NAME);
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "no Tidegate runs on {dir}: start one with `tidegate up --data-dir {dir}`, name another directory with \
                 --data-dir, or a remote instance with TIDEGATE_SERVER and TIDEGATE_TOKEN",
                dir = data_dir.display()
            ),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        let instance: Self =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
        if !instance.is_alive() {
            bail!(
                "the Tidegate of {dir} (process {pid}) is not running any more: start it with `tidegate up --data-dir {dir}`",
                dir = data_dir.display(),
                pid = instance.pid
            );
        }
        Ok(instance)
    }

    /// Writes the instance file of `data_dir`.
    pub(crate) fn publish(&self, data_dir: &Path) -> anyhow::Result<()> {
        write_atomically(&data_dir.join(FILE_NAME), &serde_json::to_vec_pretty(self)?)
    }

    /// The token, read from its file.
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        let file = &self.admin_token_file;
        let text = std::fs::read_to_string(file).with_context(|| {
            format!(
                "cannot read the token in {}: run as the user that runs Tidegate, or set TIDEGATE_TOKEN",
                file.display()
            )
        })?;
        Ok(text.trim().to_owned())
    }

    fn is_alive(&self) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return false;
        };
        // Anything but "no such process" means that there is one, though it may not be ours to signal.
        test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
    }
}

/// Keeps a data directory to one process: the lock goes when the process does, however it ends.
#[derive(Debug)]
pub(crate) struct DataDirLock(#[allow(dead_code, reason = "held for its lock")] File);

impl DataDirLock {
    /// Creates `data_dir` where needed, readable by its owner alone, and takes its lock.
    pub(crate) fn take(data_dir: &Path) -> anyhow::Result<Self> {
        create_private_dir(data_dir)?;
        let path = data_dir.join("instance.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot write to the data directory {}", data_dir.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "another Tidegate runs on {}: stop it, or name another directory with --data-dir",
                data_dir.display()
            );
        }
        Ok(Self(file))
    }
}

/// Creates a directory and its parents; what is created is for its owner alone.
pub(crate) fn create_private_dir(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| {
            format!(
                "cannot create the directory {}; name another one with --data-dir",
                dir.display()
            )
        })
}

/// Replaces a file at once: a reader sees the old content or the new, never a part.
pub(crate) fn write_atomically(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut name = file.file_name().context("a file name is missing")?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = file.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut out = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        out.write_all(content)?;
        out.write_all(b"\n")?;
        drop(out);
        std::fs::rename(&temporary, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

const FILE_NAME: &str = "instance.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(pid: u32) -> Instance {
        Instance {
            pid,
            admin: SocketAddr::from(([127, 0, 0, 1], 1)),
            admin_token_file: PathBuf::from("/nowhere"),
            authority_file: None,
        }
    }

    #[test]
    fn a_published_instance_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let published = instance(std::process::id());
        published.publish(dir.path()).expect("published");
        assert_eq!(Instance::find(dir.path()).expect("found"), published);
    }

    #[test]
    fn a_dead_instance_says_how_to_start_one() {
        let dir = tempfile::tempdir().expect("a directory");
        // Above the kernel's largest possible pid.
        instance(0x3fff_ffff).publish(dir.path()).expect("published");
        let error = Instance::find(dir.path()).expect_err("dead").to_string();
        assert!(error.contains("tidegate up --data-dir"), "{error}");
    }

    #[test]
    fn no_instance_says_how_to_start_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = Instance::find(dir.path()).expect_err("none").to_string();
        assert!(
            error.contains("tidegate up --data-dir") && error.contains("TIDEGATE_SERVER"),
            "{error}"
        );
    }

    #[test]
    fn a_directory_has_one_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        let held = DataDirLock::take(dir.path()).expect("free");
        assert!(DataDirLock::take(dir.path()).is_err());
        drop(held);
        DataDirLock::take(dir.path()).expect("free again");
    }
}
