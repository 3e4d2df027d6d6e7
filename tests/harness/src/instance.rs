//! Real `tidegate` processes: started, awaited, asked through the command line, killed by their ids.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::definition::Definition;
use crate::process::{self, PATIENCE};
use crate::suite::World;

/// How to start processes: which binary, in which world, with data and logs below which directory.
#[derive(Debug, Clone)]
pub struct Plan {
    binary: PathBuf,
    world: World,
    home: PathBuf,
    shards: usize,
    driver: Option<&'static str>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Plan {
    /// Two shards, free ports.
    pub fn new(binary: &Path, world: World, home: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            world,
            home: home.to_owned(),
            shards: 2,
            driver: None,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// With so many shards.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// With another I/O driver than the world's.
    #[must_use]
    pub fn driver(mut self, driver: &'static str) -> Self {
        self.driver = Some(driver);
        self
    }

    /// With further arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// With a variable in the environment.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts `tidegate up` with its data in `{home}/{name}` and waits until everything serves.
    pub fn up(&self, name: &str) -> Result<Instance> {
        let shards = self.shards.to_string();
        self.start(
            name,
            name,
            &[
                "up",
                "--http",
                FREE,
                "--https",
                FREE,
                "--admin",
                FREE,
                "--management",
                FREE,
                "--metrics",
                FREE,
                "--shards",
                &shards,
            ],
            true,
        )
    }

    /// Starts a control plane alone, with its data in `{home}/{name}`. `config` is where it listens for nodes.
    pub fn control_plane(&self, name: &str, config: &str) -> Result<Instance> {
        self.start(
            name,
            name,
            &[
                "controlplane",
                "--admin",
                FREE,
                "--management",
                FREE,
                "--config",
                config,
            ],
            false,
        )
    }

    /// Starts a data plane alone, with its data in `{home}/{name}`. `control` is where its control plane listens for
    /// nodes; without a join file the node has joined before.
    pub fn data_plane(&self, name: &str, control: &str, join: Option<&Path>, http: &str) -> Result<Instance> {
        let shards = self.shards.to_string();
        let mut arguments = vec![
            "dataplane",
            "--control",
            control,
            "--http",
            http,
            "--https",
            FREE,
            "--metrics",
            FREE,
            "--shards",
            &shards,
        ];
        let join = join.map(|path| path.display().to_string());
        if let Some(join) = &join {
            arguments.extend(["--join", join]);
        }
        self.start(name, name, &arguments, true)
    }

    fn start(&self, name: &str, data: &str, arguments: &[&str], io: bool) -> Result<Instance> {
        let data = self.home.join(data);
        let run = self.home.join("run");
        std::fs::create_dir_all(&data).with_context(|| format!("creating {}", data.display()))?;
        std::fs::create_dir_all(&run).with_context(|| format!("creating {}", run.display()))?;
        let ready_file = run.join(format!("{name}.ready"));
        let log = run.join(format!("{name}.log"));
        if ready_file.exists() {
            std::fs::remove_file(&ready_file).context("removing an old ready file")?;
        }
        let mut command = match self.world {
            World::Confined => crate::confine::command(&self.binary)?,
            World::Uring | World::Epoll => Command::new(&self.binary),
        };
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(&data)
            .arg("--ready-file")
            .arg(&ready_file);
        if io {
            let of_world = match self.world {
                World::Uring => "uring",
                World::Epoll => "epoll",
                World::Confined => "auto",
            };
            command.args(["--io-driver", self.driver.unwrap_or(of_world)]);
        }
        command
            .args(&self.arguments)
            .envs(self.environment.iter().cloned());
        let mut child = process::spawn(command, &log)?;
        let read = || Ready::parse(&std::fs::read_to_string(&ready_file).ok()?);
        match process::await_file(&run, &mut child, read) {
            Ok(ready) => Ok(Instance {
                binary: self.binary.clone(),
                home: self.home.clone(),
                data,
                log,
                ready_file,
                ready,
                child: Some(child),
            }),
            Err(error) => {
                // Whatever state it is in, it must not outlive the test.
                let _ = child.kill();
                let _ = child.wait();
                Err(error.context(format!(
                    "`tidegate {}`; its log ends:\n{}",
                    arguments.join(" "),
                    tail(&log)
                )))
            }
        }
    }
}

/// An address that lets the system choose the port.
pub const FREE: &str = "127.0.0.1:0";

/// What the ready file says. An address that the process does not serve is the unspecified one.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Plain HTTP.
    pub http: SocketAddr,
    /// HTTPS.
    pub https: SocketAddr,
    /// The Admin API.
    pub admin: SocketAddr,
    /// The AWS management wire protocol.
    pub management: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// Where a control plane listens for nodes.
    pub config: SocketAddr,
    /// The control plane's process, if this instance has one.
    pub control_plane: Option<u32>,
    /// The data plane's process, if this instance has one.
    pub data_plane: Option<u32>,
    /// The I/O driver in use.
    pub driver: String,
    /// The whole object.
    pub json: Value,
}

