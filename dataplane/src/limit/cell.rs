//! One token bucket for the node, in one atomic word.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Nanoseconds since an instant that every shard of the process shares. Good for nine years.
pub type Nanos = u64;

/// How many requests a bucket lets through: none, all, or a rate with a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

    /// Whether its numbers are within what [`Limit::new`] makes: one from another process may be anything.
    pub(super) fn is_sound(&self) -> bool {
        matches!(self.interval.checked_mul(self.burst), Some(window) if window <= MAX_WINDOW)
    }

    fn window(&self) -> u64 {
        self.interval * self.burst
    }

    /// Ticks up to which the bucket counts as spent: what the word says, and never earlier than what leaves room
    /// for the tokens on loan. The second part keeps level and loans together within the burst.
    fn spent_until(&self, word: Word, lent: u64, now: u64) -> u64 {
        word.time().max(now + lent.min(self.burst) * self.interval)
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

/// How far a bucket is from full, in ticks of its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spent(u64);

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
    loans: AtomicU64,
    /// The limit for each generation a word can name. Only the word's generation is in force; the next one is
    /// written before a word names it, so a taker never mixes one limit's word with another's numbers.
    limits: [SharedLimit; GENERATIONS],
    /// Tells the shards that loans are void.
    recall: Arc<Recall>,
}

/// How often loans of the node's cells have been declared void. One for the node, in a line of its own that is
/// seldom written: shards look at it before they use a credit.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Recall(AtomicU64);

impl Recall {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn ring(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
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
    /// One token, and a loan of more.
    Token {
        loan: Loan,
        /// Which limit the token was taken under.
        generation: Generation,
    },
}

/// Tokens that a shard has beyond the one it asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Loan {
    pub(super) tokens: u32,
    /// Void once the cell's loans are of another epoch.
    epoch: u32,
}

/// Names one of the limits that a cell has had lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(u8);

impl Generation {
    /// None of them: what was let through without a limit is not given back.
    pub(super) const NONE: Generation = Generation(u8::MAX);
}

impl Cell {
    /// A full bucket.
    pub(super) fn new(limit: Limit, recall: Arc<Recall>) -> Cell {
        let cell = Cell {
            word: AtomicU64::new(Word::new(0, 0).0),
            loans: AtomicU64::new(Loans::new(0, 0).0),
            limits: Default::default(),
            recall,
        };
        cell.limits[0].store(limit);
        cell
    }

