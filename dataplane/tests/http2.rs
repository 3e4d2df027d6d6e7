//! HTTP/2 towards clients, frame by frame: what RFC 9113 demands, what floods end in, and that streams are in nobody's
//! way. With a client that says exactly what a test wants it to say.

mod support;

use std::io::Write;
use std::sync::mpsc;

use support::{Api, Backend, Gateway, get, mock, on_both_drivers, wait};
use tidegate_harness::http2::{
    Ended, Http2, PREFACE, Stream, block, code, flag, frame, frame_saying, headers, kind, request, reset,
    settings, window_update,
};
use tidegate_plan::{Limits, MethodKey};

const HOST: &str = "api.execute-api.localhost";
const LARGEST_WINDOW: u32 = 0x7fff_ffff;

fn limits(values: &[(&str, &str)]) -> Limits {
    let mut limits = Limits::default();
    for (name, value) in values {
        limits.set(name, value).unwrap();
    }
    limits
}

fn gateway(driver: tidegate_rt::DriverChoice, values: &[(&str, &str)], backend: &Backend) -> Gateway {
    let mut gateway = Gateway::with_http2(driver, limits(values));
    gateway.deploy(Api::proxy(backend.address));
    gateway
}

fn open(gateway: &Gateway) -> Http2 {
    Http2::open(gateway.address).unwrap()
}

/// A request's head, the body still to come.
fn post(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    headers(stream, 0, &request("POST", HOST, path, more))
}

fn fetch(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, flag::END_STREAM, &request("GET", HOST, path, &[]))
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    payload
        .chunks(16_384)
        .enumerate()
        .flat_map(|(at, part)| {
            let last = (at + 1) * 16_384 >= payload.len();
            frame(kind::DATA, if last { flags } else { 0 }, stream, part)
        })
        .collect()
}

/// A backend that answers each request with its body.
fn reflecting() -> Backend {
    Backend::start(|mut peer| {
        while let Some(seen) = peer.request() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len());
            if peer
                .stream
                .write_all(&[head.as_bytes(), &seen.body].concat())
                .is_err()
            {
                return;
            }
        }
    })
}

fn answered(stream: &Stream) -> (Option<u16>, Ended) {
    (stream.status, stream.ended)
}

const OK: (Option<u16>, Ended) = (Some(200), Ended::Whole);

/// RFC 9113 section 3.3: where it is switched on, a plain port speaks both versions, however the preface is cut.
#[test]
fn prior_knowledge_is_spoken_where_it_is_switched_on() {
    on_both_drivers(|driver| {
        let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        let mut off = Gateway::start(driver);
        off.deploy(Api::proxy(backend.address));
        let mut client = off.connect();
        client.send(PREFACE);
        assert_eq!(client.answer().status, 505);

        let on = gateway(driver, &[], &backend);
        assert_eq!(on.get("/test/a").text(), "hi");
        let seen = open(&on).get(1, HOST, "/test/a").unwrap();
        assert_eq!((answered(&seen), &seen.body[..]), (OK, &b"hi"[..]));
        let mut slow = Http2::silent(on.address).unwrap();
        for byte in [PREFACE, &settings(&[(1, 0)])[..], &fetch(1, "/test/a")].concat() {
            slow.send([byte]).unwrap();
        }
        assert_eq!(answered(&slow.end_of(1).unwrap()), OK);
        let mut other = on.connect();
        other.send("P");
        other.send("OST /test/a HTTP/1.1\r\nHost: api.execute-api.localhost\r\n\r\n");
        assert_eq!(other.answer().status, 200);
    });
}

/// D2, RFC 9113 sections 8.2.3 and 8.3.1: the backend sees a request like any other.
#[test]
fn a_backend_sees_what_http1_would_have_sent() {
    on_both_drivers(|driver| {
        let on = gateway(driver, &[], &Backend::echoing());
        let mut client = open(&on);
        let more = [
            ("cookie", "a=b"),
            ("x-one", "1"),
            ("cookie", "c=d"),
            ("te", "trailers"),
        ];
        client.send(post(1, "/test/a%20b?q=1", &more)).unwrap();
        client.send(data(1, 0, b"one")).unwrap();
        client.send(data(1, 0, b"two")).unwrap();
        // D13: trailers go no further.
        let trailers = headers(1, flag::END_STREAM, &[("x-trailer", "t")]);
        client.send(trailers).unwrap();
        let seen = client.end_of(1).unwrap();
        assert_eq!(answered(&seen), OK);
        let text = String::from_utf8(seen.body).unwrap();
        assert!(text.starts_with("POST /base/a%20b?q=1 HTTP/1.1\r\n"), "{text}");
        assert!(
            text.contains("\r\ncookie: a=b; c=d\r\n") && text.contains("\r\nx-one: 1\r\n"),
            "{text}"
        );
        assert!(text.contains("\r\nTransfer-Encoding: chunked\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\nonetwo"), "{text}");
        assert!(!text.contains("x-trailer") && !text.contains("\r\nte:"), "{text}");
    });
}

