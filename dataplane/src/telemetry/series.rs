//! Metric series: which exist, and the shards' counters behind them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::histogram::{Histogram, HistogramTotal, bump};
use super::record::{Class, RequestRecord};

/// Where a shard counts: a dense number that one series keeps over redeployments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(u32);

/// A series in use. Held by whatever carries its slot (a stage's plan): while one exists the slot stays its own.
#[derive(Clone, Debug)]
pub struct SeriesHandle {
    slot: Slot,
    in_use: Arc<()>,
}

impl SeriesHandle {
    /// The number for [`RequestRecord`].
    pub fn slot(&self) -> Slot {
        self.slot
    }
}

/// The dimensions of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) api: String,
    pub(super) api_name: String,
    pub(super) stage: String,
    /// Resource path and method, for the series of a method.
    pub(super) method: Option<(String, String)>,
}

/// All series of the node. Cheap to clone; the configuration thread resolves, the exposition reads.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: Mutex<Directory>,
    banks: Vec<Arc<Bank>>,
    capacity: usize,
}

#[derive(Debug)]
struct Directory {
    series: HashMap<Key, Entry>,
    /// Labels by slot.
    slots: Vec<Option<Arc<Labels>>>,
    free: Vec<Slot>,
    overflow: [SeriesHandle; 2],
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    api: String,
    stage: String,
    method: Option<(String, String)>,
}

#[derive(Debug)]
struct Entry {
    handle: SeriesHandle,
    unused_since: Option<Instant>,
}

impl Registry {
    /// No series yet, at most `capacity` (`metric-series` in the table of limits), counted by `shards` shards.
    pub fn new(shards: usize, capacity: usize) -> Registry {
        let capacity = capacity.min(u32::MAX as usize - RESERVED);
        let banks = (0..shards)
            .map(|_| Arc::new(Bank::new(capacity + RESERVED)))
            .collect();
        let overflow_label = |method| {
            Some(Arc::new(Labels {
                api: OVERFLOW.into(),
                api_name: OVERFLOW.into(),
                stage: OVERFLOW.into(),
                method,
            }))
        };
        let directory = Directory {
            series: HashMap::new(),
            slots: vec![
                overflow_label(None),
                overflow_label(Some((OVERFLOW.into(), OVERFLOW.into()))),
            ],
            free: Vec::new(),
            overflow: [0, 1].map(|slot| SeriesHandle {
                slot: Slot(slot),
                in_use: Arc::new(()),
            }),
        };
        Registry {
            shared: Arc::new(Shared {
                directory: Mutex::new(directory),
                banks,
                capacity,
            }),
        }
    }

    /// The series of a stage. `api_name` is cleaned as OBS-010 says.
    pub fn stage(&self, api: &str, api_name: &str, stage: &str) -> SeriesHandle {
        self.resolve(api, api_name, stage, None)
    }

    /// The series of a method; only asked for where detailed metrics are on (OBS-009).
    pub fn method(
        &self,
        api: &str,
        api_name: &str,
        stage: &str,
        resource: &str,
        method: &str,
    ) -> SeriesHandle {
        self.resolve(
            api,
            api_name,
            stage,
            Some((resource.to_owned(), method.to_owned())),
        )
    }

