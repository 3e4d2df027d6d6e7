//! Somebody between a node and its control plane who damages what passes. It holds a certificate of the installation's
//! authority and the node's own identity, so that TLS notices nothing.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidegate_controlplane::distribute::CONTROL_NAME;
use tidegate_dataplane::config::Identity;
use tidegate_proto::config::v1::{
    Bundle, ControlMessage, NodeMessage,
    config_service_client::ConfigServiceClient,
    config_service_server::{ConfigService, ConfigServiceServer},
    control_message::Message,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Identity as ServerIdentity, Server, ServerTlsConfig},
};

use crate::fixture::{Installation, NodeDirectory};

/// A relay of one node's configuration stream.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: AbortHandle,
}

/// The service that the node sees.
struct Between(Arc<Shared>);

struct Shared {
    control: String,
    node: PathBuf,
    damage: Mutex<Option<Damage>>,
    damaged: Mutex<Vec<String>>,
    /// Ticket keys are passed as a node's program sees them that knows of none: as an empty message.
    unknown_keys: AtomicUsize,
    /// How many streams have been opened.
    streams: watch::Sender<usize>,
    cut: watch::Sender<usize>,
}

/// Which byte to flip: the first of `text` in the content of these bundles. The hash beside it stays as it was.
struct Damage {
    bundles: Vec<String>,
    text: Vec<u8>,
}

impl Relay {
    /// Between the installation and the node in that directory, which has to join by itself.
    pub(crate) async fn start(installation: &Installation, directory: &NodeDirectory) -> Self {
        let certificate = installation
            .distributor
            .authority()
            .issue_server(&[CONTROL_NAME.to_owned()], Duration::from_secs(3_600))
            .unwrap();
        let identity = ServerIdentity::from_pem(certificate.chain_pem, certificate.private_key_pem);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            control: installation.address(),
            node: directory.node.clone(),
            damage: Mutex::default(),
            damaged: Mutex::default(),
            unknown_keys: AtomicUsize::new(0),
            streams: watch::channel(0).0,
            cut: watch::channel(0).0,
        });
        let server = Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .unwrap()
            .add_service(ConfigServiceServer::new(Between(shared.clone())))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { server.await.unwrap() }).abort_handle();
        Self {
            address,
            shared,
            server,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on flips a bit of the first of `text` in each of these bundles.
    pub(crate) fn damage(&self, bundles: &[&str], text: &str) {
        *self.shared.damage.lock().unwrap() = Some(Damage {
            bundles: bundles.iter().map(|&id| id.to_owned()).collect(),
            text: text.as_bytes().to_vec(),
        });
    }

    /// What was damaged so far. From now on nothing is.
    pub(crate) fn mend(&self) -> Vec<String> {
        *self.shared.damage.lock().unwrap() = None;
        let mut damaged = std::mem::take(&mut *self.shared.damaged.lock().unwrap());
        damaged.sort_unstable();
        damaged
    }

    /// How many messages with ticket keys have not been passed on as such: none ever is.
    pub(crate) fn unknown_keys(&self) -> usize {
        self.shared.unknown_keys.load(Ordering::Relaxed)
    }

    /// Ends the node's stream, and returns when it has opened another.
    pub(crate) async fn cut(&self) {
        let mut streams = self.shared.streams.subscribe();
        let before = *streams.borrow_and_update();
        self.shared.cut.send_modify(|cuts| *cuts += 1);
        streams.wait_for(|opened| *opened > before).await.unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn pass(&self, message: &mut ControlMessage) {
        if let Some(Message::TicketKeys(_)) = message.message {
            message.message = None;
            self.unknown_keys.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let damage = self.damage.lock().unwrap();
        let (Some(damage), Some(Message::Delta(delta))) = (&*damage, &mut message.message) else {
            return;
        };
        for bundle in &mut delta.bundles {
            if damage.bundles.contains(&bundle.id) && damage.strike(bundle) {
                self.damaged.lock().unwrap().push(bundle.id.clone());
            }
        }
    }
}

impl Damage {
    fn strike(&self, bundle: &mut Bundle) -> bool {
        let mut content = bundle.content.to_vec();
        let found = content
            .windows(self.text.len())
            .position(|window| window == self.text);
        let Some(at) = found else { return false };
        content[at] ^= 1;
        bundle.content = content.into();
        true
    }
}

#[tonic::async_trait]
impl ConfigService for Between {
    type StreamStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let shared = Arc::clone(&self.0);
        let identity = Identity::load(&shared.node).unwrap().unwrap();
        let channel = identity.connect(&shared.control).await.unwrap();
        let (upward, messages) = mpsc::channel(16);
        let mut from_node = request.into_inner();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok(Some(message)) = from_node.message().await {
                if upward.send(message).await.is_err() {
                    return;
                }
            }
        });
        let mut from_control = ConfigServiceClient::new(channel)
            .stream(ReceiverStream::new(messages))
            .await?
            .into_inner();
        let (downward, receiver) = mpsc::channel(16);
        let mut cut = shared.cut.subscribe();
        tokio::spawn(async move {
            // Goes with this task: when one direction ends, so does the other.
            let _tasks = tasks;
            loop {
                let message = tokio::select! {
                    message = from_control.message() => message,
                    _ = cut.changed() => return,
                };
                let Ok(Some(mut message)) = message else { return };
                shared.pass(&mut message);
                if downward.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        self.0.streams.send_modify(|streams| *streams += 1);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