/// RFC 9110 sections 9.3.2 and 15.3.5, RFC 9113 section 8.1: answers without a body end with their head.
#[test]
fn heads_alone_end_their_streams() {
    on_both_drivers(|driver| {
        let backend = Backend::start(|mut peer| {
            while let Some(seen) = peer.head() {
                let answer: &[u8] = match &seen.head {
                    head if head.starts_with("HEAD ") => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                    head if head.contains("/204") => b"HTTP/1.1 204 No Content\r\n\r\n",
                    head if head.contains("/304") => b"HTTP/1.1 304 Not Modified\r\n\r\n",
                    _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                };
                if peer.stream.write_all(answer).is_err() {
                    return;
                }
            }
        });
        let on = gateway(driver, &[], &backend);
        let mut client = open(&on);
        for (at, (method, path, status)) in [
            ("HEAD", "/test/a", 200),
            ("HEAD", "/test/mock", 200),
            ("GET", "/test/204", 204),
            ("GET", "/test/304", 304),
            ("GET", "/test/empty", 200),
            ("HEAD", "/nowhere", 403),
        ]
        .into_iter()
        .enumerate()
        {
            let stream = 2 * at as u32 + 1;
            let head = headers(stream, flag::END_STREAM, &request(method, HOST, path, &[]));
            client.send(head).unwrap();
            let seen = client.end_of(stream).unwrap();
            assert_eq!(answered(&seen), (Some(status), Ended::Whole), "{method} {path}");
            assert!(seen.body.is_empty(), "{method} {path}");
        }
    });
}

/// Decision D14, RFC 9110 section 10.1.1: `100 Continue` when the body is asked for.
#[test]
fn a_client_that_waits_to_be_asked_is_asked() {
    on_both_drivers(|driver| {
        let on = gateway(driver, &[], &reflecting());
        let mut client = open(&on);
        let expect = [("expect", "100-continue"), ("content-length", "3")];
        client.send(post(1, "/test/a", &expect)).unwrap();
        client
            .until(|all| {
                all.streams
                    .get(&1)
                    .is_some_and(|one| !one.informational.is_empty())
            })
            .unwrap();
        client.send(data(1, flag::END_STREAM, b"abc")).unwrap();
        let seen = client.end_of(1).unwrap();
        assert_eq!((answered(&seen), seen.informational), (OK, vec![100]));
        assert_eq!(seen.body, b"abc");
        client.send(post(3, "/test/a", &[("expect", "x")])).unwrap();
        assert_eq!(client.end_of(3).unwrap().status, Some(417));
        // Refused before it is asked.
        client.send(post(5, "/nowhere", &expect)).unwrap();
        let refused = client.end_of(5).unwrap();
        assert_eq!((refused.status, refused.informational), (Some(403), vec![]));
    });
}

/// A hundred streams with bodies in both directions on one connection, interleaved; each comes back whole.
#[test]
fn a_hundred_streams_carry_bodies_both_ways() {
    on_both_drivers(|driver| {
        let on = gateway(driver, &[], &reflecting());
        let mut client = open(&on);
        client.until(|all| all.settled).unwrap();
        let body = |stream: u32| -> Vec<u8> {
            (0..50_000u32)
                .map(|at| (at.wrapping_mul(stream) >> 3) as u8)
                .collect()
        };
        let streams: Vec<u32> = (0..100).map(|at| 2 * at + 1).collect();
        for &stream in &streams {
            client.send(post(stream, "/test/a", &[])).unwrap();
        }
        // Round by round, and reading in between: together they are more than the connection's window.
        for round in 0..5 {
            for &stream in &streams {
                let body = body(stream);
                let part = &body[round * 10_000..(round + 1) * 10_000];
                let end = if round == 4 { flag::END_STREAM } else { 0 };
                client.send(data(stream, end, part)).unwrap();
            }
            assert!(client.ping().unwrap(), "round {round}: {:?}", client.goaways);
        }
        client
            .until(|all| {
                streams.iter().all(|stream| {
                    all.streams
                        .get(stream)
                        .is_some_and(|one| one.ended != Ended::Open)
                })
            })
            .unwrap();
        for &stream in &streams {
            let seen = &client.streams[&stream];
            assert_eq!(answered(seen), OK, "stream {stream}, {:?}", client.goaways);
            assert!(
                seen.body == body(stream),
                "stream {stream}: {} bytes",
                seen.body.len()
            );
        }
    });
}

/// RFC 9113 section 5.2: a stream whose client gives no window waits alone, and gets everything when it does.
#[test]
fn a_slow_reader_holds_up_no_other_stream() {
    on_both_drivers(|driver| {
        let large = vec![b'x'; 3_000_000];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", large.len());
        let backend = Backend::answering([head.as_bytes(), &large].concat());
        let on = gateway(driver, &[], &backend);
        // No window for any stream until it is given one.
        let mut client = Http2::with_settings(on.address, &[(4, 0)]).unwrap();
        client.send(window_update(0, LARGEST_WINDOW - 65_535)).unwrap();
        for stream in (1..=61).step_by(2) {
            client.send(fetch(stream, "/test/a")).unwrap();
        }
        client
            .until(|all| (1..=61).step_by(2).all(|one| all.streams.contains_key(&one)))
            .unwrap();
        client.send(fetch(63, "/test/a")).unwrap();
        client.send(window_update(63, LARGEST_WINDOW)).unwrap();
        let quick = client.end_of(63).unwrap();
        assert_eq!((answered(&quick), quick.body.len()), (OK, large.len()));
        for stream in (1..=61).step_by(2) {
            assert_eq!(client.streams[&stream].ended, Ended::Open);
            assert!(client.streams[&stream].body.is_empty());
        }
        client.send(window_update(1, LARGEST_WINDOW)).unwrap();
        let slow = client.end_of(1).unwrap();
        assert_eq!((answered(&slow), slow.body.len()), (OK, large.len()));
    });
}

