//! One token bucket for the node, in one atomic word.

use std::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds since an instant that every shard of the process shares. Good for nine years.
pub type Nanos = u64;

/// How many requests a bucket lets through: none, all, or a rate with a burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Ticks a token takes to grow; 0 where there is no limit.
    interval: u64,
    /// Tokens the bucket holds at most; 0 where nothing passes.
    burst: u64,
}

impl Limit {
    /// No limit at all.
    pub const NONE: Limit = Limit {
        interval: 0,
        burst: 0,
    };

    /// Everything is refused.
    pub const NOTHING: Limit = Limit {
        interval: 1,
        burst: 0,
    };

    /// A limit as users write it: requests a second (fractions allowed) and the size of the bucket.
    ///
    /// A negative rate is no limit. A rate of 0, or a burst of 0, refuses every request. A negative burst beside
    /// a rate leaves the size to us: one second's worth, at least one. Rates above 100,000,000 a second are cut
    /// to that; buckets that would take more than four years to fill are cut to four years.
    pub fn new(rate: f64, burst: i64) -> Result<Limit, InvalidLimit> {
        if rate.is_nan() {
            return Err(InvalidLimit);
        }
        if rate < 0.0 {
            return Ok(Limit::NONE);
        }
        if rate == 0.0 || burst == 0 {
            return Ok(Limit::NOTHING);
        }
        let rate = rate.min(MAX_RATE);
        // Rounded up: the bucket may be slower than asked by one part in 80,000 at 100,000 a second, never faster.
        let interval = ((TICKS_PER_SECOND / rate).ceil() as u64).min(MAX_WINDOW);
        let burst = if burst < 0 {
            (rate as u64).max(1)
        } else {
            burst as u64
        };
        Ok(Limit {
            interval,
            burst: burst.min(MAX_WINDOW / interval),
        })
    }

    /// Whether this lets everything pass.
    pub fn is_none(&self) -> bool {
        self.interval == 0
    }

    fn window(&self) -> u64 {
        self.interval * self.burst
    }

    /// Ticks up to which the bucket counts as spent: what the word says, and never earlier than what leaves room
    /// for the tokens on loan. The second part keeps level and loans together within the burst.
    fn spent_until(&self, word: Word, lent: u64, now: u64) -> u64 {
        word.time()
            .max(now.saturating_add(lent.saturating_mul(self.interval)))
    }

    /// Ticks' worth of tokens that can be taken.
    fn available(&self, word: Word, lent: u64, now: u64) -> u64 {
        (now + self.window()).saturating_sub(self.spent_until(word, lent, now))
    }
}

/// A rate that is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the throttling rate is not a number; give requests per second, or a negative number for no limit")]
pub struct InvalidLimit;

/// A token bucket that every shard of the node takes from (GCRA: the word is the time at which the bucket would
/// be full again).
///
/// Shards only ever load it and compare-and-swap it. Aligned so that two busy cells never share a cache line,
/// nor the pair of lines that the prefetcher fetches together.
#[derive(Debug)]
#[repr(align(128))]
pub struct Cell {
    word: AtomicU64,
    /// Tokens that shards hold as credit, spent or not, and have not accounted for.
    lent: AtomicU64,
    /// The limit for each generation a word can name. Only the word's generation is in force; the next one is
    /// written before a word names it, so a taker never mixes one limit's word with another's numbers.
    limits: [SharedLimit; GENERATIONS],
}

#[derive(Debug, Default)]
struct SharedLimit {
    interval: AtomicU64,
    burst: AtomicU64,
}

/// What a cell answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    Refused,
    /// There is no limit: nothing was taken.
    Unlimited,
    /// One token, and as many more on loan.
    Token {
        loan: u32,
    },
}

impl Cell {
    /// A full bucket.
    pub fn new(limit: Limit) -> Cell {
        let cell = Cell {
            word: AtomicU64::new(Word::new(0, 0).0),
            lent: AtomicU64::new(0),
            limits: Default::default(),
        };
        cell.limits[0].store(limit);
        cell
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        let word = Word(self.word.load(Ordering::Acquire));
        self.limits[word.generation()].load()
    }

