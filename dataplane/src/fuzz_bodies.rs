//! What must hold for any bytes: one function a parser, called by cargo-fuzz with what it invents and by a test
//! with the corpus that is committed. A broken rule is a panic.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tidegate_plan::limits::{Limit, Limits};
use tidegate_plan::path;
use tidegate_rt::{Buffer, Chunk, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::chunked::{ChunkedDecoder, Step};
use crate::http::frames::{FrameKind, Frames, PREFACE};
use crate::http::{BodyError, HeadLimits, HeadWriter, RequestHead, ResponseHead, Scanner, Version};
use crate::shard::http2::{Allowances, Meter};

/// A request's head: the scanner finds the same end byte by byte, and a head that is accepted, written again and
/// read again has the same framing, host and fields.
pub fn request_head(data: &[u8]) {
    let limits = HeadLimits::for_requests(&Limits::default());
    let whole = Scanner::new().advance(data, &limits, true);
    let mut scanner = Scanner::new();
    let piecewise = (0..=data.len()).find_map(|at| scanner.advance(&data[..at], &limits, true).transpose());
    assert_eq!(whole.transpose(), piecewise);
    let Ok(Some(end)) = whole else { return };
    let Ok(head) = RequestHead::parse(Chunk::copy_from_slice(&data[..end]), &limits) else {
        return;
    };
    let mut out = Buffer::with_capacity(end);
    let query = head.query().map_or([&b""[..], b""], |query| [b"?", query]);
    let mut writer = HeadWriter::request(&mut out, head.method(), [head.path(), query[0], query[1]]);
    writer.kept(head.fields(), |_| true);
    writer.end();
    // HTTP/1.0 goes out as 1.1, which wants a Host and knows expectations. A line grows by at most
    // the path that an absolute form left out.
    let wide = HeadLimits {
        line: limits.line + 2,
        head: limits.head * 2,
        ..limits
    };
    if let Ok(again) = RequestHead::parse(out.freeze(), &wide) {
        assert_eq!(again.framing(), head.framing());
        assert_eq!(pairs(&again), pairs(&head));
    } else {
        let is_old = head.version() == Version::Http10;
        assert!(is_old, "a head that was accepted is refused when written again");
    }
}

/// A response's head: reading and writing it never panics, and what goes out has no bare LF.
pub fn response_head(data: &[u8]) {
    let limits = HeadLimits::for_responses(&Limits::default());
    let mut scanner = Scanner::new();
    let Ok(Some(end)) = scanner.advance(data, &limits, false) else {
        return;
    };
    let bytes = Chunk::copy_from_slice(&data[..end]);
    if let Ok(head) = ResponseHead::parse(bytes, scanner.saw_bare_lf(), false, &limits) {
        let mut out = Buffer::with_capacity(end);
        HeadWriter::response(&mut out, head.status()).kept(head.fields(), |_| true);
        assert!(memchr::memchr_iter(b'\n', &out).all(|at| at > 0 && out[at - 1] == b'\r'));
    }
}

/// A chunked body: the first byte says where to cut the rest, and the cut changes nothing.
pub fn chunked(data: &[u8]) {
    let Some((&cut, wire)) = data.split_first() else {
        return;
    };
    let whole = decode(&[wire]);
    let (first, second) = wire.split_at(usize::from(cut).min(wire.len()));
    assert_eq!(decode(&[first, second]), whole);
    assert!(whole.map_or(0, |(body, _)| body.len()) <= wire.len());
}

fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), BodyError> {
    let mut decoder = ChunkedDecoder::new(64, 64);
    let mut body = Vec::new();
    for piece in pieces {
        let mut at = 0;
        while let Step::Data(range) = decoder.step(&piece[at..])? {
            body.extend_from_slice(&piece[at + range.start..at + range.end]);
            at += range.end;
        }
    }
    Ok((body, decoder.is_done()))
}