/// Decision D15: a client that takes nothing of a stream loses that stream, and no other.
#[test]
fn a_stream_that_nobody_reads_is_reset() {
    on_both_drivers(|driver| {
        let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let on = gateway(driver, &[("write-stall-timeout", "100ms")], &backend);
        let mut client = Http2::with_settings(on.address, &[(4, 0)]).unwrap();
        client.send(fetch(1, "/test/a")).unwrap();
        assert_eq!(client.end_of(1).unwrap().ended, Ended::Reset(code::CANCEL));
        client.send(fetch(3, "/test/a")).unwrap();
        client.send(window_update(3, 5)).unwrap();
        assert_eq!(answered(&client.end_of(3).unwrap()), OK);
    });
}

/// Decision D14: a client that resets its stream has the backend's request ended, and no other.
#[test]
fn a_reset_ends_the_call_to_the_backend() {
    on_both_drivers(|driver| {
        let (tell, told) = mpsc::channel();
        let backend = Backend::start(move |mut peer| {
            while let Some(seen) = peer.request() {
                if seen.head.contains("/hang") {
                    tell.send("asked").unwrap();
                    assert!(peer.line().is_none());
                    tell.send("ended").unwrap();
                    return;
                }
                let _ = peer
                    .stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
            }
        });
        let on = gateway(driver, &[], &backend);
        let mut client = open(&on);
        for (stream, body) in [(1, None), (3, Some(b"half"))] {
            match body {
                None => client.send(fetch(stream, "/test/hang")).unwrap(),
                Some(half) => {
                    client.send(post(stream, "/test/hang", &[])).unwrap();
                    client.send(data(stream, flag::END_STREAM, half)).unwrap();
                }
            }
            assert_eq!(wait(&told), "asked");
            client.send(reset(stream, code::CANCEL)).unwrap();
            assert_eq!(wait(&told), "ended");
        }
        assert_eq!(answered(&client.get(5, HOST, "/test/a").unwrap()), OK);
    });
}

/// Decision D14: what a backend does not finish is not taken for whole.
#[test]
fn a_backend_that_dies_within_its_body_resets_the_stream() {
    on_both_drivers(|driver| {
        let backend = Backend::start(|mut peer| {
            if peer.request().is_some() {
                let _ = peer
                    .stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            }
        });
        let on = gateway(driver, &[], &backend);
        let mut client = open(&on);
        let seen = client.get(1, HOST, "/test/a").unwrap();
        assert_eq!(seen.ended, Ended::Reset(code::INTERNAL_ERROR));
        assert!(client.ping().unwrap());
    });
}

