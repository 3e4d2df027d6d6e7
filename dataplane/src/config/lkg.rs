//! The last known good configuration on disk.
//!
//! One file: a base of sealed records, written whole, then records appended as changes come. A record is durable before
//! its bundle reaches a shard, and a revision is noted after the bundles that it covers, so that losing the end of the
//! file loses nothing that cannot be asked for again. Each record carries its own authentication: a flipped byte
//! anywhere costs the record it hits, the others are found again behind it.
//!
//! ```text
//! file    = header record*
//! record  = mark(8) length(4) nonce(12) sealed(length)      sealed = AES-256-GCM(tag(1) protobuf)
//! ```
//!
//! The key lies beside the file, both readable by the owner alone. It keeps private keys out of copies of the file, not
//! from who can read the directory.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use prost::Message;
use tidegate_proto::config::v1::{Bundle, BundleOutcome, Delta, Removal};

/// The largest bundle, content only. A stage of 10,000 routes has a tenth of it.
pub const BUNDLE_MAX: usize = 64 * 1024 * 1024;

/// Records that no one needs any more are dropped when they take as much room as the others, and this much.
const GARBAGE_MIN: u64 = 4 * 1024 * 1024;

const HEADER: &[u8; 16] = b"tidegate-lkg\n\x00\x00\x01";
const MARK: [u8; 8] = [0xf5, b'T', b'G', b'r', 0x0d, 0x0a, 0x00, 0xfa];
const HEAD: usize = MARK.len() + 4 + NONCE_LEN;
const KEY: usize = 32;
/// Bytes read at a time when the file is gone through.
const WINDOW: usize = 1024 * 1024;

/// What a bundle is called: kind and id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BundleKey {
    /// The number of the kind: one that this version does not know is kept apart all the same.
    pub kind: i32,
    /// Unique per kind.
    pub id: String,
}

/// A step to be made durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A bundle with its content.
    Put(Bundle),
    /// A bundle is gone.
    Remove(Removal),
    /// A bundle was refused: its old content stays, and the new one is to be asked for again.
    Refuse(BundleOutcome),
    /// Everything up to this revision of this installation stands above.
    Commit {
        /// The installation.
        installation: String,
        /// Its revision.
        revision: u64,
    },
}

/// A bundle's identity without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The revision of its last change.
    pub revision: u64,
    /// Of its content.
    pub sha256: Vec<u8>,
}

