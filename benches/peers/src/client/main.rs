//! The clients of the side-by-side measurement for what wrk and h2load do not do.
//!
//! - `peers-client connect ADDRESS HOST PATH plain|full|resumed SECONDS THREADS`: a connection for each request.
//! - `peers-client open ADDRESS HOST PATH SECONDS CONNECTIONS RATE`: so many requests a second, whatever the answers do;
//!   latency counts from the instant at which a request was due. Prints `ready` once connected, and begins at a line of
//!   its input.
//! - `peers-client hold ADDRESS HOST PATH plain|full`: opens as many connections as the next line of its input says, a
//!   request on each, prints `ready`, and keeps them until its input ends.
//! - `peers-client slow ADDRESS HOST PATH CONNECTIONS BYTES`: so many connections, each of which takes so many bytes a
//!   second, until its input ends; prints `ready` once each does.
//!
//! Results go to standard output, a name and a number a line. A failed request ends the program with an error.

mod answer;
mod connect;
mod hold;
mod open;
mod poll;
mod slow;
mod tls;

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

/// Whom to ask, and for what.
#[derive(Debug, Clone)]
struct Target {
    address: SocketAddr,
    host: String,
    path: String,
}

impl Target {
    /// A request; the last of its connection or not.
    fn request(&self, last: bool) -> Vec<u8> {
        let end = if last { "Connection: close\r\n" } else { "" };
        format!("GET {} HTTP/1.1\r\nHost: {}\r\n{end}\r\n", self.path, self.host).into_bytes()
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, address, host, path, rest @ ..] = arguments.as_slice() else {
        bail!("usage: peers-client connect|open|hold|slow ADDRESS HOST PATH ...");
    };
    let target = Target {
        address: address.parse().context("the address")?,
        host: host.clone(),
        path: path.clone(),
    };
    match (mode.as_str(), rest) {
        ("connect", [kind, seconds, threads]) => {
            connect::run(&target, kind.parse()?, seconds.parse()?, threads.parse()?)
        }
        ("open", [seconds, connections, rate]) => {
            open::run(&target, seconds.parse()?, connections.parse()?, rate.parse()?)
        }
        ("hold", [kind]) => hold::run(&target, kind.parse()?),
        ("slow", [connections, bytes]) => slow::run(&target, connections.parse()?, bytes.parse()?),
        _ => bail!("wrong arguments for {mode}"),
    }
}

/// Prints the quantiles of latencies, which are in nanoseconds, as milliseconds.
fn print_latencies(mut latencies: Vec<u64>) {
    latencies.sort_unstable();
    for (name, share) in [("p50", 0.50), ("p99", 0.99)] {
        let at = (latencies.len() as f64 * share) as usize;
        if let Some(nanoseconds) = latencies.get(at.min(latencies.len().saturating_sub(1))) {
            println!("{name} {}", *nanoseconds as f64 / 1e6);
        }
    }
}
