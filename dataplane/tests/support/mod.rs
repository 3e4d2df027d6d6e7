//! A data plane in this process, configured by hand, and peers that say exactly what a test wants them to say.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tidegate_dataplane::config::{
    Apply, Change, ConfigMessage, ProbeCall, Resolver, Settings, ShardSink, Stage, confirmation,
};
use tidegate_dataplane::limit::Registry;
use tidegate_dataplane::telemetry::ShardCounters;
use tidegate_dataplane::{Node, Options};
use tidegate_plan::integration::{BackendMethod, Mapping, MappingSource, MappingTarget, Mock, UriPartSpec};
use tidegate_plan::{
    DeploymentId, HttpBackend, Integration, Limits, Method, MethodKey, PassThrough, Plan, PlanBuilder,
    ResourceId, StagePlan, Status, Target, Throttle, Verb,
};
use tidegate_proto::config::v1::{Probe, ProbeResult, probe::Mode};
use tidegate_rt::DriverChoice;

/// A bound on waits that end by themselves: only a broken program meets it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on each driver that this machine has.
pub fn on_both_drivers(test: impl Fn(DriverChoice)) {
    test(DriverChoice::Epoll);
    if tidegate_rt::probe(DriverChoice::Uring).is_ok() {
        test(DriverChoice::Uring);
    }
}

/// The defaults, but for these rows.
pub fn limits(settings: &[(&str, &str)]) -> Limits {
    let mut limits = Limits::default();
    for (name, value) in settings {
        limits.set(name, value).unwrap();
    }
    limits
}

/// What the first shard counts.
pub fn counters(gateway: &Gateway) -> &ShardCounters {
    &gateway.node().telemetry().node().shards()[0]
}

pub struct Gateway {
    pub node: Option<Node>,
    pub address: SocketAddr,
    pub https: Option<SocketAddr>,
    registry: Registry,
    runtime: tokio::runtime::Runtime,
    _data: tempfile::TempDir,
}

impl Gateway {
    pub fn start(driver: DriverChoice) -> Self {
        Self::with_limits(driver, Limits::default())
    }

    pub fn with_limits(driver: DriverChoice, limits: Limits) -> Self {
        Self::with(driver, limits, false, false)
    }

    pub fn with_https(driver: DriverChoice) -> Self {
        Self::with(driver, Limits::default(), true, false)
    }

    /// Plain connections may begin with HTTP/2.
    pub fn with_http2(driver: DriverChoice, limits: Limits) -> Self {
        Self::with(driver, limits, false, true)
    }

    pub fn with_https_limits(driver: DriverChoice, limits: Limits) -> Self {
        Self::with(driver, limits, true, false)
    }

    fn with(driver: DriverChoice, limits: Limits, https: bool, http2: bool) -> Self {
        Self::tuned(driver, |options| {
            options.https = https.then(|| "127.0.0.1:0".parse().unwrap());
            options.limits = limits;
            options.http2_prior_knowledge = http2;
        })
    }

    /// With other options than a test's usual ones.
    pub fn tuned(driver: DriverChoice, tune: impl FnOnce(&mut Options)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut options = Options::new(data.path());
        options.http = Some("127.0.0.1:0".parse().unwrap());
        options.shards = NonZeroUsize::new(1);
        options.driver = driver;
        options.fault_injection = true;
        tune(&mut options);
        let node = Node::start(&options).unwrap();
        let address = node.addresses().http.unwrap();
        let https = node.addresses().https;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            node: Some(node),
            address,
            https,
            registry: Registry::new(1000),
            runtime,
            _data: data,
        }
    }

    pub fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    /// Has every shard run a stage, and returns when they do.
    pub fn deploy(&mut self, plan: StagePlan) {
        let node = self.node.as_ref().unwrap();
        let telemetry = Arc::clone(node.telemetry());
        let mut resolver = Resolver {
            limits: &mut self.registry,
            telemetry: &telemetry,
            account: None,
            now: 0,
        };
        let stage = Stage::resolve(Arc::new(plan), 1, &mut resolver).unwrap();
        self.apply(vec![Change::Stage(Arc::new(stage))]);
    }

    pub fn settings(&mut self, settings: Settings) {
        self.apply(vec![Change::Settings(Arc::new(settings))]);
    }

    pub fn apply(&mut self, changes: Vec<Change>) {
        let sink = self.node.as_ref().unwrap().mailboxes();
        let (shares, done) = confirmation(ShardSink::shards(sink));
        let changes: Arc<[Change]> = changes.into();
        for (shard, confirmation) in shares.into_iter().enumerate() {
            let apply = Apply {
                changes: changes.clone(),
                confirmation,
            };
            ShardSink::send(sink, shard, ConfigMessage::Apply(apply))
                .unwrap_or_else(|_| panic!("mailbox full"));
        }
        self.runtime.block_on(done).unwrap();
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            stream,
            buffer: Vec::new(),
        }
    }

    /// One request on a connection of its own, to the stage `test` of the API `api`.
    pub fn get(&self, path: &str) -> Answer {
        let mut client = self.connect();
        client.send(request("GET", path, &[], b""));
        client.answer()
    }

    pub fn drain(mut self) {
        self.node.take().unwrap().drain().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            let drained = node.drain();
            if !std::thread::panicking() {
                drained.unwrap();
            }
        }
    }
}

