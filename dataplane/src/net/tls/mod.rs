//! TLS in both directions: sans-io rustls, driven by the one task that owns the socket, never split.

pub mod certificates;
pub mod client;
pub mod server;
pub mod sessions;
pub mod stream;
pub mod tickets;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};

pub use certificates::{Certificates, warm_up};
pub use client::ClientConfigs;
pub use server::ServerTls;
pub use sessions::Sessions;
pub use stream::TlsStream;
pub use tickets::{Purpose, SavedKey, Tickets};

/// The cryptography of both directions. AES-128-GCM comes first: its key schedule hashes with SHA-256, which costs a
/// fifth less CPU a handshake than SHA-384 where the processor knows SHA-256.
pub fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider {
        cipher_suites,
        ..aws_lc_rs::default_provider()
    })
}
