//! The side towards clients: plain, or TLS with nothing around the library.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tidegate_rt::{Buffer, Chunk, Stream};

use crate::Writer;

/// Bytes of a record, its header and its tag.
const RECORD: usize = 16 * 1024 + 512;

/// A client's connection.
pub(crate) enum Client {
    Plain(Stream),
    Tls(Stream, Box<ServerConnection>),
}

impl Client {
    /// A connection over TLS; its handshake goes on as it is read from.
    pub(crate) fn tls(socket: Stream, config: &Arc<ServerConfig>) -> Result<Self> {
        let mut session = ServerConnection::new(Arc::clone(config))?;
        session.set_buffer_limit(None);
        Ok(Self::Tls(socket, Box::new(session)))
    }

    /// The next bytes; `None` when the client has finished.
    pub(crate) async fn read(&mut self) -> Result<Option<Chunk>> {
        let (socket, session) = match self {
            Self::Plain(socket) => return Ok(socket.read().await?),
            Self::Tls(socket, session) => (socket, session),
        };
        loop {
            let mut reader = session.reader();
            match reader.fill_buf() {
                Ok([]) => return Ok(None),
                Ok(bytes) => {
                    let chunk = Chunk::copy_from_slice(bytes);
                    let length = bytes.len();
                    reader.consume(length);
                    return Ok(Some(chunk));
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if session.wants_write() {
                draw(socket, session)?;
                socket.flush().await?;
            }
            let Some(chunk) = socket.read().await? else {
                if session.is_handshaking() {
                    bail!("closed within a handshake");
                }
                return Ok(None);
            };
            let mut bytes: &[u8] = &chunk;
            while !bytes.is_empty() {
                session.read_tls(&mut bytes)?;
                session.process_new_packets()?;
            }
        }
    }

    /// Appends to what the next flush sends.
    pub(crate) fn queue(&mut self, chunk: Chunk) -> Result<()> {
        match self {
            Self::Plain(socket) => socket.queue(chunk),
            Self::Tls(_, session) => session.writer().write_all(&chunk)?,
        }
        Ok(())
    }

    /// Sends all that is queued.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        match self {
            Self::Plain(socket) => socket.flush().await?,
            Self::Tls(socket, session) => {
                draw(socket, session)?;
                socket.flush().await?;
            }
        }
        Ok(())
    }

    /// Ends our side in order.
    pub(crate) async fn close(&mut self) -> Result<()> {
        if let Self::Tls(_, session) = self {
            session.send_close_notify();
            self.flush().await?;
        }
        Ok(())
    }
}

/// Moves ciphertext to the socket's queue.
fn draw(socket: &mut Stream, session: &mut ServerConnection) -> Result<()> {
    while session.wants_write() {
        let mut out = Buffer::with_capacity(RECORD);
        session.write_tls(&mut Writer(&mut out))?;
        socket.queue(out.freeze());
    }
    Ok(())
}

/// Without tickets; AES-128-GCM first, as everybody here.
pub(crate) fn config(certificate: &str, key: &str) -> Result<Arc<ServerConfig>> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .context("the certificate")?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).context("the key")?)?;
    config.ignore_client_order = true;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}
