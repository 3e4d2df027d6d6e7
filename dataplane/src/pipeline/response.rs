//! Writing response heads.

use tidegate_rt::Buffer;

use super::ids::{ExtendedId, RequestId};
use crate::shard::clock::HttpDate;

/// Room that the head of one of our own responses takes, headers of overrides aside.
pub const HEAD_ROOM: usize = 512;

/// A response's head on its way into a buffer.
#[derive(Debug)]
pub struct HeadWriter<'b> {
    out: &'b mut Buffer,
}

impl<'b> HeadWriter<'b> {
    /// Begins a head with its status line.
    pub fn begin(out: &'b mut Buffer, status: u16) -> Self {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(&status_digits(status));
        out.put_u8(b' ');
        out.extend_from_slice(reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        Self { out }
    }

    /// One header.
    pub fn header(&mut self, name: &[u8], value: &[u8]) -> &mut Self {
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// The headers that every response of ours carries (GWR-017, GWR-018, OBV-264).
    pub fn own(
        &mut self,
        date: &HttpDate,
        keep_alive: bool,
        id: &RequestId,
        extended: &ExtendedId,
    ) -> &mut Self {
        self.out.extend_from_slice(b"Date: ");
        self.out.extend_from_slice(date);
        self.out.extend_from_slice(match keep_alive {
            true => b"\r\nConnection: keep-alive\r\nx-amzn-RequestId: ",
            false => b"\r\nConnection: close\r\nx-amzn-RequestId: ",
        });
        self.out.extend_from_slice(id);
        self.out.extend_from_slice(b"\r\nx-amz-apigw-id: ");
        self.out.extend_from_slice(extended);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// `Content-Length`.
    pub fn length(&mut self, length: u64) -> &mut Self {
        self.out.extend_from_slice(b"Content-Length: ");
        decimal(self.out, length);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// `Transfer-Encoding: chunked`.
    pub fn chunked(&mut self) -> &mut Self {
        self.out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        self
    }

    /// Ends the head.
    pub fn end(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Appends a number in decimal digits.
pub fn decimal(out: &mut Buffer, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn status_digits(status: u16) -> [u8; 3] {
    let digit = |value: u16| b'0' + (value % 10) as u8;
    [digit(status / 100), digit(status / 10), digit(status)]
}

/// The reason phrase of a status (RFC 9110 section 15); empty where there is none.
pub fn reason(status: u16) -> &'static str {
    match status {
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
        425 => "Too Early",
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
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GWR-017, GWR-018.
    #[test]
    fn a_head_is_written_in_order() {
        let mut out = Buffer::with_capacity(HEAD_ROOM);
        let mut head = HeadWriter::begin(&mut out, 404);
        head.own(b"Sun, 06 Nov 1994 08:49:37 GMT", false, &[b'a'; 36], &[b'b'; 16])
            .length(0);
        head.end();
        let text = std::str::from_utf8(&out).unwrap();
        assert!(text.starts_with(
            "HTTP/1.1 404 Not Found\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n"
        ));
        assert!(text.ends_with("x-amz-apigw-id: bbbbbbbbbbbbbbbb\r\nContent-Length: 0\r\n\r\n"));
    }

    #[test]
    fn numbers_are_decimal() {
        let mut out = Buffer::with_capacity(64);
        for value in [0, 7, 10, 10_485_760, u64::MAX] {
            decimal(&mut out, value);
            out.put_u8(b' ');
        }
        assert_eq!(&out[..], b"0 7 10 10485760 18446744073709551615 ");
    }
}
