//! The use cases. Both faces call these, and nothing below them.

mod fleet;

pub use fleet::{Fleet, NoFleet, NodeState, RolloutState};
