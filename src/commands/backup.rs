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
    let from = match &args.key_file {
        Some(_) if key.exists() => bail!("{} exists already", key.display()),
        Some(from) => from,
        None if key.exists() => &key,
        None => bail!(
            "a backup's secrets are sealed with the installation's key, which is not in it: name the file ({KEY} of the \
             old data directory) with --key-file, or put it at {}",
            key.display()
        ),
    };
    // Renamed last, so that what was cut off or refused is not taken for a store.
    let partial = dir.join("store.db.part");
    let restored = copy(&mut source, &partial)
        .and_then(|()| make_own(&partial, from))
        .and_then(|()| match from == &key {
            true => Ok(()),
            false => {
                let mut source =
                    File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
                copy(&mut source, &key)
            }
        })
        .and_then(|()| {
            std::fs::rename(&partial, &store).with_context(|| format!("cannot write {}", store.display()))
        });
    if restored.is_err() {
        // The error is what counts; a rest that stays is overwritten by the next try.
        let _ = std::fs::remove_file(&partial);
    }
    restored?;
    println!(
        "restored into {dir}; start it with `tidegate up --data-dir {dir}`",
        dir = dir.display()
    );
    eprintln!(
        "note: it is a new installation with the old content: nodes take everything anew, join tokens are void; see \
         docs/operations.md"
    );
    Ok(())
}

/// The copy becomes an installation of its own.
fn make_own(store: &Path, key: &Path) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(tidegate_controlplane::store::restore(store, key))?;
    Ok(())
}

fn copy(source: &mut File, file: &Path) -> anyhow::Result<()> {
    let mut out = create(file)?;
    std::io::copy(source, &mut out)
        .and_then(|_| out.sync_all())
        .with_context(|| format!("cannot write {}", file.display()))
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
    use tidegate_controlplane::store::{SqliteStore, Store};

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

    /// A backup goes into an empty directory, with its key, once; what is refused leaves nothing behind.
    #[test]
    fn a_backup_needs_its_key_and_an_empty_directory() {
        let home = tempfile::tempdir().expect("a directory");
        let at = |name: &str| home.path().join(name);
        let (dir, file, key) = (at("d"), at("b"), at("old").join(KEY));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let store = SqliteStore::open(&at("old")).await.expect("a store");
            store.copy_to(&file).await.expect("copied");
            store.close().await;
            let other = SqliteStore::open(&at("other")).await.expect("a store");
            other.close().await;
        });
        let refused = |file: &Path, key: Option<&Path>| {
            let error = restore_into(&dir, file, key).expect_err("refused");
            assert!(!dir.join(STORE).exists() && !dir.join("store.db.part").exists());
            format!("{error:#}")
        };
        std::fs::write(at("text"), b"something else altogether").expect("written");
        assert!(refused(&at("text"), Some(&key)).contains("no backup"));
        assert!(refused(&file, None).contains("--key-file"));
        assert!(refused(&file, Some(&at("other").join(KEY))).contains("not the key file"));
        restore_into(&dir, &file, Some(&key)).expect("restored");
        assert_eq!(
            std::fs::read(dir.join(KEY)).expect("there"),
            std::fs::read(&key).expect("there")
        );
        assert!(dir.join(STORE).exists());
        let twice = restore_into(&dir, &file, None).expect_err("twice");
        assert!(twice.to_string().contains("already"), "{twice}");
    }
}
