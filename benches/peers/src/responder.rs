//! The backend of the side-by-side measurement: one thread, epoll, fixed answers, as little work as a server can do.
//!
//! `peers-responder ADDRESS`: a request whose path ends in `/b` gets 10,240 bytes, any other 128. Requests carry no body.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use rustix::event::epoll;

/// Bytes of a request head that are kept while it is incomplete; a longer one ends the connection.
const HEAD_LIMIT: usize = 64 * 1024;

/// Marks the listening socket among the events.
const LISTENER: u64 = u64::MAX;

struct Connection {
    stream: TcpStream,
    pending: Vec<u8>,
}

fn main() -> Result<()> {
    let address = std::env::args()
        .nth(1)
        .context("usage: peers-responder ADDRESS")?;
    let listener = TcpListener::bind(&address).with_context(|| format!("listening on {address}"))?;
    listener.set_nonblocking(true)?;
    let small = answer(128);
    let large = answer(10_240);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &poll,
        &listener,
        epoll::EventData::new_u64(LISTENER),
        epoll::EventFlags::IN,
    )?;
    let mut connections: HashMap<RawFd, Connection> = HashMap::new();
    let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("epoll"),
        }
        for event in &events {
            let data = event.data.u64();
            if data == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let key = stream.as_raw_fd();
                    epoll::add(
                        &poll,
                        &stream,
                        epoll::EventData::new_u64(key as u64),
                        epoll::EventFlags::IN,
                    )?;
                    connections.insert(
                        key,
                        Connection {
                            stream,
                            pending: Vec::new(),
                        },
                    );
                }
                continue;
            }
            let key = data as RawFd;
            if let Some(connection) = connections.get_mut(&key)
                && !connection.serve(&mut buffer, &small, &large)
            {
                // Closing the descriptor takes it out of the epoll set.
                connections.remove(&key);
            }
        }
    }
}

impl Connection {
    /// Answers what has come; `false` when the connection must end.
    fn serve(&mut self, buffer: &mut [u8], small: &[u8], large: &[u8]) -> bool {
        let read = match self.stream.read(buffer) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        if self.pending.is_empty()
            && buffer[..read].ends_with(b"\r\n\r\n")
            && count_heads(&buffer[..read]) == 1
        {
            return self.send(if is_large(&buffer[..read]) { large } else { small });
        }
        self.pending.extend_from_slice(&buffer[..read]);
        while let Some(end) = find_head_end(&self.pending) {
            let head: Vec<u8> = self.pending.drain(..end).collect();
            if !self.send(if is_large(&head) { large } else { small }) {
                return false;
            }
        }
        self.pending.len() <= HEAD_LIMIT
    }

    /// Writes a whole answer. The peers read what they asked for, so a full socket buffer is waited for.
    fn send(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return false,
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut wait = [rustix::event::PollFd::new(
                        &self.stream,
                        rustix::event::PollFlags::OUT,
                    )];
                    if rustix::event::poll(&mut wait, None).is_err() {
                        return false;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// A complete response with the header fields that a real backend sends.
fn answer(length: usize) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nServer: responder\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    bytes.extend((0..length).map(|at| b'a' + (at % 26) as u8));
    bytes
}

fn find_head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

fn count_heads(bytes: &[u8]) -> usize {
    find_head_end(bytes).map_or(0, |end| if end == bytes.len() { 1 } else { 2 })
}

fn is_large(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.windows(3).any(|window| window == b"/b ")
}
