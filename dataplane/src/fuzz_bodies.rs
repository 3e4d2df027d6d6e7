//! What must hold for any bytes: one function a parser, called by cargo-fuzz with what it invents and by a test
//! with the corpus that is committed. A broken rule is a panic.

use tidegate_plan::limits::Limits;
use tidegate_plan::path;
use tidegate_rt::{Buffer, Chunk};

use crate::http::chunked::{ChunkedDecoder, Step};
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
    let Ok(Some(end)) = Scanner::new().advance(data, &limits, false) else {
        return;
    };
    if let Ok(head) = ResponseHead::parse(Chunk::copy_from_slice(&data[..end]), false, &limits) {
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
        let targets: [(&str, Body); 4] = [
            ("request_head", request_head),
            ("response_head", response_head),
            ("chunked", chunked),
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
