//! Latency histograms with fixed bounds.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets in seconds, as `/metrics` prints them; one more bucket takes the rest.
///
/// Three steps a decade, from half a millisecond (a local backend) to the longest integration time-out.
pub const BOUNDS: [(&str, u64); 15] = [
    ("0.0005", 500_000),
    ("0.001", 1_000_000),
    ("0.0025", 2_500_000),
    ("0.005", 5_000_000),
    ("0.01", 10_000_000),
    ("0.025", 25_000_000),
    ("0.05", 50_000_000),
    ("0.1", 100_000_000),
    ("0.25", 250_000_000),
    ("0.5", 500_000_000),
    ("1", 1_000_000_000),
    ("2.5", 2_500_000_000),
    ("5", 5_000_000_000),
    ("10", 10_000_000_000),
    ("30", 30_000_000_000),
];

/// Buckets including the last, unbounded one.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// One shard's counts. Written by that shard only, read by anyone.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub(super) fn record(&self, ns: u64) {
        let bucket = BOUNDS.partition_point(|&(_, bound)| bound < ns);
        bump(&self.buckets[bucket], 1);
        bump(&self.sum_ns, ns);
    }

    pub(super) fn add_to(&self, total: &mut HistogramTotal) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        total.sum_ns = total.sum_ns.wrapping_add(self.sum_ns.load(Ordering::Relaxed));
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .sum()
    }

    pub(super) fn reset(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
        self.sum_ns.store(0, Ordering::Relaxed);
    }
}

/// Counts of all shards.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HistogramTotal {
    pub(super) buckets: [u64; BUCKETS],
    pub(super) sum_ns: u64,
}

impl HistogramTotal {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Adds to a counter that only the calling thread writes: a load and a store, no locked instruction.
pub(super) fn bump(counter: &AtomicU64, by: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        for ns in [0, 500_000, 500_001, 30_000_000_000, 30_000_000_001, u64::MAX / 2] {
            histogram.record(ns);
        }
        let mut total = HistogramTotal::default();
        histogram.add_to(&mut total);
        assert_eq!(
            (
                total.buckets[0],
                total.buckets[1],
                total.buckets[14],
                total.buckets[15]
            ),
            (2, 1, 1, 2)
        );
        assert_eq!((total.count(), histogram.count()), (6, 6));
        histogram.reset();
        assert_eq!(histogram.count(), 0);
    }
}