/// What a client sends over HTTP/2 behind its preface: the same frames are seen however the bytes are cut, and whatever
/// request h2 makes of them becomes a head of whole lines with a host, or is refused.
pub fn http2(data: &[u8]) {
    let wire = [PREFACE, data].concat();
    let seen = |cut: usize| {
        let (mut frames, mut seen) = (Frames::new(), Vec::new());
        for piece in wire.chunks(cut) {
            let Ok(()) = frames.advance(piece, |head| {
                seen.push(head);
                Ok::<_, Infallible>(())
            });
        }
        (seen, frames.is_within_frame())
    };
    assert_eq!(seen(1), seen(wire.len()));

    let limits = HeadLimits::for_requests(&Limits::default());
    let mut cx = Context::from_waker(Waker::noop());
    let mut handshake = h2::server::Builder::new()
        .max_header_list_size(16 * 1024)
        .handshake::<_, Chunk>(Memory(&wire));
    let Poll::Ready(Ok(mut connection)) = Pin::new(&mut handshake).poll(&mut cx) else {
        return;
    };
    // The end of the bytes is the end of the connection, so that this ends.
    while let Poll::Ready(Some(Ok((request, mut respond)))) = connection.poll_accept(&mut cx) {
        let (parts, mut body) = request.into_parts();
        while let Poll::Ready(Some(Ok(part))) = body.poll_data(&mut cx) {
            let _ = body.flow_control().release_capacity(part.len());
        }
        if let Ok(head) = RequestHead::from_http2(&parts, body.is_end_stream(), &limits) {
            assert!(!head.host().is_empty() && head.fields().len() <= limits.fields);
            let mut out = Buffer::with_capacity(1024);
            let mut writer = HeadWriter::request(&mut out, head.method(), [head.path()]);
            writer.kept(head.fields(), |_| true);
            writer.end();
            let lines = memchr::memchr_iter(b'\n', &out).count();
            assert_eq!(lines, head.fields().len() + 2);
            assert_eq!(memchr::memchr_iter(b'\r', &out).count(), lines);
        }
        let _ = respond.send_response(http::Response::new(()), true);
    }
}

