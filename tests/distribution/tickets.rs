//! D18: sessions of TLS clients are taken up on every node of the installation.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName},
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};

use tidegate_controlplane::service::Fleet;

use crate::{
    SOON,
    fixture::{Installation, News, Node, NodeDirectory},
    relay::Relay,
};

const NAME: &str = "api.example";

/// A client with its sessions, and the certificate that every node shows.
struct Client {
    config: Arc<ClientConfig>,
    server: ServerConfig,
}

impl Client {
    fn new(version: &'static rustls::SupportedProtocolVersion) -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let chain = vec![made.cert.der().clone()];
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Self {
            config: Arc::new(config),
            server,
        }
    }

    /// A connection to a node: whether it took up a session. The client gets tickets of that node.
    fn connect(&self, node: &Node) -> HandshakeKind {
        let mut config = self.server.clone();
        config.ticketer = node.tickets.clone();
        let mut server = ServerConnection::new(Arc::new(config)).unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let mut client = ClientConnection::new(self.config.clone(), name).unwrap();
        loop {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut sent = wire.as_slice();
            while !sent.is_empty() {
                server.read_tls(&mut sent).unwrap();
                server.process_new_packets().unwrap();
            }
            let mut answer = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answer).unwrap();
            }
            let mut sent = answer.as_slice();
            while !sent.is_empty() {
                client.read_tls(&mut sent).unwrap();
                client.process_new_packets().unwrap();
            }
            if wire.is_empty() && answer.is_empty() {
                assert!(!client.is_handshaking() && !server.is_handshaking());
                let kind = client.handshake_kind().unwrap();
                assert_eq!(server.handshake_kind(), Some(kind));
                return kind;
            }
        }
    }
}

async fn node(directory: &NodeDirectory) -> Node {
    let mut node = directory.start(1);
    assert_eq!(node.news().await, News::Configured);
    node
}

/// When every node has what there is, keys included.
async fn settled(installation: &Installation) {
    let revision = installation.publish("a", Some("one")).await;
    assert!(installation.distributor.wait(revision, SOON).await.complete);
}

/// A client that spoke to one node takes its session up on another, and on one that has restarted, whether its control
/// plane is there or not.
#[tokio::test]
async fn a_session_is_taken_up_on_every_node() {
    let mut installation = Installation::start().await;
    installation.publish("a", Some("one")).await;
    let first = NodeDirectory::new(&installation, "edge-1").await;
    let second = NodeDirectory::new(&installation, "edge-2").await;
    let (one, two) = (node(&first).await, node(&second).await);
    settled(&installation).await;
    let clients = [&TLS12, &TLS13].map(Client::new);
    for client in &clients {
        assert_eq!(client.connect(&one), HandshakeKind::Full);
        assert_eq!(client.connect(&two), HandshakeKind::Resumed);
        assert_eq!(client.connect(&one), HandshakeKind::Resumed);
    }
    drop(two);
    installation.stop().await;
    for client in &clients {
        assert_eq!(client.connect(&one), HandshakeKind::Resumed);
    }
    let two = node(&second).await;
    for client in &clients {
        assert_eq!(client.connect(&two), HandshakeKind::Resumed);
    }
    // The next life of the control plane goes on with the same keys.
    installation.restart().await;
    drop((one, two));
    let one = node(&first).await;
    settled(&installation).await;
    for client in &clients {
        assert_eq!(client.connect(&one), HandshakeKind::Resumed);
    }
    // The node's files can be copied without them.
    for secret in secrets(&one) {
        for directory in [&first.node, &second.node, installation.directory()] {
            assert!(!holds(directory, &secret), "{}", directory.display());
        }
    }
}

/// A client's ticket outlives the key's turn by one, and no more: then no node has the key.
#[tokio::test]
async fn a_ticket_outlives_one_turn_of_the_keys() {
    let installation = Installation::start().await;
    installation.publish("a", Some("one")).await;
    let first = NodeDirectory::new(&installation, "edge-1").await;
    let second = NodeDirectory::new(&installation, "edge-2").await;
    let (one, two) = (node(&first).await, node(&second).await);
    settled(&installation).await;
    let (held, dropped) = (Client::new(&TLS13), Client::new(&TLS13));
    assert_eq!(held.connect(&one), HandshakeKind::Full);
    assert_eq!(dropped.connect(&one), HandshakeKind::Full);
    let before = secrets(&one);
    assert_eq!(before.len(), 2, "current and next");

    installation.distributor.turn_ticket_keys().await.unwrap();
    settled(&installation).await;
    assert_eq!(held.connect(&two), HandshakeKind::Resumed);
    for node in [&one, &two] {
        assert_eq!(
            secrets(node)[..2],
            before[..],
            "previous and current; another is next"
        );
        assert_eq!(secrets(node).len(), 3);
    }

    installation.distributor.turn_ticket_keys().await.unwrap();
    settled(&installation).await;
    for node in [&one, &two] {
        assert!(!secrets(node).contains(&before[0]));
    }
    assert_eq!(
        dropped.connect(&two),
        HandshakeKind::Full,
        "its ticket was two turns old"
    );
    assert_eq!(
        held.connect(&one),
        HandshakeKind::Resumed,
        "it got a new one in between"
    );
}

/// A node that cannot read the keys, or is given none, goes on with its own; so does the rest of its stream.
#[tokio::test]
async fn without_the_installations_keys_a_node_has_its_own() {
    let installation = Installation::start().await;
    installation.publish("a", Some("one")).await;
    let directory = NodeDirectory::new(&installation, "edge-1").await;
    let relay = Relay::start(&installation, &directory).await;
    let mut alone = directory.start_through(&relay.address());
    assert_eq!(alone.news().await, News::Configured);
    settled(&installation).await;
    installation.distributor.turn_ticket_keys().await.unwrap();
    settled(&installation).await;
    assert_eq!(relay.unknown_keys(), 2);
    assert_eq!(alone.served(), ["a=one"]);
    assert!(!alone.tickets.has_shared());
    let client = Client::new(&TLS13);
    assert_eq!(client.connect(&alone), HandshakeKind::Full);
    assert_eq!(client.connect(&alone), HandshakeKind::Resumed);
}

/// What a node was given.
fn secrets(node: &Node) -> Vec<[u8; 32]> {
    let mut keys = node.tickets.save();
    keys.retain(|key| key.shared);
    keys.sort_by_key(|key| key.seals_from);
    keys.iter().map(|key| key.secret).collect()
}

/// Whether a secret lies in a file of the directory as it is, or written in numbers.
fn holds(directory: &Path, secret: &[u8]) -> bool {
    let numbers = secret[..8]
        .iter()
        .map(u8::to_string)
        .collect::<Vec<_>>()
        .join(",");
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let holds = |pattern: &[u8]| bytes.windows(pattern.len()).any(|window| window == pattern);
        holds(&secret[..8]) || holds(numbers.as_bytes())
    })
}
