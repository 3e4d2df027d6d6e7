//! The life of a data plane's process: from its settings to its end, by what it hears of.

use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc;

use tidegate_plan::Limit;
use tidegate_rt as rt;

use super::{Error, Event, Node, Options, TAKE_OVER, system};
use crate::config::{self, Config, News, NodeOptions, Surroundings};
use crate::handover::{self, Adoption, Estate, HandoverError, Outcome, Status};
use crate::limit;
use crate::sockets::Sockets;
use crate::systemd;

/// Runs a data plane until it is told to end (SIGTERM, SIGINT), or another process has taken over (SIGUSR2 starts one),
/// and it has drained. Blocks the calling thread.
///
/// # Errors
/// When it cannot start, or a shard or helper dies; the node has drained by then.
pub fn run(options: &Options) -> Result<(), Error> {
    let (mut adoption, inherited) = if options.take_over {
        let (adoption, sockets) = Adoption::begin(&options.data_dir, options.fault_injection)?;
        (Some(adoption), sockets)
    } else {
        let passed = systemd::listeners(options.supervisor)
            .map_err(system("the sockets that systemd passes cannot be used"))?;
        (None, passed)
    };
    let tickets = adoption.as_mut().map(Adoption::tickets).unwrap_or_default();
    // Who connected to a socket before this process began can wait until there is something to serve.
    let mut waiting = !inherited.is_empty();
    let sockets = |shards| match options.take_over {
        true => {
            Sockets::taken_over(options, inherited).map_err(|reason| HandoverError::Refused(reason).into())
        }
        false => Sockets::bind(options, inherited, shards),
    };
    let mut node = match Node::prepare(options, sockets, tickets) {
        Ok(node) => node,
        Err(error) => {
            return Err(match adoption {
                Some(adoption) => adoption.refuse(error.to_string()).into(),
                None => error,
            });
        }
    };
    watch_signals(node.reports())?;
    let config = start_config(&node, options, adoption.is_some())?;
    if adoption.is_none() {
        node.answer_operators()?;
    }
    if !waiting {
        node.listen()?;
    }
    let mut upgrade = Upgrade::default();
    let outcome = loop {
        match node.event() {
            Event::Configured => {
                let took_over = adoption.is_some();
                if let Some(adoption) = adoption.take() {
                    let revision = node.telemetry().node().revision();
                    waiting = false;
                    let accept = || {
                        node.listen()
                            .and_then(|()| node.answer_operators())
                            .map_err(|error| HandoverError::Refused(error.to_string()))
                    };
                    if let Err(error) = adoption.finish(revision, config.orders(), accept) {
                        break End::Failed(error.into());
                    }
                }
                if std::mem::take(&mut waiting) {
                    node.listen()?;
                }
                if let Err(error) = announce(&node, &config, options, took_over) {
                    break End::Failed(error);
                }
                upgrade.possible = true;
            }
            Event::Terminate => {
                tracing::info!("draining");
                break End::Asked;
            }
            Event::Reopen => node.telemetry().log().reopen(),
            Event::Upgrade => upgrade.begin(&node, options),
            Event::NotRelieved(reason) => {
                tracing::error!(reason, "no other process has taken over; this one goes on");
                upgrade.refused = Some(reason);
            }
            Event::SuccessorEnded(status) => upgrade.failed(status, options),
            Event::Relieved { pid } => {
                tracing::info!(
                    pid,
                    "another process has taken over; this one finishes what it has"
                );
                if options.supervisor.is_none() {
                    systemd::notify(&format!("MAINPID={pid}"));
                }
                break End::Relieved;
            }
            Event::Ended { shard, reason } => {
                let reason = reason.unwrap_or_else(|| "nobody told it to".into());
                tracing::error!(shard, reason, "a shard has ended; the node drains");
                node.telemetry()
                    .node()
                    .block("shard", format!("shard {shard} has ended"));
                node.gone += 1;
                break End::Failed(Error::ShardDied { shard, reason });
            }
            Event::Failed(reason) => {
                tracing::error!(reason, "the node cannot go on, and drains");
                break End::Failed(Error::Config(reason));
            }
        }
    };
    match outcome {
        // The configuration stays frozen: its stream ends when the other process opens one.
        End::Relieved => {
            let ended = node.retire();
            drop(config);
            ended
        }
        // Nobody was served by this process, and the sockets are another's.
        End::Failed(Error::Handover(error)) => {
            drop(config);
            Err(error.into())
        }
        End::Asked | End::Failed(_) => {
            if let Some(path) = &options.ready_file {
                let _ = std::fs::remove_file(path);
            }
            drop(config);
            let drained = node.drain();
            match outcome {
                End::Failed(error) => Err(error),
                _ => drained,
            }
        }
    }
}

