//! The one form of a request that client and service sign.

use std::borrow::Cow;
use std::fmt::Write;

use aws_lc_rs::digest;

use super::{ALGORITHM, PathRule, Payload, Request, Scope, UNSIGNED_PAYLOAD};

/// A request's canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonical {
    /// Method, path, query, headers, signed headers, the body's hash: a line each. Header values need not be text.
    pub bytes: Vec<u8>,
    /// The names of the headers in it, in order, parted by semicolons.
    pub signed_headers: String,
}

/// Puts a request into its canonical form.
pub fn canonical_request(request: &Request<'_>, rule: PathRule) -> Canonical {
    let mut text = String::with_capacity(256);
    text.push_str(request.method);
    text.push('\n');
    put_path(&mut text, request.path, rule);
    text.push('\n');
    put_query(&mut text, request.query);
    text.push('\n');
    let mut bytes = text.into_bytes();

    let headers = sorted(request.headers);
    let mut names = String::new();
    let mut last: Option<&str> = None;
    for (name, value) in &headers {
        if last == Some(name) {
            // Line ends come after the last value.
            bytes.pop();
            bytes.push(b',');
        } else {
            if last.is_some() {
                names.push(';');
            }
            names.push_str(name);
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b':');
            last = Some(name);
        }
        put_value(&mut bytes, value);
        bytes.push(b'\n');
    }
    bytes.push(b'\n');
    bytes.extend_from_slice(names.as_bytes());
    bytes.push(b'\n');
    bytes.extend_from_slice(payload_hash(request.payload).as_bytes());
    Canonical {
        bytes,
        signed_headers: names,
    }
}

/// What is signed: the algorithm, the moment, the scope, the canonical request's hash.
pub fn string_to_sign(scope: &Scope<'_>, canonical: &Canonical) -> String {
    format!(
        "{ALGORITHM}\n{}\n{}\n{}",
        scope.date.as_str(),
        scope.credential_scope(),
        sha256(&canonical.bytes),
    )
}

/// The names of headers as a signature lists them.
pub(super) fn signed_headers(headers: &[(&str, &[u8])]) -> String {
    let mut names: Vec<_> = sorted(headers).into_iter().map(|(name, _)| name).collect();
    names.dedup();
    names.join(";")
}

/// The hash of a body as a canonical request ends with it.
pub(super) fn payload_hash(payload: Payload<'_>) -> String {
    match payload {
        Payload::Bytes(bytes) => sha256(bytes),
        Payload::Hash(hash) => hash.to_owned(),
        Payload::Unsigned => UNSIGNED_PAYLOAD.to_owned(),
    }
}

/// By lower-case name; those of one name stay in the order in which they are sent.
fn sorted<'a>(headers: &[(&str, &'a [u8])]) -> Vec<(String, &'a [u8])> {
    let mut sorted: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), *value))
        .collect();
    sorted.sort_by(|one, other| one.0.cmp(&other.0));
    sorted
}

/// Without white space round it, and with one blank for any within it.
fn put_value(bytes: &mut Vec<u8>, value: &[u8]) {
    let words = value
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    for (at, word) in words.enumerate() {
        if at > 0 {
            bytes.push(b' ');
        }
        bytes.extend_from_slice(word);
    }
}

fn put_path(text: &mut String, path: &[u8], rule: PathRule) {
    if path.is_empty() {
        text.push('/');
        return;
    }
    match rule {
        PathRule::Normalized => encode(text, &normalized(path), Escapes::AllButSlash),
        PathRule::Encoded => encode(text, path, Escapes::AllButSlash),
        PathRule::Once => encode(text, &decoded(path), Escapes::AllButSlash),
    }
}

/// RFC 3986 section 5.2.4, and without empty segments.
fn normalized(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let mut path_out = Vec::with_capacity(path.len());
    for segment in &kept {
        path_out.push(b'/');
        path_out.extend_from_slice(segment);
    }
    let ends_in_slash = path.ends_with(b"/") || path.ends_with(b"/.") || path.ends_with(b"/..");
    if kept.is_empty() || ends_in_slash {
        path_out.push(b'/');
    }
    path_out
}

/// Parameters are encoded once and sorted, by name and then by value, as encoded. A plus is a plus: whoever means a
/// blank writes `%20`.
fn put_query(text: &mut String, query: &[u8]) {
    let mut parameters: Vec<(String, String)> = query
        .split(|byte| *byte == b'&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| {
            let (name, value) = match parameter.iter().position(|byte| *byte == b'=') {
                Some(at) => (&parameter[..at], &parameter[at + 1..]),
                None => (parameter, &b""[..]),
            };
            let encoded = |part| {
                let mut text = String::new();
                encode(&mut text, &decoded(part), Escapes::All);
                text
            };
            (encoded(name), encoded(value))
        })
        .collect();
    parameters.sort();
    for (at, (name, value)) in parameters.iter().enumerate() {
        let parting = if at > 0 { "&" } else { "" };
        let _ = write!(text, "{parting}{name}={value}");
    }
}

/// Which bytes beside the unreserved ones stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// None.
    All,
    /// Slashes.
    AllButSlash,
}

/// Percent-encodes everything but the unreserved characters of RFC 3986 section 2.3, with upper-case digits.
pub(super) fn encode(text: &mut String, bytes: &[u8], escapes: Escapes) {
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte))
            }
            b'/' if escapes == Escapes::AllButSlash => text.push('/'),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
}

/// Percent-decodes once; what is no triplet stays.
fn decoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.contains(&b'%') {
        return bytes.into();
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, more @ ..] = rest {
        if let (b'%', [high, low, after @ ..]) = (first, more)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            out.push((high * 16 + low) as u8);
            rest = after;
        } else {
            out.push(*first);
            rest = more;
        }
    }
    out.into()
}

fn sha256(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    let mut text = String::with_capacity(64);
    for byte in hash.as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
