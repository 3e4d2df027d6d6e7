//! `backup` and `restore`.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, bail};
use tidegate_proto::admin::v1::BackupRequest;

use crate::{
    cli::{BackupArgs, GlobalArgs, OutputFormat, RestoreArgs},
    client::Client,
    instance::DataDirLock,
    output,
    settings::{Flags, Settings},
};

/// `tidegate backup`: the file is complete or not there.
pub(crate) async fn backup(global: &GlobalArgs, args: &BackupArgs) -> anyhow::Result<()> {
    if args.file.exists() {
        bail!("{} exists already; name a new file", args.file.display());
    }
    let mut client = Client::connect(global).await?;
    let mut chunks = client
        .api
        .backup(BackupRequest {})
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    let mut name = args.file.file_name().context("that is no file name")?.to_owned();
    name.push(".part");
    let partial = args.file.with_file_name(name);
    let mut out = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&partial)
        .with_context(|| format!("cannot write {}", partial.display()))?;
    let mut size = 0;
    while let Some(chunk) = chunks.message().await.map_err(|status| client.explain(status))? {
        out.write_all(&chunk.data)
            .with_context(|| format!("cannot write {}", partial.display()))?;
        size += chunk.data.len();
    }
    out.sync_all()?;
    std::fs::rename(&partial, &args.file).with_context(|| format!("cannot write {}", args.file.display()))?;
    match global.output {
        OutputFormat::Json => {
            output::json(&serde_json::json!({ "file": args.file.display().to_string(), "bytes": size }))
        }
        OutputFormat::Table => {
            println!("{} ({size} bytes)", args.file.display());
            Ok(())
        }
    }
}

/// `tidegate restore`: into a data directory that holds no store yet.
pub(crate) fn restore(global: &GlobalArgs, args: &RestoreArgs) -> anyhow::Result<()> {
    let settings = Settings::load(global, Flags::default())?;
    let dir = &settings.data_dir;
    let mut source =
        File::open(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let mut magic = [0_u8; 16];
    if source.read_exact(&mut magic).is_err() || &magic != SQLITE {
        bail!(
            "{} is no backup: `tidegate backup` writes SQLite databases",
            args.file.display()
        );
    }
    source.rewind()?;
    let _lock = DataDirLock::take(dir)?;
    let (store, key) = (dir.join(STORE), dir.join(KEY));
    if store.exists() {
        bail!(
            "{} holds an installation already; name an empty directory with --data-dir",
            dir.display()
        );
    }
    if let Some(from) = &args.key_file {
        if key.exists() {
            bail!("{} exists already", key.display());
        }
        let content = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        create(&key)?
            .write_all(&content)
            .with_context(|| format!("cannot write {}", key.display()))?;
    } else if !key.exists() {
        bail!(
            "a backup's secrets are sealed with the installation's key, which is not in it: name the file ({KEY} of the \
             old data directory) with --key-file, or put it at {}",
            key.display()
        );
    }
    // Renamed last, so that a copy that was cut off is not taken for a store.
    let partial = dir.join("store.db.part");
    let mut out = create(&partial)?;
    std::io::copy(&mut source, &mut out)
        .and_then(|_| out.sync_all())
        .and_then(|()| std::fs::rename(&partial, &store))
        .with_context(|| format!("cannot write {}", store.display()))?;
    println!(
        "restored into {dir}; start it with `tidegate up --data-dir {dir}`",
        dir = dir.display()
    );
    Ok(())
}

fn create(file: &Path) -> anyhow::Result<File> {
    File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// How an SQLite database begins.
const SQLITE: &[u8; 16] = b"SQLite format 3\0";
/// The store's database and its key, by the names that the control plane gives them.
const STORE: &str = "store.db";
const KEY: &str = "secrets.key";

#[cfg(test)]
mod tests {
    use super::*;

    fn restore_into(dir: &Path, file: &Path, key_file: Option<&Path>) -> anyhow::Result<()> {
        let global = GlobalArgs {
            data_dir: Some(dir.to_owned()),
            ..GlobalArgs::default()
        };
        restore(
            &global,
            &RestoreArgs {
                file: file.to_owned(),
                key_file: key_file.map(Path::to_owned),
            },
        )
    }

    /// A backup goes into an empty directory, with its key, once.
    #[test]
    fn a_backup_needs_its_key_and_an_empty_directory() {
        let home = tempfile::tempdir().expect("a directory");
        let (dir, file, key) = (
            home.path().join("d"),
            home.path().join("b"),
            home.path().join("k"),
        );
        std::fs::write(&file, b"something else altogether").expect("written");
        assert!(
            restore_into(&dir, &file, None)
                .expect_err("no backup")
                .to_string()
                .contains("no backup")
        );
        std::fs::write(&file, b"SQLite format 3\0and so on").expect("written");
        std::fs::write(&key, b"key").expect("written");
        assert!(
            restore_into(&dir, &file, None)
                .expect_err("no key")
                .to_string()
                .contains("--key-file")
        );
        restore_into(&dir, &file, Some(&key)).expect("restored");
        assert_eq!(
            std::fs::read(dir.join(STORE)).expect("there"),
            b"SQLite format 3\0and so on"
        );
        assert!(
            restore_into(&dir, &file, None)
                .expect_err("twice")
                .to_string()
                .contains("already")
        );
    }
}
