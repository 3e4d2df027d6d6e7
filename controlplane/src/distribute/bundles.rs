//! Bundles as they are sent: what changed, computed once for all nodes at one revision, and compiled once.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::digest;
use prost::bytes::Bytes;
use tidegate_proto::config::v1 as config;
use tokio::sync::Mutex as AsyncMutex;

use super::{
    FORMATS, certificate,
    source::{BundleKey, Changed, Compiled, Source},
};
use crate::{
    model::{Kind, Refusal},
    store::Store,
};

/// Bytes of compiled content that are kept for the next node that asks.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Answers to "what changed since" that are kept: nodes are at few revisions at a time.
const CHANGES_KEPT: usize = 8;
/// Names of gone bundles that the cache's order may hold besides.
const ORDER_SLACK: usize = 1_024;
/// How many bundles are compiled at a time.
const STRIPES: usize = 16;

/// The installation's bundles, with what was computed of late.
pub(super) struct Bundles {
    store: Arc<dyn Store>,
    source: Arc<dyn Source>,
    changes: AsyncMutex<VecDeque<(u64, Arc<Changed>)>>,
    cache: Mutex<Cache>,
    hasher: RandomState,
    /// One compilation of a bundle serves all who wait for it.
    stripes: [AsyncMutex<()>; STRIPES],
}

/// A bundle, ready to be sent.
pub(super) struct Ready {
    pub(super) compiled: Compiled,
    pub(super) sha256: Bytes,
}

#[derive(Default)]
struct Cache {
    /// Entries hold what the store held at this revision or later.
    as_of: u64,
    entries: HashMap<(BundleKey, u32), Arc<Ready>>,
    order: VecDeque<(BundleKey, u32)>,
    bytes: usize,
}

// === impl Bundles ===

impl Bundles {
    pub(super) fn new(store: Arc<dyn Store>, source: Arc<dyn Source>) -> Self {
        Self {
            store,
            source,
            changes: AsyncMutex::default(),
            cache: Mutex::default(),
            hasher: RandomState::new(),
            stripes: std::array::from_fn(|_| AsyncMutex::default()),
        }
    }

    /// What changed after `since`, up to `until` at least.
    pub(super) async fn changed(&self, since: u64, until: u64) -> Result<Arc<Changed>, Refusal> {
        let mut kept = self.changes.lock().await;
        if let Some((_, changed)) = kept
            .iter()
            .find(|(from, changed)| *from == since && changed.to >= until)
        {
            return Ok(changed.clone());
        }
        let changed = Arc::new(self.ask(since).await?);
        kept.retain(|(from, _)| *from != since);
        kept.push_front((since, changed.clone()));
        kept.truncate(CHANGES_KEPT);
        // What is cached may be older than what was just looked at.
        let as_of = self.cache().valid_from(changed.to);
        if changed.to > as_of {
            let stale = match since <= as_of {
                true => changed.clone(),
                false => Arc::new(self.ask(as_of).await?),
            };
            self.cache().advance(&stale);
        }
        Ok(changed)
    }

    async fn ask(&self, since: u64) -> Result<Changed, Refusal> {
        let mut changed = self.source.changed(since).await?;
        let own = certificate::key();
        if changed.full {
            changed.present.push(own);
        } else {
            let mut read = self.store.read().await?;
            if !read.changed(since, &[Kind::Authority]).await?.is_empty() {
                changed.present.push(own);
            }
        }
        Ok(changed)
    }

    /// A bundle as of now, or at least of the last answer of `changed`; `None`: it is gone.
    pub(super) async fn get(&self, key: &BundleKey, format: u32) -> Result<Option<Arc<Ready>>, Refusal> {
        let stripe = (self.hasher.hash_one(key) % STRIPES as u64) as usize;
        let _one_at_a_time = self.stripes[stripe].lock().await;
        let name = (key.clone(), format);
        if let Some(ready) = self.cache().entries.get(&name) {
            return Ok(Some(ready.clone()));
        }
        let before = self.cache().as_of;
        let compiled = match *key == certificate::key() {
            true => certificate::compiled(&*self.store).await?,
            false => self.source.compiled(key, format).await?,
        };
        let Some(compiled) = compiled else { return Ok(None) };
        let sha256 = Bytes::copy_from_slice(digest::digest(&digest::SHA256, &compiled.content).as_ref());
        let ready = Arc::new(Ready { compiled, sha256 });
        let mut cache = self.cache();
        // Compiled from a view that may by now be older than the rest of the cache: good to send, not to keep.
        if cache.as_of == before {
            cache.insert(name, ready.clone());
        }
        Ok(Some(ready))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ready {
    /// Whether a node with these labels gets it.
    pub(super) fn is_for(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        self.compiled
            .node_selector
            .iter()
            .all(|(name, value)| labels.get(name) == Some(value))
    }

    /// The bundle without its content.
    pub(super) fn envelope(&self, key: &BundleKey) -> config::Bundle {
        config::Bundle {
            id: key.id.clone(),
            kind: key.kind.into(),
            format: self.compiled.format,
            revision: self.compiled.revision,
            sha256: self.sha256.to_vec(),
            ..Default::default()
        }
    }
}

// === impl Cache ===

impl Cache {
    /// The revision of which it is; an empty one is as good as of any.
    fn valid_from(&mut self, now: u64) -> u64 {
        if self.entries.is_empty() {
            self.as_of = self.as_of.max(now);
        }
        self.as_of
    }

    fn advance(&mut self, changed: &Changed) {
        if changed.to <= self.as_of {
            return;
        }
        self.as_of = changed.to;
        if changed.full {
            self.entries.clear();
            self.order.clear();
            self.bytes = 0;
            return;
        }
        // By key, not by a walk: one change costs the change, not the cache.
        for key in changed.present.iter().chain(&changed.gone) {
            for format in FORMATS {
                if let Some(gone) = self.entries.remove(&(key.clone(), format)) {
                    self.bytes -= gone.compiled.content.len();
                }
            }
        }
        // The order keeps names of what is gone until they are more than the others.
        if self.order.len() > 2 * self.entries.len() + ORDER_SLACK {
            let entries = &self.entries;
            let mut seen = HashSet::with_capacity(entries.len());
            self.order
                .retain(|name| entries.contains_key(name) && seen.insert(name.clone()));
        }
    }

    fn insert(&mut self, name: (BundleKey, u32), ready: Arc<Ready>) {
        self.bytes += ready.compiled.content.len();
        self.order.push_back(name.clone());
        self.entries.insert(name, ready);
        while self.bytes > CACHE_BYTES {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(gone) = self.entries.remove(&oldest) {
                self.bytes -= gone.compiled.content.len();
            }
        }
    }
}
