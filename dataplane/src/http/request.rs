//! A request's head, with everything that framing and routing need decided (RFC 9112).

use std::mem::MaybeUninit;
use std::ops::Range;

use tidegate_plan::Verb;
use tidegate_rt::Chunk;

use super::Version;
use super::body::Framing;
use super::error::RequestError;
use super::fields::{Fields, list};
use super::known::Known;
use super::scan::{FIELDS_MAX, HeadLimits, SMALL_TABLE};

/// A request's head that can be served: its host is one and valid, its framing is certain.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub(super) bytes: Chunk,
    pub(super) fields: Fields,
    pub(super) method: Span,
    pub(super) verb: Option<Verb>,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    pub(super) authority: Span,
    /// Of the authority's host.
    pub(super) host_length: u32,
    pub(super) version: Version,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

/// Start and end within the head; a head is far below 4 GiB.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span(pub(super) u32, pub(super) u32);

impl RequestHead {
    /// Reads a complete head, as delimited by the scanner: `bytes` ends with the blank line.
    pub fn parse(bytes: Chunk, limits: &HeadLimits) -> Result<Self, RequestError> {
        // Most heads fit the small table; the large one would touch memory for nothing.
        if limits.fields <= SMALL_TABLE {
            read_within::<SMALL_TABLE>(&bytes, limits)
        } else {
            read_within::<FIELDS_MAX>(&bytes, limits)
        }
    }

    /// The method as sent.
    pub fn method(&self) -> &[u8] {
        self.slice(self.method)
    }

    /// The method, if an API can have it (RES-050).
    pub fn verb(&self) -> Option<Verb> {
        self.verb
    }

    /// The raw path: `/a%20b`, or `*`. Not yet in canonical form.
    pub fn path(&self) -> &[u8] {
        match self.slice(self.path) {
            // An absolute form may end with its authority (RFC 9112 section 3.2.1).
            b"" => b"/",
            path => path,
        }
    }

    /// The raw query, without its `?`.
    pub fn query(&self) -> Option<&[u8]> {
        self.query.map(|span| self.slice(span))
    }

    /// Host and port as sent: from the absolute form if there is one, else from `Host`. Empty only with HTTP/1.0.
    pub fn authority(&self) -> &[u8] {
        self.slice(self.authority)
    }

    /// The host without its port, in the spelling it was sent.
    pub fn host(&self) -> &[u8] {
        &self.authority()[..self.host_length as usize]
    }

    /// The header fields.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The header fields, to be edited.
    pub fn fields_mut(&mut self) -> &mut Fields {
        &mut self.fields
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How the body ends.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client keeps the connection open after the answer (RFC 9112 section 9.3).
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends its body (RFC 9110 section 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Whether the client asks for another protocol on this connection.
    pub fn asks_upgrade(&self) -> bool {
        self.fields.get(Known::Upgrade).is_some() && self.fields.connection_names(b"upgrade")
    }

    fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.range()]
    }
}

impl Span {
    pub(super) fn range(self) -> Range<usize> {
        self.0 as usize..self.1 as usize
    }

    /// Where `part` stands in `whole`, of which it is a slice.
    fn of(part: &[u8], whole: &[u8]) -> Span {
        let start = (part.as_ptr() as usize)
            .saturating_sub(whole.as_ptr() as usize)
            .min(whole.len());
        Span(start as u32, (start + part.len()).min(whole.len()) as u32)
    }
}

/// Reads a head of up to `N` fields. Apart from its caller, which is a connection's task: the table would be part of
/// that one's stack frame, whichever way it goes.
#[inline(never)]
fn read_within<const N: usize>(bytes: &Chunk, limits: &HeadLimits) -> Result<RequestHead, RequestError> {
    read(bytes, limits, &mut [const { MaybeUninit::uninit() }; N])
}

