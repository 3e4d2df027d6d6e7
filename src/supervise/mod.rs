//! `tidegate up`: one control plane and one data plane as child processes of this one (C12).

mod child;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use serde_json::{Map, Value};
use tidegate_dataplane::{handover::Status, systemd};
use tidegate_proto::admin::v1::CreateJoinTokenRequest;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};

pub(crate) use child::Role;
use child::{Event, Spec, Wish, describe, keep};

use crate::{
    cli::{GlobalArgs, UpArgs},
    client::Client,
    instance::{DataDirLock, Instance, create_private_dir, write_atomically},
    logging, planes,
    settings::{Flags, Settings},
};

/// `tidegate up`.
pub(crate) fn up(global: &GlobalArgs, args: &UpArgs) -> anyhow::Result<()> {
    let settings = Settings::load(global, Flags::from(args))?;
    logging::start(settings.log.as_deref(), settings.log_format.as_deref(), "info")?;
    block_on(async {
        let mut supervisor = Supervisor::start(global, &settings).await?;
        supervisor.publish()?;
        systemd::notify("READY=1");
        let ready = supervisor.ready();
        tracing::info!(
            http = ready["http"].as_str(),
            https = ready["https"].as_str(),
            admin = ready["admin"].as_str(),
            metrics = ready["metrics"].as_str(),
            driver = ready["driver"].as_str(),
            "everything serves"
        );
        supervisor.watch().await
    })
}

/// Runs on this very thread: the kernel ends the children when the thread that started them ends.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}

/// The children and what is known of them.
pub(crate) struct Supervisor {
    global: GlobalArgs,
    settings: Settings,
    program: PathBuf,
    tasks: JoinSet<()>,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    wishes: BTreeMap<Role, watch::Sender<Wish>>,
    ready: BTreeMap<Role, Value>,
    /// Upgrades that have ended, and why the last one failed.
    upgrades: (u64, Option<String>),
    signals: Signals,
    _lock: DataDirLock,
}

impl Supervisor {
    /// Starts both planes and returns when both serve. What had started is stopped again when one does not.
    pub(crate) async fn start(global: &GlobalArgs, settings: &Settings) -> anyhow::Result<Self> {
        let lock = DataDirLock::take(&settings.data_dir)?;
        let data_dir = std::fs::canonicalize(&settings.data_dir).context("cannot find the data directory")?;
        let settings = Settings {
            data_dir,
            ..settings.clone()
        };
        create_private_dir(&settings.data_dir.join(RUN))?;
        let (sender, events) = mpsc::channel(16);
        let mut supervisor = Self {
            global: global.clone(),
            settings,
            program: planes::program(),
            tasks: JoinSet::new(),
            events,
            sender,
            wishes: BTreeMap::new(),
            ready: BTreeMap::new(),
            upgrades: (0, None),
            signals: Signals::new()?,
            _lock: lock,
        };
        match supervisor.start_planes().await {
            Ok(()) => Ok(supervisor),
            Err(error) => {
                supervisor.stop().await;
                Err(error)
            }
        }
    }

    async fn start_planes(&mut self) -> anyhow::Result<()> {
        let settings = self.settings.clone();
        let arguments = vec![
            ("--data-dir", settings.data_dir.clone().into_os_string()),
            ("--admin", text(settings.admin)),
            ("--management", text(settings.management)),
            (
                "--config",
                text(
                    settings
                        .config
                        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
                ),
            ),
        ];
        self.run(Role::ControlPlane, arguments).await?;
        let control = self.ready[&Role::ControlPlane]["config"]
            .as_str()
            .context("the control plane did not say where data planes connect")?;
        let mut arguments = vec![
            ("--data-dir", settings.data_dir.clone().into_os_string()),
            ("--control", control.into()),
            ("--http", text(settings.http)),
            ("--https", text(settings.https)),
            ("--metrics", text(settings.metrics)),
            ("--io-driver", settings.io_driver.name().into()),
        ];
        if !settings.data_dir.join(NODE_IDENTITY).exists() {
            arguments.push(("--join", self.join_file().await?.into_os_string()));
        }
        if let Some(shards) = settings.shards {
            arguments.push(("--shards", text(shards)));
        }
        self.run(Role::DataPlane, arguments).await
    }

