//! The calls that stream: Watch, Import, Backup.

use std::{path::Path, pin::Pin};

use tidegate_plan::limits::{Limit, Unit};
use tidegate_proto::admin::v1 as admin;
use tokio::{fs::File, io::AsyncReadExt, sync::mpsc};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use super::{convert, status};
use crate::{
    model::{Code, ImportMode, Refusal, id},
    openapi::{self, BasePath, ImportOptions},
    service::{Caller, Import, Service},
    store::StoreError,
};

/// Changes read at once for a watcher.
const WATCHED_AT_ONCE: u32 = 500;
/// Messages that may wait for a slow reader; then nothing more is read from the store.
const WAITING: usize = 64;
/// Bytes of a backup in one message.
const CHUNK: usize = 256 << 10;

pub(super) type WatchStream = Pin<Box<dyn Stream<Item = Result<admin::Change, Status>> + Send>>;
pub(super) type BackupStream = Pin<Box<dyn Stream<Item = Result<admin::BackupChunk, Status>> + Send>>;

/// Changes in commit order, until the watcher leaves.
pub(super) fn watch(service: Service, caller: Caller, request: admin::WatchRequest) -> WatchStream {
    let (changes, stream) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        if let Err(refusal) = follow(&service, &caller, request, &changes).await {
            // Whoever has left need not hear of it.
            let _left = changes.send(Err(status(refusal))).await;
        }
    });
    Box::pin(ReceiverStream::new(stream))
}

async fn follow(
    service: &Service,
    caller: &Caller,
    request: admin::WatchRequest,
    out: &mpsc::Sender<Result<admin::Change, Status>>,
) -> Result<(), Refusal> {
    let mut revisions = service.store().revisions();
    let mut after = request.from_revision;
    loop {
        let (changes, covered) = service
            .changes(caller, after, &request.prefix, WATCHED_AT_ONCE)
            .await?;
        for change in changes {
            let action = if change.deleted {
                admin::change::Action::Delete
            } else {
                admin::change::Action::Put
            };
            let change = admin::Change {
                revision: change.revision,
                name: change.key.to_string(),
                action: action.into(),
                principal: change.principal,
                time: Some(pbjson_types::Timestamp {
                    seconds: change.time.unix(),
                    nanos: 0,
                }),
            };
            if out.send(Ok(change)).await.is_err() {
                return Ok(());
            }
        }
        after = covered.max(after);
        tokio::select! {
            moved = revisions.wait_for(|newest| *newest > after) => if moved.is_err() { return Ok(()) },
            () = out.closed() => return Ok(()),
        }
    }
}

/// Gathers a document, reads it off the runtime's threads, and makes it a draft.
pub(super) async fn import(
    service: &Service,
    caller: &Caller,
    max_bytes: usize,
    mut stream: Streaming<admin::ImportRequest>,
) -> Result<admin::ImportResponse, Status> {
    let mut options: Option<admin::ImportOptions> = None;
    let mut document = Vec::new();
    while let Some(message) = stream.next().await {
        let message = message?;
        if options.is_none() {
            options = Some(message.options.unwrap_or_default());
        }
        if document.len() + message.document.len() > max_bytes {
            return Err(status(Refusal::new(
                Code::LimitExceeded,
                format!(
                    "The document is larger than {}, the bound of an import: split it, or raise the control plane's limit \
                     {}",
                    Unit::Bytes.show(max_bytes as u64),
                    Limit::ImportBytes
                ),
            )));
        }
        document.extend_from_slice(&message.document);
    }
    let options = options.unwrap_or_default();
    let base_path = BasePath::parse(&options.base_path).ok_or_else(|| {
        status(Refusal::bad_request(format!(
            "Invalid base path handling: {}. Must be one of: [ignore, prepend, split]",
            options.base_path
        )))
    })?;
    let reading = ImportOptions {
        base_path,
        fail_on_warnings: options.fail_on_warnings,
        account_id: caller.account.clone(),
        region: service.options().region.clone(),
        max_bytes,
        ..ImportOptions::default()
    };
    let imported = tokio::task::spawn_blocking(move || openapi::import(&document, &reading))
        .await
        .map_err(|error| status(Refusal::internal(error)))?;
    let file = if options.file_name.is_empty() {
        String::new()
    } else {
        format!("{}: ", options.file_name)
    };
    let imported = imported.map_err(|error| status(Refusal::bad_request(format!("{file}{error}"))))?;
    let mode = match options.mode() {
        admin::import_options::Mode::Merge => ImportMode::Merge,
        _ => ImportMode::Overwrite,
    };
    let import = Import {
        api: Some(options.api_id).filter(|api| !api.is_empty()),
        mode,
        fail_on_warnings: options.fail_on_warnings,
        imported,
    };
    let outcome = service.import(caller, import).await.map_err(status)?;
    let rest_api = match convert::to_message(&outcome.rest_api)?.body {
        Some(admin::entity::Body::RestApi(api)) => Some(api),
        _ => None,
    };
    Ok(admin::ImportResponse {
        rest_api,
        warnings: outcome.warnings,
        revision: outcome.revision,
    })
}

/// Copies the store beside it and streams the copy, whose name is gone as soon as it is open.
pub(super) async fn backup(service: &Service, scratch: &Path) -> Result<BackupStream, Status> {
    let path = scratch.join(format!("backup-{}.tmp", id::random(12).map_err(status)?));
    let copied = service.store().copy_to(&path).await;
    let opened = match copied {
        Ok(()) => File::open(&path).await.map_err(|error| StoreError::File {
            path: path.display().to_string(),
            error,
        }),
        Err(error) => Err(error),
    };
    if let Err(error) = tokio::fs::remove_file(&path).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a backup's copy stays behind");
    }
    let mut file = opened.map_err(|error| status(error.into()))?;
    let (chunks, stream) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let mut data = vec![0; CHUNK];
            let next = match file.read(&mut data).await {
                Ok(0) => return,
                Ok(length) => {
                    data.truncate(length);
                    Ok(admin::BackupChunk { data })
                }
                Err(error) => Err(status(Refusal::internal(error))),
            };
            let failed = next.is_err();
            if chunks.send(next).await.is_err() || failed {
                return;
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}
