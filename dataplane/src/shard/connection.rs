//! One client connection: TLS if there is any, then requests until one side ends it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};

use tidegate_rt as rt;
use tidegate_rt::{Buffer, Chunk, Instant};

use super::accept::Slot;
use super::client::{Client, Identity, Next, Origin, Wire};
use super::http1::Http1;
use super::overload::Place;
use super::{Protocol, Registered, Shard, http2};
use crate::http::frames::PREFACE;
use crate::net::io::Io;
use crate::net::proxy_protocol;
use crate::net::tls::TlsStream;
use crate::net::tls::server::HTTP2;
use crate::pipeline::test_invoke::Test;
use crate::pipeline::{self, After};

/// Serves a connection to its end.
pub(super) fn run(
    shard: Rc<Shard>,
    stream: rt::Stream,
    origin: Origin,
    slot: Slot,
) -> impl Future<Output = ()> {
    // Each on the heap for as long as it lasts: the task would have room for both at any time.
    let begun = Box::pin(begin(shard, stream, origin));
    async move {
        let _slot = slot;
        if let Some(served) = rt::apart(begun).await {
            served.await;
        }
    }
}

/// Finds out which protocol the client speaks. Serves it to its end where that is HTTP/2; else what serves its requests.
async fn begin(
    shard: Rc<Shard>,
    stream: rt::Stream,
    mut origin: Origin,
) -> Option<Pin<Box<impl Future<Output = ()>>>> {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let place = Registered::new(&shard, waker);
    let stream = if shard.proxy_protocol.on(origin.protocol) {
        let proxied = proxied(&shard, stream, &mut origin).await;
        if proxied.is_none() {
            shard.counters().proxy_header_failures.add(1);
        }
        proxied?
    } else {
        stream
    };
    let (mut io, identity) = match origin.protocol {
        Protocol::Http => (Io::Plain(stream), None),
        Protocol::Https => {
            let (stream, identity) = handshake(&shard, stream).await?;
            (Io::Tls(Box::new(stream)), Some(Rc::new(identity)))
        }
    };
    let is_http2 = if let Io::Tls(stream) = &io {
        stream.alpn_protocol() == Some(HTTP2)
    } else if shard.http2_prior_knowledge {
        let (is_http2, read) = prior_knowledge(&shard, &mut io).await?;
        io.unread(read);
        is_http2
    } else {
        false
    };
    if is_http2 {
        Box::pin(http2::run(shard, io, place, origin, identity)).await;
        return None;
    }
    let wire = Wire::Http1(Http1::new(io, place, &shard.limits));
    Some(Box::pin(serve(Client::new(shard, origin, identity, wire))))
}

/// Serves the one request of a test invocation, which comes from this process.
pub(crate) async fn serve_test(shard: Rc<Shard>, stream: rt::Stream, test: Rc<Test>) {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let place = Registered::uncounted(&shard, waker);
    let origin = Origin {
        peer: SocketAddr::from(([127, 0, 0, 1], 0)),
        protocol: Protocol::Https,
        loopback: true,
        local: SocketAddr::from(([127, 0, 0, 1], 443)),
    };
    let wire = Wire::Http1(Http1::new(Io::Plain(stream), place, &shard.limits));
    let mut client = Client::new(shard, origin, None, wire);
    client.test = Some(test);
    serve(client).await;
}

/// Reads as far as it takes to tell a client that speaks HTTP/2 without having asked (RFC 9113 section 3.3) from one
/// of HTTP/1; with what was read. `None`: the connection is over, or took too long.
async fn prior_knowledge(shard: &Shard, io: &mut Io) -> Option<(bool, Chunk)> {
    let since = rt::now();
    let mut timer = rt::Timer::new();
    timer.set_after(shard.bounds.head);
    let mut read = Buffer::with_capacity(PREFACE.len());
    loop {
        let more = poll_fn(|cx| {
            if shard.closing_idle() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            let received = io.poll_read(cx);
            if received.is_pending() && shard.yields_place(since, true) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            received
        });
        let chunk = match rt::with_deadline(&mut timer, more).await {
            Ok(read) => read.ok()??,
            // Too slow to tell: HTTP/1 has an answer for that.
            Err(_) if !read.is_empty() => return Some((false, read.freeze())),
            Err(_) => return None,
        };
        // As a rule all of it comes at once, and is not copied.
        if read.is_empty() && (chunk.len() >= PREFACE.len() || !PREFACE.starts_with(&chunk)) {
            return Some((chunk.starts_with(PREFACE), chunk));
        }
        read.extend_from_slice(&chunk);
        if read.len() >= PREFACE.len() || !PREFACE.starts_with(&read) {
            return Some((read.starts_with(PREFACE), read.freeze()));
        }
    }
}

