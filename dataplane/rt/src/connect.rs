//! Opening connections.

use std::convert::Infallible;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use monoio::net::TcpStream;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::op::{Op, Port};
use crate::options::{self, TcpOptions};
use crate::runtime;
use crate::stream::Stream;

/// How a connection is opened.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// How it behaves.
    pub tcp: TcpOptions,
    /// The local address to connect from; port 0 lets the kernel choose one.
    pub local: Option<SocketAddr>,
    /// The network interface to connect through, by name.
    pub interface: Option<String>,
}

impl Stream {
    /// Opens a TCP connection to `address`.
    ///
    /// Given up, the attempt is ended and its socket closed. There is no time limit of its own but the kernel's.
    ///
    /// # Panics
    /// Outside of [`crate::run`].
    pub async fn connect(address: SocketAddr, options: &ConnectOptions) -> io::Result<Stream> {
        let uring = runtime::driver()
            .expect("connections are opened inside of rt::run")
            .is_uring();
        let socket = open(address, options)?;
        let done = match socket.connect(&address.into()) {
            Ok(()) => true,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => false,
            Err(error) => return Err(error),
        };
        let mut socket = TcpStream::from_std(socket.into())?;
        if !done {
            let mut attempt = Attempt {
                fd: socket.as_raw_fd(),
                handshake: Op::new(waiter),
            };
            attempt.handshake.arm(socket);
            let (result, back) = std::future::poll_fn(|cx| attempt.handshake.poll(cx)).await;
            socket = back;
            result?;
        }
        let stream = Stream::new(socket, Some(address));
        if let Some(error) = SockRef::from(&stream).take_error()? {
            return Err(error);
        }
        // Made non-blocking for the handshake; see `Stream::from_fd`.
        SockRef::from(&stream).set_nonblocking(!uring)?;
        Ok(stream)
    }
}

fn open(address: SocketAddr, options: &ConnectOptions) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    options.tcp.apply(&socket)?;
    if let Some(interface) = &options.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if let Some(local) = options.local {
        if local.port() == 0 {
            options::set_port_later(&socket)?;
        }
        socket.bind(&local.into())?;
    }
    Ok(socket)
}

/// A handshake that somebody waits for.
struct Attempt {
    fd: RawFd,
    handshake: Op<TcpStream, (io::Result<()>, TcpStream)>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.handshake.is_armed() {
            // SAFETY: the operation is armed, so its engine still owns the socket.
            let socket = unsafe { BorrowedFd::borrow_raw(self.fd) };
            // Ends a handshake under way and so the wait for it; the operation then closes the socket.
            let _ = SockRef::from(&socket).shutdown(Shutdown::Both);
        }
    }
}

/// Waits until a connecting socket is connected, or has failed to.
async fn waiter(port: Port<TcpStream, (io::Result<()>, TcpStream)>) -> Infallible {
    loop {
        let socket = port.request().await;
        let result = socket.writable(false).await;
        port.finish((result, socket));
    }
}
