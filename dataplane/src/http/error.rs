//! What peers get wrong.

use thiserror::Error;

/// Why a request's head is refused. The connection is closed after the answer: where the next request would
/// begin is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum RequestError {
    #[error("the request line is longer than allowed")]
    LineTooLong,
    #[error("the header fields are more or longer than allowed")]
    HeadTooLarge,
    #[error("a line ends in LF without CR")]
    BareLf,
    #[error("the request line or a header field is malformed")]
    Malformed,
    #[error("the version is not HTTP/1.0 or HTTP/1.1")]
    Version,
    #[error("Host is missing, repeated or malformed")]
    Host,
    #[error("the request target is neither a path nor an absolute http URI")]
    Target,
    #[error("CONNECT")]
    Connect,
    #[error("Content-Length is repeated, empty, signed or too large")]
    ContentLength,
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    #[error("Transfer-Encoding does not end in a single `chunked`, or comes with HTTP/1.0")]
    TransferEncoding,
    #[error("a transfer coding other than chunked")]
    CodingUnknown,
    #[error("an expectation other than 100-continue")]
    Expectation,
    #[error("a field that speaks of one HTTP/1 connection, in HTTP/2")]
    ConnectionField,
}

impl RequestError {
    /// The status that answers it.
    pub fn status(self) -> u16 {
        match self {
            RequestError::LineTooLong => 414,
            RequestError::HeadTooLarge => 431,
            RequestError::Version => 505,
            RequestError::CodingUnknown => 501,
            RequestError::Expectation => 417,
            RequestError::BareLf
            | RequestError::Malformed
            | RequestError::Host
            | RequestError::Target
            | RequestError::Connect
            | RequestError::ContentLength
            | RequestError::LengthAndCoding
            | RequestError::TransferEncoding
            | RequestError::ConnectionField => 400,
        }
    }
}

/// Why a backend's response head is refused. Its connection is closed, and the client gets the answer for a
/// failed integration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum ResponseError {
    #[error("the response head is larger than allowed")]
    HeadTooLarge,
    #[error("the status line or a header field is malformed")]
    Malformed,
    #[error("lengths that differ, or are not numbers")]
    ContentLength,
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    #[error("a transfer coding other than chunked, or one with HTTP/1.0")]
    TransferEncoding,
}

/// Why a body is refused: 400 towards a client, 502 for a backend; the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum BodyError {
    #[error("a chunk's size is not a hexadecimal number below 2^63")]
    ChunkSize,
    #[error("a chunk, its extension or its end is malformed")]
    Chunk,
    #[error("the chunk extensions are longer than allowed")]
    ExtensionsTooLong,
    #[error("the trailer section is malformed")]
    Trailer,
    #[error("the trailer section is longer than allowed")]
    TrailerTooLong,
    #[error("the connection ended before the body did")]
    Truncated,
}