/// The bytes of a request to the API `api`.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = format!("{method} {path} HTTP/1.1\r\nHost: api.execute-api.localhost\r\n").into_bytes();
    for (name, value) in headers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() {
        out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}

/// A client that says what it is told, and reads answers.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads one response.
    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    pub fn answer_to(&mut self, method: &str) -> Answer {
        self.try_answer(method).expect("a response")
    }

    /// Reads one response; `None` when the connection ends within it or before it.
    pub fn try_answer(&mut self, method: &str) -> Option<Answer> {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.drain(..head_end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .map(|line| {
                line.split_once(':')
                    .unwrap_or_else(|| panic!("no colon in {line:?}"))
            })
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if method == "HEAD" || (100..200).contains(&status) || matches!(status, 204 | 304) {
            return Some(answer);
        }
        if answer.get("transfer-encoding").is_some() {
            answer.body = self.chunked()?;
        } else if let Some(length) = answer.get("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length {
                if !self.fill() {
                    return None;
                }
            }
            answer.body = self.buffer.drain(..length).collect();
        } else {
            while self.fill() {}
            answer.body = std::mem::take(&mut self.buffer);
        }
        Some(answer)
    }

    fn chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                    break self.buffer.drain(..at + 2).collect::<Vec<_>>();
                }
                if !self.fill() {
                    return None;
                }
            };
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            while self.buffer.len() < size + 2 {
                if !self.fill() {
                    return None;
                }
            }
            body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
            if size == 0 {
                return Some(body);
            }
        }
    }

    /// Whether the server has ended the connection and nothing more comes.
    pub fn is_closed(&mut self) -> bool {
        !self.fill() && self.buffer.is_empty()
    }

    pub fn pending(&self) -> &[u8] {
        &self.buffer
    }

    fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                true
            }
            // The end of a ring that this thread has probed interrupts it.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => self.fill(),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                panic!(
                    "nothing came for {PATIENCE:?}; so far {:?}",
                    String::from_utf8_lossy(&self.buffer)
                )
            }
            Err(_) => false,
        }
    }
}

/// A backend whose connections are each handled by a function on a thread of its own.
pub struct Backend {
    pub address: SocketAddr,
}

impl Backend {
    pub fn start(handle: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), handle)
    }

    pub fn start_on(address: SocketAddr, handle: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let handle = Arc::new(handle);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
                let handle = Arc::clone(&handle);
                std::thread::spawn(move || {
                    handle(Peer {
                        stream,
                        buffer: Vec::new(),
                    })
                });
            }
        });
        Self { address }
    }

    /// Answers every request of every connection with the same bytes.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |mut peer| {
            while peer.request().is_some() {
                if peer.stream.write_all(&bytes).is_err() {
                    return;
                }
            }
        })
    }

    /// Answers with the request it got, as text.
    pub fn echoing() -> Self {
        Self::start(|mut peer| {
            while let Some(seen) = peer.request() {
                let text = seen.whole();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
                    text.len()
                );
                if peer.stream.write_all(&[head.as_bytes(), &text].concat()).is_err() {
                    return;
                }
            }
        })
    }
}

/// The gateway's connection, as a backend sees it.
pub struct Peer {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request as a backend saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn whole(&self) -> Vec<u8> {
        [self.head.as_bytes(), &self.body].concat()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value.trim()))
    }
}

impl Peer {
    /// Reads one request with its body; `None` at the end of the connection.
    pub fn request(&mut self) -> Option<Seen> {
        let mut seen = self.head()?;
        if seen.get("transfer-encoding").is_some() {
            loop {
                let line = self.line()?;
                let size = usize::from_str_radix(line.trim(), 16).unwrap();
                let data = self.take(size + 2)?;
                seen.body.extend_from_slice(&data[..size]);
                if size == 0 {
                    return Some(seen);
                }
            }
        }
        let length = seen
            .get("content-length")
            .map_or(0, |length| length.parse().unwrap());
        seen.body = self.take(length)?;
        Some(seen)
    }

    /// Reads one request's head.
    pub fn head(&mut self) -> Option<Seen> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.buffer.drain(..at + 4).collect();
                return Some(Seen {
                    head: String::from_utf8(head).unwrap(),
                    body: Vec::new(),
                });
            }
            self.fill()?;
        }
    }

    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                return String::from_utf8(self.buffer.drain(..at + 2).collect()).ok();
            }
            self.fill()?;
        }
    }

    pub fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill()?;
        }
        Some(self.buffer.drain(..count).collect())
    }

    fn fill(&mut self) -> Option<()> {
        let mut bytes = [0; 16 * 1024];
        let count = self.stream.read(&mut bytes).ok()?;
        self.buffer.extend_from_slice(&bytes[..count]);
        (count > 0).then_some(())
    }
}

