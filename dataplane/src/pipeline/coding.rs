//! Content codings: requests are decoded before anything looks at their body, answers encoded after everything has
//! (CAC-110 to CAC-137).

use std::future::poll_fn;
use std::io::Write;
use std::task::Poll;

use flate2::Compression;
use flate2::write::{DeflateDecoder, GzEncoder, MultiGzDecoder, ZlibDecoder, ZlibEncoder};
use tidegate_rt::Chunk;

use super::body;
use super::exchange::Exchange;
use super::failure::Failure;
use super::validate::Refused;
use crate::http::{Fields, Framing, Known};
use crate::shard::Client;

/// Between two looks at what else the shard has to do, this many bytes are coded.
const SLICE: usize = 64 * 1024;
/// A little less small and a good deal faster than the library's default.
const LEVEL: Compression = Compression::new(4);

/// A coding that bodies may have (CAC-110).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`
    Gzip,
    /// `deflate`: the zlib format.
    Deflate,
}

/// Why a body cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
enum Undecodable {
    /// It is not in that coding, or not whole.
    Malformed,
    /// What comes out is over the bound.
    TooLarge,
}

impl Coding {
    fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            name if name.eq_ignore_ascii_case(b"gzip") => Some(Coding::Gzip),
            name if name.eq_ignore_ascii_case(b"deflate") => Some(Coding::Deflate),
            _ => None,
        }
    }

    /// The name in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
        }
    }
}

// === requests ===

/// Whether a request names a coding. The answer costs nothing where it does not.
pub(super) fn is_encoded(x: &Exchange<'_>) -> bool {
    x.head.fields().get(Known::ContentEncoding).is_some()
}

/// Takes a request's coding away, so that all that follows sees the body itself (CAC-120 to CAC-126). A method that lets
/// messages through as they are keeps it.
pub(super) async fn decode(x: &mut Exchange<'_>, client: &mut Client) -> Result<(), Refused> {
    if x.method()
        .is_some_and(|method| method.integration.is_pass_through())
    {
        return Ok(());
    }
    let mut named = x.head.fields().all(Known::ContentEncoding);
    let (name, more) = (named.next().unwrap_or_default(), named.next().is_some());
    if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
        return Ok(());
    }
    let coding = Coding::from_name(name).filter(|_| !more);
    // No body is no body in every coding.
    match client.framing {
        Framing::Empty => return Ok(()),
        Framing::Length(_) if coding.is_none() => {
            return Err(Refused::Failure(Failure::UNSUPPORTED_MEDIA_TYPE));
        }
        _ => {}
    }
    body::take(x, client).await.map_err(Refused::Gone)?;
    let encoded = x.body.take().unwrap_or_default();
    if encoded.is_empty() {
        x.body = Some(encoded);
        return Ok(());
    }
    let Some(coding) = coding else {
        return Err(Refused::Failure(Failure::UNSUPPORTED_MEDIA_TYPE));
    };
    let least = x.plan().and_then(|plan| plan.minimum_compression());
    if least.is_some_and(|least| (encoded.len() as u64) < least) {
        // CAC-126: what is too small to be coded is let be, and so is its header.
        x.keeps_coding = true;
        x.body = Some(encoded);
        return Ok(());
    }
    match inflate(&encoded, coding, client.shard.bounds.payload).await {
        Ok(decoded) => {
            x.body = Some(Chunk::from(decoded));
            Ok(())
        }
        Err(Undecodable::Malformed) => Err(Refused::Failure(Failure::UNSUPPORTED_MEDIA_TYPE)),
        Err(Undecodable::TooLarge) => Err(Refused::Failure(Failure::TOO_LARGE)),
    }
}

