//! More than a shard can serve (decision D16): who is connected goes before who wants to be, and saying no costs little.

mod support;

use std::sync::{Arc, Mutex, mpsc};

use support::{Api, Backend, Client, Gateway, counters, get, limits, mock, on_both_drivers, request, wait};
use tidegate_harness::http2::{self, Ended, Http2, code, flag};

/// A backend that tells of each request and answers when it is told to.
fn holding() -> (Backend, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (asked, was_asked) = mpsc::channel();
    let (answer, may_answer) = mpsc::channel::<()>();
    let may_answer = Arc::new(Mutex::new(may_answer));
    let backend = Backend::start(move |mut peer| {
        use std::io::Write as _;
        while peer.request().is_some() {
            asked.send(()).unwrap();
            let told = may_answer.lock().unwrap().recv();
            if told.is_err()
                || peer
                    .stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .is_err()
            {
                return;
            }
        }
    });
    (backend, was_asked, answer)
}

fn status_of(client: &mut Client, path: &str) -> u16 {
    client.send(request("GET", path, &[], b""));
    client.answer().status
}

/// D16: at the bound of connections, idle ones make room for newcomers; those with a request under way are never touched.
#[test]
fn idle_connections_make_room_and_busy_ones_stay() {
    on_both_drivers(|driver| {
        let (backend, was_asked, answer) = holding();
        let bounds = limits(&[("connections-per-shard", "16"), ("yield-after", "0")]);
        let mut gateway = Gateway::with_limits(driver, bounds);
        gateway.deploy(Api::proxy(backend.address));
        let mut busy: Vec<Client> = (0..8).map(|_| gateway.connect()).collect();
        for client in &mut busy {
            client.send(request("GET", "/test/held", &[], b""));
            wait(&was_asked);
        }
        let mut others = Vec::new();
        for _ in 0..40 {
            let mut client = gateway.connect();
            assert_eq!(status_of(&mut client, "/test/mock"), 200);
            others.push(client);
            assert!(counters(&gateway).connections.get() <= 16);
        }
        assert!(counters(&gateway).connections_yielded.get() >= 32);
        assert!(counters(&gateway).connections_held.get() >= 1);
        // Which of the backend's connections is told first is not known.
        for _ in &busy {
            answer.send(()).unwrap();
        }
        for mut client in busy {
            assert_eq!(client.answer().status, 200);
        }
    });
}

/// D16: an idle HTTP/2 connection makes room like any other, and is told; one with a stream open stays.
#[test]
fn idle_http2_connections_make_room() {
    on_both_drivers(|driver| {
        const HOST: &str = "api.execute-api.localhost";
        let (backend, was_asked, answer) = holding();
        let bounds = limits(&[("connections-per-shard", "16"), ("yield-after", "0")]);
        let mut gateway = Gateway::with_http2(driver, bounds);
        gateway.deploy(Api::proxy(backend.address));
        let mut idle = Http2::open(gateway.address).unwrap();
        assert_eq!(idle.get(1, HOST, "/test/mock").unwrap().status, Some(200));
        let mut busy = Http2::open(gateway.address).unwrap();
        let held = http2::request("GET", HOST, "/test/held", &[]);
        busy.send(http2::headers(1, flag::END_STREAM, &held)).unwrap();
        wait(&was_asked);
        let mut others: Vec<Client> = (0..14).map(|_| gateway.connect()).collect();
        for client in &mut others {
            client.send(request("GET", "/test/held", &[], b""));
            wait(&was_asked);
        }
        let mut newcomer = gateway.connect();
        newcomer.send(request("GET", "/test/mock", &[], b""));
        idle.end().unwrap();
        assert_eq!(idle.goaways.last(), Some(&(1, code::NO_ERROR)));
        assert_eq!(newcomer.answer().status, 200);
        assert!(counters(&gateway).connections_yielded.get() >= 1);
        for _ in 0..15 {
            answer.send(()).unwrap();
        }
        for mut client in others {
            assert_eq!(client.answer().status, 200);
        }
        let seen = busy.end_of(1).unwrap();
        assert_eq!((seen.status, seen.ended), (Some(200), Ended::Whole));
        assert!(busy.goaways.is_empty());
    });
}