/// Builds the plan of stage `test` of the API `api`.
pub struct Api {
    plan: PlanBuilder,
    throttle: Option<Throttle>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            plan: PlanBuilder::new(DeploymentId::parse("dep123").unwrap()),
            throttle: None,
        }
    }
}

impl Api {
    /// `ANY /{proxy+}` and `ANY /` to a backend under `/base`, and a few fixed answers beside it.
    pub fn proxy(backend: SocketAddr) -> StagePlan {
        let mut api = Self::default();
        let integration = api.backend(backend, 0, Kind::Proxy);
        api.route("/{proxy+}", MethodKey::Any, integration);
        api.route("/mock", MethodKey::Any, mock(200, "{\"mocked\":true}"));
        api.finish()
    }

    /// As [`Api::proxy`], with what `x-tidegate-pass-through` asks for.
    pub fn through(backend: SocketAddr, pass: PassThrough) -> StagePlan {
        let mut api = Self::default();
        let Integration::HttpProxy(integration) = api.backend(backend, 0, Kind::Proxy) else {
            unreachable!("asked for a proxy");
        };
        let target = Target::new("http", "127.0.0.1", u32::from(backend.port()), false).unwrap();
        let integration = integration.with_pass_through(pass, &target).unwrap();
        api.route(
            "/{proxy+}",
            MethodKey::Any,
            Integration::HttpProxy(Box::new(integration)),
        );
        api.finish()
    }

    pub fn backend(&mut self, backend: SocketAddr, timeout_ms: u32, kind: Kind) -> Integration {
        let target = Target::new("http", &backend.ip().to_string(), backend.port().into(), false).unwrap();
        let target = self.plan.target(target).unwrap();
        let uri = vec![
            UriPartSpec::Literal("/base/".into()),
            UriPartSpec::PathParameter("proxy".into()),
        ];
        let mappings =
            vec![Mapping::new(MappingTarget::Path, "proxy", MappingSource::path("proxy")).unwrap()];
        let backend =
            HttpBackend::new(target, BackendMethod::Same, uri, mappings, Vec::new(), timeout_ms).unwrap();
        match kind {
            Kind::Proxy => Integration::HttpProxy(Box::new(backend)),
            Kind::Custom => Integration::Http(Box::new(backend)),
        }
    }

    pub fn builder(&mut self) -> &mut PlanBuilder {
        &mut self.plan
    }

    pub fn throttled(&mut self, rate: f64, burst: i64) {
        self.throttle = Throttle::new(rate, burst).unwrap();
    }

    pub fn route(&mut self, path: &str, key: MethodKey, integration: Integration) {
        let method = Method {
            key,
            checks: None,
            integration,
            throttle: self.throttle,
            metrics_enabled: None,
            operation_name: None,
        };
        self.plan
            .route(ResourceId::parse("res123").unwrap(), path, vec![method])
            .unwrap();
    }

    pub fn finish(self) -> StagePlan {
        stage(self.plan.finish())
    }
}

#[derive(Clone, Copy)]
pub enum Kind {
    Proxy,
    Custom,
}

pub fn mock(status: u32, body: &str) -> Integration {
    Integration::Mock(Box::new(Mock {
        status: Status::new(status).unwrap(),
        body: body.as_bytes().into(),
        content_type: None,
        headers: Box::default(),
    }))
}

pub fn get() -> MethodKey {
    MethodKey::Verb(Verb::Get)
}

pub fn stage(primary: Plan) -> StagePlan {
    StagePlan {
        api: "api".parse().unwrap(),
        stage: "test".parse().unwrap(),
        account: "000000000000".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
        api_name: "an api".into(),
        disable_execute_api_endpoint: false,
        primary,
        canary: None,
        variables: Default::default(),
        access_log: None,
        metrics_enabled: false,
        node_selector: Vec::new(),
    }
}

/// Waits for a message of a backend's thread.
pub fn wait<T>(receiver: &mpsc::Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).expect("an event in time")
}

impl Gateway {
    /// What the node says would become of a request.
    pub fn explain(&self, method: &str, url: &str) -> ProbeResult {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let probe = Box::new(Probe {
            mode: Mode::Explain.into(),
            method: method.to_owned(),
            url: url.to_owned(),
            ..Probe::default()
        });
        let call = ConfigMessage::Probe(ProbeCall {
            probe,
            stage: None,
            reply,
        });
        ShardSink::send(self.node().mailboxes(), 0, call).unwrap_or_else(|_| panic!("mailbox full"));
        self.runtime.block_on(answer).unwrap()
    }
}
