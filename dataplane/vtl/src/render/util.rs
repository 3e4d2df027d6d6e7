//! `$util`.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::value::Value;
use super::{Renderer, Run, fail};
use crate::error::ErrorKind;

/// Reads with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl<'r> Renderer<'r, '_> {
    /// A call on `$util`; `None` where it has no such method. Null stays null.
    pub(super) fn util(&mut self, method: &str, arguments: &[Value<'r>]) -> Run<Option<Value<'r>>> {
        if !matches!(
            method,
            "escapeJavaScript" | "parseJson" | "urlEncode" | "urlDecode" | "base64Encode" | "base64Decode"
        ) {
            return Ok(None);
        }
        let Some(argument) = arguments.first().copied().filter(|argument| !argument.is_null()) else {
            return Ok(Some(Value::Null));
        };
        let text = self.text(argument)?;
        self.spend_text(text.len())?;
        let made = match method {
            "escapeJavaScript" => escape_javascript(text),
            "parseJson" => return self.parse_json(text).map(Some),
            "urlEncode" => url_encode(text),
            "urlDecode" => match url_decode(text) {
                Some(decoded) => decoded,
                None => return fail("urlDecode", "a `%` is not followed by two hexadecimal digits"),
            },
            "base64Encode" => {
                self.take(text.len() / 3 * 4)?;
                STANDARD.encode(text)
            }
            _ => match LENIENT.decode(text.trim_ascii()) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(_) => {
                    self.note(|| "`$util.base64Decode` of what is not base64 is null".to_owned());
                    return Ok(Some(Value::Null));
                }
            },
        };
        Ok(Some(Value::Text(self.keep_str(&made)?)))
    }

    fn parse_json(&mut self, text: &'r str) -> Run<Value<'r>> {
        if text.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        match self.read(text) {
            Ok(json) => {
                let json = json?;
                self.value_of(json)
            }
            Err(error) => Err(Box::new(ErrorKind::Json(error))),
        }
    }
}

/// By the rules of JavaScript strings (VTL-281): quotes, backslashes and slashes behind a backslash, controls by their
/// letters, and what is not ASCII as UTF-16 in hexadecimal digits.
fn escape_javascript(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for character in text.chars() {
        match character {
            '\'' | '"' | '\\' | '/' => {
                out.push('\\');
                out.push(character);
            }
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            ' '..='\u{7f}' => out.push(character),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04X}");
                }
            }
        }
    }
    out
}

/// As an HTML form writes a field (VTL-284).
fn url_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

/// The reverse; nothing for a `%` without its digits.
fn url_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let [high, low, behind @ ..] = rest else {
                    return None;
                };
                rest = behind;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?
            }
            other => *other,
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
