//! What passes besides whole messages of HTTP/1.1, where an integration lets it (decision D13): upgrades and the tunnels
//! that come of them, trailers, `Forwarded` and `Via`. And what does not.

mod http2;
#[path = "../support/mod.rs"]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::{Mutex, mpsc};

use support::{
    Answer, Api, Backend, Client, Gateway, Peer, Seen, counters, limits, on_both_drivers, request, wait,
};
use tidegate_plan::{Limits, PassThrough};
use tidegate_rt::DriverChoice;

const NOTHING: PassThrough = PassThrough {
    upgrade: false,
    trailers: false,
    http2: None,
    forwarded: false,
    via: false,
};

const UPGRADE: PassThrough = PassThrough {
    upgrade: true,
    ..NOTHING
};

const TRAILERS: PassThrough = PassThrough {
    trailers: true,
    ..NOTHING
};

/// A request to switch protocols.
fn asking() -> Vec<u8> {
    let asked = [
        ("Connection", "Upgrade, X-Own"),
        ("X-Own", "1"),
        ("Upgrade", "h2c, echo, chat/2"),
    ];
    request("GET", "/test/x", &asked, b"")
}

const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Chosen: 1\r\n\r\n";

/// A gateway before a backend whose connections each go to `handle`.
fn gateway(
    driver: DriverChoice,
    limits: Limits,
    pass: PassThrough,
    handle: impl Fn(Peer) + Send + Sync + 'static,
) -> Gateway {
    let backend = Backend::start(handle);
    let mut gateway = Gateway::with_limits(driver, limits);
    gateway.deploy(Api::through(backend.address, pass));
    gateway
}

/// A client whose exchange has become a tunnel.
fn tunnel(gateway: &Gateway) -> (Client, Answer) {
    let mut client = gateway.connect();
    client.send(asking());
    let answer = client.answer();
    assert_eq!(answer.status, 101, "{answer:?}");
    (client, answer)
}

/// Everything until the other side's end.
fn rest(client: &mut Client) -> Vec<u8> {
    let mut all = client.pending().to_vec();
    client.stream.read_to_end(&mut all).unwrap();
    all
}

/// Answers 101 and gives back what comes, until the other side's end; then says goodbye.
fn echo(mut peer: Peer) {
    peer.head().unwrap();
    peer.stream.write_all(SWITCHED).unwrap();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = peer.stream.read(&mut bytes) {
        if peer.stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
    let _ = peer.stream.write_all(b"goodbye");
}

/// D13, RFC 9110 section 7.8: what the client asks for reaches the backend, but for HTTP under another name; a 101 makes
/// a tunnel, in which each side ends its direction by itself.
#[test]
fn an_upgrade_ends_as_a_tunnel() {
    on_both_drivers(|driver| {
        let (see, seen) = mpsc::channel();
        let see = Mutex::new(see);
        let gateway = gateway(driver, Limits::default(), UPGRADE, move |mut peer| {
            let head = peer.head().unwrap();
            // The first bytes of the new protocol come with the head.
            peer.stream.write_all(&[SWITCHED, b"welcome"].concat()).unwrap();
            peer.stream.shutdown(Shutdown::Write).unwrap();
            let mut said = Vec::new();
            peer.stream.read_to_end(&mut said).unwrap();
            see.lock().unwrap().send((head, said)).unwrap();
        });
        let (mut client, answer) = tunnel(&gateway);
        assert_eq!(
            (
                answer.get("upgrade"),
                answer.get("connection"),
                answer.get("x-chosen")
            ),
            (Some("echo"), Some("Upgrade"), Some("1"))
        );
        assert!(answer.get("x-amzn-requestid").is_some() && answer.get("content-length").is_none());
        // The backend has ended its direction; ours goes on.
        assert_eq!(rest(&mut client), b"welcome");
        client.send("still here");
        client.stream.shutdown(Shutdown::Write).unwrap();
        let (head, said) = wait(&seen);
        assert_eq!(said, b"still here");
        assert_eq!(
            (head.get("upgrade"), head.get("connection"), head.get("x-own")),
            (Some("echo, chat/2"), Some("Upgrade"), None)
        );
        assert_eq!(counters(&gateway).tunnels.get(), 1);
    });
}

/// The client ends first, and what it sent together with its request is the new protocol's.
#[test]
fn a_client_ends_its_direction_first() {
    on_both_drivers(|driver| {
        let gateway = gateway(driver, Limits::default(), UPGRADE, echo);
        let mut client = gateway.connect();
        client.send([&asking()[..], b"early"].concat());
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.answer().status, 101);
        assert_eq!(rest(&mut client), b"earlygoodbye");
    });
}