fn read<'b>(
    bytes: &'b Chunk,
    limits: &HeadLimits,
    table: &mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<RequestHead, RequestError> {
    let table = &mut table[..limits.fields.min(FIELDS_MAX)];
    let mut parsed = httparse::Request::new(&mut []);
    let complete = parsed
        .parse_with_uninit_headers(bytes, table)
        .map_err(|error| match error {
            httparse::Error::TooManyHeaders => RequestError::HeadTooLarge,
            httparse::Error::Version if names_a_version(bytes) => RequestError::Version,
            _ => RequestError::Malformed,
        })?;
    if complete != httparse::Status::Complete(bytes.len()) {
        return Err(RequestError::Malformed);
    }
    let method = parsed.method.ok_or(RequestError::Malformed)?.as_bytes();
    let target = parsed.path.ok_or(RequestError::Malformed)?.as_bytes();
    let version = if parsed.version == Some(0) {
        Version::Http10
    } else {
        Version::Http11
    };
    if method == b"CONNECT" {
        return Err(RequestError::Connect);
    }
    if parsed
        .headers
        .iter()
        .map(|header| header.value.len())
        .sum::<usize>()
        > limits.values
    {
        return Err(RequestError::HeadTooLarge);
    }
    let fields = Fields::from_parsed(bytes.clone(), bytes.len() - 2, true, parsed.headers);

    let (absolute, path, query) = split_target(target)?;
    let host = host(&fields, version)?;
    // The absolute form wins (RFC 9112 section 3.2.2); Host must be there and valid all the same.
    let (authority, host_length) = absolute.unwrap_or(host);
    let (keep_alive, expects_continue) = (keep_alive(&fields, version), expectation(&fields, version)?);
    Ok(RequestHead {
        method: Span::of(method, bytes),
        verb: Verb::from_token(method),
        path: Span::of(path, bytes),
        query: query.map(|query| Span::of(query, bytes)),
        authority: if authority.is_empty() {
            Span::default()
        } else {
            Span::of(authority, bytes)
        },
        host_length: host_length as u32,
        version,
        framing: framing(&fields, version)?,
        keep_alive,
        expects_continue,
        bytes: bytes.clone(),
        fields,
    })
}

/// Whether the request line is one in form, so that what is wrong is the number of its version.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes
        .split(|b| *b == b'\n')
        .find(|line| line.len() > 1)
        .unwrap_or_default();
    let mut parts = line.strip_suffix(b"\r").unwrap_or(line).split(|b| *b == b' ');
    let (last, more) = (parts.by_ref().nth(2).unwrap_or_default(), parts.next());
    let is_version = |major: u8, minor: u8| major.is_ascii_digit() && minor.is_ascii_digit();
    more.is_none()
        && matches!(last, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if is_version(*major, *minor))
}

/// An authority, and the length of its host.
type Authority<'t> = (&'t [u8], usize);

type Target<'t> = (Option<Authority<'t>>, &'t [u8], Option<&'t [u8]>);

/// Authority, path and query of a request target in origin form, absolute form or `*`.
fn split_target(target: &[u8]) -> Result<Target<'_>, RequestError> {
    let (authority, rest) = match target {
        [b'/', ..] | b"*" => (None, target),
        _ => {
            let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
                target.len() > scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme)
            });
            let rest = &target[scheme.ok_or(RequestError::Target)?.len()..];
            let end = rest
                .iter()
                .position(|b| matches!(b, b'/' | b'?'))
                .unwrap_or(rest.len());
            let length = host_length(&rest[..end]).ok_or(RequestError::Target)?;
            (Some((&rest[..end], length)), &rest[end..])
        }
    };
    match memchr::memchr2(b'?', b'#', rest) {
        Some(at) if rest[at] == b'#' => Err(RequestError::Target),
        Some(at) => Ok((authority, &rest[..at], Some(&rest[at + 1..]))),
        None => Ok((authority, rest, None)),
    }
}

/// The one value of Host (RFC 9112 section 3.2). HTTP/1.0 may come without.
fn host(fields: &Fields, version: Version) -> Result<Authority<'_>, RequestError> {
    match fields.get(Known::Host) {
        Some(value) if !fields.is_repeated(Known::Host) => {
            Ok((value, host_length(value).ok_or(RequestError::Host)?))
        }
        None if version == Version::Http10 => Ok((b"", 0)),
        _ => Err(RequestError::Host),
    }
}