    /// Whole tokens in the bucket. For status and tests: it may have changed by the time it is read.
    pub fn level(&self, now: Nanos) -> u64 {
        let (limit, available) = self.look(now);
        if limit.is_none() {
            u64::MAX
        } else {
            available / limit.interval
        }
    }

    /// Whether a request would get a token now.
    pub(super) fn would_admit(&self, now: Nanos) -> bool {
        let (limit, available) = self.look(now);
        limit.is_none() || available >= limit.interval
    }

    /// Whether the bucket is full and nothing is on loan: dropping it and making it anew changes nothing.
    pub(super) fn is_untouched(&self, now: Nanos) -> bool {
        let (limit, available) = self.look(now);
        self.lent.load(Ordering::Acquire) == 0 && (limit.is_none() || available >= limit.window())
    }

    fn look(&self, now: Nanos) -> (Limit, u64) {
        let word = Word(self.word.load(Ordering::Acquire));
        let limit = self.limits[word.generation()].load();
        (
            limit,
            limit.available(word, self.lent.load(Ordering::Acquire), ticks(now)),
        )
    }

    /// Takes one token, and a loan where the bucket is full enough for `shards` of them.
    pub(super) fn take(&self, now: Nanos, shards: u32) -> Grant {
        let now = ticks(now);
        let mut word = Word(self.word.load(Ordering::Acquire));
        loop {
            let limit = self.limits[word.generation()].load();
            if limit.is_none() {
                return Grant::Unlimited;
            }
            // Read after the word: whoever's loan is in the word is in this number too.
            let lent = self.lent.load(Ordering::Acquire);
            let available = limit.available(word, lent, now);
            if available < limit.interval {
                return Grant::Refused;
            }
            let loan = loan_size(&limit, available, lent, shards);
            if loan > 0 {
                self.lent.fetch_add(loan, Ordering::AcqRel);
            }
            let next = limit.spent_until(word, lent, now) + (1 + loan) * limit.interval;
            match self.swap(word, word.at(next)) {
                Ok(()) => return Grant::Token { loan: loan as u32 },
                Err(seen) => {
                    if loan > 0 {
                        self.lent.fetch_sub(loan, Ordering::AcqRel);
                    }
                    word = seen;
                }
            }
        }
    }

    /// Puts a token back that was taken this instant.
    pub(super) fn give_back(&self) {
        self.adjust(|limit, word| word.time().saturating_sub(limit.interval));
    }

    /// Ends a loan of `lent` tokens of which `unused` come back; the others were used until `used_at`.
    ///
    /// While the loan was out the bucket stood short of full by the whole of it. What was used stays missing from
    /// that moment on, and grows back at the rate like any token.
    pub(super) fn repay(&self, lent: u64, unused: u64, used_at: Nanos) {
        let used_at = ticks(used_at);
        self.adjust(|limit, word| {
            let spent = limit.spent_until(word, self.lent.load(Ordering::Acquire), used_at);
            spent.saturating_sub(unused.saturating_mul(limit.interval))
        });
        // After the tokens are back: in between they count twice against the bucket, never not at all.
        self.lent.fetch_sub(lent, Ordering::AcqRel);
    }

    fn adjust(&self, time: impl Fn(&Limit, Word) -> u64) {
        let mut word = Word(self.word.load(Ordering::Acquire));
        loop {
            let next = word.at(time(&self.limits[word.generation()].load(), word).min(MAX_TIME));
            if next == word {
                return;
            }
            match self.swap(word, next) {
                Ok(()) => return,
                Err(seen) => word = seen,
            }
        }
    }

    /// Puts another limit in force and keeps the level: as many tokens as there were, at most the new burst.
    ///
    /// Only the registry's owner calls this; two at once would write the same generation.
    pub(super) fn reconfigure(&self, new: Limit, now: Nanos) {
        let now = ticks(now);
        let mut word = Word(self.word.load(Ordering::Acquire));
        loop {
            let old = self.limits[word.generation()].load();
            let generation = (word.generation() + 1) % GENERATIONS;
            self.limits[generation].store(new);
            let level = if old.is_none() {
                new.burst as f64
            } else {
                let available = old.available(word, self.lent.load(Ordering::Acquire), now);
                (available as f64 / old.interval as f64).min(new.burst as f64)
            };
            let time = (now + new.window()).saturating_sub((level * new.interval as f64) as u64);
            match self.swap(word, Word::new(time, generation)) {
                Ok(()) => return,
                Err(seen) => word = seen,
            }
        }
    }

