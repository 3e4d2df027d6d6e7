//! The data plane: shards, HTTP on the wire, the request pipeline.

pub mod config;
pub mod fuzz_bodies;
pub mod http;
pub mod limit;
pub mod net;
pub mod pipeline;
pub mod shard;
pub mod telemetry;
