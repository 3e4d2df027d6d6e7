//! HTTP on the wire, without I/O: heads, bodies, framing (RFC 9112), and the heads and frames of HTTP/2 (RFC 9113).
//! Knows no APIs.
//!
//! A request or response head is one buffer with a table of spans over it and a few edits beside it (D2); nothing
//! is copied until the head that goes out is written. What a peer may get wrong is an error with the status that
//! answers it; nothing here panics on any input.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`scan`] | where a head ends, found as its bytes arrive |
//! | [`fields`] | header fields: the table, look-up, edits |
//! | [`known`] | the header fields that have rules |
//! | [`request`], [`response`] | heads with their framing decided |
//! | [`chunked`] | the chunked transfer coding, both ways |
//! | [`body`] | a body of any framing, as it arrives |
//! | [`frames`] | HTTP/2 frames as they pass |
//! | [`mod@write`] | heads on their way out |

pub mod body;
pub mod chunked;
pub mod error;
pub mod fields;
pub mod frames;
mod http2;
pub mod known;
pub mod request;
pub mod response;
pub mod scan;
pub mod write;

pub use body::{Decoded, Decoder, Framing};
pub use error::{BodyError, RequestError, ResponseError};
pub use fields::{FieldRef, Fields};
pub use known::Known;
pub use request::RequestHead;
pub use response::ResponseHead;
pub use scan::{HeadLimits, Scanner};
pub(crate) use write::decimal;
pub use write::{Compression, HeadWriter};

/// The version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: one request a connection, unless both sides say `keep-alive`.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

#[cfg(test)]
mod smuggling;
