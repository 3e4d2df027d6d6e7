//! TLS towards clients: one configuration a shard, replaced when certificates change.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, ProducesTickets};

use super::Certificates;
use crate::config::Certificate;

/// What a shard accepts TLS connections with. A change of certificates replaces the configuration; connections that
/// are open keep theirs, so none is dropped.
#[derive(Debug)]
pub struct ServerTls {
    certificates: RefCell<BTreeMap<Arc<str>, Arc<Certificate>>>,
    current: RefCell<Option<Rc<Current>>>,
    tickets: Option<Arc<dyn ProducesTickets>>,
}

/// The configuration of this moment.
#[derive(Debug)]
pub struct Current {
    /// For new connections.
    pub config: Arc<ServerConfig>,
    /// Which names lead to which certificate.
    pub certificates: Arc<Certificates>,
}

impl ServerTls {
    /// No certificates yet: every handshake is refused. `tickets` are the node's, so that a session resumes on
    /// whichever shard it lands.
    pub fn new(tickets: Option<Arc<dyn ProducesTickets>>) -> Self {
        Self {
            certificates: RefCell::default(),
            current: RefCell::new(None),
            tickets,
        }
    }

    /// Takes a certificate in, in place of the one with its id. To be followed by [`Self::rebuild`].
    pub fn put(&self, certificate: &Arc<Certificate>) {
        self.certificates
            .borrow_mut()
            .insert(certificate.id.clone(), Arc::clone(certificate));
    }

    /// Forgets a certificate. To be followed by [`Self::rebuild`].
    pub fn remove(&self, id: &str) {
        self.certificates.borrow_mut().remove(id);
    }

    /// Makes what was put and removed effective for new connections.
    pub fn rebuild(&self) {
        let table = Arc::new(Certificates::new(self.certificates.borrow().values()));
        let current = if table.is_empty() {
            None
        } else {
            match config(Arc::clone(&table), self.tickets.clone()) {
                Ok(config) => Some(Rc::new(Current {
                    config,
                    certificates: table,
                })),
                Err(error) => {
                    tracing::error!(%error, "the TLS configuration cannot be built; the previous one goes on");
                    return;
                }
            }
        };
        *self.current.borrow_mut() = current;
    }

    /// The configuration for a new connection, if there is a certificate.
    pub fn current(&self) -> Option<Rc<Current>> {
        self.current.borrow().clone()
    }
}

/// HTTP/2 over TLS, as ALPN names it (RFC 9113 section 3.2).
pub const HTTP2: &[u8] = b"h2";

/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, no client certificates.
pub(super) fn config(
    certificates: Arc<Certificates>,
    tickets: Option<Arc<dyn ProducesTickets>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.ignore_client_order = true;
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    // Sessions live in tickets: a store would be a lock and memory a client can fill.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match tickets {
        Some(tickets) => config.ticketer = tickets,
        None => config.send_tls13_tickets = 0,
    }
    Ok(Arc::new(config))
}
