//! The Unix socket by which a new process finds the running one.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

use super::{HandoverError, RUN};

const NAME: &str = "dataplane.sock";

/// Listens, in place of whoever did before: that one's socket stays open but cannot be found any more.
pub(super) fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let directory = data_dir.join(RUN);
    std::fs::create_dir_all(&directory)?;
    let own = format!("{NAME}.{}", std::process::id());
    // One that an earlier process of this id left.
    match std::fs::remove_file(directory.join(&own)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = short(&directory, &own, UnixListener::bind)?;
    std::fs::rename(directory.join(&own), directory.join(NAME))?;
    Ok(listener)
}

/// Connects to the data plane that runs on a data directory.
pub(super) fn connect(data_dir: &Path) -> Result<UnixStream, HandoverError> {
    let directory = data_dir.join(RUN);
    short(&directory, NAME, UnixStream::connect).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            HandoverError::Nobody(data_dir.to_owned())
        }
        _ => HandoverError::System("cannot reach the running data plane", error),
    })
}

/// Socket paths have at most 108 bytes, data directories may have more: the directory is named by a descriptor.
fn short<T>(directory: &Path, name: &str, then: impl FnOnce(PathBuf) -> io::Result<T>) -> io::Result<T> {
    let directory = open(
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    then(PathBuf::from(format!(
        "/proc/self/fd/{}/{name}",
        directory.as_raw_fd()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_listener_is_found_however_deep_the_directory() {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("d".repeat(100)).join("e".repeat(100));
        assert!(matches!(
            connect(&deep),
            Err(HandoverError::System(..) | HandoverError::Nobody(_))
        ));
        let first = bind(&deep).unwrap();
        let second = bind(&deep).unwrap();
        let _client = connect(&deep).unwrap();
        second.set_nonblocking(true).unwrap();
        first.set_nonblocking(true).unwrap();
        assert!(second.accept().is_ok());
        assert!(first.accept().is_err());
        drop(second);
        assert!(matches!(connect(&deep), Err(HandoverError::Nobody(_))));
    }
}