/// The length of an authority's host: a name, an IPv4 address or a bracketed IPv6 address, which a port may follow.
/// User information is refused.
pub(super) fn host_length(authority: &[u8]) -> Option<usize> {
    let length = match authority {
        [b'[', inner @ ..] => {
            let inner = inner
                .iter()
                .take_while(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
            let length = inner.count();
            (length > 0 && authority.get(length + 1) == Some(&b']')).then_some(length + 2)?
        }
        _ => {
            let end = authority.iter().position(|b| !NAME[usize::from(*b)]);
            let length = end.unwrap_or(authority.len());
            (1..=255).contains(&length).then_some(length)?
        }
    };
    match &authority[length..] {
        [] => Some(length),
        [b':', port @ ..] if port.len() <= 5 && port.iter().all(u8::is_ascii_digit) => Some(length),
        _ => None,
    }
}

/// Bytes of a host's name.
static NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'-' | b'.' | b'_');
        byte += 1;
    }
    table
};

/// How the body ends (RFC 9112 section 6). Whatever two readers could take differently is refused.
fn framing(fields: &Fields, version: Version) -> Result<Framing, RequestError> {
    let length = content_length(fields)?;
    if fields.get(Known::TransferEncoding).is_none() {
        return Ok(length.map_or(Framing::Empty, Framing::length));
    }
    if length.is_some() {
        return Err(RequestError::LengthAndCoding);
    }
    if version == Version::Http10 {
        return Err(RequestError::TransferEncoding);
    }
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let mut codings = fields.all(Known::TransferEncoding).flat_map(list);
    let (mut count, mut chunked, mut last_is_chunked) = (0, 0, false);
    for coding in &mut codings {
        count += 1;
        last_is_chunked = is_chunked(coding);
        chunked += usize::from(last_is_chunked);
    }
    match (count, chunked, last_is_chunked) {
        (1, 1, true) => Ok(Framing::Chunked),
        (_, 1, true) => Err(RequestError::CodingUnknown),
        _ => Err(RequestError::TransferEncoding),
    }
}

pub(super) fn content_length(fields: &Fields) -> Result<Option<u64>, RequestError> {
    let Some(value) = fields.get(Known::ContentLength) else {
        return Ok(None);
    };
    match parse_length(value) {
        Some(length) if !fields.is_repeated(Known::ContentLength) => Ok(Some(length)),
        _ => Err(RequestError::ContentLength),
    }
}

/// Digits only, below 2^63.
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let length = value.iter().try_fold(0_u64, |length, byte| {
        length.checked_mul(10)?.checked_add(digit(byte)?)
    })?;
    (!value.is_empty() && length <= i64::MAX as u64).then_some(length)
}

