//! A backend's response head: tolerant where it is safe, strict where two readers could differ.

use std::mem::MaybeUninit;

use tidegate_rt::Chunk;

use super::Version;
use super::body::Framing;
use super::error::ResponseError;
use super::fields::{Fields, list};
use super::known::Known;
use super::request::{keep_alive, parse_length};
use super::scan::{FIELDS_MAX, HeadLimits, SMALL_TABLE};

/// A response's head with its framing decided.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    status: u16,
    version: Version,
    framing: Framing,
    keep_alive: bool,
    fields: Fields,
}

impl ResponseHead {
    /// Reads a complete head, as delimited by the scanner. `bare_lf`: a line of it ends in LF alone, so that none is
    /// passed on as it came. `to_head` says that the request was a HEAD, whose response has no body whatever its fields
    /// say.
    pub fn parse(
        bytes: Chunk,
        bare_lf: bool,
        to_head: bool,
        limits: &HeadLimits,
    ) -> Result<Self, ResponseError> {
        if limits.fields <= SMALL_TABLE {
            read_within::<SMALL_TABLE>(&bytes, bare_lf, to_head, limits)
        } else {
            read_within::<FIELDS_MAX>(&bytes, bare_lf, to_head, limits)
        }
    }

    /// A head whose framing is decided, of a connection that goes on.
    pub(super) fn new(status: u16, version: Version, framing: Framing, fields: Fields) -> Self {
        ResponseHead {
            status,
            version,
            framing,
            keep_alive: true,
            fields,
        }
    }