    pub(super) fn recall(&self) -> &Arc<Recall> {
        &self.recall
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

    /// Tokens that shards hold, or have used and not accounted for yet. For status and tests, as the level is.
    pub fn on_loan(&self) -> u64 {
        self.loans().lent()
    }

    /// Whether a request would get a token now.
    pub(super) fn would_admit(&self, now: Nanos) -> bool {
        let (limit, available) = self.look(now);
        limit.is_none() || available >= limit.interval
    }

    /// Whether the bucket is full and nothing is on loan: dropping it and making it anew changes nothing.
    pub(super) fn is_untouched(&self, now: Nanos) -> bool {
        let (limit, available) = self.look(now);
        self.loans().lent() == 0 && (limit.is_none() || available >= limit.window())
    }

    /// How far the bucket is from full, loans included.
    pub(super) fn spent(&self, now: Nanos) -> Spent {
        let (limit, available) = self.look(now);
        Spent(limit.window().saturating_sub(available))
    }

    /// Takes out what was spent of a bucket with limit `of`: as many tokens. Only before shards take from it.
    pub(super) fn spend(&self, of: &Limit, Spent(ticks_spent): Spent, now: Nanos) {
        let now = ticks(now);
        self.adjust(|limit, _| {
            let ticks_spent = if limit.interval == of.interval || of.interval == 0 {
                ticks_spent
            } else {
                (ticks_spent as f64 / of.interval as f64 * limit.interval as f64) as u64
            };
            now + ticks_spent.min(limit.window())
        });
    }

    fn look(&self, now: Nanos) -> (Limit, u64) {
        let word = Word(self.word.load(Ordering::Acquire));
        let limit = self.limits[word.generation()].load();
        (limit, limit.available(word, self.loans().lent(), ticks(now)))
    }

    fn loans(&self) -> Loans {
        Loans(self.loans.load(Ordering::Acquire))
    }

    /// Takes one token, and a loan where the bucket is full enough for `shards` of them.
    #[inline]
    pub(super) fn take(&self, now: Nanos, shards: u32) -> Grant {
        let now = ticks(now);
        let mut word = Word(self.word.load(Ordering::Acquire));
        loop {
            let limit = self.limits[word.generation()].load();
            if limit.is_none() {
                return Grant::Unlimited;
            }
            // Read after the word: whoever's loan is in the word is in this number too.
            let lent = self.loans().lent();
            let available = limit.available(word, lent, now);
            if available < limit.interval {
                return Grant::Refused;
            }
            let size = loan_size(&limit, available, lent, shards);
            let loan = if size > 0 {
                self.lend(size)
            } else {
                Loan::default()
            };
            let taken = 1 + size;
            let next = limit.spent_until(word, lent, now) + taken * limit.interval;
            match self.swap(word, word.at(next)) {
                Ok(()) => {
                    let generation = word.limit_in_force();
                    return Grant::Token { loan, generation };
                }
                Err(seen) => {
                    if size > 0 {
                        self.end(loan);
                    }
                    word = seen;
                }
            }
        }
    }

    /// Puts a token back that was taken this instant. One that was taken under another limit is lost: how much of
    /// it the limit in force would have kept is not known any more.
    pub(super) fn give_back(&self, generation: Generation) {
        self.adjust(|limit, word| {
            if word.limit_in_force() == generation {
                word.time().saturating_sub(limit.interval)
            } else {
                word.time()
            }
        });
    }

    /// Ends a loan of which `unused` tokens come back; the others were used until `used_at`.
    ///
    /// While the loan was out the bucket stood short of full by the whole of it. What was used stays missing from
    /// that moment on, and grows back at the rate like any token. A void loan is accounted for already.
    pub(super) fn repay(&self, loan: Loan, unused: u64, used_at: Nanos) {
        let used_at = ticks(used_at);
        self.adjust(|limit, word| {
            let loans = self.loans();
            if loans.epoch() != loan.epoch {
                return word.time();
            }
            let spent = limit.spent_until(word, loans.lent(), used_at);
            spent.saturating_sub(unused.saturating_mul(limit.interval))
        });
        // After the tokens are back: in between they count twice against the bucket, never not at all.
        self.end(loan);
    }

    fn lend(&self, tokens: u64) -> Loan {
        if tokens == 0 {
            return Loan::default();
        }
        let before = Loans(self.loans.fetch_add(tokens, Ordering::AcqRel));
        Loan {
            tokens: tokens as u32,
            epoch: before.epoch(),
        }
    }

    #[inline(never)]
    fn end(&self, loan: Loan) {
        let mut loans = self.loans();
        while loan.tokens > 0 && loans.epoch() == loan.epoch {
            let less = loans.0 - u64::from(loan.tokens);
            match self
                .loans
                .compare_exchange_weak(loans.0, less, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return,
                Err(seen) => loans = Loans(seen),
            }
        }
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
    /// Where level and loans together are more than the new bucket holds, the loans are void from here on: level and
    /// credit may together never be worth more than the burst, and which of the two is cut is the same to whoever
    /// asks next. What such a loan had left is lost: at most one part in 384 of what the bucket held when it was
    /// lent.
    ///
    /// Only the registry's owner calls this; two at once would write the same generation.
    pub(super) fn reconfigure(&self, new: Limit, now: Nanos) {
        let now = ticks(now);
        let mut word = Word(self.word.load(Ordering::Acquire));
        loop {
            let old = self.limits[word.generation()].load();
            let generation = (word.generation() + 1) % GENERATIONS;
            self.limits[generation].store(new);
            let loans = self.loans();
            let window = u128::from(new.window());
            let level = if old.is_none() {
                window
            } else {
                let available = u128::from(old.available(word, loans.lent(), now));
                available * u128::from(new.interval) / u128::from(old.interval)
            };
            let void = level + u128::from(loans.lent()) * u128::from(new.interval) > window;
            let time = now + (window - level.min(window)) as u64;
            match self.swap(word, Word::new(time, generation)) {
                Ok(()) => {
                    if void {
                        // After the word: in between, the loans still count against the new level. A loan that is
                        // made in between is void too.
                        let next = Loans::new(loans.epoch().wrapping_add(1), 0);
                        self.loans.store(next.0, Ordering::Release);
                        self.recall.ring();
                    }
                    return;
                }
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

    fn limit_in_force(self) -> Generation {
        Generation(self.generation() as u8)
    }

    fn at(self, time: u64) -> Word {
        Word::new(time, self.generation())
    }
}

/// Tokens on loan, and the epoch that the loans are of.
#[derive(Clone, Copy, Debug)]
struct Loans(u64);

impl Loans {
    fn new(epoch: u32, lent: u32) -> Loans {
        Loans(u64::from(epoch) << 32 | u64::from(lent))
    }

    /// At most [`MAX_LOAN`] a shard.
    fn lent(self) -> u64 {
        self.0 & u64::from(u32::MAX)
    }

    fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
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

    fn cell(limit: Limit) -> Cell {
        Cell::new(limit, Arc::default())
    }

    fn drain(cell: &Cell, now: Nanos) -> u64 {
        let mut taken = 0;
        while let Grant::Token { loan, .. } = cell.take(now, 1) {
            taken += 1 + u64::from(loan.tokens);
            cell.end(loan);
        }
        taken
    }

    /// SEC-074: rate refills, burst is the capacity, one request takes one token.
    #[test]
    fn a_bucket_holds_its_burst_and_refills_at_its_rate() {
        let cell = cell(Limit::new(100.0, 50).unwrap());
        let start = 7 * SECOND;
        assert_eq!(drain(&cell, start), 50);
        assert_eq!(drain(&cell, start + SECOND / 10), 10);
        assert_eq!(drain(&cell, start + 3600 * SECOND), 50);
    }

    /// USE-053: fractions of a request per second.
    #[test]
    fn a_tenth_of_a_request_per_second_is_one_in_ten_seconds() {
        let cell = cell(Limit::new(0.1, 1).unwrap());
        assert_eq!(drain(&cell, 0), 1);
        assert_eq!(drain(&cell, 10 * SECOND - 1), 0);
        assert_eq!(drain(&cell, 10 * SECOND), 1);
    }

    /// USE-053, TFC-165: 0 refuses everything, negative is no limit.
    #[test]
    fn zero_refuses_and_negative_is_no_limit() {
        for limit in [Limit::new(0.0, 10), Limit::new(10.0, 0), Limit::new(-0.0, -1)] {
            assert_eq!(cell(limit.unwrap()).take(SECOND, 1), Grant::Refused);
        }
        for limit in [
            Limit::new(-1.0, -1),
            Limit::new(-1.0, 5),
            Limit::new(f64::NEG_INFINITY, 0),
        ] {
            assert_eq!(cell(limit.unwrap()).take(SECOND, 1), Grant::Unlimited);
        }
        assert_eq!(Limit::new(f64::NAN, 1), Err(InvalidLimit));
        assert_eq!(drain(&cell(Limit::new(7.5, -1).unwrap()), 0), 7);
    }

    #[test]
    fn extreme_numbers_stay_in_range() {
        for rate in [1e-300, 1e-9, 0.1, 1e8, 1e300, f64::INFINITY] {
            for burst in [1, 1000, i64::MAX] {
                let cell = cell(Limit::new(rate, burst).unwrap());
                let Grant::Token { loan, generation } = cell.take(0, 64) else {
                    panic!("{rate} {burst}")
                };
                for now in [0, SECOND, u64::MAX / 16, u64::MAX] {
                    cell.take(now, 64);
                    cell.give_back(generation);
                    cell.repay(loan, u64::MAX / 2, now);
                    cell.reconfigure(Limit::new(rate / 2.0, burst).unwrap(), now);
                }
            }
        }
    }

    /// D9: another limit keeps the level.
    #[test]
    fn reconfiguring_keeps_the_level() {
        let cell = cell(Limit::new(10.0, 100).unwrap());
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
        let cell = cell(Limit::new(1000.0, 100_000).unwrap());
        let Grant::Token { loan, .. } = cell.take(0, 4) else {
            panic!("the bucket is full")
        };
        assert_eq!(loan.tokens, 64);
        let later = 1000 * SECOND;
        assert_eq!(cell.level(later), 100_000 - 64);
        assert!(!cell.is_untouched(later));
        cell.repay(loan, 60, later);
        assert_eq!(cell.level(later), 100_000 - 4);
        assert!(!cell.is_untouched(later));
        assert!(cell.is_untouched(later + SECOND / 250));
    }

    #[test]
    fn a_shard_with_an_older_clock_gets_no_more() {
        let cell = cell(Limit::new(10.0, 10).unwrap());
        assert_eq!(drain(&cell, 10 * SECOND), 10);
        assert_eq!(drain(&cell, 9 * SECOND), 0);
        assert_eq!(drain(&cell, 10 * SECOND + SECOND / 10), 1);
    }

    /// D8: what is on loan when a limit shrinks below it is not admitted beside the new burst, nor owed by it.
    #[test]
    fn loans_of_a_bucket_that_shrinks_below_them_are_void() {
        let cell = cell(Limit::new(1000.0, 100_000).unwrap());
        let loans: Vec<Loan> = (0..4)
            .map(|_| match cell.take(SECOND, 4) {
                Grant::Token { loan, .. } => loan,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(loans.iter().map(|loan| loan.tokens).sum::<u32>(), 256);
        cell.reconfigure(Limit::new(0.1, 5).unwrap(), SECOND);
        assert_eq!(cell.recall().count(), 1);
        assert_eq!(cell.level(SECOND), 5);
        assert_eq!(drain(&cell, SECOND), 5);
        for loan in loans {
            cell.repay(loan, 60, SECOND);
        }
        assert_eq!(drain(&cell, SECOND), 0);
        assert_eq!(drain(&cell, 11 * SECOND), 1);
    }

    /// D8: loans for which the new bucket has room live on, and come back as what they are.
    #[test]
    fn loans_that_the_new_bucket_holds_are_kept() {
        let cell = cell(Limit::new(1000.0, 100_000).unwrap());
        let Grant::Token { loan, .. } = cell.take(SECOND, 4) else {
            panic!("the bucket is full")
        };
        cell.reconfigure(Limit::new(10.0, 200_000).unwrap(), SECOND);
        assert_eq!(cell.recall().count(), 0);
        assert_eq!(cell.level(SECOND), 100_000 - 65);
        cell.repay(loan, 60, SECOND);
        assert_eq!(cell.level(SECOND), 100_000 - 5);
    }

    /// A token that another limit refuses goes back to the bucket it came from, not into its successor.
    #[test]
    fn a_token_of_another_limit_is_not_given_back() {
        let cell = cell(Limit::new(10.0, 10).unwrap());
        let Grant::Token { generation, .. } = cell.take(SECOND, 1) else {
            panic!("the bucket is full")
        };
        cell.reconfigure(Limit::new(10.0, 5).unwrap(), SECOND);
        assert_eq!(drain(&cell, SECOND), 5);
        cell.give_back(generation);
        assert_eq!(drain(&cell, SECOND), 0);
    }
}
