//! Request throttling: token buckets over the whole node, taken from by every shard.
//!
//! A [`Cell`] is one bucket: a single atomic word that all shards share. A shard does not go to it for every
//! request: while the bucket is well filled it borrows a few tokens at a time into a [`Credit`] of its own and
//! gives back what it did not use. How much may be on loan at once is a small share of what the bucket holds, so
//! a shard that sits on its loan cannot make another refuse more than that share, and loans count as held by the
//! bucket, so they never add to the burst. When the bucket runs low nothing is lent and each request takes its
//! own token from the cell. When a limit shrinks below what is on loan the loans are void, and shards hear of it before
//! they use the next token.
//!
//! - [`Limit`] is what a stage or method is configured with.
//! - [`Registry`] belongs to the configuration thread. It keys cells by a [`LimitId`] that survives deployments
//!   and hands out [`LimitHandle`]s.
//! - [`Credits`] belongs to a shard: its credits by dense [`LimitIndex`], and [`Credits::admit`], the one call
//!   on the request path.
//!
//! Time is a plain number of nanoseconds since an instant that all shards agree on, so a virtual clock can drive
//! everything here.

mod cell;
mod credit;
mod registry;

pub use cell::{Cell, InvalidLimit, Limit, Nanos};
pub use credit::{Credit, Credits, IDLE, Refused};
pub use registry::{Level, LimitHandle, LimitId, LimitIndex, Registry, TooManyLimits};
