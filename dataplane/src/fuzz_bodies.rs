//! What must hold for any bytes: one function a parser, called by cargo-fuzz with what it invents and by a test
//! with the corpus that is committed. A broken rule is a panic.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tidegate_plan::limits::Limits;
use tidegate_plan::path;
use tidegate_rt::{Buffer, Chunk};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::chunked::{ChunkedDecoder, Step};
use crate::http::frames::{Frames, PREFACE};
use crate::http::{BodyError, HeadLimits, HeadWriter, RequestHead, ResponseHead, Scanner, Version};

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
        let fields = |head: &RequestHead| -> Vec<(Vec<u8>, Vec<u8>)> {
            head.fields()
                .iter()
                .map(|field| (field.name.to_vec(), field.value.to_vec()))
                .collect()
        };
        assert_eq!(fields(&again), fields(&head));
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
        let targets: [(&str, Body); 5] = [
            ("request_head", request_head),
            ("response_head", response_head),
            ("chunked", chunked),
            ("http2", http2),
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
