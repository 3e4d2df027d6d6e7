//! A client, as the life of a request sees it. Which version of HTTP it speaks is decided below this line: the
//! pipeline and the integrations ask for a body, write a response and watch for the client's end, and no more.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode};
use tidegate_rt as rt;
use tidegate_rt::{Buffer, Chunk, Instant};

use super::http1::Http1;
use super::http2::Http2;
use super::{Protocol, Shard};
use crate::http::{Compression, Framing, HeadWriter, RequestHead};
use crate::net::proxy_protocol::Addresses;
use crate::net::tls::Certificates;
use crate::pipeline::After;
use crate::pipeline::failure::Failure;
use crate::pipeline::test_invoke::Test;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The client: TCP's peer (OBS-087), or on a listener that requires the PROXY protocol whom that one names.
    pub peer: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// Both ends are on this machine's loopback.
    pub loopback: bool,
    /// What it connected to, here or at the proxy.
    pub local: SocketAddr,
}

/// What a TLS connection was made for (decision D18).
#[derive(Debug)]
pub struct Identity {
    /// The name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// The certificates of that moment.
    pub certificates: Arc<Certificates>,
}

/// A client and its current exchange.
pub struct Client {
    /// The shard it lives on.
    pub shard: Rc<Shard>,
    /// Where it comes from.
    pub origin: Origin,
    /// What its TLS was made for.
    pub identity: Option<Rc<Identity>>,
    /// Its one request is a test invocation, and runs on the stage of that alone.
    pub test: Option<Rc<Test>>,
    /// How the body of the current request ends.
    pub framing: Framing,
    /// Wakes the exchange when something takes too long.
    pub timer: rt::Timer,
    stall: Stall,
    peer_text: AddressText,
    wire: Wire,
}

/// What the client speaks. An enumeration, so that HTTP/1 pays one predictable branch for the other.
#[expect(
    clippy::large_enum_variant,
    reason = "the connection of a client, the common case, is not to cost an allocation"
)]
pub(super) enum Wire {
    /// A connection with one request after the other.
    Http1(Http1),
    /// A stream with one request.
    Http2(Box<Http2>),
}

/// Why the client's side of an exchange ended early.
#[derive(Debug)]
pub enum Gone {
    /// It reset the connection, or ended it within a body.
    Aborted,
    /// Its body is not what its head says.
    Malformed,
    /// Its body is over the bound.
    TooLarge,
    /// It took too long to send its body.
    TooSlow,
    /// The shard stops.
    Stopped,
}

/// What comes next from a client.
pub(super) enum Next {
    /// A request.
    Request(RequestHead),
    /// Something that is answered and is none.
    Refuse(Failure),
    /// Nothing more.
    Close,
}

/// How a response's body goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Not at all.
    None,
    /// As many bytes as the head says.
    Length(u64),
    /// With an end of its own: in chunks over HTTP/1.1.
    Streamed,
    /// Until the connection ends (HTTP/1.0).
    Close,
}

impl Delivery {
    /// A body whose length is known, none included.
    pub fn whole(length: u64) -> Self {
        match length {
            0 => Delivery::None,
            length => Delivery::Length(length),
        }
    }
}

/// The head of a response that is being written.
pub struct Response(pub(super) ResponseHead);

pub(super) enum ResponseHead {
    /// As text, with room for a small body behind it.
    Text(Buffer),
    /// As the fields of an HTTP/2 message.
    Fields {
        status: StatusCode,
        fields: HeaderMap,
        compression: Compression,
    },
}

impl Response {
    /// Writes fields.
    pub fn head(&mut self) -> HeadWriter<'_> {
        match &mut self.0 {
            ResponseHead::Text(out) => HeadWriter::resume(out),
            ResponseHead::Fields {
                fields, compression, ..
            } => HeadWriter::fields(fields, *compression),
        }
    }
}

