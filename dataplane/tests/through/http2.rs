//! HTTP/2 towards backends: streams share connections, within the bounds of the table; a backend may turn requests away
//! or fall silent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};
use http::{HeaderMap, HeaderValue, Response};
use tidegate_plan::{BackendHttp2, PassThrough};
use tokio::net::TcpStream;

use super::support::{Api, Gateway, counters, limits, on_both_drivers, request, wait};
use super::{NOTHING, trailed, trailers};

const HTTP2: PassThrough = PassThrough {
    http2: Some(BackendHttp2::PriorKnowledge),
    trailers: true,
    ..NOTHING
};

type Asked = http::Request<h2::RecvStream>;

/// A backend that speaks HTTP/2, with a thread for each connection, which knows the how manieth it is.
fn backend<H, F>(handle: H) -> SocketAddr
where
    H: Fn(usize, Connection<TcpStream, Bytes>) -> F + Send + Sync + 'static,
    F: Future<Output = ()>,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for (number, stream) in (1..).zip(listener.incoming()) {
            let (handle, stream) = (Arc::clone(&handle), stream.unwrap());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async move {
                    stream.set_nonblocking(true).unwrap();
                    let stream = TcpStream::from_std(stream).unwrap();
                    let connection = h2::server::handshake(stream).await.unwrap();
                    handle(number, connection).await;
                });
            });
        }
    });
    address
}

/// Answers with a text.
fn answer(respond: &mut SendResponse<Bytes>, text: String) {
    let mut body = respond.send_response(Response::new(()), false).unwrap();
    body.send_data(Bytes::from(text), true).unwrap();
}

fn post(body: &[u8]) -> Vec<u8> {
    request("POST", "/test/x", &[], body)
}

/// D11, D13: requests share a connection up to a bound; those over it get another, and those over the bound of
/// connections wait for a place.
#[test]
fn streams_share_connections() {
    on_both_drivers(|driver| {
        for (streams, connections, opened) in [("100", "1024", 1), ("2", "1024", 3), ("3", "1", 1)] {
            let (see, seen) = mpsc::channel();
            let see = Mutex::new(see);
            let address = backend(move |number, mut connection| {
                let see = see.lock().unwrap().clone();
                async move {
                    while let Some(Ok((_, respond))) = connection.accept().await {
                        see.send((number, respond)).unwrap();
                    }
                }
            });
            let bounds = limits(&[
                ("upstream-http2-streams", streams),
                ("upstream-connections-per-target", connections),
                ("pool-wait-timeout", "20s"),
            ]);
            let mut gateway = Gateway::with_limits(driver, bounds);
            gateway.deploy(Api::through(address, HTTP2));
            let mut clients: Vec<_> = (0..6).map(|_| gateway.connect()).collect();
            for client in &mut clients {
                client.send(post(b"x"));
            }
            // All that may be are open at once, before any is answered.
            let at_once = if connections == "1" { 3 } else { 6 };
            let mut open: Vec<_> = (0..at_once).map(|_| wait(&seen)).collect();
            for _ in at_once..6 {
                let (number, mut respond) = open.remove(0);
                answer(&mut respond, number.to_string());
                open.push(wait(&seen));
            }
            for (number, mut respond) in open {
                answer(&mut respond, number.to_string());
            }
            for client in &mut clients {
                assert_eq!(client.answer().status, 200, "{streams} {connections}");
            }
            assert_eq!(
                counters(&gateway).upstream_connects.get(),
                opened,
                "{streams} {connections}"
            );
        }
    });
}

/// RFC 9113 section 8.7: what the backend has not looked at is sent again, whatever its method; one that says goodbye
/// gets no more on that connection.
#[test]
fn requests_turned_away_are_sent_again() {
    on_both_drivers(|driver| {
        let address = backend(|number, mut connection| async move {
            let mut first = true;
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                match (number, std::mem::take(&mut first)) {
                    (1, true) => answer(&mut respond, "1".into()),
                    (1, false) => {
                        respond.send_reset(Reason::REFUSED_STREAM);
                        connection.graceful_shutdown();
                    }
                    _ => answer(&mut respond, number.to_string()),
                }
            }
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::through(address, HTTP2));
        let mut client = gateway.connect();
        for expected in ["1", "2", "2"] {
            client.send(post(b"body"));
            assert_eq!(client.answer().text(), expected);
        }
    });
}

