//! Session tickets for all shards of a node (D18).
//!
//! The control plane gives every node of the installation the same secrets, so that a session that began on one node is
//! taken up on another, and after a restart. Where it has given none, or those it gave have run out, the node makes
//! secrets of its own. From a secret each purpose has keys of its own, so that a session is of no use where other clients
//! are let in.
//!
//! A ticket is `name(16) salt(16) nonce(12) sealed`, AES-256-GCM. The name says which secret, and for which purpose; the
//! salt which process sealed it: each seals with a key of its own, because nonces drawn at random suffice for 2^32 tickets
//! a key, and an installation makes more. What cannot be opened costs the client a full handshake and nothing more.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a secret.
pub const SECRET: usize = 32;

const NAME: usize = 16;
const SALT: usize = 16;
const KEY: usize = 32;

/// Secrets of the control plane's that are held at a time; it has three.
const SHARED_MAX: usize = 16;
/// Tickets that are sealed under one salt: half of the nonces that may be drawn at random under one key.
const SEALS: u64 = 1 << 31;
/// The longest that a ticket may be good for, seconds (RFC 8446 section 4.6.1).
const LIFETIME_MAX: i64 = 7 * 86_400;

/// The node's ticket keys, for one purpose.
pub struct Tickets {
    purpose: Purpose,
    /// How long the node seals with a secret of its own, milliseconds.
    rotation: i64,
    /// From when the milliseconds of keys count.
    base: Instant,
    keys: RwLock<Vec<Key>>,
}

/// What a session may be taken up for: who got in by one is not let in by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// The listener.
    pub listener: &'static str,
    /// What is asked of clients' certificates.
    pub client_authentication: &'static str,
    /// The version of the truststore that they were checked against; 0: none.
    pub truststore_version: u64,
}

/// A secret as it travels. Times are milliseconds from the moment of sending; negative: in the past.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedKey {
    /// From which everything is derived.
    pub secret: [u8; SECRET],
    /// Whether all nodes hold it.
    pub shared: bool,
    /// When sealing begins.
    pub seals_from: i64,
    /// When sealing ends.
    pub seals_until: i64,
    /// When it is forgotten.
    pub opens_until: i64,
}

struct Key {
    /// Times count from the base.
    saved: SavedKey,
    derived: hkdf::Prk,
    name: [u8; NAME],
    salt: [u8; SALT],
    sealer: LessSafeKey,
    sealed: AtomicU64,
}

// === impl Purpose ===

impl Purpose {
    /// HTTPS, open to every client.
    pub fn https() -> Self {
        Self {
            listener: "https",
            client_authentication: "none",
            truststore_version: 0,
        }
    }

    /// The same bytes for the same purpose, and for no other.
    fn info(&self) -> Vec<u8> {
        let mut info = Vec::new();
        for text in [self.listener, self.client_authentication] {
            info.extend_from_slice(&(text.len() as u64).to_be_bytes());
            info.extend_from_slice(text.as_bytes());
        }
        info.extend_from_slice(&self.truststore_version.to_be_bytes());
        info
    }
}

// === impl Tickets ===

impl Tickets {
    /// No secrets yet: the first ticket makes one, unless others are installed before.
    pub fn new(purpose: Purpose, rotation: Duration) -> Self {
        Self {
            purpose,
            rotation: i64::try_from(rotation.as_millis()).unwrap_or(i64::MAX / 4),
            base: Instant::now(),
            keys: RwLock::default(),
        }
    }

    /// Puts secrets in the place of the shared ones that are held. What is still good of the node's own opens on.
    pub fn install(&self, given: Vec<SavedKey>) {
        self.put(given, |held| !held.saved.shared);
    }

    /// Goes on with another process's secrets.
    pub fn restore(&self, given: Vec<SavedKey>) {
        self.put(given, |_| false);
    }

    fn put(&self, given: Vec<SavedKey>, stays: impl Fn(&Key) -> bool) {
        let now = self.now();
        let mut held = self.write();
        let old = std::mem::take(&mut *held);
        let (mut keys, mut gone): (Vec<_>, Vec<_>) = old.into_iter().partition(stays);
        for saved in given.into_iter().take(SHARED_MAX) {
            let saved = saved.later(now);
            if saved.opens_until <= now {
                continue;
            }
            // One that is held goes on under its salt.
            match gone.iter().position(|key| key.saved.secret == saved.secret) {
                Some(at) => {
                    let mut key = gone.swap_remove(at);
                    key.saved = saved;
                    keys.push(key);
                }
                None => keys.extend(Key::new(saved, &self.purpose)),
            }
        }
        *held = keys;
    }

