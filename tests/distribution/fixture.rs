//! A control plane's distribution without the rest of it, and nodes without shards.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use prost::Message;
use tidegate_controlplane::{
    distribute::{
        BundleKey, Changed, Compiled, DEFAULT_VALIDITY, Distributor, DistributorOptions, NODE_LIFETIME,
        Source, TICKET_KEY_ROTATION,
    },
    model::{Key, Kind, Refusal},
    service::Fleet,
    store::{Put, Secret, SqliteStore, Store, transact},
};
use tidegate_dataplane::{
    config::{self, Apply, Change, Config, ConfigMessage, NodeOptions, SendError, ShardSink, Surroundings},
    limit,
    net::tls::{Purpose, Tickets},
    telemetry::{self, NodeInfo, Telemetry},
};
use tidegate_proto::config::v1::{
    BundleKind, FlushResult, Integration, Method, Mock, Plan, ProbeResult, Route, StageBundle,
    integration::Kind as Of,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

pub(crate) use config::News;

/// A control plane's distribution on loopback.
pub(crate) struct Installation {
    pub(crate) distributor: Distributor,
    pub(crate) source: Arc<Contents>,
    store: Arc<SqliteStore>,
    address: SocketAddr,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    lifetime: std::time::Duration,
    directory: tempfile::TempDir,
}

/// The revision of a stage's last change, and its content unless it was removed.
type LastChange = (u64, Option<Vec<u8>>);

/// Stages by API: what a compiler would make of definitions.
pub(crate) struct Contents {
    store: Arc<SqliteStore>,
    stages: Mutex<BTreeMap<String, LastChange>>,
    asked: Mutex<Vec<u64>>,
    /// The compiler fails, with all but `a`.
    pub(crate) broken: AtomicBool,
}

// === impl Installation ===

impl Installation {
    pub(crate) async fn start() -> Self {
        Self::start_with(NODE_LIFETIME).await
    }

    /// With nodes' certificates that live so long.
    pub(crate) async fn start_with(lifetime: std::time::Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(directory.path()).await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let source = Contents::new(&store, BTreeMap::new());
        let (distributor, server) = serve(&store, &source, listener, lifetime).await;
        Self {
            distributor,
            source,
            store,
            address,
            server: Some(server),
            lifetime,
            directory,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where the store lies.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Ends the distribution; the store stays.
    pub(crate) async fn stop(&mut self) {
        let (stop, server) = self.server.take().unwrap();
        drop(stop);
        server.await.unwrap();
    }

    /// A new life on the same address.
    pub(crate) async fn restart(&mut self) {
        let stages = self.source.stages.lock().unwrap().clone();
        self.source = Contents::new(&self.store, stages);
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (distributor, server) = serve(&self.store, &self.source, listener, self.lifetime).await;
        self.distributor = distributor;
        self.server = Some(server);
    }

    /// Puts a stage, or removes it; returns the revision.
    pub(crate) async fn publish(&self, api: &str, body: Option<&str>) -> u64 {
        self.source.put(api, body);
        self.commit().await
    }

    /// Puts a stage that no node can decode.
    pub(crate) async fn publish_garbage(&self, api: &str) -> u64 {
        self.source.set(api, Some(b"\xff\xff\xff".to_vec()));
        self.commit().await
    }

    async fn commit(&self) -> u64 {
        let put = Put {
            key: Key::top(Kind::Setting, "test"),
            account: String::new(),
            region: String::new(),
            body: serde_json::json!({}),
            secret: Secret::Keep,
        };
        let work = transact(&*self.store, move |tx| {
            Box::pin(async move { Ok(tx.put(put).await?) })
        })
        .await;
        work.unwrap().0
    }
}

async fn serve(
    store: &Arc<SqliteStore>,
    source: &Arc<Contents>,
    listener: TcpListener,
    node_lifetime: std::time::Duration,
) -> (Distributor, (oneshot::Sender<()>, JoinHandle<()>)) {
    let options = DistributorOptions {
        control_address: listener.local_addr().unwrap().to_string(),
        node_lifetime,
        ..Default::default()
    };
    let distributor = Distributor::open(store.clone(), source.clone(), options)
        .await
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = distributor.clone();
    let server = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        serving.serve(listener, stopped).await.unwrap();
    });
    (distributor, (stop, server))
}

// === impl Contents ===

impl Contents {
    fn new(store: &Arc<SqliteStore>, stages: BTreeMap<String, (u64, Option<Vec<u8>>)>) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            stages: Mutex::new(stages),
            asked: Mutex::default(),
            broken: AtomicBool::new(false),
        })
    }

    /// Puts a stage that answers `body`, as of the next revision.
    pub(crate) fn put(&self, api: &str, body: Option<&str>) {
        self.set(api, body.map(|body| stage(api, body)));
    }

    /// Since which revisions it was asked for changes.
    pub(crate) fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().clone()
    }

    fn set(&self, api: &str, content: Option<Vec<u8>>) {
        let next = *self.store.revisions().borrow() + 1;
        self.stages
            .lock()
            .unwrap()
            .insert(api.to_owned(), (next, content));
    }
}

