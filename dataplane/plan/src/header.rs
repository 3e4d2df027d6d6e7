//! Header names and values that are safe to write on the wire.

use std::fmt;

use crate::names::NameError;

/// A header's name in the spelling it was given: a token of RFC 9110 section 5.6.2. Compares without case.
#[derive(Debug, Clone, Eq)]
pub struct HeaderName(Box<str>);

impl HeaderName {
    /// Takes a token of at most 256 bytes.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > 256 || !text.bytes().all(is_token_byte) {
            return Err(NameError::new(
                "header name",
                "1 to 256 letters, digits or any of !#$%&'*+-.^_`|~",
                text,
            ));
        }
        Ok(HeaderName(text.into()))
    }

    /// The name in its own spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for HeaderName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A header's value without leading or trailing blanks: no CR, LF, NUL or other control byte but the tab, so
/// that it cannot end its header (RFC 9110 section 5.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderValue(Box<[u8]>);

impl HeaderValue {
    /// Takes at most 8,192 bytes; surrounding blanks are cut.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        let value = bytes.trim_ascii();
        if value.len() > 8192 || !is_value(value) {
            let rule = "at most 8192 bytes without control characters";
            return Err(NameError::new(
                "header value",
                rule,
                &String::from_utf8_lossy(value),
            ));
        }
        Ok(HeaderValue(value.into()))
    }

    /// The value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether `b` may stand in a token (RFC 9110 section 5.6.2).
pub fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Whether `bytes` may stand as a header's value: no control byte but the tab.
pub fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| b == b'\t' || (b >= 0x20 && b != 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_token_and_compares_without_case() {
        assert_eq!(
            HeaderName::parse("X-Api-Key").unwrap(),
            HeaderName::parse("x-api-key").unwrap()
        );
        for bad in ["", "a b", "a:", "a\r\n", "é", "a/b", "(x)"] {
            assert!(HeaderName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_value_cannot_end_its_header() {
        assert_eq!(HeaderValue::parse(b"  a\tb ").unwrap().as_bytes(), b"a\tb");
        assert!(HeaderValue::parse("é".as_bytes()).is_ok());
        for bad in [&b"a\r\nX: y"[..], b"a\nb", b"a\0b", b"a\x7fb"] {
            assert!(HeaderValue::parse(bad).is_err(), "{bad:?}");
        }
    }
}
