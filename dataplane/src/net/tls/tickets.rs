//! Session tickets for all shards of a node, with keys that travel to the process that takes over from this one (D17).
//!
//! A ticket is `name(16) nonce(12) sealed`, AES-256-GCM. The name says which key sealed it: the current one or the one
//! before; anything else costs the client a full handshake and nothing more.

use std::fmt;
use std::sync::{PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

/// A key seals for this long, and opens for as long again. At 100,000 tickets a second that is half of the nonces that
/// may be drawn at random under one key.
const ROTATION: Duration = Duration::from_secs(6 * 3600);

const NAME: usize = 16;
const KEY: usize = 32;

/// The node's ticket keys.
pub struct Tickets {
    keys: RwLock<Keys>,
}

/// Keys as they travel.
#[derive(Clone, Serialize, Deserialize)]
pub struct SavedTickets {
    current: SavedKey,
    previous: Option<SavedKey>,
    /// How long the current key has been in use, milliseconds.
    age: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct SavedKey {
    name: [u8; NAME],
    key: [u8; KEY],
}

struct Keys {
    current: Key,
    previous: Option<Key>,
    since: Instant,
}

struct Key {
    saved: SavedKey,
    sealer: LessSafeKey,
}

// === impl Tickets ===

impl Tickets {
    /// Fresh keys. `None` when the system has no random numbers to give.
    pub fn new() -> Option<Self> {
        let keys = Keys {
            current: Key::random()?,
            previous: None,
            since: Instant::now(),
        };
        Some(Self {
            keys: RwLock::new(keys),
        })
    }

    /// Goes on with another process's keys.
    pub fn restore(saved: SavedTickets) -> Option<Self> {
        let age = Duration::from_millis(saved.age);
        let keys = Keys {
            current: Key::new(saved.current)?,
            previous: match saved.previous {
                Some(saved) => Some(Key::new(saved)?),
                None => None,
            },
            since: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
        };
        Some(Self {
            keys: RwLock::new(keys),
        })
    }

    /// The keys, for the process that takes over.
    pub fn save(&self) -> SavedTickets {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        SavedTickets {
            current: keys.current.saved.clone(),
            previous: keys.previous.as_ref().map(|key| key.saved.clone()),
            age: u64::try_from(keys.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Changes the key when it is old. Never waits: whoever comes next finds it done or does it.
    fn rotate(&self) {
        let Some(fresh) = Key::random() else { return };
        let mut keys = match self.keys.try_write() {
            Ok(keys) => keys,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let age = keys.since.elapsed();
        if age >= ROTATION {
            let old = std::mem::replace(&mut keys.current, fresh);
            // Nothing that the old key sealed is still good after two turns.
            keys.previous = (age < 2 * ROTATION).then_some(old);
            keys.since = Instant::now();
        }
    }

    /// A shard does not wait for another that changes the key: it goes without a ticket for once.
    fn read<T>(&self, with: impl FnOnce(&Keys) -> Option<T>) -> Option<T> {
        match self.keys.try_read() {
            Ok(keys) => with(&keys),
            Err(TryLockError::Poisoned(poisoned)) => with(&poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // Two turns: what is sealed just before a change is good for one more. Seven days is the most that RFC 8446
        // section 4.6.1 allows.
        (2 * ROTATION).as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if self.read(|keys| Some(keys.since.elapsed() >= ROTATION))? {
            self.rotate();
        }
        self.read(|keys| keys.current.seal(plain))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        self.read(|keys| {
            let key = [Some(&keys.current), keys.previous.as_ref()]
                .into_iter()
                .flatten()
                .find(|key| key.saved.name == *name)?;
            key.open(rest)
        })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl fmt::Debug for SavedTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SavedTickets")
    }
}

// === impl Key ===

impl Key {
    fn random() -> Option<Self> {
        let mut saved = SavedKey {
            name: [0; NAME],
            key: [0; KEY],
        };
        rand::fill(&mut saved.name).ok()?;
        rand::fill(&mut saved.key).ok()?;
        Self::new(saved)
    }

    fn new(saved: SavedKey) -> Option<Self> {
        let sealer = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &saved.key).ok()?);
        Some(Self { saved, sealer })
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&self.saved.name);
        ticket.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        self.sealer
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(self.saved.name),
                &mut sealed,
            )
            .ok()?;
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn open(&self, rest: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let plain = self
            .sealer
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(self.saved.name),
                &mut sealed,
            )
            .ok()?
            .len();
        sealed.truncate(plain);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_where_it_was_sealed_and_nowhere_else() {
        let tickets = Tickets::new().unwrap();
        let ticket = tickets.encrypt(b"session").unwrap();
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(Tickets::new().unwrap().decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut at {at}");
        }
    }

    /// D17: keys travel, through their written form.
    #[test]
    fn a_ticket_opens_after_a_hand_over() {
        let old = Tickets::new().unwrap();
        let ticket = old.encrypt(b"session").unwrap();
        let text = serde_json::to_string(&old.save()).unwrap();
        let new = Tickets::restore(serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(new.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(
            old.decrypt(&new.encrypt(b"other").unwrap()).as_deref(),
            Some(&b"other"[..])
        );
    }

    #[test]
    fn a_key_opens_for_one_turn_after_it_was_replaced() {
        let tickets = Tickets::new().unwrap();
        let first = tickets.encrypt(b"1").unwrap();
        let age = |by: Duration| {
            let mut keys = tickets.keys.write().unwrap();
            keys.since = keys.since.checked_sub(by).unwrap();
        };
        age(ROTATION);
        let second = tickets.encrypt(b"2").unwrap();
        assert_ne!(first[..NAME], second[..NAME]);
        assert!(tickets.decrypt(&first).is_some());
        age(ROTATION);
        tickets.encrypt(b"3").unwrap();
        assert!(tickets.decrypt(&first).is_none() && tickets.decrypt(&second).is_some());
        age(2 * ROTATION);
        tickets.encrypt(b"4").unwrap();
        assert!(tickets.decrypt(&second).is_none());
    }

    #[test]
    fn keys_are_not_shown() {
        let tickets = Tickets::new().unwrap();
        assert_eq!(
            format!("{tickets:?} {:?}", tickets.save()),
            "Tickets SavedTickets"
        );
    }
}
