//! Connections to backends (decision D11): kept, watched, warmed, counted; retries within a budget; addresses that take
//! no connections.

mod support;

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use support::{Api, Backend, Gateway, PATIENCE, Peer, counters, get, limits, on_both_drivers, request, wait};
use tidegate_plan::integration::{BackendMethod, UriPartSpec};
use tidegate_plan::{HttpBackend, Integration, Target};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LAST: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// Waits until a number of the shard's is as it should be: nobody tells when it changes.
fn await_number(what: &str, expected: u64, number: impl Fn() -> u64) {
    let deadline = Instant::now() + PATIENCE;
    while number() != expected {
        assert!(
            Instant::now() < deadline,
            "{what} is {}, not {expected}",
            number()
        );
        std::thread::yield_now();
    }
}

/// What is active, and what is idle.
fn await_connections(gateway: &Gateway, active: u64, idle: u64) {
    await_number("active", active, || counters(gateway).upstream_active.get());
    await_number("idle", idle, || counters(gateway).upstream_idle.get());
}

fn answer(peer: &mut Peer, bytes: &[u8]) {
    // Who is gone needs no answer.
    let _ = peer.stream.write_all(bytes);
}

/// D11: an idle connection that ends or says something is let go at once, and not when a request wants it.
#[test]
fn idle_connections_are_watched() {
    on_both_drivers(|driver| {
        let (tell, told) = mpsc::channel::<&[u8]>();
        let told = Mutex::new(told);
        let (ended, has_ended) = mpsc::channel();
        let backend = Backend::start(move |mut peer| {
            while peer.request().is_some() {
                answer(&mut peer, OK);
                match wait(&told.lock().unwrap()) {
                    b"" => {
                        let _ = peer.stream.shutdown(Shutdown::Write);
                    }
                    bytes => answer(&mut peer, bytes),
                }
            }
            ended.send(()).unwrap();
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        await_connections(&gateway, 0, 0);
        for bytes in [b"".as_slice(), b"x", OK] {
            assert_eq!(gateway.get("/test/x").text(), "ok");
            await_connections(&gateway, 0, 1);
            tell.send(bytes).unwrap();
            wait(&has_ended);
            await_connections(&gateway, 0, 0);
        }
        assert_eq!(counters(&gateway).upstream_connects.get(), 3);
    });
}

/// OBS: connections to backends are counted by what they do.
#[test]
fn connections_are_counted() {
    on_both_drivers(|driver| {
        let (asked, was_asked) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let may_go = Mutex::new(may_go);
        let backend = Backend::start(move |mut peer| {
            while peer.request().is_some() {
                asked.send(()).unwrap();
                wait(&may_go.lock().unwrap());
                answer(&mut peer, OK);
            }
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut clients = [gateway.connect(), gateway.connect()];
        for client in &mut clients {
            client.send(request("GET", "/test/x", &[], b""));
            wait(&was_asked);
        }
        await_connections(&gateway, 2, 0);
        go.send(()).unwrap();
        go.send(()).unwrap();
        for client in &mut clients {
            assert_eq!(client.answer().text(), "ok");
        }
        await_connections(&gateway, 0, 2);
        // A client that leaves takes the backend's connection with it.
        clients[0].send(request("GET", "/test/x", &[], b""));
        wait(&was_asked);
        await_connections(&gateway, 1, 1);
        let [leaving, _staying] = clients;
        socket2::SockRef::from(&leaving.stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(leaving);
        await_connections(&gateway, 0, 1);
        go.send(()).unwrap();
        let pool = counters(&gateway);
        // The armed reads hold buffers, and what is not needed any more is kept.
        for bytes in [&pool.pool_used_bytes, &pool.pool_free_bytes] {
            await_number("whether buffers are shown", 1, || u64::from(bytes.get() > 0));
        }
    });
}

/// D11: over the bound of idle connections the one that was used least recently goes.
#[test]
fn idle_connections_are_bounded() {
    on_both_drivers(|driver| {
        let (asked, was_asked) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let backend = Backend::start(move |mut peer| {
            let mut name = String::new();
            while let Some(seen) = peer.request() {
                name = seen.head.split(' ').nth(1).unwrap().to_owned();
                let (go, may_go) = mpsc::channel();
                asked.send(go).unwrap();
                wait(&may_go);
                answer(&mut peer, OK);
            }
            ended.send(name).unwrap();
        });
        let mut gateway = Gateway::with_limits(driver, limits(&[("upstream-idle-per-target", "1")]));
        gateway.deploy(Api::proxy(backend.address));
        let mut clients = [gateway.connect(), gateway.connect()];
        let mut held = Vec::new();
        for (client, path) in clients.iter_mut().zip(["/test/first", "/test/second"]) {
            client.send(request("GET", path, &[], b""));
            held.push(wait(&was_asked));
        }
        for (client, go) in clients.iter_mut().zip(&held) {
            go.send(()).unwrap();
            assert_eq!(client.answer().text(), "ok");
        }
        assert_eq!(wait(&has_ended), "/base/first");
        await_connections(&gateway, 0, 1);
    });
}

/// D11: with every connection dying under its second request, a fifth of the requests is sent again and no more,
/// beside the ten that are in hand after a quiet time.
#[test]
fn retries_stay_within_their_budget() {
    const REQUESTS: u64 = 200;
    on_both_drivers(|driver| {
        let struck = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&struck);
        let backend = Backend::start(move |mut peer| {
            if peer.request().is_some() {
                answer(&mut peer, OK);
            }
            // The second request gets the end of the connection, in order.
            if peer.request().is_some() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        let mut failed = 0;
        for _ in 0..REQUESTS {
            client.send(request("GET", "/test/x", &[], b""));
            let answer = client.answer();
            match answer.status {
                200 => {}
                504 => failed += 1,
                _ => panic!("{answer:?}"),
            }
        }
        let struck = struck.load(Ordering::SeqCst);
        let retried = struck - failed;
        assert!(failed > 0, "{retried} retries for {REQUESTS} requests");
        let allowed = 10 + REQUESTS / 5;
        assert!(
            (allowed - 2..=allowed).contains(&retried),
            "{retried} retries for {REQUESTS} requests"
        );
    });
}

/// D11: requests that may not be repeated are not, whatever the budget.
#[test]
fn a_request_that_may_not_be_repeated_is_sent_once() {
    on_both_drivers(|driver| {
        let (got, has_got) = mpsc::channel();
        let backend = Backend::start(move |mut peer| {
            if peer.request().is_some() {
                answer(&mut peer, OK);
            }
            if peer.request().is_some() {
                got.send(()).unwrap();
            }
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        client.send(request("GET", "/test/x", &[], b""));
        assert_eq!(client.answer().status, 200);
        client.send(request("POST", "/test/x", &[], b"once"));
        assert_eq!(client.answer().status, 504);
        wait(&has_got);
        assert!(has_got.try_recv().is_err());
        assert_eq!(counters(&gateway).upstream_connects.get(), 1);
    });
}

/// D11: where the table says so, idle connections are there before the first request, and are made up for.
#[test]
fn connections_are_warmed() {
    on_both_drivers(|driver| {
        let (opened, was_opened) = mpsc::channel();
        let backend = Backend::start(move |mut peer| {
            opened.send(()).unwrap();
            if peer.request().is_some() {
                answer(&mut peer, LAST);
            }
        });
        let bounds = limits(&[("upstream-idle-min", "3"), ("upstream-check-interval", "100ms")]);
        let mut gateway = Gateway::with_limits(driver, bounds);
        gateway.deploy(Api::proxy(backend.address));
        for _ in 0..3 {
            wait(&was_opened);
        }
        await_connections(&gateway, 0, 3);
        assert_eq!(gateway.get("/test/x").text(), "ok");
        wait(&was_opened);
        await_connections(&gateway, 0, 3);
        assert_eq!(counters(&gateway).upstream_connects.get(), 4);
    });
}

/// A stage whose one route leads to `localhost`, which has two addresses.
fn by_name(port: u16) -> tidegate_plan::StagePlan {
    let mut api = Api::default();
    let target = Target::new("http", "localhost", port.into(), false).unwrap();
    let target = api.builder().target(target).unwrap();
    let uri = vec![UriPartSpec::Literal("/".into())];
    let backend = HttpBackend::new(target, BackendMethod::Same, uri, Vec::new(), Vec::new(), 0).unwrap();
    api.route("/x", get(), Integration::HttpProxy(Box::new(backend)));
    api.finish()
}

/// D11, RFC 8305: of a name's addresses the one that refuses costs no request its answer, and after five times in a row
/// is left alone.
#[test]
fn an_address_that_refuses_is_ejected() {
    on_both_drivers(|driver| {
        // Answers at 127.0.0.1 alone; at ::1 nobody does.
        let backend = Backend::answering(LAST);
        let mut gateway = Gateway::start(driver);
        gateway.deploy(by_name(backend.address.port()));
        for _ in 0..30 {
            assert_eq!(gateway.get("/test/x").text(), "ok");
        }
        assert_eq!(counters(&gateway).upstream_ejections.get(), 1);
    });
}

/// D11: with all its addresses down a backend is tried with each request all the same, and so is used once it returns.
#[test]
fn the_last_address_is_never_ejected() {
    on_both_drivers(|driver| {
        let address = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let bounds = limits(&[("ejection-time", "100ms"), ("ejection-time-max", "100ms")]);
        let mut gateway = Gateway::with_limits(driver, bounds);
        gateway.deploy(by_name(address.port()));
        for _ in 0..20 {
            assert_eq!(gateway.get("/test/x").status, 504);
        }
        assert!(counters(&gateway).upstream_ejections.get() > 0);
        let _backend = Backend::start_on(address, |mut peer| {
            while peer.request().is_some() {
                answer(&mut peer, LAST);
            }
        });
        // The address that answers now may be the one that is out; its time is short.
        await_number("the status", 200, || gateway.get("/test/x").status.into());
        for _ in 0..20 {
            assert_eq!(gateway.get("/test/x").status, 200);
        }
    });
}

/// A backend is connected to from the address that is set for its family.
#[test]
fn backends_are_connected_to_from_the_set_address() {
    on_both_drivers(|driver| {
        let (told, peers) = mpsc::channel();
        let backend = Backend::start(move |mut peer| {
            told.send(peer.stream.peer_addr().unwrap().ip()).unwrap();
            while peer.request().is_some() {
                answer(&mut peer, OK);
            }
        });
        let source: std::net::IpAddr = "127.0.0.5".parse().unwrap();
        let mut gateway = Gateway::tuned(driver, |options| options.upstream_source = vec![source]);
        gateway.deploy(Api::proxy(backend.address));
        assert_eq!(gateway.get("/test/a").text(), "ok");
        assert_eq!(wait(&peers), source);
    });
}
