//! The data plane: shards, HTTP on the wire, the request pipeline.

pub mod config;
pub mod function;
pub mod fuzz_bodies;
pub mod handover;
pub mod http;
pub mod integration;
pub mod limit;
pub mod net;
mod node;
pub mod pipeline;
pub mod shard;
pub mod sockets;
pub mod systemd;
pub mod telemetry;

pub use node::{Addresses, Error, Event, Node, Options, Successor, TAKE_OVER, run, write_ready_file};
