//! Generated ids (C8): opaque, lower-case alphanumeric, from a cryptographic generator.

use aws_lc_rs::rand;

use super::Refusal;

/// Length of the ids of APIs, root resources and API keys (RES-003).
pub const LONG: usize = 10;
/// Length of every other id (RES-003).
pub const SHORT: usize = 6;

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A random id of `length` characters. Whoever stores it checks that it is free.
pub fn random(length: usize) -> Result<String, Refusal> {
    let mut id = String::with_capacity(length);
    while id.len() < length {
        let mut bytes = [0u8; 32];
        fill(&mut bytes)?;
        // Bytes from 252 on would favour the first letters.
        id.extend(
            bytes
                .iter()
                .filter(|byte| **byte < 252)
                .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
                .take(length - id.len()),
        );
    }
    Ok(id)
}

/// A random secret of 40 letters and digits: an API key's generated value, a bearer token (206 bits).
pub fn secret() -> Result<String, Refusal> {
    random(40)
}

/// Fills `bytes` from the cryptographic generator.
pub fn fill(bytes: &mut [u8]) -> Result<(), Refusal> {
    rand::fill(bytes).map_err(|_| Refusal::internal("the system's random generator failed"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// RES-003: 10 and 6 lower-case letters and digits, and no two alike.
    #[test]
    fn ids_are_lower_case_alphanumeric() {
        let ids: BTreeSet<String> = (0..1_000).map(|_| random(LONG).expect("random")).collect();
        assert_eq!(ids.len(), 1_000);
        assert!(
            ids.iter()
                .all(|id| id.len() == LONG && id.bytes().all(|b| ALPHABET.contains(&b)))
        );
        assert_eq!(random(SHORT).expect("random").len(), SHORT);
    }
}