/// The file and what it holds.
#[derive(Debug)]
pub struct LastKnownGood {
    directory: PathBuf,
    file: File,
    sealer: Sealer,
    /// Where the next record goes.
    end: u64,
    live: HashMap<BundleKey, Slot>,
    /// Bytes of the records in `live`.
    live_bytes: u64,
    refused: HashMap<BundleKey, BundleOutcome>,
    installation: String,
    revision: u64,
    damaged: bool,
    /// A write failed half-way: the file is written anew before it is used again.
    broken: bool,
    /// Held while this process may write; given up while another one takes over.
    lock: Option<File>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LkgError {
    /// The disk refused.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another process has it.
    #[error("{0} is in use by another data plane: stop that one, or choose another data directory")]
    InUse(PathBuf),
    /// Sealing failed: the system's random generator does not work.
    #[error("the system's random generator failed")]
    Random,
    /// A record is larger than any that can be read back.
    #[error("a bundle has at most {BUNDLE_MAX} bytes, this one {0}")]
    TooLarge(usize),
    /// A record that was read before cannot be read now.
    #[error("{0}: a record cannot be read any more; the disk is failing")]
    Unreadable(PathBuf),
}

#[derive(Debug, Clone)]
struct Slot {
    offset: u64,
    /// Of the whole record.
    length: u64,
    held: Held,
}

/// What lies on the node's disk is sealed by this.
#[derive(Debug)]
pub(super) struct Sealer(LessSafeKey);

// === impl LastKnownGood ===

impl LastKnownGood {
    /// Opens the file in a directory, which is made if it is not there, and goes through it. What is damaged is left
    /// out; the end of a write that did not finish is cut off.
    pub fn open(directory: &Path) -> Result<Self, LkgError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| LkgError::Io { path, error }
        };
        fs::create_dir_all(directory).map_err(failed(directory))?;
        let lock = lock(&directory.join("lock"))?;
        let key_path = directory.join("seal.key");
        let sealer = Sealer::open(&key_path).map_err(failed(&key_path))?;
        let path = directory.join(NAME);
        let file = private()
            .read(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed(&path))?;
        let mut this = Self {
            directory: directory.to_owned(),
            file,
            sealer,
            end: 0,
            live: HashMap::new(),
            live_bytes: 0,
            refused: HashMap::new(),
            installation: String::new(),
            revision: 0,
            damaged: false,
            broken: false,
            lock: Some(lock),
        };
        this.scan().map_err(failed(&path))?;
        Ok(this)
    }

    /// The revision up to which everything is held. 0 when records were lost that nothing tells the names of.
    pub fn revision(&self) -> u64 {
        if self.damaged { 0 } else { self.revision }
    }

    /// Whose revisions these are; empty before the first.
    pub fn installation(&self) -> &str {
        &self.installation
    }

    /// Whether records were lost in the middle of the file. A full delta heals it.
    pub fn damaged(&self) -> bool {
        self.damaged
    }

    /// The names of the bundles it holds, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &BundleKey> {
        self.live.keys()
    }

    /// What it holds under a name.
    pub fn held(&self, key: &BundleKey) -> Option<&Held> {
        self.live.get(key).map(|slot| &slot.held)
    }

    /// The bundles whose newest content is not held.
    pub fn refused(&self) -> impl Iterator<Item = &BundleOutcome> {
        self.refused.values()
    }

    /// Reads a bundle back.
    pub fn read(&self, key: &BundleKey) -> Result<Option<Bundle>, LkgError> {
        let Some(slot) = self.live.get(key) else {
            return Ok(None);
        };
        let unreadable = || LkgError::Unreadable(self.path());
        let record = self.record(slot)?;
        match self.sealer.open_record(&record) {
            Some(Step::Put(bundle)) => Ok(Some(bundle)),
            _ => Err(unreadable()),
        }
    }

    /// Lets another process open the directory. Until [`LastKnownGood::reopen`] nothing is written here.
    pub fn release(&mut self) {
        self.lock = None;
    }

    /// Takes the directory back after [`LastKnownGood::release`], with what another process may have written meanwhile.
    pub fn reopen(&mut self) -> Result<(), LkgError> {
        *self = Self::open(&self.directory)?;
        Ok(())
    }

    /// What other files of the directory are sealed by.
    pub(super) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Where it lies.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether this process may write.
    pub fn is_released(&self) -> bool {
        self.lock.is_none()
    }

    /// Makes steps durable, all of them before it returns. After an error nothing of them counts.
    pub fn append(&mut self, steps: &[Step]) -> Result<(), LkgError> {
        if self.is_released() {
            return Err(LkgError::InUse(self.path()));
        }
        if self.broken {
            self.rewrite()?;
        }
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(steps.len());
        for step in steps {
            self.sealer.seal(step, &mut bytes)?;
            ends.push(bytes.len() as u64);
        }
        if let Err(error) = self
            .file
            .write_all_at(&bytes, self.end)
            .and_then(|()| self.file.sync_data())
        {
            // What is on the disk now is anybody's guess.
            self.broken = true;
            return Err(LkgError::Io {
                path: self.path(),
                error,
            });
        }
        let mut from = 0;
        for (step, to) in steps.iter().zip(ends) {
            self.note(step, self.end + from, to - from);
            from = to;
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Writes the file anew when half of it is not needed any more. Called between changes.
    pub fn compact(&mut self) -> Result<(), LkgError> {
        if self.is_released() {
            return Ok(());
        }
        let garbage = self.end.saturating_sub(self.live_bytes);
        if self.broken || garbage > self.live_bytes.max(GARBAGE_MIN) {
            self.rewrite()?;
        }
        Ok(())
    }

    /// A full delta came to its end: what was lost has come again.
    pub fn healed(&mut self) {
        self.damaged = false;
    }

    fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    fn record(&self, slot: &Slot) -> Result<Vec<u8>, LkgError> {
        let mut record = vec![0; usize::try_from(slot.length).unwrap_or(0)];
        self.file
            .read_exact_at(&mut record, slot.offset)
            .map_err(|error| LkgError::Io {
                path: self.path(),
                error,
            })?;
        Ok(record)
    }

    /// What a step means for what is held.
    fn note(&mut self, step: &Step, offset: u64, length: u64) {
        match step {
            Step::Put(bundle) => {
                let key = BundleKey {
                    kind: bundle.kind,
                    id: bundle.id.clone(),
                };
                self.refused.remove(&key);
                let held = Held {
                    revision: bundle.revision,
                    sha256: bundle.sha256.clone(),
                };
                if let Some(old) = self.live.insert(key, Slot { offset, length, held }) {
                    self.live_bytes -= old.length;
                }
                self.live_bytes += length;
            }
            Step::Remove(removal) => {
                let key = BundleKey {
                    kind: removal.kind,
                    id: removal.id.clone(),
                };
                self.refused.remove(&key);
                if let Some(old) = self.live.remove(&key) {
                    self.live_bytes -= old.length;
                }
            }
            Step::Refuse(outcome) => {
                self.refused.insert(
                    BundleKey {
                        kind: outcome.kind,
                        id: outcome.id.clone(),
                    },
                    outcome.clone(),
                );
            }
            Step::Commit {
                installation,
                revision,
            } => {
                self.installation.clone_from(installation);
                self.revision = *revision;
            }
        }
    }

    /// Goes through the file and sets `end` behind its last good record.
    fn scan(&mut self) -> io::Result<()> {
        let mut window = Window::new(self.file.try_clone()?, self.file.metadata()?.len());
        let mut lost = false;
        if window.bytes(0, HEADER.len())? == Some(HEADER.as_slice()) {
            self.end = HEADER.len() as u64;
        } else if window.length > 0 {
            lost = true;
        }
        let mut at = self.end;
        while at < window.length {
            match self.step_at(&mut window, at)? {
                Some((step, length)) => {
                    // Something good behind something bad: what was between them is gone.
                    self.damaged |= lost;
                    lost = false;
                    self.note(&step, at, length);
                    at += length;
                    self.end = at;
                }
                None => {
                    lost = true;
                    at = match window.find(&MARK, at + 1)? {
                        Some(next) => next,
                        None => break,
                    };
                }
            }
        }
        if self.damaged {
            tracing::warn!(
                file = %self.path().display(),
                held = self.live.len(),
                "records of the last known good configuration are damaged; the rest is served, and all is asked for again"
            );
        } else if window.length > self.end && self.end > 0 {
            tracing::info!(
                file = %self.path().display(),
                bytes = window.length - self.end,
                "a write that did not finish is cut off"
            );
        }
        if window.length > self.end {
            self.file.set_len(self.end)?;
        }
        if self.end == 0 {
            self.file.write_all_at(HEADER, 0)?;
            self.end = HEADER.len() as u64;
        }
        self.file.sync_all()
    }

    fn step_at(&self, window: &mut Window, at: u64) -> io::Result<Option<(Step, u64)>> {
        let Some(head) = window.bytes(at, HEAD)? else {
            return Ok(None);
        };
        let Some(length) = record_length(head) else {
            return Ok(None);
        };
        let Some(record) = window.bytes(at, length)? else {
            return Ok(None);
        };
        Ok(self.sealer.open_record(record).map(|step| (step, length as u64)))
    }

    /// Writes what is held into a new file, which takes the old one's place when it is durable.
    fn rewrite(&mut self) -> Result<(), LkgError> {
        let path = self.directory.join(NEW_NAME);
        let failed = |error| LkgError::Io {
            path: path.clone(),
            error,
        };
        let file = private()
            .read(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(failed)?;
        let mut out = io::BufWriter::with_capacity(WINDOW, &file);
        out.write_all(HEADER).map_err(failed)?;
        let mut end = HEADER.len() as u64;
        let mut order: Vec<_> = self.live.iter().collect();
        order.sort_by_key(|(_, slot)| slot.offset);
        let mut live = HashMap::with_capacity(order.len());
        for (key, slot) in order {
            // Sealed records are copied as they are.
            out.write_all(&self.record(slot)?).map_err(failed)?;
            live.insert(
                key.clone(),
                Slot {
                    offset: end,
                    ..slot.clone()
                },
            );
            end += slot.length;
        }
        let mut tail = Vec::new();
        for outcome in self.refused.values() {
            self.sealer.seal(&Step::Refuse(outcome.clone()), &mut tail)?;
        }
        let commit = Step::Commit {
            installation: self.installation.clone(),
            revision: self.revision(),
        };
        self.sealer.seal(&commit, &mut tail)?;
        out.write_all(&tail).map_err(failed)?;
        out.flush().map_err(failed)?;
        drop(out);
        file.sync_all().map_err(failed)?;
        fs::rename(&path, self.path()).map_err(failed)?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)?;
        self.file = file;
        self.end = end + tail.len() as u64;
        self.live = live;
        self.broken = false;
        Ok(())
    }
}

// === impl Sealer ===

impl Sealer {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(file) => {
                file.take(KEY as u64 + 1).read_to_end(&mut bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if bytes.len() != KEY {
            // None yet, or lost: what it sealed will be found unreadable and asked for again.
            bytes = vec![0; KEY];
            rand::fill(&mut bytes).map_err(|_| io::Error::other("the system's random generator failed"))?;
            super::files::write_private(path, &bytes)?;
        }
        let key = UnboundKey::new(&AES_256_GCM, &bytes)
            .map_err(|_| io::Error::other("the key has the wrong size"))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals what another kind of file holds: `nonce sealed`. The kind is told by the file's header.
    pub(super) fn seal_bytes(&self, header: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut out = [nonce.as_slice(), plain].concat();
        let unique = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(unique, Aad::from(header), &mut out[NONCE_LEN..])
            .ok()?;
        out.extend_from_slice(tag.as_ref());
        Some(out)
    }

    /// Opens what [`Sealer::seal_bytes`] has sealed.
    pub(super) fn open_bytes(&self, header: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(header), &mut sealed)
            .ok()?
            .len();
        sealed.truncate(plain);
        Some(sealed)
    }

    fn seal(&self, step: &Step, out: &mut Vec<u8>) -> Result<(), LkgError> {
        let mut plain = Vec::new();
        let encoded = match step {
            Step::Put(bundle) => bundle.encoded_len(),
            _ => 0,
        };
        if encoded > BUNDLE_MAX {
            return Err(LkgError::TooLarge(encoded));
        }
        plain.reserve(encoded + 32);
        plain.push(match step {
            Step::Put(_) => b'P',
            Step::Remove(_) => b'R',
            Step::Refuse(_) => b'X',
            Step::Commit { .. } => b'C',
        });
        // A vector takes whatever is written into it.
        let _ = match step {
            Step::Put(bundle) => bundle.encode(&mut plain),
            Step::Remove(removal) => removal.encode(&mut plain),
            Step::Refuse(outcome) => outcome.encode(&mut plain),
            Step::Commit {
                installation,
                revision,
            } => {
                let commit = Delta {
                    installation_id: installation.clone(),
                    to_revision: *revision,
                    ..Default::default()
                };
                commit.encode(&mut plain)
            }
        };
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| LkgError::Random)?;
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(HEADER), &mut plain)
            .map_err(|_| LkgError::TooLarge(encoded))?;
        let length = u32::try_from(plain.len()).map_err(|_| LkgError::TooLarge(encoded))?;
        out.reserve(HEAD + plain.len());
        out.extend_from_slice(&MARK);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&plain);
        Ok(())
    }

    /// Opens a whole record; `None` when it was changed in any way.
    fn open_record(&self, record: &[u8]) -> Option<Step> {
        let nonce = record.get(HEAD - NONCE_LEN..HEAD)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = record.get(HEAD..)?.to_vec();
        let plain = self.0.open_in_place(nonce, Aad::from(HEADER), &mut sealed).ok()?;
        let (tag, message) = plain.split_first()?;
        Some(match tag {
            b'P' => Step::Put(Bundle::decode(message).ok()?),
            b'R' => Step::Remove(Removal::decode(message).ok()?),
            b'X' => Step::Refuse(BundleOutcome::decode(message).ok()?),
            b'C' => {
                let commit = Delta::decode(message).ok()?;
                Step::Commit {
                    installation: commit.installation_id,
                    revision: commit.to_revision,
                }
            }
            _ => return None,
        })
    }
}