impl Client {
    pub(super) fn new(shard: Rc<Shard>, origin: Origin, identity: Option<Rc<Identity>>, wire: Wire) -> Self {
        let peer_text = AddressText::of(origin.peer.ip());
        Self::of_peer(shard, origin, peer_text, identity, wire)
    }

    /// A client whose address has been written down already.
    pub(super) fn of_peer(
        shard: Rc<Shard>,
        origin: Origin,
        peer_text: AddressText,
        identity: Option<Rc<Identity>>,
        wire: Wire,
    ) -> Self {
        Self {
            origin,
            identity,
            test: None,
            framing: Framing::Empty,
            timer: rt::Timer::new(),
            stall: Stall::default(),
            peer_text,
            wire,
            shard,
        }
    }

    /// Both ends of its connection, for a backend that is to be told; `None` for a request of our own.
    pub fn addresses(&self) -> Option<Box<Addresses>> {
        self.test.is_none().then(|| {
            Box::new(Addresses {
                source: self.origin.peer,
                destination: self.origin.local,
            })
        })
    }

    /// The peer's address as text.
    pub fn peer_text(&self) -> &[u8] {
        self.peer_text.as_bytes()
    }

    /// The next request. Sends what is queued before it waits, so that the answers to pipelined requests that need no
    /// waiting leave together.
    pub(super) async fn next(&mut self, first: bool) -> Next {
        match &mut self.wire {
            Wire::Http1(wire) => {
                wire.next(&self.shard, &mut self.timer, &mut self.stall, first)
                    .await
            }
            Wire::Http2(wire) => wire.next(),
        }
    }

    /// Sends what is queued and ends the connection as the last exchange left it.
    pub(super) async fn finish(&mut self, after: After) {
        match &mut self.wire {
            Wire::Http1(wire) => wire.finish(&self.shard, &mut self.timer, after).await,
            Wire::Http2(wire) => {
                wire.finish(&self.shard, &mut self.timer, &mut self.stall, after)
                    .await;
            }
        }
    }

    /// Ends the connection at once, and visibly not in order.
    pub(super) fn reset(self) {
        match self.wire {
            Wire::Http1(wire) => wire.reset(),
            Wire::Http2(wire) => wire.reset(),
        }
    }

    // === the request's body ===

    /// Prepares for the body of a request.
    pub fn begin_body(&mut self, framing: Framing, expects_continue: bool) {
        self.framing = framing;
        match &mut self.wire {
            Wire::Http1(wire) => wire.begin_body(&self.shard.limits, framing, expects_continue),
            Wire::Http2(wire) => wire.begin_body(expects_continue),
        }
    }

