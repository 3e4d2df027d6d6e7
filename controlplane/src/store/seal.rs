//! Secrets at rest (C7): sealed under the installation's keys, found by keyed hash.
//!
//! The keys are in a file of their own beside the database, readable by its owner only. A backup of the database does
//! not hold it: without the file nothing sealed can be opened.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    hmac,
};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::model::{Key, Kind, id};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// The installation's keys.
pub(super) struct Sealer {
    path: PathBuf,
    file: KeyFile,
    keys: BTreeMap<i64, RandomizedNonceKey>,
    lookup: hmac::Key,
}

#[derive(Clone, Serialize, Deserialize)]
struct KeyFile {
    /// The key that seals; the others only open.
    current: i64,
    /// Key id to key, in hexadecimal.
    keys: BTreeMap<i64, String>,
    /// The key of look-up hashes. It stays: what is only hashed cannot be hashed anew.
    lookup: String,
}

impl Sealer {
    /// Makes a new key file; refuses where there is one.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        let file = KeyFile {
            current: 1,
            keys: BTreeMap::from([(1, random_key()?)]),
            lookup: random_key()?,
        };
        write_new(path, &file)?;
        Self::from_file(path, file)
    }

    /// Reads the key file.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let text = fs::read(path).map_err(|error| file_error(path, error))?;
        let file = serde_json::from_slice(&text)
            .map_err(|_| StoreError::Seal(format!("{} is no key file of Tidegate", path.display())))?;
        Self::from_file(path, file)
    }

    fn from_file(path: &Path, file: KeyFile) -> Result<Self, StoreError> {
        let broken = || StoreError::Seal(format!("{} holds a broken key", path.display()));
        let mut keys = BTreeMap::new();
        for (id, text) in &file.keys {
            let bytes = from_hex(text)
                .filter(|bytes| bytes.len() == KEY_BYTES)
                .ok_or_else(broken)?;
            keys.insert(
                *id,
                RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| broken())?,
            );
        }
        if !keys.contains_key(&file.current) {
            return Err(broken());
        }
        let lookup = from_hex(&file.lookup)
            .filter(|bytes| bytes.len() == KEY_BYTES)
            .ok_or_else(broken)?;
        Ok(Self {
            path: path.into(),
            keys,
            lookup: hmac::Key::new(hmac::HMAC_SHA256, &lookup),
            file,
        })
    }

    /// The key that seals now.
    pub(super) fn current(&self) -> i64 {
        self.file.current
    }

    /// Seals a secret for one row only; returns the key's id and the sealed bytes.
    pub(super) fn seal(&self, row: &Key, secret: &[u8]) -> Result<(i64, Vec<u8>), StoreError> {
        let failed = || StoreError::Seal("sealing failed".into());
        let key = self.keys.get(&self.file.current).ok_or_else(failed)?;
        let mut bytes = secret.to_vec();
        let nonce = key
            .seal_in_place_append_tag(aad(row), &mut bytes)
            .map_err(|_| failed())?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut bytes);
        Ok((self.file.current, sealed))
    }

    /// Opens what was sealed for this row.
    pub(super) fn open_sealed(&self, row: &Key, by: i64, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let key = self.keys.get(&by).ok_or_else(|| {
            StoreError::Seal(format!(
                "{row} is sealed by key {by}, which {} does not hold",
                self.path.display()
            ))
        })?;
        let failed = || {
            StoreError::Seal(format!(
                "{row} was not sealed by key {by} of {}",
                self.path.display()
            ))
        };
        let (nonce, rest) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut bytes = rest.to_vec();
        let length = key
            .open_in_place(nonce, aad(row), &mut bytes)
            .map_err(|_| failed())?
            .len();
        bytes.truncate(length);
        Ok(bytes)
    }

    /// The keyed hash by which a secret of a kind is found.
    pub(super) fn lookup(&self, kind: Kind, secret: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.lookup);
        context.update(kind.as_str().as_bytes());
        context.update(&[0]);
        context.update(secret);
        context.sign().as_ref().to_vec()
    }

    /// A value that tells whether a database and a key file belong together.
    pub(super) fn check_value(&self) -> String {
        to_hex(hmac::sign(&self.lookup, b"tidegate store").as_ref())
    }

    /// The same keys and a new one that seals from now on, written to the file before anything is sealed with it.
    pub(super) fn with_new_key(&self) -> Result<Self, StoreError> {
        let mut file = self.file.clone();
        file.current = file.keys.keys().next_back().copied().unwrap_or(0) + 1;
        file.keys.insert(file.current, random_key()?);
        replace(&self.path, &file)?;
        Self::from_file(&self.path, file)
    }

    /// Only the key that seals now: nothing is sealed by the others any more.
    pub(super) fn without_old_keys(&self) -> Result<Self, StoreError> {
        let mut file = self.file.clone();
        file.keys.retain(|id, _| *id == file.current);
        replace(&self.path, &file)?;
        Self::from_file(&self.path, file)
    }
}

