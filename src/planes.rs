//! The sub-commands that run one plane in this process.

mod aws_profile;
mod management;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, bail};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use tidegate_plan::Limits;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{ControlPlaneArgs, DataPlaneArgs, GlobalArgs},
    instance::{DataDirLock, Instance, create_private_dir, write_atomically},
    logging, output,
    settings::{Flags, Settings},
};
use management::Management;

/// `tidegate controlplane`.
pub(crate) fn control(global: &GlobalArgs, args: &ControlPlaneArgs) -> anyhow::Result<()> {
    end_with(args.supervised_by)?;
    let settings = Settings::load(global, Flags::from(args))?;
    logging::start(settings.log.as_deref(), settings.log_format.as_deref(), "info")?;
    // A supervisor holds the directory for its children.
    let _lock = match args.supervised_by {
        Some(_) => None,
        None => Some(DataDirLock::take(&settings.data_dir)?),
    };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve_control(&settings, args.supervised_by.is_none()))
}

async fn serve_control(settings: &Settings, alone: bool) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // There are no log files to reopen, and a hang-up is no reason to end.
    let _hang_up = signal(SignalKind::hangup())?;
    // Nothing can take over from a control plane: it is restarted, and nodes reconnect.
    let _upgrade = signal(SignalKind::user_defined2())?;
    let data_dir = std::path::absolute(&settings.data_dir)?;
    create_private_dir(&data_dir)?;
    let management = Management::bind(settings.management).await?;
    let profile = aws_profile::keep(&data_dir)?;
    let mut ready_members = serde_json::Map::new();
    ready_members.insert("management".to_owned(), management.address().to_string().into());
    ready_members.insert("awsProfile".to_owned(), profile.display().to_string().into());
    let (publish, published) = tokio::sync::oneshot::channel();
    let mut server_names = settings.server_names.clone();
    if !settings.admin.ip().is_loopback() && !server_names.is_empty() {
        // So that commands on this machine reach it as well.
        server_names.push("127.0.0.1".to_owned());
    }
    let options = tidegate_controlplane::Options {
        admin: settings.admin,
        config: settings.config.unwrap_or(DEFAULT_CONFIG),
        control_address: settings.control_address.clone(),
        server_names,
        ready_file: if alone { None } else { settings.ready_file.clone() },
        ready_members,
        on_ready: Some(publish),
        domain_suffixes: Some(vec![settings.domain_suffix.clone()]),
        region: settings.region.clone(),
        account: settings.account_id.clone(),
        limits: settings.limits()?,
        ..tidegate_controlplane::Options::new(&data_dir)
    };
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let tell = async {
        if let Ok(told) = published.await
            && alone
        {
            Instance::from_ready(std::process::id(), &told)?.publish(&data_dir)?;
            // Last: who waits for this file may run a command that looks for the instance.
            if let Some(file) = &settings.ready_file {
                write_atomically(file, &serde_json::to_vec_pretty(&told)?)?;
            }
            tidegate_dataplane::systemd::notify("READY=1");
        }
        std::future::pending::<anyhow::Result<()>>().await
    };
    tokio::select! {
        ended = tidegate_controlplane::run_until(options, stop) => {
            ended.map_err(|refusal| anyhow::anyhow!("{}", refusal.message))
        }
        failed = tell => failed,
        () = management.serve() => Ok(()),
    }
}

/// `tidegate dataplane`.
pub(crate) fn data(global: &GlobalArgs, args: &DataPlaneArgs) -> anyhow::Result<()> {
    end_with(args.supervised_by)?;
    let settings = Settings::load(global, Flags::from(args))?;
    logging::start(settings.log.as_deref(), settings.log_format.as_deref(), "info")?;
    create_private_dir(&settings.data_dir)?;
    let options = tidegate_dataplane::Options {
        http: Some(settings.http),
        https: Some(settings.https),
        metrics: Some(settings.metrics),
        shards: settings.shards.map(Into::into),
        driver: settings.io_driver.into(),
        control: settings.control.clone(),
        join_file: settings.join.clone(),
        node_name: settings.node_name.clone().unwrap_or_else(host_name),
        labels: settings.labels.clone().into_iter().collect(),
        limits: settings.limits()?,
        http2_prior_knowledge: settings.http2_prior_knowledge,
        ready_file: settings.ready_file.clone(),
        proxy_protocol: settings.proxied()?,
        upstream_source: settings.upstream_source.clone(),
        take_over: args.take_over,
        supervisor: args.supervised_by,
        successor: args.supervised_by.is_none().then(successor),
        ..tidegate_dataplane::Options::new(&settings.data_dir)
    };
    tidegate_dataplane::run(&options)?;
    Ok(())
}

/// This process's own command, for a process that takes over from it.
fn successor() -> tidegate_dataplane::Successor {
    tidegate_dataplane::Successor {
        program: program(),
        arguments: std::env::args_os()
            .skip(1)
            .filter(|argument| argument != tidegate_dataplane::TAKE_OVER)
            .collect(),
    }
}

/// The path by which this program was started: a newer program that is put there is started next. The kernel's own notion
/// follows symbolic links, and so would find the old one where a link was set anew.
pub(crate) fn program() -> PathBuf {
    let given = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let found = if given.components().count() > 1 {
        std::path::absolute(&given).ok()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|directory| directory.join(&given))
            .find(|candidate| candidate.is_file())
    };
    found
        .filter(|program| program.is_file())
        .or_else(|| std::env::current_exe().ok())
        .unwrap_or(given)
}

/// What this machine calls itself.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

/// `tidegate limits`: the table with the values in force.
pub(crate) fn limits(global: &GlobalArgs) -> anyhow::Result<()> {
    let settings = Settings::load(global, Flags::default())?;
    let limits = settings.limits()?;
    let value: Vec<_> = Limits::table()
        .iter()
        .map(|row| {
            serde_json::json!({
                "name": row.name,
                "value": limits.get(row.limit),
                "default": row.default,
                "minimum": row.minimum,
                "maximum": row.maximum,
                "bounds": row.doc,
                "over": row.over,
            })
        })
        .collect();
    output::print(global.output, &value, || {
        let mut table = output::table(["NAME", "VALUE", "DEFAULT", "BOUNDS", "OVER IT"]);
        for row in Limits::table() {
            let (value, default) = (row.unit.show(limits.get(row.limit)), row.unit.show(row.default));
            table.add_row([row.name, &value, &default, row.doc, row.over]);
        }
        table
    })
}

/// Ends this process when the one that started it ends, however that happens.
pub(crate) fn end_with(supervisor: Option<u32>) -> anyhow::Result<()> {
    let Some(supervisor) = supervisor else {
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot ask to end with the supervisor")?;
    // It may have ended before we asked.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent != i32::try_from(supervisor).ok() {
        bail!("the supervisor (process {supervisor}) is gone");
    }
    Ok(())
}

/// Where data planes connect to a control plane that runs alone.
const DEFAULT_CONFIG: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9182);
