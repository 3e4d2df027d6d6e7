//! A connection for each request, from blocking threads.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::tls::Kind;
use crate::{Target, answer, print_latencies};

/// What one thread has done.
#[derive(Debug, Default)]
struct Done {
    latencies: Vec<u64>,
    resumed: usize,
}

pub(crate) fn run(target: &Target, kind: Kind, seconds: u64, threads: usize) -> Result<()> {
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    let handles: Vec<_> = (0..threads)
        .map(|_| {
            let target = target.clone();
            std::thread::spawn(move || work(&target, kind, until))
        })
        .collect();
    let mut all = Done::default();
    for handle in handles {
        let done = handle
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        all.latencies.extend(done.latencies);
        all.resumed += done.resumed;
    }
    println!("requests {}", all.latencies.len());
    println!("seconds {}", began.elapsed().as_secs_f64());
    println!("resumed {}", all.resumed);
    print_latencies(all.latencies);
    Ok(())
}

fn work(target: &Target, kind: Kind, until: Instant) -> Result<Done> {
    // A configuration a thread: tickets are used once, and threads do not wait for each other.
    let config = kind.config()?;
    let request = target.request(true);
    let mut done = Done::default();
    loop {
        let began = Instant::now();
        if began >= until {
            return Ok(done);
        }
        done.resumed += usize::from(once(target, config.as_ref(), &request)?);
        done.latencies.push(began.elapsed().as_nanos() as u64);
    }
}

/// One connection from beginning to end; whether it resumed a session.
fn once(target: &Target, config: Option<&Arc<ClientConfig>>, request: &[u8]) -> Result<bool> {
    let mut socket = TcpStream::connect(target.address).context("connecting")?;
    socket.set_nodelay(true)?;
    let Some(config) = config else {
        socket.write_all(request)?;
        answer::read(&mut socket)?;
        await_end(socket)?;
        return Ok(false);
    };
    let name = "localhost".try_into()?;
    let session = ClientConnection::new(Arc::clone(config), name)?;
    let mut stream = StreamOwned::new(session, socket);
    stream.write_all(request)?;
    answer::read(&mut stream)?;
    let resumed = stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
    await_end(stream.sock)?;
    Ok(resumed)
}

/// Waits until the server has closed, so that the wait after the end of a connection is its own.
fn await_end(mut socket: TcpStream) -> Result<()> {
    let mut rest = [0_u8; 1024];
    loop {
        match socket.read(&mut rest) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
