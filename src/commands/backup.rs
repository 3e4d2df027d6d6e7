//! `backup` and `restore`.

use std::{fs::File, io::Write, os::unix::fs::OpenOptionsExt};

use anyhow::{Context, bail};
use tidegate_proto::admin::v1::BackupRequest;

use crate::{
    cli::{BackupArgs, GlobalArgs, OutputFormat, RestoreArgs},
    client::Client,
    output, planes,
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

/// `tidegate restore`: into a data directory that holds no installation.
pub(crate) fn restore(global: &GlobalArgs, args: &RestoreArgs) -> anyhow::Result<()> {
    let settings = Settings::load(global, Flags::default())?;
    planes::restore(&settings, &args.file)?;
    println!(
        "restored into {dir}; start it with `tidegate up --data-dir {dir}`",
        dir = settings.data_dir.display()
    );
    Ok(())
}
