//! A running control plane: store, services, faces and distribution put together.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tidegate_plan::limits::{Limit, Limits};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
};

use crate::{
    compile::Compiler,
    distribute::{Distributor, DistributorOptions},
    grpc::{AdminFace, AdminListener, AdminOptions, FaceOptions},
    model::Refusal,
    service::{Bootstrap, Service, ServiceOptions},
    store::{SqliteStore, Store},
};

/// How long a stop waits for calls and streams under way.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the Admin API's own certificate lives; a new one is made at every start.
const SERVER_CERTIFICATE: Duration = Duration::from_secs(397 * 24 * 60 * 60);

/// How a control plane runs.
#[derive(Debug)]
pub struct Options {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The Admin API; plain on loopback, elsewhere TLS with a certificate of the internal authority.
    pub admin: SocketAddr,
    /// Where nodes come for their configuration.
    pub config: SocketAddr,
    /// The configuration address as nodes reach it, where that differs from what it listens on.
    pub control_address: Option<String>,
    /// Names and addresses of this machine for the certificates of the Admin API and the configuration address.
    pub server_names: Vec<String>,
    /// Written when everything serves.
    pub ready_file: Option<PathBuf>,
    /// What else the ready file says, by member.
    pub ready_members: serde_json::Map<String, serde_json::Value>,
    /// Hears what the ready file says, when everything serves.
    pub on_ready: Option<oneshot::Sender<serde_json::Value>>,
    /// Suffixes of invoke hosts; `None`: as they were, `localhost` at first.
    pub domain_suffixes: Option<Vec<String>>,
    /// The region of calls that name none.
    pub region: String,
    /// The account of principals that are made without one.
    pub account: String,
    /// The table of limits; `import-bytes`, `admin-connections` and `ticket-key-rotation` are the control plane's.
    pub limits: Limits,
}

impl Options {
    /// A control plane on loopback, on the documented ports.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            admin: SocketAddr::from(([127, 0, 0, 1], 7442)),
            config: SocketAddr::from(([127, 0, 0, 1], 7443)),
            control_address: None,
            server_names: Vec::new(),
            ready_file: None,
            ready_members: serde_json::Map::new(),
            on_ready: None,
            domain_suffixes: None,
            region: "us-east-1".into(),
            account: "000000000000".into(),
            limits: Limits::default(),
        }
    }
}

/// Runs a control plane until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<(), Refusal> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Refusal::internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Refusal::internal)?;
    run_until(options, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await
}