    /// The next part of the request's body; `None` at its end. Asks for it first where the client waits to be asked.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Gone>> {
        match &mut self.wire {
            Wire::Http1(wire) => wire.poll_body(cx, self.shard.bounds.payload),
            Wire::Http2(wire) => wire.poll_body(cx, self.shard.bounds.payload),
        }
    }

    /// Whether the whole of the request's body has been taken.
    pub fn body_is_done(&self) -> bool {
        match &self.wire {
            Wire::Http1(wire) => wire.body_is_done(),
            Wire::Http2(wire) => wire.body_is_done(),
        }
    }

    /// Keeps the trailers of the request's body for [`Client::poll_trailers`]. To be called before the body is asked for.
    pub fn keep_trailers(&mut self) {
        match &mut self.wire {
            Wire::Http1(wire) => wire.keep_trailers(),
            // h2 keeps them until they are asked for.
            Wire::Http2(_) => {}
        }
    }

    /// The trailers of a body that has been taken whole; `None` where there are none.
    pub fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Option<HeaderMap>> {
        match &mut self.wire {
            Wire::Http1(wire) => Poll::Ready(wire.take_trailers()),
            Wire::Http2(wire) => wire.poll_trailers(cx),
        }
    }

    /// Discards what has arrived of the request's body; whether nothing of it is left in the way of the next request.
    pub fn discard_received(&mut self) -> bool {
        match &mut self.wire {
            Wire::Http1(wire) => wire.discard_received(),
            // Streams are not in each other's way.
            Wire::Http2(_) => true,
        }
    }

    /// Begins to wait for something else than before: see [`Client::waits_long`].
    pub fn begin_wait(&self) {
        match &self.wire {
            Wire::Http1(wire) => wire.begin_wait(),
            Wire::Http2(_) => {}
        }
    }

    /// Whether the current wait has become a long one (`watch-delay`), so that it pays to look at what matters in long
    /// ones only. The task is woken when it has.
    pub fn waits_long(&self) -> bool {
        match &self.wire {
            Wire::Http1(wire) => wire.waits_long(),
            // Its connection is read anyway: looking costs nothing.
            Wire::Http2(_) => true,
        }
    }

    /// Watches the client while it has nothing to say, in long waits at least, and tells when it is gone.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        if self.shard.stopping() {
            return Poll::Ready(Gone::Stopped);
        }
        match &mut self.wire {
            Wire::Http1(wire) => wire.poll_gone(cx, self.shard.bounds.read_ahead),
            Wire::Http2(wire) => wire.poll_gone(cx),
        }
    }

    /// Whether the client has ended its direction, so that no further request can come.
    pub fn is_finished(&self) -> bool {
        match &self.wire {
            Wire::Http1(wire) => wire.is_finished(),
            Wire::Http2(_) => false,
        }
    }

    // === the response ===

    /// Begins a response's head. `room`: bytes that its fields and a small body take; `fields`: how many fields it has
    /// beside those that every response has.
    pub fn response(&self, status: u16, room: usize, fields: usize) -> Response {
        match &self.wire {
            Wire::Http1(_) => {
                let mut out = Buffer::with_capacity(room);
                HeadWriter::response(&mut out, status);
                Response(ResponseHead::Text(out))
            }
            Wire::Http2(wire) => Response(ResponseHead::Fields {
                // A status has three digits wherever it comes from.
                status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
                fields: HeaderMap::with_capacity(OWN_FIELDS + fields),
                compression: wire.compression(),
            }),
        }
    }

    /// Queues a response's head, which is complete. What its fields say of the body must fit `delivery`.
    pub fn begin(&mut self, response: Response, delivery: Delivery) {
        match (&mut self.wire, response.0) {
            (Wire::Http1(wire), ResponseHead::Text(out)) => wire.begin(out, delivery),
            (Wire::Http2(wire), ResponseHead::Fields { status, fields, .. }) => {
                wire.begin(status, fields, delivery);
            }
            // A head is begun by the client that it goes to.
            (Wire::Http1(_), ResponseHead::Fields { .. }) | (Wire::Http2(_), ResponseHead::Text(_)) => {
                debug_assert!(false, "a response of another client's");
            }
        }
    }

    /// Queues a part of a response's body. A small one that comes with the head leaves in one piece with it.
    pub fn part(&mut self, part: Chunk) {
        match &mut self.wire {
            Wire::Http1(wire) => wire.part(part),
            Wire::Http2(wire) => wire.part(part),
        }
    }

    /// As [`Client::part`], from bytes that are no chunk.
    pub fn part_from_slice(&mut self, part: &[u8]) {
        match &mut self.wire {
            Wire::Http1(wire) => wire.part_from_slice(part),
            Wire::Http2(wire) if !part.is_empty() => wire.part(Chunk::copy_from_slice(part)),
            Wire::Http2(_) => {}
        }
    }

    /// Queues the end of a response's body.
    pub fn end(&mut self) {
        match &mut self.wire {
            Wire::Http1(wire) => wire.end(),
            Wire::Http2(wire) => wire.end(),
        }
    }

    /// As [`Client::end`], with trailers. They go no further where the body's form has no room for them.
    pub fn end_with(&mut self, trailers: HeaderMap) {
        match &mut self.wire {
            Wire::Http1(wire) => wire.end_with(&trailers),
            Wire::Http2(wire) => wire.end_with(trailers),
        }
    }

    // === a tunnel ===

    /// The next bytes of a connection that has ceased to speak HTTP; `None` at the client's end. Only a connection of
    /// HTTP/1.1 can.
    pub fn poll_tunnel(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match &mut self.wire {
            Wire::Http1(wire) => wire.poll_tunnel(cx),
            Wire::Http2(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Queues the end of our direction of such a connection, where its transport has one.
    pub fn end_tunnel(&mut self) {
        if let Wire::Http1(wire) = &mut self.wire {
            wire.end_tunnel();
        }
    }

    /// Closes our direction of such a connection, once everything is sent; the client's goes on.
    pub fn shutdown_tunnel(&mut self) {
        if let Wire::Http1(wire) = &mut self.wire {
            wire.shutdown_tunnel();
        }
    }

    /// Bytes queued and not yet sent.
    pub fn queued(&self) -> usize {
        match &self.wire {
            Wire::Http1(wire) => wire.queued(),
            Wire::Http2(wire) => wire.queued(),
        }
    }

    /// Sends what is queued, and notes since when nothing of it has been taken.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Http1(wire) => wire.poll_send(cx, &mut self.stall),
            Wire::Http2(wire) => wire.poll_send(cx, &mut self.stall),
        }
    }

    /// As [`Client::poll_send`], but lets answers wait for one that follows them closely; `Some`: until when.
    pub fn poll_send_unless_held(&mut self, cx: &mut Context<'_>) -> io::Result<Option<Instant>> {
        let held = match &self.wire {
            Wire::Http1(wire) => wire.held(),
            // What streams have to say leaves together at the end of the turn.
            Wire::Http2(_) => None,
        };
        if held.is_some() {
            return Ok(held);
        }
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(None),
        }
    }

    /// Whether the client has taken nothing for too long. Moves the timer closer where that comes first.
    pub fn poll_stalled(&mut self) -> bool {
        self.stall.is_over(&mut self.timer, &self.shard)
    }
}

