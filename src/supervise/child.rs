//! One supervised process: started, awaited until it serves, started again when it ends.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tidegate_dataplane::TAKE_OVER;
use tokio::{
    process::{Child, Command},
    sync::{mpsc, watch},
    task::JoinSet,
};

/// Which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// The control plane.
    ControlPlane,
    /// The data plane.
    DataPlane,
    /// The sample backend of `tidegate demo`.
    Backend,
}

impl Role {
    /// The sub-command that runs it.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlplane",
            Self::DataPlane => "dataplane",
            Self::Backend => "demo-backend",
        }
    }

    /// What people call it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::ControlPlane => "control plane",
            Self::DataPlane => "data plane",
            Self::Backend => "sample backend",
        }
    }

    /// Flags whose addresses a restart keeps, and where the ready file tells them.
    fn addresses(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::ControlPlane => &[
                ("--admin", "admin"),
                ("--management", "management"),
                ("--config", "config"),
            ],
            Self::DataPlane => &[("--http", "http"), ("--https", "https"), ("--metrics", "metrics")],
            Self::Backend => &[("--listen", "address")],
        }
    }

    /// How long it may take to end after it was asked to.
    fn patience(self) -> Duration {
        match self {
            // Longer than the longest drain by default (D15).
            Self::DataPlane => Duration::from_secs(45),
            Self::ControlPlane | Self::Backend => Duration::from_secs(15),
        }
    }
}

/// What a supervised process is started with.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Which process.
    pub(crate) role: Role,
    /// This program.
    pub(crate) program: PathBuf,
    /// Arguments after the sub-command, flag and value in turn.
    pub(crate) arguments: Vec<OsString>,
    /// Where it says that it serves.
    pub(crate) ready_file: PathBuf,
}

/// What the supervisor hears of a process.
#[derive(Debug)]
pub(crate) enum Event {
    /// It serves; its ready file.
    Ready(Role, Value),
    /// It ended though nobody asked it to.
    Exited(Role, ExitStatus),
    /// It ended, as it was asked to.
    Stopped(Role),
    /// It could not be started at all.
    Failed(Role, anyhow::Error),
    /// Another process has taken over from it and serves; that one's ready file.
    Upgraded(Role, Value),
    /// No other process has taken over, and why; it goes on.
    NotUpgraded(Role, String),
}

/// What the supervisor wants of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// End; killed where the second is set.
    pub(crate) stop: bool,
    /// End at once.
    pub(crate) kill: bool,
    /// Counts requests to reopen logs.
    pub(crate) reopen: u64,
    /// Counts requests for a new process that takes over.
    pub(crate) upgrade: u64,
}

/// Keeps the process of `spec` running until `wishes` says stop.
pub(crate) async fn keep(mut spec: Spec, events: mpsc::Sender<Event>, mut wishes: watch::Receiver<Wish>) {
    let mut backoff = Backoff::default();
    loop {
        let started = Instant::now();
        match run(&mut spec, &events, &mut wishes).await {
            Ok(Ended::Asked) => {
                let _ = events.send(Event::Stopped(spec.role)).await;
                return;
            }
            Ok(Ended::Unasked(status)) => {
                let _ = events.send(Event::Exited(spec.role, status)).await;
            }
            Err(error) => {
                let _ = events.send(Event::Failed(spec.role, error)).await;
            }
        }
        let pause = backoff.after(started.elapsed());
        let stopped = wishes.wait_for(|wish| wish.stop);
        if tokio::time::timeout(pause, stopped).await.is_ok() {
            let _ = events.send(Event::Stopped(spec.role)).await;
            return;
        }
    }
}

enum Ended {
    Asked,
    Unasked(ExitStatus),
}