    fn resolve(
        &self,
        api: &str,
        api_name: &str,
        stage: &str,
        method: Option<(String, String)>,
    ) -> SeriesHandle {
        let labels = Labels {
            api: api.to_owned(),
            api_name: dimension_name(api, api_name),
            stage: stage.to_owned(),
            method: method.clone(),
        };
        let key = Key {
            api: api.to_owned(),
            stage: stage.to_owned(),
            method,
        };
        let mut directory = self.lock();
        let directory = &mut *directory;
        if let Some(entry) = directory.series.get_mut(&key) {
            entry.unused_since = None;
            let shown = &mut directory.slots[entry.handle.slot.0 as usize];
            if shown.as_deref() != Some(&labels) {
                *shown = Some(Arc::new(labels)); // the API was renamed
            }
            return entry.handle.clone();
        }
        if directory.series.len() >= self.shared.capacity {
            return directory.overflow[usize::from(key.method.is_some())].clone();
        }
        let slot = directory.free.pop().unwrap_or_else(|| {
            directory.slots.push(None);
            Slot(directory.slots.len() as u32 - 1)
        });
        directory.slots[slot.0 as usize] = Some(Arc::new(labels));
        let handle = SeriesHandle {
            slot,
            in_use: Arc::new(()),
        };
        directory.series.insert(
            key,
            Entry {
                handle: handle.clone(),
                unused_since: None,
            },
        );
        handle
    }

    /// Forgets the series that nobody has used for an hour, so that their slots can be used again. Call it every
    /// minute or so.
    pub fn sweep(&self, now: Instant) {
        let mut directory = self.lock();
        let directory = &mut *directory;
        directory.series.retain(|_, entry| {
            if Arc::strong_count(&entry.handle.in_use) > 1 {
                entry.unused_since = None;
                return true;
            }
            let since = *entry.unused_since.get_or_insert(now);
            let stay = now.saturating_duration_since(since) < KEEP_UNUSED;
            if !stay {
                let slot = entry.handle.slot;
                // No plan names the slot, so no shard writes it.
                for bank in &self.shared.banks {
                    bank.reset(slot);
                }
                directory.slots[slot.0 as usize] = None;
                directory.free.push(slot);
            }
            stay
        });
    }

    /// How many series exist, the overflow ones not counted.
    pub fn len(&self) -> usize {
        self.lock().series.len()
    }

    /// Whether no series exists yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The series that have counted anything, in slot order.
    pub(super) fn snapshot(&self) -> Vec<(Slot, Arc<Labels>)> {
        let directory = self.lock();
        let slots = directory.slots.iter().enumerate();
        let named =
            slots.filter_map(|(slot, labels)| Some((Slot(slot as u32), Arc::clone(labels.as_ref()?))));
        named
            .filter(|(slot, _)| self.shared.banks.iter().any(|bank| bank.has_counted(*slot)))
            .collect()
    }

    /// Sums a series over the shards.
    pub(super) fn total(&self, slot: Slot) -> Total {
        let mut total = Total::default();
        for bank in &self.shared.banks {
            bank.add_to(slot, &mut total);
        }
        total
    }

    pub(super) fn bank(&self, shard: usize) -> Arc<Bank> {
        Arc::clone(&self.shared.banks[shard])
    }

    fn lock(&self) -> MutexGuard<'_, Directory> {
        self.shared
            .directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A series summed over the shards.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Total {
    pub(super) client_errors: u64,
    pub(super) server_errors: u64,
    pub(super) latency: HistogramTotal,
    pub(super) integration: HistogramTotal,
}

/// One shard's counters for every slot. Written by that shard alone; memory comes in chunks as slots are used.
#[derive(Debug)]
pub(super) struct Bank {
    chunks: Box<[OnceLock<Box<[Counters]>>]>,
}

/// One shard's counters of one series. `Count` is the count of `latency`: every request has one sample.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counters {
    client_errors: AtomicU64,
    server_errors: AtomicU64,
    latency: Histogram,
    integration: Histogram,
}

