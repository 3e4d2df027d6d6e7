//! A test of the suites: a name, a body, and where it runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};

use crate::backend::Backend;
use crate::instance::{Deployed, Instance, Plan};

/// The variable that lets a request make a phase panic.
const FAULT_INJECTION: &str = "TIDEGATE_FAULT_INJECTION";

/// The variable that lets plain connections begin with HTTP/2.
const PRIOR_KNOWLEDGE: &str = "TIDEGATE_HTTP2_PRIOR_KNOWLEDGE";

/// The world in which a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum World {
    /// `--io-driver uring`.
    Uring,
    /// `--io-driver epoll`.
    Epoll,
    /// `--io-driver auto` where seccomp refuses io_uring, as container runtimes do.
    Confined,
}

impl World {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Uring, Self::Epoll, Self::Confined];

    /// The word that test names begin with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
            Self::Confined => "confined",
        }
    }
}

/// One test.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// Its name, without module and world.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&Context) -> Result<()>,
    /// Where it runs.
    pub worlds: &'static [World],
    /// Whether only the slow run has it.
    pub slow: bool,
}

impl Test {
    /// A test of the I/O path: runs with both drivers, and confined.
    pub const fn everywhere(name: &'static str, run: fn(&Context) -> Result<()>) -> Self {
        Self {
            name,
            run,
            worlds: &World::ALL,
            slow: false,
        }
    }

    /// A test that long or heavy use of both drivers matters to, but not how the driver was chosen.
    pub const fn both_drivers(name: &'static str, run: fn(&Context) -> Result<()>) -> Self {
        Self {
            name,
            run,
            worlds: &[World::Uring, World::Epoll],
            slow: false,
        }
    }

    /// A test that the driver does not matter to.
    pub const fn once(name: &'static str, run: fn(&Context) -> Result<()>) -> Self {
        Self {
            name,
            run,
            worlds: &[World::Uring],
            slow: false,
        }
    }

    /// The same test, in the slow run only.
    #[must_use]
    pub const fn slow(mut self) -> Self {
        self.slow = true;
        self
    }
}

/// What a test gets: the binary, a directory of its own, and an instance that it shares with others.
#[derive(Debug)]
pub struct Context {
    binary: PathBuf,
    world: World,
    directory: PathBuf,
    shared: Arc<SharedInstances>,
}

/// One running installation a world, started by the first test that asks, used by all that do not harm it.
#[derive(Debug, Default)]
pub struct SharedInstances {
    slots: [Mutex<Option<Arc<Shared>>>; 3],
}

/// A running installation and a backend behind it.
#[derive(Debug)]
pub struct Shared {
    /// Both planes under a supervisor.
    pub instance: Instance,
    /// The backend.
    pub backend: Backend,
}

impl Shared {
    /// The address of plain HTTP.
    pub fn http(&self) -> SocketAddr {
        self.instance.ready().http
    }

    /// Imports a definition as an API of its own and deploys it to stage `test`.
    pub fn deploy(&self, definition: &crate::definition::Definition) -> Result<Deployed> {
        self.instance.import(definition, "test")
    }
}

impl Context {
    /// What the runner makes for each test.
    pub fn new(binary: &Path, world: World, directory: PathBuf, shared: Arc<SharedInstances>) -> Self {
        Self {
            binary: binary.to_owned(),
            world,
            directory,
            shared,
        }
    }

    /// The world that this test runs in.
    pub fn world(&self) -> World {
        self.world
    }

    /// A directory that is kept when the test fails.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The `tidegate` binary.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// How to start processes in this test's world, with their data and logs in its directory.
    pub fn plan(&self) -> Plan {
        Plan::new(&self.binary, self.world, &self.directory)
    }

    /// The installation that this world's tests share: both planes under `up`, two shards.
    pub fn shared(&self) -> Result<Arc<Shared>> {
        let mut slot = self.shared.slots[self.world as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = &*slot {
            return Ok(shared.clone());
        }
        let home = tempfile::Builder::new()
            .prefix("tidegate-shared-")
            .tempdir()
            .context("a directory")?
            .keep();
        let instance = Plan::new(&self.binary, self.world, &home)
            .set(FAULT_INJECTION, "1")
            .set(PRIOR_KNOWLEDGE, "true")
            .up("shared")
            .context("starting the shared instance")?;
        let shared = Arc::new(Shared {
            instance,
            backend: Backend::start()?,
        });
        *slot = Some(shared.clone());
        Ok(shared)
    }
}

impl SharedInstances {
    /// Stops them all; directories go when `keep` is false.
    pub fn stop(&self, keep: bool) {
        for slot in &self.slots {
            let Some(shared) = slot.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                continue;
            };
            let home = shared.instance.home().to_owned();
            drop(shared);
            if keep {
                eprintln!(
                    "the shared instance's data and logs are kept in {}",
                    home.display()
                );
            } else {
                // A directory that cannot be removed is left to the system's own cleaning of its temporary files.
                let _ = std::fs::remove_dir_all(home);
            }
        }
    }
}
