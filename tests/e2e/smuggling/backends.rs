//! The four servers that must agree. Node and Python tell themselves what came to them; nginx and HAProxy each pass on to a
//! Node server behind them what they understood, in framing of their own.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tidegate_harness::process::signal;
use tidegate_harness::raw::get;
use tidegate_harness::tools;

/// What they are called.
pub(super) const NAMES: [&str; 4] = ["nginx", "haproxy", "node", "python"];

/// A server, ended with the value.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Best effort: one that has ended by itself is gone already. Asked in order, nginx ends its worker too.
        let _ = signal(self.0.id(), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// All of them, and where each listens.
#[derive(Debug)]
pub(super) struct Backends {
    addresses: [SocketAddr; 4],
    _processes: Vec<Process>,
}

impl Backends {
    /// Starts them. Each gets its listening socket as its standard input, so that none is waited for.
    pub(super) fn start(directory: &Path) -> Result<Self> {
        let mut processes = Vec::new();
        let mut start = |command: &mut Command| -> Result<SocketAddr> {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            start_on(listener, command, directory).map(|process| processes.push(process))?;
            Ok(address)
        };
        let node = tools::find("node")?;
        let script = sources().join("node.js");
        let mut recorder = || start(Command::new(&node).arg(&script));
        let (alone, behind_nginx, behind_haproxy) = (recorder()?, recorder()?, recorder()?);
        let python = start(
            Command::new(tools::find("python3")?)
                .arg(sources().join("python.py"))
                .env("PYTHONPATH", tools::python_package("h11", "h11")?),
        )?;

        let nginx = TcpListener::bind("127.0.0.1:0")?;
        let haproxy = TcpListener::bind("127.0.0.1:0")?;
        let addresses = [nginx.local_addr()?, haproxy.local_addr()?, alone, python];
        let home = directory.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {home}/{kind};\n"))
            .concat();
        let configuration = directory.join("nginx.conf");
        std::fs::write(
            &configuration,
            format!(
                "daemon off;\npid {home}/nginx.pid;\nerror_log {home}/nginx.log;\nevents {{}}\n\
                 http {{\naccess_log off;\n{temporary}client_max_body_size 0;\nclient_body_buffer_size 1m;\nkeepalive_requests 100000;\n\
                 server {{\nlisten {};\nlocation / {{\nproxy_pass http://{behind_nginx};\n}}\n}}\n}}\n",
                addresses[0]
            ),
        )?;
        processes.push(start_on(
            nginx,
            // How nginx is told of sockets that it inherits.
            Command::new(tools::find("nginx")?)
                .env("NGINX", "0;")
                .arg("-c")
                .arg(&configuration)
                .arg("-e")
                .arg(directory.join("nginx.log")),
            directory,
        )?);
        let configuration = directory.join("haproxy.cfg");
        std::fs::write(
            &configuration,
            format!(
                "defaults\n mode http\n timeout connect 30s\n timeout client 60s\n timeout server 60s\n\
                 listen front\n bind fd@0\n server node {behind_haproxy}\n"
            ),
        )?;
        processes.push(start_on(
            haproxy,
            Command::new(tools::find("haproxy")?)
                .args(["-db", "-f"])
                .arg(&configuration),
            directory,
        )?);
        Ok(Self {
            addresses,
            _processes: processes,
        })
    }

    /// Where one of [`NAMES`] listens, by its place there.
    pub(super) fn address(&self, at: usize) -> SocketAddr {
        self.addresses[at]
    }

    /// How often each target was asked for of one of them, in requests that came whole.
    pub(super) fn seen(&self, at: usize) -> Result<BTreeMap<String, usize>> {
        let told = get(self.addresses[at], "backend", "/_seen")?;
        ensure!(told.status == 200, "{told:?}");
        let mut counts = BTreeMap::new();
        for request in told.json()?.as_array().context("a list")? {
            let target = request["target"].as_str().context("a target")?;
            // What stands behind the name that a case gave itself is held against the others' elsewhere.
            let name = target.split(['?', '%']).next().unwrap_or_default();
            *counts.entry(name.to_owned()).or_default() += 1;
        }
        Ok(counts)
    }
}

fn start_on(listener: TcpListener, command: &mut Command, directory: &Path) -> Result<Process> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(directory.join("backends.log"))?;
    command
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(log.try_clone()?)
        .stderr(log);
    let child = command
        .spawn()
        .with_context(|| format!("starting {:?}", command.get_program()))?;
    Ok(Process(child))
}

/// Where the scripts lie.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/smuggling")
}