    fn swap(&self, from: Word, to: Word) -> Result<(), Word> {
        self.word
            .compare_exchange_weak(from.0, to.0, Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(Word)
    }
}

impl SharedLimit {
    // Relaxed is enough: a word that names this limit was published after it was stored, and a taker that read
    // while a later limit was being stored loses its compare-and-swap.
    fn store(&self, limit: Limit) {
        self.interval.store(limit.interval, Ordering::Relaxed);
        self.burst.store(limit.burst, Ordering::Relaxed);
    }

    fn load(&self) -> Limit {
        Limit {
            interval: self.interval.load(Ordering::Relaxed),
            burst: self.burst.load(Ordering::Relaxed),
        }
    }
}

/// How many tokens beyond the one asked for a shard may take along.
fn loan_size(limit: &Limit, available: u64, lent: u64, shards: u32) -> u64 {
    // Most buckets are too small ever to lend: no division for them.
    if limit.burst < LOAN_SHARE * u64::from(shards) {
        return 0;
    }
    let level = available / limit.interval;
    let lendable = level / LOAN_SHARE;
    (lendable / u64::from(shards))
        .min(lendable.saturating_sub(lent))
        .min(MAX_LOAN)
        .min(level - 1)
}

/// The time at which the bucket would be full, in ticks, and the generation of the limit it is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

impl Word {
    fn new(time: u64, generation: usize) -> Word {
        Word(time << GENERATION_BITS | generation as u64)
    }

    fn time(self) -> u64 {
        self.0 >> GENERATION_BITS
    }

    fn generation(self) -> usize {
        (self.0 & (GENERATIONS as u64 - 1)) as usize
    }

    fn at(self, time: u64) -> Word {
        Word::new(time, self.generation())
    }
}

fn ticks(now: Nanos) -> u64 {
    now.saturating_mul(TICKS_PER_NANOSECOND).min(MAX_NOW)
}

/// Finer than a nanosecond, so that an interval rounded up to whole ticks is still the rate that was asked for.
const TICKS_PER_NANOSECOND: u64 = 8;
const TICKS_PER_SECOND: f64 = 8e9;

const GENERATION_BITS: u32 = 2;
const GENERATIONS: usize = 1 << GENERATION_BITS;

// A word holds 62 bits of time: `now` and a whole window stay below that together.
const MAX_NOW: u64 = 1 << 61;
const MAX_TIME: u64 = (1 << 62) - 1;
const MAX_WINDOW: u64 = 1 << 60;

const MAX_RATE: f64 = 1e8;

/// At most one part in this many of what a bucket holds is on loan. A burst that drains the bucket can find less
/// than an exact bucket would hand out by three such parts: what was on loan when it began, what was repaid so
/// late that it has not grown again, and what idle shards hold when it ends. Together that is less than 0.8%,
/// where 1% is promised.
const LOAN_SHARE: u64 = 384;

/// More at a time saves nothing more.
const MAX_LOAN: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn drain(cell: &Cell, now: Nanos) -> u64 {
        let mut taken = 0;
        while let Grant::Token { loan } = cell.take(now, 1) {
            taken += 1 + u64::from(loan);
            cell.lent.fetch_sub(u64::from(loan), Ordering::AcqRel);
        }
        taken
    }

    /// SEC-074: rate refills, burst is the capacity, one request takes one token.
    #[test]
    fn a_bucket_holds_its_burst_and_refills_at_its_rate() {
        let cell = Cell::new(Limit::new(100.0, 50).unwrap());
        let start = 7 * SECOND;
        assert_eq!(drain(&cell, start), 50);
        assert_eq!(drain(&cell, start + SECOND / 10), 10);
        assert_eq!(drain(&cell, start + 3600 * SECOND), 50);
    }