/// Serves a client's requests one after the other.
#[expect(
    clippy::manual_async_fn,
    reason = "an async function keeps its argument twice: 600 bytes for each idle connection"
)]
pub(super) fn serve(mut client: Client) -> impl Future<Output = ()> {
    async move {
        let mut first = true;
        loop {
            let after = match client.next(first).await {
                // On the heap while there is a request: what it needs is most of what a connection would hold when idle.
                Next::Request(head) => rt::apart(Box::pin(pipeline::serve(&mut client, head))).await,
                Next::Refuse(failure) => pipeline::refuse(&mut client, failure),
                Next::Close => After::Close,
            };
            first = false;
            match after {
                After::Next => {}
                After::Reset => return client.reset(),
                After::Close | After::Linger | After::Truncated => return client.finish(after).await,
            }
        }
    }
}

/// Reads the PROXY protocol's header and takes the client from it (D18). `None`: there is none that counts.
async fn proxied(shard: &Shard, mut stream: rt::Stream, origin: &mut Origin) -> Option<rt::Stream> {
    let peer = origin.peer;
    if !shard.proxy_protocol.trusts(peer.ip()) {
        tracing::debug!(%peer, "the PROXY protocol is not taken from this network (proxy-protocol-from)");
        return None;
    }
    let mut timer = rt::Timer::new();
    timer.set_after(shard.bounds.proxy_header);
    let mut input = Chunk::default();
    loop {
        let read = poll_fn(|cx| {
            if shard.stopping() {
                return Poll::Ready(Ok(None));
            }
            stream.poll_read(cx)
        });
        let Ok(Ok(Some(chunk))) = rt::with_deadline(&mut timer, read).await else {
            return None;
        };
        if input.is_empty() {
            input = chunk;
        } else {
            // A few bytes, and rarely in pieces.
            let mut joined = Buffer::with_capacity(input.len() + chunk.len());
            joined.extend_from_slice(&input);
            joined.extend_from_slice(&chunk);
            input = joined.freeze();
        }
        match proxy_protocol::parse(&input, shard.bounds.proxy_header_bytes) {
            Ok(None) => {}
            Ok(Some(header)) => {
                if let Some(addresses) = header.addresses {
                    let source = addresses.source;
                    origin.peer = SocketAddr::new(source.ip().to_canonical(), source.port());
                    let to = addresses.destination;
                    origin.local = SocketAddr::new(to.ip().to_canonical(), to.port());
                    origin.loopback &= origin.peer.ip().is_loopback();
                }
                drop(input.split_to(header.length));
                if !input.is_empty() {
                    stream.unread(input);
                }
                return Some(stream);
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "no PROXY protocol header");
                return None;
            }
        }
    }
}

async fn handshake(shard: &Rc<Shard>, stream: rt::Stream) -> Option<(TlsStream, Identity)> {
    let mut timer = rt::Timer::new();
    timer.set_after(shard.bounds.handshake);
    let Some(current) = shard.tls.current() else {
        tracing::debug!("a TLS connection came before there is a certificate");
        return None;
    };
    let mut stream = TlsStream::server(stream, Arc::clone(&current.config)).ok()?;
    let mut place = Place::default();
    let shaken = poll_fn(|cx| {
        if shard.stopping() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        ready!(shard.poll_newcomer(cx, &mut place));
        let began = Instant::now();
        let polled = stream.poll_handshake(cx);
        let ended = Instant::now();
        shard
            .newcomers
            .charge(ended.saturating_duration_since(began), ended);
        polled
    });
    match rt::with_deadline(&mut timer, shaken).await {
        Ok(Ok(())) => {
            let server_name = stream.server_name().map(Into::into);
            let certificates = Arc::clone(&current.certificates);
            Some((
                stream,
                Identity {
                    server_name,
                    certificates,
                },
            ))
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            shard.counters().handshake_failures.add(1);
            None
        }
        Err(_) => {
            shard.counters().handshake_failures.add(1);
            None
        }
    }
}
