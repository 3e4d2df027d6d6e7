//! Every socket option is read back from the kernel: on listening sockets, on what they accept, on what connects.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use socket2::SockRef;
use support::{on_each_driver, soon};
use tidegate_rt::{self as rt, ConnectOptions, Keepalive, ListenOptions, Listener, Stream, TcpOptions};

fn int(socket: &impl AsFd, level: i32, name: i32) -> i32 {
    let mut value = 0_i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed and so open; the kernel writes one integer of the size that it is told.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
    value
}

/// Values that no kernel has by itself.
fn odd() -> TcpOptions {
    TcpOptions {
        nodelay: true,
        keepalive: Some(Keepalive {
            idle: Duration::from_secs(123),
            interval: Duration::from_secs(17),
            retries: 7,
        }),
        user_timeout: Some(Duration::from_millis(12_345)),
        receive_buffer: 77_000,
        send_buffer: 55_000,
        unsent_low_water: 33_000,
    }
}

fn check(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(123));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(17));
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 7);
    assert_eq!(
        socket.tcp_user_timeout().unwrap(),
        Some(Duration::from_millis(12_345))
    );
    // The kernel doubles them for its own records.
    assert_eq!(socket.recv_buffer_size().unwrap(), 2 * 77_000);
    assert_eq!(socket.send_buffer_size().unwrap(), 2 * 55_000);
    assert_eq!(socket.tcp_notsent_lowat().unwrap(), 33_000);
}

#[test]
fn options_reach_the_kernel() {
    on_each_driver(|_| async {
        let options = ListenOptions {
            backlog: 321,
            defer_accept: Some(Duration::from_millis(2_500)),
            fast_open: 11,
            tcp: odd(),
            ..ListenOptions::default()
        };
        let listener = rt::listen((Ipv4Addr::LOCALHOST, 0).into(), &options).unwrap();
        check(&listener);
        // Rounded up to what retransmissions of the handshake add up to: 1, 3, 7 seconds.
        assert_eq!(int(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT), 3);
        assert_eq!(int(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN), 11);
        assert_eq!(backlog(&listener), 321);
        let address = listener.local_addr().unwrap();
        let listener = Listener::from_std(listener).unwrap();
        let connect = ConnectOptions {
            tcp: odd(),
            local: Some(SocketAddr::from(([127, 0, 0, 7], 0))),
            ..ConnectOptions::default()
        };
        let mut client = soon(Stream::connect(address, &connect)).await.unwrap();
        check(&client);
        assert_eq!(client.local_addr().unwrap().ip(), Ipv4Addr::new(127, 0, 0, 7));
        assert_eq!(int(&client, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT), 1);
        // Deferred: it is accepted when something has come.
        client.queue(rt::Chunk::from_static(b"x"));
        client.flush().await.unwrap();
        let (server, peer) = soon(listener.accept()).await.unwrap();
        check(&server);
        assert_eq!(peer.ip(), Ipv4Addr::new(127, 0, 0, 7));
    });
}

/// What nobody sets is the kernel's.
#[test]
fn the_rest_is_the_kernels() {
    on_each_driver(|_| async {
        let listener = rt::listen((Ipv4Addr::LOCALHOST, 0).into(), &ListenOptions::default()).unwrap();
        let plain = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let socket = SockRef::from(&listener);
        assert!(socket.tcp_nodelay().unwrap() && !socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        assert_eq!(
            socket.recv_buffer_size().unwrap(),
            plain.recv_buffer_size().unwrap()
        );
        assert_eq!(
            socket.send_buffer_size().unwrap(),
            plain.send_buffer_size().unwrap()
        );
        assert_eq!(
            socket.tcp_notsent_lowat().unwrap(),
            plain.tcp_notsent_lowat().unwrap()
        );
        assert_eq!(int(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT), 0);
        assert_eq!(int(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN), 0);
        assert_eq!(backlog(&listener), somaxconn().min(4096));
    });
}

/// Of a listening socket the kernel tells its backlog in a field of `tcp_info` that counts something else otherwise.
fn backlog(listener: &std::net::TcpListener) -> u32 {
    // SAFETY: a structure of plain integers, of which all bits zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed and so open; the kernel writes at most as much as it is told there is room for.
    let failed = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
    info.tcpi_sacked
}

fn somaxconn() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    text.trim().parse().unwrap()
}
