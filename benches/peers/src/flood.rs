//! Connections that ask nothing, for the overload benchmark: opened without waiting for an answer, and reset soon after.
//!
//! `peers-flood ADDRESS RATE SECONDS`: at most RATE a second. Prints how many a second it came to.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections that are left open behind the last one: by then the kernel has shaken hands for the first.
const OPEN: usize = 512;

/// Opened between two looks at the clock.
const BATCH: u64 = 64;

fn main() -> Result<()> {
    const USAGE: &str = "usage: peers-flood ADDRESS RATE SECONDS";
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context(USAGE);
    let address: SocketAddr = argument()?.parse().context(USAGE)?;
    let rate: f64 = argument()?.parse().context(USAGE)?;
    let seconds: f64 = argument()?.parse().context(USAGE)?;
    let target = SockAddr::from(address);
    let began = Instant::now();
    let mut opened: u64 = 0;
    let mut open = VecDeque::with_capacity(OPEN + 1);
    loop {
        let passed = began.elapsed().as_secs_f64();
        if passed >= seconds {
            println!("{:.0}", opened as f64 / passed);
            return Ok(());
        }
        let due = ((passed * rate) as u64).saturating_sub(opened).min(BATCH);
        if due == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
        for _ in 0..due {
            let socket = Socket::new(
                Domain::for_address(address),
                Type::STREAM.nonblocking(),
                Some(Protocol::TCP),
            )?;
            // Ended by a reset, a connection leaves nothing behind in this machine's tables.
            socket.set_linger(Some(Duration::ZERO))?;
            match socket.connect(&target) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
                // No port is free: the oldest gives one back.
                Err(_) => {
                    open.pop_front();
                    continue;
                }
            }
            opened += 1;
            open.push_back(socket);
            if open.len() > OPEN {
                open.pop_front();
            }
        }
    }
}