/// What decoders write to: no more than the bound.
struct Bounded {
    out: Vec<u8>,
    limit: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if (self.out.len() + bytes.len()) as u64 > self.limit {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Decodes a body, in slices between which the shard does other work. A few bytes may become many: in small slices, so
/// that a bomb is noticed before it has cost much.
async fn inflate(encoded: &[u8], coding: Coding, limit: u64) -> Result<Vec<u8>, Undecodable> {
    // A thousandth of what it holds is the least that a body can have.
    const STEP: usize = SLICE / 16;
    let sink = Bounded {
        out: Vec::with_capacity(encoded.len().saturating_mul(3).min(SLICE)),
        limit,
    };
    let mut decoder = Inflater::new(encoded, coding, sink);
    for slice in encoded.chunks(STEP) {
        decoder.write(slice)?;
        if encoded.len() > STEP {
            give_way().await;
        }
    }
    decoder.finish()
}

enum Inflater {
    Gzip(MultiGzDecoder<Bounded>),
    Zlib(ZlibDecoder<Bounded>),
    Raw(DeflateDecoder<Bounded>),
}

impl Inflater {
    fn new(encoded: &[u8], coding: Coding, sink: Bounded) -> Self {
        // RFC 9110 section 8.4.1.2 means the zlib format; some send without it.
        let has_zlib_header = matches!(encoded, [cmf, flg, ..]
            if cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flg)) % 31 == 0);
        match coding {
            Coding::Gzip => Inflater::Gzip(MultiGzDecoder::new(sink)),
            Coding::Deflate if has_zlib_header => Inflater::Zlib(ZlibDecoder::new(sink)),
            Coding::Deflate => Inflater::Raw(DeflateDecoder::new(sink)),
        }
    }

    fn write(&mut self, slice: &[u8]) -> Result<(), Undecodable> {
        match self {
            Inflater::Gzip(decoder) => decoder.write_all(slice),
            Inflater::Zlib(decoder) => decoder.write_all(slice),
            Inflater::Raw(decoder) => decoder.write_all(slice),
        }
        .map_err(reason)
    }

    /// The whole body; malformed where its end is missing.
    fn finish(self) -> Result<Vec<u8>, Undecodable> {
        let sink = match self {
            Inflater::Gzip(decoder) => decoder.finish(),
            Inflater::Zlib(decoder) => decoder.finish(),
            Inflater::Raw(decoder) => decoder.finish(),
        };
        sink.map(|sink| sink.out).map_err(reason)
    }
}

fn reason(error: std::io::Error) -> Undecodable {
    match error.kind() {
        std::io::ErrorKind::FileTooLarge => Undecodable::TooLarge,
        _ => Undecodable::Malformed,
    }
}

// === answers ===

/// The coding that an answer to a request gets: the best that the client names, where it is one of ours, and of several
/// equally good ones gzip (CAC-111 to CAC-113, CAC-135, CAC-136).
pub fn accepted(fields: &Fields) -> Option<Coding> {
    let members = fields
        .all(Known::AcceptEncoding)
        .flat_map(|value| value.split(|b| *b == b','));
    let (mut best, mut chosen) = (0, None);
    for member in members {
        let end = member.iter().position(|b| *b == b';').unwrap_or(member.len());
        let name = member[..end].trim_ascii();
        if name.is_empty() {
            continue;
        }
        // A malformed header asks for nothing.
        let weight = weight(&member[end..])?;
        let coding = match name {
            b"*" => Some(Coding::Gzip),
            name => Coding::from_name(name),
        };
        let better = match (coding, chosen) {
            (Some(Coding::Gzip), _) | (Some(_), None) => true,
            (Some(Coding::Deflate), Some(_)) | (None, _) => false,
        };
        if weight > best {
            (best, chosen) = (weight, coding);
        } else if weight == best && weight > 0 && better {
            chosen = coding;
        }
    }
    chosen
}

/// The weight behind a member's name, in thousandths (RFC 9110 section 12.4.2).
fn weight(parameters: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(parameters).ok()?.trim();
    if text.is_empty() {
        return Some(1000);
    }
    let value = text.strip_prefix(';')?.trim_start();
    let value = value.strip_prefix("q=").or_else(|| value.strip_prefix("Q="))?;
    let weight: f32 = value.trim().parse().ok()?;
    (0.0..=1.0).contains(&weight).then_some((weight * 1000.0) as u16)
}

