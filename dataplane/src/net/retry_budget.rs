//! How many requests may be sent again.

use std::cell::Cell;

/// Retries in proportion to requests, with some in hand after a quiet time.
#[derive(Debug)]
pub(super) struct RetryBudget {
    /// In hundredths of a retry.
    left: Cell<u32>,
    percent: u32,
    most: u32,
}

impl RetryBudget {
    /// So many retries in a hundred requests, and so many in hand.
    pub(super) fn new(percent: u32, burst: u32) -> Self {
        let most = burst.saturating_mul(RETRY_COST);
        Self {
            left: Cell::new(if percent == 0 { 0 } else { most }),
            percent,
            most,
        }
    }

    /// A request was sent.
    pub(super) fn credit(&self) {
        self.left.set((self.left.get() + self.percent).min(self.most));
    }

    /// Whether one may be sent again.
    pub(super) fn take(&self) -> bool {
        let left = self.left.get().checked_sub(RETRY_COST);
        if let Some(left) = left {
            self.left.set(left);
        }
        left.is_some()
    }
}

const RETRY_COST: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// D11.
    #[test]
    fn retries_are_a_fifth_of_the_requests() {
        let budget = RetryBudget::new(20, 10);
        let in_hand = (0..100).filter(|_| budget.take()).count();
        assert_eq!(in_hand, 10);
        let mut retried = 0;
        for _ in 0..100 {
            budget.credit();
            retried += u32::from(budget.take());
        }
        assert_eq!(retried, 20);
        assert!(!RetryBudget::new(0, 10).take());
    }
}
