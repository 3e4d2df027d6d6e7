//! The node: the process-wide side of the data plane. Binds addresses, starts shards and helper threads, drains.

mod run;

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_plan::{Limit, Limits};
use tidegate_rt as rt;

use crate::function::{self, Functions};
use crate::handover::HandoverError;
use crate::net::dns::{Dns, DnsLimits};
use crate::net::health::HealthLimits;
use crate::net::permits::Endpoints;
use crate::net::proxy_protocol::Required;
use crate::net::tls::{ClientConfigs, Purpose, SavedKey, Tickets};
use crate::pipeline::ids::Ids;
use crate::shard::mail::{Mailboxes, ShardMessage};
use crate::shard::{self, Start};
use crate::sockets::{Role, Sockets};
use crate::telemetry::{self, NodeInfo, Telemetry};

pub use run::{run, write_ready_file};

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
    /// Take over from the data plane that runs on the data directory (D17).
    pub take_over: bool,
    /// The process that started this one and starts its successors, too.
    pub supervisor: Option<u32>,
    /// Listeners that require the PROXY protocol, and from whom they take it (D18).
    pub proxy_protocol: Required,
    /// How a successor is started where there is no supervisor.
    pub successor: Option<Successor>,
    /// Requests may make a phase panic (`x-tidegate-test-panic: {phase}`). For tests; on where the environment has
    /// `TIDEGATE_FAULT_INJECTION=1`.
    pub fault_injection: bool,
    /// Plain connections may begin with HTTP/2, without an upgrade (RFC 9113 section 3.3).
    pub http2_prior_knowledge: bool,
    /// Addresses from which backends are connected to, one a family at most; none: by the routing table.
    pub upstream_source: Vec<IpAddr>,
}

/// A command that starts a data plane with the settings of this one.
#[derive(Debug, Clone)]
pub struct Successor {
    /// The program: by the path that it was started with, so that a newer one in its place is found.
    pub program: PathBuf,
    /// Its arguments, without the one that says to take over.
    pub arguments: Vec<OsString>,
}

/// The argument that has a data plane take over from the running one.
pub const TAKE_OVER: &str = "--take-over";

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
            take_over: false,
            supervisor: None,
            proxy_protocol: Required::default(),
            successor: None,
            fault_injection: std::env::var_os("TIDEGATE_FAULT_INJECTION").is_some_and(|value| value == "1"),
            http2_prior_knowledge: false,
            upstream_source: Vec::new(),
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
    /// The running data plane was not taken over from, and goes on.
    #[error(transparent)]
    Handover(#[from] HandoverError),
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
    functions: Functions,
    telemetry: Arc<Telemetry>,
    sockets: Arc<Sockets>,
    tickets: Option<Arc<Tickets>>,
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
    /// SIGUSR2: have a new process take over.
    Upgrade,
    /// A new process has taken over.
    Relieved {
        /// That process.
        pid: u32,
    },
    /// A process that wanted to take over has not, and why.
    NotRelieved(String),
    /// The process that was started to take over has ended.
    SuccessorEnded(ExitStatus),
}

