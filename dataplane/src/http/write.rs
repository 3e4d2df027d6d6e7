//! Heads on their way out: straight into one buffer, or into the fields of an HTTP/2 message.

use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_rt::Buffer;

use super::fields::{FieldRef, Fields, write_field};
use super::known::Known;

/// Writes one head. Names and values come from checked types or from received heads.
#[derive(Debug)]
pub struct HeadWriter<'b> {
    out: Out<'b>,
}

/// What the compression of an HTTP/2 message (RFC 7541) is to do with values that no other message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Put them into its table, for the sake of their names.
    Introduce,
    /// Keep them out of its table, where they would only push out what comes again.
    Spare,
}

#[derive(Debug)]
enum Out<'b> {
    /// HTTP/1.
    Text(&'b mut Buffer),
    /// HTTP/2, which has no fields that speak of one connection.
    Fields(&'b mut HeaderMap, Compression),
}

impl<'b> HeadWriter<'b> {
    /// Begins a request. `path_and_query` come in pieces and are not checked here: they are canonical.
    pub fn request<'p>(
        out: &'b mut Buffer,
        method: &[u8],
        path_and_query: impl IntoIterator<Item = &'p [u8]>,
    ) -> Self {
        out.extend_from_slices([method, b" "]);
        for piece in path_and_query {
            out.extend_from_slice(piece);
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        HeadWriter { out: Out::Text(out) }
    }

    /// Goes on with a head whose first line is written.
    pub fn resume(out: &'b mut Buffer) -> Self {
        HeadWriter { out: Out::Text(out) }
    }

    /// Writes the fields of an HTTP/2 message.
    pub fn fields(out: &'b mut HeaderMap, compression: Compression) -> Self {
        HeadWriter {
            out: Out::Fields(out, compression),
        }
    }

    /// Begins a response with its status line.
    pub fn response(out: &'b mut Buffer, status: u16) -> Self {
        debug_assert!((100..1000).contains(&status));
        if status == 200 {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            let mut digits = [0; 20];
            let digits = decimal(status.into(), &mut digits);
            out.extend_from_slices([b"HTTP/1.1 ", digits, b" ", reason(status).as_bytes(), b"\r\n"]);
        }
        HeadWriter { out: Out::Text(out) }
    }

    /// The head as text, to be written to; `None` for an HTTP/2 message.
    pub fn as_text(&mut self) -> Option<&mut Buffer> {
        match &mut self.out {
            Out::Text(out) => Some(out),
            Out::Fields(..) => None,
        }
    }

    /// One field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> &mut Self {
        debug_assert!(tidegate_plan::header::is_value(value));
        match &mut self.out {
            Out::Text(out) => write_field(out, name, value),
            Out::Fields(out, _) => put(out, Known::from_name(name), name, value),
        }
        self
    }

    /// One field of a known name.
    pub fn known(&mut self, name: Known, value: &[u8]) -> &mut Self {
        debug_assert!(tidegate_plan::header::is_value(value));
        match &mut self.out {
            Out::Text(out) => write_field(out, name.name().as_bytes(), value),
            Out::Fields(out, _) => put(out, Some(name), b"", value),
        }
        self
    }

    /// One field of a known name whose value no other message has (see [`Compression`]).
    pub fn unique(&mut self, name: Known, value: &[u8]) -> &mut Self {
        match &mut self.out {
            Out::Text(out) => write_field(out, name.name().as_bytes(), value),
            Out::Fields(out, compression) => {
                if let Ok(mut value) = HeaderValue::from_bytes(value) {
                    value.set_sensitive(*compression == Compression::Spare);
                    out.append(name.header_name(), value);
                }
            }
        }
        self
    }

    /// One field whose value comes in pieces.
    pub fn joined<'v>(&mut self, name: &[u8], pieces: impl IntoIterator<Item = &'v [u8]>) -> &mut Self {
        let out = match &mut self.out {
            Out::Text(out) => out,
            Out::Fields(out, _) => {
                let value = pieces.into_iter().fold(Vec::new(), |mut value, piece| {
                    value.extend_from_slice(piece);
                    value
                });
                put(out, Known::from_name(name), name, &value);
                return self;
            }
        };
        out.extend_from_slices([name, b": "]);
        for piece in pieces {
            debug_assert!(tidegate_plan::header::is_value(piece));
            out.extend_from_slice(piece);
        }
        out.extend_from_slice(b"\r\n");
        self
    }

    /// One field under a name with something before it: `x-amzn-Remapped-` and `Date`.
    pub fn prefixed(&mut self, prefix: &[u8], name: &[u8], value: &[u8]) -> &mut Self {
        match &mut self.out {
            Out::Text(out) => {
                out.extend_from_slice(prefix);
                self.field(name, value)
            }
            Out::Fields(..) => self.field(&[prefix, name].concat(), value),
        }
    }

    /// One field with a number.
    pub fn number(&mut self, name: Known, value: u64) -> &mut Self {
        let mut digits = [0; 20];
        self.known(name, decimal(value, &mut digits))
    }

    /// The fields of another head for which `keep` answers yes, as they came.
    pub fn kept(&mut self, fields: &Fields, mut keep: impl FnMut(FieldRef<'_>) -> bool) -> &mut Self {
        match &mut self.out {
            Out::Text(out) => fields.write_kept(out, keep),
            Out::Fields(out, _) => {
                for field in fields.iter() {
                    if keep(field) {
                        put(out, field.known, field.name, field.value);
                    }
                }
            }
        }
        self
    }

    /// Ends the head with its blank line.
    pub fn end(self) {
        if let Out::Text(out) = self.out {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Adds a field to an HTTP/2 message, under the name of `known` or else under `name`. Not one that speaks of one HTTP/1
/// connection only: such a field makes the message malformed (RFC 9113 section 8.2.2).
fn put(out: &mut HeaderMap, known: Option<Known>, name: &[u8], value: &[u8]) {
    if matches!(
        known,
        Some(
            Known::Connection
                | Known::Http2Settings
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te
                | Known::TransferEncoding
                | Known::Upgrade
        )
    ) {
        return;
    }
    let name = match known {
        Some(known) => Ok(known.header_name()),
        None => HeaderName::from_bytes(name),
    };
    // Heads that were received and settings that were checked hold nothing that these refuse.
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
        out.append(name, value);
    }
}

/// A number's digits.
pub(crate) fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[at..];
        }
    }
}

