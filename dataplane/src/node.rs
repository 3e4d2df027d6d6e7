//! The node: the process-wide side of the data plane. Binds addresses, starts shards and helper threads, drains.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_plan::{Limit, Limits};
use tidegate_rt as rt;

use crate::config::{self, Config, News, NodeOptions, Surroundings};
use crate::limit;
use crate::net::dns::{Dns, DnsLimits};
use crate::net::health::HealthLimits;
use crate::net::permits::Endpoints;
use crate::net::tls::{ClientConfigs, server};
use crate::pipeline::ids::Ids;
use crate::shard::mail::{Mailboxes, ShardMessage};
use crate::shard::{self, Protocol, Start};
use crate::telemetry::{self, NodeInfo, Telemetry};

/// How a data plane is started. Every field is a flag of `tidegate dataplane`.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where plain HTTP is answered; port 0 takes a free one.
    pub http: Option<SocketAddr>,
    /// Where HTTPS is answered.
    pub https: Option<SocketAddr>,
    /// Where `/metrics`, `/healthz` and `/readyz` are answered.
    pub metrics: Option<SocketAddr>,
    /// Threads that serve; absent: as many as the processors that this process may use.
    pub shards: Option<NonZeroUsize>,
    /// Which I/O driver to use.
    pub driver: rt::DriverChoice,
    /// Where the node keeps what it must not forget: identity, last known good configuration.
    pub data_dir: PathBuf,
    /// Address of the control plane's configuration service; absent: the node serves what it has on disk.
    pub control: Option<String>,
    /// The join file that lets the node in the first time.
    pub join_file: Option<PathBuf>,
    /// What the node calls itself.
    pub node_name: String,
    /// Labels that node selectors match.
    pub labels: Vec<(String, String)>,
    /// The table of limits.
    pub limits: Limits,
    /// Written when the node serves, removed when it drains.
    pub ready_file: Option<PathBuf>,
    /// Requests may make a phase panic (`x-tidegate-test-panic: {phase}`). For tests; on where the environment has
    /// `TIDEGATE_FAULT_INJECTION=1`.
    pub fault_injection: bool,
    /// Plain connections may begin with HTTP/2, without an upgrade (RFC 9113 section 3.3).
    pub http2_prior_knowledge: bool,
}

impl Options {
    /// Nothing listens, everything else by default.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            http: None,
            https: None,
            metrics: None,
            shards: None,
            driver: rt::DriverChoice::Auto,
            data_dir: data_dir.into(),
            control: None,
            join_file: None,
            node_name: String::new(),
            labels: Vec::new(),
            limits: Limits::default(),
            ready_file: None,
            fault_injection: std::env::var_os("TIDEGATE_FAULT_INJECTION").is_some_and(|value| value == "1"),
            http2_prior_knowledge: false,
        }
    }
}

/// Why a data plane cannot start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No I/O driver works here.
    #[error("{0}")]
    Driver(#[from] rt::DriverError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {purpose}: {source}; choose another with --{purpose}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The flag that sets it.
        purpose: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Neither `http` nor `https` is set.
    #[error("nothing to serve on: set --http or --https")]
    NothingToServe,
    /// A thread, descriptor or file that the node needs cannot be had.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(String),
    /// A shard ended that should not have.
    #[error("shard {shard} ended unexpectedly: {reason}")]
    ShardDied {
        /// Which.
        shard: usize,
        /// How.
        reason: String,
    },
    /// The configuration thread cannot go on.
    #[error("configuration: {0}")]
    Config(String),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { what, source }
}

/// Where a node answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Addresses {
    /// Plain HTTP.
    pub http: Option<SocketAddr>,
    /// HTTPS.
    pub https: Option<SocketAddr>,
    /// Metrics and health.
    pub metrics: Option<SocketAddr>,
}

/// A running data plane, without its configuration thread.
#[derive(Debug)]
pub struct Node {
    addresses: Addresses,
    driver: rt::DriverKind,
    mailboxes: Mailboxes,
    telemetry: Arc<Telemetry>,
    metrics: Option<telemetry::Server>,
    shards: Vec<JoinHandle<()>>,
    /// Shards that have said that they ended.
    gone: usize,
    events: mpsc::Receiver<Event>,
    report: mpsc::Sender<Event>,
    epoch: rt::Instant,
    limits: Limits,
    boot_id: String,
}