/// QUO-050, QUO-068, QUO-070, decision D15: the bounds of a request are those of HTTP/1.1, and cost a stream only.
#[test]
fn requests_over_their_bounds_are_answered() {
    on_both_drivers(|driver| {
        let on = gateway(driver, &[("payload-bytes", "1000")], &reflecting());
        let mut client = open(&on);
        let long = "p".repeat(10_240);
        let many: Vec<(String, String)> = (0..130).map(|at| (format!("x-{at}"), "v".into())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        let wide = "v".repeat(10_241);
        let path = format!("/test/{long}");
        for (stream, head, status) in [
            (1, request("GET", HOST, &path, &[]), 414),
            (3, request("GET", HOST, "/test/a", &many), 431),
            (5, request("GET", HOST, "/test/a", &[("x", &wide)]), 431),
            (7, request("GET", HOST, "/test/a%00", &[]), 400),
            (9, request("CONNECT", HOST, "/", &[])[..1].to_vec(), 400),
        ] {
            let mut head = head;
            if status == 400 && stream == 9 {
                head.push((":authority", HOST));
            }
            client.send(headers(stream, flag::END_STREAM, &head)).unwrap();
            let seen = client.end_of(stream).unwrap();
            assert_eq!(answered(&seen), (Some(status), Ended::Whole), "stream {stream}");
        }
        client
            .send(post(11, "/test/a", &[("content-length", "1001")]))
            .unwrap();
        assert_eq!(client.end_of(11).unwrap().status, Some(413));
        client.send(post(13, "/test/a", &[])).unwrap();
        client.send(data(13, 0, &[0; 1001])).unwrap();
        assert_eq!(client.end_of(13).unwrap().status, Some(413));
        client.send(post(15, "/test/a", &[])).unwrap();
        client.send(data(15, flag::END_STREAM, &[0; 1000])).unwrap();
        let whole = client.end_of(15).unwrap();
        assert_eq!((answered(&whole), whole.body.len()), (OK, 1000));
    });
}

/// RFC 9113 section 8.1: an answer that comes before the request's end is whole, and its stream ends without an error.
#[test]
fn an_answer_may_come_before_the_request_has_ended() {
    on_both_drivers(|driver| {
        let on = gateway(driver, &[("linger-timeout", "50ms")], &reflecting());
        let mut client = open(&on);
        client.send(post(1, "/test/mock", &[])).unwrap();
        client.send(data(1, 0, b"part")).unwrap();
        assert_eq!(answered(&client.end_of(1).unwrap()), OK);
        client.until(|all| all.streams[&1].late_reset.is_some()).unwrap();
        assert_eq!(client.streams[&1].late_reset, Some(code::NO_ERROR));
        assert_eq!(answered(&client.get(3, HOST, "/test/mock").unwrap()), OK);
    });
}

/// Decision D7: a panic in one exchange ends its stream.
#[test]
fn a_panic_ends_one_stream() {
    on_both_drivers(|driver| {
        let on = gateway(driver, &[], &reflecting());
        let mut client = open(&on);
        client.send(post(1, "/test/a", &[])).unwrap();
        for (at, phase) in ["frame", "route", "integration", "response"]
            .into_iter()
            .enumerate()
        {
            let stream = 2 * at as u32 + 3;
            let fields = request("GET", HOST, "/test/a", &[("x-tidegate-test-panic", phase)]);
            client.send(headers(stream, flag::END_STREAM, &fields)).unwrap();
            let seen = client.end_of(stream).unwrap();
            assert_eq!(seen.ended, Ended::Reset(code::INTERNAL_ERROR), "{phase}");
        }
        client.send(data(1, flag::END_STREAM, b"whole")).unwrap();
        let seen = client.end_of(1).unwrap();
        assert_eq!((answered(&seen), &seen.body[..]), (OK, &b"whole"[..]));
        assert_eq!(on.node().telemetry().node().status().panics_total, 4);
    });
}

/// RFC 9113 section 6.8, decision D15: what drains or idles says so; a stream that is open finishes.
#[test]
fn goaway_comes_before_the_end() {
    on_both_drivers(|driver| {
        let (tell, told) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = std::sync::Mutex::new(released);
        let backend = Backend::start(move |mut peer| {
            while peer.request().is_some() {
                tell.send(()).unwrap();
                released.lock().unwrap().recv().unwrap();
                let _ = peer
                    .stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
            }
        });
        let on = gateway(driver, &[], &backend);
        let mut client = open(&on);
        client.send(fetch(1, "/test/a")).unwrap();
        wait(&told);
        let draining = std::thread::spawn(move || on.drain());
        client.until(|all| !all.goaways.is_empty()).unwrap();
        assert_eq!(client.goaways[0], (LARGEST_WINDOW, code::NO_ERROR));
        release.send(()).unwrap();
        assert_eq!(answered(&client.end_of(1).unwrap()), OK);
        client.end().unwrap();
        assert_eq!(client.goaways.last(), Some(&(1, code::NO_ERROR)));
        draining.join().unwrap();

        let idle = gateway(
            driver,
            &[("keep-alive-timeout", "100ms"), ("linger-timeout", "100ms")],
            &reflecting(),
        );
        let mut client = open(&idle);
        assert_eq!(answered(&client.get(1, HOST, "/test/mock").unwrap()), OK);
        client.end().unwrap();
        assert_eq!(client.goaways.last(), Some(&(1, code::NO_ERROR)));
        // One that does not answer is told once more, and left.
        let mut deaf = open(&idle);
        while deaf.next_frame().unwrap().is_some() {}
    });
}

/// Decision D15: a head that does not end runs out of time, in a frame or between frames; so does a missing preface.
#[test]
fn unfinished_heads_run_out_of_time() {
    on_both_drivers(|driver| {
        let on = gateway(driver, &[("request-head-timeout", "100ms")], &reflecting());
        let whole = headers(1, flag::END_STREAM, &request("GET", HOST, "/test/a", &[]));
        let begun = frame(kind::HEADERS, 0, 1, &block(&request("GET", HOST, "/test/a", &[])));
        for bytes in [&whole[..4], &whole[..20], &begun] {
            let mut client = open(&on);
            // Before anything else would stand within the head.
            client.until(|all| all.settled).unwrap();
            client.send(bytes).unwrap();
            client.end().unwrap();
            assert_eq!(
                client.goaways,
                [(0, code::ENHANCE_YOUR_CALM)],
                "{} bytes",
                bytes.len()
            );
        }
        let mut silent = Http2::silent(on.address).unwrap();
        silent.acknowledges = false;
        silent.send(PREFACE).unwrap();
        silent.end().unwrap();
        assert!(silent.closed);
    });
}

/// Decision D15: the time between two parts of a body is bounded, on one stream as on a connection.
#[test]
fn an_unfinished_body_runs_out_of_time() {
    on_both_drivers(|driver| {
        let on = gateway(
            driver,
            &[("body-idle-timeout", "100ms"), ("linger-timeout", "50ms")],
            &reflecting(),
        );
        let mut client = open(&on);
        client.send(post(1, "/test/a", &[])).unwrap();
        client.send(data(1, 0, b"part")).unwrap();
        assert_eq!(client.end_of(1).unwrap().status, Some(408));
        assert_eq!(answered(&client.get(3, HOST, "/test/mock").unwrap()), OK);
    });
}

/// RFC 9113 section 5.1.2: streams over the bound are refused, of a connection and of a shard.
#[test]
fn streams_over_their_bounds_are_refused() {
    on_both_drivers(|driver| {
        let limits = [
            ("http2-concurrent-streams", "2"),
            ("http2-streams-per-shard", "16"),
        ];
        let on = gateway(driver, &limits, &reflecting());
        let mut clients: Vec<Http2> = (0..9).map(|_| open(&on)).collect();
        for client in &mut clients[..8] {
            client.send(post(1, "/test/a", &[])).unwrap();
            client.send(post(3, "/test/a", &[])).unwrap();
            assert!(client.ping().unwrap());
        }
        clients[0].send(post(5, "/test/a", &[])).unwrap();
        assert_eq!(
            clients[0].end_of(5).unwrap().ended,
            Ended::Reset(code::REFUSED_STREAM)
        );
        clients[8].send(post(1, "/test/a", &[])).unwrap();
        assert_eq!(
            clients[8].end_of(1).unwrap().ended,
            Ended::Reset(code::REFUSED_STREAM)
        );
        clients[0].send(data(1, flag::END_STREAM, b"x")).unwrap();
        assert_eq!(answered(&clients[0].end_of(1).unwrap()), OK);
        // The stream's place is free when its task has ended, of which the client hears by the answer's end.
        assert!(clients[8].ping().unwrap());
        assert_eq!(answered(&clients[8].get(3, HOST, "/test/mock").unwrap()), OK);
    });
}

/// Every kind of flood ends in ENHANCE_YOUR_CALM; another connection is served all the same.
#[test]
fn floods_end_in_enhance_your_calm() {
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    let rapid = |at: u32| [fetch(2 * at + 1, "/test/a"), reset(2 * at + 1, code::CANCEL)].concat();
    let unfinished = |stream| {
        frame(
            kind::HEADERS,
            0,
            stream,
            &block(&request("GET", HOST, "/test/a", &[])),
        )
    };
    let open_body = post(1, "/test/a", &[]);
    type Flood<'f> = (&'f str, Vec<u8>, Box<dyn Fn(u32) -> Vec<u8> + 'f>);
    let floods: Vec<Flood<'_>> = vec![
        ("rapid reset", vec![], Box::new(rapid)),
        ("ping", vec![], Box::new(|_| ping.clone())),
        (
            "pong",
            vec![],
            Box::new(|_| frame(kind::PING, flag::ACK, 0, &[0; 8])),
        ),
        ("settings", vec![], Box::new(|_| settings(&[(4, 65_535)]))),
        ("empty settings", vec![], Box::new(|_| settings(&[]))),
        ("window updates", vec![], Box::new(|_| window_update(0, 1))),
        (
            "window updates of a stream",
            open_body.clone(),
            Box::new(|_| window_update(1, 1)),
        ),
        (
            "empty data",
            open_body.clone(),
            Box::new(|_| frame(kind::DATA, 0, 1, b"")),
        ),
        (
            "padded empty data",
            open_body.clone(),
            Box::new(|_| frame(kind::DATA, flag::PADDED, 1, &[0])),
        ),
        (
            "continuation",
            unfinished(1),
            Box::new(|_| frame(kind::CONTINUATION, 0, 1, b"\x00\x01a\x01b")),
        ),
        (
            "empty continuation",
            unfinished(1),
            Box::new(|_| frame(kind::CONTINUATION, 0, 1, b"")),
        ),
        (
            "priority",
            vec![],
            Box::new(|at| frame(kind::PRIORITY, 0, 2 * at + 1, &[0, 0, 0, 0, 1])),
        ),
        ("unknown frames", vec![], Box::new(|_| frame(0x42, 0, 0, b"x"))),
        (
            "malformed requests",
            vec![],
            Box::new(|at| {
                headers(
                    2 * at + 1,
                    flag::END_STREAM,
                    &request("GET", HOST, "/", &[("connection", "x")]),
                )
            }),
        ),
        (
            "a head far over its bound",
            vec![],
            Box::new(|at| {
                let value = "v".repeat(16_000);
                let mut fields = request("GET", HOST, "/", &[("x", &value)]);
                if at > 0 {
                    fields = vec![("x", &value)];
                }
                let kind = if at == 0 {
                    kind::HEADERS
                } else {
                    kind::CONTINUATION
                };
                frame(kind, 0, 1, &block(&fields))
            }),
        ),
    ];
    on_both_drivers(|driver| {
        let backend = Backend::start(|mut peer| {
            let _ = peer.head();
            let _ = peer.line();
        });
        let on = gateway(driver, &[("body-window-bytes", "16KiB")], &backend);
        let mut calm = open(&on);
        for (name, first, more) in &floods {
            let mut client = open(&on);
            client.until(|all| all.settled).unwrap();
            client.send(first).unwrap();
            for at in 0..50_000 {
                client.send(more(at)).unwrap();
                // Reads what comes as soon as the server ends the connection.
                if at % 1000 == 999 && !client.ping().unwrap() {
                    break;
                }
            }
            client
                .end()
                .unwrap_or_else(|error| panic!("{name} goes on: {error}"));
            let codes: Vec<u32> = client.goaways.iter().map(|(_, code)| *code).collect();
            assert_eq!(codes, [code::ENHANCE_YOUR_CALM], "{name}");
            assert!(calm.ping().unwrap(), "{name}");
        }
        assert_eq!(answered(&calm.get(1, HOST, "/test/mock").unwrap()), OK);
    });
}

