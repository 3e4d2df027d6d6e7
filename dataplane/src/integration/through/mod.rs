//! `HTTP_PROXY` with `x-tidegate-pass-through` (decision D13): what passes besides whole messages of HTTP/1.1.

mod http2;
mod tunnel;

use std::rc::Rc;

use smallvec::SmallVec;
use tidegate_plan::PassThrough;
use tidegate_plan::integration::HttpBackend;
use tidegate_rt as rt;

use super::http::{self, Kind};
use crate::http::{Fields, Framing, HeadWriter, Known, Version, fields};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::failure::Failure;
use crate::pipeline::{After, gateway_response};
use crate::shard::{Client, LocalStage, Protocol};

/// Calls the backend and relays its answer, or everything that is said from then on.
pub(super) async fn call(
    x: &mut Exchange<'_>,
    client: &mut Client,
    stage: &Rc<LocalStage>,
    backend: &HttpBackend,
    pass: PassThrough,
) -> After {
    let Some(upstream) = stage.upstream(x.canary, backend.target()).map(Rc::clone) else {
        return gateway_response::answer(x, client, Failure::CONFIGURATION);
    };
    if pass.trailers {
        client.keep_trailers();
    }
    // To switch protocols takes a connection of its own.
    if let Some(mode) = pass.http2
        && !switches(x, pass)
        && let Some(after) = http2::call(x, client, stage, backend, &upstream, pass, mode).await
    {
        return after;
    }
    let kind = Kind::Through(pass);
    let begun = rt::now();
    let mut deadline = begun + backend.timeout();
    let asked = http::attempt(x, client, stage, &upstream, backend, kind, None, &mut deadline);
    let answered = asked.await;
    let (answer, connection) = match answered {
        Ok(answered) => answered,
        Err(ended) => return http::end(x, client, begun, ended),
    };
    if answer.head.status() == 101 && !was_offered(x, answer.head.fields()) {
        let unasked = http::Ended::Failure(Failure::UNSOLICITED_UPGRADE);
        return http::end(x, client, begun, unasked);
    }
    http::note_answer(x, client, begun, &answer.head);
    if answer.head.status() == 101 {
        return tunnel::run(x, client, answer, connection, pass).await;
    }
    http::respond(x, client, stage, backend, kind, &upstream, answer, connection).await
}

// === switching protocols ===

/// The protocols that the client asks for and may get: not those under which it could send requests that no method of
/// the API is asked for, as the tunnel is not looked into.
fn offered<'x>(x: &'x Exchange<'_>) -> impl Iterator<Item = &'x [u8]> {
    let is_http = |name: &[u8]| {
        let name = name.split(|b| *b == b'/').next().unwrap_or_default();
        [b"h2c".as_slice(), b"h2", b"http", b"tls"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    };
    x.head
        .fields()
        .all(Known::Upgrade)
        .flat_map(fields::list)
        .filter(move |name| !is_http(name))
}

/// Whether the request goes to the backend as one to switch protocols (RFC 9110 section 7.8). One with a body is not:
/// the switch comes behind it, and nobody is known to do that.
pub(super) fn switches(x: &Exchange<'_>, pass: PassThrough) -> bool {
    pass.upgrade
        && x.head.version() == Version::Http11
        && x.head.framing() == Framing::Empty
        && x.head.asks_upgrade()
        && offered(x).next().is_some()
}

/// Whether the backend has switched to something that the client has asked for.
fn was_offered(x: &Exchange<'_>, answer: &Fields) -> bool {
    let mut chosen = answer.all(Known::Upgrade).flat_map(fields::list).peekable();
    chosen.peek().is_some() && chosen.all(|name| offered(x).any(|offered| offered.eq_ignore_ascii_case(name)))
}

// === trailers ===

/// Whether trailers of a response go to this client (RFC 9110 section 6.5.1): over HTTP/1.1 to those who say that they
/// read them.
pub(super) fn takes_trailers(x: &Exchange<'_>, pass: PassThrough) -> bool {
    let says_so = || {
        let mut named = x.head.fields().all(Known::Te).flat_map(fields::list);
        named.any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
    };
    pass.trailers && (x.head.version() == Version::Http2 || says_so())
}

/// Passes on which trailers will come.
pub(super) fn announced(received: &Fields, head: &mut HeadWriter<'_>) {
    for names in received.all(Known::Trailer) {
        head.field(b"Trailer", names);
    }
}

// === headers ===

/// Writes the fields of a request that are there only because they may pass.
pub(super) fn request_fields(
    x: &Exchange<'_>,
    client: &Client,
    pass: PassThrough,
    framing: Framing,
    is_mapped: impl Fn(&[u8]) -> bool,
    head: &mut HeadWriter<'_>,
) {
    let received = x.head.fields();
    if switches(x, pass) {
        head.field(b"Connection", b"Upgrade");
        let mut names: SmallVec<[&[u8]; 4]> = SmallVec::new();
        for name in offered(x) {
            if !names.is_empty() {
                names.push(b", ");
            }
            names.push(name);
        }
        head.joined(b"Upgrade", names);
    } else if takes_trailers(x, pass) {
        head.field(b"Connection", b"TE");
        head.field(b"TE", b"trailers");
    }
    if pass.trailers && framing == Framing::Chunked {
        announced(received, head);
    }
    if pass.forwarded && !is_mapped(b"forwarded") {
        forwarded(x, client, head);
    }
    if pass.via {
        via(received, x.head.version(), head);
    }
}

/// Appends the client to `Forwarded` (RFC 7239), which is no more to be trusted than `X-Forwarded-For` is.
fn forwarded(x: &Exchange<'_>, client: &Client, head: &mut HeadWriter<'_>) {
    let mut parts: SmallVec<[&[u8]; 12]> = SmallVec::new();
    for link in x.head.fields().all(Known::Forwarded) {
        parts.extend([link, b", "]);
    }
    match client.origin.peer.is_ipv6() {
        true => parts.extend([b"for=\"[".as_slice(), client.peer_text(), b"]\""]),
        false => parts.extend([b"for=".as_slice(), client.peer_text()]),
    }
    let authority = x.head.authority();
    match authority.iter().all(|b| tidegate_plan::header::is_token_byte(*b)) {
        true => parts.extend([b";host=".as_slice(), authority]),
        // What an authority is made of needs no escapes.
        false => parts.extend([b";host=\"".as_slice(), authority, b"\""]),
    }
    parts.push(match client.origin.protocol {
        Protocol::Http => b";proto=http",
        Protocol::Https => b";proto=https",
    });
    head.joined(b"Forwarded", parts);
}

/// Appends ourselves to `Via`, with the version in which the message has come (RFC 9110 section 7.6.3).
pub(super) fn via(received: &Fields, version: Version, head: &mut HeadWriter<'_>) {
    let mut parts: SmallVec<[&[u8]; 8]> = SmallVec::new();
    for link in received.all(Known::Via) {
        parts.extend([link, b", "]);
    }
    parts.push(match version {
        Version::Http10 => b"1.0 tidegate",
        Version::Http11 => b"1.1 tidegate",
        Version::Http2 => b"2.0 tidegate",
    });
    head.joined(b"Via", parts);
}
