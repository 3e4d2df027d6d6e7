//! A connection's bytes, plain or over TLS: one interface, one owner, never split.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use tidegate_rt::{Chunk, Stream};

use super::tls::TlsStream;

/// A connection, to a client or to an upstream.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a plain stream, the common case, is not to cost an allocation"
)]
pub enum Io {
    /// Plain TCP.
    Plain(Stream),
    /// TLS over TCP.
    Tls(Box<TlsStream>),
}

impl Io {
    /// The next bytes; `None` after the peer's orderly end. A pending read stays armed, so giving up loses nothing.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match self {
            Self::Plain(stream) => stream.poll_read(cx),
            Self::Tls(stream) => stream.poll_read(cx),
        }
    }

    /// Whether nothing can be read from a connection that no read is armed on: no byte, no end, no error. Over TLS a
    /// read is the only way to tell a message of the protocol's own from what it carries.
    pub fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_quiet(),
            Self::Tls(stream) => stream
                .poll_read(&mut Context::from_waker(std::task::Waker::noop()))
                .is_pending(),
        }
    }

    /// The next bytes, as a future.
    ///
    /// # Errors
    /// As the socket reports them.
    pub async fn read(&mut self) -> io::Result<Option<Chunk>> {
        poll_fn(|cx| self.poll_read(cx)).await
    }

    /// Gives bytes back, to be read first.
    pub fn unread(&mut self, chunk: Chunk) {
        if chunk.is_empty() {
            return;
        }
        match self {
            Self::Plain(stream) => stream.unread(chunk),
            Self::Tls(stream) => stream.unread(chunk),
        }
    }

    /// Adds to what will be sent.
    pub fn queue(&mut self, chunk: Chunk) {
        if chunk.is_empty() {
            return;
        }
        match self {
            Self::Plain(stream) => stream.queue(chunk),
            Self::Tls(stream) => stream.queue(&chunk),
        }
    }

    /// Bytes queued and not yet sent.
    pub fn queued(&self) -> usize {
        match self {
            Self::Plain(stream) => stream.queued(),
            Self::Tls(stream) => stream.queued(),
        }
    }

    /// Sends what is queued; ready when all of it has left.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) if stream.queued() == 0 => Poll::Ready(Ok(())),
            Self::Plain(stream) => stream.poll_flush(cx),
            Self::Tls(stream) => stream.poll_flush(cx),
        }
    }

    /// Sends what is queued, as a future.
    ///
    /// # Errors
    /// As the socket reports them.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Queues the orderly end of what we send, where the transport has one of its own (TLS).
    pub fn end(&mut self) {
        if let Self::Tls(stream) = self {
            stream.close_notify();
        }
    }

    /// Closes our direction; the peer's goes on.
    pub fn shutdown_write(&mut self) {
        // A socket that is closed already needs no more of it.
        let _ = match self {
            Self::Plain(stream) => stream.shutdown_write(),
            Self::Tls(stream) => stream.socket().shutdown_write(),
        };
    }

    /// Ends the connection so that the peer sees a reset and not an end.
    pub fn reset(self) {
        match self {
            Self::Plain(stream) => stream.reset(),
            Self::Tls(stream) => stream.into_socket().reset(),
        }
    }
}
