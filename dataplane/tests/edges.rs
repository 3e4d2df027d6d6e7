//! The edges of requests and connections: aborts, slow and hostile clients, drain, panics; on both drivers.

mod support;

use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc;

use support::{Api, Backend, Client, Gateway, Kind, get, limits, mock, on_both_drivers, request, wait};
use tidegate_plan::MethodKey;

/// RFC 9112 sections 3, 5, 6, 7; D12, D15: each is answered with its status, and the connection ends.
#[test]
fn what_is_not_a_request_is_refused() {
    on_both_drivers(|driver| {
        let backend = Backend::echoing();
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let host = "Host: api.execute-api.localhost\r\n";
        let many: String = (0..10_001).map(|i| format!("h{i}: v\r\n")).collect();
        let cases: Vec<(u16, String)> = vec![
            (
                400,
                format!(
                    "GET /test/x HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                ),
            ),
            (
                400,
                format!("POST /test/x HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
            ),
            (
                400,
                format!("POST /test/x HTTP/1.1\r\n{host}Content-Length: +1\r\n\r\na"),
            ),
            (
                400,
                format!("GET /test/x HTTP/1.1\r\n{host}A: b\r\n c: folded\r\n\r\n"),
            ),
            (400, format!("GET /test/x HTTP/1.1\n{host}\r\n")),
            (400, format!("GET /test/x HTTP/1.1\r\n{host}A : b\r\n\r\n")),
            (400, "GET /test/x HTTP/1.1\r\n\r\n".into()),
            (400, format!("GET /test/x HTTP/1.1\r\n{host}{host}\r\n")),
            (400, format!("CONNECT a:1 HTTP/1.1\r\n{host}\r\n")),
            (
                400,
                format!("POST /test/x HTTP/1.1\r\n{host}Transfer-Encoding: chunked, identity\r\n\r\n"),
            ),
            (
                501,
                format!("POST /test/x HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n"),
            ),
            (505, format!("GET /test/x HTTP/2.0\r\n{host}\r\n")),
            (417, format!("GET /test/x HTTP/1.1\r\n{host}Expect: tea\r\n\r\n")),
            (414, format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(11_000))),
            (
                431,
                format!("GET /test/x HTTP/1.1\r\n{host}A: {}\r\n\r\n", "a".repeat(11_000)),
            ),
            (431, format!("GET /test/x HTTP/1.1\r\n{host}{many}\r\n")),
            (
                400,
                "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03 garbage\r\n\r\n".into(),
            ),
        ];
        for (status, bytes) in cases {
            let mut client = gateway.connect();
            // The refusal may come before all of it is sent.
            let _ = client.stream.write_all(bytes.as_bytes());
            let answer = client.answer();
            let begin: String = bytes.chars().take(120).collect();
            assert_eq!(answer.status, status, "{begin:?}");
            assert_eq!(answer.get("connection"), Some("close"));
            assert!(client.is_closed(), "{begin:?}");
        }
        for path in [
            "/test/../x",
            "/test/%2e%2E/x",
            "/test/a%00",
            "/test/a%zz",
            "/test/a\\b",
            "/test/a%01b",
        ] {
            assert_eq!(gateway.get(path).status, 400, "{path}");
        }
        assert_eq!(gateway.get("/test/x?a=%%").status, 400);
        assert_eq!(gateway.get("/test/a%2Fb").status, 200);
    });
}

/// RFC 9112 section 7.1: a body that is not what its head says ends the exchange with 400.
#[test]
fn broken_chunks_are_refused() {
    on_both_drivers(|driver| {
        let backend = Backend::echoing();
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        for body in [
            "zz\r\n",
            "-1\r\n",
            "1\r\nab\r\n",
            "1\nab",
            "FFFFFFFFFFFFFFFFF\r\n",
            "0x1\r\na\r\n",
        ] {
            let mut client = gateway.connect();
            client.send(request(
                "POST",
                "/test/x",
                &[("Transfer-Encoding", "chunked")],
                b"",
            ));
            client.send(body);
            assert_eq!(client.answer().status, 400, "{body:?}");
            assert!(client.is_closed());
        }
    });
}

/// D15, GWR-034, QUO-070.
#[test]
fn payloads_are_bounded_each_way() {
    on_both_drivers(|driver| {
        let backend = Backend::start(|mut peer| {
            while let Some(seen) = peer.request() {
                let length = if seen.head.contains("/base/big") { 2000 } else { 10 };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                let _ = peer
                    .stream
                    .write_all(&[head.as_bytes(), &vec![b'x'; length]].concat());
            }
        });
        let mut gateway = Gateway::with_limits(driver, limits(&[("payload-bytes", "1000")]));
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        client.send(request("POST", "/test/x", &[], &[b'a'; 1000]));
        assert_eq!(client.answer().status, 200);
        client.send(request("GET", "/test/big", &[], b""));
        assert_eq!(client.answer().status, 500);
        client.send(request("POST", "/test/x", &[], &[b'a'; 1001]));
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.text()),
            (
                413,
                "{\"message\":\"HTTP content length exceeded 10485760 bytes.\"}"
            )
        );
        let mut client = gateway.connect();
        client.send(request(
            "POST",
            "/test/x",
            &[("Transfer-Encoding", "chunked")],
            b"",
        ));
        client.send([b"3e9\r\n".as_slice(), &[b'a'; 1001], b"\r\n0\r\n\r\n"].concat());
        assert_eq!(client.answer().status, 413);
    });
}