/// Since when a peer has taken nothing of what is to be sent, and how much that was.
#[derive(Debug, Default)]
pub(crate) struct Stall(Option<(Instant, usize)>);

impl Stall {
    /// Notes what came of an attempt to send.
    pub(crate) fn note(&mut self, sent: &Poll<io::Result<()>>, queued: impl FnOnce() -> usize) {
        if sent.is_ready() {
            self.0 = None;
            return;
        }
        let left = queued();
        match self.0 {
            Some((_, before)) if before == left => {}
            _ => self.0 = Some((rt::now(), left)),
        }
    }

    /// Whether it has been so for too long. Moves the timer closer where that comes first.
    pub(crate) fn is_over(&self, timer: &mut rt::Timer, shard: &Shard) -> bool {
        let Some((since, _)) = self.0 else {
            return false;
        };
        let deadline = since + shard.bounds.write_stall;
        if rt::now() >= deadline {
            return true;
        }
        if timer.deadline().is_none_or(|set| set > deadline) {
            timer.set(deadline);
        }
        false
    }
}

/// An address as text, made once for each connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct AddressText {
    text: [u8; ADDRESS_TEXT],
    length: u8,
}

impl AddressText {
    pub(super) fn of(address: IpAddr) -> Self {
        let mut text = [0; ADDRESS_TEXT];
        let mut rest = &mut text[..];
        // The longest address fits.
        let _ = write!(rest, "{address}");
        let length = (ADDRESS_TEXT - rest.len()) as u8;
        Self { text, length }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }
}

/// The length of an IPv6 address that ends in an IPv4 one.
const ADDRESS_TEXT: usize = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len();

/// Fields that every HTTP/2 response has, with one for its type and one for its length.
const OWN_FIELDS: usize = 5;