    /// USE-053: fractions of a request per second.
    #[test]
    fn a_tenth_of_a_request_per_second_is_one_in_ten_seconds() {
        let cell = Cell::new(Limit::new(0.1, 1).unwrap());
        assert_eq!(drain(&cell, 0), 1);
        assert_eq!(drain(&cell, 10 * SECOND - 1), 0);
        assert_eq!(drain(&cell, 10 * SECOND), 1);
    }

    /// USE-053, TFC-165: 0 refuses everything, negative is no limit.
    #[test]
    fn zero_refuses_and_negative_is_no_limit() {
        for limit in [Limit::new(0.0, 10), Limit::new(10.0, 0), Limit::new(-0.0, -1)] {
            assert_eq!(Cell::new(limit.unwrap()).take(SECOND, 1), Grant::Refused);
        }
        for limit in [
            Limit::new(-1.0, -1),
            Limit::new(-1.0, 5),
            Limit::new(f64::NEG_INFINITY, 0),
        ] {
            assert_eq!(Cell::new(limit.unwrap()).take(SECOND, 1), Grant::Unlimited);
        }
        assert_eq!(Limit::new(f64::NAN, 1), Err(InvalidLimit));
        assert_eq!(drain(&Cell::new(Limit::new(7.5, -1).unwrap()), 0), 7);
    }

    #[test]
    fn extreme_numbers_stay_in_range() {
        for rate in [1e-300, 1e-9, 0.1, 1e8, 1e300, f64::INFINITY] {
            for burst in [1, 1000, i64::MAX] {
                let cell = Cell::new(Limit::new(rate, burst).unwrap());
                assert!(matches!(cell.take(0, 64), Grant::Token { .. }), "{rate} {burst}");
                for now in [0, SECOND, u64::MAX / 16, u64::MAX] {
                    cell.take(now, 64);
                    cell.give_back();
                    cell.repay(0, u64::MAX / 2, now);
                    cell.reconfigure(Limit::new(rate / 2.0, burst).unwrap(), now);
                }
            }
        }
    }

    /// D9: another limit keeps the level.
    #[test]
    fn reconfiguring_keeps_the_level() {
        let cell = Cell::new(Limit::new(10.0, 100).unwrap());
        let now = 5 * SECOND;
        for _ in 0..70 {
            cell.take(now, 64);
        }
        assert_eq!(cell.level(now), 30);
        for (rate, burst, level) in [(1000.0, 100, 30), (0.1, 500, 30), (50.0, 20, 20), (50.0, 200, 20)] {
            cell.reconfigure(Limit::new(rate, burst).unwrap(), now);
            assert_eq!(cell.level(now), level, "{rate}/{burst}");
        }
        assert_eq!(cell.level(now + SECOND), 70);
        cell.reconfigure(Limit::NOTHING, now + SECOND);
        assert_eq!(cell.take(now + SECOND, 1), Grant::Refused);
        cell.reconfigure(Limit::new(10.0, 10).unwrap(), now + SECOND);
        assert_eq!(cell.level(now + SECOND), 0);
        cell.reconfigure(Limit::NONE, now + SECOND);
        cell.reconfigure(Limit::new(10.0, 10).unwrap(), now + SECOND);
        assert_eq!(cell.level(now + SECOND), 10);
    }

    #[test]
    fn what_is_on_loan_is_not_filled_up_again() {
        let cell = Cell::new(Limit::new(1000.0, 100_000).unwrap());
        let Grant::Token { loan } = cell.take(0, 4) else {
            panic!("the bucket is full")
        };
        assert_eq!(loan, 64);
        let later = 1000 * SECOND;
        assert_eq!(cell.level(later), 100_000 - 64);
        assert!(!cell.is_untouched(later));
        cell.repay(64, 60, later);
        assert_eq!(cell.level(later), 100_000 - 4);
        assert!(!cell.is_untouched(later));
        assert!(cell.is_untouched(later + SECOND / 250));
    }

    #[test]
    fn a_shard_with_an_older_clock_gets_no_more() {
        let cell = Cell::new(Limit::new(10.0, 10).unwrap());
        assert_eq!(drain(&cell, 10 * SECOND), 10);
        assert_eq!(drain(&cell, 9 * SECOND), 0);
        assert_eq!(drain(&cell, 10 * SECOND + SECOND / 10), 1);
    }
}