/// A backend that neither answers nor pings back is given up, and its connection with it.
#[test]
fn a_silent_backend_is_given_up() {
    on_both_drivers(|driver| {
        let (end, ended) = mpsc::channel();
        let end = Mutex::new(end);
        let address = backend(move |_, mut connection| {
            let end = end.lock().unwrap().clone();
            async move {
                let asked = connection.accept().await;
                // Nothing is read any more, no ping either, until the gateway is gone.
                let _ = end.send(());
                std::future::pending::<()>().await;
                drop(asked);
            }
        });
        let bounds = limits(&[
            ("upstream-http2-ping-after", "100ms"),
            ("upstream-http2-ping-timeout", "100ms"),
        ]);
        let mut gateway = Gateway::with_limits(driver, bounds);
        gateway.deploy(Api::through(address, HTTP2));
        let mut client = gateway.connect();
        client.send(post(b"body"));
        wait(&ended);
        let told = client.answer();
        assert_eq!(told.status, 504, "{told:?}");
        assert!(told.text().contains("Network error"), "{told:?}");
        while counters(&gateway).upstream_active.get() + counters(&gateway).upstream_idle.get() > 0 {
            std::thread::yield_now();
        }
    });
}

/// Reads a body and its trailers.
async fn read(asked: Asked) -> (http::request::Parts, Vec<u8>, Option<HeaderMap>) {
    let (parts, mut body) = asked.into_parts();
    let mut all = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        all.extend_from_slice(&part);
    }
    (parts, all, body.trailers().await.unwrap())
}

/// D13: the head and the trailers of a message are the same whichever version carries them.
#[test]
fn messages_pass_between_the_versions() {
    on_both_drivers(|driver| {
        let (see, seen) = mpsc::channel();
        let see = Mutex::new(see);
        let address = backend(move |_, mut connection| {
            let see = see.lock().unwrap().clone();
            async move {
                while let Some(Ok((asked, mut respond))) = connection.accept().await {
                    let see = see.clone();
                    tokio::spawn(async move {
                        see.send(read(asked).await).unwrap();
                        let mut response = Response::new(());
                        response
                            .headers_mut()
                            .insert("server", HeaderValue::from_static("tide"));
                        let mut body = respond.send_response(response, false).unwrap();
                        body.send_data(Bytes::from_static(b"ok"), false).unwrap();
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", HeaderValue::from_static("0"));
                        trailers.insert("set-cookie", HeaderValue::from_static("a"));
                        body.send_trailers(trailers).unwrap();
                    });
                }
            }
        });
        let mut gateway = Gateway::start(driver);
        gateway.deploy(Api::through(address, HTTP2));
        let mut client = gateway.connect();
        for _ in 0..2 {
            client.send(trailed(Some("trailers")));
            let (head, body, sums) = wait(&seen);
            assert_eq!(
                (
                    head.method.as_str(),
                    head.uri.path(),
                    head.uri.authority().unwrap().as_str()
                ),
                ("POST", "/base/x", address.to_string().as_str())
            );
            assert_eq!(head.headers.get("te").unwrap(), "trailers");
            assert!(!head.headers.contains_key("connection") && !head.headers.contains_key("host"));
            let sums = sums.unwrap();
            let sums: Vec<_> = sums.get_all("x-sum").iter().collect();
            assert_eq!(
                (&body[..], &sums[..]),
                (
                    &b"abc"[..],
                    &["6", "7"].map(HeaderValue::from_static).each_ref()[..]
                )
            );
            let (head, behind) = trailers(&mut client);
            assert!(head.contains("x-amzn-Remapped-server: tide"), "{head}");
            assert_eq!(behind, "grpc-status: 0\r\n\r\n");
        }
        assert_eq!(counters(&gateway).upstream_connects.get(), 1);
    });
}