impl Ready {
    fn parse(text: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(text).ok()?;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = |name: &str| {
            json[name]
                .as_str()
                .and_then(|text| text.parse().ok())
                .unwrap_or(nowhere)
        };
        let pid = |name: &str| {
            json["pids"][name]
                .as_u64()
                .and_then(|pid| u32::try_from(pid).ok())
        };
        Some(Self {
            http: address("http"),
            https: address("https"),
            admin: address("admin"),
            management: address("management"),
            metrics: address("metrics"),
            config: address("config"),
            control_plane: pid("controlplane"),
            data_plane: pid("dataplane"),
            driver: json["driver"].as_str().unwrap_or_default().to_owned(),
            json,
        })
    }
}

/// An API that was imported and deployed.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The API's id.
    pub api_id: String,
    /// The deployment's id.
    pub deployment_id: String,
    /// The stage.
    pub stage: String,
    /// The URL that the command printed.
    pub invoke_url: String,
    /// What the import did not take over.
    pub warnings: Vec<String>,
}

impl Deployed {
    /// The host name that leads to the API.
    pub fn host(&self) -> String {
        format!("{}.execute-api.localhost", self.api_id)
    }

    /// A resource path below the stage.
    pub fn path(&self, path: &str) -> String {
        format!("/{}{path}", self.stage)
    }

    /// A resource path in the form that needs no name resolution.
    pub fn user_request(&self, path: &str) -> String {
        format!("/restapis/{}/{}/_user_request_{path}", self.api_id, self.stage)
    }
}

/// A running process that has said it is ready.
#[derive(Debug)]
pub struct Instance {
    binary: PathBuf,
    home: PathBuf,
    data: PathBuf,
    log: PathBuf,
    ready_file: PathBuf,
    ready: Ready,
    child: Option<Child>,
}

impl Instance {
    /// What its ready file said when it started.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Reads the ready file again; a supervisor rewrites it when a child comes back.
    pub fn read_again(&mut self) -> Result<()> {
        let text = std::fs::read_to_string(&self.ready_file).context("reading the ready file")?;
        self.ready = Ready::parse(&text).with_context(|| format!("the ready file holds {text:?}"))?;
        Ok(())
    }

    /// Waits until the ready file satisfies a condition.
    pub fn await_ready(&mut self, mut condition: impl FnMut(&Ready) -> bool) -> Result<()> {
        let path = self.ready_file.clone();
        let directory = path
            .parent()
            .context("a ready file lies in a directory")?
            .to_owned();
        let child = self.child.as_mut().context("the process was stopped")?;
        self.ready = process::await_file(&directory, child, || {
            Ready::parse(&std::fs::read_to_string(&path).ok()?).filter(|ready| condition(ready))
        })?;
        Ok(())
    }

    /// The directory that its data and logs lie in.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where it logs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process's id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Runs a command of the same binary that finds this instance by its data directory.
    pub fn command(&self, arguments: &[&str]) -> Result<Output> {
        Command::new(&self.binary)
            .args(arguments)
            .arg("--data-dir")
            .arg(&self.data)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running tidegate {}", arguments.join(" ")))
    }