impl Node {
    /// Binds, starts every thread, and returns while they serve.
    ///
    /// # Errors
    /// When an address, a driver or a thread cannot be had. What was started until then is stopped.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let bind = |shards| Sockets::bind(options, Vec::new(), shards);
        let mut node = Self::prepare(options, bind, Vec::new())?;
        node.answer_operators()?;
        node.listen()?;
        Ok(node)
    }

    /// Starts every thread; nothing is accepted yet. `sockets` are made for a number of shards.
    fn prepare(
        options: &Options,
        sockets: impl FnOnce(usize) -> Result<Sockets, Error>,
        ticket_keys: Vec<SavedKey>,
    ) -> Result<Self, Error> {
        let driver = rt::probe(options.driver)?;
        let cpus = rt::available_cpus().map_err(system("cannot read which processors may be used"))?;
        let count = options.shards.map_or(cpus.len().max(1), NonZeroUsize::get);
        let sockets = Arc::new(sockets(count)?);

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
        let addresses = Addresses {
            http: sockets.address(Role::Http),
            https: sockets.address(Role::Https),
            metrics: sockets.address(Role::Metrics),
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

        let (functions, workers) = Functions::new(function::Bounds::new(&options.limits));
        let mail = mailboxes.clone();
        std::thread::Builder::new()
            .name("functions".into())
            .spawn(move || {
                if let Err(error) = workers.run(&mail) {
                    tracing::error!(%error, "the functions' thread cannot run; functions with workers fail");
                }
            })
            .map_err(system("cannot start the functions' thread"))?;

        let client_tls = ClientConfigs::load().map_err(|error| Error::Tls(error.to_string()))?;
        let rotation = options.limits.duration(Limit::TicketKeyRotation);
        let tickets = addresses
            .https
            .map(|_| Arc::new(Tickets::new(Purpose::https(), rotation)));
        if let Some(tickets) = &tickets {
            tickets.restore(ticket_keys);
        }
        let per_target = options.limits.get(Limit::UpstreamConnectionsPerTarget);
        let per_target = u32::try_from(per_target).unwrap_or(u32::MAX);
        let endpoints = Arc::new(Endpoints::new(
            per_target,
            HealthLimits::new(&options.limits),
            mailboxes.clone(),
        ));
        let proxy_protocol = Arc::new(options.proxy_protocol.clone());
        let epoch = rt::Instant::now();
        let (report, events) = mpsc::channel();

        let mut shards = Vec::with_capacity(count);
        for (index, (mail, recorder)) in inboxes.into_iter().zip(recorders).enumerate() {
            let start = Start {
                index,
                shards: count,
                mail,
                limits: options.limits.clone(),
                dns: dns.clone(),
                functions: functions.clone(),
                endpoints: Arc::clone(&endpoints),
                proxy_protocol: Arc::clone(&proxy_protocol),
                client_tls: client_tls.clone(),
                tickets: tickets.clone().map(|tickets| tickets as _),
                recorder,
                epoch,
                fault_injection: options.fault_injection,
                http2_prior_knowledge: options.http2_prior_knowledge,
                upstream_source: options.upstream_source.clone(),
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
        tracing::info!(%driver, shards = count, http = ?addresses.http, https = ?addresses.https, "started");
        Ok(Self {
            addresses,
            driver,
            mailboxes,
            functions,
            telemetry,
            sockets,
            tickets,
            metrics: None,
            shards,
            gone: 0,
            events,
            report,
            epoch,
            limits: options.limits.clone(),
            boot_id,
        })
    }

    /// Starts the metrics server.
    fn answer_operators(&mut self) -> Result<(), Error> {
        let listener = self.sockets.copy(Role::Metrics).map_err(system(COPIED))?;
        if let Some(listener) = listener {
            let server = telemetry::Server::start(listener, Arc::clone(&self.telemetry))
                .map_err(system("cannot start the metrics server"))?;
            self.metrics = Some(server);
        }
        Ok(())
    }

    /// Has the shards accept.
    fn listen(&self) -> Result<(), Error> {
        let listeners = self
            .sockets
            .assign(self.mailboxes.shards())
            .map_err(system(COPIED))?;
        self.mailboxes.listen(listeners);
        Ok(())
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

    /// Functions with workers.
    pub fn functions(&self) -> &Functions {
        &self.functions
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
    pub fn drain(self) -> Result<(), Error> {
        self.telemetry.node().set_draining();
        self.sockets.close();
        self.finish()
    }

    /// Ends after another process has taken over: as [`Node::drain`], but idle connections first get the time to send a
    /// request that may be on its way.
    ///
    /// # Errors
    /// When a shard did not end as it should.
    pub fn retire(mut self) -> Result<(), Error> {
        self.telemetry.node().set_draining();
        self.sockets.close();
        if let Some(metrics) = self.metrics.take() {
            metrics.stop();
        }
        self.mailboxes.retire();
        self.functions.retire();
        let idle = self.limits.duration(Limit::RetireIdleTimeout);
        // Whoever is left after it is dealt with below.
        let _ = self.wait(Instant::now() + idle);
        self.finish()
    }

    fn finish(mut self) -> Result<(), Error> {
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

const COPIED: &str = "cannot copy a listening socket";

/// How long shards may take to end once they are told to stop.
const FORCE: Duration = Duration::from_secs(7);

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
