//! The seam to the io_uring runtime: everything a shard needs to run, and the only place that names the runtime crate.
//!
//! A shard is one thread that calls [`run`]. Inside, [`spawn`] starts tasks, [`Stream`] and [`Listener`] move bytes,
//! [`Timer`] bounds waits, [`mail`] brings messages from other threads and [`turn`] acts once at the end of each turn.
//! Nothing here is `Send` but the sending end of [`mail`]. Bytes live in pooled blocks: [`Buffer`] to write, [`Chunk`]
//! to share.
//!
//! Three rules keep kernel and program apart (decision D3): an operation and its buffer belong to the [`Stream`] that
//! started it, never to the future that awaits it; a stream that is dropped with operations in flight lives on, shut
//! down, until the kernel has answered; and [`run`] returns only when nothing is in flight on its ring.

mod buf;
mod clock;
mod connect;
mod cpu;
mod driver;
mod inherit;
mod listener;
mod op;
mod options;
mod runtime;
mod stream;
mod task;
mod timer;

pub mod mail;
pub mod turn;

pub use buf::{Buffer, Chunk, pool};
pub use clock::{Instant, now};
pub use connect::ConnectOptions;
pub use cpu::{available_cpus, pin_to_cpu};
pub use driver::{DriverChoice, DriverError, DriverKind, ParseDriverError, probe};
pub use inherit::{inherited, pass_nothing_on};
pub use listener::{ListenOptions, Listener, listen};
pub use options::{Keepalive, TcpOptions};
pub use runtime::{RuntimeOptions, driver, in_flight, run};
pub use stream::Stream;
pub use task::{JoinError, JoinHandle, apart, panics, spawn};
pub use timer::{Elapsed, Sleep, Timer, sleep, with_deadline};
