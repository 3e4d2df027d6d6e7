//! The control plane: stores, checks, compiles and pushes definitions.

pub mod model;
