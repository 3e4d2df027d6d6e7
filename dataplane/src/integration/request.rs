//! The request towards an HTTP backend.

use std::borrow::Cow;

use smallvec::SmallVec;
use tidegate_plan::integration::{BackendMethod, HttpBackend, MappingSource, MappingTarget, UriPart};
use tidegate_plan::path;
use tidegate_rt::{Buffer, Chunk};

use super::headers;
use super::http::Kind;
use super::prepared::Prepared;
use super::{query, through};
use crate::http::{Compression, Framing, HeadWriter, Known};
use crate::net::upstream::Upstream;
use crate::pipeline::context;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::failure::Failure;
use crate::shard::{Client, Protocol};

/// Writes the head of the backend's request.
pub(super) fn head(
    x: &Exchange<'_>,
    client: &Client,
    upstream: &Upstream,
    backend: &HttpBackend,
    kind: Kind,
    framing: Framing,
    prepared: Option<&Prepared>,
) -> Result<Chunk, Failure> {
    let mut out = Buffer::with_capacity(2048);
    out.extend_from_slice(method(x, backend).as_bytes());
    out.put_u8(b' ');
    target(x, client, backend, kind, prepared, &mut out)?;
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut head = HeadWriter::resume(&mut out);
    fields(x, client, upstream, backend, kind, framing, prepared, &mut head);
    head.end();
    Ok(out.freeze())
}

/// The same as the head of an HTTP/2 message, to a backend under `scheme`.
pub(super) fn message(
    x: &Exchange<'_>,
    client: &Client,
    upstream: &Upstream,
    backend: &HttpBackend,
    kind: Kind,
    scheme: &str,
) -> Result<http::Request<()>, Failure> {
    let mut path = Buffer::with_capacity(512);
    target(x, client, backend, kind, None, &mut path)?;
    let mut message = http::Request::new(());
    let headers = message.headers_mut();
    let mut head = HeadWriter::fields(headers, Compression::Spare);
    fields(
        x,
        client,
        upstream,
        backend,
        kind,
        client.framing,
        None,
        &mut head,
    );
    // RFC 9113 section 8.3.1: the authority takes the place of `Host`.
    let host = headers.remove(http::header::HOST);
    let authority = host.as_ref().and_then(|host| host.to_str().ok());
    if let Kind::Through(pass) = kind
        && through::takes_trailers(x, pass)
    {
        // The one coding that HTTP/2 has (section 8.2.2).
        headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    }
    *message.method_mut() =
        http::Method::from_bytes(method(x, backend).as_bytes()).map_err(|_| Failure::CONFIGURATION)?;
    *message.uri_mut() = http::Uri::builder()
        .scheme(scheme)
        .authority(authority.unwrap_or(&upstream.authority))
        .path_and_query(&path[..])
        .build()
        .map_err(|_| Failure::BAD_PATH)?;
    *message.version_mut() = http::Version::HTTP_2;
    Ok(message)
}

