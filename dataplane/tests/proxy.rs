//! Requests through a data plane to real backends, on both drivers.

mod support;

use std::io::Write as _;
use std::sync::mpsc;

use support::{Api, Backend, Gateway, Kind, get, mock, on_both_drivers, request, wait};
use tidegate_plan::{Limits, MethodKey};

/// RES-041, RES-167, OBV-234, OBV-237, OBV-238, OBV-241, OBV-258, DEP-001.
#[test]
fn a_proxied_request_reaches_its_backend_and_comes_back() {
    on_both_drivers(|driver| {
        let backend = Backend::echoing();
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        for _ in 0..3 {
            client.send(request(
                "GET",
                "/test/pets/1?type=dog&x=%20",
                &[("User-Agent", "t"), ("Accept", "a/b")],
                b"",
            ));
            let answer = client.answer();
            assert_eq!(answer.status, 200, "{answer:?}");
            let seen = answer.text();
            assert!(
                seen.starts_with("GET /base/pets/1?type=dog&x=%20 HTTP/1.1\r\n"),
                "{seen}"
            );
            assert!(
                seen.contains(&format!("\r\nHost: {}\r\n", backend.address)),
                "{seen}"
            );
            for line in [
                "User-Agent: t",
                "Accept: a/b",
                "X-Forwarded-For: 127.0.0.1",
                "Content-Length: 0",
            ] {
                assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line} in {seen}");
            }
            assert!(seen.contains("\r\nX-Amzn-Apigateway-Api-Id: api\r\n"));
            assert!(seen.contains("\r\nX-Amzn-Trace-Id: Root=1-"));
            assert_eq!(answer.get("content-type"), Some("text/plain"));
            assert!(answer.get("x-amzn-requestid").is_some() && answer.get("x-amz-apigw-id").is_some());
            assert_eq!(
                answer.get("x-amzn-remapped-content-length"),
                answer.get("content-length")
            );
            assert_eq!(answer.get("connection"), Some("keep-alive"));
        }
    });
}

/// RES-050, RES-051, GWR-032.
#[test]
fn what_is_not_there_is_answered_403() {
    on_both_drivers(|driver| {
        let mut gateway = Gateway::start(driver);
        let mut api = Api::default();
        api.route("/pets", get(), mock(200, "{}"));
        gateway.deploy(api.finish());
        let missing = gateway.get("/test/nothing");
        assert_eq!(
            (missing.status, missing.text()),
            (403, "{\"message\":\"Missing Authentication Token\"}")
        );
        assert_eq!(
            missing.get("x-amzn-errortype"),
            Some("MissingAuthenticationTokenException")
        );
        let mut client = gateway.connect();
        client.send(request("POST", "/test/pets", &[], b""));
        assert_eq!(client.answer().status, 403);
        client.send(request("GET", "/other/pets", &[], b""));
        let other = client.answer();
        assert_eq!((other.status, other.text()), (403, "{\"message\":\"Forbidden\"}"));
        client.send(request("GET", "/test/pets", &[], b""));
        assert_eq!(client.answer().status, 200);
    });
}

/// SEC-075, GWR-036.
#[test]
fn a_throttled_request_is_answered_429() {
    on_both_drivers(|driver| {
        let mut gateway = Gateway::start(driver);
        let mut api = Api::default();
        api.throttled(0.001, 2);
        api.route("/pets", get(), mock(200, "{}"));
        gateway.deploy(api.finish());
        let mut client = gateway.connect();
        let mut statuses = Vec::new();
        for _ in 0..4 {
            client.send(request("GET", "/test/pets", &[], b""));
            let answer = client.answer();
            statuses.push(answer.status);
            if answer.status == 429 {
                assert_eq!(answer.text(), "{\"message\":\"Too Many Requests\"}");
            }
        }
        assert_eq!(statuses, [200, 200, 429, 429]);
    });
}

