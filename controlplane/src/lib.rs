//! The control plane: stores, checks, compiles and pushes definitions.

pub mod compile;
pub mod distribute;
pub mod grpc;
pub mod model;
pub mod openapi;
mod run;
pub mod service;
pub mod store;

pub use run::{Options, run, run_until};
