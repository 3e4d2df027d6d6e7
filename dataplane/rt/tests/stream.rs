//! Streams on each driver: bytes in, bytes out, ends.

mod support;

use std::io;

use socket2::SockRef;
use support::{on_each_driver, pair, read_exactly, soon};
use tidegate_rt::{self as rt, Chunk, ConnectOptions, Stream, Timer};

#[test]
fn echo() {
    on_each_driver(|_| async {
        let (mut client, mut server) = pair().await;
        let task = rt::spawn(async move {
            while let Some(chunk) = server.read().await.unwrap() {
                server.queue(chunk);
                server.flush().await.unwrap();
            }
        });
        for round in 0..50u8 {
            let message = vec![round; 1 + usize::from(round) * 400];
            client.queue(Chunk::from(message.clone()));
            soon(client.flush()).await.unwrap();
            assert_eq!(
                soon(read_exactly(&mut client, message.len())).await.unwrap(),
                message
            );
        }
        client.shutdown_write().unwrap();
        assert_eq!(soon(client.read()).await.unwrap(), None);
        soon(task).await.unwrap();
    });
}

#[test]
fn refused_connections_are_an_error() {
    on_each_driver(|_| async {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let error = soon(Stream::connect(address, &ConnectOptions::default()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

/// D14: a backend that dies is seen as a reset, not as an end.
#[test]
fn reset_is_seen_as_reset() {
    on_each_driver(|_| async {
        let (mut client, mut server) = pair().await;
        server.arm_read();
        server.reset();
        let error = soon(client.read()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

/// D3: a stream dropped with operations in flight is closed for the peer at once.
#[test]
fn drop_with_operations_in_flight() {
    on_each_driver(|_| async {
        let (mut client, mut server) = pair().await;
        server.arm_read();
        drop(server);
        assert_eq!(soon(client.read()).await.unwrap(), None);
    });
}

/// A write larger than the socket takes goes out in parts and is whole at the other end.
#[test]
fn partial_writes() {
    on_each_driver(|_| async {
        let (mut client, mut server) = pair().await;
        SockRef::from(&client).set_send_buffer_size(4096).unwrap();
        let sent: Vec<u8> = (0..400_000u32).map(|i| (i / 7) as u8).collect();
        for part in sent.chunks(33_333) {
            client.queue(Chunk::copy_from_slice(part));
        }
        assert_eq!(client.queued(), sent.len());
        let writer = rt::spawn(async move {
            client.flush().await.unwrap();
            assert_eq!(client.queued(), 0);
            client
        });
        let received = soon(read_exactly(&mut server, sent.len())).await.unwrap();
        assert!(received == sent);
        drop(soon(writer).await.unwrap());
        assert_eq!(soon(server.read()).await.unwrap(), None);
        // The end stays the end.
        assert_eq!(soon(server.read()).await.unwrap(), None);
    });
}

/// Consecutive reads stand side by side in one block, so that a head that comes in parts is one slice without a copy.
#[test]
fn consecutive_reads_join() {
    on_each_driver(|_| async {
        let (mut client, mut server) = pair().await;
        let mut head = Chunk::default();
        for part in ["GET / HT", "TP/1.1\r\nHo", "st: a\r\n\r\n"] {
            client.queue(Chunk::from(part));
            soon(client.flush()).await.unwrap();
            let next = soon(server.read()).await.unwrap().unwrap();
            match head.is_empty() {
                true => head = next,
                false => head.try_join(next).unwrap(),
            }
        }
        assert_eq!(head, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    });
}

/// What is handed back is read first, in order.
#[test]
fn unread_bytes_come_first() {
    on_each_driver(|_| async {
        let (mut client, mut server) = pair().await;
        client.queue(Chunk::from("three"));
        soon(client.flush()).await.unwrap();
        server.unread(Chunk::from("two"));
        server.unread(Chunk::from("one"));
        for expected in [&b"one"[..], b"two", b"three"] {
            assert_eq!(&soon(server.read()).await.unwrap().unwrap()[..], expected);
        }
    });
}

/// After an error every flush fails and nothing is kept for it.
#[test]
fn a_failed_write_stays_failed() {
    on_each_driver(|_| async {
        let (mut client, server) = pair().await;
        server.reset();
        soon(client.read()).await.unwrap_err();
        client.queue(Chunk::from("lost"));
        soon(client.flush()).await.unwrap_err();
        client.queue(Chunk::from("lost"));
        soon(client.flush()).await.unwrap_err();
        assert_eq!(
            client.read().await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
    });
}

/// D6: closing a listener ends a waiting accept, loses no connection and leaves the socket to others who share it.
#[test]
fn close_ends_accept() {
    on_each_driver(|_| async {
        let listener = support::listener();
        let address = listener.local_addr().unwrap();
        let shared = std::net::TcpListener::from(rustix::io::dup(&listener).unwrap());
        let accepting = listener.clone();
        let accept = rt::spawn(async move {
            let mut count = 0;
            let error = loop {
                match accepting.accept().await {
                    Ok(_) => count += 1,
                    Err(error) => break error,
                }
            };
            assert!(accepting.is_closed());
            (count, error.kind())
        });
        for _ in 0..10 {
            drop(
                soon(Stream::connect(address, &ConnectOptions::default()))
                    .await
                    .unwrap(),
            );
        }
        rt::turn::end().await;
        listener.close();
        let (count, error) = soon(accept).await.unwrap();
        assert_eq!(error, io::ErrorKind::NotConnected);
        // The others wait for whoever shares the socket.
        shared.set_nonblocking(true).unwrap();
        let rest = std::iter::from_fn(|| shared.accept().ok()).count();
        assert_eq!(count + rest, 10);
    });
}

/// An accept that is given up loses no connection.
#[test]
fn accepts_may_be_given_up() {
    on_each_driver(|_| async {
        let listener = support::listener();
        let address = listener.local_addr().unwrap();
        let mut timer = Timer::new();
        timer.set(rt::now());
        assert!(rt::with_deadline(&mut timer, listener.accept()).await.is_err());
        let clients: Vec<_> = (0..30)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        for _ in 0..5 {
            timer.set(rt::now());
            // Ready or given up: what was accepted is closed, what was not is still there.
            if rt::with_deadline(&mut timer, listener.accept()).await.is_err() {
                rt::turn::end().await;
            }
        }
        let mut last = std::net::TcpStream::connect(address).unwrap();
        let end = last.local_addr().unwrap();
        while soon(listener.accept()).await.unwrap().1 != end {}
        drop(clients);
        io::Write::write_all(&mut last, b"x").unwrap();
    });
}

/// Sockets that a shard opens or accepts are closed on exec, and send small segments at once.
#[test]
fn sockets_have_their_options() {
    on_each_driver(|_| async {
        let (client, server) = pair().await;
        for stream in [&client, &server] {
            assert!(
                rustix::io::fcntl_getfd(stream)
                    .unwrap()
                    .contains(rustix::io::FdFlags::CLOEXEC)
            );
            assert!(SockRef::from(stream).tcp_nodelay().unwrap());
        }
        assert_eq!(client.peer_addr().unwrap(), server.local_addr().unwrap());
        assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
    });
}

/// More operations at once than the ring has room for: none is lost.
#[test]
fn more_operations_than_the_ring_holds() {
    for kind in support::drivers() {
        let mut options = rt::RuntimeOptions::new(kind);
        options.entries = 256;
        std::thread::spawn(move || {
            rt::run(options, async {
                let mut pairs = Vec::new();
                for _ in 0..700 {
                    let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
                    pairs.push((
                        Stream::from_fd(left.into()).unwrap(),
                        Stream::from_fd(right.into()).unwrap(),
                    ));
                }
                for (left, right) in &mut pairs {
                    left.arm_read();
                    right.arm_read();
                }
                for (left, right) in &mut pairs {
                    for stream in [left, right] {
                        stream.queue(Chunk::from("hello"));
                        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                        let _ = stream.poll_flush(&mut cx);
                    }
                }
                for (left, right) in &mut pairs {
                    for stream in [left, right] {
                        soon(stream.flush()).await.unwrap();
                    }
                }
                for (left, right) in &mut pairs {
                    for stream in [left, right] {
                        assert_eq!(soon(stream.read()).await.unwrap().unwrap(), b"hello");
                    }
                }
            })
            .unwrap();
            assert_eq!(rt::in_flight(), 0);
        })
        .join()
        .unwrap();
    }
}
