//! Connections to the Admin API: so many at a time, none that says nothing.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, Sleep, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How long a connection may take for its first byte.
const FIRST: Duration = Duration::from_secs(10);
/// How long it may say nothing after that: clients answer the pings of HTTP/2 in between.
const SILENCE: Duration = Duration::from_secs(60);
/// Connections that wait for the server to take them up.
const BACKLOG: usize = 16;

/// A connection that holds one of the places.
pub(super) struct Accepted {
    io: TcpStream,
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

/// Accepts until the receiver is dropped; who comes while all places are taken waits in the kernel's queue.
pub(super) fn accept(listener: TcpListener, places: usize) -> ReceiverStream<io::Result<Accepted>> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(places));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((io, _)) => {
                    // Without it answers come a little later.
                    let _ = io.set_nodelay(true);
                    let accepted = Accepted {
                        io,
                        silence: Box::pin(sleep(FIRST)),
                        _place: place,
                    };
                    if sender.send(Ok(accepted)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // Of the connection, or of descriptors: neither is a reason to stop, both to go slowly.
                    tracing::warn!(%error, "cannot accept a connection to the Admin API");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

// === impl Accepted ===

impl Connected for Accepted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before {
                    this.silence.as_mut().reset(Instant::now() + SILENCE);
                }
                Poll::Ready(result)
            }
            Poll::Pending => match this.silence.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
        }
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
