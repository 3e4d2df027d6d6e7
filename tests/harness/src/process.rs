//! Child processes: waiting for their exit and for what they write, and ending them by their own id.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// How long anything that must happen may take before the test is told that it did not.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a command with both outputs appended to `log`.
pub fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let out = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening {}", log.display()))?;
    let err = out.try_clone().context("a second handle to the log")?;
    command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .with_context(|| format!("starting {:?}", command.get_program()))
}

/// Sends a signal to a process by its id. A process that is gone already is no error.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("a process id is a positive number")?;
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("signalling process {pid:?}")),
    }
}

/// Whether a process with this id exists (a zombie counts as gone).
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim_start().starts_with('Z'))
    })
}

/// Waits for a process that need not be a child of this one to end. `false` when it still runs after `limit`.
pub fn await_end(pid: u32, limit: Duration) -> Result<bool> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        bail!("{pid} is no process id");
    };
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::SRCH) => return Ok(true),
        Err(error) => return Err(error).context("opening a pidfd"),
    };
    wait_readable(&[descriptor.as_fd()], Instant::now() + limit)
}

/// Waits for a child's exit; `None` when it still runs after `limit`.
pub fn await_exit(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    if await_end(child.id(), limit)? {
        return Ok(Some(child.wait().context("reaping a child")?));
    }
    Ok(None)
}

/// Waits until `ready` finds what it looks for in the directory of a file that another process writes, looking again
/// whenever something in that directory changes. Fails when `child` ends first, or after [`PATIENCE`].
pub fn await_file<T>(directory: &Path, child: &mut Child, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    let watch =
        inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).context("inotify")?;
    inotify::add_watch(
        &watch,
        directory,
        inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CREATE,
    )
    .with_context(|| format!("watching {}", directory.display()))?;
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("a child has an id")?;
    let ended = pidfd_open(pid, PidfdFlags::empty()).context("opening a pidfd")?;
    loop {
        if let Some(found) = ready() {
            return Ok(found);
        }
        if let Some(status) = child.try_wait().context("asking for a child's state")? {
            bail!("the process ended before it was ready ({status})");
        }
        if !wait_readable(&[watch.as_fd(), ended.as_fd()], deadline)? {
            bail!("the process was not ready after {} s", PATIENCE.as_secs());
        }
        let mut events = [0u8; 4096];
        while rustix::io::read(&watch, &mut events).is_ok_and(|read| read > 0) {}
    }
}

/// Waits until one of the descriptors can be read; `false` after the deadline.
fn wait_readable(descriptors: &[rustix::fd::BorrowedFd<'_>], deadline: Instant) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("a time-out that fits")?;
        let mut waits: Vec<_> = descriptors
            .iter()
            .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
            .collect();
        match poll(&mut waits, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
    }
}

/// Resident memory of a process, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let statm =
        std::fs::read_to_string(format!("/proc/{pid}/statm")).with_context(|| format!("memory of {pid}"))?;
    let pages: u64 = statm
        .split_whitespace()
        .nth(1)
        .context("statm has two fields")?
        .parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_written_by_a_child_is_noticed_and_its_end_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready");
        let mut child = spawn(
            {
                let mut command = Command::new("sh");
                command.arg("-c").arg(format!(
                    "echo yes > {0}.tmp && mv {0}.tmp {0}; exec sleep 600",
                    path.display()
                ));
                command
            },
            &directory.path().join("log"),
        )
        .unwrap();
        let text = await_file(directory.path(), &mut child, || {
            std::fs::read_to_string(&path).ok()
        })
        .unwrap();
        assert_eq!(text, "yes\n");
        assert!(alive(child.id()));
        signal(child.id(), Signal::KILL).unwrap();
        assert!(await_exit(&mut child, PATIENCE).unwrap().is_some());
        assert!(!alive(child.id()));
    }

    #[test]
    fn a_child_that_ends_instead_of_getting_ready_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = spawn(Command::new("false"), &directory.path().join("log")).unwrap();
        let error = await_file(directory.path(), &mut child, || None::<()>).unwrap_err();
        assert!(error.to_string().contains("ended before it was ready"), "{error}");
    }
}