/// The method towards the backend.
pub(super) fn method(x: &Exchange<'_>, backend: &HttpBackend) -> &'static str {
    match backend.method() {
        BackendMethod::Fixed(verb) => verb.as_str(),
        BackendMethod::Same => x.verb.map_or("GET", |verb| verb.as_str()),
    }
}

/// Path and query: the configured URI with its placeholders filled (OBV-234), mapped query parameters, and for
/// `HTTP_PROXY` the client's own (RES-167).
fn target(
    x: &Exchange<'_>,
    client: &Client,
    backend: &HttpBackend,
    kind: Kind,
    prepared: Option<&Prepared>,
    out: &mut Buffer,
) -> Result<(), Failure> {
    let start = out.len();
    for part in backend.uri() {
        match part {
            UriPart::Literal(text) => out.extend_from_slice(text.as_bytes()),
            UriPart::StageVariable(name) => {
                out.extend_from_slice(context::stage_variable(x, name).unwrap_or_default().as_bytes())
            }
            UriPart::Named(name) => {
                let value = prepared.and_then(|prepared| prepared.path(name));
                out.extend_from_slice(value.unwrap_or_default().as_bytes());
            }
            UriPart::Mapped(at) => {
                let mapping = backend.mappings().get(usize::from(*at));
                let Some(mapping) = mapping else {
                    return Err(Failure::CONFIGURATION);
                };
                if let Some(prepared) = prepared {
                    let value = prepared.path(mapping.name()).unwrap_or_default();
                    out.extend_from_slice(value.as_bytes());
                    continue;
                }
                match mapping.source() {
                    // In canonical form already, slashes of a greedy parameter included (OBV-246).
                    MappingSource::Path {
                        capture: Some(at), ..
                    } => {
                        out.extend_from_slice(x.capture(usize::from(*at)).unwrap_or_default().as_bytes());
                    }
                    source => {
                        let value = value(x, client, source).unwrap_or_default();
                        out.extend_from_slice(path::encode_path_value(&value, false).as_bytes());
                    }
                }
            }
        }
    }
    if out.len() == start || out[start] != b'/' {
        // An empty path is `/`; a URI that is nothing but a query follows it.
        let rest = Chunk::copy_from_slice(&out[start..]);
        out.truncate(start);
        out.put_u8(b'/');
        out.extend_from_slice(&rest);
    }
    let path_end = memchr::memchr(b'?', &out[start..]).map_or(out.len(), |at| start + at);
    let assembled = std::str::from_utf8(&out[start..path_end]).map_err(|_| Failure::CONFIGURATION)?;
    if path::has_dot_segment(assembled) {
        return Err(Failure::BAD_PATH);
    }
    let mut separator = if path_end == out.len() { b'?' } else { b'&' };
    if kind != Kind::Custom
        && let Some(own) = x.query.filter(|query| !query.is_empty())
    {
        let mapped = |name: &[u8]| {
            backend.mappings().iter().any(|one| {
                one.target() == MappingTarget::Query && *path::decode(name, true) == *one.name().as_bytes()
            })
        };
        if backend
            .mappings()
            .iter()
            .any(|one| one.target() == MappingTarget::Query)
        {
            for (name, value) in query::parameters(own).filter(|(name, _)| !mapped(name)) {
                out.put_u8(std::mem::replace(&mut separator, b'&'));
                out.extend_from_slice(name);
                out.put_u8(b'=');
                out.extend_from_slice(value);
            }
        } else {
            out.put_u8(std::mem::replace(&mut separator, b'&'));
            out.extend_from_slice(own);
        }
    }
    let mut add = |name: &str, value: &[u8]| {
        out.put_u8(std::mem::replace(&mut separator, b'&'));
        out.extend_from_slice(path::encode_query_value(name.as_bytes()).as_bytes());
        out.put_u8(b'=');
        out.extend_from_slice(path::encode_query_value(value).as_bytes());
    };
    if let Some(prepared) = prepared {
        for (name, value) in &prepared.query {
            add(name, value);
        }
        return Ok(());
    }
    for mapping in backend
        .mappings()
        .iter()
        .filter(|one| one.target() == MappingTarget::Query)
    {
        if let Some(value) = value(x, client, mapping.source()) {
            add(mapping.name(), &value);
        }
    }
    Ok(())
}

/// A header with the value that a mapping or a template sets.
type Mapped<'x> = (&'x str, Cow<'x, [u8]>);

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one exchange, each borrowed in its own way"
)]
fn fields(
    x: &Exchange<'_>,
    client: &Client,
    upstream: &Upstream,
    backend: &HttpBackend,
    kind: Kind,
    framing: Framing,
    prepared: Option<&Prepared>,
    head: &mut HeadWriter<'_>,
) {
    let received = x.head.fields();
    let mapped: SmallVec<[Mapped<'_>; 4]> = match prepared {
        Some(prepared) => {
            let headers = prepared.headers.iter();
            headers
                .map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_slice())))
                .collect()
        }
        None => backend
            .mappings()
            .iter()
            .filter(|one| one.target() == MappingTarget::Header)
            .filter_map(|one| Some((one.name(), value(x, client, one.source())?)))
            .filter(|(_, value)| tidegate_plan::header::is_value(value))
            .collect(),
    };
    // Mapped values take the place of the client's and of the gateway's own (OBV-253).
    let is_mapped = |name: &[u8]| {
        mapped
            .iter()
            .any(|(one, _)| one.as_bytes().eq_ignore_ascii_case(name))
    };
    if !is_mapped(b"host") {
        head.known(Known::Host, upstream.authority.as_bytes());
    }
    let api = x
        .stage
        .as_ref()
        .map(|stage| stage.shared.plan.api.as_str())
        .unwrap_or_default();
    match kind {
        Kind::Proxy | Kind::Through(_) => {
            let named = received.connection_names_others();
            let keeps_coding = x.keeps_coding || matches!(kind, Kind::Through(_));
            head.kept(received, |field| {
                (headers::passes_to_backend(field.known)
                    || (keeps_coding && field.known == Some(Known::ContentEncoding)))
                    && (mapped.is_empty() || !is_mapped(field.name))
                    && !(named && received.connection_names(field.name))
            });
            forwarded(x, client, head);
            if let Kind::Through(pass) = kind {
                through::request_fields(x, client, pass, framing, is_mapped, head);
            }
        }
        Kind::Custom => {
            if !is_mapped(b"accept") {
                head.known(Known::Accept, b"application/json");
            }
            if !is_mapped(b"user-agent") {
                head.joined(b"User-Agent", [b"AmazonAPIGateway_".as_slice(), api.as_bytes()]);
            }
            // OBV-236: a type only where there is a body.
            if framing != Framing::Empty && !is_mapped(b"content-type") {
                let made = prepared.and_then(|prepared| prepared.media_type.as_deref());
                let own = made
                    .map(str::as_bytes)
                    .or_else(|| received.get(Known::ContentType));
                head.known(Known::ContentType, own.unwrap_or(b"application/json"));
            }
        }
    }
    for (name, value) in &mapped {
        let name = name.as_bytes();
        if headers::may_be_mapped(name) {
            head.field(name, value.trim_ascii());
        }
    }
    match received.get(Known::XAmznTraceId) {
        Some(trace) if kind != Kind::Custom => head.known(Known::XAmznTraceId, trace),
        _ => {
            let shard = &client.shard;
            head.known(
                Known::XAmznTraceId,
                &shard.ids.trace_id(shard.clock.epoch(x.received).as_secs()),
            )
        }
    };
    head.known(Known::XAmznApigatewayApiId, api.as_bytes());
    match framing {
        // OBV-236, OBV-258: said even where there is none.
        Framing::Empty => head.number(Known::ContentLength, 0),
        Framing::Length(length) => head.number(Known::ContentLength, length),
        Framing::Chunked | Framing::UntilClose => head.known(Known::TransferEncoding, b"chunked"),
    };
}

