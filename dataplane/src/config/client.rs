//! The node's side of the configuration stream.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use aws_lc_rs::rand;
use tidegate_proto::config::v1::{
    self as config, ControlMessage, Hello, NodeMessage, config_service_client::ConfigServiceClient,
    control_message, node_message,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{
    ConfigMessage, FlushCall, Identity, IdentityError, JoinFile, ProbeCall, SendError, ShardSink, Stage,
    orders::{Order, Orders},
    world::{FORMATS, World, WorldError},
};

/// The largest message of the control plane: a probe with its ephemeral bundle.
const MESSAGE_MAX: usize = 16 * 1024 * 1024;
/// Messages that wait to be sent.
const OUTBOUND: usize = 32;
/// Commands that run at a time.
const COMMANDS: usize = 64;
/// How long a shard may take for a command: the longest integration, and some.
const COMMAND: Duration = Duration::from_secs(33);
/// How often the node reports of itself.
const STATUS: Duration = Duration::from_secs(5);
/// How often replaced content is looked through.
const TIDY: Duration = Duration::from_secs(2);
/// How often the certificate's age is looked at, and how long after a renewal the next one may be.
const RENEWAL: Duration = Duration::from_secs(3_600);
/// How long opening the stream may take.
const OPEN: Duration = Duration::from_secs(15);
/// Between two tries to reach a control plane: doubled each time, and a random part taken off.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Who the node is to the control plane.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// Where the node keeps its identity and its last known good configuration.
    pub directory: PathBuf,
    /// Addresses of control planes, tried in turn; empty: where the node joined.
    pub control: Vec<String>,
    /// The join file, needed until the node has joined. It may be replaced by a fresh one at any time.
    pub join_file: Option<PathBuf>,
    /// The node's name, for people.
    pub name: String,
    /// What node selectors match.
    pub labels: BTreeMap<String, String>,
    /// Where it answers HTTP.
    pub http: Option<SocketAddr>,
    /// Where it answers HTTPS.
    pub https: Option<SocketAddr>,
}

/// The stream, opened again and again.
pub(super) struct Client {
    pub(super) options: NodeOptions,
    pub(super) world: World,
    /// It was told that the node has a configuration.
    configured: bool,
    renewed: Option<Instant>,
    next_address: usize,
    /// The last try to open a stream failed.
    turned_away: bool,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the control plane ended the stream: {0}")]
    Stream(String),
    /// The certificate was renewed: the next stream uses the new one.
    #[error("the certificate was renewed")]
    Renewed,
    /// An order came while it was being opened.
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    World(#[from] WorldError),
}

// === impl Client ===

impl Client {
    pub(super) fn new(options: NodeOptions, world: World) -> Self {
        Self {
            options,
            world,
            configured: false,
            renewed: None,
            next_address: 0,
            turned_away: false,
        }
    }

