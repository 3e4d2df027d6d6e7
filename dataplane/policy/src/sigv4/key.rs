//! Secrets, the keys made of them, and signatures.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};
use zeroize::Zeroizing;

use super::Scope;

/// An access key, as a caller has it. Its secret parts are never shown and leave no trace in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    access_key_id: Box<str>,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl Credentials {
    /// An access key; a session token belongs to temporary ones.
    pub fn new(
        access_key_id: impl Into<Box<str>>,
        secret_access_key: String,
        session_token: Option<String>,
    ) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: Zeroizing::new(secret_access_key),
            session_token: session_token.map(Zeroizing::new),
        }
    }

    /// The id, which is no secret.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The session token.
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_deref().map(String::as_str)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// What signs for one day, region and service.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

impl SigningKey {
    /// The key of a secret in a scope.
    pub fn derive(secret_access_key: &str, scope: &Scope<'_>) -> Self {
        let secret = Zeroizing::new(format!("AWS4{secret_access_key}"));
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        for part in [scope.date.day(), scope.region, scope.service, "aws4_request"] {
            let tag = hmac::sign(&key, part.as_bytes());
            key = hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref());
        }
        Self(key)
    }

    /// The signature of a string to sign.
    pub fn sign(&self, string_to_sign: &str) -> Signature {
        let tag = hmac::sign(&self.0, string_to_sign.as_bytes());
        let mut digits = [0; 64];
        for (at, byte) in tag.as_ref().iter().take(32).enumerate() {
            digits[2 * at] = DIGITS[usize::from(byte >> 4)];
            digits[2 * at + 1] = DIGITS[usize::from(byte & 15)];
        }
        Signature(digits)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A signature, in lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Its digits.
    pub fn as_str(&self) -> &str {
        // Only ASCII is ever put in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether a signature that came in is this one, in a time that does not tell how much of it is.
    pub fn matches(&self, given: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.0, given).is_ok()
    }
}

/// Signing keys, each made once a day. Bounded: the key unused for longest gives way.
#[derive(Debug)]
pub struct SigningKeys {
    /// The one used last comes last.
    entries: Vec<Entry>,
    most: usize,
}

#[derive(Debug)]
struct Entry {
    credentials: Credentials,
    region: Box<str>,
    service: Box<str>,
    day: [u8; 8],
    key: SigningKey,
}

impl SigningKeys {
    /// Keeps at most so many keys, at least one.
    pub fn new(most: usize) -> Self {
        Self {
            entries: Vec::new(),
            most: most.max(1),
        }
    }

    /// The key of these credentials in this scope.
    pub fn get(&mut self, credentials: &Credentials, scope: &Scope<'_>) -> &SigningKey {
        let found = self.entries.iter().position(|entry| {
            *entry.service == *scope.service
                && *entry.region == *scope.region
                && entry.credentials == *credentials
        });
        let known = found.map(|at| self.entries.remove(at));
        let entry = match known {
            Some(entry) if entry.day == *scope.date.day().as_bytes() => entry,
            _ => Entry::new(credentials, scope),
        };
        if self.entries.len() >= self.most {
            self.entries.remove(0);
        }
        let at = self.entries.len();
        self.entries.push(entry);
        &self.entries[at].key
    }
}

impl Entry {
    fn new(credentials: &Credentials, scope: &Scope<'_>) -> Self {
        let mut day = [0; 8];
        day.copy_from_slice(scope.date.day().as_bytes());
        Self {
            credentials: credentials.clone(),
            region: scope.region.into(),
            service: scope.service.into(),
            day,
            key: SigningKey::derive(&credentials.secret_access_key, scope),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::AmzDate;
    use super::*;

    fn scope<'a>(date: &str, region: &'a str) -> Scope<'a> {
        Scope {
            date: AmzDate::parse(date).unwrap(),
            region,
            service: "lambda",
        }
    }

    #[test]
    fn keys_are_made_anew_for_another_day_or_secret_and_bounded() {
        let mut keys = SigningKeys::new(2);
        let first = Credentials::new("AKIDA", "one".into(), None);
        let rotated = Credentials::new("AKIDA", "two".into(), None);
        let mut sign = |credentials: &Credentials, date: &str, region: &str| {
            let key = keys.get(credentials, &scope(date, region));
            let signed = key.sign("x").as_str().to_owned();
            assert!(keys.entries.len() <= 2);
            signed
        };
        let today = sign(&first, "20240102T000000Z", "r");
        assert_eq!(sign(&first, "20240102T235959Z", "r"), today);
        assert_ne!(sign(&first, "20240103T000000Z", "r"), today);
        assert_ne!(sign(&rotated, "20240102T000000Z", "r"), today);
        assert_ne!(sign(&first, "20240102T000000Z", "s"), today);
        assert_eq!(sign(&first, "20240102T000000Z", "r"), today);
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::new("AKIDA", "hush-secret".into(), Some("hush-token".into()));
        let mut keys = SigningKeys::new(1);
        keys.get(&credentials, &scope("20240102T000000Z", "r"));
        let shown = format!("{credentials:?} {keys:?}");
        assert!(shown.contains("AKIDA") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn signatures_are_compared_whole() {
        let signature = SigningKey::derive("s", &scope("20240102T000000Z", "r")).sign("x");
        assert!(signature.matches(signature.as_str().as_bytes()));
        assert!(!signature.matches(&signature.as_str().as_bytes()[..63]));
        assert!(!signature.matches(b""));
    }
}
