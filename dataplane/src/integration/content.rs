//! Media types, and payloads between bytes and text (GWR-075 to GWR-105).

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{self, GeneralPurpose, GeneralPurposeConfig};
use tidegate_plan::custom::ContentHandling;

use crate::pipeline::failure::Failure;

/// The type of what names none (VTL-063, VTL-064).
pub(super) const JSON: &str = "application/json";

/// The media type alone, in lower case, without parameters (VTL-062, VTL-O09).
pub(super) fn media_type(value: &[u8]) -> String {
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    String::from_utf8_lossy(value[..end].trim_ascii()).to_ascii_lowercase()
}

/// Whether an API takes a media type, in lower case, for bytes: `*/*` and `image/*` stand for all of them and all images
/// (GWR-076, GWR-082).
pub(super) fn is_binary(types: &[Box<str>], media_type: &str) -> bool {
    types.iter().any(|known| {
        let known = known.to_ascii_lowercase();
        let all_of = |family: &str| {
            media_type
                .strip_prefix(family)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        known == "*/*" || known == media_type || known.strip_suffix("/*").is_some_and(all_of)
    })
}

/// Media types that an `Accept` names, best first: by weight, then by place (VTL-O08). Types of weight 0 are left out.
pub(super) fn accepted(value: &[u8]) -> Vec<String> {
    let mut types: Vec<(u16, String)> = value
        .split(|b| *b == b',')
        .map(|one| (weight(one), media_type(one)))
        .filter(|(weight, media_type)| *weight > 0 && !media_type.is_empty())
        .collect();
    types.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    types.into_iter().map(|(_, media_type)| media_type).collect()
}

/// The weight of a member of `Accept`, in thousandths; a malformed one counts as 1 (RFC 9110 section 12.4.2).
fn weight(member: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(member);
    let weight = text
        .split(';')
        .skip(1)
        .find_map(|parameter| parameter.trim().strip_prefix("q=")?.trim().parse::<f32>().ok());
    match weight {
        Some(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0) as u16,
        _ => 1000,
    }
}

/// The first media type of an `Accept`, which alone decides whether bytes are wanted (GWR-080).
pub(super) fn first_accepted(value: &[u8]) -> String {
    let end = memchr::memchr(b',', value).unwrap_or(value.len());
    media_type(&value[..end])
}

/// What is done to a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conversion {
    /// Nothing, and it is text that a template may see.
    Text,
    /// Nothing, and it is bytes that no template sees.
    Bytes,
    /// It becomes bytes, after the template.
    Decode,
    /// It becomes text, before the template.
    Encode,
}

/// What is done to a request's payload (GWR-094, rows Q1 to Q9).
pub(super) fn of_request(is_binary: bool, handling: Option<ContentHandling>) -> Conversion {
    match (is_binary, handling) {
        (false, Some(ContentHandling::ToBinary)) => Conversion::Decode,
        (false, _) => Conversion::Text,
        (true, Some(ContentHandling::ToText)) => Conversion::Encode,
        (true, _) => Conversion::Bytes,
    }
}

/// What is done to a response's payload (GWR-102, rows P1 to P15). `wants_bytes`: the first type that the client accepts
/// is binary; `has_types`: the API has binary types at all.
pub(super) fn of_response(
    is_binary: bool,
    wants_bytes: bool,
    has_types: bool,
    handling: Option<ContentHandling>,
) -> Conversion {
    use ContentHandling::{ToBinary, ToText};
    match (has_types, is_binary, wants_bytes, handling) {
        // P1 to P3.
        (false, _, _, Some(ToBinary)) => Conversion::Decode,
        (false, _, _, _) => Conversion::Text,
        // P4 to P6.
        (true, false, false, Some(ToBinary)) => Conversion::Decode,
        (true, false, false, _) => Conversion::Text,
        // P7 to P9.
        (true, false, true, Some(ToText)) => Conversion::Text,
        (true, false, true, _) => Conversion::Decode,
        // P10 to P12.
        (true, true, false, Some(ToBinary)) => Conversion::Bytes,
        (true, true, false, _) => Conversion::Encode,
        // P13 to P15.
        (true, true, true, Some(ToText)) => Conversion::Encode,
        (true, true, true, _) => Conversion::Bytes,
    }
}

/// What is done to an answer: `typed` is its media type, `accept` what the client accepts. Without a wish of the client's
/// the payload's own type stands for it.
pub(super) fn of_answer(
    types: &[Box<str>],
    typed: Option<&[u8]>,
    accept: Option<&[u8]>,
    handling: Option<ContentHandling>,
) -> Conversion {
    if types.is_empty() {
        return of_response(false, false, false, handling);
    }
    let wanted = wanted(typed, accept);
    let is_binary = is_binary_answer(types, typed);
    of_response(is_binary, self::is_binary(types, &wanted), true, handling)
}

