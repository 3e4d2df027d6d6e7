//! The access log: one line a request, in the format the API's developer wrote.
//!
//! A shard packs the fields that the stage's format asks for into its ring, without allocating. The
//! [`Writer`]'s thread takes the records out, formats them and appends them to files. A full ring loses the
//! record and counts it: a slow disk never slows a request.

mod entry;
mod files;
mod format;
mod ring;
mod writer;

pub use entry::FieldMask;
pub use format::{Format, FormatError, StageFacts, preset};
pub use writer::{LogHandle, LogStats, LogTarget, Writer, WriterOptions};

pub(super) use entry::Encoder;
pub(super) use ring::Producer;
