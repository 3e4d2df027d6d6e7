//! The configuration address: joins, renewals, and the nodes' streams.

use std::time::Duration;

use tidegate_proto::config::v1::{
    self as config, BundleKind, ControlMessage, JoinResponse, NodeMessage,
    config_service_server::{ConfigService, ConfigServiceServer},
    join_service_server::{JoinService, JoinServiceServer},
    node_message,
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{
    Distributor, FORMATS,
    ca::node_of,
    feed::Reader,
    join::{self, Joined},
    listen, remember,
    session::{OUTBOUND, Session},
    source::BundleKey,
};
use crate::model::{Code, Refusal};

/// How long a node may take for its first word.
const HELLO: Duration = Duration::from_secs(10);
/// Pings that notice a node which vanished without a word.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The largest message of a node: the response of a probe.
const MESSAGE_MAX: usize = 16 * 1024 * 1024;
/// Streams of one connection: the configuration stream and a renewal.
const STREAMS_MAX: u32 = 8;
/// How long the streams may take to end.
const DRAIN: Duration = Duration::from_secs(5);
/// How often the default certificate's age is looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(3_600);

/// Serves the configuration address until `stop` resolves.
pub(super) async fn serve(
    distributor: Distributor,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Refusal> {
    let mut names = distributor.shared.options.server_names.clone();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    let tls = distributor.shared.authority.server_config(names)?;
    let (connections, accepting) = listen::accept(listener, tls);
    let mut stopping = distributor.shared.stopping.subscribe();
    let stopped = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(ConfigServiceServer::new(distributor.clone()).max_decoding_message_size(MESSAGE_MAX))
        .add_service(JoinServiceServer::new(distributor.clone()))
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stopped);
    let certificates = async {
        loop {
            tokio::time::sleep(CERTIFICATE_CHECK).await;
            if let Err(error) = distributor.keep_certificate_current().await {
                tracing::error!(
                    error = error.message,
                    "cannot renew the default HTTPS certificate"
                );
            }
        }
    };
    let (registry, store) = (&distributor.shared.registry, &*distributor.shared.store);
    let mut server = std::pin::pin!(server);
    let ended = |ended: Result<(), tonic::transport::Error>| {
        ended.map_err(|error| Refusal::internal(format!("the configuration address: {error}")))
    };
    tokio::select! {
        () = stop => {}
        outcome = &mut server => return ended(outcome),
        () = certificates => {}
        () = remember::keep(registry, store) => {}
        () = distributor.shared.tickets.keep(store) => {}
    }
    // Now, as they stand: that they lose their streams next is our doing, and they will be back.
    remember::keep_now(registry, store).await;
    // Streams last for ever: they are ended, the nodes come back to whoever serves next.
    distributor.shared.stopping.send_replace(true);
    let outcome = timeout(DRAIN, &mut server).await;
    accepting.abort();
    // Aborted or ended: the address is free when it is done.
    let _ = accepting.await;
    outcome.map_or(Ok(()), ended)
}

#[tonic::async_trait]
impl ConfigService for Distributor {
    type StreamStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let node_id = self.node(&request)?;
        let mut inbound = request.into_inner();
        let first = timeout(HELLO, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("a node says Hello first"))??;
        let Some(NodeMessage {
            message: Some(node_message::Message::Hello(mut hello)),
        }) = first
        else {
            return Err(Status::invalid_argument("a node says Hello first"));
        };
        let Some(format) = FORMATS.into_iter().find(|format| hello.formats.contains(format)) else {
            return Err(Status::failed_precondition(format!(
                "this control plane compiles bundle formats {FORMATS:?}, the node reads {:?}: upgrade the older of the two",
                hello.formats
            )));
        };
        let store = &self.shared.store;
        // The certificate says who it is, whatever the message does.
        hello.node_id.clone_from(&node_id);
        let foreign = hello.installation_id != store.installation();
        // From the future: the store was restored from a backup, and what came after it is not ours.
        if foreign || hello.revision > *store.revisions().borrow() {
            hello.revision = 0;
            hello.missing.clear();
        }
        let missing = hello.missing.iter().filter_map(key_of).collect();
        // A secret goes to who needs it.
        let tickets = (!hello.https_address.is_empty()).then(|| self.shared.tickets.follow());
        let (from, reader) = (
            hello.revision,
            Reader {
                labels: hello.labels.clone(),
                format,
            },
        );
        tracing::info!(
            node = node_id,
            name = hello.node_name,
            revision = from,
            "a node connects"
        );
        let (connection, commands) = self.shared.registry.connect(&node_id, hello).ok_or_else(|| {
            Status::permission_denied("this node was removed; join it anew: tidegate node token")
        })?;
        let (outbound, receiver) = mpsc::channel(OUTBOUND);
        let session = Session {
            store: store.clone(),
            bundles: self.shared.bundles.clone(),
            reader,
            connection,
            commands,
            outbound,
            tickets,
            stopping: self.shared.stopping.subscribe(),
        };
        tokio::spawn(session.run(inbound, from, missing));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl JoinService for Distributor {
    async fn join(&self, request: Request<config::JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        let shared = &self.shared;
        let joined = join::join(
            &*shared.store,
            &shared.authority,
            &request.token,
            &request.node_name,
            &request.certificate_request_der,
            shared.options.node_lifetime,
        )
        .await
        .map_err(status)?;
        tracing::info!(node = joined.node.id, name = joined.node.name, "a node joins");
        Ok(Response::new(self.admit(joined)))
    }

    async fn renew(&self, request: Request<config::RenewRequest>) -> Result<Response<JoinResponse>, Status> {
        let node_id = self.node(&request)?;
        let shared = &self.shared;
        let key = request.into_inner().certificate_request_der;
        let joined = join::certify(
            &*shared.store,
            &shared.authority,
            &node_id,
            &key,
            shared.options.node_lifetime,
        )
        .await
        .map_err(status)?;
        tracing::info!(node = node_id, "a node renews its certificate");
        Ok(Response::new(self.admit(joined)))
    }
}

impl Distributor {
    /// The node that the connection's certificate names; TLS has checked that the certificate is one of ours.
    fn node<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let certificates = request.peer_certs();
        let certificate = certificates.as_ref().and_then(|chain| chain.first());
        let node_id = certificate.and_then(node_of).ok_or_else(|| {
            Status::unauthenticated("a node's certificate is needed; join first: tidegate node token")
        })?;
        if !self.shared.registry.knows(&node_id) {
            return Err(Status::permission_denied(
                "this node was removed; join it anew: tidegate node token",
            ));
        }
        Ok(node_id)
    }

    fn admit(&self, joined: Joined) -> JoinResponse {
        let seconds = |time: std::time::SystemTime| {
            time.duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs() as i64)
        };
        let response = JoinResponse {
            node_id: joined.node.id.clone(),
            certificate_chain_pem: joined.certificate.pem.into_bytes(),
            authority_pem: self.shared.authority.pem().as_bytes().to_vec(),
            not_before: seconds(joined.certificate.not_before),
            not_after: seconds(joined.certificate.not_after),
        };
        self.shared.registry.admit(joined.node);
        response
    }
}

fn key_of(outcome: &config::BundleOutcome) -> Option<BundleKey> {
    let kind = BundleKind::try_from(outcome.kind).ok()?;
    Some(BundleKey {
        kind,
        id: outcome.id.clone(),
    })
}

fn status(refusal: Refusal) -> Status {
    let code = match refusal.code {
        Code::BadRequest | Code::Validation => tonic::Code::InvalidArgument,
        Code::Unauthorized => tonic::Code::Unauthenticated,
        Code::AccessDenied => tonic::Code::PermissionDenied,
        Code::NotFound => tonic::Code::NotFound,
        Code::Conflict => tonic::Code::AlreadyExists,
        Code::LimitExceeded | Code::TooManyRequests => tonic::Code::ResourceExhausted,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::Internal => tonic::Code::Internal,
    };
    Status::new(code, refusal.message)
}