/// What the node's own thread hears of.
#[derive(Debug)]
pub enum Event {
    /// A shard's thread has ended.
    Ended {
        /// Which.
        shard: usize,
        /// Why, where it was not asked to.
        reason: Option<String>,
    },
    /// SIGTERM or SIGINT: drain and end.
    Terminate,
    /// SIGHUP: open the log files anew.
    Reopen,
    /// The shards run a configuration for the first time.
    Configured,
    /// A helper that the node cannot do without has failed.
    Failed(String),
}

impl Node {
    /// Binds, starts every thread, and returns while they serve.
    ///
    /// # Errors
    /// When an address, a driver or a thread cannot be had. What was started until then is stopped.
    pub fn start(options: &Options) -> Result<Self, Error> {
        if options.http.is_none() && options.https.is_none() {
            return Err(Error::NothingToServe);
        }
        let driver = rt::probe(options.driver)?;
        let cpus = rt::available_cpus().map_err(system("cannot read which processors may be used"))?;
        let count = options.shards.map_or(cpus.len().max(1), NonZeroUsize::get);

        let mut listeners: Vec<Vec<(TcpListener, Protocol)>> = (0..count).map(|_| Vec::new()).collect();
        let http = bind(options.http, "http", Protocol::Http, &mut listeners)?;
        let https = bind(options.https, "https", Protocol::Https, &mut listeners)?;
        let metrics = match options.metrics {
            None => None,
            Some(address) => Some(TcpListener::bind(address).map_err(|source| Error::Listen {
                address,
                purpose: "metrics",
                source,
            })?),
        };

        let boot_id = String::from_utf8_lossy(&Ids::new().request_id()).into_owned();
        let info = NodeInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            driver: driver.to_string(),
            boot_id: boot_id.clone(),
        };
        let telemetry_options = telemetry::Options {
            log_directory: options.data_dir.clone(),
            ..telemetry::Options::with_limits(info, count, &options.limits)
        };
        let (telemetry, recorders) =
            Telemetry::start(telemetry_options).map_err(system("cannot start the access log's thread"))?;
        let server = match metrics {
            None => None,
            Some(listener) => Some(
                telemetry::Server::start(listener, Arc::clone(&telemetry))
                    .map_err(system("cannot start the metrics server"))?,
            ),
        };
        let addresses = Addresses {
            http,
            https,
            metrics: server.as_ref().map(telemetry::Server::address),
        };

        let mut senders = Vec::with_capacity(count);
        let mut inboxes = Vec::with_capacity(count);
        for _ in 0..count {
            let (sender, receiver) =
                rt::mail::channel::<ShardMessage>(options.limits.count(Limit::ShardMail))
                    .map_err(system("cannot make a shard's mailbox"))?;
            senders.push(sender);
            inboxes.push(receiver);
        }
        let mailboxes = Mailboxes::new(senders);
        let (dns, resolver) = Dns::new(DnsLimits::new(&options.limits));
        let mail = mailboxes.clone();
        std::thread::Builder::new()
            .name("dns".into())
            .spawn(move || {
                if let Err(error) = resolver.run(&mail) {
                    tracing::error!(%error, "the resolver's thread cannot run; upstream names do not resolve");
                }
            })
            .map_err(system("cannot start the resolver's thread"))?;

        let client_tls = ClientConfigs::load().map_err(|error| Error::Tls(error.to_string()))?;
        let tickets = options.https.and_then(|_| server::tickets());
        let per_target = options.limits.get(Limit::UpstreamConnectionsPerTarget);
        let per_target = u32::try_from(per_target).unwrap_or(u32::MAX);
        let endpoints = Arc::new(Endpoints::new(
            per_target,
            HealthLimits::new(&options.limits),
            mailboxes.clone(),
        ));
        let epoch = rt::Instant::now();
        let (report, events) = mpsc::channel();

