//! A TLS session over a stream, with the stream's own interface.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use tidegate_rt::{Buffer, Chunk, Stream};

use std::io::{BufRead, Write};

/// Plaintext of one record at most; also how much one read hands out.
const RECORD: usize = 16 * 1024;

/// One TLS connection. It owns its socket; whoever polls it drives reading and writing both.
pub struct TlsStream {
    socket: Stream,
    session: Connection,
    /// Ciphertext received and not yet taken by the session.
    received: Option<Chunk>,
    /// Plaintext given back by the reader.
    unread: Option<Chunk>,
    /// The peer ended its side: in order (`close_notify`), or by closing the socket.
    peer_closed: bool,
    socket_ended: bool,
    /// Plaintext handed to the session since its ciphertext was last drawn.
    undrawn: usize,
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("handshaking", &self.session.is_handshaking())
            .finish_non_exhaustive()
    }
}

impl TlsStream {
    /// The server's side of a new connection.
    ///
    /// # Errors
    /// When the session cannot be set up.
    pub fn server(socket: Stream, config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self::new(
            socket,
            ServerConnection::new(config).map_err(io::Error::other)?.into(),
        ))
    }

    /// The client's side of a new connection to `host`.
    ///
    /// # Errors
    /// When `host` is neither a name nor an address, or the session cannot be set up.
    pub fn client(socket: Stream, config: Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Self::new(
            socket,
            ClientConnection::new(config, name)
                .map_err(io::Error::other)?
                .into(),
        ))
    }

    fn new(socket: Stream, mut session: Connection) -> Self {
        // Bounded by the callers' high-water marks, which count what is queued here.
        session.set_buffer_limit(None);
        Self {
            socket,
            session,
            received: None,
            unread: None,
            peer_closed: false,
            socket_ended: false,
            undrawn: 0,
        }
    }

    /// Drives the handshake to its end.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.draw()?;
            let flushed = self.socket.poll_flush(cx)?;
            if !self.session.is_handshaking() {
                return flushed.map(Ok);
            }
            if self.socket_ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_feed(cx))?;
        }
    }

    /// The server name that the client asked for.
    pub fn server_name(&self) -> Option<&str> {
        match &self.session {
            Connection::Server(session) => session.server_name(),
            Connection::Client(_) => None,
        }
    }

    /// The protocol that was agreed on (RFC 7301).
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// Plaintext, or `None` after the peer's orderly end. A socket that ends without it is an error of kind
    /// `UnexpectedEof`: what came before may have been cut short by anybody.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        if let Some(chunk) = self.unread.take() {
            return Poll::Ready(Ok(Some(chunk)));
        }
        loop {
            if let Some(chunk) = self.plaintext()? {
                return Poll::Ready(Ok(Some(chunk)));
            }
            if self.peer_closed {
                return Poll::Ready(Ok(None));
            }
            if self.socket_ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_feed(cx))?;
            // Answers of the protocol itself (key updates, alerts) leave with the next write or here.
            if self.session.wants_write() && self.undrawn == 0 {
                self.draw()?;
                let _ = self.socket.poll_flush(cx)?;
            }
        }
    }

    /// Gives plaintext back, to be read first.
    pub fn unread(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.unread = Some(chunk);
        }
    }

    /// Encrypts `chunk` and queues it.
    pub fn queue(&mut self, chunk: &[u8]) {
        // Without a buffer limit the session takes everything.
        let _ = self.session.writer().write(chunk);
        self.undrawn += chunk.len();
    }

    /// Bytes queued and not yet sent.
    pub fn queued(&self) -> usize {
        self.socket.queued() + self.undrawn
    }

    /// Sends what is queued.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.draw()?;
        self.socket.poll_flush(cx)
    }

    /// Queues the orderly end of our side.
    pub fn close_notify(&mut self) {
        self.session.send_close_notify();
        let _ = self.draw();
    }

    /// The socket below.
    pub fn socket(&mut self) -> &mut Stream {
        &mut self.socket
    }

    /// The socket below, without the session.
    pub fn into_socket(self) -> Stream {
        self.socket
    }

    /// Takes decrypted bytes out of the session.
    fn plaintext(&mut self) -> io::Result<Option<Chunk>> {
        let mut reader = self.session.reader();
        match reader.fill_buf() {
            Ok([]) => {
                self.peer_closed = true;
                Ok(None)
            }
            Ok(available) => {
                let length = available.len().min(RECORD);
                let chunk = Chunk::copy_from_slice(&available[..length]);
                reader.consume(length);
                Ok(Some(chunk))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // Reported by `poll_read` once nothing is left to read.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.socket_ended = true;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads ciphertext and gives it to the session.
    fn poll_feed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = match self.received.take() {
            Some(chunk) => chunk,
            None => match ready!(self.socket.poll_read(cx))? {
                Some(chunk) => chunk,
                None => {
                    self.socket_ended = true;
                    return Poll::Ready(Ok(()));
                }
            },
        };
        let mut bytes: &[u8] = &chunk;
        let before = bytes.len();
        self.session.read_tls(&mut bytes)?;
        let taken = before - bytes.len();
        chunk.advance(taken);
        if !chunk.is_empty() {
            self.received = Some(chunk);
        }
        match self.session.process_new_packets() {
            Ok(state) => {
                self.peer_closed |= state.peer_has_closed() && state.plaintext_bytes_to_read() == 0;
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                // The alert tells the peer why; it goes out as far as the socket takes it.
                let _ = self.draw();
                let _ = self.socket.poll_flush(cx);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)))
            }
        }
    }

    /// Moves ciphertext from the session to the socket's queue.
    fn draw(&mut self) -> io::Result<()> {
        self.undrawn = 0;
        while self.session.wants_write() {
            let mut out = Sink(Buffer::with_capacity(RECORD + 512));
            self.session.write_tls(&mut out)?;
            self.socket.queue(out.0.freeze());
        }
        Ok(())
    }
}

/// A buffer as the session writes to it.
struct Sink(Buffer);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
