//! No descriptor is lost. One test in a process of its own, as it counts those of the whole process.

mod support;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use support::{drivers, pair, soon};
use tidegate_rt::{self as rt, ConnectOptions, ListenOptions, Listener, RuntimeOptions, Stream, Timer};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn no_descriptor_is_lost() {
    // Whatever the process opens on first use.
    for kind in drivers() {
        run(kind, async { drop(pair().await) });
    }
    let before = open_descriptors();
    for kind in drivers() {
        run(kind, connections());
        assert_eq!(open_descriptors(), before, "connections on {kind}");
        run(kind, abandoned_connects());
        assert_eq!(open_descriptors(), before, "abandoned connects on {kind}");
        run(kind, unheard_accepts());
        assert_eq!(open_descriptors(), before, "accepts on {kind}");
        run(kind, refused());
        assert_eq!(open_descriptors(), before, "refused connects on {kind}");
    }
}

fn run(kind: rt::DriverKind, main: impl Future<Output = ()> + 'static) {
    rt::run(RuntimeOptions::new(kind), main).unwrap();
    assert_eq!(rt::in_flight(), 0);
}

/// Dropped in every state, some by the end of the run.
async fn connections() {
    for _ in 0..50 {
        let (mut left, mut right) = pair().await;
        left.arm_read();
        right.queue(rt::Chunk::from(vec![1; 100_000]));
        let mut timer = Timer::new();
        timer.set(rt::now());
        let _ = rt::with_deadline(&mut timer, right.flush()).await;
        rt::spawn(async move {
            let _right = right;
            std::future::pending::<()>().await;
        });
    }
}

/// A listener that accepts nobody and has a full backlog leaves handshakes hanging.
async fn abandoned_connects() {
    let options = ListenOptions {
        backlog: 0,
        ..ListenOptions::default()
    };
    let listener = rt::listen(SocketAddr::from(([127, 0, 0, 1], 0)), &options).unwrap();
    let address = listener.local_addr().unwrap();
    let _full: Vec<_> = (0..4)
        .map(|_| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM.nonblocking(), None)
                    .unwrap();
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let during = open_descriptors();
    for round in 0..20 {
        let mut timer = Timer::new();
        timer.set_after(Duration::from_millis(round % 3));
        let options = ConnectOptions::default();
        let attempt = rt::with_deadline(&mut timer, Stream::connect(address, &options)).await;
        assert!(attempt.is_err(), "the handshake was expected to hang");
    }
    // The sockets are closed while the shard lives, not only with it.
    soon(async {
        while open_descriptors() > during || rt::in_flight() > 0 {
            rt::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Connections that come while nobody awaits an accept, or that the listener is dropped over.
async fn unheard_accepts() {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::from_std(rt::listen(address, &ListenOptions::default()).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut timer = Timer::new();
    timer.set(rt::now());
    let _ = rt::with_deadline(&mut timer, listener.accept()).await;
    let clients: Vec<_> = (0..10)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    rt::turn::end().await;
    drop(listener);
    drop(clients);
}

async fn refused() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    for _ in 0..20 {
        let error = soon(Stream::connect(address, &ConnectOptions::default()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