    /// The status: 100 to 999.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether a final response is still to come. 101 is none of these: it is final, and an error where nobody
    /// asked for it.
    pub fn is_informational(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How the body ends.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the backend's connection can be used again after the body.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// The header fields.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The header fields, to be edited.
    pub fn fields_mut(&mut self) -> &mut Fields {
        &mut self.fields
    }
}

/// Reads a head of up to `N` fields, apart from its caller as with requests.
#[inline(never)]
fn read_within<const N: usize>(
    bytes: &Chunk,
    bare_lf: bool,
    to_head: bool,
    limits: &HeadLimits,
) -> Result<ResponseHead, ResponseError> {
    read(
        bytes,
        bare_lf,
        to_head,
        limits,
        &mut [const { MaybeUninit::uninit() }; N],
    )
}

fn read<'b>(
    bytes: &'b Chunk,
    bare_lf: bool,
    to_head: bool,
    limits: &HeadLimits,
    table: &mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<ResponseHead, ResponseError> {
    let table = &mut table[..limits.fields.min(FIELDS_MAX)];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let complete = config
        .parse_response_with_uninit_headers(&mut parsed, bytes, table)
        .map_err(|error| match error {
            httparse::Error::TooManyHeaders => ResponseError::HeadTooLarge,
            _ => ResponseError::Malformed,
        })?;
    if complete != httparse::Status::Complete(bytes.len()) {
        return Err(ResponseError::Malformed);
    }
    let status = parsed
        .code
        .filter(|code| (100..1000).contains(code))
        .ok_or(ResponseError::Malformed)?;
    let version = if parsed.version == Some(0) {
        Version::Http10
    } else {
        Version::Http11
    };
    let blank = if bytes.ends_with(b"\r\n") { 2 } else { 1 };
    let fields = Fields::from_parsed(bytes.clone(), bytes.len() - blank, !bare_lf, parsed.headers);
    let framing = framing(&fields, status, version, to_head)?;
    Ok(ResponseHead {
        status,
        version,
        framing,
        keep_alive: framing != Framing::UntilClose && keep_alive(&fields, version),
        fields,
    })
}

/// How the body ends (RFC 9112 section 6.3).
fn framing(fields: &Fields, status: u16, version: Version, to_head: bool) -> Result<Framing, ResponseError> {
    let length = content_length(fields)?;
    let mut codings = fields.all(Known::TransferEncoding).flat_map(list);
    let has_coding = fields.get(Known::TransferEncoding).is_some();
    if has_coding && length.is_some() {
        return Err(ResponseError::LengthAndCoding);
    }
    if to_head || status < 200 || status == 204 || status == 304 {
        return Ok(Framing::Empty);
    }
    if !has_coding {
        return Ok(length.map_or(Framing::UntilClose, Framing::length));
    }
    match (codings.next(), codings.next()) {
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && version == Version::Http11 => {
            Ok(Framing::Chunked)
        }
        _ => Err(ResponseError::TransferEncoding),
    }
}

/// Repeated lengths are one if they are equal (RFC 9112 section 6.3).
pub(super) fn content_length(fields: &Fields) -> Result<Option<u64>, ResponseError> {
    let mut found = None;
    for value in fields.all(Known::ContentLength) {
        for one in value.split(|b| *b == b',') {
            let length = parse_length(one.trim_ascii()).ok_or(ResponseError::ContentLength)?;
            if found.is_some_and(|other| other != length) {
                return Err(ResponseError::ContentLength);
            }
            found = Some(length);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::LIMITS;
    use super::super::scan::Scanner;
    use super::*;

    fn parse_for(text: &str, to_head: bool) -> Result<ResponseHead, ResponseError> {
        let mut scanner = Scanner::new();
        let scanned = scanner.advance(text.as_bytes(), &LIMITS, false).unwrap();
        let end = scanned.ok_or(ResponseError::Malformed)?;
        let bytes = Chunk::copy_from_slice(&text.as_bytes()[..end]);
        ResponseHead::parse(bytes, scanner.saw_bare_lf(), to_head, &LIMITS)
    }

    fn parse(text: &str) -> Result<ResponseHead, ResponseError> {
        parse_for(text, false)
    }

    #[test]
    fn the_framing_of_responses() {
        let framing = |text: &str| parse(text).map(|head| head.framing());
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"),
            Ok(Framing::Length(3))
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            Ok(Framing::Empty)
        );
        assert_eq!(
            framing("HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n"),
            Ok(Framing::Chunked)
        );
        assert_eq!(framing("HTTP/1.0 200 OK\r\n\r\n"), Ok(Framing::UntilClose));
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n"), Ok(Framing::UntilClose));
        assert_eq!(
            framing("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n"),
            Ok(Framing::Empty)
        );
        assert_eq!(
            framing("HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Ok(Framing::Empty)
        );
        let same = "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(framing(same), Ok(Framing::Length(3)));
        let head = parse_for("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true).unwrap();
        assert_eq!(head.framing(), Framing::Empty);
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        for (fields, error) in [
            (
                "Content-Length: 3\r\nContent-Length: 4",
                ResponseError::ContentLength,
            ),
            ("Content-Length: 3, 4", ResponseError::ContentLength),
            ("Content-Length: +3", ResponseError::ContentLength),
            ("Content-Length: ", ResponseError::ContentLength),
            (
                "Content-Length: 99999999999999999999",
                ResponseError::ContentLength,
            ),
            (
                "Content-Length: 3\r\nTransfer-Encoding: chunked",
                ResponseError::LengthAndCoding,
            ),
            (
                "Transfer-Encoding: gzip, chunked",
                ResponseError::TransferEncoding,
            ),
            (
                "Transfer-Encoding: chunked, chunked",
                ResponseError::TransferEncoding,
            ),
            ("Transfer-Encoding: identity", ResponseError::TransferEncoding),
            ("Transfer-Encoding:", ResponseError::TransferEncoding),
            ("A: b\r\n c", ResponseError::Malformed),
            ("A : b", ResponseError::Malformed),
            ("A: b\0", ResponseError::Malformed),
            ("A: b\rc: d", ResponseError::Malformed),
            ("no colon", ResponseError::Malformed),
        ] {
            assert_eq!(
                parse(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n")).unwrap_err(),
                error,
                "{fields}"
            );
        }
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse(old).unwrap_err(), ResponseError::TransferEncoding);
        for garbage in [
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 99 x\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 2x0\r\n\r\n",
        ] {
            assert_eq!(parse(garbage).unwrap_err(), ResponseError::Malformed, "{garbage}");
        }
    }

    #[test]
    fn bare_line_feeds_are_read_but_not_passed_on() {
        let head = parse("HTTP/1.1 200 OK\nA: b\nC:d\n\n").unwrap();
        let mut out = tidegate_rt::Buffer::with_capacity(64);
        head.fields().write_kept(&mut out, |_| true);
        assert_eq!(&*out, b"A: b\r\nC: d\r\n");
    }

    #[test]
    fn informational_responses_are_told_apart() {
        assert!(parse("HTTP/1.1 100 Continue\r\n\r\n").unwrap().is_informational());
        assert!(
            parse("HTTP/1.1 103 Early Hints\r\n\r\n")
                .unwrap()
                .is_informational()
        );
        assert!(
            !parse("HTTP/1.1 101 Switching Protocols\r\n\r\n")
                .unwrap()
                .is_informational()
        );
        let kept = |text| parse(text).unwrap().keep_alive();
        assert!(kept("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"));
        assert!(!kept("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!kept("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n"));
    }
}