/// Whether the connection stays open: HTTP/1.1 unless `close`, HTTP/1.0 only with `keep-alive`.
pub(super) fn keep_alive(fields: &Fields, version: Version) -> bool {
    let mut keep = version == Version::Http11;
    if fields.get(Known::Connection).is_none() {
        return keep;
    }
    for option in fields.all(Known::Connection).flat_map(list) {
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keep |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    keep
}

pub(super) fn expectation(fields: &Fields, version: Version) -> Result<bool, RequestError> {
    match fields.get(Known::Expect) {
        // HTTP/1.0 does not know expectations (RFC 9110 section 10.1.1).
        Some(_) if version == Version::Http10 => Ok(false),
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => Err(RequestError::Expectation),
        None => Ok(false),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::http::scan::Scanner;

    pub(crate) const LIMITS: HeadLimits = HeadLimits {
        line: 10_240,
        head: 32_768,
        values: 10_240,
        fields: 128,
    };

    /// Scans and parses a whole head.
    pub(crate) fn parse(text: &str) -> Result<RequestHead, RequestError> {
        parse_bytes(text.as_bytes())
    }

    pub(crate) fn parse_bytes(bytes: &[u8]) -> Result<RequestHead, RequestError> {
        let end = Scanner::new()
            .advance(bytes, &LIMITS, true)?
            .ok_or(RequestError::Malformed)?;
        RequestHead::parse(Chunk::copy_from_slice(&bytes[..end]), &LIMITS)
    }

    #[test]
    fn a_request_is_read() {
        let head =
            parse("POST /a/b?x=1&y HTTP/1.1\r\nHost: example.com:8080\r\nContent-Length: 5\r\n\r\n").unwrap();
        assert_eq!(head.method(), b"POST");
        assert_eq!(head.verb(), Some(Verb::Post));
        assert_eq!(head.path(), b"/a/b");
        assert_eq!(head.query(), Some(&b"x=1&y"[..]));
        assert_eq!(head.authority(), b"example.com:8080");
        assert_eq!(head.host(), b"example.com");
        assert_eq!(head.framing(), Framing::Length(5));
        assert!(head.keep_alive() && !head.expects_continue());
    }

    #[test]
    fn the_absolute_form_wins_over_host() {
        let head = parse("GET http://a.test?q HTTP/1.1\r\nHost: b\r\n\r\n").unwrap();
        assert_eq!(
            (head.authority(), head.path(), head.query()),
            (&b"a.test"[..], &b"/"[..], Some(&b"q"[..]))
        );
        let head = parse("GET HTTPS://[::1]:443/x HTTP/1.1\r\nHost: b\r\n\r\n").unwrap();
        assert_eq!((head.host(), head.path()), (&b"[::1]"[..], &b"/x"[..]));
        for bad in [
            "a",
            "ftp://a/",
            "http:/a",
            "http://",
            "http:///x",
            "http://u@h/",
            "/a#b",
            "http://a#b",
            "**",
        ] {
            let head = parse(&format!("GET {bad} HTTP/1.1\r\nHost: b\r\n\r\n"));
            assert_eq!(head.unwrap_err(), RequestError::Target, "{bad}");
        }
        assert_eq!(
            parse("OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n").unwrap().path(),
            b"*"
        );
        assert_eq!(
            parse("CONNECT a:1 HTTP/1.1\r\nHost: b\r\n\r\n").unwrap_err(),
            RequestError::Connect
        );
    }

    #[test]
    fn host_is_one_and_valid() {
        for good in ["a", "a.b:80", "127.0.0.1:1", "[::1]", "[2001:db8::1]:8443", "a_b"] {
            assert!(
                parse(&format!("GET / HTTP/1.1\r\nHost: {good}\r\n\r\n")).is_ok(),
                "{good}"
            );
        }
        for bad in [
            "", "a b", "a,b", "a/b", "u@h", "a:b", "a:123456", ":80", "[::1", "[]", "é", "a:1:2",
        ] {
            let head = parse(&format!("GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n"));
            assert_eq!(head.unwrap_err(), RequestError::Host, "{bad}");
        }
        assert_eq!(parse("GET / HTTP/1.1\r\n\r\n").unwrap_err(), RequestError::Host);
        assert_eq!(
            parse("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n").unwrap_err(),
            RequestError::Host
        );
        assert_eq!(parse("GET / HTTP/1.0\r\n\r\n").unwrap().authority(), b"");
    }

    /// OBV-264
    #[test]
    fn connections_stay_open_as_the_version_and_the_client_say() {
        let keeps = |version, connection: &str| {
            parse(&format!("GET / HTTP/1.{version}\r\nHost: a\r\n{connection}\r\n"))
                .unwrap()
                .keep_alive()
        };
        assert!(keeps(1, "") && keeps(0, "Connection: Keep-Alive\r\n") && keeps(1, "Connection: x, y\r\n"));
        assert!(!keeps(0, "") && !keeps(1, "Connection: foo , Close\r\n"));
        assert!(!keeps(0, "Connection: keep-alive\r\nConnection: close\r\n"));
    }

    #[test]
    fn the_only_expectation_is_100_continue() {
        let with = |version, value| {
            parse(&format!(
                "PUT / HTTP/1.{version}\r\nHost: a\r\nExpect: {value}\r\n\r\n"
            ))
        };
        assert!(with(1, "100-Continue").unwrap().expects_continue());
        assert!(!with(0, "100-continue").unwrap().expects_continue());
        assert_eq!(with(1, "200-ok").unwrap_err().status(), 417);
    }

    /// QUO-068
    #[test]
    fn values_and_fields_are_counted() {
        let fields = |count, value: &str| {
            let lines: String = (0..count).map(|at| format!("X-{at}: {value}\r\n")).collect();
            parse(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).map(|head| head.fields().len())
        };
        assert_eq!(fields(127, "v"), Ok(128));
        assert_eq!(fields(128, "v").unwrap_err().status(), 431);
        assert!(fields(10, &"v".repeat(1000)).is_ok());
        assert_eq!(fields(11, &"v".repeat(1000)).unwrap_err().status(), 431);
    }
}