/// An HTTP/2 request's head past the compression, so that fields are invented and not their code: lines of a name, a colon
/// or not, and a value; the first four are method, scheme, authority and path. What is accepted has whole lines, one host,
/// and is a head that HTTP/1.1's own parser reads in the same way.
pub fn http2_head(data: &[u8]) {
    let Some((&first, text)) = data.split_first() else {
        return;
    };
    let mut lines = text.split(|byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let Ok(method) = http::Method::from_bytes(next()) else {
        return;
    };
    let mut uri = http::Uri::builder();
    for (at, part) in [next(), next(), next()].into_iter().enumerate() {
        uri = match at {
            _ if part.is_empty() => uri,
            0 => uri.scheme(part),
            1 => uri.authority(part),
            _ => uri.path_and_query(part),
        };
    }
    let Ok(uri) = uri.build() else { return };
    let (mut parts, ()) = http::Request::new(()).into_parts();
    (parts.method, parts.uri) = (method, uri);
    for line in lines {
        let at = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = (&line[..at], line.get(at + 1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::from_lowercase(name),
            http::HeaderValue::from_bytes(value),
        ) {
            parts.headers.append(name, value);
        }
    }
    let limits = HeadLimits::for_requests(&Limits::default());
    let Ok(head) = RequestHead::from_http2(&parts, first & 1 == 0, &limits) else {
        return;
    };
    let mut out = Buffer::with_capacity(1024);
    let query = head.query().map_or([&b""[..], b""], |query| [b"?", query]);
    let mut writer = HeadWriter::request(&mut out, head.method(), [head.path(), query[0], query[1]]);
    writer.kept(head.fields(), |_| true);
    writer.end();
    let again = RequestHead::parse(out.freeze(), &limits).expect("what HTTP/2 lets through, HTTP/1.1 does");
    assert_eq!(
        (again.method(), again.path(), again.query(), again.host()),
        (head.method(), head.path(), head.query(), head.host())
    );
    assert_eq!(pairs(&again), pairs(&head));
}

/// Names and values of a head's fields.
fn pairs(head: &RequestHead) -> Vec<(Vec<u8>, Vec<u8>)> {
    head.fields()
        .iter()
        .map(|field| (field.name.to_vec(), field.value.to_vec()))
        .collect()
}

/// The counters of frames that cost work: the first byte is the allowance; then a frame each five bytes: kind, flags,
/// length, and how much later it comes. No kind passes more often than its allowance and what has grown back, and after a
/// pause of a refill time a frame always passes.
pub fn http2_meter(data: &[u8]) {
    const COUNTED: [Limit; 6] = [
        Limit::Http2Resets,
        Limit::Http2Settings,
        Limit::Http2Pings,
        Limit::Http2WindowUpdates,
        Limit::Http2EmptyFrames,
        Limit::Http2IgnoredFrames,
    ];
    let Some((&allowance, frames)) = data.split_first() else {
        return;
    };
    let allowance = 16 + u64::from(allowance % 16);
    let mut limits = Limits::default();
    for limit in COUNTED {
        limits
            .set_number(limit, allowance)
            .expect("an allowance in range");
    }
    let refill = limits.duration(Limit::Http2RefillTime);
    let begun = Instant::now();
    let mut meter = Meter::new(Allowances::new(&limits), begun);
    let head = |kind: u8, flags: u8, length: u8| {
        let mut seen = None;
        let wire = [0, 0, length, kind, flags, 0, 0, 0, 1, 0];
        let _ = Frames::of_server().advance(&wire, |head| {
            seen = Some(head);
            Err(())
        });
        seen.expect("a head is there whole")
    };
    let _ = meter.received(&head(4, 0, 0), begun);
    let mut now = begun;
    // When frames of the kinds that earn nothing passed: resets, and SETTINGS.
    let mut passed = [Vec::new(), vec![begun]];
    for bytes in frames.chunks_exact(5) {
        let [kind, flags, length, sent, later] = [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]];
        now += refill / 64 * u32::from(later);
        let head = head(kind % 12, flags, length);
        let answer = meter.received(&head, now);
        if sent == 1 {
            meter.sent(&head);
        }
        let Some(passed) = (match head.kind {
            _ if !head.has_valid_length() => None,
            FrameKind::RstStream => Some(&mut passed[0]),
            FrameKind::Settings => Some(&mut passed[1]),
            _ => None,
        }) else {
            continue;
        };
        let lately = passed.iter().filter(|at| **at + refill > now).count() as u64;
        if answer.is_ok() {
            passed.push(now);
            assert!(lately <= 2 * allowance, "{lately} passed in one refill time");
        } else {
            assert!(lately > 0, "refused after a pause");
        }
    }
}

/// A connection on which everything has arrived, and to which anything may be written.
struct Memory<'d>(&'d [u8]);

impl AsyncRead for Memory<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (now, later) = self.0.split_at(self.0.len().min(buf.remaining()));
        buf.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A path: its canonical form is a fixed point with as many separators as the raw path.
pub fn normal_path(data: &[u8]) {
    let _ = path::check_query(data);
    if let Ok(once) = path::normalize(data) {
        let again = path::normalize(once.as_str().as_bytes()).map(|path| path.into_owned());
        assert_eq!(again.as_ref(), Ok(&once));
        assert!(!path::has_dot_segment(once.as_str()));
        let slashes = |bytes: &[u8]| bytes.iter().filter(|b| **b == b'/').count();
        assert_eq!(slashes(data), slashes(once.as_str().as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Body = fn(&[u8]);

    /// Every committed input still holds. One input a file.
    #[test]
    fn the_corpus_holds() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let targets: [(&str, Body); 7] = [
            ("request_head", request_head),
            ("response_head", response_head),
            ("chunked", chunked),
            ("http2", http2),
            ("http2_head", http2_head),
            ("http2_meter", http2_meter),
            ("normal_path", normal_path),
        ];
        for (name, body) in targets {
            let mut count = 0;
            for entry in std::fs::read_dir(root.join(name)).unwrap() {
                let data = std::fs::read(entry.unwrap().path()).unwrap();
                // Every beginning of an input is an input too.
                (0..=data.len()).for_each(|end| body(&data[..end]));
                count += 1;
            }
            assert!(count > 0, "no corpus for {name}");
        }
    }
}
