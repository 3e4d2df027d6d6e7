//! A shard's recorder.

use std::cell::RefCell;
use std::sync::Arc;

use super::log::{Encoder, Producer};
use super::node::ShardCounters;
use super::record::RequestRecord;
use super::series::Bank;

/// What a shard counts and logs with. Owned by one shard; recording is a few plain stores, and one copy into a
/// ring where the stage has an access log.
#[derive(Debug)]
pub struct Shard {
    counters: Arc<ShardCounters>,
    bank: Arc<Bank>,
    ring: Producer,
    encoder: RefCell<Encoder>,
}

impl Shard {
    pub(super) fn new(
        counters: Arc<ShardCounters>,
        bank: Arc<Bank>,
        ring: Producer,
        max_text: usize,
    ) -> Shard {
        Shard {
            counters,
            bank,
            ring,
            encoder: RefCell::new(Encoder::new(max_text)),
        }
    }

    /// The shard's own numbers.
    pub fn counters(&self) -> &Arc<ShardCounters> {
        &self.counters
    }

    /// Counts and logs one finished request (OBS-004: each is one sample of `Count` and `Latency`).
    pub fn record(&self, record: &RequestRecord<'_>) {
        self.counters.requests.add(1);
        let class = record.class();
        for slot in [record.stage, record.method].into_iter().flatten() {
            self.bank.record(slot, class, record);
        }
        if let Some(target) = record.log {
            let mut encoder = self.encoder.borrow_mut();
            // A full ring counts what it drops.
            self.ring.push(encoder.encode(target.sink, target.fields, record));
        }
    }
}
