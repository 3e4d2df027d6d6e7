//! Listening sockets.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use monoio::io::{CancelHandle, Canceller};
use monoio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use crate::op::{Op, Port};
use crate::options::{self, TcpOptions};
use crate::runtime;
use crate::stream::Stream;

/// Accepts kept under way on a ring. Each yields at most one connection a turn, and a turn of a busy shard is long; more
/// would wake in vain when connections are rare.
const ARMED: usize = 4;

/// How a listening socket is made by [`listen`].
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Several sockets on one address, among which the kernel spreads connections: one for each shard.
    pub reuse_port: bool,
    /// Connections that wait to be accepted; the kernel caps it at net.core.somaxconn.
    pub backlog: i32,
    /// Connections are handed out when their first bytes are there, or after so many seconds.
    pub defer_accept: Option<Duration>,
    /// Connections at a time that may bring their first bytes with their first packet; 0: none may.
    pub fast_open: u32,
    /// How accepted connections behave.
    pub tcp: TcpOptions,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            reuse_port: false,
            backlog: 4096,
            defer_accept: None,
            fast_open: 0,
            tcp: TcpOptions::default(),
        }
    }
}

impl ListenOptions {
    /// Tells the kernel what may be told of a socket that is bound already, as one from another process is.
    pub fn apply(&self, socket: &impl AsFd) -> io::Result<()> {
        self.tcp.apply(socket)?;
        if let Some(time) = self.defer_accept {
            options::set_defer_accept(socket, time)?;
        }
        if self.fast_open > 0 {
            options::set_fast_open(socket, self.fast_open)?;
        }
        Ok(())
    }
}

/// Opens a listening TCP socket. Needs no runtime; see [`Listener::from_std`] for the next step.
///
/// Accepted connections inherit the options from it, so that accepting costs no further calls.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    options.apply(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// A listening socket of this shard. Clones are handles to the same one, so that one task accepts and another closes.
#[derive(Clone)]
pub struct Listener {
    inner: Rc<Inner>,
}

type Accept = Op<(), io::Result<(TcpStream, SocketAddr)>>;

struct Inner {
    socket: Rc<TcpListener>,
    accepts: RefCell<Vec<Accept>>,
    /// Which accept is polled first next time.
    next: Cell<usize>,
    canceller: Cell<Option<Canceller>>,
    closed: Cell<bool>,
    waiter: Cell<Option<Waker>>,
}

impl Listener {
    /// Takes over a listening socket.
    ///
    /// # Panics
    /// Outside of [`crate::run`].
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Listener> {
        let kind = runtime::driver().expect("a listener is made inside of rt::run");
        // As for streams: a ring must be left to wait by itself.
        listener.set_nonblocking(!kind.is_uring())?;
        let socket = Rc::new(TcpListener::from_std(listener)?);
        let canceller = Canceller::new();
        let armed = if kind.is_uring() { ARMED } else { 1 };
        let accepts = (0..armed)
            .map(|_| Op::new(|port| acceptor(socket.clone(), canceller.handle(), port)))
            .collect();
        let inner = Inner {
            socket,
            accepts: RefCell::new(accepts),
            next: Cell::new(0),
            canceller: Cell::new(Some(canceller)),
            closed: Cell::new(false),
            waiter: Cell::new(None),
        };
        Ok(Listener {
            inner: Rc::new(inner),
        })
    }

    /// The next connection and the peer's address.
    ///
    /// Given up, the accept stays under way and the next call takes it up: no connection is lost.
    ///
    /// # Errors
    /// What accepting failed with (see [`Listener::is_closed`]); most such errors pass, running out of descriptors only
    /// after some have been closed, so that the caller should pause on an error.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`Listener::accept`], for use inside of other futures.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        let inner = &*self.inner;
        let mut accepts = inner.accepts.borrow_mut();
        let count = accepts.len();
        let mut waiting = false;
        for offset in 0..count {
            let index = (inner.next.get() + offset) % count;
            let accept = &mut accepts[index];
            if !accept.is_armed() {
                if inner.closed.get() {
                    continue;
                }
                accept.arm(());
            }
            let Poll::Ready(result) = accept.poll(cx) else {
                waiting = true;
                continue;
            };
            match result {
                Ok((socket, peer)) => {
                    inner.next.set(index);
                    return Poll::Ready(Stream::accepted(socket, peer).map(|stream| (stream, peer)));
                }
                Err(_) if inner.closed.get() => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if !waiting {
            return Poll::Ready(Err(closed()));
        }
        inner.waiter.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Stops accepting. Connections that were accepted meanwhile are still returned by [`Listener::accept`], which
    /// fails after the last of them. The socket itself is left alone: another process may share it.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Whether [`Listener::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.inner.closed.get()
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.socket.local_addr()
    }
}

impl Inner {
    fn close(&self) {
        if self.closed.replace(true) {
            return;
        }
        if runtime::driver().is_none() {
            return; // nothing is in flight and nobody waits
        }
        // Answers every accept under way, with a connection if one had come.
        if let Some(canceller) = self.canceller.take() {
            drop(canceller.cancel());
        }
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self.inner`, which the borrow of `self` keeps.
        unsafe { BorrowedFd::borrow_raw(self.inner.socket.as_raw_fd()) }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("fd", &self.inner.socket.as_raw_fd())
            .field("closed", &self.is_closed())
            .finish()
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the listener was closed")
}

async fn acceptor(
    socket: Rc<TcpListener>,
    cancel: CancelHandle,
    port: Port<(), io::Result<(TcpStream, SocketAddr)>>,
) -> Infallible {
    loop {
        port.request().await;
        port.finish(socket.cancelable_accept(cancel.clone()).await);
    }
}

impl Stream {
    /// An accepted connection. A ring's accept leaves it open across exec, so that is put right here.
    fn accepted(socket: TcpStream, peer: SocketAddr) -> io::Result<Stream> {
        let stream = Stream::new(socket, Some(peer));
        if runtime::driver().is_some_and(|kind| kind.is_uring()) {
            rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::CLOEXEC)?;
        }
        Ok(stream)
    }
}
