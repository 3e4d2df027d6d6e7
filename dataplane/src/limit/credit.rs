//! What a shard holds of the node's buckets.

use std::sync::Arc;
use std::time::Duration;

use super::cell::{Cell, Generation, Grant, Loan, Nanos, Recall};
use super::registry::{LimitHandle, LimitIndex};

/// After this long without a request a credit goes back to its cell. A shard calls [`Credits::settle_idle`] about
/// this often while [`Credits::has_loans`] says so.
pub const IDLE: Duration = Duration::from_millis(100);

/// The limit that refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Position in the list of limits that was asked for.
    pub which: usize,
}

/// One shard's credits, by dense index.
#[derive(Debug)]
pub struct Credits {
    slots: Vec<Option<Credit>>,
    /// Indexes of the slots that may hold a loan, so that settling does not walk the whole table.
    on_loan: Vec<LimitIndex>,
    shards: u32,
    /// The registry's, from the first limit that was installed on.
    recall: Arc<Recall>,
    recalls_seen: u64,
}

impl Credits {
    /// An empty table for one of `shards` shards.
    pub fn new(shards: usize) -> Credits {
        Credits {
            slots: Vec::new(),
            on_loan: Vec::new(),
            shards: u32::try_from(shards.max(1)).unwrap_or(u32::MAX),
            recall: Arc::default(),
            recalls_seen: 0,
        }
    }

    /// Makes a limit known to this shard. Called when a configuration is applied, before a request can name it;
    /// calling it again for the same limit changes nothing. All limits of a table are of one registry.
    pub fn install(&mut self, handle: &LimitHandle) {
        let recall = handle.cell().recall();
        if !Arc::ptr_eq(&self.recall, recall) {
            self.recalls_seen = recall.count();
            self.recall = Arc::clone(recall);
        }
        let slot = handle.index().0 as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        let credit = &mut self.slots[slot];
        if !credit
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(&known.cell, handle.cell()))
        {
            *credit = Some(Credit::new(Arc::clone(handle.cell())));
        }
    }

    /// Drops a limit that no plan on this shard names any more; what it held goes back.
    pub fn forget(&mut self, index: LimitIndex) {
        if let Some(slot) = self.slots.get_mut(index.0 as usize) {
            *slot = None;
        }
    }

    /// Takes one token from every limit named, or from none. An index that was not installed does not limit.
    ///
    /// Order matters only for which limit is reported: the first that has nothing left.
    pub fn admit(&mut self, now: Nanos, limits: &[LimitIndex]) -> Result<(), Refused> {
        if self.recall.count() != self.recalls_seen {
            self.heed_recall();
        }
        // Look before taking: a request that a narrow limit refuses must not stir the wide one's cache line.
        if let [_, _, ..] = limits {
            for (which, &index) in limits.iter().enumerate() {
                if self.credit(index).is_some_and(|credit| !credit.would_admit(now)) {
                    return Err(Refused { which });
                }
            }
        }
        for (which, &index) in limits.iter().enumerate() {
            if !self.take(now, index) {
                for &taken in &limits[..which] {
                    if let Some(credit) = self.credit(taken) {
                        credit.undo();
                    }
                }
                return Err(Refused { which });
            }
        }
        Ok(())
    }

    /// Whether any credit is held that [`Credits::settle_idle`] could give back.
    pub fn has_loans(&self) -> bool {
        !self.on_loan.is_empty()
    }

    /// Gives back the credits that were not used for [`IDLE`].
    pub fn settle_idle(&mut self, now: Nanos) {
        let idle = IDLE.as_nanos() as Nanos;
        self.settle(|credit| now.saturating_sub(credit.used_at) >= idle);
    }

    /// Gives back every credit: when limits have changed, and when the shard ends.
    pub fn settle_all(&mut self) {
        self.settle(|_| true);
    }

    /// A limit has shrunk below what it had lent. Which one is not worth telling: it happens when someone changes a
    /// limit, and costs a shard one walk over its loans.
    #[cold]
    fn heed_recall(&mut self) {
        self.recalls_seen = self.recall.count();
        self.settle_all();
    }

    fn settle(&mut self, due: impl Fn(&Credit) -> bool) {
        let slots = &mut self.slots;
        self.on_loan.retain(|index| match &mut slots[index.0 as usize] {
            Some(credit) if due(credit) => {
                credit.settle();
                credit.listed = false;
                false
            }
            Some(_) => true,
            None => false,
        });
    }

    fn take(&mut self, now: Nanos, index: LimitIndex) -> bool {
        let shards = self.shards;
        let Some(credit) = self.credit(index) else {
            return true;
        };
        let admitted = credit.take(now, shards);
        if credit.loan.tokens > 0 && !credit.listed {
            credit.listed = true;
            self.on_loan.push(index);
        }
        admitted
    }

    fn credit(&mut self, index: LimitIndex) -> Option<&mut Credit> {
        self.slots.get_mut(index.0 as usize)?.as_mut()
    }
}

/// One shard's share of one bucket: tokens on loan, used before the cell is asked again.
#[derive(Debug)]
pub struct Credit {
    cell: Arc<Cell>,
    /// Tokens left of the loan.
    held: u32,
    /// The loan as the cell knows it, spent or not.
    loan: Loan,
    /// Which limit the last token from the cell was taken under.
    generation: Generation,
    used_at: Nanos,
    /// Whether the table's list of loans names this credit.
    listed: bool,
}

impl Credit {
    /// No loan yet.
    pub fn new(cell: Arc<Cell>) -> Credit {
        Credit {
            cell,
            held: 0,
            loan: Loan::default(),
            generation: Generation::NONE,
            used_at: 0,
            listed: false,
        }
    }

    /// The bucket this is a share of.
    pub fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    /// Whether a request would get a token now.
    fn would_admit(&self, now: Nanos) -> bool {
        self.held > 0 || self.cell.would_admit(now)
    }

    /// Takes a token, as one of `shards`.
    fn take(&mut self, now: Nanos, shards: u32) -> bool {
        if self.held > 0 {
            self.used_at = now;
            self.held -= 1;
            return true;
        }
        self.settle();
        self.used_at = now;
        match self.cell.take(now, shards) {
            Grant::Refused => false,
            Grant::Unlimited => {
                self.generation = Generation::NONE;
                true
            }
            Grant::Token { loan, generation } => {
                self.held = loan.tokens;
                self.loan = loan;
                self.generation = generation;
                true
            }
        }
    }

    /// Takes the last [`take`](Self::take) back: another limit refused the request.
    fn undo(&mut self) {
        if self.held < self.loan.tokens {
            self.held += 1;
        } else {
            // Straight to the cell: a token kept here would be missing on the other shards.
            self.cell.give_back(self.generation);
        }
    }

    /// Gives back what is held.
    fn settle(&mut self) {
        if self.loan.tokens > 0 {
            self.cell.repay(self.loan, u64::from(self.held), self.used_at);
            self.held = 0;
            self.loan = Loan::default();
        }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.settle();
    }
}
