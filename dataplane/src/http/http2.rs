//! An HTTP/2 request's head, brought into the form that HTTP/1.1's has (decision D2): one buffer of lines with a table
//! over it. What was malformed as HTTP/2 is refused here or was by h2; what passes is held to the bounds of HTTP/1.1.

use http::header::{COOKIE, HOST};
use http::request::Parts;
use smallvec::SmallVec;
use tidegate_plan::Verb;
use tidegate_plan::header::is_token_byte;
use tidegate_rt::{Buffer, Chunk};

use super::Version;
use super::body::Framing;
use super::error::{RequestError, ResponseError};
use super::fields::{Fields, Line};
use super::known::Known;
use super::request::{RequestHead, Span, content_length, expectation, host_length};
use super::response::{self, ResponseHead};
use super::scan::HeadLimits;

impl RequestHead {
    /// Reads the head of an HTTP/2 request (RFC 9113 section 8.3.1). `ends_stream`: no body follows it.
    ///
    /// `:authority` becomes `Host`, the first field, and the parts of a divided `cookie` become one again (section
    /// 8.2.3).
    ///
    /// # Errors
    /// Where it is malformed or over a bound of `limits`, which count as for HTTP/1.1.
    pub fn from_http2(parts: &Parts, ends_stream: bool, limits: &HeadLimits) -> Result<Self, RequestError> {
        let method = parts.method.as_str();
        if method == "CONNECT" {
            return Err(RequestError::Connect);
        }
        let target = parts.uri.path_and_query().ok_or(RequestError::Target)?.as_str();
        // `*` asks the server as a whole for its options, and no other method can.
        if !target.starts_with('/') && (target, method) != ("*", "OPTIONS") {
            return Err(RequestError::Target);
        }
        // As HTTP/1.1 would write it: two blanks and the version.
        if method.len() + target.len() + " HTTP/1.1 ".len() > limits.line {
            return Err(RequestError::LineTooLong);
        }
        let (authority, host_length) = authority(parts)?;

        let mut text = Text::new(limits);
        let method_at = text.push(method.as_bytes());
        text.push(b" ");
        let target_at = text.push(target.as_bytes());
        text.push(b" HTTP/1.1\r\n");
        let authority = text.field(b"Host", authority.as_bytes())?;
        let mut cookies = parts.headers.get_all(COOKIE).iter();
        for (name, value) in &parts.headers {
            match name {
                name if *name == HOST => {}
                name if *name == COOKIE => text.cookie(&mut cookies)?,
                name => {
                    text.field(name.as_str().as_bytes(), value.as_bytes())?;
                }
            }
        }
        let (bytes, fields) = text.finish();

        let connection = [
            Known::Connection,
            Known::KeepAlive,
            Known::ProxyConnection,
            Known::TransferEncoding,
            Known::Upgrade,
        ];
        let te = fields.all(Known::Te).all(|value| value == b"trailers");
        if connection.iter().any(|known| fields.get(*known).is_some()) || !te {
            return Err(RequestError::ConnectionField);
        }
        let length = content_length(&fields)?;
        let framing = match (ends_stream, length) {
            (true, None | Some(0)) => Framing::Empty,
            (true, Some(_)) => return Err(RequestError::ContentLength),
            // Nothing may come, and nothing has come yet: only the stream's end tells (section 8.1.1).
            (false, None | Some(0)) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
        };
        let query = memchr::memchr(b'?', target.as_bytes());
        let path_end = query.map_or(target_at.1, |at| target_at.0 + at as u32);
        Ok(RequestHead {
            verb: Verb::from_token(method.as_bytes()),
            method: method_at,
            path: Span(target_at.0, path_end),
            query: query.map(|_| Span(path_end + 1, target_at.1)),
            authority,
            host_length: host_length as u32,
            version: Version::Http2,
            framing,
            keep_alive: true,
            expects_continue: expectation(&fields, Version::Http2)?,
            bytes,
            fields,
        })
    }
}

