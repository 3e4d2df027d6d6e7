//! Arguments of the sub-commands that run a plane. Every address is optional here: settings fill what is absent.

use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// `tidegate up`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = UP_HELP)]
pub(crate) struct UpArgs {
    /// The data plane's listeners and threads.
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
    /// The control plane's listeners.
    #[command(flatten)]
    pub(crate) control: ControlListenArgs,
    /// Written when everything serves: one JSON object with addresses, pids, driver, adminTokenFile and awsProfile
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

/// `tidegate demo`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = DEMO_HELP)]
pub(crate) struct DemoArgs {
    /// What `up` takes.
    #[command(flatten)]
    pub(crate) up: UpArgs,
    /// Where the sample backend listens [default: a free port on 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    pub(crate) backend: Option<SocketAddr>,
}

/// `tidegate controlplane`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = CONTROL_HELP)]
pub(crate) struct ControlPlaneArgs {
    /// The control plane's listeners.
    #[command(flatten)]
    pub(crate) listen: ControlListenArgs,
    /// Written when the plane serves: one JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// End when the process that started this one ends.
    #[arg(long, hide = true, value_name = "PID")]
    pub(crate) supervised_by: Option<u32>,
}

/// `tidegate dataplane`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = DATA_HELP)]
pub(crate) struct DataPlaneArgs {
    /// The control plane's configuration address; without one the node serves what it last knew
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) control: Option<String>,
    /// A join file from `tidegate node token`; read once, when the node has no certificate yet
    #[arg(long, value_name = "FILE")]
    pub(crate) join: Option<PathBuf>,
    /// Listeners and threads.
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
    /// Written when the plane serves: one JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// Take over from the data plane that runs on the data directory, as `tidegate upgrade` has it done
    #[arg(long)]
    pub(crate) take_over: bool,
    /// End when the process that started this one ends.
    #[arg(long, hide = true, value_name = "PID")]
    pub(crate) supervised_by: Option<u32>,
}

/// Where traffic comes in and how many threads serve it.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrafficArgs {
    /// Plain HTTP listener [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// HTTPS listener [default: 0.0.0.0:8443]
    #[arg(long, value_name = "ADDR")]
    pub(crate) https: Option<SocketAddr>,
    /// Listener of /metrics, /healthz and /readyz [default: 127.0.0.1:9183]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Threads that serve traffic [default: the cores this process may use]
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<NonZeroU16>,
    /// How the threads do I/O [default: auto]
    #[arg(long, value_enum, value_name = "DRIVER")]
    pub(crate) io_driver: Option<IoDriver>,
}

/// Where the control plane listens.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ControlListenArgs {
    /// Admin API (gRPC) [default: 127.0.0.1:9180]
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// AWS management API [default: 127.0.0.1:9181]
    #[arg(long, value_name = "ADDR")]
    pub(crate) management: Option<SocketAddr>,
    /// Where data planes connect, over mutual TLS [default: 127.0.0.1:9182; with `up` a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    pub(crate) config: Option<SocketAddr>,
}

/// `tidegate demo-backend`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoBackendArgs {
    /// Where to listen; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Written when it serves: {"address": "127.0.0.1:4711"}
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// End when the process that started this one ends.
    #[arg(long, hide = true, value_name = "PID")]
    pub(crate) supervised_by: Option<u32>,
}

/// How shards do I/O.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IoDriver {
    /// io_uring where the kernel lets us, else epoll.
    #[default]
    Auto,
    /// io_uring, or refuse to start.
    Uring,
    /// epoll.
    Epoll,
}

impl IoDriver {
    /// The name under which the option takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

impl From<IoDriver> for tidegate_rt::DriverChoice {
    fn from(driver: IoDriver) -> Self {
        match driver {
            IoDriver::Auto => Self::Auto,
            IoDriver::Uring => Self::Uring,
            IoDriver::Epoll => Self::Epoll,
        }
    }
}

const UP_HELP: &str = "\
Runs the control plane and one data plane as two child processes and restarts either when it ends. A port of 0
picks a free one, which stays the same over restarts. SIGTERM and Ctrl-C stop both after a drain; SIGHUP reopens logs;
SIGUSR2, or `tidegate upgrade`, has a new data plane take over from the running one.

Examples:
  tidegate up
  tidegate up --data-dir ./state --http 127.0.0.1:8000
  tidegate up --data-dir ./state --http 127.0.0.1:0 --https 127.0.0.1:0 --admin 127.0.0.1:0 \\
      --management 127.0.0.1:0 --config 127.0.0.1:0 --metrics 127.0.0.1:0 --ready-file ready.json

Then, in another terminal:
  tidegate import petstore.yaml --stage prod --data-dir ./state";

const DEMO_HELP: &str = "\
Starts what `up` starts and a small pet-store server as backend, imports the sample API, deploys it to the stage
`demo`, and prints the lines to try. Without --data-dir everything is thrown away at the end.

Examples:
  tidegate demo
  tidegate demo --http 127.0.0.1:8000 --data-dir ./demo-state";

const CONTROL_HELP: &str = "\
Examples:
  tidegate controlplane --data-dir /var/lib/tidegate --config 0.0.0.0:9182
  tidegate node token --data-dir /var/lib/tidegate > join.txt      what a data plane needs to join";

const DATA_HELP: &str = "\
The first start exchanges the join file for a certificate; later starts need neither it nor a running control plane.

Examples:
  tidegate dataplane --control gate-control:9182 --join join.txt --data-dir /var/lib/tidegate-node
  tidegate dataplane --data-dir /var/lib/tidegate-node --shards 4 --io-driver epoll";