        let mut shards = Vec::with_capacity(count);
        let parts = listeners.into_iter().zip(inboxes).zip(recorders).enumerate();
        for (index, ((listeners, mail), recorder)) in parts {
            let start = Start {
                index,
                shards: count,
                listeners,
                mail,
                limits: options.limits.clone(),
                dns: dns.clone(),
                endpoints: Arc::clone(&endpoints),
                client_tls: client_tls.clone(),
                tickets: tickets.clone(),
                recorder,
                epoch,
                fault_injection: options.fault_injection,
                http2_prior_knowledge: options.http2_prior_knowledge,
            };
            // More shards than processors: the scheduler knows better than a fixed choice.
            let cpu = (count <= cpus.len()).then(|| cpus[index]);
            let report = report.clone();
            let thread = std::thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(move || run_shard(start, driver, cpu, report))
                .map_err(system("cannot start a shard's thread"));
            match thread {
                Ok(thread) => shards.push(thread),
                Err(error) => {
                    mailboxes.stop();
                    return Err(error);
                }
            }
        }
        tracing::info!(%driver, shards = count, http = ?addresses.http, https = ?addresses.https, "serving");
        Ok(Self {
            addresses,
            driver,
            mailboxes,
            telemetry,
            metrics: server,
            shards,
            gone: 0,
            events,
            report,
            epoch,
            limits: options.limits.clone(),
            boot_id,
        })
    }

    /// Where it answers.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The I/O driver in use.
    pub fn driver(&self) -> rt::DriverKind {
        self.driver
    }

    /// The way to the shards.
    pub fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }

    /// Counters, logs, health.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// The instant from which the node's limits count time.
    pub fn epoch(&self) -> rt::Instant {
        self.epoch
    }

    /// Differs at every start.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Waits for the next event.
    pub fn event(&self) -> Event {
        // The node holds a sender itself, so that this cannot end.
        self.events.recv().unwrap_or(Event::Terminate)
    }

    /// Where helpers report to.
    pub fn reports(&self) -> mpsc::Sender<Event> {
        self.report.clone()
    }

    /// Ends in order: not ready, listeners closed, requests finished, at most for the drain's bound; then by force.
    ///
    /// # Errors
    /// When a shard did not end as it should.
    pub fn drain(mut self) -> Result<(), Error> {
        self.telemetry.node().set_draining();
        self.mailboxes.drain();
        let deadline = Instant::now() + self.limits.duration(Limit::DrainTimeout);
        let mut outcome = self.wait(deadline);
        if outcome.is_err() {
            tracing::warn!("the time for draining is over: open connections are closed");
            self.mailboxes.stop();
            outcome = self.wait(Instant::now() + FORCE);
        }
        let died = match outcome {
            Ok(died) => died,
            Err(()) => {
                // A shard that does not even stop cannot be joined; the process ends without it.
                return Err(Error::ShardDied {
                    shard: 0,
                    reason: "it did not stop when told to".into(),
                });
            }
        };
        for shard in self.shards.drain(..) {
            let _ = shard.join();
        }
        if let Some(metrics) = self.metrics.take() {
            metrics.stop();
        }
        match died {
            None => Ok(()),
            Some((shard, reason)) => Err(Error::ShardDied { shard, reason }),
        }
    }

    /// Waits until every shard has ended, and says which died; `Err` when the deadline comes first.
    fn wait(&mut self, deadline: Instant) -> Result<Option<(usize, String)>, ()> {
        let mut died = None;
        let mut left = self.shards.len() - self.gone;
        while left > 0 {
            let time = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(time) {
                Ok(Event::Ended { shard, reason }) => {
                    left -= 1;
                    self.gone += 1;
                    died = died.or(reason.map(|reason| (shard, reason)));
                }
                // A second signal does not make it quicker: the bound does.
                Ok(_) => {}
                Err(_) => return Err(()),
            }
        }
        Ok(died)
    }
}

/// How long shards may take to end once they are told to stop.
const FORCE: Duration = Duration::from_secs(7);