    /// As [`Instance::command`], but it must end well; its standard output.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        Self::succeed(arguments, self.command(arguments)?)
    }

    /// Runs a command of the same binary that has nothing to do with this instance; it must end well.
    pub fn run_alone(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running tidegate {}", arguments.join(" ")))?;
        Self::succeed(arguments, output)
    }

    fn succeed(arguments: &[&str], output: Output) -> Result<String> {
        ensure!(
            output.status.success(),
            "`tidegate {}` ended with {}:\n{}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// As [`Instance::run`] with `-o json`; the parsed output.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let text = self.run(&all)?;
        serde_json::from_str(&text).with_context(|| format!("`tidegate {}` printed {text:?}", all.join(" ")))
    }

    /// Imports a definition as a new API and deploys it to a stage.
    pub fn import(&self, definition: &Definition, stage: &str) -> Result<Deployed> {
        self.import_with(definition, stage, &[])
    }

    /// Replaces an API's definition and deploys it to the stage it had.
    pub fn replace(&self, deployed: &Deployed, definition: &Definition) -> Result<Deployed> {
        self.import_with(
            definition,
            &deployed.stage,
            &["--api", &deployed.api_id, "--mode", "overwrite"],
        )
    }

    /// Waits until a data plane is connected, after a restart of either, and every connected one has come to the current
    /// revision.
    pub fn await_nodes(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Each look is a command, and so a pause by itself.
            let nodes = self.json(&["nodes"])?;
            let connected = nodes["nodes"]
                .as_array()
                .is_some_and(|all| all.iter().any(|node| node["connected"] == true));
            if connected {
                return self.run(&["wait", "0"]).map(drop);
            }
            ensure!(Instant::now() < deadline, "no data plane connects: {nodes}");
        }
    }

    /// Deploys an API's draft again, unchanged.
    pub fn deploy_again(&self, deployed: &Deployed) -> Result<()> {
        self.run(&["deploy", &deployed.api_id, "--stage", &deployed.stage])
            .map(drop)
    }

    fn import_with(&self, definition: &Definition, stage: &str, more: &[&str]) -> Result<Deployed> {
        let file = tempfile::Builder::new()
            .prefix("definition-")
            .suffix(".json")
            .tempfile_in(&self.home)?;
        std::fs::write(file.path(), definition.to_json())?;
        let path = file.path().display().to_string();
        let mut arguments = vec!["import", &path, "--stage", stage];
        arguments.extend(more);
        let answer = self.json(&arguments)?;
        let member = |name: &str| -> Result<String> {
            Ok(answer[name]
                .as_str()
                .with_context(|| format!("the answer has no {name}: {answer}"))?
                .to_owned())
        };
        Ok(Deployed {
            api_id: member("apiId")?,
            deployment_id: member("deploymentId")?,
            stage: stage.to_owned(),
            invoke_url: member("invokeUrl")?,
            warnings: answer["warnings"]
                .as_array()
                .map(|all| {
                    all.iter()
                        .map(|warning| {
                            warning
                                .as_str()
                                .map_or_else(|| warning.to_string(), str::to_owned)
                        })
                        .collect()
                })
                .unwrap_or_default(),
        })
    }

    /// Asks the process to end in order and waits for it.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.end(Signal::TERM)
    }

    /// Kills the process with the signal that cannot be caught, and waits for it.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.end(Signal::KILL)
    }

    /// Waits for the process to end by itself.
    pub fn await_exit(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the process was stopped before")?;
        match process::await_exit(&mut child, PATIENCE)? {
            Some(status) => Ok(status),
            None => {
                self.child = Some(child);
                bail!("the process still runs; its log ends:\n{}", tail(&self.log))
            }
        }
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let pid = self.pid().context("the process was stopped before")?;
        process::signal(pid, signal)?;
        self.await_exit()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.child.is_none() {
            return;
        }
        if self.terminate().is_ok() {
            return;
        }
        // It did not end in order: nothing that this test started may stay behind.
        let _ = self.read_again();
        for pid in [self.ready.control_plane, self.ready.data_plane]
            .into_iter()
            .flatten()
        {
            let _ = process::signal(pid, Signal::KILL);
        }
        let _ = self.kill();
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
