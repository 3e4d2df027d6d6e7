//! Keeps in the store how nodes stand, so that the next control plane knows where they answer and how far they were.
//!
//! Comings and goings are kept at once, several in one transaction; acknowledgements now and then: 10,000 nodes that
//! acknowledge each change are not to write 10,000 rows for it.

use std::time::Duration;

use super::{join, registry::Registry};
use crate::store::Store;

/// How often acknowledged revisions are kept.
const SWEEP: Duration = Duration::from_secs(30);
/// Nodes that are written in one transaction.
const BATCH: usize = 500;

/// Keeps until it is dropped.
pub(super) async fn keep(registry: &Registry, store: &dyn Store) {
    loop {
        // Either is a reason to look.
        let _ = tokio::time::timeout(SWEEP, registry.moved()).await;
        keep_now(registry, store).await;
    }
}

/// Writes what has changed since the last time.
pub(super) async fn keep_now(registry: &Registry, store: &dyn Store) {
    loop {
        let records = registry.take_unkept(BATCH);
        if records.is_empty() {
            return;
        }
        if let Err(error) = join::keep_standing(store, records.clone()).await {
            tracing::warn!(
                error = error.message,
                "cannot keep how nodes stand; tried again later"
            );
            registry.not_kept(&records);
            return;
        }
    }
}