/// D15: slow in the head, slow in the body.
#[test]
fn slow_clients_are_timed_out() {
    on_both_drivers(|driver| {
        let backend = Backend::start(|mut peer| while peer.request().is_some() {});
        let bounds = limits(&[("request-head-timeout", "100ms"), ("body-idle-timeout", "100ms")]);
        let mut gateway = Gateway::with_limits(driver, bounds);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        client.send("GET /test/x HTT");
        assert_eq!(client.answer().status, 408);
        assert!(client.is_closed());
        let mut client = gateway.connect();
        client.send(request("POST", "/test/x", &[("Content-Length", "10")], b""));
        client.send("half");
        assert_eq!(client.answer().status, 408);
        assert!(client.is_closed());
        // One that says nothing is not told anything.
        assert!(gateway.connect().is_closed());
    });
}

/// A gateway whose routes `/{name}/…` lead to a backend each that has `timeout` milliseconds.
fn gateway_to(driver: tidegate_rt::DriverChoice, timeout: u32, backends: &[(&str, &Backend)]) -> Gateway {
    let mut gateway = Gateway::with_limits(driver, limits(&[("payload-bytes", "64MiB")]));
    let mut api = Api::default();
    for (name, backend) in backends {
        let integration = api.backend(backend.address, timeout, Kind::Proxy);
        api.route(&format!("/{name}/{{proxy+}}"), MethodKey::Any, integration);
    }
    gateway.deploy(api.finish());
    gateway
}

/// Sends on a thread of its own, as nobody may be taking it; an upload that is refused within cannot be sent whole.
fn send_aside(client: &Client, bytes: Vec<u8>) {
    let mut stream = client.stream.try_clone().unwrap();
    std::thread::spawn(move || stream.write_all(&bytes));
}

/// D15, QUO-067: the backend's time begins once, with the call. Taking the body bit by bit does not begin it anew.
#[test]
fn a_backend_that_takes_a_body_too_slowly_is_timed_out() {
    const PART: usize = 64 * 1024;
    const LENGTH: usize = 640 * PART;
    on_both_drivers(|driver| {
        let slow = Backend::start(|mut peer| {
            peer.head();
            // Else the kernel would take most of it at once.
            socket2::SockRef::from(&peer.stream)
                .set_recv_buffer_size(128 * 1024)
                .unwrap();
            // How slow it is: some progress all the time, and too little of it.
            for _ in 0..LENGTH / PART {
                if peer.take(PART).is_none() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            let _ = peer
                .stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        });
        // More than what the kernel holds in the end takes to be read, less than all of it does.
        let gateway = gateway_to(driver, 900, &[("slow", &slow)]);
        let mut client = gateway.connect();
        send_aside(&client, request("POST", "/test/slow/x", &[], &vec![b'a'; LENGTH]));
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.text()),
            (504, "{\"message\": \"Endpoint request timed out\"}")
        );
    });
}

/// D15: a backend that takes no more of a body is timed out as well.
#[test]
fn a_backend_that_stops_taking_a_body_is_timed_out() {
    on_both_drivers(|driver| {
        let (ended, has_ended) = mpsc::channel::<()>();
        let has_ended = std::sync::Mutex::new(has_ended);
        let stalled = Backend::start(move |mut peer| {
            peer.head();
            let _ = has_ended.lock().unwrap().recv();
        });
        let gateway = gateway_to(driver, 100, &[("stalled", &stalled)]);
        let mut client = gateway.connect();
        send_aside(
            &client,
            request("POST", "/test/stalled/x", &[], &vec![b'a'; 9_000_000]),
        );
        assert_eq!(client.answer().status, 504);
        drop(ended);
    });
}