/// A tunnel holds no more than its windows, and loses nothing, whichever side is the slower one.
#[test]
fn a_tunnel_takes_no_more_than_it_can_pass_on() {
    on_both_drivers(|driver| {
        const LENGTH: usize = 32 << 20;
        let limits = limits(&[("body-window-bytes", "16KiB")]);
        let gateway = gateway(driver, limits, UPGRADE, echo);
        let (mut client, _) = tunnel(&gateway);
        let pattern: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
        let mut sender = client.stream.try_clone().unwrap();
        let sent = pattern.clone();
        // Sent before anything is read: echo and gateway both stop until somebody reads.
        let sending = std::thread::spawn(move || {
            sender.write_all(&sent).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
        });
        let echoed = rest(&mut client);
        sending.join().unwrap();
        assert_eq!(echoed.len(), LENGTH + b"goodbye".len());
        assert!(echoed.starts_with(&pattern));
        let used = counters(&gateway).pool_used_bytes.get();
        assert!(used < 4 << 20, "{used} bytes of buffers after the tunnel");
    });
}

/// An answer that is not 101 is an answer like any other, and the connections go on.
#[test]
fn a_backend_need_not_switch() {
    on_both_drivers(|driver| {
        let gateway = gateway(driver, Limits::default(), UPGRADE, |mut peer| {
            while peer.request().is_some() {
                peer.stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
                    .unwrap();
            }
        });
        let mut client = gateway.connect();
        for _ in 0..2 {
            client.send(asking());
            assert_eq!(client.answer().text(), "no");
        }
        assert_eq!(counters(&gateway).upstream_connects.get(), 1);
    });
}

/// D14: a switch that nobody asked for, or to something else than was asked for, is no answer; nor is `Upgrade` passed on
/// where the setting is off, from HTTP/1.0, or with a body.
#[test]
fn what_was_not_asked_for_is_refused() {
    on_both_drivers(|driver| {
        let handle = |mut peer: Peer| {
            let seen = peer.request().unwrap();
            let upgrade = match seen.get("upgrade") {
                Some("other") => "echo",
                _ => "unasked",
            };
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {upgrade}\r\nConnection: Upgrade\r\n\r\n"
            );
            let _ = peer.stream.write_all(head.as_bytes());
        };
        let on = gateway(driver, Limits::default(), UPGRADE, handle);
        let off = gateway(driver, Limits::default(), TRAILERS, handle);
        let upgrade = |name| [("Connection", "upgrade"), ("Upgrade", name)];
        for (gateway, bytes) in [
            (&on, request("GET", "/test/x", &[], b"")),
            (&on, request("GET", "/test/x", &upgrade("other"), b"")),
            (&on, request("GET", "/test/x", &upgrade("h2c"), b"")),
            (&on, request("GET", "/test/x", &upgrade("HTTP/2.0, TLS/1.3"), b"")),
            (&on, request("POST", "/test/x", &upgrade("echo"), b"abc")),
            (&off, asking()),
        ] {
            let mut client = gateway.connect();
            client.send(&bytes);
            let answer = client.answer();
            assert_eq!(
                answer.status,
                502,
                "{}: {answer:?}",
                String::from_utf8_lossy(&bytes)
            );
        }
        assert_eq!(counters(&on).tunnels.get(), 0);
    });
}

/// A tunnel in which nobody says anything ends for both, and so does one at the end of a drain.
#[test]
fn a_tunnel_does_not_last_for_ever() {
    on_both_drivers(|driver| {
        let (end, ended) = mpsc::channel();
        let end = Mutex::new(end);
        let handle = move |mut peer: Peer| {
            peer.head().unwrap();
            peer.stream.write_all(SWITCHED).unwrap();
            // An end or a reset.
            let _ = peer.stream.read(&mut [0]);
            end.lock().unwrap().send(()).unwrap();
        };
        let backend = Backend::start(handle);
        for setting in ["tunnel-idle-timeout", "drain-timeout"] {
            let mut gateway = Gateway::with_limits(driver, limits(&[(setting, "100ms")]));
            gateway.deploy(Api::through(backend.address, UPGRADE));
            let (mut client, _) = tunnel(&gateway);
            if setting == "drain-timeout" {
                gateway.drain();
                assert!(client.is_closed(), "{setting}");
            } else {
                assert!(client.is_closed(), "{setting}");
            }
            wait(&ended);
        }
    });
}

/// A request with trailers, and who is to read some.
fn trailed(te: Option<&str>) -> Vec<u8> {
    let te = te.map_or(String::new(), |te| format!("TE: {te}\r\n"));
    format!(
        "POST /test/x HTTP/1.1\r\nHost: api.execute-api.localhost\r\n{te}Trailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 6\r\nContent-Length: 9\r\nAuthorization: me\r\nX-Sum: 7\r\n\r\n"
    )
    .into_bytes()
}

/// Tells what came of a request behind its head, and answers with trailers.
fn trailing(see: mpsc::Sender<(Seen, String)>) -> impl Fn(Peer) + Send + Sync + 'static {
    let see = Mutex::new(see);
    move |mut peer| {
        while let Some(head) = peer.head() {
            let mut behind = String::new();
            loop {
                let line = peer.line().unwrap();
                behind.push_str(&line);
                if line == "\r\n" {
                    break;
                }
            }
            see.lock().unwrap().send((head, behind)).unwrap();
            peer.stream
                .write_all(
                    b"HTTP/1.1 200 OK\r\nTrailer: grpc-status\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
                      grpc-status: 0\r\nSet-Cookie: a\r\nTransfer-Encoding: b\r\n\r\n",
                )
                .unwrap();
        }
    }
}

