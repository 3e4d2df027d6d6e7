//! Which way of waiting for the kernel a shard uses (decision D4): chosen by building the real ring.

use std::fmt;
use std::io;
use std::str::FromStr;

use io_uring::{IoUring, opcode};

/// What the operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// The best that works here.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// epoll.
    Epoll,
}

/// What a shard runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring with `SINGLE_ISSUER` and `DEFER_TASKRUN` (Linux 6.1 and later).
    UringDefer,
    /// io_uring with `COOP_TASKRUN` (Linux 5.19 and later).
    UringCoop,
    /// epoll: also better than a ring without either flag, which is therefore never used.
    Epoll,
}

/// The text is not a [`DriverChoice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseDriverError(String);

/// No ring can be had, with what to do about it.
#[derive(Debug)]
pub enum DriverError {
    /// The kernel refuses the memory for the ring's queues.
    Memory(io::Error),
    /// Something forbids io_uring to this process.
    Forbidden(io::Error),
    /// The kernel has no io_uring, or one that is too old.
    Unsupported(io::Error),
    /// Anything else.
    Other(io::Error),
}

/// Operations that the runtime submits; a ring without one of them is of no use.
const NEEDED: [u8; 8] = [
    opcode::Recv::CODE,
    opcode::Send::CODE,
    opcode::Writev::CODE,
    opcode::Accept::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Close::CODE,
    opcode::Nop::CODE,
];

/// Finds the driver for `choice` by building a ring of the size and flags that shards use and sending one request
/// through it. `entries` as in [`crate::RuntimeOptions`].
pub fn probe(choice: DriverChoice) -> Result<DriverKind, DriverError> {
    if choice == DriverChoice::Epoll {
        return Ok(DriverKind::Epoll);
    }
    let defer = match try_ring(DriverKind::UringDefer) {
        Ok(()) => return Ok(DriverKind::UringDefer),
        Err(error) => error,
    };
    if try_ring(DriverKind::UringCoop).is_ok() {
        return Ok(DriverKind::UringCoop);
    }
    match choice {
        DriverChoice::Auto => Ok(DriverKind::Epoll),
        // The error of the first attempt says more: the second fails on every old kernel.
        _ => Err(DriverError::from_ring(defer)),
    }
}

/// The set-up of a ring for `kind`. The completion queue is larger than the submission queue because every connection
/// may have a receive armed long after its submission.
pub(crate) fn ring_builder(kind: DriverKind, entries: u32) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    // Without SUBMIT_ALL one bad request leaves those behind it in the queue, and a queue that stays full is something
    // that the runtime cannot handle.
    builder
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(entries.saturating_mul(4));
    match kind {
        DriverKind::UringDefer => builder.setup_single_issuer().setup_defer_taskrun(),
        DriverKind::UringCoop | DriverKind::Epoll => builder.setup_coop_taskrun(),
    };
    builder
}

fn try_ring(kind: DriverKind) -> io::Result<()> {
    let mut ring: IoUring =
        ring_builder(kind, crate::runtime::DEFAULT_ENTRIES).build(crate::runtime::DEFAULT_ENTRIES)?;
    let unsupported = |what: &str| io::Error::new(io::ErrorKind::Unsupported, what.to_owned());
    if !ring.params().is_feature_ext_arg() {
        return Err(unsupported("the ring has no waits with a time limit"));
    }
    let mut known = io_uring::Probe::new();
    ring.submitter().register_probe(&mut known)?;
    if let Some(code) = NEEDED.iter().find(|code| !known.is_supported(**code)) {
        return Err(unsupported(&format!("the ring lacks operation {code}")));
    }
    // A filter may allow the set-up and refuse the use.
    let nop = opcode::Nop::new().build();
    // SAFETY: a no-operation refers to no memory.
    let pushed = unsafe { ring.submission().push(&nop) };
    pushed.map_err(|_| unsupported("the ring takes no request"))?;
    ring.submit_and_wait(1)?;
    match ring.completion().next() {
        Some(_) => Ok(()),
        None => Err(unsupported("the ring does not answer")),
    }
}

