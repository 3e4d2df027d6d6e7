//! The control plane: stores, checks, compiles and pushes definitions.

pub mod compile;
pub mod distribute;
pub mod model;
pub mod openapi;
pub mod service;
pub mod store;