/// One socket a shard on one address; the port is chosen once.
fn bind(
    address: Option<SocketAddr>,
    purpose: &'static str,
    protocol: Protocol,
    listeners: &mut [Vec<(TcpListener, Protocol)>],
) -> Result<Option<SocketAddr>, Error> {
    let Some(wanted) = address else { return Ok(None) };
    let refused = |source| Error::Listen {
        address: wanted,
        purpose,
        source,
    };
    // A socket without SO_REUSEPORT finds out whether another process holds the port: sharing it would steal from both.
    if wanted.port() != 0 {
        drop(rt::listen(wanted, &rt::ListenOptions::default()).map_err(refused)?);
    }
    let options = rt::ListenOptions {
        reuse_port: true,
        ..rt::ListenOptions::default()
    };
    let mut bound = wanted;
    for shard in listeners {
        let listener = rt::listen(bound, &options).map_err(refused)?;
        bound = listener.local_addr().map_err(refused)?;
        shard.push((listener, protocol));
    }
    Ok(Some(bound))
}

fn run_shard(start: Start, driver: rt::DriverKind, cpu: Option<usize>, report: mpsc::Sender<Event>) {
    /// Says how the shard ended, a panic of its own included.
    struct Report {
        shard: usize,
        reason: Option<String>,
        to: mpsc::Sender<Event>,
    }
    impl Drop for Report {
        fn drop(&mut self) {
            let _ = self.to.send(Event::Ended {
                shard: self.shard,
                reason: self.reason.take(),
            });
        }
    }
    let mut report = Report {
        shard: start.index,
        reason: Some("its thread panicked".into()),
        to: report,
    };
    if let Some(cpu) = cpu
        && let Err(error) = rt::pin_to_cpu(cpu)
    {
        tracing::warn!(shard = start.index, cpu, %error, "a shard is not pinned to its processor");
    }
    let options = rt::RuntimeOptions {
        panics: Some(Arc::clone(&start.recorder.counters().panics)),
        sends: Some(Arc::clone(&start.recorder.counters().sends)),
        ..rt::RuntimeOptions::new(driver)
    };
    report.reason = match rt::run(options, shard::run(start)) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(error) => Some(error.to_string()),
    };
}

/// Runs a data plane until it is told to end (SIGTERM, SIGINT) and has drained. Blocks the calling thread.
///
/// # Errors
/// When it cannot start, or a shard or helper dies; the node has drained by then.
pub fn run(options: &Options) -> Result<(), Error> {
    let node = Node::start(options)?;
    watch_signals(node.reports())?;
    let config = start_config(&node, options)?;
    let outcome = loop {
        match node.event() {
            Event::Configured => {
                if let Some(path) = &options.ready_file {
                    write_ready_file(path, &node)?;
                }
            }
            Event::Terminate => {
                tracing::info!("draining");
                break Ok(());
            }
            Event::Reopen => node.telemetry().log().reopen(),
            Event::Ended { shard, reason } => {
                let reason = reason.unwrap_or_else(|| "nobody told it to".into());
                tracing::error!(shard, reason, "a shard has ended; the node drains");
                node.telemetry()
                    .node()
                    .block("shard", format!("shard {shard} has ended"));
                break Err((shard, reason));
            }
            Event::Failed(reason) => {
                tracing::error!(reason, "the node cannot go on, and drains");
                break Err((usize::MAX, reason));
            }
        }
    };
    if let Some(path) = &options.ready_file {
        let _ = std::fs::remove_file(path);
    }
    drop(config);
    let mut node = node;
    match outcome {
        Ok(()) => node.drain(),
        Err((usize::MAX, reason)) => {
            let _ = node.drain();
            Err(Error::Config(reason))
        }
        Err((shard, reason)) => {
            node.gone += 1;
            let _ = node.drain();
            Err(Error::ShardDied { shard, reason })
        }
    }
}

/// Starts the configuration thread.
fn start_config(node: &Node, options: &Options) -> Result<Config, Error> {
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
    config::start(options, around, tell).map_err(|error| Error::Config(error.to_string()))
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
    drop(inside);
    let watch = async move {
        loop {
            let event = tokio::select! {
                _ = term.recv() => Event::Terminate,
                _ = interrupt.recv() => Event::Terminate,
                _ = hangup.recv() => Event::Reopen,
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
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, serde_json::Value::Object(ready).to_string())
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(system("cannot write the ready file"))
}
