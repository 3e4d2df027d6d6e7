//! One canonical form of a request's path (D12).
//!
//! The same bytes choose the route, stand in the log and in policies, key the cache and go to the backend, so
//! that no two parts of the system can read one path differently. The raw path is split at `/` before anything
//! is decoded:
//!
//! - triplets of unreserved characters are decoded, all others kept, in upper-case hexadecimal: `%2F` and `%5C`
//!   never become separators;
//! - bytes that RFC 3986 does not allow in a path are encoded;
//! - malformed triplets, control bytes (encoded or not), backslashes and the segments `.` and `..` (encoded or
//!   not) are errors.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

/// Why a path or query is refused; the answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum PathError {
    #[error("the path does not begin with `/`")]
    NotAbsolute,
    #[error("`%` is not followed by two hexadecimal digits")]
    Triplet,
    #[error("a control character, encoded or not")]
    Control,
    #[error("a backslash")]
    Backslash,
    #[error("a `.` or `..` segment, encoded or not")]
    DotSegment,
    #[error("`#` or `?` in a path")]
    Delimiter,
    #[error("a byte that a query cannot hold")]
    QueryByte,
}

/// A path in canonical form. Borrowed where the raw path was canonical already.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NormalPath<'a>(Cow<'a, str>);

/// A canonical path, or what remains of one after segments were taken from its front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PathRef<'p>(&'p str);

/// Brings a raw path, without its query, into canonical form.
pub fn normalize(raw: &[u8]) -> Result<NormalPath<'_>, PathError> {
    if raw.first() != Some(&b'/') {
        return Err(PathError::NotAbsolute);
    }
    let text = canonical(raw)?;
    if has_dot_segment(&text) {
        return Err(PathError::DotSegment);
    }
    Ok(NormalPath(text))
}

/// Brings one literal segment of a route into the form in which requests carry it.
pub fn normalize_segment(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if raw.contains('/') {
        return Err(PathError::Delimiter);
    }
    let text = canonical(raw.as_bytes())?;
    match &*text {
        "." | ".." => Err(PathError::DotSegment),
        _ => Ok(text),
    }
}

/// Checks a raw query, which goes to the backend as it is: triplets must be well formed (DEP-006: `%%` is
/// refused), and no control byte, blank or `#` may stand in it.
pub fn check_query(raw: &[u8]) -> Result<(), PathError> {
    let mut at = 0;
    while let Some(&b) = raw.get(at) {
        match b {
            b'%' => {
                triplet(raw, at)?;
                at += 3;
            }
            0..=b' ' | 0x7f | b'#' => return Err(PathError::QueryByte),
            _ => at += 1,
        }
    }
    Ok(())
}

/// Encodes a value for a place in a backend's path. Reserved characters that could end the path or add a segment
/// are encoded, and so is `%`: the value is taken as decoded text. `/` stays only where `slashes` says so.
///
/// Values of path parameters are canonical already and go into the path as they are. An assembled path must still
/// be checked by [`has_dot_segment`]: a value may be `..`, or complete one.
pub fn encode_path_value(value: &[u8], slashes: bool) -> Cow<'_, str> {
    encode(value, |b| match CLASS[usize::from(b)] {
        Class::Unreserved | Class::Plain => true,
        Class::Slash => slashes,
        Class::Percent | Class::Backslash | Class::Control | Class::Delimiter | Class::Encode => false,
    })
}

/// Encodes a value for a place in a query: everything but unreserved characters.
pub fn encode_query_value(value: &[u8]) -> Cow<'_, str> {
    encode(value, |b| CLASS[usize::from(b)] == Class::Unreserved)
}