impl ResponseHead {
    /// Reads the head of an HTTP/2 response. `ends_stream`: no body follows it; `to_head` as for HTTP/1.1.
    ///
    /// # Errors
    /// Where it is malformed or over a bound of `limits`, which count as for HTTP/1.1.
    pub fn from_http2(
        parts: &http::response::Parts,
        ends_stream: bool,
        to_head: bool,
        limits: &HeadLimits,
    ) -> Result<Self, ResponseError> {
        let mut text = Text::new(limits);
        for (name, value) in &parts.headers {
            text.field(name.as_str().as_bytes(), value.as_bytes())
                .map_err(|error| match error {
                    RequestError::HeadTooLarge => ResponseError::HeadTooLarge,
                    _ => ResponseError::Malformed,
                })?;
        }
        let (_, fields) = text.finish();
        let status = parts.status.as_u16();
        let length = response::content_length(&fields)?;
        let framing = match length {
            _ if to_head || ends_stream || matches!(status, 204 | 304) => Framing::Empty,
            Some(length) => Framing::length(length),
            None => Framing::Chunked,
        };
        Ok(ResponseHead::new(status, Version::Http2, framing, fields))
    }
}

/// The one authority: of `:authority`, of `host`, or of both where they agree (decision D12, RFC 9113 section 8.3.1);
/// and the length of its host.
fn authority(parts: &Parts) -> Result<(&str, usize), RequestError> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => Some(host.to_str().map_err(|_| RequestError::Host)?),
        (Some(_), Some(_)) => return Err(RequestError::Host),
    };
    let authority = match (parts.uri.authority().map(|authority| authority.as_str()), host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(RequestError::Host);
        }
        (Some(authority), _) => authority,
        (None, Some(host)) => host,
        (None, None) => return Err(RequestError::Host),
    };
    let length = host_length(authority.as_bytes()).ok_or(RequestError::Host)?;
    Ok((authority, length))
}

/// A head that is being written down.
struct Text<'l> {
    out: Buffer,
    lines: SmallVec<[Line; 20]>,
    limits: &'l HeadLimits,
    /// Bytes of values so far.
    values: usize,
}

impl<'l> Text<'l> {
    fn new(limits: &'l HeadLimits) -> Self {
        Text {
            out: Buffer::with_capacity(1024),
            lines: SmallVec::new(),
            limits,
            values: 0,
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.out.len() as u32;
        self.out.extend_from_slice(bytes);
        Span(start, self.out.len() as u32)
    }

    /// Writes one field; where its value stands.
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<Span, RequestError> {
        self.pieces(name, [value])
    }

    /// Writes all that is left of `cookies` as one field; nothing where that is nothing.
    fn cookie<'v>(
        &mut self,
        cookies: &mut impl Iterator<Item = &'v http::HeaderValue>,
    ) -> Result<(), RequestError> {
        let mut pieces: SmallVec<[&[u8]; 8]> = SmallVec::new();
        for cookie in cookies {
            if pieces.len() / 2 >= self.limits.fields {
                return Err(RequestError::HeadTooLarge);
            }
            if !pieces.is_empty() {
                pieces.push(b"; ");
            }
            pieces.push(cookie.as_bytes());
        }
        if !pieces.is_empty() {
            self.pieces(b"cookie", pieces)?;
        }
        Ok(())
    }