/// The usual reason phrase of a status (RFC 9110 section 15); empty for a status without one.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::request::tests::{parse, parse_bytes};
    use super::*;

    #[test]
    fn a_request_goes_out_with_what_was_kept() {
        let head = parse("GET /a HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nX: y\r\n\r\n").unwrap();
        let mut out = Buffer::with_capacity(256);
        let mut writer = HeadWriter::request(&mut out, b"PUT", [&b"/b"[..], b"?c"]);
        writer
            .field(b"Host", b"backend")
            .kept(head.fields(), |field| field.name != b"Host");
        writer
            .number(Known::ContentLength, 1_234_567)
            .prefixed(b"x-amzn-Remapped-", b"Date", b"d");
        writer.end();
        let expected = "PUT /b?c HTTP/1.1\r\nHost: backend\r\nAccept: */*\r\nX: y\r\n\
                        Content-Length: 1234567\r\nx-amzn-Remapped-Date: d\r\n\r\n";
        assert_eq!(std::str::from_utf8(&out), Ok(expected));
    }

    #[test]
    fn a_status_without_a_phrase_is_written_all_the_same() {
        let mut out = Buffer::with_capacity(64);
        HeadWriter::response(&mut out, 499).end();
        assert_eq!(&*out, b"HTTP/1.1 499 \r\n\r\n");
    }

    /// RFC 9113 sections 8.2 and 8.2.2: names in lower case, nothing of the connection.
    #[test]
    fn an_http2_message_has_lower_case_names_and_no_connection() {
        let head = parse("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\nKeep-Alive: 5\r\n\r\n").unwrap();
        let mut fields = HeaderMap::new();
        let mut writer = HeadWriter::fields(&mut fields, Compression::Spare);
        writer
            .field(b"Connection", b"close")
            .field(b"Transfer-Encoding", b"chunked")
            .number(Known::ContentLength, 7)
            .prefixed(b"x-amzn-Remapped-", b"Date", b"d")
            .joined(b"X-J", [b"j".as_slice(), b"k"])
            .known(Known::TransferEncoding, b"chunked")
            .known(Known::ContentType, b"text/plain")
            .unique(Known::XAmznRequestId, b"id")
            .kept(head.fields(), |_| true);
        writer.end();
        let written: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        let expected: [(&str, &[u8]); 8] = [
            ("content-length", b"7"),
            ("x-amzn-remapped-date", b"d"),
            ("x-j", b"jk"),
            ("content-type", b"text/plain"),
            ("x-amzn-requestid", b"id"),
            ("host", b"a"),
            ("x-a", b"1"),
            ("x-a", b"2"),
        ];
        assert_eq!(written, expected);
        let kept_out = |name| fields.get(name).is_some_and(HeaderValue::is_sensitive);
        assert!(kept_out("x-amzn-requestid") && !kept_out("content-type"));
    }

    proptest! {
        /// A head that is read and written again is read as the same fields.
        #[test]
        fn fields_round_trip(
            fields in prop::collection::vec(("[A-Za-z][A-Za-z0-9-]{0,12}", "[!-~]([ -~]{0,20}[!-~])?"), 0..12),
        ) {
            let lines: String = fields.iter().map(|(name, value)| format!("X{name}: {value}\r\n")).collect();
            let first = parse(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).unwrap();
            let mut out = Buffer::with_capacity(64);
            let mut writer = HeadWriter::request(&mut out, b"GET", [&b"/"[..]]);
            writer.kept(first.fields(), |_| true);
            writer.end();
            let second = parse_bytes(&out).unwrap();
            let pairs = |head: &super::super::RequestHead| -> Vec<(Vec<u8>, Vec<u8>)> {
                head.fields().iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect()
            };
            prop_assert_eq!(pairs(&first), pairs(&second));
            prop_assert_eq!(pairs(&first).len(), fields.len() + 1);
        }
    }
}