#[async_trait]
impl Source for Contents {
    async fn changed(&self, since: u64) -> Result<Changed, Refusal> {
        self.asked.lock().unwrap().push(since);
        let mut changed = Changed {
            to: *self.store.revisions().borrow(),
            full: since == 0,
            ..Default::default()
        };
        for (api, (revision, content)) in &*self.stages.lock().unwrap() {
            if *revision > since {
                let key = BundleKey {
                    kind: BundleKind::Stage,
                    id: format!("{api}/prod"),
                };
                match content {
                    Some(_) => changed.present.push(key),
                    None => changed.gone.push(key),
                }
            }
        }
        Ok(changed)
    }

    async fn compiled(&self, key: &BundleKey, format: u32) -> Result<Option<Compiled>, Refusal> {
        let api = key.id.trim_end_matches("/prod");
        if self.broken.load(Ordering::Relaxed) && api != "a" {
            return Err(Refusal::internal("the compiler is broken"));
        }
        let stages = self.stages.lock().unwrap();
        let Some((revision, Some(content))) = stages.get(api) else {
            return Ok(None);
        };
        Ok(Some(Compiled {
            revision: *revision,
            format,
            content: content.clone().into(),
            node_selector: BTreeMap::new(),
        }))
    }
}

fn stage(api: &str, body: &str) -> Vec<u8> {
    let mock = Mock {
        status: 200,
        body: body.into(),
        ..Default::default()
    };
    let method = Method {
        http_method: "GET".into(),
        integration: Some(Integration {
            kind: Some(Of::Mock(mock)),
            timeout_ms: 0,
        }),
        ..Default::default()
    };
    let route = Route {
        resource_id: "r1".into(),
        path: "/".into(),
        methods: vec![method],
    };
    let bundle = StageBundle {
        api_id: api.into(),
        stage: "prod".into(),
        account_id: "000000000000".into(),
        region: "us-east-1".into(),
        primary: Some(Plan {
            deployment_id: "d1".into(),
            routes: vec![route],
            ..Default::default()
        }),
        ..Default::default()
    };
    bundle.encode_to_vec()
}

/// A machine: its disk and its join file.
pub(crate) struct NodeDirectory {
    pub(crate) node: PathBuf,
    pub(crate) join_file: PathBuf,
    name: String,
    _directory: tempfile::TempDir,
}

/// A node whose shards write down what they serve.
pub(crate) struct Node {
    news: mpsc::UnboundedReceiver<News>,
    shards: Arc<Shards>,
    /// What it seals session tickets with.
    pub(crate) tickets: Arc<Tickets>,
    _config: Config,
}

/// Holds shards back from confirming.
pub(crate) struct Gate(Mutex<(bool, Vec<Apply>)>);

struct Shards {
    count: usize,
    gate: Arc<Gate>,
    served: Mutex<BTreeMap<String, String>>,
}

// === impl NodeDirectory ===

impl NodeDirectory {
    pub(crate) async fn new(installation: &Installation, name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let this = Self {
            node: directory.path().join("node"),
            join_file: directory.path().join("join"),
            name: name.to_owned(),
            _directory: directory,
        };
        this.new_join_file(installation).await;
        this
    }

