//! Passive health of a target's addresses: one that takes no connection several times in a row gets none for a while.
//!
//! The verdict is the node's, a bit an address in one atomic (decision D11): whatever one shard finds out holds for all,
//! and asking costs one load where nothing is ejected. What counts is connecting alone (refused, reset, timed out, TLS
//! failed, or so slow that an address tried later came first). A backend's answers, 5xx included, are its own business
//! and the API's.
//!
//! An address is out for a time that doubles with each ejection in a row. Then it is tried again, and one more failure
//! ejects it again. Never are more addresses out than the table's share of them, hence never all.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidegate_plan::{Limit, Limits};
use tidegate_rt::Instant;

/// Addresses of a target that are watched; a word's bits.
pub const WATCHED: usize = u64::BITS as usize;

/// When an address is ejected and for how long, from the table of limits.
#[derive(Debug, Clone, Copy)]
pub struct HealthLimits {
    /// Failures in a row that eject; 0: nothing is ever ejected.
    pub failures: u32,
    /// How long the first time.
    pub time: Duration,
    /// How long at most.
    pub longest: Duration,
    /// Addresses that may be out, in a hundred.
    pub percent: u32,
}

impl HealthLimits {
    /// The rows in force.
    pub fn new(limits: &Limits) -> Self {
        let number = |limit| u32::try_from(limits.get(limit)).unwrap_or(u32::MAX);
        let time = limits.duration(Limit::EjectionTime);
        Self {
            failures: number(Limit::EjectionFailures),
            time,
            longest: limits.duration(Limit::EjectionTimeMax).max(time),
            percent: number(Limit::EjectionPercent),
        }
    }
}

/// The health of one target's addresses, shared by all shards.
#[derive(Debug)]
pub struct Health {
    limits: HealthLimits,
    begun: Instant,
    /// Places that get no connections.
    ejected: AtomicU64,
    /// Places of the addresses that the name has now.
    current: AtomicU64,
    places: Box<[Record; WATCHED]>,
    /// Whose each place is. Locked where a name was resolved, never while a request is served.
    owners: Mutex<[Option<IpAddr>; WATCHED]>,
}

/// What is known of the address in a place.
#[derive(Debug, Default)]
struct Record {
    /// Tells a place's owners apart, so that a late report does not strike the next one.
    owner: AtomicU32,
    failures: AtomicU32,
    /// Ejections with no success in between.
    ejections: AtomicU32,
    /// Until when it is out, in nanoseconds since [`Health::begun`].
    until: AtomicU64,
}

/// Where an address stands in a [`Health`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    at: u8,
    owner: u32,
}

impl Health {
    /// No addresses yet.
    pub fn new(limits: HealthLimits, now: Instant) -> Self {
        Self {
            limits,
            begun: now,
            ejected: AtomicU64::new(0),
            current: AtomicU64::new(0),
            places: Box::new(std::array::from_fn(|_| Record::default())),
            owners: Mutex::new([None; WATCHED]),
        }
    }

    /// The places of the addresses that a name has now, in their order. One that was there before keeps what is known
    /// of it. `None` for those that there is no place for.
    pub fn place(&self, addresses: &[IpAddr]) -> Vec<Option<Place>> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: HashSet<_> = addresses.iter().collect();
        let mut current = 0;
        let places = addresses
            .iter()
            .map(|address| {
                let known = owners.iter().position(|owner| owner.as_ref() == Some(address));
                let at = known.or_else(|| {
                    let vacant = |owner: &Option<IpAddr>| owner.is_none_or(|owner| !wanted.contains(&owner));
                    let at = owners
                        .iter()
                        .position(Option::is_none)
                        .or_else(|| owners.iter().position(vacant))?;
                    owners[at] = Some(*address);
                    self.clear(at);
                    Some(at)
                })?;
                current |= 1 << at;
                Some(Place {
                    at: u8::try_from(at).ok()?,
                    owner: self.places[at].owner.load(Ordering::Relaxed),
                })
            })
            .collect();
        self.current.store(current, Ordering::Relaxed);
        places
    }

    /// The places that get no connections at this moment.
    pub fn ejected(&self, now: Instant) -> Ejected {
        let mut ejected = self.ejected.load(Ordering::Relaxed);
        let mut left = ejected;
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            left &= left - 1;
            if self.places[at].until.load(Ordering::Relaxed) <= self.since(now) {
                // On probation: one failure more, and it is out again.
                let before = self.limits.failures.saturating_sub(1);
                self.places[at].failures.store(before, Ordering::Relaxed);
                self.ejected.fetch_and(!(1 << at), Ordering::Relaxed);
                ejected &= !(1 << at);
            }
        }
        Ejected(ejected)
    }

    /// A connection to the address was made.
    pub fn succeeded(&self, place: Place) {
        let record = &self.places[usize::from(place.at)];
        // As a rule there is nothing to write, and the shards keep the line in their caches.
        if record.owner.load(Ordering::Relaxed) != place.owner
            || record.failures.load(Ordering::Relaxed) == 0 && record.ejections.load(Ordering::Relaxed) == 0
        {
            return;
        }
        record.failures.store(0, Ordering::Relaxed);
        record.ejections.store(0, Ordering::Relaxed);
        self.ejected.fetch_and(!(1 << place.at), Ordering::Relaxed);
    }

    /// A connection to the address could not be made. Returns for how long it is out, where this was one failure too
    /// many.
    pub fn failed(&self, place: Place, now: Instant) -> Option<Duration> {
        let record = &self.places[usize::from(place.at)];
        if self.limits.failures == 0 || record.owner.load(Ordering::Relaxed) != place.owner {
            return None;
        }
        let failures = record.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < self.limits.failures {
            return None;
        }
        let before = record.ejections.load(Ordering::Relaxed);
        let time = self
            .limits
            .time
            .saturating_mul(1_u32.checked_shl(before).unwrap_or(u32::MAX))
            .min(self.limits.longest);
        let until = self.since(now).saturating_add(nanos(time));
        let current = self.current.load(Ordering::Relaxed);
        let bit = 1 << place.at;
        // Before the bit is seen: who sees it looks here for its end.
        let unless_out = self.ejected.load(Ordering::Relaxed) & bit == 0;
        if unless_out {
            record.until.store(until, Ordering::Relaxed);
        }
        let ejected = self
            .ejected
            .fetch_update(Ordering::Release, Ordering::Relaxed, |ejected| {
                let out = ((ejected | bit) & current).count_ones();
                let allowed = u64::from(self.limits.percent) * u64::from(current.count_ones());
                (ejected & bit == 0 && u64::from(out) * 100 <= allowed).then_some(ejected | bit)
            });
        ejected.ok()?;
        record
            .ejections
            .store(before.saturating_add(1), Ordering::Relaxed);
        Some(time)
    }

    fn clear(&self, at: usize) {
        let record = &self.places[at];
        record.owner.fetch_add(1, Ordering::Relaxed);
        record.failures.store(0, Ordering::Relaxed);
        record.ejections.store(0, Ordering::Relaxed);
        self.ejected.fetch_and(!(1 << at), Ordering::Relaxed);
    }

    fn since(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.begun))
    }
}

