//! RFC 9113, demand by demand.

use super::*;

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

/// RFC 9113 section 8.1.1: a body that goes on behind its announced end makes the request malformed, however late, and no
/// backend has it whole.
#[test]
fn bodies_that_go_on_behind_their_end_arrive_nowhere() {
    on_both_drivers(|driver| {
        let (tell, told) = mpsc::channel();
        let backend = Backend::start(move |mut peer| {
            while let Some(seen) = peer.head() {
                tell.send(seen.clone()).unwrap();
                let whole = match seen.get("content-length") {
                    Some(length) => peer.take(length.parse().unwrap()).is_some(),
                    None => peer.line().is_some(),
                };
                let _ = peer
                    .stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                if whole {
                    tell.send(seen).unwrap();
                }
            }
        });
        let on = gateway(driver, &[], &backend);
        for (length, body) in [("5", "hello"), ("0", "")] {
            let mut client = open(&on);
            client
                .send(post(1, "/test/first", &[("content-length", length)]))
                .unwrap();
            client.send(data(1, 0, body.as_bytes())).unwrap();
            assert!(told.recv().unwrap().head.starts_with("POST /base/first "));
            client.send(data(1, flag::END_STREAM, b"more")).unwrap();
            let first = client.end_of(1).unwrap();
            assert!(
                matches!(first.ended, Ended::Reset(code::PROTOCOL_ERROR)),
                "{first:?}"
            );

            // Where nothing comes behind it, the end may be late and have a frame of its own.
            client
                .send(post(3, "/test/second", &[("content-length", "5")]))
                .unwrap();
            client.send(data(3, 0, b"hello")).unwrap();
            assert!(told.recv().unwrap().head.starts_with("POST /base/second "));
            client.send(frame(kind::DATA, flag::END_STREAM, 3, b"")).unwrap();
            let second = client.end_of(3).unwrap();
            assert_eq!((second.status, second.ended), (Some(200), Ended::Whole));
            assert!(told.recv().unwrap().head.starts_with("POST /base/second "));
        }
    });
}