impl Bank {
    fn new(slots: usize) -> Bank {
        Bank {
            chunks: (0..slots.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(),
        }
    }

    pub(super) fn record(&self, slot: Slot, class: Class, record: &RequestRecord<'_>) {
        let (chunk, place) = (slot.0 as usize / CHUNK, slot.0 as usize % CHUNK);
        let Some(chunk) = self.chunks.get(chunk) else {
            return;
        };
        let counters = &chunk.get_or_init(|| (0..CHUNK).map(|_| Counters::default()).collect())[place];
        match class {
            Class::Fine => {}
            Class::ClientError => bump(&counters.client_errors, 1),
            Class::ServerError => bump(&counters.server_errors, 1),
        }
        counters.latency.record(record.latency_ns);
        if let Some(integration) = &record.integration {
            counters.integration.record(integration.latency_ns);
        }
    }

    fn counters(&self, slot: Slot) -> Option<&Counters> {
        let (chunk, place) = (slot.0 as usize / CHUNK, slot.0 as usize % CHUNK);
        Some(&self.chunks.get(chunk)?.get()?[place])
    }

    fn has_counted(&self, slot: Slot) -> bool {
        self.counters(slot)
            .is_some_and(|counters| counters.latency.count() > 0)
    }

    fn add_to(&self, slot: Slot, total: &mut Total) {
        if let Some(counters) = self.counters(slot) {
            total.client_errors += counters.client_errors.load(Ordering::Relaxed);
            total.server_errors += counters.server_errors.load(Ordering::Relaxed);
            counters.latency.add_to(&mut total.latency);
            counters.integration.add_to(&mut total.integration);
        }
    }

    fn reset(&self, slot: Slot) {
        if let Some(counters) = self.counters(slot) {
            counters.client_errors.store(0, Ordering::Relaxed);
            counters.server_errors.store(0, Ordering::Relaxed);
            counters.latency.reset();
            counters.integration.reset();
        }
    }
}

/// The API's name without its non-ASCII characters; its id where nothing is left (OBS-010).
fn dimension_name(api: &str, name: &str) -> String {
    let ascii: String = name.chars().filter(char::is_ascii).collect();
    if ascii.is_empty() { api.to_owned() } else { ascii }
}

/// Slots in a chunk: a shard that serves one API pays for this many series.
const CHUNK: usize = 32;

/// Slots of the overflow series: one for stages, one for methods.
const RESERVED: usize = 2;
const OVERFLOW: &str = "_overflow";

const KEEP_UNUSED: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    /// OBS-010
    #[test]
    fn names_lose_what_is_not_ascii() {
        assert_eq!(dimension_name("a1b2c3d4e5", "petstöre"), "petstre");
        assert_eq!(dimension_name("a1b2c3d4e5", "ペット"), "a1b2c3d4e5");
    }

    /// D19: a series keeps its slot over redeployments, and over a short absence.
    #[test]
    fn a_series_keeps_its_slot_while_it_is_used_and_an_hour_longer() {
        let registry = Registry::new(1, 10);
        let first = registry.stage("a1", "pets", "prod");
        let slot = first.slot();
        let again = registry.stage("a1", "renamed", "prod");
        assert_eq!(again.slot(), slot);
        assert_ne!(
            registry.method("a1", "renamed", "prod", "/pets", "GET").slot(),
            slot
        );
        drop((first, again));
        let start = Instant::now();
        registry.sweep(start);
        registry.sweep(start + Duration::from_secs(3599));
        assert_eq!(registry.stage("a1", "renamed", "prod").slot(), slot);
        registry.sweep(start + Duration::from_secs(3600));
        registry.sweep(start + Duration::from_secs(7200));
        assert!(registry.is_empty());
    }

    /// D19: beyond the capacity everything is counted in one overflow series.
    #[test]
    fn what_does_not_fit_is_counted_as_overflow() {
        let registry = Registry::new(1, 2);
        let kept = [
            registry.stage("a1", "x", "s"),
            registry.method("a1", "x", "s", "/", "GET"),
        ];
        let over = [registry.stage("a2", "x", "s"), registry.stage("a3", "x", "s")];
        assert_eq!(over[0].slot(), over[1].slot());
        assert!(kept.iter().all(|handle| handle.slot() != over[0].slot()));
        let method = registry.method("a2", "x", "s", "/", "GET");
        assert_ne!(method.slot(), over[0].slot());
        assert_eq!(registry.len(), 2);
    }
}