/// Decodes the triplets of a path segment or query value; a malformed one stays as it is. `plus` reads `+` as a
/// blank, as query strings have it.
pub fn decode(value: &[u8], plus: bool) -> Cow<'_, [u8]> {
    let is_coded = |b: &u8| *b == b'%' || (plus && *b == b'+');
    let Some(first) = value.iter().position(is_coded) else {
        return Cow::Borrowed(value);
    };
    let mut out = Vec::with_capacity(value.len());
    out.extend_from_slice(&value[..first]);
    let mut at = first;
    while let Some(&b) = value.get(at) {
        match (b, triplet(value, at)) {
            (b'%', Ok(decoded)) => {
                out.push(decoded);
                at += 3;
            }
            _ => {
                out.push(if plus && b == b'+' { b' ' } else { b });
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

/// Whether a path has a segment that means "here" or "up": `.` or `..`, their dots encoded or not.
pub fn has_dot_segment(path: &str) -> bool {
    // Nearly every path ends here.
    if !path.bytes().any(|b| matches!(b, b'.' | b'%')) {
        return false;
    }
    // No segment begins with a dot or a triplet of one, as a rule.
    path.split('/').any(|segment| {
        let mut rest = segment;
        let mut dots = 0;
        while dots < 3 && !rest.is_empty() {
            let Some(tail) = [".", "%2e", "%2E"].iter().find_map(|dot| rest.strip_prefix(dot)) else {
                return false;
            };
            rest = tail;
            dots += 1;
        }
        dots == 1 || dots == 2
    })
}

impl<'a> NormalPath<'a> {
    /// The canonical text, which begins with `/` and is ASCII.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole path for routing.
    pub fn view(&self) -> PathRef<'_> {
        PathRef(&self.0)
    }

    /// Whether the raw path was canonical, so that nothing was copied.
    pub fn is_borrowed(&self) -> bool {
        matches!(self.0, Cow::Borrowed(_))
    }

    /// The text, detached from the raw path.
    pub fn into_owned(self) -> NormalPath<'static> {
        NormalPath(Cow::Owned(self.0.into_owned()))
    }
}

impl<'p> PathRef<'p> {
    /// The text: empty, or beginning with `/`.
    pub fn as_str(self) -> &'p str {
        self.0
    }

    /// The first segment and what follows it: `/prod/a/b` gives `prod` and `/a/b`, `/prod` gives `prod` and the
    /// empty path, which addresses the root resource as `/` does (DEP-001, DEP-003).
    pub fn split_first(self) -> Option<(&'p str, PathRef<'p>)> {
        let rest = self.0.strip_prefix('/')?;
        // Segments are short: not worth a search that makes ready for long ones.
        let end = rest.bytes().position(|b| b == b'/').unwrap_or(rest.len());
        Some((&rest[..end], PathRef(&rest[end..])))
    }
}

impl fmt::Display for NormalPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PathRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Copies nothing until the first byte that is not canonical.
fn canonical(raw: &[u8]) -> Result<Cow<'_, str>, PathError> {
    let mut out: Option<String> = None;
    let mut at = 0;
    while let Some(&b) = raw.get(at) {
        match CLASS[usize::from(b)] {
            Class::Unreserved | Class::Plain | Class::Slash => {
                if let Some(out) = &mut out {
                    out.push(char::from(b));
                }
                at += 1;
            }
            Class::Percent => {
                let decoded = triplet(raw, at)?;
                let digits = &raw[at + 1..at + 3];
                match CLASS[usize::from(decoded)] {
                    Class::Control => return Err(PathError::Control),
                    Class::Unreserved => begin(&mut out, raw, at).push(char::from(decoded)),
                    _ if digits.iter().any(u8::is_ascii_lowercase) => {
                        push_triplet(begin(&mut out, raw, at), decoded)
                    }
                    _ => {
                        if let Some(out) = &mut out {
                            push_triplet(out, decoded);
                        }
                    }
                }
                at += 3;
            }
            Class::Encode => {
                push_triplet(begin(&mut out, raw, at), b);
                at += 1;
            }
            Class::Control => return Err(PathError::Control),
            Class::Backslash => return Err(PathError::Backslash),
            Class::Delimiter => return Err(PathError::Delimiter),
        }
    }
    match out {
        Some(out) => Ok(Cow::Owned(out)),
        // Every class that leaves the raw bytes in place is ASCII.
        None => std::str::from_utf8(raw)
            .map(Cow::Borrowed)
            .map_err(|_| PathError::Control),
    }
}

/// The output, which begins as a copy of what was canonical so far.
fn begin<'o>(out: &'o mut Option<String>, raw: &[u8], at: usize) -> &'o mut String {
    out.get_or_insert_with(|| {
        let mut text = String::with_capacity(raw.len() + 16);
        text.extend(raw[..at].iter().copied().map(char::from));
        text
    })
}