    fn pieces<'v>(
        &mut self,
        name: &[u8],
        pieces: impl IntoIterator<Item = &'v [u8]>,
    ) -> Result<Span, RequestError> {
        // The `http` crate takes a quote for a byte of names, which no token has (RFC 9110 section 5.6.2).
        if !name.iter().all(|byte| is_token_byte(*byte)) {
            return Err(RequestError::Malformed);
        }
        let name_at = self.push(name);
        self.push(b": ");
        let start = self.out.len();
        for piece in pieces {
            self.values += piece.len();
            if self.values > self.limits.values || self.out.len() + piece.len() > self.limits.head {
                return Err(RequestError::HeadTooLarge);
            }
            self.push(piece);
        }
        let value = &self.out[start..];
        // RFC 9113 section 8.2.1: no blanks at either end; h2 refuses control bytes.
        if value.trim_ascii().len() != value.len() {
            return Err(RequestError::Malformed);
        }
        let value_at = Span(start as u32, self.out.len() as u32);
        self.push(b"\r\n");
        if self.lines.len() == self.limits.fields || self.out.len() + 2 > self.limits.head {
            return Err(RequestError::HeadTooLarge);
        }
        self.lines.push(Line {
            name: name_at.range(),
            value: value_at.range(),
        });
        Ok(value_at)
    }

    fn finish(self) -> (Chunk, Fields) {
        let bytes = self.out.freeze();
        let fields = Fields::from_lines(bytes.clone(), &self.lines);
        (bytes, fields)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::super::request::tests::{LIMITS, parse};
    use super::super::write::HeadWriter;
    use super::*;

    fn read(uri: &str, fields: &[(&str, &str)], ends_stream: bool) -> Result<RequestHead, RequestError> {
        let mut request = Request::builder().method("POST").uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        RequestHead::from_http2(&request.body(()).unwrap().into_parts().0, ends_stream, &LIMITS)
    }

    fn written(head: &RequestHead) -> String {
        let mut out = Buffer::with_capacity(256);
        let query = head.query().map_or([&b""[..], b""], |query| [b"?", query]);
        let mut writer = HeadWriter::request(&mut out, head.method(), [head.path(), query[0], query[1]]);
        writer.kept(head.fields(), |_| true);
        writer.end();
        String::from_utf8(out.to_vec()).unwrap()
    }

    /// RFC 9113 sections 8.3.1 and 8.2.3: the head passes on as HTTP/1.1.
    #[test]
    fn a_head_is_the_same_as_http1_s() {
        let head = read(
            "https://a.test:8443/x%20y?q=1&r",
            &[
                ("x-a", "1"),
                ("cookie", "a=b"),
                ("x-a", "2"),
                ("cookie", "c=d"),
                ("empty", ""),
            ],
            true,
        )
        .unwrap();
        assert_eq!((head.method(), head.verb()), (&b"POST"[..], Some(Verb::Post)));
        assert_eq!((head.path(), head.query()), (&b"/x%20y"[..], Some(&b"q=1&r"[..])));
        assert_eq!(
            (head.authority(), head.host()),
            (&b"a.test:8443"[..], &b"a.test"[..])
        );
        assert_eq!(head.framing(), Framing::Empty);
        assert!(head.keep_alive() && !head.expects_continue());
        let text = written(&head);
        assert_eq!(
            text,
            "POST /x%20y?q=1&r HTTP/1.1\r\nHost: a.test:8443\r\nx-a: 1\r\nx-a: 2\r\ncookie: a=b; c=d\r\nempty: \r\n\r\n"
        );
        let again = parse(&text).unwrap();
        assert_eq!(
            (again.path(), again.query(), again.host()),
            (head.path(), head.query(), head.host())
        );
        assert_eq!(again.fields().len(), head.fields().len());
        assert_eq!(head.fields().get(Known::Host), Some(&b"a.test:8443"[..]));
        assert_eq!(read("http://a/", &[], true).unwrap().path(), b"/");
    }

    /// RFC 9113 section 8.3.1, decision D12.
    #[test]
    fn there_is_exactly_one_authority() {
        let host = |uri: &str, hosts: &[&str]| {
            let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            read(uri, &fields, true).map(|head| String::from_utf8(head.host().to_vec()).unwrap())
        };
        assert_eq!(host("http://a.test/", &[]).as_deref(), Ok("a.test"));
        assert_eq!(host("/", &["b.test:80"]).as_deref(), Ok("b.test"));
        assert_eq!(host("http://A.test/", &["a.TEST"]).as_deref(), Ok("A.test"));
        for (uri, hosts) in [
            ("/", &[][..]),
            ("http://a.test/", &["b.test"]),
            ("http://a.test/", &["a.test:80"]),
            ("http://a.test/", &["a.test", "a.test"]),
            ("/", &["a.test", "a.test"]),
            ("/", &["u@a.test"]),
            ("/", &[""]),
            ("http://u@a.test/", &[]),
        ] {
            assert_eq!(host(uri, hosts), Err(RequestError::Host), "{uri} {hosts:?}");
        }
    }

    /// RFC 9113 sections 8.2.1 and 8.2.2.
    #[test]
    fn what_has_no_place_in_a_head_is_refused() {
        for (name, value, error) in [
            ("connection", "close", RequestError::ConnectionField),
            ("keep-alive", "5", RequestError::ConnectionField),
            ("proxy-connection", "close", RequestError::ConnectionField),
            ("transfer-encoding", "chunked", RequestError::ConnectionField),
            ("upgrade", "x", RequestError::ConnectionField),
            ("te", "gzip", RequestError::ConnectionField),
            ("x-a", " a", RequestError::Malformed),
            ("x-a", "a\t", RequestError::Malformed),
            ("expect", "200-ok", RequestError::Expectation),
            ("content-length", "5", RequestError::ContentLength),
            ("content-length", "-5", RequestError::ContentLength),
        ] {
            let head = read("http://a/", &[(name, value)], true);
            assert_eq!(head.map(|_| ()), Err(error), "{name}: {value}");
        }
        assert!(read("http://a/", &[("te", "trailers")], true).is_ok());
        // As h2 reads names, and not as they are made otherwise.
        let quoted = http::HeaderName::from_lowercase(b"x\"a").unwrap();
        let request = Request::builder().uri("http://a/").header(quoted, "a");
        let parts = request.body(()).unwrap().into_parts().0;
        let head = RequestHead::from_http2(&parts, true, &LIMITS);
        assert_eq!(head.map(|_| ()), Err(RequestError::Malformed));
        let twice = [("content-length", "5"), ("content-length", "5")];
        assert_eq!(
            read("http://a/", &twice, false).map(|_| ()),
            Err(RequestError::ContentLength)
        );
    }

    #[test]
    fn a_body_is_as_long_as_the_head_says_or_the_stream() {
        let framing = |fields: &[(&str, &str)], ends| read("http://a/", fields, ends).unwrap().framing();
        assert_eq!(framing(&[], false), Framing::Chunked);
        assert_eq!(framing(&[("content-length", "5")], false), Framing::Length(5));
        assert_eq!(framing(&[("content-length", "0")], false), Framing::Chunked);
        assert_eq!(framing(&[("content-length", "0")], true), Framing::Empty);
    }

    /// QUO-050, QUO-068: the bounds of HTTP/1.1 hold.
    #[test]
    fn the_bounds_are_those_of_http1() {
        let status = |uri: &str, fields: &[(&str, &str)]| {
            read(uri, fields, true)
                .map_err(|error| error.status())
                .map(|_| 200)
        };
        let path = |length: usize| format!("http://a/{}", "p".repeat(length - 1));
        let room = LIMITS.line - "POST  HTTP/1.1".len();
        assert_eq!(status(&path(room), &[]), Ok(200));
        assert_eq!(status(&path(room + 1), &[]), Err(414));
        let value = "v".repeat(1000);
        assert_eq!(status("http://a/", &[("x", value.as_str()); 10]), Ok(200));
        assert_eq!(status("http://a/", &[("x", value.as_str()); 11]), Err(431));
        assert_eq!(status("http://a/", &[("x", ""); 127]), Ok(200));
        assert_eq!(status("http://a/", &[("x", ""); 128]), Err(431));
        let cookies = [("cookie", "a"); 2000];
        assert_eq!(status("http://a/", &cookies), Err(431));
    }
}
