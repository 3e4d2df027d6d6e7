//! The node's configuration: received from the control plane, checked, kept on disk, handed to the shards.
//!
//! Everything here runs on one helper thread of its own; a shard never waits for it. The order of a change is
//! fixed (decision C2): check, build, append durably, hand to every shard, every shard confirms, acknowledge. A bundle
//! that cannot be used is refused by itself: its old content goes on, and so does everything else.
//!
//! ```text
//!  control plane ── stream ──> client ──> build ──> lkg (fsync) ──> shards ──> acknowledgement
//!                              disk at start ──────────^
//! ```

mod bindings;
mod build;
mod client;
mod content;
mod files;
mod identity;
mod integration;
mod live;
mod lkg;
mod orders;
mod shards;
mod tickets;
mod world;

use std::{io, thread};

use tokio::sync::oneshot;

pub use bindings::{Binding, Bindings};
pub use build::{Certificate, Settings};
pub use client::NodeOptions;
pub use content::ContentError;
pub use identity::{Identity, IdentityError, JoinFile};
pub use live::{ResolveError, Resolver, Stage};
pub use lkg::{BUNDLE_MAX, BundleKey, Held, LastKnownGood, LkgError, Step};
pub use orders::{Frozen, Handle, NoAnswer};
pub use shards::{
    Apply, Change, ConfigMessage, Confirmation, FlushCall, ProbeCall, SendError, ShardSink, confirmation,
};
pub use world::{FORMATS, Surroundings};

use client::Client;
use world::World;

/// The running configuration thread. Dropping it ends the thread and waits for it.
#[derive(Debug)]
pub struct Config {
    orders: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Why the configuration thread cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The last known good configuration cannot be opened.
    #[error(transparent)]
    Disk(#[from] LkgError),
    /// The join file cannot be used, and the node has not joined yet.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The system gives no thread.
    #[error("cannot start the configuration thread: {0}")]
    Thread(#[from] io::Error),
}

/// What the configuration thread tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The shards run a configuration, from disk or from the control plane. Told once.
    Configured,
    /// The thread has ended by itself, and why: a shard is gone.
    Ended(String),
}

/// Starts the configuration thread: it gives the shards what is on disk, then follows the control plane. The node is
/// not ready (for its health checks) until it has some configuration.
///
/// Started `frozen` it follows the control plane only when it is told to ([`Handle::thaw`]).
pub fn start(
    options: NodeOptions,
    around: Surroundings,
    frozen: bool,
    tell: impl Fn(News) + Send + 'static,
) -> Result<Config, StartError> {
    let lkg = LastKnownGood::open(&options.directory)?;
    if Identity::load(&options.directory)?.is_none() {
        match &options.join_file {
            // A file that is wrong now is better told now than in the log.
            Some(path) => drop(JoinFile::read(path)?),
            // It can serve what it has, without ever getting more.
            None if lkg.keys().next().is_some() => {}
            None => return Err(IdentityError::NotJoined.into()),
        }
    }
    around.telemetry.node().block(
        BLOCKER,
        "waiting for a first configuration from the control plane",
    );
    let telemetry = around.telemetry.clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let (orders, inbox) = Handle::new();
    let client = Client::new(options, World::new(around, lkg));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = thread::Builder::new().name("config".to_owned()).spawn(move || {
        let told = &tell;
        let configured = move || {
            telemetry.node().unblock(BLOCKER);
            told(News::Configured);
        };
        let work = async {
            tokio::select! {
                ended = client.run(inbox, frozen, &configured) => ended.err(),
                _ = stopped => None,
            }
        };
        if let Some(error) = runtime.block_on(work) {
            tracing::error!(%error, "the node takes no more configuration");
            tell(News::Ended(error.to_string()));
        }
    })?;
    Ok(Config {
        orders,
        stop: Some(stop),
        thread: Some(thread),
    })
}

// === impl Config ===

impl Config {
    /// The way to give it orders.
    pub fn orders(&self) -> &Handle {
        &self.orders
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It catches nothing and panics for no peer; what it had to say is in the log.
            let _ = thread.join();
        }
    }
}

/// What keeps the node from being ready.
const BLOCKER: &str = "configuration";
