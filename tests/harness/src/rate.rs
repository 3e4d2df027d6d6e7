//! What a throttle admitted, judged by what its client saw and by nothing else.
//!
//! The client knows of each request an instant before and an instant after the gateway's decision. Every bound here is
//! formed from those two so that it holds wherever in between the decision fell: a machine that is busy elsewhere makes
//! the bounds wider, and never makes a throttle look wrong that is right.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::load::Timed;

/// Requests to one throttled method whose bucket admits `rate` a second and holds `burst`. No other requests used it.
#[derive(Debug)]
pub struct Admissions {
    rate: f64,
    burst: f64,
    /// In the order in which they were answered.
    admitted: Vec<Timed>,
    /// In the order in which they were sent.
    refused: Vec<Timed>,
}

/// How much was admitted between two refusals, of what the rate allows in that time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// The largest share that was certainly admitted.
    pub most: f64,
    /// The smallest share that can have been admitted.
    pub least: f64,
    /// The time that the stretches cover.
    pub covered: Duration,
}

impl Admissions {
    /// Sorts answers into those that were admitted and those that were refused with 429.
    pub fn new(rate: f64, burst: f64, answers: &[Timed]) -> Self {
        let with = |wanted: &dyn Fn(u16) -> bool| -> Vec<Timed> {
            answers
                .iter()
                .filter(|answer| wanted(answer.status))
                .copied()
                .collect()
        };
        let mut admitted = with(&|status| status != 429);
        let mut refused = with(&|status| status == 429);
        admitted.sort_by_key(|one| one.received);
        refused.sort_by_key(|one| one.sent);
        Self {
            rate,
            burst,
            admitted,
            refused,
        }
    }

    /// Fails if in any stretch of time more than burst + rate × time was certainly admitted. Returns the tokens that
    /// were left in the tightest one.
    ///
    /// One token more is let pass: a shard reads its clock once a turn, which may be before the request came in.
    pub fn ensure_never_more(&self) -> Result<f64> {
        let mut left = f64::INFINITY;
        for first in &self.admitted {
            let within = self.admitted.iter().filter(|one| one.sent >= first.sent);
            for (before, last) in within.enumerate() {
                let time = last.received.saturating_sub(first.sent).as_secs_f64();
                let count = (before + 1) as f64;
                left = left.min(self.burst + self.rate * time - count);
                ensure!(
                    left >= -1.0,
                    "{count} requests were admitted within {time:.4} s, with a burst of {} and {} a second",
                    self.burst,
                    self.rate
                );
            }
        }
        Ok(left)
    }

    /// What was admitted in stretches of at least `shortest` that begin and end with a refusal: there the bucket is
    /// empty, so that the time between decides alone. Stretches in which so little was asked that the bucket may have
    /// overflowed do not count. `None` where there is no such stretch.
    pub fn between_refusals(&self, shortest: Duration) -> Option<Shares> {
        let full = Duration::from_secs_f64((self.burst - 1.0).max(0.0) / self.rate);
        let mut sent: Vec<Duration> = self.admitted.iter().map(|one| one.sent).collect();
        sent.sort();
        let mut shares: Option<Shares> = None;
        for run in self.runs(full) {
            for (at, first) in run.iter().enumerate() {
                let later: Vec<Duration> = self
                    .admitted
                    .iter()
                    .filter(|one| one.sent >= first.received)
                    .map(|one| one.received)
                    .collect();
                for last in &run[at + 1..] {
                    let Some(time) = last.sent.checked_sub(first.received) else {
                        continue;
                    };
                    if time < shortest {
                        continue;
                    }
                    let longest = last.received - first.sent;
                    let certain = later.partition_point(|received| *received <= last.sent);
                    let too_early = self.admitted.partition_point(|one| one.received < first.sent);
                    let in_time = sent.partition_point(|sent| *sent <= last.received);
                    let possible = in_time - too_early;
                    let shares = shares.get_or_insert(Shares {
                        most: 0.0,
                        least: f64::INFINITY,
                        covered: Duration::ZERO,
                    });
                    let of = |count: f64, time: Duration| count / (self.rate * time.as_secs_f64());
                    shares.most = shares.most.max(of(certain as f64 - 1.0, longest));
                    shares.least = shares.least.min(of(possible as f64 + 1.0, time));
                }
            }
            if let (Some(shares), [first, .., last]) = (&mut shares, &*run) {
                let time = last.sent.saturating_sub(first.received);
                if time >= shortest {
                    shares.covered += time;
                }
            }
        }
        shares
    }