/// D15: while the client is waited for the backend's time stands still, and then goes on.
#[test]
fn a_slow_client_does_not_use_up_the_backends_time() {
    on_both_drivers(|driver| {
        let echoing = Backend::echoing();
        let hanging = Backend::start(|mut peer| while peer.request().is_some() {});
        let gateway = gateway_to(driver, 400, &[("echo", &echoing), ("hang", &hanging)]);
        let mut patient = gateway.connect();
        let mut hopeless = gateway.connect();
        patient.send(request("POST", "/test/echo/x", &[("Content-Length", "4")], b""));
        hopeless.send(request("POST", "/test/hang/x", &[("Content-Length", "4")], b""));
        for part in ["s", "l", "o"] {
            patient.send(part);
            hopeless.send(part);
            // A call that began after both of them runs out of the same time.
            assert_eq!(gateway.get("/test/hang/x").status, 504);
        }
        patient.send("w");
        hopeless.send("w");
        let answer = patient.answer();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text().ends_with("slow"), "{answer:?}");
        assert_eq!(hopeless.answer().status, 504);
    });
}

/// D14: a client that goes away at any byte of its request loses nothing for others.
#[test]
fn clients_may_abort_at_every_byte() {
    on_both_drivers(|driver| {
        let backend = Backend::echoing();
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let whole = request("POST", "/test/x", &[("Transfer-Encoding", "chunked")], b"");
        let whole = [&whole[..], b"4\r\nbody\r\n0\r\n\r\n"].concat();
        for length in 0..=whole.len() {
            let mut client = gateway.connect();
            client.send(&whole[..length]);
            if length % 2 == 0 {
                // Unread data or not, this is a reset.
                let socket = socket2::SockRef::from(&client.stream);
                socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            }
            drop(client);
        }
        let mut client = gateway.connect();
        client.send(&whole);
        assert_eq!(client.answer().status, 200);
        assert_eq!(panics(&gateway), 0);
    });
}

fn panics(gateway: &Gateway) -> u64 {
    gateway.node().telemetry().node().status().panics_total
}

/// D14: a client that has finished sending is answered all the same.
#[test]
fn a_half_closed_client_is_answered() {
    on_both_drivers(|driver| {
        let backend = Backend::echoing();
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        client.send(request("GET", "/test/x", &[], b""));
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.answer().status, 200);
        assert!(client.is_closed());
    });
}