/// The end of an answer in chunks: everything behind the last one's size.
fn trailers(client: &mut Client) -> (String, String) {
    let mut all = client.pending().to_vec();
    let mut bytes = [0; 4096];
    loop {
        let text = String::from_utf8(all.clone()).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.ends_with("\r\n\r\n")
        {
            let (_, behind) = body.split_once("\r\n0\r\n").unwrap();
            return (head.to_owned(), behind.to_owned());
        }
        match client.stream.read(&mut bytes) {
            Ok(0) => panic!("an end within {text}"),
            Ok(count) => all.extend_from_slice(&bytes[..count]),
            // The end of a ring that this thread has probed interrupts it.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
        }
    }
}

/// D13, RFC 9110 section 6.5: trailers pass both ways, except those that must be known before the body; to a client that
/// does not read them they do not, nor without the setting.
#[test]
fn trailers_pass_where_they_are_let() {
    on_both_drivers(|driver| {
        for (pass, te, up, down) in [
            (TRAILERS, Some("trailers"), true, true),
            (TRAILERS, Some("gzip;q=0.5, Trailers"), true, true),
            (TRAILERS, None, true, false),
            (UPGRADE, Some("trailers"), false, false),
        ] {
            let (see, seen) = mpsc::channel();
            let gateway = gateway(driver, Limits::default(), pass, trailing(see));
            let mut client = gateway.connect();
            for _ in 0..2 {
                client.send(trailed(te));
                let (head, behind) = wait(&seen);
                let (sent, announced) = match up {
                    true => ("0\r\nx-sum: 6\r\nx-sum: 7\r\n\r\n", Some("x-sum")),
                    false => ("0\r\n\r\n", None),
                };
                assert!(
                    behind.ends_with(&format!("3\r\nabc\r\n{sent}")),
                    "{te:?}: {behind}"
                );
                assert_eq!(head.get("trailer"), announced);
                assert_eq!(head.get("te"), down.then_some("trailers"));
                assert_eq!(head.get("connection"), down.then_some("TE"));
                let (head, behind) = trailers(&mut client);
                let received = if down { "grpc-status: 0\r\n\r\n" } else { "\r\n" };
                assert_eq!(behind, received, "{te:?}");
                assert_eq!(
                    head.to_ascii_lowercase().contains("trailer: grpc-status"),
                    down,
                    "{head}"
                );
            }
        }
    });
}

/// D13, RFC 7239, RFC 9110 section 7.6.3: both chains grow by us where they are asked for, and are cut where not.
#[test]
fn forwarded_and_via_are_written_when_on() {
    on_both_drivers(|driver| {
        let backend = Backend::start(|mut peer: Peer| {
            while let Some(seen) = peer.request() {
                let told = format!("{:?} {:?}", seen.get("forwarded"), seen.get("via"));
                let head = format!(
                    "HTTP/1.1 200 OK\r\nVia: 1.0 inner\r\nContent-Length: {}\r\n\r\n{told}",
                    told.len()
                );
                peer.stream.write_all(head.as_bytes()).unwrap();
            }
        });
        let mut gateway = Gateway::start(driver);
        let ask = |gateway: &Gateway, headers: &[(&str, &str)]| {
            let mut client = gateway.connect();
            client.send(request("GET", "/test/x", headers, b""));
            let answer = client.answer();
            (answer.text().to_owned(), answer.get("via").map(str::to_owned))
        };
        let chains = [("Forwarded", "for=192.0.2.1"), ("Via", "1.0 outer")];
        gateway.deploy(Api::through(backend.address, UPGRADE));
        assert_eq!(ask(&gateway, &chains), ("None None".to_owned(), None));
        gateway.deploy(Api::through(
            backend.address,
            PassThrough {
                forwarded: true,
                via: true,
                ..NOTHING
            },
        ));
        let own = "for=127.0.0.1;host=api.execute-api.localhost;proto=http";
        let via = Some("1.0 inner, 1.1 tidegate".to_owned());
        assert_eq!(
            ask(&gateway, &[]),
            (format!("Some({own:?}) Some(\"1.1 tidegate\")"), via.clone())
        );
        let chained = format!("for=192.0.2.1, {own}");
        assert_eq!(
            ask(&gateway, &chains),
            (
                format!("Some({chained:?}) Some(\"1.0 outer, 1.1 tidegate\")"),
                via
            )
        );
    });
}

/// What is on is said when a request is explained.
#[test]
fn explaining_shows_what_passes() {
    let mut gateway = Gateway::start(DriverChoice::Epoll);
    gateway.deploy(Api::through(
        "127.0.0.1:1".parse().unwrap(),
        PassThrough { via: true, ..UPGRADE },
    ));
    let explained = gateway.explain("GET", "http://api.execute-api.localhost/test/x");
    let step = explained
        .steps
        .iter()
        .find(|step| step.phase == "integration")
        .unwrap();
    assert!(
        step.decision.ends_with("; passes through: upgrade, via"),
        "{step:?}"
    );
}
