//! Memory for bytes on their way through a shard: pooled blocks, the writable [`Buffer`] and the shared [`Chunk`].
//!
//! A block is one allocation with a header and a payload. A [`Buffer`] owns the unwritten tail of a block (and what it
//! wrote there since); a [`Chunk`] is a counted, read-only slice of what has been written. Both can hold the same block
//! at once, because what a chunk shows is never written again: this is how a connection receives into the tail of a
//! block whose front is still being parsed. Counts are not atomic; nothing here crosses threads.

mod block;
mod buffer;
mod chunk;
pub mod pool;

pub use buffer::Buffer;
pub use chunk::Chunk;
pub(crate) use pool::{CLASS_SIZES, LARGEST_CLASS};
