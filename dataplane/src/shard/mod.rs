//! A shard.
pub mod bounds;
pub mod clock;
pub mod mail;
