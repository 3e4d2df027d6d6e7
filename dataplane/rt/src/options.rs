//! What the kernel is told about sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// When and how often the kernel asks an idle peer whether it is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe; the kernel counts in seconds.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection is dead.
    pub retries: u32,
}

/// How a TCP connection behaves. Set on a listening socket, connections that it accepts inherit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Whether small segments are sent at once.
    pub nodelay: bool,
    /// Keep-alive probes.
    pub keepalive: Option<Keepalive>,
    /// How long sent bytes may stay unacknowledged; `None`: as long as the kernel tries (`net.ipv4.tcp_retries2`).
    pub user_timeout: Option<Duration>,
    /// Bytes that wait to be read; 0: the kernel sizes it by the traffic.
    pub receive_buffer: usize,
    /// Bytes that wait to be sent or acknowledged; 0: as above.
    pub send_buffer: usize,
    /// Unsent bytes above which a socket takes no more; 0: the kernel's (`net.ipv4.tcp_notsent_lowat`).
    pub unsent_low_water: u32,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: None,
            user_timeout: None,
            receive_buffer: 0,
            send_buffer: 0,
            unsent_low_water: 0,
        }
    }
}

impl TcpOptions {
    /// Tells the kernel. What stands for the kernel's own choice is not said.
    pub fn apply(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(socket);
        socket.set_tcp_nodelay(self.nodelay)?;
        if let Some(keepalive) = &self.keepalive {
            let probes = TcpKeepalive::new()
                .with_time(keepalive.idle)
                .with_interval(keepalive.interval)
                .with_retries(keepalive.retries);
            socket.set_tcp_keepalive(&probes)?;
        }
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        if self.receive_buffer > 0 {
            socket.set_recv_buffer_size(self.receive_buffer)?;
        }
        if self.send_buffer > 0 {
            socket.set_send_buffer_size(self.send_buffer)?;
        }
        if self.unsent_low_water > 0 {
            socket.set_tcp_notsent_lowat(self.unsent_low_water)?;
        }
        Ok(())
    }
}

/// Connections are handed out when their first bytes are there, or after this time; rounded up to seconds.
pub(crate) fn set_defer_accept(socket: &impl AsFd, time: Duration) -> io::Result<()> {
    let seconds = time.as_millis().div_ceil(1000);
    let seconds = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// So many connections at a time may bring their first bytes with their first packet (RFC 7413).
pub(crate) fn set_fast_open(socket: &impl AsFd, waiting: u32) -> io::Result<()> {
    let waiting = libc::c_int::try_from(waiting).unwrap_or(libc::c_int::MAX);
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, waiting)
}

/// Binding to an address leaves the port open until the connection's other end is known: then one port serves
/// connections to many.
pub(crate) fn set_port_later(socket: &impl AsFd) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// An option that no library at hand knows.
fn set_int(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel reads one integer of the size that it is
    // told, which outlives the call.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
