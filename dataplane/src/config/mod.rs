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

mod build;
mod live;
mod shards;

pub use build::{Certificate, Settings};
pub use live::{ResolveError, Resolver, Stage};
pub use shards::{
    Apply, Change, ConfigMessage, Confirmation, FlushCall, ProbeCall, SendError, ShardSink, confirmation,
};
