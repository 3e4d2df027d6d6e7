//! The backend of the side-by-side measurement: one thread, epoll, fixed answers, as little work as a server can do.
//!
//! `peers-responder ADDRESS`: the path's end says how long the answer is: `/b` 10 KiB, `/m` 1 MiB, `/g` 100 MiB, `/j` 1 KiB
//! of JSON, any other 128 bytes. Bodies of requests, of known length, are read and dropped.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use rustix::event::epoll;

/// Bytes of request heads that are kept while they wait; more end the connection.
const HEAD_LIMIT: usize = 64 * 1024;

/// Marks the listening socket among the events.
const LISTENER: u64 = u64::MAX;

/// The bytes of long bodies, sent again and again.
const BLOCK: usize = 1024 * 1024;

/// What a request is answered with.
#[derive(Debug)]
struct Answer {
    path_end: &'static [u8],
    /// The head, and the body where it is shorter than a block.
    start: Vec<u8>,
    /// How many blocks follow.
    blocks: usize,
}

/// What is being sent of an answer.
struct Sending<'a> {
    rest: &'a [u8],
    blocks: usize,
}

struct Connection<'a> {
    stream: TcpStream,
    pending: Vec<u8>,
    sending: Option<Sending<'a>>,
}

/// Everything that can be sent.
struct Answers {
    kinds: [Answer; 5],
    block: Vec<u8>,
}

fn main() -> Result<()> {
    let address = std::env::args()
        .nth(1)
        .context("usage: peers-responder ADDRESS")?;
    let listener = TcpListener::bind(&address).with_context(|| format!("listening on {address}"))?;
    // The standard library's own backlog of 128 is not for ten thousand connections.
    rustix::net::listen(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    let answers = Answers::new();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &poll,
        &listener,
        epoll::EventData::new_u64(LISTENER),
        epoll::EventFlags::IN,
    )?;
    let mut connections: HashMap<RawFd, Connection<'_>> = HashMap::new();
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
                            sending: None,
                        },
                    );
                }
                continue;
            }
            let key = data as RawFd;
            let Some(connection) = connections.get_mut(&key) else {
                continue;
            };
            let was_sending = connection.sending.is_some();
            if !connection.serve(&mut buffer, &answers) {
                // Closing the descriptor takes it out of the epoll set.
                connections.remove(&key);
                continue;
            }
            let is_sending = connection.sending.is_some();
            if is_sending != was_sending {
                let flags = if is_sending {
                    epoll::EventFlags::OUT
                } else {
                    epoll::EventFlags::IN
                };
                let stream = &connection.stream;
                epoll::modify(&poll, stream, epoll::EventData::new_u64(data), flags)?;
            }
        }
    }
}

impl<'a> Connection<'a> {
    /// Goes on with what was begun, then answers what has come; `false` when the connection must end.
    fn serve(&mut self, buffer: &mut [u8], answers: &'a Answers) -> bool {
        if self.sending.is_some() {
            if !self.send(&answers.block) {
                return false;
            }
            if self.sending.is_some() {
                return true;
            }
            return self.answer_pending(answers);
        }
        let read = match self.stream.read(buffer) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        if self.pending.is_empty() && request_end(&buffer[..read]) == Some(read) {
            return self.answer(&buffer[..read], answers);
        }
        self.pending.extend_from_slice(&buffer[..read]);
        self.answer_pending(answers) && self.pending.len() <= HEAD_LIMIT
    }

    fn answer_pending(&mut self, answers: &'a Answers) -> bool {
        while self.sending.is_none()
            && let Some(end) = request_end(&self.pending)
        {
            let head: Vec<u8> = self.pending.drain(..end).collect();
            if !self.answer(&head, answers) {
                return false;
            }
        }
        true
    }

    fn answer(&mut self, head: &[u8], answers: &'a Answers) -> bool {
        let answer = answers.to(head);
        self.sending = Some(Sending {
            rest: &answer.start,
            blocks: answer.blocks,
        });
        self.send(&answers.block)
    }

    /// Sends what the socket takes; `false` when the connection must end.
    fn send(&mut self, block: &'a [u8]) -> bool {
        while let Some(sending) = &mut self.sending {
            match self.stream.write(sending.rest) {
                Ok(0) => return false,
                Ok(written) => sending.rest = &sending.rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if sending.rest.is_empty() {
                if sending.blocks == 0 {
                    self.sending = None;
                } else {
                    sending.rest = block;
                    sending.blocks -= 1;
                }
            }
        }
        true
    }
}

impl Answers {
    fn new() -> Self {
        Self {
            kinds: [
                Answer::whole(b"/", body(128)),
                Answer::whole(b"/b", body(10_240)),
                Answer::whole(b"/j", document()),
                Answer::blocks(b"/m", 1),
                Answer::blocks(b"/g", 100),
            ],
            block: body(BLOCK),
        }
    }

    /// The answer to a request; the first where the path says nothing.
    fn to(&self, head: &[u8]) -> &Answer {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let path = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        self.kinds[1..]
            .iter()
            .find(|answer| path.ends_with(answer.path_end))
            .unwrap_or(&self.kinds[0])
    }
}

impl Answer {
    fn whole(path_end: &'static [u8], body: Vec<u8>) -> Self {
        let mut start = head(body.len());
        start.extend(body);
        Self {
            path_end,
            start,
            blocks: 0,
        }
    }

    fn blocks(path_end: &'static [u8], blocks: usize) -> Self {
        Self {
            path_end,
            start: head(blocks * BLOCK),
            blocks,
        }
    }
}

/// A head with the header fields that a real backend sends.
fn head(length: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nServer: responder\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + (at % 26) as u8).collect()
}

/// A kibibyte of JSON: pets, as many as fit.
fn document() -> Vec<u8> {
    let pets: Vec<_> = (1..=20)
        .map(|id| format!("{{\"id\":{id},\"type\":\"dog\",\"price\":249.99,\"tags\":[\"a\"]}}"))
        .collect();
    format!("{{\"pets\":[{}]}}", pets.join(",")).into_bytes()
}

/// Where the first request of `bytes` ends, body included; `None` while it is not whole.
fn request_end(bytes: &[u8]) -> Option<usize> {
    const LENGTH: &[u8] = b"content-length: ";
    let head = find_head_end(bytes)?;
    if bytes.starts_with(b"GET") {
        return Some(head);
    }
    let lower = bytes[..head].to_ascii_lowercase();
    let at = lower.windows(LENGTH.len()).position(|window| window == LENGTH);
    let digits = at.map_or(&b"0"[..], |at| &lower[at + LENGTH.len()..]);
    let length = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    (bytes.len() >= head + length).then_some(head + length)
}

fn find_head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}