/// A sealed secret opens only in the row it was sealed for.
fn aad(row: &Key) -> Aad<String> {
    Aad::from(format!("{}\0{}\0{}", row.kind.as_str(), row.parent, row.id))
}

fn random_key() -> Result<String, StoreError> {
    let mut bytes = [0; KEY_BYTES];
    id::fill(&mut bytes).map_err(|refusal| StoreError::Seal(refusal.message))?;
    Ok(to_hex(&bytes))
}

fn write_new(path: &Path, file: &KeyFile) -> Result<(), StoreError> {
    let write = || -> io::Result<()> {
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        out.write_all(&serde_json::to_vec(file)?)?;
        out.sync_all()?;
        sync_directory(path)
    };
    write().map_err(|error| file_error(path, error))
}

fn replace(path: &Path, file: &KeyFile) -> Result<(), StoreError> {
    let next = path.with_extension("key.new");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file_error(&next, error)),
        _ => {}
    }
    write_new(&next, file)?;
    fs::rename(&next, path)
        .and_then(|()| sync_directory(path))
        .map_err(|error| file_error(path, error))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn file_error(path: &Path, error: io::Error) -> StoreError {
    StoreError::File {
        path: path.display().to_string(),
        error,
    }
}

/// Lower-case hexadecimal.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Sealed bytes open in their own row only, and the file is its owner's alone.
    #[test]
    fn seals_for_one_row() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("secrets.key");
        let sealer = Sealer::create(&path).expect("created");
        assert_eq!(
            fs::metadata(&path).expect("metadata").permissions().mode() & 0o777,
            0o600
        );
        let row = Key::top(Kind::ApiKey, "k1");
        let (by, sealed) = sealer.seal(&row, b"a planted secret").expect("sealed");
        assert!(!sealed.windows(7).any(|window| window == b"planted"));
        let again = Sealer::open(&path).expect("opened");
        assert_eq!(
            again.open_sealed(&row, by, &sealed).expect("opened"),
            b"a planted secret"
        );
        assert!(
            again
                .open_sealed(&Key::top(Kind::ApiKey, "k2"), by, &sealed)
                .is_err()
        );
        assert_eq!(
            again.lookup(Kind::ApiKey, b"x"),
            sealer.lookup(Kind::ApiKey, b"x")
        );
        assert_ne!(
            again.lookup(Kind::Principal, b"x"),
            sealer.lookup(Kind::ApiKey, b"x")
        );
    }

    /// After a rotation old secrets open until the old key is dropped.
    #[test]
    fn rotation() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("secrets.key");
        let row = Key::top(Kind::ApiKey, "k1");
        let first = Sealer::create(&path).expect("created");
        let (by, sealed) = first.seal(&row, b"secret").expect("sealed");
        let second = first.with_new_key().expect("rotated");
        assert_ne!(second.current(), by);
        assert_eq!(second.open_sealed(&row, by, &sealed).expect("opened"), b"secret");
        let third = second.without_old_keys().expect("dropped");
        assert!(third.open_sealed(&row, by, &sealed).is_err());
        assert_eq!(third.check_value(), first.check_value());
    }
}
