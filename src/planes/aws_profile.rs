//! A credentials file for the aws CLI and the AWS SDKs, with keys of this installation alone.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use aws_lc_rs::rand;

use crate::instance::write_atomically;

/// The file below `data_dir`, made where there is none.
pub(crate) fn keep(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let file = data_dir.join(NAME);
    if file
        .try_exists()
        .with_context(|| format!("cannot read {}", file.display()))?
    {
        return Ok(file);
    }
    let id = random(ID_LETTERS, 16)?;
    let secret = random(SECRET_LETTERS, 40)?;
    let text = format!("[default]\naws_access_key_id = TGIA{id}\naws_secret_access_key = {secret}");
    write_atomically(&file, text.as_bytes())?;
    Ok(file)
}

/// So many letters, each equally likely.
fn random(letters: &[u8], length: usize) -> anyhow::Result<String> {
    let mut text = String::with_capacity(length);
    let fair = 256 - 256 % letters.len();
    while text.len() < length {
        let mut bytes = [0_u8; 64];
        rand::fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
        let fit = bytes
            .iter()
            .map(|byte| usize::from(*byte))
            .filter(|byte| *byte < fair);
        text.extend(
            fit.take(length - text.len())
                .map(|byte| char::from(letters[byte % letters.len()])),
        );
    }
    Ok(text)
}

const NAME: &str = "aws-credentials";
const ID_LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const SECRET_LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The keys stay, and only the owner reads them.
    #[test]
    fn a_profile_is_made_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = keep(dir.path()).expect("made");
        let text = std::fs::read_to_string(&file).expect("readable");
        assert!(text.starts_with("[default]\naws_access_key_id = TGIA"), "{text}");
        assert_eq!(text.lines().count(), 3);
        keep(dir.path()).expect("kept");
        assert_eq!(std::fs::read_to_string(&file).expect("readable"), text);
        let mode = std::fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