/// D14: a client that resets the connection while the backend works has its backend request cancelled.
#[test]
fn a_reset_cancels_the_backend_request() {
    on_both_drivers(|driver| {
        let (asked, was_asked) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let backend = Backend::start(move |mut peer| {
            let seen = peer.request();
            asked.send(seen.is_some()).unwrap();
            // Nothing more comes: the end of the connection is what there is to see.
            ended.send(peer.request().is_none()).unwrap();
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        client.send(request("GET", "/test/x", &[], b""));
        assert!(wait(&was_asked));
        socket2::SockRef::from(&client.stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(client);
        assert!(wait(&has_ended));
    });
}

/// D14: a final response stops the upload.
#[test]
fn an_early_answer_ends_the_upload() {
    on_both_drivers(|driver| {
        let backend = Backend::start(|mut peer| {
            if peer.head().is_some() {
                let _ = peer
                    .stream
                    .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
            }
            let _ = peer.take(1 << 30);
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        client.send(request("POST", "/test/x", &[("Content-Length", "5000000")], b""));
        client.send("the beginning of a body");
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (403, "no"));
        assert_eq!(answer.get("connection"), Some("close"));
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(client.is_closed());
    });
}

/// D14: informational responses are skipped, as many as may come.
#[test]
fn informational_answers_are_skipped() {
    on_both_drivers(|driver| {
        let backend = Backend::start(|mut peer| {
            while let Some(seen) = peer.request() {
                let count = if seen.head.contains("/base/many") { 9 } else { 8 };
                let mut out = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(count);
                out.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                let _ = peer.stream.write_all(&out);
            }
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        assert_eq!(gateway.get("/test/few").text(), "ok");
        assert_eq!(gateway.get("/test/many").status, 502);
    });
}

/// D11: a connection that the backend closed while it was idle is not used, and an idempotent request that meets such
/// an end is sent again.
#[test]
fn idle_connections_that_end_are_not_used() {
    on_both_drivers(|driver| {
        let (served, was_served) = mpsc::channel();
        let backend = Backend::start(move |mut peer| {
            peer.request();
            let _ = peer
                .stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            let _ = peer.stream.shutdown(Shutdown::Both);
            drop(peer);
            let _ = served.send(());
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        for _ in 0..20 {
            client.send(request("GET", "/test/x", &[], b""));
            assert_eq!(client.answer().text(), "ok");
            wait(&was_served);
        }
    });
}

/// D7: a panic in any phase ends one connection, and is counted.
#[test]
fn a_panic_ends_one_connection() {
    on_both_drivers(|driver| {
        let backend = Backend::echoing();
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut other = gateway.connect();
        let phases = ["frame", "locate", "route", "throttle", "integration", "response"];
        for (at, phase) in phases.iter().enumerate() {
            let mut client = gateway.connect();
            client.send(request(
                "GET",
                "/test/x",
                &[("x-tidegate-test-panic", phase)],
                b"",
            ));
            assert!(client.try_answer("GET").is_none(), "{phase}");
            other.send(request("GET", "/test/x", &[], b""));
            assert_eq!(other.answer().status, 200, "{phase}");
            assert_eq!(panics(&gateway), at as u64 + 1, "{phase}");
        }
        let status = gateway.node().telemetry().node().status();
        assert_eq!(status.connections, 1);
    });
}

/// Draining lets what was begun finish, and takes nothing new.
#[test]
fn draining_finishes_what_was_begun() {
    on_both_drivers(|driver| {
        let (asked, was_asked) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let may_go = std::sync::Mutex::new(may_go);
        let backend = Backend::start(move |mut peer| {
            while peer.request().is_some() {
                asked.send(()).unwrap();
                wait(&may_go.lock().unwrap());
                let _ = peer
                    .stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut idle = gateway.connect();
        idle.send(request("GET", "/test/mock", &[], b""));
        assert_eq!(idle.answer().status, 200);
        let mut busy = gateway.connect();
        busy.send(request("GET", "/test/x", &[], b""));
        wait(&was_asked);
        let drained = std::thread::spawn(move || gateway.drain());
        assert!(idle.is_closed());
        go.send(()).unwrap();
        let answer = busy.answer();
        assert_eq!((answer.text(), answer.get("connection")), ("ok", Some("close")));
        assert!(busy.is_closed());
        drained.join().unwrap();
    });
}

/// D16: at its bound a shard accepts no more until there is room, which idle connections make.
#[test]
fn connections_are_bounded() {
    on_both_drivers(|driver| {
        let mut gateway = Gateway::with_limits(
            driver,
            limits(&[("connections-per-shard", "16"), ("yield-after", "0")]),
        );
        let mut api = Api::default();
        api.route("/pets", get(), mock(200, "{}"));
        gateway.deploy(api.finish());
        let mut open: Vec<Client> = Vec::new();
        for _ in 0..64 {
            let mut client = gateway.connect();
            client.send(request("GET", "/test/pets", &[], b""));
            assert_eq!(client.answer().status, 200);
            open.push(client);
        }
        assert!(gateway.node().telemetry().node().status().connections <= 16);
    });
}

/// The configuration changes between two requests of a connection; what is in flight ends as it began.
#[test]
fn a_change_drops_nothing() {
    on_both_drivers(|driver| {
        let (asked, was_asked) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let may_go = std::sync::Mutex::new(may_go);
        let backend = Backend::start(move |mut peer| {
            while peer.request().is_some() {
                asked.send(()).unwrap();
                wait(&may_go.lock().unwrap());
                let _ = peer
                    .stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold");
            }
        });
        let mut gateway = Gateway::start(driver);
        let mut api = Api::default();
        let integration = api.backend(backend.address, 0, Kind::Proxy);
        api.route("/a/{proxy+}", MethodKey::Any, integration);
        gateway.deploy(api.finish());
        let mut client = gateway.connect();
        client.send(request("GET", "/test/a/b", &[], b""));
        wait(&was_asked);
        let mut api = Api::default();
        api.route("/a/{proxy+}", MethodKey::Any, mock(200, "new"));
        gateway.deploy(api.finish());
        go.send(()).unwrap();
        assert_eq!(client.answer().text(), "old");
        client.send(request("GET", "/test/a/b", &[], b""));
        assert_eq!(client.answer().text(), "new");
    });
}
