//! What the tests share: every test runs on each driver that works here.

#![allow(dead_code, unreachable_pub)] // each test file uses a part

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tidegate_rt::{
    self as rt, ConnectOptions, DriverChoice, DriverKind, ListenOptions, Listener, RuntimeOptions, Stream,
    Timer,
};

/// Runs `test` once on each driver that this machine has, each time on a thread of its own, with freed memory watched.
pub fn on_each_driver<F>(test: impl Fn(DriverKind) -> F + Send + Clone + 'static)
where
    F: Future<Output = ()> + 'static,
{
    for kind in drivers() {
        let test = test.clone();
        let run = move || {
            rt::pool::watch(Some(64));
            rt::run(RuntimeOptions::new(kind), async move { test(kind).await }).unwrap();
            assert_eq!(rt::in_flight(), 0, "in flight at exit on {kind}");
            assert_eq!(rt::pool::stats().violations, 0, "use after free on {kind}");
            assert_eq!(
                rt::pool::stats().live,
                [0; rt::pool::CLASSES],
                "blocks still held on {kind}"
            );
        };
        if let Err(panic) = std::thread::spawn(run).join() {
            eprintln!("on {kind}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// The drivers that work here; io_uring may be forbidden.
pub fn drivers() -> Vec<DriverKind> {
    let mut kinds = vec![DriverKind::Epoll];
    if let Ok(best) = rt::probe(DriverChoice::Uring) {
        kinds.push(DriverKind::UringCoop);
        if best == DriverKind::UringDefer {
            kinds.push(best);
        }
    }
    kinds
}

/// A listener on a free loopback port.
pub fn listener() -> Listener {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    Listener::from_std(rt::listen(address, &ListenOptions::default()).unwrap()).unwrap()
}

/// Two connected streams.
pub async fn pair() -> (Stream, Stream) {
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let client = Stream::connect(address, &ConnectOptions::default())
        .await
        .unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

/// The result of `future`, which must come within the time in which a hung test gives up.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    let mut limit = Timer::new();
    limit.set_after(Duration::from_secs(20));
    rt::with_deadline(&mut limit, future)
        .await
        .expect("took too long")
}

/// Reads exactly `count` bytes.
pub async fn read_exactly(stream: &mut Stream, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        match stream.read().await? {
            Some(mut chunk) => {
                let take = chunk.len().min(count - bytes.len());
                bytes.extend_from_slice(&chunk.split_to(take));
                stream.unread(chunk);
            }
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    Ok(bytes)
}

/// A small generator of random numbers, the same for the same seed.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}
