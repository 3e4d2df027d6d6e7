//! Requests that two readers could take differently, each with its one answer (RFC 9112 section 11.2).

use super::body::Framing;
use super::error::RequestError::{self, *};
use super::request::tests::{parse, parse_bytes};

/// Fields of a POST and what becomes of it.
const FRAMING: &[(&str, Result<Framing, RequestError>)] = &[
    ("", Ok(Framing::Empty)),
    ("Content-Length: 0", Ok(Framing::Empty)),
    ("Content-Length: 5", Ok(Framing::Length(5))),
    ("content-length:5", Ok(Framing::Length(5))),
    ("Content-Length: \t 5 \t", Ok(Framing::Length(5))),
    ("Content-Length: 007", Ok(Framing::Length(7))),
    (
        "Content-Length: 9223372036854775807",
        Ok(Framing::Length(i64::MAX as u64)),
    ),
    ("Transfer-Encoding: chunked", Ok(Framing::Chunked)),
    ("TRANSFER-ENCODING: CHUNKED", Ok(Framing::Chunked)),
    ("Transfer-Encoding:chunked", Ok(Framing::Chunked)),
    ("Transfer-Encoding: , chunked ,", Ok(Framing::Chunked)),
    // Both, in either order.
    (
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        Err(LengthAndCoding),
    ),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        Err(LengthAndCoding),
    ),
    (
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        Err(LengthAndCoding),
    ),
    (
        "Content-Length: 5\r\nTransfer-Encoding: identity",
        Err(LengthAndCoding),
    ),
    ("Content-Length: 5\r\nTransfer-Encoding:", Err(LengthAndCoding)),
    // Lengths.
    ("Content-Length: 5\r\nContent-Length: 5", Err(ContentLength)),
    ("Content-Length: 5\r\ncontent-length: 6", Err(ContentLength)),
    ("Content-Length: 5, 5", Err(ContentLength)),
    ("Content-Length: 5,", Err(ContentLength)),
    ("Content-Length: +5", Err(ContentLength)),
    ("Content-Length: -5", Err(ContentLength)),
    ("Content-Length: -0", Err(ContentLength)),
    ("Content-Length:", Err(ContentLength)),
    ("Content-Length: 5 5", Err(ContentLength)),
    ("Content-Length: 0x5", Err(ContentLength)),
    ("Content-Length: 5a", Err(ContentLength)),
    ("Content-Length: 5.0", Err(ContentLength)),
    ("Content-Length: 1e3", Err(ContentLength)),
    ("Content-Length: \"5\"", Err(ContentLength)),
    ("Content-Length: ٥", Err(ContentLength)),
    ("Content-Length: 9223372036854775808", Err(ContentLength)),
    ("Content-Length: 18446744073709551616", Err(ContentLength)),
    ("Content-Length: 99999999999999999999999999", Err(ContentLength)),
    // Codings.
    ("Transfer-Encoding: identity", Err(TransferEncoding)),
    ("Transfer-Encoding:", Err(TransferEncoding)),
    ("Transfer-Encoding: chunked, chunked", Err(TransferEncoding)),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        Err(TransferEncoding),
    ),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        Err(TransferEncoding),
    ),
    ("Transfer-Encoding: chunked, gzip", Err(TransferEncoding)),
    ("Transfer-Encoding: xchunked", Err(TransferEncoding)),
    ("Transfer-Encoding: chunkedx", Err(TransferEncoding)),
    ("Transfer-Encoding: \"chunked\"", Err(TransferEncoding)),
    ("Transfer-Encoding: chunked;q=1", Err(TransferEncoding)),
    ("Transfer-Encoding: chunked foo", Err(TransferEncoding)),
    ("Transfer-Encoding: gzip, chunked", Err(CodingUnknown)),
    (
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        Err(CodingUnknown),
    ),
    // Fields that hide from one reader.
    ("Transfer-Encoding : chunked", Err(Malformed)),
    ("Content-Length : 5", Err(Malformed)),
    (" Transfer-Encoding: chunked", Err(Malformed)),
    ("X: y\r\n Transfer-Encoding: chunked", Err(Malformed)),
    ("X: y\r\n\tz", Err(Malformed)),
    ("Transfer-Encoding\r\n: chunked", Err(Malformed)),
    ("Transfer-Encoding: chun\r\n ked", Err(Malformed)),
    ("Transfer-Encoding: \u{b}chunked", Err(Malformed)),
    ("Transfer-Encoding: chunked\u{c}", Err(Malformed)),
    ("Transfer-Encoding\0: chunked", Err(Malformed)),
    ("X: a\0b", Err(Malformed)),
    ("X: a\rTransfer-Encoding: chunked", Err(Malformed)),
    ("X: a\r\rTransfer-Encoding: chunked", Err(Malformed)),
    ("X: a\nTransfer-Encoding: chunked", Err(BareLf)),
    ("X: a\n", Err(BareLf)),
    ("X", Err(Malformed)),
    (": y", Err(Malformed)),
    ("X Y: z", Err(Malformed)),
    ("X\u{7f}: z", Err(Malformed)),
    ("X: \u{7f}", Err(Malformed)),
    ("é: z", Err(Malformed)),
    ("(x): z", Err(Malformed)),
    // Not the framing fields, whatever they look like.
    ("Content_Length: 5", Ok(Framing::Empty)),
    ("Transfer_Encoding: chunked", Ok(Framing::Empty)),
    ("X-Transfer-Encoding: chunked", Ok(Framing::Empty)),
];

#[test]
fn every_framing_has_one_reading() {
    for (fields, expected) in FRAMING {
        let line_end = if fields.is_empty() { "" } else { "\r\n" };
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}{line_end}\r\n");
        assert_eq!(parse(&text).map(|head| head.framing()), *expected, "{fields:?}");
    }
}

/// Whole heads that are refused, with the status that answers them.
const HEADS: &[(&[u8], u16)] = &[
    (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /\r\n\r\n", 400),
    (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTQ/1.1\r\nHost: a\r\n\r\n", 400),
    (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"\r\n\r\n\x16\x03\x01\r\n\r\n", 400),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\n", 505),
    (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    (
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
];

#[test]
fn every_malformed_head_has_one_answer() {
    for (head, status) in HEADS {
        let text = String::from_utf8_lossy(head);
        let error = parse_bytes(head).map(|head| head.framing()).expect_err(&text);
        assert_eq!(error.status(), *status, "{text:?}: {error}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(10_240));
    assert_eq!(parse(&long).unwrap_err().status(), 414);
}