fn encode(value: &[u8], keep: impl Fn(u8) -> bool) -> Cow<'_, str> {
    if let (true, Ok(text)) = (value.iter().all(|&b| keep(b)), std::str::from_utf8(value)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(value.len() + 16);
    for &b in value {
        if keep(b) {
            out.push(char::from(b));
        } else {
            push_triplet(&mut out, b);
        }
    }
    Cow::Owned(out)
}

fn push_triplet(out: &mut String, b: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(b >> 4)]));
    out.push(char::from(DIGITS[usize::from(b & 15)]));
}

/// The byte that the triplet at `at` stands for.
fn triplet(raw: &[u8], at: usize) -> Result<u8, PathError> {
    let digit = |at: usize| {
        raw.get(at)
            .and_then(|&b| char::from(b).to_digit(16))
            .ok_or(PathError::Triplet)
    };
    let (high, low) = (digit(at + 1)?, digit(at + 2)?);
    u8::try_from(high * 16 + low).map_err(|_| PathError::Triplet)
}

/// What a byte is in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Letters, digits and `-._~`: equal to their triplets (RFC 3986 section 2.3).
    Unreserved,
    /// Allowed in a segment, but not equal to its triplet: sub-delimiters, `:` and `@`.
    Plain,
    Slash,
    Percent,
    Backslash,
    Control,
    /// `?` and `#` end a path.
    Delimiter,
    /// Not allowed in a path; stands encoded in the canonical form.
    Encode,
}

static CLASS: [Class; 256] = classes();

