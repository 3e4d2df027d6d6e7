//! TLS towards upstreams.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use tidegate_plan::Target;
use tidegate_plan::integration::Scheme;

/// The client configurations of the node: one that checks certificates, one that does not.
#[derive(Debug, Clone)]
pub struct ClientConfigs {
    verified: Arc<ClientConfig>,
    unverified: Arc<ClientConfig>,
}

impl ClientConfigs {
    /// Configurations that trust the system's authorities (RES-165). Reads files: for a thread that may block.
    ///
    /// # Errors
    /// When the TLS library refuses its own settings.
    pub fn load() -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a trusted certificate authority cannot be read");
        }
        let (added, ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!("no trusted certificate authorities on this system: HTTPS integrations will fail");
        }
        tracing::debug!(added, ignored, "trusted certificate authorities");
        let mut verified = ClientConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        verified.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            verified: Arc::new(verified),
            unverified: unverified()?,
        })
    }

    /// The configuration for a target; `None` for a plain one.
    pub fn of(&self, target: &Target) -> Option<&Arc<ClientConfig>> {
        match (target.scheme(), target.insecure_skip_verification()) {
            (Scheme::Http, _) => None,
            (Scheme::Https, false) => Some(&self.verified),
            (Scheme::Https, true) => Some(&self.unverified),
        }
    }
}

/// A configuration that takes any certificate.
pub(super) fn unverified() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = super::provider();
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What `insecureSkipVerification` asks for: the chain is not looked at. The handshake's signature is, so that the
/// peer at least holds the key of the certificate that it shows.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
