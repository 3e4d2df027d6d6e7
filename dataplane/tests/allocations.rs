//! What a whole proxied request costs in heap allocations, from the client's first byte to the last record of it. One
//! test in a process of its own, as the allocator counts for all threads: client and backend are made to allocate
//! nothing while it counts.

mod support;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::{Api, Backend, Gateway, on_both_drivers, request};
use tidegate_plan::AccessLog;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WARM_UP: usize = 300;
const COUNTED: usize = 1000;

/// What a browser sends besides the line and the host.
const BROWSER: &[(&str, &str)] = &[
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    ),
    (
        "Accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("Accept-Language", "en-GB,en;q=0.7"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
];

/// Architecture, invariants: after warm-up a plain proxied request with metrics and access log makes one heap
/// allocation, for the state it has while it lasts; so does an answer without a backend. What all threads of the process
/// make now and then is far less than one for each ten requests.
#[test]
fn a_request_makes_one_allocation() {
    on_both_drivers(|driver| {
        let backend = Backend::start(|mut peer| {
            let answer =
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello, world";
            let mut bytes = [0; 4096];
            // Every request is one small write, and the next comes after the answer.
            while peer.stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                if peer.stream.write_all(answer).is_err() {
                    return;
                }
            }
        });
        for logged in [false, true] {
            let mut gateway = Gateway::start(driver);
            let mut plan = Api::proxy(backend.address);
            if logged {
                plan.access_log = Some(AccessLog {
                    destination: "arn:aws:logs:us-east-1:000000000000:log-group:test".into(),
                    format: "$context.identity.sourceIp $context.status $context.requestId".into(),
                });
            }
            plan.metrics_enabled = true;
            gateway.deploy(plan);
            for (name, path, headers) in [
                ("plain", "/test/x", &[][..]),
                ("browser", "/test/a/b?c=d", BROWSER),
                ("direct", "/test/mock", &[]),
            ] {
                let bytes = request("GET", path, headers, b"");
                let mut stream = gateway.connect().stream;
                exchange(&mut stream, &bytes, WARM_UP);
                let region = Region::new(ALLOCATOR);
                exchange(&mut stream, &bytes, COUNTED);
                let seen = region.change();
                let made = seen.allocations + seen.reallocations;
                println!("{driver:?} {name}, logged: {logged}: {made} allocations in {COUNTED} requests");
                assert!(
                    10 * made <= 11 * COUNTED,
                    "{made} allocations in {COUNTED} {name} requests on {driver:?}, logged: {logged}"
                );
            }
        }
    });
}

/// Requests one after the other; allocates nothing.
fn exchange(stream: &mut TcpStream, request: &[u8], times: usize) {
    let mut bytes = [0; 4096];
    for _ in 0..times {
        stream.write_all(request).unwrap();
        let mut length = 0;
        // All answers of this test end in a body that ends in one of these.
        while !bytes[..length].ends_with(b"world") && !bytes[..length].ends_with(b"true}") {
            match stream.read(&mut bytes[length..]) {
                Ok(count) => {
                    assert!(count > 0, "the connection ended");
                    length += count;
                }
                // The end of a ring that this thread has probed interrupts it.
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Interrupted),
            }
        }
        assert!(bytes.starts_with(b"HTTP/1.1 200 "));
    }
}