    /// Serves from disk, then keeps a stream open. Calls `configured` once, when the shards run a configuration. Returns
    /// when a shard has ended; nothing else is a reason to stop.
    pub(super) async fn run(
        mut self,
        mut orders: Orders,
        frozen: bool,
        configured: &dyn Fn(),
    ) -> Result<(), WorldError> {
        self.world.load().await?;
        if self.world.lkg().revision() > 0 || self.world.lkg().keys().next().is_some() {
            tracing::info!(
                revision = self.world.lkg().revision(),
                "serving the last known good configuration"
            );
            self.configured = true;
            configured();
        }
        if frozen {
            self.frozen(&mut orders).await;
        }
        let mut pause = RETRY.0;
        let mut said = String::new();
        loop {
            let mut connected = false;
            let ended = self.converse(&mut orders, &mut connected, configured).await;
            if connected {
                pause = RETRY.0;
                said.clear();
            }
            match ended {
                Ended::Renewed | Ended::Interrupted => continue,
                Ended::World(WorldError::ShardGone) => return Err(WorldError::ShardGone),
                other => {
                    let reason = other.to_string();
                    if reason != said {
                        tracing::warn!(
                            reason,
                            "not connected to a control plane; the node serves what it has"
                        );
                        said = reason;
                    }
                }
            }
            tokio::select! {
                () = sleep(jitter(pause)) => {}
                order = next(&mut orders) => self.obey(order, &mut orders).await,
            }
            self.world.tidy().await?;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// One stream from connecting to its end.
    async fn converse(&mut self, orders: &mut Orders, connected: &mut bool, configured: &dyn Fn()) -> Ended {
        match self.try_converse(orders, connected, configured).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn try_converse(
        &mut self,
        orders: &mut Orders,
        connected: &mut bool,
        configured: &dyn Fn(),
    ) -> Result<std::convert::Infallible, Ended> {
        let (identity, channel) = tokio::select! {
            connection = self.connect() => connection?,
            order = next(orders) => {
                self.obey(order, orders).await;
                return Err(Ended::Interrupted);
            }
        };
        self.world.telemetry().node().set_id(&identity.node_id);
        if self.renew_if_due(&identity, &channel).await? {
            return Err(Ended::Renewed);
        }
        let (outbound, messages) = mpsc::channel(OUTBOUND);
        let hello = node_message::Message::Hello(self.hello(&identity));
        // There is room: nothing was sent before.
        let _ = outbound.try_send(NodeMessage { message: Some(hello) });
        self.world.begin_stream();
        let mut client = ConfigServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX);
        let mut inbound = timeout(OPEN, client.stream(ReceiverStream::new(messages)))
            .await
            .map_err(|_| Ended::Stream("it does not answer".into()))?
            .map_err(stream_error)?
            .into_inner();
        *connected = true;
        self.turned_away = false;
        self.next_address = self.next_address.wrapping_sub(1);
        tracing::info!(node = identity.node_id, "connected to the control plane");

        let commands = Arc::new(Semaphore::new(COMMANDS));
        let mut status = interval(STATUS);
        let mut tidy = interval(TIDY);
        let mut renewal = interval(RENEWAL);
        for ticks in [&mut status, &mut tidy, &mut renewal] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            let answer = tokio::select! {
                message = inbound.message() => match message.map_err(stream_error)? {
                    Some(ControlMessage { message: Some(message) }) => self.hear(message, &outbound, &commands).await?,
                    Some(ControlMessage { message: None }) => None,
                    None => return Err(Ended::Stream("it closed it".into())),
                },
                _ = status.tick() => Some(node_message::Message::Status(self.world.telemetry().node().status())),
                _ = tidy.tick() => {
                    self.world.tidy().await?;
                    None
                }
                _ = renewal.tick() => match self.renew_if_due(&identity, &channel).await? {
                    true => return Err(Ended::Renewed),
                    false => None,
                },
                order = next(orders) => {
                    self.obey(order, orders).await;
                    None
                }
            };
            if let Some(message) = answer {
                if matches!(message, node_message::Message::Ack(_)) && !self.configured {
                    self.configured = true;
                    configured();
                }
                let sent = outbound
                    .send(NodeMessage {
                        message: Some(message),
                    })
                    .await;
                sent.map_err(|_| Ended::Stream("it takes no messages".into()))?;
            }
        }
    }

    /// Does what the node asks for. Told to freeze, it returns when it is told to go on.
    async fn obey(&mut self, order: Order, orders: &mut Orders) {
        match order {
            Order::Freeze(answer) => {
                // Whoever asked may have given up since: then nobody would ever lift it.
                if answer.send(self.world.release()).is_ok() {
                    self.frozen(orders).await;
                } else {
                    self.world.reopen().await;
                }
            }
            Order::Levels(most, answer) => drop(answer.send(self.world.levels(most))),
            Order::Restore(levels, answer) => {
                self.world.restore(levels);
                let _ = answer.send(());
            }
            Order::Thaw(answer) => drop(answer.send(())),
        }
    }

    /// Takes orders and nothing else, until one says to go on.
    async fn frozen(&mut self, orders: &mut Orders) {
        loop {
            match next(orders).await {
                Order::Freeze(answer) => drop(answer.send(self.world.release())),
                Order::Levels(most, answer) => drop(answer.send(self.world.levels(most))),
                Order::Restore(levels, answer) => {
                    self.world.restore(levels);
                    let _ = answer.send(());
                }
                Order::Thaw(answer) => {
                    self.world.reopen().await;
                    let _ = answer.send(());
                    return;
                }
            }
        }
    }

    async fn hear(
        &mut self,
        message: control_message::Message,
        outbound: &mpsc::Sender<NodeMessage>,
        commands: &Arc<Semaphore>,
    ) -> Result<Option<node_message::Message>, Ended> {
        use control_message::Message;
        match message {
            Message::Delta(delta) => {
                let ack = self.world.take(delta).await?;
                Ok(ack.map(node_message::Message::Ack))
            }
            Message::Probe(probe) => {
                let place = commands.clone().try_acquire_owned().ok();
                // Not even built where there is no place to run it.
                let stage = match (&place, &probe.ephemeral) {
                    (Some(_), Some(bundle)) => self.world.build_ephemeral(bundle).map(Some),
                    _ => Ok(None),
                };
                let stage = match stage {
                    Ok(stage) => stage,
                    Err(error) => {
                        return Ok(Some(node_message::Message::ProbeResult(config::ProbeResult {
                            id: probe.id,
                            error,
                            ..Default::default()
                        })));
                    }
                };
                tokio::spawn(run_probe(
                    self.world.shards().clone(),
                    probe,
                    stage,
                    place,
                    outbound.clone(),
                ));
                Ok(None)
            }
            Message::Flush(flush) => {
                let place = commands.clone().try_acquire_owned().ok();
                tokio::spawn(run_flush(
                    self.world.shards().clone(),
                    flush,
                    place,
                    outbound.clone(),
                ));
                Ok(None)
            }
            Message::TicketKeys(keys) => {
                self.world.take_ticket_keys(keys);
                Ok(None)
            }
            // Usage is not reported yet, so nothing waits for this.
            Message::UsageAck(_) => Ok(None),
        }
    }

    /// Connects as the node that this is; joins first where it has not, or where it was turned away and has a join file
    /// that it has not used yet.
    async fn connect(&mut self) -> Result<(Identity, Channel), Ended> {
        let directory = self.options.directory.clone();
        let turned_away = std::mem::take(&mut self.turned_away);
        let file = match &self.options.join_file {
            Some(path) => JoinFile::read(path).map(Some),
            None => Ok(None),
        };
        let identity = match (Identity::load(&directory)?, file) {
            (None, file) => {
                let file = file?.ok_or(IdentityError::NotJoined)?;
                Identity::join(&directory, &file, &self.options.name).await?
            }
            (Some(identity), Ok(Some(file))) if turned_away && !identity.joined_by(&file) => {
                Identity::join(&directory, &file, &self.options.name).await?
            }
            (Some(identity), _) => identity,
        };
        // Unset again when a stream opens.
        self.turned_away = true;
        let address = self.address(&identity);
        self.next_address = self.next_address.wrapping_add(1);
        let channel = identity.connect(&address).await?;
        Ok((identity, channel))
    }

    fn address(&self, identity: &Identity) -> String {
        match self.options.control.len() {
            0 => identity.control.clone(),
            count => self.options.control[self.next_address % count].clone(),
        }
    }

    async fn renew_if_due(&mut self, identity: &Identity, channel: &Channel) -> Result<bool, Ended> {
        let recently = self.renewed.is_some_and(|at| at.elapsed() < RENEWAL);
        if recently || !identity.renewal_due(SystemTime::now()) {
            return Ok(false);
        }
        match identity.renew(&self.options.directory, channel.clone()).await {
            Ok(_) => {
                tracing::info!("the node's certificate was renewed");
                self.renewed = Some(Instant::now());
                Ok(true)
            }
            // It is good for a while yet.
            Err(error) => {
                tracing::warn!(%error, "the node's certificate cannot be renewed; it is tried again in an hour");
                Ok(false)
            }
        }
    }

    fn hello(&self, identity: &Identity) -> Hello {
        let node = self.world.telemetry().node();
        let lkg = self.world.lkg();
        let address = |address: Option<SocketAddr>| address.map(|one| one.to_string()).unwrap_or_default();
        Hello {
            node_id: identity.node_id.clone(),
            boot_id: node.info().boot_id.clone(),
            formats: FORMATS.to_vec(),
            revision: lkg.revision(),
            installation_id: lkg.installation().to_owned(),
            version: node.info().version.clone(),
            driver: node.info().driver.clone(),
            shards: u32::try_from(self.world.shards().shards()).unwrap_or(u32::MAX),
            labels: self.options.labels.clone(),
            http_address: address(self.options.http),
            https_address: address(self.options.https),
            node_name: self.options.name.clone(),
            missing: self.world.refused(),
        }
    }
}

/// The next order; none comes when nobody is left to give one.
async fn next(orders: &mut Orders) -> Order {
    match orders.recv().await {
        Some(order) => order,
        None => std::future::pending().await,
    }
}

/// Has a shard run a probe and sends what came of it.
async fn run_probe(
    shards: Arc<dyn ShardSink>,
    probe: config::Probe,
    stage: Option<Arc<Stage>>,
    place: Option<OwnedSemaphorePermit>,
    outbound: mpsc::Sender<NodeMessage>,
) {
    let id = probe.id.clone();
    let (reply, answer) = oneshot::channel();
    let call = ConfigMessage::Probe(ProbeCall {
        probe: Box::new(probe),
        stage,
        reply,
    });
    let result = match ask(&*shards, call, place, answer).await {
        Ok(result) => config::ProbeResult { id, ..result },
        Err(error) => config::ProbeResult {
            id,
            error: error.to_owned(),
            ..Default::default()
        },
    };
    let _ = outbound
        .send(NodeMessage {
            message: Some(node_message::Message::ProbeResult(result)),
        })
        .await;
}

/// Has the shards empty a cache and sends what came of it.
async fn run_flush(
    shards: Arc<dyn ShardSink>,
    flush: config::Flush,
    place: Option<OwnedSemaphorePermit>,
    outbound: mpsc::Sender<NodeMessage>,
) {
    let id = flush.id.clone();
    let (reply, answer) = oneshot::channel();
    let call = ConfigMessage::Flush(FlushCall {
        flush: Box::new(flush),
        reply,
    });
    let result = match ask(&*shards, call, place, answer).await {
        Ok(result) => config::FlushResult { id, ..result },
        Err(error) => config::FlushResult {
            id,
            error: error.to_owned(),
            ..Default::default()
        },
    };
    let _ = outbound
        .send(NodeMessage {
            message: Some(node_message::Message::FlushResult(result)),
        })
        .await;
}

async fn ask<T>(
    shards: &dyn ShardSink,
    call: ConfigMessage,
    place: Option<OwnedSemaphorePermit>,
    answer: oneshot::Receiver<T>,
) -> Result<T, &'static str> {
    let _place = place.ok_or("too many commands run at a time; try again")?;
    shards.send(0, call).map_err(|error| match error {
        SendError::Full(_) => "the shard is busy; try again",
        SendError::Gone => "the node is going down",
    })?;
    match timeout(COMMAND, answer).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err("this node cannot run such a command"),
        Err(_) => Err("the shard did not answer in time"),
    }
}

fn stream_error(status: tonic::Status) -> Ended {
    Ended::Stream(status.message().to_owned())
}

/// Between half of a pause and the whole, so that 10,000 nodes do not come at once.
fn jitter(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without a random number the whole pause is as good.
    let _ = rand::fill(&mut byte);
    pause - pause / 2 * u32::from(byte[0]) / 255
}
