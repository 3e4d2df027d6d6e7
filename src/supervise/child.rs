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
use tokio::{
    process::Command,
    sync::{mpsc, watch},
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
    let mut child = Command::new(&spec.program)
        .arg(spec.role.command())
        .args(&spec.arguments)
        .arg("--ready-file")
        .arg(&spec.ready_file)
        .args(["--supervised-by", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // A Ctrl-C in the terminal is for the supervisor, which stops its children in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start the {}", spec.role.title()))?;
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    let mut poll = tokio::time::interval(READY_POLL);
    let mut ready = false;
    let mut reopened = wishes.borrow().reopen;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(Ended::Unasked(status.context("cannot wait for a child")?)),
            _ = poll.tick(), if !ready => {
                if let Some(told) = read_ready(&spec.ready_file) {
                    ready = true;
                    keep_addresses(spec, &told);
                    let _ = events.send(Event::Ready(spec.role, told)).await;
                }
            }
            changed = wishes.changed() => {
                let wish = *wishes.borrow_and_update();
                if wish.stop || changed.is_err() {
                    signal(pid, Signal::TERM);
                    break;
                }
                if wish.reopen != reopened {
                    reopened = wish.reopen;
                    signal(pid, Signal::HUP);
                }
            }
        }
    }
    let kill = async {
        tokio::select! {
            () = tokio::time::sleep(spec.role.patience()) => {}
            _ = wishes.wait_for(|wish| wish.kill) => {}
        }
    };
    tokio::select! {
        status = child.wait() => { status.context("cannot wait for a child")?; }
        () = kill => {
            tracing::warn!("the {} did not end in time; it is killed", spec.role.title());
            child.kill().await.context("cannot kill a child")?;
        }
    }
    Ok(Ended::Asked)
}

fn signal(pid: Option<Pid>, signal: Signal) {
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
