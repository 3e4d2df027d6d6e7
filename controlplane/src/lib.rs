//! The control plane: stores, checks, compiles and pushes definitions.

pub mod distribute;
pub mod model;