    /// Starts a process and waits until it serves.
    pub(crate) async fn run(
        &mut self,
        role: Role,
        arguments: Vec<(&'static str, OsString)>,
    ) -> anyhow::Result<()> {
        let mut all: Vec<OsString> = Vec::new();
        let mut push = |flag: &str, value: OsString| all.extend([flag.into(), value]);
        if role != Role::Backend {
            if let Some(file) = &self.global.config_file {
                push("--config-file", std::path::absolute(file)?.into_os_string());
            }
            for (flag, value) in [
                ("--log", &self.settings.log),
                ("--log-format", &self.settings.log_format),
            ] {
                if let Some(value) = value {
                    push(flag, value.into());
                }
            }
        }
        for (flag, value) in arguments {
            push(flag, value);
        }
        let spec = Spec {
            role,
            program: self.program.clone(),
            arguments: all,
            ready_file: self
                .settings
                .data_dir
                .join(RUN)
                .join(format!("{}.ready", role.command())),
        };
        let (wish, wishes) = watch::channel(Wish::default());
        self.wishes.insert(role, wish);
        self.tasks.spawn(keep(spec, self.sender.clone(), wishes));
        loop {
            tokio::select! {
                event = self.events.recv() => match event.context("the supervisor lost its children")? {
                    Event::Ready(which, told) => {
                        self.ready.insert(which, told);
                        if which == role {
                            return Ok(());
                        }
                    }
                    Event::Exited(which, status) if which == role => bail!(
                        "the {} ended {} before it served; what it said stands above",
                        role.title(),
                        describe(status)
                    ),
                    Event::Failed(which, error) if which == role => return Err(error),
                    other => self.note(other)?,
                },
                _ = self.signals.stop() => bail!("stopped before everything served"),
            }
        }
    }

    /// A one-time token, for a data plane that has not joined before.
    async fn join_file(&self) -> anyhow::Result<PathBuf> {
        let file = self.settings.data_dir.join(RUN).join("join");
        let client = self.client().await?;
        let request = CreateJoinTokenRequest {
            node_name: "local".to_owned(),
            valid_seconds: JOIN_VALIDITY.as_secs() as u32,
        };
        let response = client
            .api
            .clone()
            .create_join_token(request)
            .await
            .map_err(|status| {
                client
                    .explain(status)
                    .context("the data plane gets no join token")
            })?
            .into_inner();
        write_atomically(&file, response.join_file.trim_end().as_bytes())?;
        Ok(file)
    }

    /// A connection to the control plane's Admin API.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let instance = self.instance()?;
        let authority = match &instance.authority_file {
            Some(file) => {
                Some(std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?)
            }
            None => None,
        };
        let scheme = if authority.is_some() { "https" } else { "http" };
        Client::open(
            &format!("{scheme}://{}", instance.admin),
            &instance.token()?,
            authority.as_deref(),
        )
        .await
    }

    fn instance(&self) -> anyhow::Result<Instance> {
        let told = self
            .ready
            .get(&Role::ControlPlane)
            .context("the control plane does not serve")?;
        Instance::from_ready(std::process::id(), told)
    }

