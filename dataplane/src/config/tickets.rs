//! The installation's ticket keys on this node: received, installed, kept on disk.
//!
//! They are kept so that a node that restarts while its control plane is away takes its clients' sessions up again. They
//! are not kept with the last known good configuration, whose file only grows: a key that is forgotten is to be gone from
//! the disk, too. So they have a small file of their own, sealed, that is overwritten in place before another takes its
//! place, and that is removed when the last of them has run out.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tidegate_proto::config::v1::TicketKeys;
use zeroize::{Zeroize, Zeroizing};

use super::{files::write_private, lkg::Sealer};
use crate::net::tls::SavedKey;

/// The file in the node's directory.
pub(super) const NAME: &str = "ticket-keys";

const HEADER: &[u8; 16] = b"tidegate-tkt\n\x00\x00\x01";
/// More than any of them takes.
const FILE_MAX: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Kept {
    /// When it was written, milliseconds since 1970.
    at: i64,
    keys: Vec<SavedKey>,
}

/// The keys of a message. What is malformed is left out.
pub(super) fn received(message: TicketKeys) -> Vec<SavedKey> {
    let keys = message.keys.into_iter().filter_map(|mut key| {
        let secret = key.secret.as_slice().try_into().ok();
        key.secret.zeroize();
        Some(SavedKey {
            secret: secret?,
            shared: true,
            seals_from: key.seals_from_ms,
            seals_until: key.seals_until_ms,
            opens_until: key.opens_until_ms,
        })
    });
    keys.collect()
}

/// Writes them down; none: there is no file any more.
pub(super) fn keep(path: &Path, sealer: &Sealer, keys: Vec<SavedKey>) -> io::Result<()> {
    overwrite(path)?;
    if keys.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let kept = Kept { at: now(), keys };
    let plain = Zeroizing::new(serde_json::to_vec(&kept).map_err(io::Error::other)?);
    let sealed = sealer
        .seal_bytes(HEADER, &plain)
        .ok_or_else(|| io::Error::other("the keys cannot be sealed"))?;
    write_private(path, &[HEADER.as_slice(), &sealed].concat())
}

/// Reads them back, with what is left of their time. A file that cannot be used is as good as none.
pub(super) fn load(path: &Path, sealer: &Sealer) -> Vec<SavedKey> {
    let read = || -> Option<Vec<SavedKey>> {
        let length = fs::metadata(path).ok()?.len();
        let bytes = (length <= FILE_MAX).then(|| fs::read(path).ok())??;
        let plain = Zeroizing::new(sealer.open_bytes(HEADER, bytes.strip_prefix(HEADER)?)?);
        let Kept { at, keys } = serde_json::from_slice(&plain).ok()?;
        // Written in the future: nobody knows how old they are.
        let age = now().checked_sub(at).filter(|age| *age >= 0)?;
        let keys = keys.into_iter().map(|key| key.later(-age));
        Some(keys.filter(|key| key.shared && key.opens_until > 0).collect())
    };
    read().unwrap_or_default()
}

/// Leaves nothing of the file's content, as far as the file system writes in place.
fn overwrite(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len().min(FILE_MAX);
    file.write_all(&vec![0; usize::try_from(length).unwrap_or(0)])?;
    file.sync_all()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or(Duration::ZERO).as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_proto::config::v1::TicketKey;

    fn keys() -> Vec<SavedKey> {
        let key = |secret: u8, from: i64| TicketKey {
            secret: vec![secret; 32],
            seals_from_ms: from,
            seals_until_ms: from + 1_000_000,
            opens_until_ms: from + 2_000_000,
        };
        let short = TicketKey {
            secret: vec![9; 31],
            ..key(9, 0)
        };
        received(TicketKeys {
            keys: vec![key(0xa1, -10), short, key(0xa2, 999_990)],
        })
    }

    /// What is malformed is left out, what is well-formed is not shown.
    #[test]
    fn a_message_becomes_keys() {
        let keys = keys();
        assert_eq!(
            keys.iter().map(|key| key.secret[0]).collect::<Vec<_>>(),
            [0xa1, 0xa2]
        );
        let message = TicketKey {
            secret: b"planted".to_vec(),
            ..Default::default()
        };
        assert!(!format!("{message:?}").contains("112"), "{message:?}");
    }

    /// C7: the file holds no key unsealed; other keys leave nothing of the old ones; none leave no file.
    #[test]
    fn the_file_is_sealed_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let sealer = Sealer::open(&directory.path().join("seal.key")).unwrap();
        assert!(load(&path, &sealer).is_empty());
        keep(&path, &sealer, keys()).unwrap();
        let first = fs::read(&path).unwrap();
        assert!(!first.windows(8).any(|window| window == [0xa1; 8]));
        assert!(!String::from_utf8_lossy(&first).contains("161,161"));
        let loaded = load(&path, &sealer);
        assert_eq!(loaded.len(), 2);
        assert!(loaded[0].secret == keys()[0].secret && loaded[0].opens_until <= 1_999_990);

        // The old file's own blocks are overwritten, not only its name taken.
        let old = fs::File::open(&path).unwrap();
        keep(&path, &sealer, keys()).unwrap();
        let mut left = Vec::new();
        io::Read::read_to_end(&mut { old }, &mut left).unwrap();
        assert!(left.len() == first.len() && left.iter().all(|byte| *byte == 0));

        let mut damaged = fs::read(&path).unwrap();
        damaged[40] ^= 1;
        fs::write(&path, damaged).unwrap();
        assert!(load(&path, &sealer).is_empty());
        keep(&path, &sealer, Vec::new()).unwrap();
        assert!(!path.exists());
        keep(&path, &sealer, Vec::new()).unwrap();
    }

    /// A node that was switched off for longer than a key is good does not take it up again, nor one from the future.
    #[test]
    fn keys_go_on_ageing_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let sealer = Sealer::open(&directory.path().join("seal.key")).unwrap();
        for (ago, left) in [(0, 2), (2_000_000, 1), (3_000_000, 0), (-60_000, 0)] {
            let kept = Kept {
                at: now() - ago,
                keys: keys(),
            };
            let sealed = sealer
                .seal_bytes(HEADER, &serde_json::to_vec(&kept).unwrap())
                .unwrap();
            fs::write(&path, [HEADER.as_slice(), &sealed].concat()).unwrap();
            assert_eq!(load(&path, &sealer).len(), left, "{ago} ms ago");
        }
    }
}