    /// Refusals, a few each second, in runs in which the bucket was not full between any two.
    fn runs(&self, full: Duration) -> Vec<Vec<Timed>> {
        let mut runs: Vec<Vec<Timed>> = Vec::new();
        let mut before: Option<Timed> = None;
        for &refused in &self.refused {
            if refused.received - refused.sent > VAGUE {
                continue;
            }
            let unbroken = before.is_some_and(|before| refused.received - before.sent < full);
            before = Some(refused);
            match runs.last_mut() {
                Some(run) if unbroken => {
                    if run.last().is_none_or(|last| refused.sent - last.sent >= SPACING) {
                        run.push(refused);
                    }
                }
                _ => runs.push(vec![refused]),
            }
        }
        runs
    }
}

/// Refusals that took longer say too little about when.
const VAGUE: Duration = Duration::from_millis(20);

/// Between the refusals that are looked at: all pairs of them are.
const SPACING: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute of requests every 2 ms, each 3 ms under way, to a bucket whose real rate is `real`; none are sent in
    /// the pauses.
    fn answers(real: f64, burst: f64, pauses: &[(f64, f64)]) -> Vec<Timed> {
        let (mut level, mut at) = (burst, 0.0);
        (0..30_000)
            .map(|number| f64::from(number) * 0.002)
            .filter(|now| !pauses.iter().any(|(from, to)| (from..to).contains(&now)))
            .map(|now: f64| {
                level = (level + real * (now - at)).min(burst);
                at = now;
                let admitted = level >= 1.0;
                level -= f64::from(u8::from(admitted));
                Timed {
                    sent: Duration::from_secs_f64(1.0 + now - 0.001),
                    received: Duration::from_secs_f64(1.0 + now + 0.002),
                    status: if admitted { 200 } else { 429 },
                }
            })
            .collect()
    }

    const FIVE: Duration = Duration::from_secs(5);

    #[test]
    fn a_right_throttle_is_right() {
        let seen = Admissions::new(100.0, 700.0, &answers(100.0, 700.0, &[]));
        assert!(seen.ensure_never_more().unwrap() < 2.0);
        let shares = seen.between_refusals(FIVE).unwrap();
        assert!(shares.most <= 1.0 && shares.least >= 1.0, "{shares:?}");
        assert!(shares.most > 0.99 && shares.least < 1.01, "{shares:?}");
        assert!(shares.covered > Duration::from_secs(55), "{shares:?}");
    }

    #[test]
    fn a_throttle_that_is_two_percent_off_is_seen() {
        let fast = Admissions::new(100.0, 700.0, &answers(102.0, 700.0, &[]));
        assert!(fast.ensure_never_more().is_err());
        assert!(fast.between_refusals(FIVE).unwrap().most > 1.01);
        let slow = Admissions::new(100.0, 700.0, &answers(98.0, 700.0, &[]));
        assert!(slow.ensure_never_more().is_ok());
        assert!(slow.between_refusals(FIVE).unwrap().least < 0.99);
    }

    #[test]
    fn a_client_that_pauses_proves_nothing_against_the_throttle() {
        // After the first it takes more than a second until the next refusal.
        let pauses = [(10.0, 15.0), (20.0, 30.0)];
        let seen = Admissions::new(100.0, 700.0, &answers(100.0, 700.0, &pauses));
        assert!(seen.ensure_never_more().is_ok());
        let shares = seen.between_refusals(FIVE).unwrap();
        assert!(shares.most <= 1.0 && shares.least >= 1.0, "{shares:?}");
        // The short pause lets the bucket grow and breaks nothing; in the long one it may have overflowed.
        assert!(shares.covered < Duration::from_secs(50), "{shares:?}");
        assert!(shares.covered > Duration::from_secs(40), "{shares:?}");
    }
}