/// What a case of the conformance run must end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    /// GOAWAY with this code.
    End(u32),
    /// RST_STREAM with this code on this stream; the connection goes on.
    Reset(u32, u32),
    /// This status on this stream; the connection goes on.
    Answer(u32, u16),
    /// Nothing; the connection goes on.
    Pass,
}

/// RFC 9113, demand by demand, in the order of its sections. h2 ends a connection with PROTOCOL_ERROR in two cases where
/// the RFC has a code of its own: a field block that does not decode (COMPRESSION_ERROR) and a window setting over its
/// largest (FLOW_CONTROL_ERROR). Names and values that cannot be any end the connection and not the stream alone, as
/// section 5.4.1 allows.
#[test]
fn the_protocol_is_kept() {
    use Must::{Answer, End, Pass, Reset};
    let on_stream = |stream, more: &[(&'static str, &'static str)]| -> Vec<u8> {
        headers(
            stream,
            flag::END_STREAM,
            &request("GET", HOST, "/test/mock", more),
        )
    };
    let raw = |fields: &[(&'static str, &'static str)]| headers(1, flag::END_STREAM, fields);
    let ok = || on_stream(1, &[]);
    let field_block = block(&request("GET", HOST, "/test/mock", &[]));
    let (first, second) = field_block.split_at(20);
    let without = |name: &str| -> Vec<u8> {
        let mut fields = request("GET", HOST, "/test/mock", &[]);
        fields.retain(|(known, _)| *known != name);
        headers(1, flag::END_STREAM, &fields)
    };
    let cases: Vec<(&str, Vec<u8>, Must)> = vec![
        // 4.1, 4.2: frames.
        (
            "4.1 unknown kinds are ignored",
            [frame(0x42, 0xff, 1, b"x"), ok()].concat(),
            Answer(1, 200),
        ),
        (
            "4.1 unknown flags are ignored",
            frame(kind::PING, 0xfe, 0, &[0; 8]),
            Pass,
        ),
        (
            "4.1 the reserved bit is ignored",
            frame(kind::PING, 0, 0x8000_0000, &[0; 8]),
            Pass,
        ),
        (
            "4.2 DATA over the largest size",
            [
                post(1, "/test/a", &[]),
                frame_saying(16_385, kind::DATA, 0, 1, &[]),
            ]
            .concat(),
            End(code::FRAME_SIZE_ERROR),
        ),
        (
            "4.2 HEADERS over the largest size",
            frame_saying(16_385, kind::HEADERS, 4, 1, &[]),
            End(code::FRAME_SIZE_ERROR),
        ),
        // 4.3: field blocks.
        (
            "4.3 a block that does not decode",
            frame(kind::HEADERS, 5, 1, &[0x80]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "4.3 another frame within a block",
            [
                frame(kind::HEADERS, 1, 1, first),
                frame(kind::PING, 0, 0, &[0; 8]),
            ]
            .concat(),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "4.3 another stream within a block",
            [frame(kind::HEADERS, 1, 1, first), on_stream(3, &[])].concat(),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "4.3 an unknown kind within a block",
            [frame(kind::HEADERS, 1, 1, first), frame(0x42, 0, 1, b"x")].concat(),
            End(code::PROTOCOL_ERROR),
        ),
        // 5.1: states of streams.
        (
            "5.1 DATA on an idle stream",
            frame(kind::DATA, 0, 1, b"x"),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "5.1 RST_STREAM on an idle stream",
            reset(1, 0),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "5.1 WINDOW_UPDATE on an idle stream",
            window_update(1, 1),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "5.1 CONTINUATION on an idle stream",
            frame(kind::CONTINUATION, 4, 1, b""),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "5.1 PRIORITY on an idle stream",
            [frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), ok()].concat(),
            Answer(1, 200),
        ),
        (
            "5.1.1 an even stream",
            on_stream(2, &[]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "5.1.1 a stream below the last",
            [on_stream(5, &[]), on_stream(3, &[])].concat(),
            End(code::PROTOCOL_ERROR),
        ),
        // 6.1: DATA.
        (
            "6.1 DATA on stream 0",
            frame(kind::DATA, 0, 0, b"x"),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.1 padding as long as the payload",
            [
                post(1, "/test/a", &[]),
                frame(kind::DATA, flag::PADDED, 1, b"\x02x"),
            ]
            .concat(),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.1 padding is dropped",
            [
                post(1, "/test/mock", &[]),
                frame(kind::DATA, flag::PADDED | 1, 1, b"\x02xyz"),
            ]
            .concat(),
            Answer(1, 200),
        ),
        // 6.2: HEADERS.
        (
            "6.2 HEADERS on stream 0",
            on_stream(0, &[]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.2 padding over the payload",
            frame(kind::HEADERS, 5 | flag::PADDED, 1, b"\xff"),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.2 padding and priority are skipped",
            {
                let payload = [&[3, 0, 0, 0, 0, 1][..], &field_block, &[0; 3]].concat();
                frame(kind::HEADERS, 5 | flag::PADDED | flag::PRIORITY, 1, &payload)
            },
            Answer(1, 200),
        ),
        // 6.3: PRIORITY.
        (
            "6.3 PRIORITY on stream 0",
            frame(kind::PRIORITY, 0, 0, &[0; 5]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.3 PRIORITY of another length",
            frame(kind::PRIORITY, 0, 1, &[0; 4]),
            End(code::FRAME_SIZE_ERROR),
        ),
        // 6.4: RST_STREAM.
        (
            "6.4 RST_STREAM on stream 0",
            reset(0, 0),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.4 RST_STREAM of another length",
            [ok(), frame(kind::RST_STREAM, 0, 1, &[0; 3])].concat(),
            End(code::FRAME_SIZE_ERROR),
        ),
        // 6.5: SETTINGS.
        (
            "6.5 SETTINGS on a stream",
            frame(kind::SETTINGS, 0, 1, &[]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.5 SETTINGS of another length",
            frame(kind::SETTINGS, 0, 0, &[0; 5]),
            End(code::FRAME_SIZE_ERROR),
        ),
        (
            "6.5 an acknowledgement with a payload",
            frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]),
            End(code::FRAME_SIZE_ERROR),
        ),
        (
            "6.5.2 ENABLE_PUSH of 2",
            settings(&[(2, 2)]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.5.2 a window over its largest",
            settings(&[(4, 0x8000_0000)]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.5.2 a frame size below its smallest",
            settings(&[(5, 16_383)]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.5.2 a frame size over its largest",
            settings(&[(5, 16_777_216)]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.5.2 unknown settings are ignored",
            settings(&[(0x4242, 1)]),
            Pass,
        ),
        // 6.6: PUSH_PROMISE.
        (
            "6.6 PUSH_PROMISE from a client",
            [ok(), frame(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])].concat(),
            End(code::PROTOCOL_ERROR),
        ),
        // 6.7: PING.
        (
            "6.7 PING on a stream",
            frame(kind::PING, 0, 1, &[0; 8]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.7 PING of another length",
            frame(kind::PING, 0, 0, &[0; 7]),
            End(code::FRAME_SIZE_ERROR),
        ),
        // 6.8: GOAWAY.
        (
            "6.8 GOAWAY on a stream",
            frame(kind::GOAWAY, 0, 1, &[0; 8]),
            End(code::PROTOCOL_ERROR),
        ),
        // 6.9: WINDOW_UPDATE.
        (
            "6.9 an increment of 0",
            window_update(0, 0),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.9 WINDOW_UPDATE of another length",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3]),
            End(code::FRAME_SIZE_ERROR),
        ),
        (
            "6.9.1 the connection's window over its largest",
            window_update(0, LARGEST_WINDOW),
            End(code::FLOW_CONTROL_ERROR),
        ),
        (
            "6.9.1 a stream's window over its largest",
            [post(1, "/test/a", &[]), window_update(1, LARGEST_WINDOW)].concat(),
            Reset(1, code::FLOW_CONTROL_ERROR),
        ),
        (
            "6.9.2 a window below nothing is waited out",
            [settings(&[(4, 0)]), ok(), settings(&[(4, 65_535)])].concat(),
            Answer(1, 200),
        ),
        // 6.10: CONTINUATION.
        (
            "6.10 a block in parts",
            [
                frame(kind::HEADERS, 1, 1, first),
                frame(kind::CONTINUATION, 4, 1, second),
            ]
            .concat(),
            Answer(1, 200),
        ),
        (
            "6.10 CONTINUATION after the block's end",
            [ok(), frame(kind::CONTINUATION, 4, 1, b"")].concat(),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "6.10 CONTINUATION on another stream",
            [
                frame(kind::HEADERS, 1, 1, first),
                frame(kind::CONTINUATION, 4, 3, second),
            ]
            .concat(),
            End(code::PROTOCOL_ERROR),
        ),
        // 8.1: messages.
        (
            "8.1 trailers without END_STREAM",
            [post(1, "/test/a", &[]), headers(1, 0, &[("x-t", "t")])].concat(),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.1.1 less data than content-length",
            [post(1, "/test/a", &[("content-length", "2")]), data(1, 1, b"x")].concat(),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.1.1 more data than content-length",
            [post(1, "/test/a", &[("content-length", "2")]), data(1, 1, b"xyz")].concat(),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.1.1 a content-length and no data",
            on_stream(1, &[("content-length", "2")]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.1.1 lengths that differ",
            post(1, "/test/a", &[("content-length", "2"), ("content-length", "3")]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        // 8.2: fields.
        (
            "8.2.1 an upper-case name",
            on_stream(1, &[("X-Upper", "a")]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "8.2.1 a control byte in a value",
            on_stream(1, &[("x-a", "a\u{1}")]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "8.2.1 a line end in a value",
            on_stream(1, &[("x-a", "a\r\nx-b: b")]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "8.2.1 a blank before a value",
            on_stream(1, &[("x-a", " a")]),
            Answer(1, 400),
        ),
        (
            "8.2.1 a blank in a name",
            on_stream(1, &[("x a", "a")]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "8.2.2 connection",
            on_stream(1, &[("connection", "close")]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.2.2 keep-alive",
            on_stream(1, &[("keep-alive", "5")]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.2.2 proxy-connection",
            on_stream(1, &[("proxy-connection", "close")]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.2.2 transfer-encoding",
            post(1, "/test/a", &[("transfer-encoding", "chunked")]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.2.2 upgrade",
            on_stream(1, &[("upgrade", "websocket")]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.2.2 te of another value",
            on_stream(1, &[("te", "gzip")]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.2.2 te of trailers",
            on_stream(1, &[("te", "trailers")]),
            Answer(1, 200),
        ),
        // 8.3: control data.
        (
            "8.3 an unknown pseudo-header field",
            raw(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":x", "y"),
            ]),
            End(code::PROTOCOL_ERROR),
        ),
        (
            "8.3 a pseudo-header field of responses",
            raw(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":status", "200"),
            ]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.3 a pseudo-header field after another",
            raw(&[
                (":method", "GET"),
                (":scheme", "http"),
                ("x-a", "a"),
                (":path", "/"),
            ]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.3 a pseudo-header field twice",
            on_stream(1, &[(":path", "/test/mock")]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.3.1 no :method",
            without(":method"),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.3.1 no :scheme",
            without(":scheme"),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        ("8.3.1 no :path", without(":path"), Reset(1, code::PROTOCOL_ERROR)),
        ("8.3.1 no authority", without(":authority"), Answer(1, 400)),
        (
            "8.3.1 an empty :path",
            raw(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", HOST),
                (":path", ""),
            ]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
        (
            "8.3.1 a :path that is none",
            raw(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", HOST),
                (":path", "*"),
            ]),
            Answer(1, 400),
        ),
        (
            "8.3.1 user information",
            raw(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "u@api.execute-api.localhost"),
                (":path", "/test/mock"),
            ]),
            Answer(1, 400),
        ),
        (
            "8.3.1 a host that differs",
            on_stream(1, &[("host", "other.test")]),
            Answer(1, 400),
        ),
        (
            "8.3.1 a host that agrees",
            on_stream(1, &[("host", HOST)]),
            Answer(1, 200),
        ),
        (
            "8.3.1 a host instead of an authority",
            raw(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/test/mock"),
                ("host", HOST),
            ]),
            Answer(1, 200),
        ),
        (
            "8.5 CONNECT with a path",
            raw(&[
                (":method", "CONNECT"),
                (":scheme", "http"),
                (":authority", HOST),
                (":path", "/"),
            ]),
            Reset(1, code::PROTOCOL_ERROR),
        ),
    ];
    on_both_drivers(|driver| {
        let backend = Backend::start(|mut peer| {
            let _ = peer.head();
            let _ = peer.line();
        });
        let on = gateway(
            driver,
            &[("body-window-bytes", "16KiB"), ("linger-timeout", "50ms")],
            &backend,
        );
        let mut wrong = Vec::new();
        for (name, bytes, must) in &cases {
            let mut client = open(&on);
            client.send(bytes).unwrap();
            let ended = match must {
                End(_) => {
                    client.end().unwrap();
                    client.goaways.first().map_or(Pass, |(_, code)| End(*code))
                }
                Pass => Pass,
                Reset(stream, _) | Answer(stream, _) => {
                    let seen = client.end_of(*stream).unwrap();
                    match (seen.ended, seen.status, client.goaways.first()) {
                        (_, _, Some((_, code))) => End(*code),
                        (Ended::Reset(code), ..) => Reset(*stream, code),
                        (_, Some(status), _) => Answer(*stream, status),
                        _ => Pass,
                    }
                }
            };
            let alive = matches!(must, End(_)) || client.ping().unwrap();
            if ended != *must || !alive {
                wrong.push(format!("{name}: {ended:?} instead of {must:?}, alive {alive}"));
            }
        }
        // Section 3.4: the client's SETTINGS come first.
        for (name, first) in [
            ("PING", frame(kind::PING, 0, 0, &[0; 8])),
            ("an acknowledgement", frame(kind::SETTINGS, flag::ACK, 0, &[])),
        ] {
            let mut client = Http2::silent(on.address).unwrap();
            client.acknowledges = false;
            client.send([PREFACE, &first].concat()).unwrap();
            client.end().unwrap();
            if client.goaways != [(0, code::PROTOCOL_ERROR)] {
                wrong.push(format!("3.4 {name} before SETTINGS: {:?}", client.goaways));
            }
        }
        // Section 5.1: DATA after the stream's end.
        let mut client = open(&on);
        client.get(1, HOST, "/test/mock").unwrap();
        client.send(frame(kind::DATA, 0, 1, b"x")).unwrap();
        client
            .until(|all| !all.goaways.is_empty() || all.streams[&1].late_reset.is_some())
            .unwrap();
        let codes = (
            client.goaways.first().map(|one| one.1),
            client.streams[&1].late_reset,
        );
        if !matches!(
            codes,
            (Some(code::STREAM_CLOSED | code::PROTOCOL_ERROR), _) | (_, Some(code::STREAM_CLOSED))
        ) {
            wrong.push(format!("5.1 DATA on a closed stream: {codes:?}"));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(on.node().telemetry().node().status().panics_total, 0);
    });
}

/// Fixed answers, with a body and without.
#[test]
fn a_mock_answers_over_http2() {
    on_both_drivers(|driver| {
        let mut on = Gateway::with_http2(driver, Limits::default());
        let mut api = Api::default();
        api.route("/pets", get(), mock(201, "{\"made\":true}"));
        api.route("/none", MethodKey::Any, mock(204, ""));
        on.deploy(api.finish());
        let mut client = open(&on);
        let seen = client.get(1, HOST, "/test/pets").unwrap();
        assert_eq!(answered(&seen), (Some(201), Ended::Whole));
        assert_eq!(seen.body, b"{\"made\":true}");
        let none = client.get(3, HOST, "/test/none").unwrap();
        assert_eq!((answered(&none), none.body.len()), ((Some(204), Ended::Whole), 0));
    });
}