    /// What the ready file says: every child's words, put together.
    pub(crate) fn ready(&self) -> Value {
        let mut all = Map::new();
        let mut pids = Map::new();
        for role in [Role::DataPlane, Role::ControlPlane] {
            for (name, value) in self
                .ready
                .get(&role)
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                match (name.as_str(), value) {
                    ("pids", Value::Object(own)) => pids.extend(own.clone()),
                    _ => {
                        all.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        all.insert("pids".to_owned(), Value::Object(pids));
        Value::Object(all)
    }

    /// What a child said when it came to serve.
    pub(crate) fn told(&self, role: Role) -> Option<&Value> {
        self.ready.get(&role)
    }

    /// Writes the ready file, the instance file and what `tidegate upgrade` reads.
    pub(crate) fn publish(&self) -> anyhow::Result<()> {
        self.instance()?.publish(&self.settings.data_dir)?;
        let told = self.ready.get(&Role::DataPlane);
        let pid = told.and_then(|told| told["pids"][Role::DataPlane.command()].as_u64());
        let version = told.and_then(|told| told["version"].as_str());
        let status = Status {
            ended: self.upgrades.0,
            failure: self.upgrades.1.clone(),
            ..Status::of(
                pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default(),
                version.unwrap_or_default(),
            )
        };
        // Who waits for the ready file may upgrade at once, and who waits for an upgrade may read the ready file at once.
        if status.ended == 0 {
            status.publish(&self.settings.data_dir)?;
        }
        if let Some(file) = &self.settings.ready_file {
            write_atomically(file, &serde_json::to_vec_pretty(&self.ready())?)?;
        }
        if status.ended > 0 {
            status.publish(&self.settings.data_dir)?;
        }
        Ok(())
    }

    /// Keeps everything running until a signal asks for the end.
    pub(crate) async fn watch(&mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                event = self.events.recv() => {
                    let event = event.context("the supervisor lost its children")?;
                    let back = matches!(event, Event::Ready(..) | Event::Upgraded(..) | Event::NotUpgraded(..));
                    self.note(event)?;
                    if back {
                        self.publish()?;
                    }
                }
                asked = self.signals.next() => match asked {
                    Asked::Stop => break,
                    Asked::Upgrade => {
                        if let Some(wish) = self.wishes.get(&Role::DataPlane) {
                            wish.send_modify(|wish| wish.upgrade += 1);
                        }
                    }
                    Asked::Reopen => {
                        for wish in self.wishes.values() {
                            wish.send_modify(|wish| wish.reopen += 1);
                        }
                    }
                }
            }
        }
        tracing::info!("stopping");
        systemd::notify("STOPPING=1");
        self.stop().await;
        Ok(())
    }

    fn note(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Ready(role, told) => {
                tracing::info!("the {} serves again", role.title());
                self.ready.insert(role, told);
            }
            Event::Upgraded(role, told) => {
                tracing::info!("a new {} has taken over", role.title());
                self.ready.insert(role, told);
                self.upgrades = (self.upgrades.0 + 1, None);
            }
            Event::NotUpgraded(role, reason) => {
                tracing::error!(
                    reason,
                    "the upgrade failed; the {} that ran goes on",
                    role.title()
                );
                self.upgrades = (self.upgrades.0 + 1, Some(reason));
            }
            Event::Exited(role, status) => {
                tracing::error!(
                    "the {} ended {}; it is started again",
                    role.title(),
                    describe(status)
                );
            }
            Event::Failed(role, error) => {
                tracing::error!("the {} cannot be started: {error:#}; trying again", role.title());
            }
            Event::Stopped(_) => {}
        }
        Ok(())
    }

    /// Ends the children, traffic first. A further signal ends them at once.
    pub(crate) async fn stop(&mut self) {
        for role in [Role::DataPlane, Role::ControlPlane, Role::Backend] {
            let Some(wish) = self.wishes.remove(&role) else {
                continue;
            };
            wish.send_modify(|wish| wish.stop = true);
            loop {
                tokio::select! {
                    event = self.events.recv() => match event {
                        Some(Event::Stopped(which)) if which == role => break,
                        Some(_) => {}
                        None => return,
                    },
                    () = self.signals.stop() => {
                        wish.send_modify(|wish| wish.kill = true);
                        for other in self.wishes.values() {
                            other.send_modify(|wish| { wish.stop = true; wish.kill = true; });
                        }
                    }
                }
            }
        }
        self.tasks.shutdown().await;
    }
}

/// The signals that a supervisor answers.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    upgrade: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            upgrade: listen(SignalKind::user_defined2())?,
        })
    }

    /// What the next signal asks for.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reopen,
            _ = self.upgrade.recv() => Asked::Upgrade,
        }
    }

    /// Waits until somebody wants the end.
    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// End.
    Stop,
    /// Reopen logs.
    Reopen,
    /// Have a new data plane take over.
    Upgrade,
}

impl Instance {
    /// The instance that a control plane's ready file describes; it lives and dies with `pid`.
    pub(crate) fn from_ready(pid: u32, told: &Value) -> anyhow::Result<Self> {
        let member = |name: &str| {
            told.get(name)
                .and_then(Value::as_str)
                .ok_or_else(|| anyhow!("the control plane did not say its {name}"))
        };
        let admin: SocketAddr = member("admin")?
            .parse()
            .context("the control plane's admin address is none")?;
        // Beyond loopback the Admin API speaks TLS; this machine reaches it on loopback all the same.
        let authority_file = (!admin.ip().is_loopback())
            .then(|| member("authorityFile"))
            .transpose()?;
        let admin = if admin.ip().is_unspecified() {
            SocketAddr::from(([127, 0, 0, 1], admin.port()))
        } else {
            admin
        };
        Ok(Self {
            pid,
            admin,
            admin_token_file: Path::new(member("adminTokenFile")?).to_owned(),
            authority_file: authority_file.map(PathBuf::from),
        })
    }
}

fn text(value: impl ToString) -> OsString {
    value.to_string().into()
}

/// Below the data directory: what only lives while the instance does.
const RUN: &str = "run";
/// Below the data directory: where the data plane keeps its certificate once it has joined.
const NODE_IDENTITY: &str = "node/identity.json";
/// The data plane is started right after its token was made.
const JOIN_VALIDITY: Duration = Duration::from_secs(600);