/// Runs a control plane until `stop` resolves, then finishes what is under way.
pub async fn run_until(mut options: Options, stop: impl Future<Output = ()> + Send) -> Result<(), Refusal> {
    let data_dir = &options.data_dir.clone();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(data_dir).await?);
    remove_leftovers(data_dir);
    let config = TcpListener::bind(options.config).await.map_err(|error| {
        Refusal::internal(format!("Nodes cannot be served on {}: {error}", options.config))
    })?;
    let config_address = config.local_addr().map_err(Refusal::internal)?;
    let distributor = Distributor::open(
        store.clone(),
        Arc::new(Compiler::new(store.clone())),
        DistributorOptions {
            control_address: options
                .control_address
                .clone()
                .unwrap_or_else(|| config_address.to_string()),
            server_names: options.server_names.clone(),
            domain_suffixes: options
                .domain_suffixes
                .clone()
                .unwrap_or_else(|| vec!["localhost".into()]),
            region: options.region.clone(),
            ticket_key_rotation: options.limits.duration(Limit::TicketKeyRotation),
            ..DistributorOptions::default()
        },
    )
    .await?;
    let service = Service::new(
        store.clone(),
        Arc::new(distributor.clone()),
        ServiceOptions {
            region: options.region.clone(),
            account: options.account.clone(),
        },
    );
    service
        .bootstrap(Bootstrap {
            domain_suffixes: options.domain_suffixes.clone(),
        })
        .await?;
    let token_file = data_dir.join("admin.token");
    keep_token(&service, &token_file).await?;
    let authority_file = data_dir.join("authority.pem");
    write_file(&authority_file, distributor.authority().pem().as_bytes(), 0o644)?;

    let admin = AdminListener::bind(AdminOptions {
        address: options.admin,
        identity: identity(&distributor, &options)?,
    })
    .await?;
    let admin_address = admin.address()?;
    let mut told = json!({
        "admin": admin_address.to_string(),
        "config": config_address.to_string(),
        "pids": { "controlplane": std::process::id() },
        "adminTokenFile": absolute(&token_file),
        "authorityFile": absolute(&authority_file),
    });
    if let Some(members) = told.as_object_mut() {
        members.extend(options.ready_members.clone());
    }
    if let Some(ready) = &options.ready_file {
        write_file(ready, told.to_string().as_bytes(), 0o644)?;
    }
    if let Some(listener) = options.on_ready.take() {
        // Whoever asked may have lost interest.
        let _heard = listener.send(told);
    }
    tracing::info!(admin = %admin_address, config = %config_address, "the control plane serves");

    let (stopping, stopped) = watch::channel(false);
    let face = AdminFace::new(
        service,
        FaceOptions {
            scratch: data_dir.clone(),
            import_bytes: options.limits.count(Limit::ImportBytes),
            connections: options.limits.count(Limit::AdminConnections),
        },
    );
    let mut admin = std::pin::pin!(admin.serve(face, until(stopped.clone())));
    let mut nodes = std::pin::pin!(distributor.serve(config, until(stopped)));
    let outcome = tokio::select! {
        () = stop => Ok(()),
        outcome = &mut admin => outcome.and(Err(Refusal::internal("the Admin API has ended"))),
        outcome = &mut nodes => outcome.and(Err(Refusal::internal("the distribution has ended"))),
    };
    stopping.send_replace(true);
    if outcome.is_ok() {
        let both = async { tokio::join!(&mut admin, &mut nodes) };
        match tokio::time::timeout(DRAIN, both).await {
            Ok((admin, nodes)) => admin.and(nodes)?,
            Err(_) => tracing::warn!("calls that were still under way have been cut off"),
        }
    }
    store.close().await;
    tracing::info!("the control plane has stopped");
    outcome
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error says that whoever stops us is gone, which is as good.
    let _either = stopped.wait_for(|stopped| *stopped).await;
}

/// The Admin API's certificate, where it has to speak TLS.
fn identity(distributor: &Distributor, options: &Options) -> Result<Option<(String, String)>, Refusal> {
    if options.admin.ip().is_loopback() {
        return Ok(None);
    }
    let mut names = options.server_names.clone();
    if !options.admin.ip().is_unspecified() {
        names.push(options.admin.ip().to_string());
    }
    if names.is_empty() {
        return Err(Refusal::bad_request(format!(
            "The Admin API on {} needs a certificate, and a certificate needs a name: set the names or addresses by \
             which this machine is reached, or listen on 127.0.0.1",
            options.admin
        )));
    }
    let issued = distributor.authority().issue_server(&names, SERVER_CERTIFICATE)?;
    Ok(Some((issued.chain_pem, issued.private_key_pem)))
}

/// Leaves a token file that works: the one that is there, or a new one.
async fn keep_token(service: &Service, file: &Path) -> Result<(), Refusal> {
    if let Ok(text) = fs::read_to_string(file)
        && service.authenticate(text.trim()).await.is_ok()
    {
        return Ok(());
    }
    let token = service.first_token().await?;
    write_file(file, format!("{token}\n").as_bytes(), 0o600)
}

/// Copies that a killed process was making for a backup.
fn remove_leftovers(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("backup-") && name.ends_with(".tmp") {
            // Another start will try again.
            let _stays = fs::remove_file(entry.path());
        }
    }
}

/// Writes a file that is whole whenever it can be read.
fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), Refusal> {
    let next = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        match fs::remove_file(&next) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&next)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().map_err(|error| Refusal::internal(format!("{} cannot be written: {error}", path.display())))
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .display()
        .to_string()
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