/// The peer is appended to the chain, which is never trusted (decision D18; OBV-238).
fn forwarded(x: &Exchange<'_>, client: &Client, head: &mut HeadWriter<'_>) {
    let received = x.head.fields();
    if received.get(Known::XForwardedFor).is_none() {
        head.known(Known::XForwardedFor, client.peer_text());
    } else {
        let mut parts: SmallVec<[&[u8]; 8]> = SmallVec::new();
        for link in received.all(Known::XForwardedFor) {
            parts.push(link);
            parts.push(b", ");
        }
        parts.push(client.peer_text());
        head.joined(b"X-Forwarded-For", parts);
    }
    head.number(Known::XForwardedPort, u64::from(client.origin.local.port()));
    head.known(
        Known::XForwardedProto,
        match client.origin.protocol {
            Protocol::Http => b"http".as_slice(),
            Protocol::Https => b"https",
        },
    );
}

/// The value of a mapping's source, decoded; `None`: the source is missing, and the mapping sets nothing (OBV-284).
pub(super) fn value<'x>(
    x: &'x Exchange<'_>,
    client: &'x Client,
    source: &'x MappingSource,
) -> Option<Cow<'x, [u8]>> {
    Some(match source {
        MappingSource::Path { capture, .. } => {
            path::decode(x.capture(usize::from((*capture)?))?.as_bytes(), false)
        }
        MappingSource::Query(name) => context::query_parameter(x, name.as_bytes())?,
        MappingSource::Header(name) => {
            // OBV-283: names are compared with case.
            let field = x
                .head
                .fields()
                .iter()
                .find(|field| field.name == name.as_bytes())?;
            Cow::Borrowed(field.value)
        }
        // They are made before a head is written: see [`Prepared`].
        MappingSource::Queries(_)
        | MappingSource::Headers(_)
        | MappingSource::Body
        | MappingSource::BodyPath(_) => return None,
        MappingSource::Literal(text) => Cow::Borrowed(text.as_bytes()),
        MappingSource::StageVariable(name) => Cow::Borrowed(context::stage_variable(x, name)?.as_bytes()),
        MappingSource::Context(name) => context::variable(x, client, name)?,
    })
}
