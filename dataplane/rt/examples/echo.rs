//! The least that a server can do: a fixed HTTP answer to any bytes. Shows what a stream costs above the bare runtime.
//!
//! ```text
//! cargo run --release -p tidegate-rt --example echo -- 127.0.0.1:8080 auto        # streams of tidegate-rt
//! cargo run --release -p tidegate-rt --example echo -- 127.0.0.1:8080 auto raw    # the same on the bare runtime
//! wrk -t1 -c50 -d5s http://127.0.0.1:8080/
//! cat /proc/$(pgrep -n echo)/task/*/schedstat                                     # first field: ns on the processor
//! ```

use std::net::SocketAddr;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use tidegate_rt::{
    self as rt, Chunk, DriverChoice, DriverKind, ListenOptions, Listener, RuntimeOptions, Stream,
};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: echo\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments
        .next()
        .ok_or("usage: echo ADDRESS [DRIVER] [raw]")?
        .parse()?;
    let choice: DriverChoice = arguments.next().as_deref().unwrap_or("auto").parse()?;
    let kind = rt::probe(choice)?;
    let listener = rt::listen(address, &ListenOptions::default())?;
    eprintln!("{kind} on {}", listener.local_addr()?);
    match arguments.next() {
        None => rt::run(RuntimeOptions::new(kind), streams(listener))??,
        Some(_) => raw(kind, listener)?,
    }
    Ok(())
}

async fn streams(listener: std::net::TcpListener) -> std::io::Result<()> {
    let listener = Listener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        rt::spawn(answer(stream));
    }
}

async fn answer(mut stream: Stream) {
    while let Ok(Some(_)) = stream.read().await {
        stream.queue(Chunk::from_static(ANSWER));
        if stream.flush().await.is_err() {
            return;
        }
    }
}

/// The same without this crate's streams, on a ring with the same flags.
fn raw(kind: DriverKind, listener: std::net::TcpListener) -> std::io::Result<()> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_submit_all().setup_cqsize(2048);
    match kind {
        DriverKind::UringDefer => ring.setup_single_issuer().setup_defer_taskrun(),
        DriverKind::UringCoop | DriverKind::Epoll => ring.setup_coop_taskrun(),
    };
    listener.set_nonblocking(kind == DriverKind::Epoll)?;
    let serve = async {
        let listener = monoio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            monoio::spawn(async move {
                let mut buffer = vec![0; 4096];
                loop {
                    let (read, returned) = stream.read(buffer).await;
                    buffer = returned;
                    if !matches!(read, Ok(count) if count > 0) || stream.write_all(ANSWER).await.0.is_err() {
                        return;
                    }
                }
            });
        }
    };
    match kind {
        DriverKind::Epoll => RuntimeBuilder::<LegacyDriver>::new()
            .enable_timer()
            .build()?
            .block_on(serve),
        _ => RuntimeBuilder::<IoUringDriver>::new()
            .uring_builder(ring)
            .with_entries(512)
            .enable_timer()
            .build()?
            .block_on(serve),
    }
}