    pub(crate) async fn new_join_file(&self, installation: &Installation) {
        let (text, _) = installation
            .distributor
            .create_join_token(&self.name, DEFAULT_VALIDITY)
            .await
            .unwrap();
        let new = self.join_file.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.join_file).unwrap();
    }

    /// Starts the node with so many shards.
    pub(crate) fn start(&self, shards: usize) -> Node {
        self.start_with(shards, Gate::open())
    }

    /// Starts the node with a shard that confirms when the gate lets it.
    pub(crate) fn start_behind(&self, gate: Arc<Gate>) -> Node {
        self.start_with(1, gate)
    }

    /// Starts the node, which opens its streams at this address.
    pub(crate) fn start_through(&self, control: &str) -> Node {
        self.start_at(vec![control.to_owned()], 1, Gate::open())
    }

    fn start_with(&self, count: usize, gate: Arc<Gate>) -> Node {
        self.start_at(Vec::new(), count, gate)
    }

    fn start_at(&self, control: Vec<String>, count: usize, gate: Arc<Gate>) -> Node {
        let info = NodeInfo {
            version: "0".into(),
            driver: "epoll".into(),
            boot_id: "b".into(),
        };
        let (telemetry, _) = Telemetry::start(telemetry::Options::new(info)).unwrap();
        let shards = Arc::new(Shards {
            count,
            gate,
            served: Mutex::default(),
        });
        let options = NodeOptions {
            directory: self.node.clone(),
            control,
            join_file: Some(self.join_file.clone()),
            name: self.name.clone(),
            https: Some(SocketAddr::from(([127, 0, 0, 1], 8443))),
            ..Default::default()
        };
        let tickets = Arc::new(Tickets::new(Purpose::https(), TICKET_KEY_ROTATION));
        let around = Surroundings {
            shards: shards.clone(),
            telemetry,
            limits: limit::Registry::new(1_000),
            limit_time: Box::new(|| 0),
            tickets: Some(tickets.clone()),
            functions: None,
        };
        let (tell, news) = mpsc::unbounded_channel();
        let config = config::start(options, around, false, move |one| drop(tell.send(one))).unwrap();
        Node {
            news,
            shards,
            tickets,
            _config: config,
        }
    }
}

// === impl Node ===

impl Node {
    pub(crate) async fn news(&mut self) -> News {
        self.news.recv().await.unwrap()
    }

    /// `api=body` of every stage in force.
    pub(crate) fn served(&self) -> Vec<String> {
        self.shards
            .served
            .lock()
            .unwrap()
            .iter()
            .map(|(api, body)| format!("{api}={body}"))
            .collect()
    }
}

// === impl Gate ===

impl Gate {
    pub(crate) fn open() -> Arc<Self> {
        Arc::new(Self(Mutex::new((true, Vec::new()))))
    }

    pub(crate) fn close(&self) {
        self.0.lock().unwrap().0 = false;
    }

    /// Opens, and confirms what was held back.
    pub(crate) fn release(&self) {
        let mut inner = self.0.lock().unwrap();
        inner.0 = true;
        inner.1.drain(..).for_each(|apply| apply.confirmation.confirm());
    }
}

impl ShardSink for Shards {
    fn shards(&self) -> usize {
        self.count
    }

    fn send(&self, shard: usize, message: ConfigMessage) -> Result<(), SendError> {
        match message {
            ConfigMessage::Apply(apply) => {
                if shard == 0 {
                    apply.changes.iter().for_each(|change| self.run(change));
                }
                let mut gate = self.gate.0.lock().unwrap();
                match gate.0 {
                    true => apply.confirmation.confirm(),
                    false => gate.1.push(apply),
                }
            }
            ConfigMessage::Probe(call) if call.probe.url == "/known" => {
                let _ = call.reply.send(ProbeResult {
                    status: 200,
                    ..Default::default()
                });
            }
            ConfigMessage::Flush(call) => {
                let _ = call.reply.send(FlushResult::default());
            }
            ConfigMessage::Probe(_) => {}
        }
        Ok(())
    }
}

impl Shards {
    fn run(&self, change: &Change) {
        let mut served = self.served.lock().unwrap();
        match change {
            Change::Stage(stage) => {
                let method = &stage.plan.primary.routes()[0].methods()[0];
                let tidegate_plan::Integration::Mock(mock) = &method.integration else {
                    panic!("{method:?}")
                };
                let body = String::from_utf8(mock.body.to_vec()).unwrap();
                served.insert(stage.plan.api.as_str().to_owned(), body);
            }
            Change::StageRemoved { api_id, .. } => {
                served.remove(&**api_id);
            }
            _ => {}
        }
    }
}
