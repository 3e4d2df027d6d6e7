//! The identifiers that a request gets: request id, extended request id, trace.

use std::cell::Cell;
use std::hash::BuildHasher;

use aws_lc_rs::rand;

/// A request's id in its text form: a UUID.
pub type RequestId = [u8; 36];
/// An extended request id in its text form: eleven bytes in base64.
pub type ExtendedId = [u8; 16];
/// A trace header's value: `Root=1-{8 hex}-{24 hex}`.
pub type TraceId = [u8; 40];

/// A shard's source of identifiers: unique over nodes and restarts, not secret, a few nanoseconds each.
#[derive(Debug)]
pub struct Ids {
    state: [Cell<u64>; 4],
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}

impl Ids {
    /// A source with a random beginning.
    pub fn new() -> Self {
        let mut seed = [0_u8; 32];
        // Without the system's randomness the standard library's per-process keys tell restarts apart.
        if rand::fill(&mut seed).is_err() {
            for word in seed.chunks_exact_mut(8) {
                word.copy_from_slice(
                    &std::hash::RandomState::new()
                        .hash_one(std::time::Instant::now())
                        .to_le_bytes(),
                );
            }
        }
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&seed[at * 8..at * 8 + 8]);
            Cell::new(u64::from_le_bytes(bytes) | u64::from(at == 0))
        };
        Self {
            state: [word(0), word(1), word(2), word(3)],
        }
    }

    /// Sixty-four random bits (xoshiro256++).
    pub fn random(&self) -> u64 {
        let [a, b, c, d] = &self.state;
        let result = a
            .get()
            .wrapping_add(d.get())
            .rotate_left(23)
            .wrapping_add(a.get());
        let t = b.get() << 17;
        c.set(c.get() ^ a.get());
        d.set(d.get() ^ b.get());
        b.set(b.get() ^ c.get());
        a.set(a.get() ^ d.get());
        c.set(c.get() ^ t);
        d.set(d.get().rotate_left(45));
        result
    }

    /// A number in `0.0..100.0`, for canary draws.
    pub fn percent(&self) -> f64 {
        (self.random() >> 11) as f64 * (100.0 / (1_u64 << 53) as f64)
    }

    /// A request id (OBV-194: a UUID).
    pub fn request_id(&self) -> RequestId {
        let (high, low) = (self.random(), self.random());
        // Version 4, variant 1 (RFC 9562).
        let high = (high & !0xf000) | 0x4000;
        let low = (low & !(3 << 62)) | (2 << 62);
        let mut id = [b'-'; 36];
        hex(high >> 32, &mut id[0..8]);
        hex(high >> 16, &mut id[9..13]);
        hex(high, &mut id[14..18]);
        hex(low >> 48, &mut id[19..23]);
        hex(low, &mut id[24..36]);
        id
    }

    /// An extended request id (OBS-040).
    pub fn extended_id(&self) -> ExtendedId {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut id = [b'='; 16];
        let (mut high, mut low) = (self.random(), self.random());
        for byte in &mut id[..8] {
            *byte = ALPHABET[(high & 63) as usize];
            high >>= 6;
        }
        for byte in &mut id[8..14] {
            *byte = ALPHABET[(low & 63) as usize];
            low >>= 6;
        }
        // Eleven bytes end in a digit of which only four bits count.
        id[14] = ALPHABET[((low & 15) << 2) as usize];
        id
    }

    /// A trace root for a request that brought none. `seconds` since the epoch.
    pub fn trace_id(&self, seconds: u64) -> TraceId {
        let mut id = *b"Root=1-00000000-000000000000000000000000";
        hex(seconds, &mut id[7..15]);
        hex(self.random(), &mut id[16..28]);
        hex(self.random(), &mut id[28..40]);
        id
    }
}

/// Whether a client's `x-amzn-RequestId` is taken over: 8-4-4-4-12 hexadecimal digits (OBS-038).
pub fn as_request_id(text: &[u8]) -> Option<RequestId> {
    let id: RequestId = text.try_into().ok()?;
    let fits = id.iter().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    fits.then_some(id)
}

/// The low digits of `value`, as many as `out` holds: at most sixteen.
#[inline]
fn hex(value: u64, out: &mut [u8]) {
    if out.len() > 8 {
        let (high, low) = out.split_at_mut(out.len() - 8);
        hex(value >> 32, high);
        return hex(value, low);
    }
    let digits = hex_digits(value as u32);
    out.copy_from_slice(&digits[8 - out.len()..]);
}

/// Eight digits at once: each four bits into a byte of its own, then all of them to their letters.
#[inline]
fn hex_digits(value: u32) -> [u8; 8] {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let mut bytes = u64::from(value);
    bytes = (bytes << 16 | bytes) & 0x0000_ffff_0000_ffff;
    bytes = (bytes << 8 | bytes) & 0x00ff_00ff_00ff_00ff;
    bytes = (bytes << 4 | bytes) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((bytes + 6 * ONES) >> 4) & ONES;
    let digits = bytes + u64::from(b'0') * ONES + letters * u64::from(b'a' - b'0' - 10);
    digits.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_hexadecimal() {
        for value in [0, 1, 0x9a, 0x0123_4567_89ab_cdef, u64::MAX, 0xf0e1_d2c3_b4a5_9687] {
            for length in [4, 8, 12, 16] {
                let mut out = vec![0; length];
                hex(value, &mut out);
                assert_eq!(
                    String::from_utf8(out).unwrap(),
                    format!("{value:016x}")[16 - length..]
                );
            }
        }
    }

    /// OBV-194, OBS-038.
    #[test]
    fn request_ids_are_uuids() {
        let ids = Ids::new();
        let (first, second) = (ids.request_id(), ids.request_id());
        assert_ne!(first, second);
        assert_eq!(as_request_id(&first), Some(first));
        assert_eq!(first[14], b'4');
        assert!(matches!(first[19], b'8' | b'9' | b'a' | b'b'));
        assert_eq!(as_request_id(b"hello"), None);
        assert_eq!(as_request_id(b"11111111-2222-3333-4444-55555555555g"), None);
        assert!(as_request_id(b"11111111-2222-3333-4444-555555555555").is_some());
    }

    #[test]
    fn extended_ids_and_traces_have_their_form() {
        let ids = Ids::new();
        let id = ids.extended_id();
        assert_eq!(id[15], b'=');
        assert!(
            id[..15]
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
        );
        let trace = ids.trace_id(0x6543_210f);
        assert!(trace.starts_with(b"Root=1-6543210f-"));
        assert_eq!(trace.len(), 40);
    }
}
