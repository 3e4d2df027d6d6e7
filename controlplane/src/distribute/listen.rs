//! Accepting connections on the configuration address: TLS, and bounds on those who are not nodes yet.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};

/// Connections of strangers (in the handshake, or without a node's certificate) at a time; more wait to be accepted.
const STRANGERS_MAX: usize = 512;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection without a certificate may last: a join takes less than a second.
const STRANGER_LIFETIME: Duration = Duration::from_secs(30);
/// Connections that wait for the server to take them up.
const BACKLOG: usize = 64;

/// A connection after its handshake.
pub(super) struct Accepted {
    io: TlsStream<TcpStream>,
    stranger: Option<Stranger>,
}

struct Stranger {
    ends: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

/// Accepts until the receiver is dropped.
pub(super) fn accept(
    listener: TcpListener,
    config: ServerConfig,
) -> (mpsc::Receiver<io::Result<Accepted>>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let accepting = tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
        loop {
            let Ok(place) = strangers.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Of the connection, or of descriptors: neither is a reason to stop, both to go slowly.
                    tracing::warn!(%error, "cannot accept a node's connection");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let peer = stream.peer_addr().ok();
                match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(io)) => {
                        let _ = sender.send(Ok(Accepted::new(io, place))).await;
                    }
                    Ok(Err(error)) => tracing::debug!(?peer, %error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!(?peer, "a TLS handshake took too long"),
                }
            });
        }
    });
    (receiver, accepting)
}

// === impl Accepted ===

impl Accepted {
    fn new(io: TlsStream<TcpStream>, place: OwnedSemaphorePermit) -> Self {
        let known = io.get_ref().1.peer_certificates().is_some();
        let stranger = (!known).then(|| Stranger {
            ends: Box::pin(sleep(STRANGER_LIFETIME)),
            _place: place,
        });
        Self { io, stranger }
    }
}

impl Connected for Accepted {
    type ConnectInfo = TlsConnectInfo<TcpConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(stranger) = &mut this.stranger
            && stranger.ends.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
