//! Descriptors across exec: those that a process gets from whoever started it, and those that it must not pass on.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// The first descriptor behind the three standard ones; sd_listen_fds(3) counts from here.
const FIRST: RawFd = 3;

/// Takes the descriptors from 3 on that this process was started with, as sd_listen_fds(3) says. They are closed on exec
/// from then on, but stay open for processes that are forked meanwhile. To be called once, before anything is opened.
///
/// # Errors
/// When one of them is not open, or they were taken before.
pub fn inherited(count: usize) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::other("the inherited descriptors were taken before"));
    }
    let count = RawFd::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
    let end = FIRST.checked_add(count).ok_or(io::ErrorKind::InvalidInput)?;
    let mut taken = Vec::new();
    for descriptor in FIRST..end {
        // SAFETY: what is not open is refused by the next call and then never closed by us; what is open was given to
        // this process by its parent, and nobody else in it claims it: the flag above lets one caller through.
        let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
        match fcntl_getfd(&owned).and_then(|flags| fcntl_setfd(&owned, flags | FdFlags::CLOEXEC)) {
            Ok(()) => taken.push(owned),
            Err(error) => {
                std::mem::forget(owned);
                return Err(error.into());
            }
        }
    }
    Ok(taken)
}

/// Has a command start with nothing open but its standard streams. A connection that a ring accepts is open across exec
/// until we have seen it; a child that is started in that moment would keep it open.
pub fn pass_nothing_on(command: &mut Command) {
    // SAFETY: the closure makes one system call and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            // Numbers without a wrapper: libc has one only where glibc is new enough.
            let failed = libc::syscall(
                libc::SYS_close_range,
                FIRST as libc::c_uint,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
            match failed {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::process::Stdio;

    #[test]
    fn a_child_gets_nothing_but_its_standard_streams() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        // A number that `ls` does not use itself.
        let open = rustix::io::fcntl_dupfd_cloexec(&socket, 700).unwrap();
        fcntl_setfd(&open, FdFlags::empty()).unwrap();
        let passed = |isolated: bool| {
            let mut command = Command::new("ls");
            command.arg("/proc/self/fd").stdin(Stdio::null());
            if isolated {
                pass_nothing_on(&mut command);
            }
            let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
            text.lines().any(|line| line == open.as_raw_fd().to_string())
        };
        assert!(passed(false));
        assert!(!passed(true));
    }
}