/// D16: connections that were used a moment ago are not idle: a newcomer waits in the kernel's queue until there is room.
#[test]
fn connections_in_use_are_not_closed_for_newcomers() {
    on_both_drivers(|driver| {
        let bounds = limits(&[("connections-per-shard", "16"), ("yield-after", "3600000")]);
        let mut gateway = Gateway::with_limits(driver, bounds);
        let mut api = Api::default();
        api.route("/mock", get(), mock(200, "{}"));
        gateway.deploy(api.finish());
        let mut open: Vec<Client> = (0..16).map(|_| gateway.connect()).collect();
        for client in &mut open {
            assert_eq!(status_of(client, "/test/mock"), 200);
        }
        let mut newcomer = gateway.connect();
        newcomer.send(request("GET", "/test/mock", &[], b""));
        for _ in 0..10 {
            for client in &mut open {
                assert_eq!(status_of(client, "/test/mock"), 200);
            }
        }
        assert_eq!(counters(&gateway).accepted.get(), 16);
        assert!(counters(&gateway).connections_held.get() >= 1);
        drop(open.pop());
        assert_eq!(newcomer.answer().status, 200);
        assert_eq!(counters(&gateway).connections_yielded.get(), 0);
    });
}

/// D16, D11: a backend has so many requests, so many more wait, and the next ones are told at once and leave.
#[test]
fn what_a_slow_backend_cannot_take_is_refused_at_once() {
    on_both_drivers(|driver| {
        let (backend, was_asked, answer) = holding();
        let bounds = limits(&[
            ("upstream-connections-per-target", "2"),
            ("upstream-waiters", "3"),
            ("pool-wait-timeout", "60000"),
            // A busy machine may make each of them dear.
            ("overload-budget", "50"),
        ]);
        let mut gateway = Gateway::with_limits(driver, bounds);
        gateway.deploy(Api::proxy(backend.address));
        let mut held: Vec<Client> = Vec::new();
        for number in 0..5 {
            let mut client = gateway.connect();
            client.send(request("GET", "/test/held", &[], b""));
            held.push(client);
            if number < 2 {
                wait(&was_asked);
            } else {
                // This connection's request is under way once the next one's is answered.
                while counters(&gateway).in_flight.get() < held.len() as u64 {
                    assert_eq!(status_of(&mut gateway.connect(), "/test/mock"), 200);
                }
            }
        }
        for _ in 0..20 {
            let mut client = gateway.connect();
            client.send(request("GET", "/test/held", &[], b""));
            let refused = client.answer();
            assert_eq!(refused.status, 503, "{refused:?}");
            assert_eq!(refused.get("connection"), Some("close"));
            assert_eq!(refused.text(), "{\"message\": \"Service Unavailable\"}");
            assert!(client.is_closed());
        }
        assert_eq!(counters(&gateway).overload_answered.get(), 20);
        assert!(was_asked.try_recv().is_err(), "more than two are under way");
        for _ in 0..5 {
            answer.send(()).unwrap();
        }
        for mut client in held {
            assert_eq!(client.answer().status, 200);
        }
    });
}

/// D16: without time for an answer there is an end without one.
#[test]
fn a_refusal_beyond_the_budget_is_an_end() {
    on_both_drivers(|driver| {
        let (backend, was_asked, answer) = holding();
        let bounds = limits(&[
            ("upstream-connections-per-target", "1"),
            ("upstream-waiters", "0"),
            ("overload-budget", "0"),
        ]);
        let mut gateway = Gateway::with_limits(driver, bounds);
        gateway.deploy(Api::proxy(backend.address));
        let mut held = gateway.connect();
        held.send(request("GET", "/test/held", &[], b""));
        wait(&was_asked);
        for _ in 0..5 {
            let mut client = gateway.connect();
            client.send(request("GET", "/test/held", &[], b""));
            assert!(client.is_closed());
            assert_eq!(client.pending(), b"");
        }
        assert_eq!(counters(&gateway).overload_closed.get(), 5);
        assert_eq!(counters(&gateway).overload_answered.get(), 0);
        answer.send(()).unwrap();
        assert_eq!(held.answer().status, 200);
    });
}

/// D16: a flood of connections that ask nothing waits its turn, none is lost, and a connection that is there is served all
/// the while.
#[test]
fn a_flood_of_newcomers_waits_its_turn() {
    on_both_drivers(|driver| {
        let bounds = limits(&[("newcomer-share", "0"), ("newcomers-per-turn", "1")]);
        let mut gateway = Gateway::with_limits(driver, bounds);
        let mut api = Api::default();
        api.route("/mock", get(), mock(200, "{}"));
        gateway.deploy(api.finish());
        let mut there = gateway.connect();
        assert_eq!(status_of(&mut there, "/test/mock"), 200);
        let address = gateway.address;
        let flood = std::thread::spawn(move || {
            (0..500)
                .map(|_| std::net::TcpStream::connect(address).unwrap())
                .collect::<Vec<_>>()
        });
        while !flood.is_finished() {
            assert_eq!(status_of(&mut there, "/test/mock"), 200);
        }
        let open = flood.join().unwrap();
        while counters(&gateway).accepted.get() < 501 {
            assert_eq!(status_of(&mut there, "/test/mock"), 200);
        }
        assert!(counters(&gateway).newcomers_delayed.get() >= 500);
        drop(open);
    });
}