impl DriverKind {
    /// Whether this is one of the io_uring kinds.
    pub fn is_uring(self) -> bool {
        self != DriverKind::Epoll
    }
}

impl DriverError {
    pub(crate) fn from_ring(error: io::Error) -> DriverError {
        use rustix::io::Errno;
        match Errno::from_io_error(&error) {
            Some(Errno::NOMEM) => DriverError::Memory(error),
            Some(Errno::PERM | Errno::ACCESS) => DriverError::Forbidden(error),
            Some(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => DriverError::Unsupported(error),
            None if error.kind() == io::ErrorKind::Unsupported => DriverError::Unsupported(error),
            _ => DriverError::Other(error),
        }
    }
}

impl FromStr for DriverChoice {
    type Err = ParseDriverError;

    fn from_str(text: &str) -> Result<DriverChoice, ParseDriverError> {
        match text {
            "auto" => Ok(DriverChoice::Auto),
            "uring" => Ok(DriverChoice::Uring),
            "epoll" => Ok(DriverChoice::Epoll),
            _ => Err(ParseDriverError(text.to_owned())),
        }
    }
}

impl fmt::Display for DriverChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DriverChoice::Auto => "auto",
            DriverChoice::Uring => "uring",
            DriverChoice::Epoll => "epoll",
        })
    }
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DriverKind::UringDefer => "uring-defer",
            DriverKind::UringCoop => "uring-coop",
            DriverKind::Epoll => "epoll",
        })
    }
}

impl fmt::Display for ParseDriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown I/O driver {:?}: use auto, uring or epoll", self.0)
    }
}

impl std::error::Error for ParseDriverError {}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriverError::Memory(error) => write!(
                f,
                "no memory for an io_uring ring ({error}): raise the locked-memory limit (LimitMEMLOCK= in the unit, \
                 or `ulimit -l`), use fewer shards, or choose --io-driver epoll"
            ),
            DriverError::Forbidden(error) => write!(
                f,
                "io_uring is forbidden here ({error}): a seccomp profile (containers have one by default) or the \
                 sysctl kernel.io_uring_disabled refuses it; allow it there, or choose --io-driver epoll"
            ),
            DriverError::Unsupported(error) => write!(
                f,
                "this kernel's io_uring does not do ({error}): Linux 5.19 or later is needed, 6.1 is better; or choose \
                 --io-driver epoll"
            ),
            DriverError::Other(error) => write!(f, "cannot set up an I/O driver: {error}"),
        }
    }
}

impl std::error::Error for DriverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DriverError::Memory(error)
            | DriverError::Forbidden(error)
            | DriverError::Unsupported(error)
            | DriverError::Other(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_documented_ones() {
        for (text, choice) in [
            ("auto", DriverChoice::Auto),
            ("uring", DriverChoice::Uring),
            ("epoll", DriverChoice::Epoll),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        let error = "kqueue".parse::<DriverChoice>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown I/O driver \"kqueue\": use auto, uring or epoll"
        );
        assert_eq!(DriverKind::UringDefer.to_string(), "uring-defer");
        assert_eq!(DriverKind::UringCoop.to_string(), "uring-coop");
        assert_eq!(DriverKind::Epoll.to_string(), "epoll");
    }

    #[test]
    fn probing_always_finds_something() {
        assert!(probe(DriverChoice::Auto).is_ok());
        assert_eq!(probe(DriverChoice::Epoll).unwrap(), DriverKind::Epoll);
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = |code| DriverError::from_ring(io::Error::from_raw_os_error(code)).to_string();
        assert!(error(12).contains("ulimit -l"));
        assert!(error(1).contains("seccomp"));
        assert!(error(38).contains("5.19"));
        assert!(error(22).contains("5.19"));
    }
}