/// D14: backend gone, slow, talking garbage, dying within its body.
#[test]
fn backends_fail_in_defined_ways() {
    on_both_drivers(|driver| {
        let mut gateway = Gateway::start(driver);
        let gone = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let slow = Backend::start(|mut peer| {
            peer.request();
            // Waits for the gateway to give up.
            peer.request();
        });
        let garbage = Backend::answering("garbage\r\n\r\n");
        let switching = Backend::answering("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
        let dying = Backend::start(|mut peer| {
            use std::io::Write;
            peer.request();
            let _ = peer
                .stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        });
        let mut api = Api::default();
        for (path, address, timeout) in [
            ("/gone/{proxy+}", gone, 0),
            ("/slow/{proxy+}", slow.address, 60),
            ("/garbage/{proxy+}", garbage.address, 0),
            ("/switching/{proxy+}", switching.address, 0),
            ("/dying/{proxy+}", dying.address, 0),
        ] {
            let integration = api.backend(address, timeout, Kind::Proxy);
            api.route(path, MethodKey::Any, integration);
        }
        gateway.deploy(api.finish());
        let gone = gateway.get("/test/gone/x");
        assert_eq!(
            (gone.status, gone.text()),
            (
                504,
                "{\"message\": \"Network error communicating with endpoint\"}"
            )
        );
        let slow = gateway.get("/test/slow/x");
        assert_eq!(
            (slow.status, slow.text()),
            (504, "{\"message\": \"Endpoint request timed out\"}")
        );
        let garbage = gateway.get("/test/garbage/x");
        assert_eq!(
            (garbage.status, garbage.text()),
            (502, "{\"message\": \"Internal server error\"}")
        );
        assert_eq!(gateway.get("/test/switching/x").status, 502);
        let mut client = gateway.connect();
        client.send(request("GET", "/test/dying/x", &[], b""));
        assert!(
            client.try_answer("GET").is_none(),
            "a response that is not whole must not look whole"
        );
    });
}

/// RFC 9112 section 9.3.2: answers to pipelined requests come in order.
#[test]
fn pipelined_requests_are_answered_in_order() {
    on_both_drivers(|driver| {
        let backend = Backend::echoing();
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        let mut all = Vec::new();
        for i in 0..20 {
            let path = if i % 3 == 0 {
                "/test/mock".to_owned()
            } else {
                format!("/test/p{i}")
            };
            all.extend(request("POST", &path, &[], format!("body {i}").as_bytes()));
        }
        client.send(&all);
        for i in 0..20 {
            let answer = client.answer();
            assert_eq!(answer.status, 200);
            if i % 3 == 0 {
                assert_eq!(answer.text(), "{\"mocked\":true}");
            } else {
                assert!(
                    answer.text().starts_with(&format!("POST /base/p{i} ")),
                    "{}",
                    answer.text()
                );
                assert!(answer.text().ends_with(&format!("body {i}")));
            }
        }
    });
}

/// How often the node's one shard has sent something.
fn sends(gateway: &Gateway) -> u64 {
    let shards = gateway.node().telemetry().node().shards();
    shards[0].sends.load(std::sync::atomic::Ordering::Relaxed)
}

/// D5: answers to requests that came together leave together; the one that nothing follows leaves at once.
#[test]
fn answers_to_pipelined_requests_are_sent_together() {
    const COUNT: u64 = 16;
    on_both_drivers(|driver| {
        let backend = Backend::echoing();
        let mut limits = Limits::default();
        // Longer than a client of these tests waits: an answer that waits for its successor in vain is not seen.
        limits.set("answer-hold", "60s").unwrap();
        let mut gateway = Gateway::with_limits(driver, limits);
        gateway.deploy(Api::proxy(backend.address));
        for (path, to_backend) in [("/test/mock", 0), ("/test/pets", COUNT)] {
            let mut client = gateway.connect();
            let alone = sends(&gateway);
            client.send(request("GET", path, &[], b""));
            assert_eq!(client.answer().status, 200);
            assert_eq!(
                sends(&gateway) - alone,
                if to_backend > 0 { 2 } else { 1 },
                "{path}"
            );
            let before = sends(&gateway);
            client.send(request("GET", path, &[], b"").repeat(COUNT as usize));
            for _ in 0..COUNT {
                assert_eq!(client.answer().status, 200, "{path}");
            }
            // The kernel hands the requests over in one or, at worst, a few reads.
            let to_client = sends(&gateway) - before - to_backend;
            assert!(
                to_client <= COUNT / 4,
                "{path}: {COUNT} answers in {to_client} sends"
            );
        }
    });
}

/// D5: an answer does not wait for one whose backend takes its time.
#[test]
fn an_answer_does_not_wait_for_a_slow_successor() {
    on_both_drivers(|driver| {
        let (go, may_go) = mpsc::channel::<()>();
        let may_go = std::sync::Mutex::new(may_go);
        let backend = Backend::start(move |mut peer| {
            while let Some(seen) = peer.request() {
                if seen.head.contains("/base/slow") {
                    wait(&may_go.lock().unwrap());
                }
                let _ = peer
                    .stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        client.send(
            [
                request("GET", "/test/fast", &[], b""),
                request("GET", "/test/slow", &[], b""),
            ]
            .concat(),
        );
        assert_eq!(client.answer().text(), "ok");
        go.send(()).unwrap();
        assert_eq!(client.answer().text(), "ok");
    });
}

#[test]
fn chunked_bodies_pass_both_ways() {
    on_both_drivers(|driver| {
        let backend = Backend::start(|mut peer| {
            use std::io::Write;
            while let Some(seen) = peer.request() {
                assert_eq!(seen.get("transfer-encoding"), Some("chunked"));
                let mut out = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for (at, part) in seen.body.chunks(1000).enumerate() {
                    out.extend(
                        format!("{:x}{}\r\n", part.len(), if at == 0 { ";ext=1" } else { "" }).bytes(),
                    );
                    out.extend(part);
                    out.extend(b"\r\n");
                }
                out.extend(b"0\r\nTrailer: dropped\r\n\r\n");
                peer.stream.write_all(&out).unwrap();
            }
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        for size in [1_usize, 999, 70_000, 300_000] {
            let body: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let mut sent = request("PUT", "/test/x", &[("Transfer-Encoding", "chunked")], b"");
            for part in body.chunks(7_777) {
                sent.extend(format!("{:X}\r\n", part.len()).bytes());
                sent.extend(part);
                sent.extend(b"\r\n");
            }
            sent.extend(b"0\r\n\r\n");
            client.send(&sent);
            let answer = client.answer();
            assert_eq!(
                (answer.status, answer.get("transfer-encoding")),
                (200, Some("chunked"))
            );
            assert!(answer.body == body, "{} bytes of {size}", answer.body.len());
        }
    });
}

/// D14: the client is asked for its body only after every check that needs none.
#[test]
fn a_client_is_asked_to_continue_when_its_body_is_wanted() {
    on_both_drivers(|driver| {
        let backend = Backend::echoing();
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        let expecting = [("Expect", "100-continue"), ("Content-Length", "4")];
        client.send(request("POST", "/test/x", &expecting, b""));
        assert_eq!(client.answer().status, 100);
        client.send("body");
        let answer = client.answer();
        assert!(
            answer.text().ends_with("\r\n\r\nbody") && !answer.text().contains("Expect"),
            "{}",
            answer.text()
        );
        client.send(request("POST", "/nowhere/x", &expecting, b""));
        assert_eq!(client.answer().status, 403);
        assert!(client.is_closed());
    });
}

/// D14: HEAD, 204 and 304 carry no body.
#[test]
fn answers_without_body_have_none() {
    on_both_drivers(|driver| {
        let backend = Backend::start(|mut peer| {
            use std::io::Write;
            while let Some(seen) = peer.request() {
                let answer: &[u8] = match seen.head.split(' ').nth(1).unwrap() {
                    "/base/204" => b"HTTP/1.1 204 No Content\r\n\r\n",
                    "/base/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
                    _ => b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
                };
                peer.stream.write_all(answer).unwrap();
            }
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::proxy(backend.address));
        let mut client = gateway.connect();
        client.send(request("HEAD", "/test/x", &[], b""));
        let answer = client.answer_to("HEAD");
        assert_eq!((answer.status, answer.get("content-length")), (200, Some("7")));
        client.send(request("GET", "/test/204", &[], b""));
        assert_eq!(client.answer().status, 204);
        client.send(request("GET", "/test/304", &[], b""));
        assert_eq!(client.answer().status, 304);
        client.send(request("HEAD", "/test/mock", &[], b""));
        assert_eq!(client.answer_to("HEAD").get("content-length"), Some("15"));
        client.send(request("GET", "/test/mock", &[], b""));
        assert_eq!(client.answer().status, 200);
    });
}

/// C3: what `tidegate explain` shows is what the phases would decide; nothing reaches the backend.
#[test]
fn a_request_is_explained_without_being_run() {
    let backend = Backend::echoing();
    let mut gateway = Gateway::start(tidegate_rt::DriverChoice::Epoll);
    gateway.deploy(Api::proxy(backend.address));
    let phases = |result: &tidegate_proto::config::v1::ProbeResult| {
        let steps = result.steps.iter();
        steps.map(|step| step.phase.clone()).collect::<Vec<_>>()
    };
    let base = format!("http://{}/restapis/api/test/_user_request_", gateway.address);

    let found = gateway.explain("GET", &format!("{base}/pets/1?x=y#z"));
    assert_eq!(found.error, "");
    assert_eq!(
        phases(&found),
        ["frame", "locate", "route", "throttle", "integration"]
    );
    let last = &found.steps[4].decision;
    assert!(last.contains(&backend.address.to_string()), "{last}");

    let unknown = gateway.explain("GET", "http://nowhere.example/test/pets/1");
    assert_eq!(
        (unknown.status, phases(&unknown).last().unwrap().as_str()),
        (403, "locate")
    );
    let bad = gateway.explain("GET", &format!("{base}/%zz"));
    assert_eq!(bad.status, 400);
    let relative = gateway.explain("GET", "/test/pets");
    assert!(relative.error.contains("absolute"), "{}", relative.error);
}

/// D11: a backend that hangs up after each response, without having said so, costs no request: neither one that comes
/// at once, before the idle connection is watched, nor one that comes after, whatever its method.
#[test]
fn a_backend_may_hang_up_between_requests() {
    on_both_drivers(|driver| {
        let (ended, hung_up) = mpsc::channel();
        let backend = Backend::start(move |mut peer| {
            if peer.request().is_some() {
                peer.stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .unwrap();
            }
            drop(peer);
            ended.send(()).unwrap();
        });
        for delay in ["1", "10000"] {
            let mut limits = Limits::default();
            limits.set("watch-delay", delay).unwrap();
            let mut gateway = Gateway::with_limits(driver, limits);
            gateway.deploy(Api::proxy(backend.address));
            let mut client = gateway.connect();
            for at in 0..40 {
                client.send(request("POST", "/test/x", &[], b"once"));
                assert_eq!(
                    client.answer().status,
                    200,
                    "request {at}, watched after {delay} ms"
                );
                // The next request finds the end in place.
                wait(&hung_up);
            }
        }
    });
}