/// Why a node ends.
enum End {
    Asked,
    Relieved,
    Failed(Error),
}

/// Says that the node serves: to whoever wants to take over, in files, to systemd.
fn announce(node: &Node, config: &Config, options: &Options, took_over: bool) -> Result<(), Error> {
    let estate = Estate {
        data_dir: options.data_dir.clone(),
        sockets: Arc::clone(&node.sockets),
        tickets: node.tickets.clone(),
        mailboxes: node.mailboxes.clone(),
        config: config.orders().clone(),
        patience: options.limits.duration(Limit::UpgradeTimeout),
    };
    let report = node.reports();
    let tell = move |outcome| {
        let event = match outcome {
            Outcome::Relieved { pid } => Event::Relieved { pid },
            Outcome::Failed(reason) => Event::NotRelieved(reason),
        };
        // The node is gone: it needs no news.
        let _ = report.send(event);
    };
    handover::listen(estate, tell).map_err(system("cannot listen for a process that takes over"))?;
    let status = || {
        if options.supervisor.is_some() {
            return;
        }
        let before = Status::read(&options.data_dir).map_or(0, |status| status.ended);
        let status = Status {
            ended: before + u64::from(took_over),
            ..Status::of(std::process::id(), env!("CARGO_PKG_VERSION"))
        };
        if let Err(error) = status.publish(&options.data_dir) {
            tracing::warn!(%error, "`tidegate upgrade` will not find this data plane");
        }
    };
    // Who waits for the ready file may upgrade at once, and who waits for an upgrade may read the ready file at once.
    if !took_over {
        status();
    }
    if let Some(path) = &options.ready_file {
        write_ready_file(path, node)?;
    }
    if took_over {
        status();
    }
    if options.supervisor.is_none() {
        systemd::notify("READY=1");
    }
    Ok(())
}

/// Upgrades as the process sees them that is to be relieved.
#[derive(Debug, Default)]
struct Upgrade {
    /// The node serves, and so has something to hand over.
    possible: bool,
    /// A process was started and has not ended.
    under_way: bool,
    /// Why the last hand-over failed.
    refused: Option<String>,
}

impl Upgrade {
    /// Has a new process started.
    fn begin(&mut self, node: &Node, options: &Options) {
        if let Some(supervisor) = options.supervisor {
            tracing::info!(
                supervisor,
                "SIGUSR2 is passed on to the supervisor, which starts data planes"
            );
            let pid = i32::try_from(supervisor)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // It is gone: this process is about to end, too.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::USR2);
            }
            return;
        }
        if self.under_way || !self.possible {
            tracing::warn!("no upgrade: one is under way, or the node does not serve yet");
            return;
        }
        match start_successor(options, node.reports()) {
            Ok(pid) => {
                tracing::info!(pid, "a new process is started to take over");
                self.under_way = true;
                self.refused = None;
            }
            Err(error) => self.report(options, format!("the new process cannot be started: {error}")),
        }
    }

    /// The process that was started has ended, and has not taken over.
    fn failed(&mut self, status: ExitStatus, options: &Options) {
        self.under_way = false;
        let reason = self.refused.take().map(|reason| format!("; {reason}"));
        self.report(
            options,
            format!("the new process ended ({status}){}", reason.unwrap_or_default()),
        );
    }

    fn report(&self, options: &Options, reason: String) {
        tracing::error!(reason, "the upgrade failed; this process goes on");
        let Ok(before) = Status::read(&options.data_dir) else {
            return;
        };
        let status = Status {
            ended: before.ended + 1,
            failure: Some(reason),
            ..before
        };
        if let Err(error) = status.publish(&options.data_dir) {
            tracing::warn!(%error, "the upgrade's failure cannot be noted");
        }
    }
}

