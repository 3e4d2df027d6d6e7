//! One delta for one node, chunk by chunk, made as the node takes it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use prost::bytes::Bytes;
use tidegate_proto::config::v1 as config;

use super::{
    bundles::Bundles,
    source::{BundleKey, Changed},
};
use crate::model::{Code, Refusal};

/// The largest chunk, envelope included (C1).
pub(super) const CHUNK_MAX: usize = 1024 * 1024;
/// Room for what surrounds a bundle's content: ids, digests, lengths.
const ENVELOPE: usize = 512;

/// What a node reads.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) format: u32,
}

/// A delta on its way.
pub(super) struct Feed {
    bundles: Arc<Bundles>,
    reader: Reader,
    installation: String,
    from: u64,
    full: bool,
    changed: Arc<Changed>,
    /// Bundles that the node asked for by name, besides what changed.
    missing: Vec<BundleKey>,
    next_present: usize,
    next_gone: usize,
    pending: Option<Pending>,
    finished: bool,
}

/// A bundle of which nothing or a part has been sent.
struct Pending {
    envelope: config::Bundle,
    content: Bytes,
    offset: usize,
}

// === impl Feed ===

impl Feed {
    /// What brings a node from revision `from` to the newest, `until` at least.
    pub(super) async fn new(
        bundles: Arc<Bundles>,
        reader: Reader,
        installation: &str,
        from: u64,
        until: u64,
        missing: Vec<BundleKey>,
    ) -> Result<Self, Refusal> {
        let changed = bundles.changed(from, until).await?;
        let missing = match changed.full || missing.is_empty() {
            true => Vec::new(),
            false => {
                let known: HashSet<_> = changed.present.iter().chain(&changed.gone).collect();
                missing.into_iter().filter(|key| !known.contains(key)).collect()
            }
        };
        Ok(Self {
            bundles,
            reader,
            installation: installation.to_owned(),
            from,
            full: changed.full,
            changed,
            missing,
            next_present: 0,
            next_gone: 0,
            pending: None,
            finished: false,
        })
    }

    /// The revision to which it leads.
    pub(super) fn to(&self) -> u64 {
        self.changed.to
    }

    /// Whether it changes nothing on the node.
    pub(super) fn is_empty(&self) -> bool {
        !self.full
            && self.changed.present.is_empty()
            && self.changed.gone.is_empty()
            && self.missing.is_empty()
    }

    /// The next chunk; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<config::Delta>, Refusal> {
        if self.finished {
            return Ok(None);
        }
        let mut chunk = config::Delta {
            installation_id: self.installation.clone(),
            from_revision: self.from,
            to_revision: self.changed.to,
            full: self.full,
            ..Default::default()
        };
        let mut room = CHUNK_MAX - ENVELOPE;
        loop {
            if self.pending.is_none() && !self.fetch(&mut chunk, &mut room).await? {
                chunk.last = true;
                self.finished = true;
                return Ok(Some(chunk));
            }
            let Some(pending) = &mut self.pending else {
                // A removal was added.
                if room < ENVELOPE {
                    return Ok(Some(chunk));
                }
                continue;
            };
            let whole = pending.content.len() + pending.envelope.id.len() + ENVELOPE;
            if whole <= room {
                room -= whole;
                let mut bundle = std::mem::take(&mut pending.envelope);
                bundle.content = std::mem::take(&mut pending.content);
                chunk.bundles.push(bundle);
                self.pending = None;
                continue;
            }
            if !chunk.bundles.is_empty() || !chunk.removals.is_empty() {
                return Ok(Some(chunk));
            }
            // Larger than a chunk: in parts, each alone in its chunk.
            let end = pending
                .content
                .len()
                .min(pending.offset + CHUNK_MAX - 2 * ENVELOPE - pending.envelope.id.len());
            chunk.bundles.push(config::Bundle {
                content: pending.content.slice(pending.offset..end),
                size: pending.content.len() as u64,
                offset: pending.offset as u64,
                ..pending.envelope.clone()
            });
            pending.offset = end;
            if end == pending.content.len() {
                self.pending = None;
            }
            return Ok(Some(chunk));
        }
    }

    /// Takes up the next thing: a bundle becomes `pending`, a removal goes into the chunk. `false`: there is none.
    async fn fetch(&mut self, chunk: &mut config::Delta, room: &mut usize) -> Result<bool, Refusal> {
        let present = self.changed.present.len();
        if self.next_present < present + self.missing.len() {
            let key = match self.changed.present.get(self.next_present) {
                Some(key) => key,
                None => &self.missing[self.next_present - present],
            };
            self.next_present += 1;
            let ready = match self.bundles.get(key, self.reader.format).await {
                Ok(ready) => ready,
                Err(refusal) if refusal.code == Code::Unavailable => return Err(refusal),
                // One bundle that cannot be made stops no other; the node keeps what it has, and tells.
                Err(refusal) => {
                    tracing::error!(
                        bundle = key.id,
                        error = refusal.message,
                        "a bundle cannot be made"
                    );
                    let envelope = config::Bundle {
                        id: key.id.clone(),
                        kind: key.kind.into(),
                        revision: self.changed.to,
                        error: refusal.message.chars().take(ENVELOPE / 4).collect(),
                        ..Default::default()
                    };
                    self.pending = Some(Pending {
                        envelope,
                        content: Bytes::new(),
                        offset: 0,
                    });
                    return Ok(true);
                }
            };
            match ready {
                Some(ready) if ready.is_for(&self.reader.labels) => {
                    let (envelope, content) = (ready.envelope(key), ready.compiled.content.clone());
                    self.pending = Some(Pending {
                        envelope,
                        content,
                        offset: 0,
                    });
                }
                // Gone since, or never for this node, or not any more.
                _ => Self::remove(key, self.changed.to, self.full, chunk, room),
            }
            return Ok(true);
        }
        let Some(key) = self.changed.gone.get(self.next_gone) else {
            return Ok(false);
        };
        self.next_gone += 1;
        Self::remove(key, self.changed.to, self.full, chunk, room);
        Ok(true)
    }

    fn remove(key: &BundleKey, revision: u64, full: bool, chunk: &mut config::Delta, room: &mut usize) {
        // In a full delta what is not named is removed.
        if !full {
            *room = room.saturating_sub(key.id.len() + 32);
            chunk.removals.push(config::Removal {
                id: key.id.clone(),
                kind: key.kind.into(),
                revision,
            });
        }
    }
}
