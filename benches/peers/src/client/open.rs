//! Load that does not wait for answers: requests are due at fixed instants. One that is due while every connection is
//! busy waits for one, and that wait is part of its latency.

use std::collections::VecDeque;
use std::io::{BufRead as _, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::poll::Poll;
use crate::{Target, answer, print_latencies};

/// How long answers are waited for once the load has ended. What has not come by then counts as if it came then.
const PATIENCE: Duration = Duration::from_secs(3);

struct Connection {
    socket: TcpStream,
    /// When the request under way was due.
    due: Option<Instant>,
    received: Vec<u8>,
}

pub(crate) fn run(target: &Target, seconds: u64, connections: usize, rate: f64) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut open = Vec::with_capacity(connections);
    for number in 0..connections {
        let socket = TcpStream::connect(target.address).context("connecting")?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        poll.watch(&socket, number)?;
        open.push(Connection {
            socket,
            due: None,
            received: Vec::new(),
        });
    }
    println!("ready {connections}");
    std::io::stdout().flush()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    let request = target.request(false);
    let mut free: VecDeque<usize> = (0..connections).collect();
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let count = (rate * seconds as f64) as u64;
    let mut latencies = Vec::with_capacity(count as usize);
    let began = Instant::now();
    let due_at = |number: u64| began + Duration::from_secs_f64(number as f64 / rate);
    let last = due_at(count) + PATIENCE;
    let mut next = 0;
    let mut ready = Vec::new();
    let mut buffer = vec![0_u8; 64 * 1024];
    while (latencies.len() as u64) < count {
        let now = Instant::now();
        if now >= last {
            break;
        }
        while next < count && due_at(next) <= now {
            waiting.push_back(due_at(next));
            next += 1;
        }
        while let Some(due) = waiting.front() {
            let Some(number) = free.pop_front() else { break };
            open[number].send(&request, *due)?;
            waiting.pop_front();
        }
        let until = if next < count { due_at(next) } else { last };
        ready.clear();
        ready.extend(poll.wait(until)?);
        for number in ready.drain(..) {
            if let Some(due) = open[number].receive(&mut buffer)? {
                latencies.push(due.elapsed().as_nanos() as u64);
                free.push_back(number);
            }
        }
    }
    let answered = latencies.len();
    let lost = open.iter().filter_map(|connection| connection.due);
    let lost = lost.chain(waiting).chain((next..count).map(due_at));
    latencies.extend(lost.map(|due| due.elapsed().as_nanos() as u64));
    println!("requests {answered}");
    println!("unanswered {}", latencies.len() - answered);
    println!("seconds {}", began.elapsed().as_secs_f64());
    print_latencies(latencies);
    Ok(())
}

impl Connection {
    fn send(&mut self, request: &[u8], due: Instant) -> Result<()> {
        // A request fits into an empty socket.
        if self.socket.write(request)? != request.len() {
            bail!("a request did not fit");
        }
        self.due = Some(due);
        Ok(())
    }

    /// Takes bytes in; when the answer is whole, the instant at which its request was due.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Instant>> {
        let count = match self.socket.read(buffer) {
            Ok(0) => bail!("a connection was closed"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.received.extend_from_slice(&buffer[..count]);
        match answer::length(&self.received)? {
            Some(length) if length == self.received.len() => {
                self.received.clear();
                Ok(Some(self.due.take().context("an answer that nobody asked for")?))
            }
            Some(length) if length < self.received.len() => bail!("more than an answer"),
            _ => Ok(None),
        }
    }
}