/// The media type that decides whether a client wants bytes.
pub(super) fn wanted(typed: Option<&[u8]>, accept: Option<&[u8]>) -> String {
    match accept.filter(|value| !value.is_empty()) {
        Some(accept) => first_accepted(accept),
        None => typed.map_or(JSON.to_owned(), media_type),
    }
}

/// Whether an answer is bytes; one that names no type is only where everything is.
pub(super) fn is_binary_answer(types: &[Box<str>], typed: Option<&[u8]>) -> bool {
    match typed {
        Some(typed) => is_binary(types, &media_type(typed)),
        None => types.iter().any(|known| **known == *"*/*"),
    }
}

/// Bytes as Base64 text (GWR-098).
pub(super) fn encode(bytes: &[u8]) -> String {
    general_purpose::STANDARD.encode(bytes)
}

/// The bytes of Base64 text. Padding and white space may be there or not; a JSON string is taken without its quotes.
///
/// # Errors
/// Where it is no Base64 (GWR-029, GWR-096, GWR-103).
pub(super) fn decode(text: &[u8]) -> Result<Vec<u8>, Failure> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let text = text.trim_ascii();
    let inner = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
    let packed: Vec<u8> = inner
        .unwrap_or(text)
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    LENIENT.decode(packed).map_err(|_| Failure::CONFIGURATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GWR-076, GWR-080, GWR-081, GWR-082.
    #[test]
    fn binary_types_have_wildcards() {
        let types: Vec<Box<str>> = vec!["image/*".into(), "application/Octet-Stream".into()];
        for (media_type, expected) in [
            ("image/png", true),
            ("imagery/png", false),
            ("image", false),
            ("application/octet-stream", true),
            ("application/json", false),
        ] {
            assert_eq!(is_binary(&types, media_type), expected, "{media_type}");
        }
        assert!(is_binary(&["*/*".into()], "anything"));
        assert!(!is_binary(&[], "anything"));
        assert_eq!(first_accepted(b"image/webp,image/*,*/*;q=0.8"), "image/webp");
        assert_eq!(first_accepted(b" text/HTML ; level=1"), "text/html");
    }

    /// VTL-O08.
    #[test]
    fn accepted_types_stand_by_weight_and_place() {
        let accepted = |text: &str| accepted(text.as_bytes());
        assert_eq!(
            accepted("text/html,application/xml;q=0.9,a/b, c/d;q=0"),
            ["text/html", "a/b", "application/xml"]
        );
        assert_eq!(accepted("a/b;q=x, c/d;q=2"), ["a/b", "c/d"]);
        assert!(accepted("").is_empty());
    }

    /// GWR-094, GWR-102: every row of both tables.
    #[test]
    fn every_row_of_both_tables() {
        use ContentHandling::{ToBinary, ToText};
        use Conversion::{Bytes, Decode, Encode, Text};
        for (is_binary, handling, expected) in [
            (false, None, Text),
            (false, Some(ToBinary), Decode),
            (false, Some(ToText), Text),
            (true, None, Bytes),
            (true, Some(ToBinary), Bytes),
            (true, Some(ToText), Encode),
        ] {
            assert_eq!(
                of_request(is_binary, handling),
                expected,
                "{is_binary} {handling:?}"
            );
        }
        for (row, is_binary, wants, types, handling, expected) in [
            (1, false, false, false, None, Text),
            (2, false, false, false, Some(ToBinary), Decode),
            (3, true, false, false, Some(ToText), Text),
            (4, false, false, true, None, Text),
            (5, false, false, true, Some(ToBinary), Decode),
            (6, false, false, true, Some(ToText), Text),
            (7, false, true, true, None, Decode),
            (8, false, true, true, Some(ToBinary), Decode),
            (9, false, true, true, Some(ToText), Text),
            (10, true, false, true, None, Encode),
            (11, true, false, true, Some(ToBinary), Bytes),
            (12, true, false, true, Some(ToText), Encode),
            (13, true, true, true, None, Bytes),
            (14, true, true, true, Some(ToBinary), Bytes),
            (15, true, true, true, Some(ToText), Encode),
        ] {
            assert_eq!(of_response(is_binary, wants, types, handling), expected, "P{row}");
        }
    }

    /// GWR-095, GWR-096, GWR-098.
    #[test]
    fn base64_is_read_leniently() {
        for text in [
            "W3JhdyBieXRlc10=",
            "W3JhdyBieXRlc10",
            "W3Jh\r\ndyBi eXRlc10=",
            "\"W3JhdyBieXRlc10=\"",
        ] {
            assert_eq!(decode(text.as_bytes()).unwrap(), b"[raw bytes]", "{text}");
        }
        assert_eq!(encode(b"[raw bytes]"), "W3JhdyBieXRlc10=");
        assert!(decode(b"***").is_err() && decode(b"W3J-").is_err());
        assert_eq!(decode(b"").unwrap(), b"");
    }
}
