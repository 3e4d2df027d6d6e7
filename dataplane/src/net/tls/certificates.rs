//! Server certificates, chosen by the server name that the client asks for.

use std::collections::HashMap;
use std::sync::{Arc, Once};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{client, server};
use crate::config::Certificate;

/// The certificates of a listener. Immutable: a change builds a new one, and open connections keep theirs.
#[derive(Debug, Default)]
pub struct Certificates {
    by_name: HashMap<Box<str>, Arc<Certificate>>,
    default: Option<Arc<Certificate>>,
}

impl Certificates {
    /// A table over these certificates. Of two with one name the later wins.
    pub fn new<'a>(certificates: impl IntoIterator<Item = &'a Arc<Certificate>>) -> Self {
        let mut table = Self::default();
        for certificate in certificates {
            if certificate.names.is_empty() {
                table.default = Some(Arc::clone(certificate));
            }
            for name in &certificate.names {
                table
                    .by_name
                    .insert(name.to_ascii_lowercase().into(), Arc::clone(certificate));
            }
        }
        table
    }

    /// Whether there is nothing to serve.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.default.is_none()
    }

    /// The certificate for a server name: the exact name, then the wildcard of its parent, then the default.
    pub fn find(&self, name: Option<&str>) -> Option<&Arc<Certificate>> {
        let Some(name) = name else {
            return self.default.as_ref().or_else(|| self.by_name.values().next());
        };
        let lower;
        let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            lower.as_str()
        } else {
            name
        };
        if let Some(found) = self.by_name.get(name) {
            return Some(found);
        }
        if let Some((_, parent)) = name.split_once('.') {
            // One label only, as RFC 6125 has it; the allocation is a handshake's, not a request's.
            if let Some(found) = self.by_name.get(format!("*.{parent}").as_str()) {
                return Some(found);
            }
        }
        self.default.as_ref()
    }

    /// Whether a connection made for `server_name` may carry requests for `authority` (decision D18): both must lead
    /// to one certificate.
    pub fn covers(&self, server_name: &str, authority: &str) -> bool {
        server_name.eq_ignore_ascii_case(authority)
            || match (self.find(Some(server_name)), self.find(Some(authority))) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                _ => false,
            }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
            .map(|certificate| Arc::clone(&certificate.key))
    }
}

/// Runs one handshake in memory, once a process: the library's first takes tens of milliseconds, which are better
/// spent here than on a shard.
pub fn warm_up(certificate: &Certificate) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let certificate = Arc::new(Certificate {
            id: certificate.id.clone(),
            names: Vec::new(),
            key: Arc::clone(&certificate.key),
        });
        if let Err(error) = handshake_in_memory(Arc::new(Certificates::new([&certificate]))) {
            tracing::debug!(%error, "the TLS library's first handshake failed");
        }
    });
}

fn handshake_in_memory(certificates: Arc<Certificates>) -> Result<(), Box<dyn std::error::Error>> {
    let mut server = rustls::ServerConnection::new(server::config(certificates, None)?)?;
    let mut client = rustls::ClientConnection::new(client::unverified()?, "warm-up.invalid".try_into()?)?;
    let mut wire = Vec::with_capacity(4096);
    while client.is_handshaking() || server.is_handshaking() {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire)?;
        }
        let mut sent = wire.as_slice();
        while !sent.is_empty() {
            server.read_tls(&mut sent)?;
            server.process_new_packets()?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire)?;
        }
        if wire.is_empty() {
            break;
        }
        let mut sent = wire.as_slice();
        while !sent.is_empty() {
            client.read_tls(&mut sent)?;
            client.process_new_packets()?;
        }
    }
    Ok(())
}
