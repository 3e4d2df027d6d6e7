//! Streams on each driver: bytes in, bytes out, ends.

mod support;

use std::io;

use support::{on_each_driver, pair, read_exactly, soon};
use tidegate_rt::{self as rt, Chunk, ConnectOptions, Stream};

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
