//! How many connections to backends there are, and how many of them are idle.

use std::sync::Arc;

use crate::telemetry::ShardCounters;

/// Counts a connection as what it is, for as long as it is there.
#[derive(Debug)]
pub(super) struct Counted {
    counters: Arc<ShardCounters>,
    idle: bool,
}

impl Counted {
    pub(super) fn active(counters: &Arc<ShardCounters>) -> Self {
        counters.upstream_active.increment();
        Self {
            counters: Arc::clone(counters),
            idle: false,
        }
    }

    pub(super) fn set_idle(&mut self, idle: bool) {
        if self.idle == idle {
            return;
        }
        self.idle = idle;
        let (from, to) = match idle {
            true => (&self.counters.upstream_active, &self.counters.upstream_idle),
            false => (&self.counters.upstream_idle, &self.counters.upstream_active),
        };
        from.decrement();
        to.increment();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        match self.idle {
            true => self.counters.upstream_idle.decrement(),
            false => self.counters.upstream_active.decrement(),
        }
    }
}
