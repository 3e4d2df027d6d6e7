//! Clients that take their answers slowly.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{Target, answer};

/// How often each connection takes a little.
const TICK: Duration = Duration::from_millis(100);

/// After how many seconds' worth of bytes a connection is as slow as it will stay.
const SETTLED: usize = 2;

struct Connection {
    socket: TcpStream,
    head: Vec<u8>,
    /// What of the answer has not come; `None` before its head.
    left: Option<usize>,
    received: usize,
}

pub(crate) fn run(target: &Target, connections: usize, bytes: usize) -> Result<()> {
    let (ended, end) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        // Input that cannot be read has ended, too.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(ended);
    });
    let request = target.request(false);
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut socket = TcpStream::connect(target.address).context("connecting")?;
        // Little room here: what is not taken is to wait in the proxy.
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 16 * 1024)?;
        socket.write_all(&request)?;
        socket.set_nonblocking(true)?;
        open.push(Connection {
            socket,
            head: Vec::new(),
            left: None,
            received: 0,
        });
    }
    let mut buffer = vec![0_u8; (bytes / 10).max(1)];
    let mut next = Instant::now();
    let mut told = false;
    loop {
        next += TICK;
        let wait = next.saturating_duration_since(Instant::now());
        match end.recv_timeout(wait) {
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            _ => break,
        }
        for connection in &mut open {
            connection.take(&mut buffer, &request)?;
        }
        // Before that everybody is busy with filling the kernel's buffers.
        if !told
            && open
                .iter()
                .all(|connection| connection.received >= SETTLED * bytes)
        {
            println!("ready {connections}");
            told = true;
        }
    }
    let received: usize = open.iter().map(|connection| connection.received).sum();
    println!("bytes {received}");
    Ok(())
}

impl Connection {
    /// Takes a little. Once the answer is whole, the next is asked for.
    fn take(&mut self, buffer: &mut [u8], request: &[u8]) -> Result<()> {
        let room = self.left.unwrap_or(buffer.len()).min(buffer.len());
        let count = match self.socket.read(&mut buffer[..room]) {
            Ok(0) => bail!("a connection was closed"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.received += count;
        match &mut self.left {
            Some(left) => *left -= count,
            None => {
                self.head.extend_from_slice(&buffer[..count]);
                if let Some(length) = answer::length(&self.head)? {
                    let have = self.head.len();
                    self.left = Some(length.checked_sub(have).context("more than an answer")?);
                    self.head.clear();
                }
            }
        }
        if self.left == Some(0) {
            self.left = None;
            self.socket.write_all(request)?;
        }
        Ok(())
    }
}