/// Encodes a body, in slices between which the shard does other work.
pub async fn encode(body: &[u8], coding: Coding) -> Vec<u8> {
    let out = Vec::with_capacity(body.len() / 4 + 64);
    match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(out, LEVEL);
            write(&mut encoder, body).await;
            encoder.finish()
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(out, LEVEL);
            write(&mut encoder, body).await;
            encoder.finish()
        }
    }
    // Memory takes everything.
    .unwrap_or_default()
}

async fn write(encoder: &mut impl Write, body: &[u8]) {
    for slice in body.chunks(SLICE) {
        let _ = encoder.write_all(slice);
        if body.len() > SLICE {
            give_way().await;
        }
    }
}

/// Lets the shard's other tasks run.
async fn give_way() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;
    use crate::http::{HeadLimits, RequestHead};

    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return value;
            }
        }
    }

    fn chosen(values: &[&str]) -> Option<&'static str> {
        let lines: String = values
            .iter()
            .map(|value| format!("Accept-Encoding: {value}\r\n"))
            .collect();
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let limits = HeadLimits::for_requests(&tidegate_plan::Limits::default());
        let head = RequestHead::parse(Chunk::from(text), &limits).unwrap();
        accepted(head.fields()).map(Coding::name)
    }

    /// CAC-111, CAC-112, CAC-113, CAC-130, CAC-135, CAC-136: the truth table.
    #[test]
    fn the_best_coding_is_chosen_where_it_is_ours() {
        assert_eq!(chosen(&[]), None);
        for (value, expected) in [
            ("gzip", Some("gzip")),
            ("GZIP", Some("gzip")),
            ("deflate", Some("deflate")),
            ("deflate,gzip", Some("gzip")),
            ("gzip, deflate, br", Some("gzip")),
            ("br, gzip", Some("gzip")),
            ("", None),
            ("*", Some("gzip")),
            ("*;q=0", None),
            ("deflate;q=0.5,gzip;q=1.0", Some("gzip")),
            ("deflate;q=0.9, gzip;q=0.5", Some("deflate")),
            ("gzip;q=1.0,identity;q=0.5,*;q=0", Some("gzip")),
            ("identity", None),
            ("br", None),
            ("br;q=1.0,gzip;q=0.8", None),
            ("identity;q=1.0,gzip;q=0.5", None),
            ("gzip;q=0", None),
            ("identity;q=0", None),
            ("gzip;q=nonsense", None),
            ("gzip;x=1", None),
        ] {
            assert_eq!(chosen(&[value]), expected, "{value}");
        }
        assert_eq!(chosen(&["br;q=0.5", "gzip"]), Some("gzip"));
    }

    /// CAC-121, CAC-123: what was encoded decodes; anything else is malformed, and a bomb stops at the bound.
    #[test]
    fn bodies_come_out_as_they_went_in() {
        let body: Vec<u8> = (0..300_000_u32)
            .flat_map(|at| (at % 1000).to_le_bytes())
            .collect();
        for coding in [Coding::Gzip, Coding::Deflate] {
            let encoded = now(encode(&body, coding));
            assert!(encoded.len() < body.len() / 2);
            assert_eq!(now(inflate(&encoded, coding, 10 << 20)).as_deref(), Ok(&body[..]));
            assert_eq!(
                now(inflate(&encoded[..encoded.len() - 9], coding, 10 << 20)),
                Err(Undecodable::Malformed)
            );
            assert_eq!(
                now(inflate(&encoded, coding, 1 << 20)),
                Err(Undecodable::TooLarge)
            );
            assert_eq!(
                now(inflate(b"plain text", coding, 1 << 20)),
                Err(Undecodable::Malformed)
            );
        }
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), LEVEL);
        raw.write_all(b"{\"type\":\"dog\"}").unwrap();
        let raw = raw.finish().unwrap();
        assert_eq!(
            now(inflate(&raw, Coding::Deflate, 1000)).as_deref(),
            Ok(&b"{\"type\":\"dog\"}"[..])
        );
    }
}