/// Which places are out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejected(u64);

impl Ejected {
    /// Whether the address in that place gets no connections.
    pub fn contains(self, place: Option<Place>) -> bool {
        place.is_some_and(|place| self.0 & (1 << place.at) != 0)
    }

    /// Whether nothing is out.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn health(failures: u32, percent: u32) -> (Health, Instant) {
        let limits = HealthLimits {
            failures,
            time: 10 * SECOND,
            longest: 35 * SECOND,
            percent,
        };
        let now = Instant::now();
        (Health::new(limits, now), now)
    }

    fn places(health: &Health, count: u8) -> Vec<Place> {
        let addresses: Vec<_> = (0..count).map(address).collect();
        health.place(&addresses).into_iter().flatten().collect()
    }

    /// D11.
    #[test]
    fn failures_in_a_row_eject_for_longer_and_longer() {
        let (health, mut now) = health(3, 50);
        let places = places(&health, 2);
        assert_eq!(health.failed(places[0], now), None);
        assert_eq!(health.failed(places[0], now), None);
        health.succeeded(places[0]);
        assert_eq!(health.failed(places[0], now), None);
        assert_eq!(health.failed(places[0], now), None);
        assert!(health.ejected(now).is_empty());
        for seconds in [10, 20, 35, 35] {
            assert_eq!(health.failed(places[0], now), Some(seconds * SECOND));
            assert!(health.ejected(now).contains(Some(places[0])));
            assert!(!health.ejected(now).contains(Some(places[1])));
            // A connection begun before fails later: that changes nothing.
            assert_eq!(health.failed(places[0], now), None);
            now += seconds * SECOND - Duration::from_millis(1);
            assert!(health.ejected(now).contains(Some(places[0])));
            now += Duration::from_millis(1);
            // On probation; the next round's one failure ejects it again.
            assert!(health.ejected(now).is_empty());
        }
        health.succeeded(places[0]);
        assert_eq!(health.failed(places[0], now), None);
        assert_eq!(health.failed(places[0], now), None);
        assert_eq!(health.failed(places[0], now), Some(10 * SECOND));
    }

    /// D11.
    #[test]
    fn never_more_than_their_share_are_out() {
        for (count, percent, out) in [
            (1, 99, 0),
            (2, 50, 1),
            (2, 49, 0),
            (3, 50, 1),
            (10, 99, 9),
            (64, 50, 32),
        ] {
            let (health, now) = health(1, percent);
            let places = places(&health, count);
            let ejected = places
                .iter()
                .filter(|place| health.failed(**place, now).is_some())
                .count();
            assert_eq!(ejected, out, "{percent}% of {count}");
            let seen = health.ejected(now);
            let contained = places.iter().filter(|place| seen.contains(Some(**place))).count();
            assert_eq!(contained, out);
        }
        let (off, now) = health(0, 50);
        let place = places(&off, 2)[0];
        assert!((0..100).all(|_| off.failed(place, now).is_none()));
    }

    /// What is known of an address stays while its name has it, and does not pass to the next in its place.
    #[test]
    fn places_are_kept_and_handed_on_clean() {
        let (health, now) = health(1, 99);
        let first: Vec<_> = (0..64).map(address).collect();
        let before = health.place(&first);
        assert!(before.iter().all(Option::is_some));
        assert!(health.failed(before[7].unwrap(), now).is_some());
        let reversed: Vec<_> = first.iter().rev().copied().collect();
        let again = health.place(&reversed);
        assert_eq!(again[63 - 7], before[7]);
        assert!(health.ejected(now).contains(again[63 - 7]));
        let others: Vec<_> = (100..165).map(address).collect();
        let after = health.place(&others);
        assert_eq!(after.iter().flatten().count(), 64);
        assert_eq!(after[64], None);
        assert!(health.ejected(now).is_empty());
        assert!(health.failed(before[8].unwrap(), now).is_none());
        assert!(!health.ejected(now).contains(None));
    }
}
