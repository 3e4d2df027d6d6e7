//! HTTP/2 towards clients, frame by frame: what RFC 9113 demands, what floods end in, and that streams are in nobody's
//! way. With a client that says exactly what a test wants it to say.

mod any_bytes;
mod bounds;
mod conformance;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write;
use std::sync::mpsc;

use support::{Api, Backend, Gateway, get, limits, mock, on_both_drivers, wait};
use tidegate_harness::http2::{
    Ended, Http2, PREFACE, Stream, block, code, flag, frame, frame_saying, headers, kind, request, reset,
    settings, window_update,
};
use tidegate_plan::{Limits, MethodKey};

const HOST: &str = "api.execute-api.localhost";
const LARGEST_WINDOW: u32 = 0x7fff_ffff;

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