const fn classes() -> [Class; 256] {
    let mut table = [Class::Encode; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = match at as u8 {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Unreserved,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => {
                Class::Plain
            }
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'\\' => Class::Backslash,
            b'?' | b'#' => Class::Delimiter,
            0..=0x1f | 0x7f => Class::Control,
            _ => Class::Encode,
        };
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(raw: &str) -> Result<String, PathError> {
        normalize(raw.as_bytes()).map(|path| path.as_str().to_owned())
    }

    /// D12, every trick with its answer.
    #[test]
    fn path_tricks_have_one_reading() {
        let ok = |raw: &str, canonical: &str| assert_eq!(text(raw).as_deref(), Ok(canonical), "{raw}");
        ok("/", "/");
        ok("/a/b/", "/a/b/");
        ok("//a//b", "//a//b");
        ok("/%61%7E%2d", "/a~-");
        ok("/a%2Fb", "/a%2Fb");
        ok("/a%2fb", "/a%2Fb");
        ok("/a%5cb", "/a%5Cb");
        ok("/%252e%252e/x", "/%252e%252e/x");
        ok("/a b\u{e9}{x}|", "/a%20b%C3%A9%7Bx%7D%7C");
        ok("/%c3%a9", "/%C3%A9");
        ok("/a:b@c;d=e,f!$&'()*+", "/a:b@c;d=e,f!$&'()*+");
        ok("/%3A", "/%3A");
        ok("/...", "/...");
        ok("/.a/..b/c../d.", "/.a/..b/c../d.");
        ok("/..%2Fa", "/..%2Fa");
        ok("/%3F%23", "/%3F%23");

        let refused = |raw: &str, error| assert_eq!(text(raw), Err(error), "{raw:?}");
        for dots in [
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/%2e",
            "/%2E%2e/a",
            "/.%2e",
            "/a/%2E.",
            "/../",
            "/a/..",
        ] {
            refused(dots, PathError::DotSegment);
        }
        for bad in [
            "/%", "/%2", "/%zz", "/a%2", "/%%", "/%2%30", "/%-1", "/% 1", "/%+1",
        ] {
            refused(bad, PathError::Triplet);
        }
        for bad in [
            "/%00", "/%0a", "/%0D%0A", "/%1f", "/%7f", "/\u{1}", "/a\tb", "/\u{7f}",
        ] {
            refused(bad, PathError::Control);
        }
        refused("/a\\b", PathError::Backslash);
        refused("/a?b", PathError::Delimiter);
        refused("/a#b", PathError::Delimiter);
        for bad in ["", "*", "a", "http://a/"] {
            refused(bad, PathError::NotAbsolute);
        }
        assert_eq!(normalize(b"/\xff\xc0").unwrap().as_str(), "/%FF%C0");
    }

    #[test]
    fn a_canonical_path_is_not_copied() {
        for raw in ["/", "/prod/pets/1", "/a%2Fb", "/%C3%A9/x;y=1"] {
            assert!(normalize(raw.as_bytes()).unwrap().is_borrowed(), "{raw}");
        }
        assert!(!normalize(b"/%2f").unwrap().is_borrowed());
    }

    /// DEP-001, DEP-002, DEP-003, RES-020
    #[test]
    fn the_stage_is_the_first_segment() {
        let split = |raw: &str| {
            let path = normalize(raw.as_bytes()).unwrap();
            let (first, rest) = path.view().split_first().unwrap();
            (first.to_owned(), rest.as_str().to_owned())
        };
        assert_eq!(split("/prod"), ("prod".into(), "".into()));
        assert_eq!(split("/prod/"), ("prod".into(), "/".into()));
        assert_eq!(split("/prod/getUsers"), ("prod".into(), "/getUsers".into()));
        assert_eq!(split("/"), ("".into(), "".into()));
        assert_eq!(split("//prod"), ("".into(), "/prod".into()));
    }

    /// DEP-006
    #[test]
    fn a_query_holds_well_formed_triplets_only() {
        assert_eq!(check_query(b"a=1&b=%20%c3&c=|;[]{}\xc3"), Ok(()));
        for bad in ["a=%%", "a=100%", "a=%zz", "a=%2"] {
            assert_eq!(check_query(bad.as_bytes()), Err(PathError::Triplet), "{bad}");
        }
        for bad in ["a b", "a\nb", "a#b", "\u{7f}"] {
            assert_eq!(check_query(bad.as_bytes()), Err(PathError::QueryByte), "{bad:?}");
        }
    }

    #[test]
    fn a_substituted_value_cannot_leave_its_place() {
        assert_eq!(encode_path_value(b"a/b?c#d%2F\\", false), "a%2Fb%3Fc%23d%252F%5C");
        assert_eq!(encode_path_value(b"a/b", true), "a/b");
        assert!(matches!(encode_path_value(b"plain-1", false), Cow::Borrowed(_)));
        assert_eq!(encode_query_value(b"a&b=c +\xc3"), "a%26b%3Dc%20%2B%C3");
        assert!(has_dot_segment("/a/.%2e"));
        assert!(has_dot_segment("/a/.."));
        assert!(!has_dot_segment("/a/..."));
        assert!(!has_dot_segment("/"));
    }

    #[test]
    fn decoding_leaves_what_is_malformed() {
        assert_eq!(&*decode(b"a%20b%2", false), b"a b%2");
        assert_eq!(&*decode(b"a+b%zz+", true), b"a b%zz ");
        assert!(matches!(decode(b"a+b", false), Cow::Borrowed(_)));
    }

    proptest! {
        /// Normalising is idempotent, its result is ASCII without anything the rules refuse.
        #[test]
        fn canonical_is_a_fixed_point(raw in prop::collection::vec(prop_oneof![
            8 => any::<u8>(),
            8 => prop::sample::select(b"/.%2eEfF50cC\\abz".to_vec()),
        ], 0..64)) {
            let mut path = vec![b'/'];
            path.extend(raw);
            if let Ok(once) = normalize(&path) {
                let again = normalize(once.as_str().as_bytes()).unwrap();
                prop_assert!(again.is_borrowed());
                prop_assert_eq!(again.as_str(), once.as_str());
                let allowed = |b: u8| b.is_ascii_graphic() && !b"\\?#\"<>^`{|}".contains(&b);
                prop_assert!(once.as_str().bytes().all(allowed));
                // Splitting before decoding: the number of separators never changes.
                let slashes = |bytes: &[u8]| bytes.iter().filter(|b| **b == b'/').count();
                prop_assert_eq!(slashes(&path), slashes(once.as_str().as_bytes()));
            }
        }

        /// Whatever a value holds, it decodes to itself and adds no separator.
        #[test]
        fn an_encoded_value_round_trips(value in prop::collection::vec(any::<u8>(), 0..48)) {
            for encoded in [encode_path_value(&value, false), encode_query_value(&value)] {
                prop_assert_eq!(&*decode(encoded.as_bytes(), false), &value[..]);
                prop_assert!(!encoded.bytes().any(|b| b"/?#&\\ \r\n".contains(&b) && b != b'&'));
            }
            prop_assert!(!encode_query_value(&value).contains('&'));
        }
    }
}