/// Starts a process that takes over, and reports its end.
fn start_successor(options: &Options, report: mpsc::Sender<Event>) -> io::Result<u32> {
    let Some(successor) = &options.successor else {
        return Err(io::Error::other("this data plane was not told how"));
    };
    let mut command = Command::new(&successor.program);
    command
        .args(&successor.arguments)
        .arg(TAKE_OVER)
        .stdin(Stdio::null());
    for variable in systemd::LISTEN_VARIABLES {
        command.env_remove(variable);
    }
    rt::pass_nothing_on(&mut command);
    let mut child = command.spawn()?;
    let pid = child.id();
    let wait = move || {
        if let Ok(status) = child.wait() {
            // Relieved by it, this process may be gone from its own event loop.
            let _ = report.send(Event::SuccessorEnded(status));
        }
    };
    std::thread::Builder::new().name("successor".into()).spawn(wait)?;
    Ok(pid)
}

/// Starts the configuration thread; `frozen` where another process still follows the control plane.
fn start_config(node: &Node, options: &Options, frozen: bool) -> Result<Config, Error> {
    let report = node.reports();
    let epoch = node.epoch();
    let around = Surroundings {
        shards: Arc::new(node.mailboxes().clone()),
        telemetry: Arc::clone(node.telemetry()),
        limits: limit::Registry::new(options.limits.count(Limit::ThrottleCells)),
        limit_time: Box::new(move || {
            let since = rt::Instant::now().duration_since(epoch).as_nanos();
            limit::Nanos::try_from(since).unwrap_or(limit::Nanos::MAX)
        }),
        tickets: node.tickets.clone(),
        functions: Some(node.functions().clone()),
    };
    let options = NodeOptions {
        directory: options.data_dir.join("node"),
        control: options.control.iter().cloned().collect(),
        join_file: options.join_file.clone(),
        name: options.node_name.clone(),
        labels: options.labels.iter().cloned().collect(),
        http: node.addresses().http,
        https: node.addresses().https,
    };
    let tell = move |news| {
        let event = match news {
            News::Configured => Event::Configured,
            News::Ended(reason) => Event::Failed(reason),
        };
        // The node is gone: it needs no news.
        let _ = report.send(event);
    };
    config::start(options, around, frozen, tell).map_err(|error| Error::Config(error.to_string()))
}

/// Turns signals into events, on a thread of its own.
fn watch_signals(report: mpsc::Sender<Event>) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = "cannot watch for signals";
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system(failed))?;
    let inside = runtime.enter();
    let mut term = signal(SignalKind::terminate()).map_err(system(failed))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system(failed))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(system(failed))?;
    let mut user = signal(SignalKind::user_defined2()).map_err(system(failed))?;
    drop(inside);
    let watch = async move {
        loop {
            let event = tokio::select! {
                _ = term.recv() => Event::Terminate,
                _ = interrupt.recv() => Event::Terminate,
                _ = hangup.recv() => Event::Reopen,
                _ = user.recv() => Event::Upgrade,
            };
            if report.send(event).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || runtime.block_on(watch));
    thread.map(drop).map_err(system(failed))
}

/// Writes the ready file: one JSON object, there as a whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_ready_file(path: &Path, node: &Node) -> Result<(), Error> {
    let addresses = node.addresses();
    let mut ready = serde_json::Map::new();
    for (name, address) in [
        ("http", addresses.http),
        ("https", addresses.https),
        ("metrics", addresses.metrics),
    ] {
        if let Some(address) = address {
            ready.insert(name.into(), address.to_string().into());
        }
    }
    ready.insert(
        "pids".into(),
        serde_json::json!({ "dataplane": std::process::id() }),
    );
    ready.insert("driver".into(), node.driver().to_string().into());
    ready.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, serde_json::Value::Object(ready).to_string())
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(system("cannot write the ready file"))
}