/// The whole length of the record that this head begins, if it is one.
fn record_length(head: &[u8]) -> Option<usize> {
    let length = head.strip_prefix(&MARK)?.first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    (length <= BUNDLE_MAX + 4096).then_some(HEAD + length)
}

/// A part of a file in memory, as large as asked for.
struct Window {
    file: File,
    length: u64,
    at: u64,
    bytes: Vec<u8>,
}

// === impl Window ===

impl Window {
    fn new(file: File, length: u64) -> Self {
        Self {
            file,
            length,
            at: 0,
            bytes: Vec::new(),
        }
    }

    /// So many bytes from an offset on; `None`: the file ends before.
    fn bytes(&mut self, at: u64, count: usize) -> io::Result<Option<&[u8]>> {
        if at + count as u64 > self.length {
            return Ok(None);
        }
        let held = at >= self.at && at + count as u64 <= self.at + self.bytes.len() as u64;
        if !held {
            let left = usize::try_from(self.length - at).unwrap_or(usize::MAX);
            self.bytes.resize(count.max(WINDOW).min(left), 0);
            self.file.read_exact_at(&mut self.bytes, at)?;
            self.at = at;
        }
        let from = (at - self.at) as usize;
        Ok(Some(&self.bytes[from..from + count]))
    }

    /// The next place of `pattern` from an offset on.
    fn find(&mut self, pattern: &[u8], mut at: u64) -> io::Result<Option<u64>> {
        while at + pattern.len() as u64 <= self.length {
            let count = WINDOW.min((self.length - at) as usize);
            let Some(bytes) = self.bytes(at, count)? else {
                return Ok(None);
            };
            if let Some(found) = memchr::memmem::find(bytes, pattern) {
                return Ok(Some(at + found as u64));
            }
            // The pattern may lie across the edge.
            at += (count - (pattern.len() - 1).min(count - 1)) as u64;
        }
        Ok(None)
    }
}

fn lock(path: &Path) -> Result<File, LkgError> {
    let failed = |error| LkgError::Io {
        path: path.to_owned(),
        error,
    };
    let file = private()
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LkgError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

const NAME: &str = "last-known-good";
const NEW_NAME: &str = "last-known-good.new";

#[cfg(test)]
mod tests;
