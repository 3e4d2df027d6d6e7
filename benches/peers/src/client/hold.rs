//! Connections that do nothing after one request.

use std::io::{BufRead as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::tls::Kind;
use crate::{Target, answer};

/// A connection that is kept.
#[expect(dead_code, reason = "held, so that they stay open")]
enum Held {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

pub(crate) fn run(target: &Target, kind: Kind) -> Result<()> {
    let config = kind.config()?;
    let mut held = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let count: usize = line?.trim().parse().context("how many")?;
        // One after the other: what many at once need is not what an idle one needs.
        for _ in 0..count {
            held.push(open(target, config.as_ref())?);
        }
        println!("ready {}", held.len());
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn open(target: &Target, config: Option<&Arc<ClientConfig>>) -> Result<Held> {
    let mut socket = TcpStream::connect(target.address).context("connecting")?;
    socket.set_nodelay(true)?;
    let request = target.request(false);
    let Some(config) = config else {
        socket.write_all(&request)?;
        answer::read(&mut socket)?;
        return Ok(Held::Plain(socket));
    };
    let session = ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?;
    let mut stream = StreamOwned::new(session, socket);
    stream.write_all(&request)?;
    answer::read(&mut stream)?;
    Ok(Held::Tls(Box::new(stream)))
}
