//! Brings bundles to the nodes and knows how far each has come.
//!
//! A node opens one stream over mutual TLS and says which revision it holds; the control plane answers with what
//! changed since, and goes on from there. What is to be sent is always computed from the revision that a node
//! acknowledged, never queued for it: a slow node costs no memory and gets the changes it missed as one.

mod registry;

pub use registry::{Connection, LONGEST_WAIT, NodeRecord, REFUSALS_KEPT, Registry, Rollout};
