//! The Admin API's address: plain on loopback, TLS anywhere else.

use std::{net::SocketAddr, time::Duration};

use tidegate_proto::admin::v1::admin_service_server::AdminServiceServer;
use tokio::net::TcpListener;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use super::{AdminFace, accept, gate::Gate};
use crate::model::Refusal;

/// Largest message that is taken; documents come in chunks.
const MAX_MESSAGE: usize = 16 << 20;
/// Calls that one connection may have under way.
const CONCURRENCY: u32 = 64;
/// Pings that notice a client which vanished without a word, or takes nothing any more.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How the Admin API is reached.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// Where; port 0 picks a free one.
    pub address: SocketAddr,
    /// A certificate chain and its key, in PEM form; needed anywhere but on loopback.
    pub identity: Option<(String, String)>,
}

/// A bound Admin API that does not answer yet.
pub struct AdminListener {
    listener: TcpListener,
    identity: Option<(String, String)>,
}

impl AdminListener {
    /// Binds the address; refuses one that others can reach without TLS.
    pub async fn bind(options: AdminOptions) -> Result<Self, Refusal> {
        let AdminOptions { address, identity } = options;
        if !address.ip().is_loopback() && identity.is_none() {
            return Err(Refusal::bad_request(format!(
                "The Admin API does not listen on {address} without TLS: tokens would travel in the clear. Listen on \
                 127.0.0.1, or give it a certificate"
            )));
        }
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Refusal::internal(format!("The Admin API cannot listen on {address}: {error}"))
        })?;
        Ok(Self {
            listener,
            identity: identity.filter(|_| !address.ip().is_loopback()),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> Result<SocketAddr, Refusal> {
        self.listener.local_addr().map_err(Refusal::internal)
    }

    /// Answers until `stop`, then finishes the calls under way.
    pub async fn serve(self, face: AdminFace, stop: impl Future<Output = ()> + Send) -> Result<(), Refusal> {
        let (service, places) = (face.service.clone(), face.options.connections);
        let calls = AdminServiceServer::new(face)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let mut server = Server::builder()
            .concurrency_limit_per_connection(CONCURRENCY as usize)
            .max_concurrent_streams(CONCURRENCY)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE));
        if let Some((chain, key)) = self.identity {
            let tls = ServerTlsConfig::new().identity(Identity::from_pem(chain, key));
            server = server.tls_config(tls).map_err(Refusal::internal)?;
        }
        server
            .add_service(Gate::new(calls, service))
            .serve_with_incoming_shutdown(accept::accept(self.listener, places), stop)
            .await
            .map_err(Refusal::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Admin API is not opened to others in the clear, and says what to do.
    #[tokio::test]
    async fn no_plain_text_beyond_loopback() {
        let address = "0.0.0.0:0".parse().expect("address");
        let refused = AdminListener::bind(AdminOptions {
            address,
            identity: None,
        })
        .await;
        assert!(refused.err().expect("refused").message.contains("without TLS"));
    }
}