    /// Whether there are secrets that all nodes hold.
    pub fn has_shared(&self) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().any(|key| key.saved.shared)
    }

    /// The secrets, for the process that takes over, or for the disk.
    pub fn save(&self) -> Vec<SavedKey> {
        let now = self.now();
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let save = |key: &Key| key.saved.clone().later(-now);
        keys.iter().map(save).collect()
    }

    /// Forgets secrets whose time is over. Returns whether there were any. Called now and then: nothing else forgets them
    /// where no client comes.
    pub fn forget(&self) -> bool {
        let now = self.now();
        let over = |key: &Key| key.saved.opens_until <= now;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let any = keys.iter().any(over);
        drop(keys);
        if any {
            self.write().retain(|key| !over(key));
        }
        any
    }

    fn now(&self) -> i64 {
        i64::try_from(self.base.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Key>> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a secret where there is none to seal with, and a salt where one is used up. Never waits: whoever comes next
    /// finds it done or does it.
    fn renew(&self, now: i64) {
        let mut keys = match self.keys.try_write() {
            Ok(keys) => keys,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        keys.retain(|key| key.saved.opens_until > now);
        match sealing(&keys, now) {
            Some(at) if keys[at].sealed.load(Ordering::Relaxed) < SEALS => {}
            Some(at) => {
                let saved = keys[at].saved.clone();
                if let Some(salted) = Key::new(saved, &self.purpose) {
                    keys[at] = salted;
                }
            }
            None => {
                let mut secret = [0; SECRET];
                if rand::fill(&mut secret).is_err() {
                    return;
                }
                let saved = SavedKey {
                    secret,
                    shared: false,
                    seals_from: now,
                    seals_until: now.saturating_add(self.rotation),
                    opens_until: now.saturating_add(2 * self.rotation),
                };
                secret.zeroize();
                keys.extend(Key::new(saved, &self.purpose));
            }
        }
    }

    /// A shard does not wait for another that changes the keys: it goes without a ticket for once.
    fn read<T>(&self, with: impl FnOnce(&[Key]) -> Option<T>) -> Option<T> {
        match self.keys.try_read() {
            Ok(keys) => with(&keys),
            Err(TryLockError::Poisoned(poisoned)) => with(&poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Which key seals at a moment: a shared one before the node's own, and the newest of them.
fn sealing(keys: &[Key], now: i64) -> Option<usize> {
    let seals = |key: &Key| key.saved.seals_from <= now && now < key.saved.seals_until;
    let known = keys.iter().enumerate().filter(|(_, key)| seals(key));
    known
        .max_by_key(|(_, key)| (key.saved.shared, key.saved.seals_from))
        .map(|(at, _)| at)
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        let now = self.now();
        let left = |keys: &[Key]| {
            let at = sealing(keys, now)?;
            u32::try_from(((keys[at].saved.opens_until - now) / 1000).clamp(0, LIFETIME_MAX)).ok()
        };
        // 0: not to be kept.
        self.read(left).unwrap_or(0)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let now = self.now();
        let seal = |keys: &[Key]| keys[sealing(keys, now)?].seal(plain);
        self.read(seal).or_else(|| {
            self.renew(now);
            self.read(seal)
        })
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (salt, rest) = rest.split_first_chunk::<SALT>()?;
        let now = self.now();
        self.read(|keys| {
            let named = |key: &&Key| key.name == *name && key.saved.opens_until > now;
            keys.iter().find(named)?.open(salt, rest, &self.purpose)
        })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

// === impl SavedKey ===

impl SavedKey {
    /// The same with all times moved by so many milliseconds.
    #[must_use]
    pub fn later(mut self, by: i64) -> Self {
        for time in [&mut self.seals_from, &mut self.seals_until, &mut self.opens_until] {
            *time = time.saturating_add(by);
        }
        self
    }
}

impl fmt::Debug for SavedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SavedKey")
    }
}

impl Drop for SavedKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

// === impl Key ===

impl Key {
    fn new(saved: SavedKey, purpose: &Purpose) -> Option<Self> {
        let derived =
            hkdf::Salt::new(hkdf::HKDF_SHA256, b"tidegate session tickets 1").extract(&saved.secret);
        let mut name = [0; NAME];
        expand(&derived, &[b"name", &purpose.info()], &mut name)?;
        let mut salt = [0; SALT];
        rand::fill(&mut salt).ok()?;
        let sealer = sealer(&derived, &salt, purpose)?;
        Some(Self {
            saved,
            derived,
            name,
            salt,
            sealer,
            sealed: AtomicU64::new(0),
        })
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if self.sealed.fetch_add(1, Ordering::Relaxed) >= SEALS {
            return None;
        }
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let head = NAME + SALT + NONCE_LEN;
        let mut ticket = Vec::with_capacity(head + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(&self.salt);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .sealer
            .seal_in_place_separate_tag(nonce, Aad::from(self.name), &mut ticket[head..])
            .ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, salt: &[u8; SALT], rest: &[u8], purpose: &Purpose) -> Option<Vec<u8>> {
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let another;
        let sealer = if *salt == self.salt {
            &self.sealer
        } else {
            another = sealer(&self.derived, salt, purpose)?;
            &another
        };
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = sealer
            .open_in_place(nonce, Aad::from(self.name), &mut sealed)
            .ok()?
            .len();
        sealed.truncate(plain);
        Some(sealed)
    }
}

/// What a process with this salt seals with.
fn sealer(derived: &hkdf::Prk, salt: &[u8; SALT], purpose: &Purpose) -> Option<LessSafeKey> {
    let mut key = Zeroizing::new([0; KEY]);
    expand(derived, &[b"key", salt, &purpose.info()], &mut *key)?;
    Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*key).ok()?))
}

fn expand(derived: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) -> Option<()> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    derived.expand(info, Length(out.len())).ok()?.fill(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROTATION: Duration = Duration::from_secs(12 * 3_600);
    const HOUR: i64 = 3_600_000;

    fn tickets() -> Tickets {
        Tickets::new(Purpose::https(), ROTATION)
    }

    fn shared(secret: u8, seals_from: i64) -> SavedKey {
        SavedKey {
            secret: [secret; SECRET],
            shared: true,
            seals_from,
            seals_until: seals_from + 12 * HOUR,
            opens_until: seals_from + 24 * HOUR,
        }
    }

    /// Lets time pass.
    fn age(tickets: &Tickets, hours: i64) {
        for key in tickets.write().iter_mut() {
            key.saved = key.saved.clone().later(-hours * HOUR);
        }
    }

    fn opens(tickets: &Tickets, ticket: &[u8]) -> bool {
        tickets.decrypt(ticket).as_deref() == Some(b"session")
    }

    #[test]
    fn a_ticket_opens_where_it_was_sealed_and_nowhere_else() {
        let tickets = tickets();
        let ticket = tickets.encrypt(b"session").unwrap();
        assert!(opens(&tickets, &ticket));
        let other = self::tickets();
        other.encrypt(b"other").unwrap();
        assert_eq!(other.decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut at {at}");
        }
    }

    /// D18: nodes that were given the same secrets open each other's tickets, under keys of their own.
    #[test]
    fn a_ticket_opens_on_every_node() {
        let (one, two) = (tickets(), tickets());
        one.install(vec![shared(1, -HOUR), shared(2, 11 * HOUR)]);
        two.install(vec![shared(2, 11 * HOUR), shared(1, -HOUR)]);
        let (first, second) = (one.encrypt(b"session").unwrap(), two.encrypt(b"session").unwrap());
        assert!(opens(&two, &first) && opens(&one, &second));
        assert_eq!(first[..NAME], second[..NAME]);
        assert_ne!(first[NAME..NAME + SALT], second[NAME..NAME + SALT]);
        // One has gone on to the next already.
        age(&one, 11);
        let third = one.encrypt(b"session").unwrap();
        assert_ne!(first[..NAME], third[..NAME]);
        assert!(opens(&two, &third) && opens(&one, &first));
    }

    /// D18: a session is taken up for what it began for.
    #[test]
    fn purposes_share_nothing() {
        let purposes = [
            Purpose::https(),
            Purpose {
                listener: "private",
                ..Purpose::https()
            },
            Purpose {
                client_authentication: "required",
                truststore_version: 1,
                ..Purpose::https()
            },
            Purpose {
                client_authentication: "required",
                truststore_version: 2,
                ..Purpose::https()
            },
        ];
        let all = purposes.map(|purpose| {
            let tickets = Tickets::new(purpose, ROTATION);
            tickets.install(vec![shared(1, 0)]);
            tickets
        });
        for (sealer, one) in all.iter().enumerate() {
            let ticket = one.encrypt(b"session").unwrap();
            for (opener, other) in all.iter().enumerate() {
                assert_eq!(opens(other, &ticket), sealer == opener, "{sealer} {opener}");
                // Nor under the other's name.
                let mut renamed = ticket.clone();
                renamed[..NAME].copy_from_slice(&other.encrypt(b"x").unwrap()[..NAME]);
                assert_eq!(opens(other, &renamed), sealer == opener, "{sealer} {opener}");
            }
        }
    }

    /// D17: secrets travel, through their written form.
    #[test]
    fn a_ticket_opens_after_a_hand_over() {
        let (old, new) = (tickets(), tickets());
        let own = old.encrypt(b"session").unwrap();
        old.install(vec![shared(1, -HOUR)]);
        let given = old.encrypt(b"session").unwrap();
        let text = serde_json::to_string(&old.save()).unwrap();
        new.restore(serde_json::from_str(&text).unwrap());
        assert!(opens(&new, &own) && opens(&new, &given));
        assert!(opens(&old, &new.encrypt(b"session").unwrap()));
    }

    /// The node's own: a secret opens for one turn after it was replaced, and is then forgotten.
    #[test]
    fn own_secrets_are_turned_over() {
        let tickets = tickets();
        let first = tickets.encrypt(b"session").unwrap();
        // Two turns, less the time that the test takes.
        assert!((86_000..=86_400).contains(&tickets.lifetime()));
        age(&tickets, 12);
        let second = tickets.encrypt(b"session").unwrap();
        assert_ne!(first[..NAME], second[..NAME]);
        assert!(opens(&tickets, &first) && !tickets.forget());
        age(&tickets, 12);
        assert!(!opens(&tickets, &first) && opens(&tickets, &second));
        assert!(tickets.forget());
        assert_eq!(tickets.save().len(), 1);
        age(&tickets, 12);
        assert!(tickets.forget());
        assert!(tickets.save().is_empty());
    }

    /// Where the control plane is away for longer than its secrets are good, the node goes on with its own; what is given
    /// later is taken at once.
    #[test]
    fn the_nodes_own_stand_in_for_shared_ones() {
        let tickets = tickets();
        let own = tickets.encrypt(b"session").unwrap();
        tickets.install(vec![shared(1, -HOUR)]);
        let given = tickets.encrypt(b"session").unwrap();
        assert_ne!(own[..NAME], given[..NAME]);
        assert!(opens(&tickets, &own) && tickets.has_shared());
        age(&tickets, 11);
        let after = tickets.encrypt(b"session").unwrap();
        assert_ne!(given[..NAME], after[..NAME]);
        assert!(opens(&tickets, &given));
        tickets.install(vec![shared(2, 0)]);
        assert!(!opens(&tickets, &given), "the control plane has forgotten it");
        assert!(opens(&tickets, &after));
        assert_ne!(tickets.encrypt(b"session").unwrap()[..NAME], after[..NAME]);
    }

    /// A salt that has sealed enough is replaced; its tickets open on.
    #[test]
    fn a_salt_is_used_for_so_many_tickets() {
        let tickets = tickets();
        tickets.install(vec![shared(1, 0)]);
        let first = tickets.encrypt(b"session").unwrap();
        tickets.write()[0].sealed.store(SEALS, Ordering::Relaxed);
        let second = tickets.encrypt(b"session").unwrap();
        assert_eq!(first[..NAME], second[..NAME]);
        assert_ne!(first[NAME..NAME + SALT], second[NAME..NAME + SALT]);
        assert!(opens(&tickets, &first) && opens(&tickets, &second));
    }

    #[test]
    fn secrets_are_not_shown() {
        let tickets = tickets();
        tickets.encrypt(b"session").unwrap();
        assert_eq!(format!("{tickets:?} {:?}", tickets.save()), "Tickets [SavedKey]");
    }
}
