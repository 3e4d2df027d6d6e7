//! Server certificates, chosen by the server name that the client asks for.

use std::collections::HashMap;
use std::sync::{Arc, Once};

use rustls::SignatureAlgorithm;
use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use smallvec::SmallVec;

use super::{client, server};
use crate::config::Certificate;

/// The certificates of a listener. Immutable: a change builds a new one, and open connections keep theirs.
#[derive(Debug, Default)]
pub struct Certificates {
    by_name: HashMap<Box<str>, Kinds>,
    default: Kinds,
}

/// The certificates of one name, one a kind of key. ECDSA and Ed25519 come before RSA, whose signatures cost a server ten
/// times as much.
#[derive(Debug, Default)]
struct Kinds(SmallVec<[Arc<Certificate>; 2]>);

impl Certificates {
    /// A table over these certificates. Of two with one name and one kind of key the later wins.
    pub fn new<'a>(certificates: impl IntoIterator<Item = &'a Arc<Certificate>>) -> Self {
        let mut table = Self::default();
        for certificate in certificates {
            if certificate.names.is_empty() {
                table.default.put(certificate);
            }
            for name in &certificate.names {
                table
                    .by_name
                    .entry(name.to_ascii_lowercase().into())
                    .or_default()
                    .put(certificate);
            }
        }
        table
    }

    /// Whether there is nothing to serve.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.default.0.is_empty()
    }

    /// The certificates for a server name, the preferred first: those of the exact name, then of the wildcard of its
    /// parent, then the default ones.
    pub fn find(&self, name: Option<&str>) -> &[Arc<Certificate>] {
        let default = match self.default.0.is_empty() {
            // RFC 6066 section 3: who names nobody is shown something.
            true if name.is_none() => self.by_name.values().next().unwrap_or(&self.default),
            _ => &self.default,
        };
        let Some(name) = name else { return &default.0 };
        let lower;
        let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            lower.as_str()
        } else {
            name
        };
        if let Some(found) = self.by_name.get(name) {
            return &found.0;
        }
        if let Some((_, parent)) = name.split_once('.') {
            // One label only, as RFC 6125 has it; the allocation is a handshake's, not a request's.
            if let Some(found) = self.by_name.get(format!("*.{parent}").as_str()) {
                return &found.0;
            }
        }
        &default.0
    }

    /// Whether a connection made for `server_name` may carry requests for `authority` (decision D18): whichever
    /// certificate was shown for the one must be shown for the other.
    pub fn covers(&self, server_name: &str, authority: &str) -> bool {
        if server_name.eq_ignore_ascii_case(authority) {
            return true;
        }
        let (shown, asked) = (self.find(Some(server_name)), self.find(Some(authority)));
        !shown.is_empty()
            && shown
                .iter()
                .all(|one| asked.iter().any(|other| Arc::ptr_eq(one, other)))
    }
}

impl Kinds {
    fn put(&mut self, certificate: &Arc<Certificate>) {
        let algorithm = certificate.algorithm();
        self.0.retain(|known| known.algorithm() != algorithm);
        self.0.push(Arc::clone(certificate));
        self.0
            .sort_by_key(|known| known.algorithm() == SignatureAlgorithm::RSA);
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.find(hello.server_name());
        // The library has left out what does not go with the version and the cipher suites. Where nothing fits, any
        // certificate makes it tell the client so.
        let chosen = candidates
            .iter()
            .find(|certificate| certificate.suits(hello.signature_schemes()))
            .or_else(|| candidates.first())?;
        Some(Arc::clone(chosen.shown(UnixTime::now().as_secs())))
    }
}

/// Runs one handshake in memory, once a process and kind of key: the library's first takes tens of milliseconds, which
/// are better spent here than on a shard.
pub fn warm_up(certificate: &Certificate) {
    static RSA: Once = Once::new();
    static OTHER: Once = Once::new();
    let once = match certificate.algorithm() {
        SignatureAlgorithm::RSA => &RSA,
        _ => &OTHER,
    };
    once.call_once(|| {
        let key = Arc::clone(certificate.shown(u64::MAX));
        let certificate = Arc::new(Certificate::new(certificate.id.clone(), Vec::new(), key));
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
