//! What ends of itself or is refused: drains, time-outs, streams over their bounds, floods.

use super::*;

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

/// `http2-small-data-bytes`: a body in crumbs, faster than anybody asks for it, costs more to hold than it carries.
#[test]
fn a_body_in_crumbs_ends_the_connection_over_its_bound() {
    on_both_drivers(|driver| {
        let backend = reflecting();
        let mut crumbs = post(1, "/test/a", &[]);
        for _ in 0..1_000 {
            crumbs.extend(data(1, 0, b"x"));
        }
        crumbs.extend(data(1, flag::END_STREAM, b"x"));

        let by_default = gateway(driver, &[], &backend);
        let mut client = open(&by_default);
        client.send(&crumbs).unwrap();
        assert_eq!(answered(&client.end_of(1).unwrap()), OK);

        let strict = gateway(driver, &[("http2-small-data-bytes", "16KiB")], &backend);
        let mut client = open(&strict);
        client.send(&crumbs).unwrap();
        client.end().unwrap();
        let codes: Vec<u32> = client.goaways.iter().map(|(_, code)| *code).collect();
        assert_eq!(codes, [code::ENHANCE_YOUR_CALM]);
    });
}