async fn run(
    spec: &mut Spec,
    events: &mpsc::Sender<Event>,
    wishes: &mut watch::Receiver<Wish>,
) -> anyhow::Result<Ended> {
    match std::fs::remove_file(&spec.ready_file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", spec.ready_file.display()));
        }
        _ => {}
    }
    let mut child = start(spec, None)?;
    let mut poll = tokio::time::interval(READY_POLL);
    let mut ready = false;
    // The process that is taking over from `child`, and those that others have taken over from.
    let mut next: Option<Child> = None;
    let mut retired = JoinSet::new();
    // `child` is that new process, whose predecessor has ended before we heard that it serves.
    let mut relieving = false;
    let mut seen = *wishes.borrow();
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.context("cannot wait for a child")?;
                match next.take() {
                    // It made way, and had nothing to finish.
                    Some(new) if status.success() => {
                        child = new;
                        relieving = true;
                    }
                    _ => {
                        if relieving {
                            let reason = format!("the new process ended {}", describe(status));
                            let _ = events.send(Event::NotUpgraded(spec.role, reason)).await;
                        }
                        return Ok(Ended::Unasked(status));
                    }
                }
            }
            status = ended(&mut next) => {
                next = None;
                let reason = format!("the new process ended {}; what it said stands in the log", describe(status?));
                let _ = events.send(Event::NotUpgraded(spec.role, reason)).await;
            }
            _ = poll.tick(), if !ready || next.is_some() || relieving => {
                let Some(told) = read_ready(&spec.ready_file) else { continue };
                if !ready {
                    ready = true;
                    keep_addresses(spec, &told);
                    let _ = events.send(Event::Ready(spec.role, told)).await;
                } else if relieving {
                    if is_of(&told, spec.role, &child) {
                        relieving = false;
                        let _ = events.send(Event::Upgraded(spec.role, told)).await;
                    }
                } else if next.as_ref().is_some_and(|next| is_of(&told, spec.role, next))
                    && let Some(new) = next.take()
                {
                    let old = std::mem::replace(&mut child, new);
                    retired.spawn(see_off(old, spec.role));
                    let _ = events.send(Event::Upgraded(spec.role, told)).await;
                }
            }
            _ = retired.join_next(), if !retired.is_empty() => {}
            changed = wishes.changed() => {
                let wish = *wishes.borrow_and_update();
                if wish.stop || changed.is_err() {
                    signal(&child, Signal::TERM);
                    break;
                }
                if wish.reopen != seen.reopen {
                    signal(&child, Signal::HUP);
                }
                if wish.upgrade != seen.upgrade {
                    match (ready, next.is_some() || relieving, retired.len() < RETIRED) {
                        (true, false, true) => match start(spec, Some(TAKE_OVER)) {
                            Ok(new) => next = Some(new),
                            Err(error) => {
                                let _ = events.send(Event::NotUpgraded(spec.role, format!("{error:#}"))).await;
                            }
                        },
                        (true, false, false) => {
                            let reason = format!("{RETIRED} processes of earlier upgrades still finish what they have");
                            let _ = events.send(Event::NotUpgraded(spec.role, reason)).await;
                        }
                        // What comes of the one under way answers this one, too.
                        (true, true, _) => {}
                        (false, ..) => {
                            let reason = format!("the {} does not serve yet", spec.role.title());
                            let _ = events.send(Event::NotUpgraded(spec.role, reason)).await;
                        }
                    }
                }
                seen = wish;
            }
        }
    }
    // A process that was taking over ends here, by being dropped.
    drop(next);
    let kill = async {
        tokio::select! {
            () = tokio::time::sleep(spec.role.patience()) => {}
            _ = wishes.wait_for(|wish| wish.kill) => {}
        }
    };
    let end = async {
        let status = child.wait().await;
        while retired.join_next().await.is_some() {}
        status
    };
    let ended = tokio::select! {
        status = end => Some(status),
        () = kill => None,
    };
    match ended {
        Some(status) => drop(status.context("cannot wait for a child")?),
        None => {
            tracing::warn!("the {} did not end in time; it is killed", spec.role.title());
            child.kill().await.context("cannot kill a child")?;
            retired.shutdown().await;
        }
    }
    Ok(Ended::Asked)
}

/// Starts the process. Dropped, it is killed.
fn start(spec: &Spec, more: Option<&str>) -> anyhow::Result<Child> {
    Command::new(&spec.program)
        .arg(spec.role.command())
        .args(&spec.arguments)
        .args(more)
        .arg("--ready-file")
        .arg(&spec.ready_file)
        .args(["--supervised-by", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // systemd hears of the supervisor alone.
        .env_remove("NOTIFY_SOCKET")
        // A Ctrl-C in the terminal is for the supervisor, which stops its children in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start the {}", spec.role.title()))
}

/// The end of the process that is taking over; never where there is none.
async fn ended(next: &mut Option<Child>) -> anyhow::Result<ExitStatus> {
    match next {
        Some(next) => next.wait().await.context("cannot wait for a child"),
        None => std::future::pending().await,
    }
}

/// Waits for a process that was taken over from, as long as it may take.
async fn see_off(mut old: Child, role: Role) {
    if tokio::time::timeout(role.patience(), old.wait()).await.is_err() {
        tracing::warn!(
            "a {} that was taken over from did not end in time; it is killed",
            role.title()
        );
        // It has ended meanwhile: then there is nothing to kill.
        let _ = old.kill().await;
    }
}

/// Whether a ready file is this process's.
fn is_of(told: &Value, role: Role, child: &Child) -> bool {
    child.id().is_some() && told["pids"][role.command()].as_u64() == child.id().map(u64::from)
}

fn signal(child: &Child, signal: Signal) {
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    // A process that is gone already needs no signal.
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

/// A ready file is renamed into place, so what can be read is whole.
fn read_ready(file: &std::path::Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// Port 0 is resolved once: the next start asks for the ports that this one got.
fn keep_addresses(spec: &mut Spec, ready: &Value) {
    for (flag, name) in spec.role.addresses() {
        let Some(address) = ready.get(*name).and_then(Value::as_str) else {
            continue;
        };
        if let Some(at) = spec.arguments.iter().position(|argument| argument == flag)
            && let Some(value) = spec.arguments.get_mut(at + 1)
        {
            *value = address.into();
        }
    }
}

/// How a process ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("with exit code {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "for an unknown reason".to_owned(),
    }
}

/// The pause before the next start: short at first, longer while starts keep failing.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= HEALTHY {
            self.failures = 0;
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

/// Processes that may finish what they have after upgrades, at a time.
const RETIRED: usize = 8;
const READY_POLL: Duration = Duration::from_millis(10);
/// A process that lived this long did not fail to start.
const HEALTHY: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_a_bound_and_recover() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..12).map(|_| backoff.after(Duration::ZERO)).collect();
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses[0], FIRST_PAUSE);
        assert_eq!(pauses[11], LONGEST_PAUSE);
        assert_eq!(backoff.after(HEALTHY), FIRST_PAUSE);
    }

    #[test]
    fn a_restart_keeps_the_ports_it_got() {
        let mut spec = Spec {
            role: Role::DataPlane,
            program: "tidegate".into(),
            arguments: ["--http", "127.0.0.1:0", "--shards", "2"]
                .map(OsString::from)
                .to_vec(),
            ready_file: "ready".into(),
        };
        keep_addresses(
            &mut spec,
            &serde_json::json!({"http": "127.0.0.1:4711", "https": "127.0.0.1:1"}),
        );
        assert_eq!(
            spec.arguments,
            ["--http", "127.0.0.1:4711", "--shards", "2"].map(OsString::from)
        );
    }
}
