//! What an idle connection costs in heap memory. One test in a process of its own, as the allocator counts for all
//! threads.

mod support;

use std::alloc::System;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::{Api, Gateway, on_both_drivers, request};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Connections that bring what is there once, and then those that are counted: both ends of all of them fit the usual
/// number of open files.
const BEFORE: usize = 100;
const COUNTED: usize = 300;

/// Bytes that an idle connection may hold. A block for the bytes to come is 1 KiB of it.
const BOUND: usize = 4096;

fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn read(stream: &mut TcpStream) -> usize {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(count) => return count,
            // The end of a ring that this thread has probed interrupts it.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
        }
    }
}

/// A connection that has had a request holds its block for the next one, its task and its client, and nothing of the
/// request that it had.
#[test]
fn an_idle_connection_is_small() {
    on_both_drivers(|driver| {
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(([127, 0, 0, 1], 9).into()));
        let bytes = request("GET", "/test/mock", &[], b"");
        let mut connections = Vec::with_capacity(BEFORE + COUNTED);
        let mut open = |count| {
            for _ in 0..count {
                let mut stream = gateway.connect().stream;
                stream.write_all(&bytes).unwrap();
                assert!(read(&mut stream) > 0);
                connections.push(stream);
            }
            held()
        };
        let before = open(BEFORE);
        let each = open(COUNTED).saturating_sub(before) / COUNTED;
        println!("{driver:?}: {each} bytes");
        assert!(
            (1024..=BOUND).contains(&each),
            "{each} bytes for each connection on {driver:?}"
        );
    });
}
