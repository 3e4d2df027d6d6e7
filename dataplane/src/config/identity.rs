//! Who this node is: its certificate and key, and how it comes by them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use tidegate_proto::config::v1::{
    JoinRequest, JoinResponse, RenewRequest, join_service_client::JoinServiceClient,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity};

use super::files::write_private;

/// The name that a control plane's certificate carries, whatever its address.
const CONTROL_NAME: &str = "control.tidegate.internal";
/// How long connecting may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a join or a renewal may take.
const REQUEST: Duration = Duration::from_secs(10);
/// Pings that notice a control plane which vanished without a word.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What a join file says.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub struct JoinFile {
    /// The control plane's configuration address, `10.0.0.5:7443`.
    pub control: String,
    /// The SHA-256 of the authority's certificate, hexadecimal.
    pub authority_sha256: String,
    /// The one-time token.
    pub token: String,
}

/// A node's identity, as kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Given by the control plane.
    pub node_id: String,
    /// Where the node joined; used when no other address is configured.
    pub control: String,
    /// The SHA-256 of the token that bought it, hexadecimal.
    joined_with: String,
    /// PKCS #8, PEM.
    private_key: String,
    /// The node's certificate, PEM.
    certificate: String,
    /// The authority's certificate, PEM.
    authority: String,
    /// Seconds since 1970.
    not_before: i64,
    /// Seconds since 1970.
    not_after: i64,
}

/// Why there is no identity, or no connection by it.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The join file cannot be understood.
    #[error("{path}: not a join file: {reason}. Make one: tidegate node token > FILE")]
    JoinFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is neither identity nor join file.
    #[error(
        "this node has not joined an installation yet: give it a join file (--join FILE), made by tidegate node token"
    )]
    NotJoined,
    /// The kept identity cannot be understood.
    #[error("{0}: the node's identity is damaged; remove the file and join anew")]
    Damaged(PathBuf),
    /// The address is none.
    #[error("`{0}` is not the address of a control plane, such as 10.0.0.5:7443")]
    Address(String),
    /// No connection.
    #[error("no connection to the control plane at {address}: {reason}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The control plane said no.
    #[error("the control plane at {address} refuses: {reason}")]
    Refused {
        /// Where.
        address: String,
        /// Its words.
        reason: String,
    },
    /// Key or request could not be made.
    #[error("cannot make a key: {0}")]
    Key(String),
}

// === impl JoinFile ===

impl JoinFile {
    /// Reads a join file.
    pub fn read(path: &Path) -> Result<Self, IdentityError> {
        let text = fs::read_to_string(path).map_err(|error| IdentityError::File {
            path: path.to_owned(),
            error,
        })?;
        let wrong = |reason: String| IdentityError::JoinFile {
            path: path.to_owned(),
            reason,
        };
        let file: Self = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        if file.digest().is_none() {
            return Err(wrong("authority-sha256 is not a SHA-256 in hexadecimal".into()));
        }
        Ok(file)
    }

    fn digest(&self) -> Option<[u8; 32]> {
        let text = self.authority_sha256.as_bytes();
        let mut digest = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(text.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(digest)
    }
}

// === impl Identity ===

impl Identity {
    /// The identity kept in a directory, if the node has joined.
    pub fn load(directory: &Path) -> Result<Option<Self>, IdentityError> {
        let path = directory.join(NAME);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|_| IdentityError::Damaged(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(IdentityError::File { path, error }),
        }
    }

    /// Joins: the token buys a certificate. Whoever answers must show the authority that the join file names, and must
    /// be vouched for by it.
    pub async fn join(directory: &Path, file: &JoinFile, node_name: &str) -> Result<Self, IdentityError> {
        let (private_key, request) = pending_key(directory)?;
        let digest = file
            .digest()
            .ok_or_else(|| IdentityError::Address(file.control.clone()))?;
        let verifier = Arc::new(PinnedAuthority {
            digest,
            provider: provider(),
        });
        let tls = ClientTlsConfig::new().domain_name(CONTROL_NAME);
        let channel = endpoint(&file.control)?
            .tls_config_with_verifier(tls, verifier)
            .map_err(|error| connect_error(&file.control, &error))?
            .connect()
            .await
            .map_err(|error| connect_error(&file.control, &error))?;
        let request = JoinRequest {
            token: file.token.clone(),
            node_name: node_name.to_owned(),
            certificate_request_der: request,
        };
        let mut request = tonic::Request::new(request);
        request.set_timeout(REQUEST);
        let response = JoinServiceClient::new(channel)
            .join(request)
            .await
            .map_err(|status| refused(&file.control, &status))?
            .into_inner();
        let joined_with = fingerprint(&file.token);
        let identity = Self::from_response(response, private_key, file.control.clone(), joined_with)?;
        // The same authority in the answer as in the handshake: it is what every later connection rests on.
        let authority = CertificateDer::from_pem_slice(identity.authority.as_bytes());
        let pinned = authority.is_ok_and(|certificate| sha256(&certificate) == digest);
        if !pinned {
            return Err(IdentityError::Refused {
                address: file.control.clone(),
                reason: "it answers with another authority than the join file names".into(),
            });
        }
        identity.keep(directory)?;
        let _ = fs::remove_file(directory.join(PENDING));
        Ok(identity)
    }

    /// Gets the successor of this certificate.
    pub async fn renew(&self, directory: &Path, channel: Channel) -> Result<Self, IdentityError> {
        let (private_key, request) = pending_key(directory)?;
        let mut request = tonic::Request::new(RenewRequest {
            certificate_request_der: request,
        });
        request.set_timeout(REQUEST);
        let response = JoinServiceClient::new(channel)
            .renew(request)
            .await
            .map_err(|status| refused(&self.control, &status))?
            .into_inner();
        let identity = Self::from_response(
            response,
            private_key,
            self.control.clone(),
            self.joined_with.clone(),
        )?;
        identity.keep(directory)?;
        let _ = fs::remove_file(directory.join(PENDING));
        Ok(identity)
    }

    /// Whether a third of the certificate's life has passed (C7).
    pub fn renewal_due(&self, now: SystemTime) -> bool {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() as i64);
        now >= self.not_before + (self.not_after - self.not_before) / 3
    }

    /// Whether this identity was bought with the file's token.
    pub fn joined_by(&self, file: &JoinFile) -> bool {
        self.joined_with == fingerprint(&file.token)
    }

    /// A connection to a control plane by this identity.
    pub async fn connect(&self, address: &str) -> Result<Channel, IdentityError> {
        let tls = ClientTlsConfig::new()
            .domain_name(CONTROL_NAME)
            .ca_certificate(Certificate::from_pem(&self.authority))
            .identity(TlsIdentity::from_pem(&self.certificate, &self.private_key));
        endpoint(address)?
            .tls_config(tls)
            .map_err(|error| connect_error(address, &error))?
            .connect()
            .await
            .map_err(|error| connect_error(address, &error))
    }

    fn from_response(
        response: JoinResponse,
        private_key: String,
        control: String,
        joined_with: String,
    ) -> Result<Self, IdentityError> {
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).map_err(|_| IdentityError::Refused {
                address: control.clone(),
                reason: "its answer holds no PEM".into(),
            })
        };
        Ok(Self {
            node_id: response.node_id,
            joined_with,
            private_key,
            certificate: text(response.certificate_chain_pem)?,
            authority: text(response.authority_pem)?,
            not_before: response.not_before,
            not_after: response.not_after,
            control,
        })
    }

    fn keep(&self, directory: &Path) -> Result<(), IdentityError> {
        let path = directory.join(NAME);
        let text = serde_json::to_vec_pretty(self).map_err(|error| IdentityError::Key(error.to_string()))?;
        write_private(&path, &text).map_err(|error| IdentityError::File { path, error })
    }
}

/// The key of a join or renewal under way, and the request for it. It is kept until its certificate is: the control
/// plane takes a token again for the same key, should the answer get lost.
fn pending_key(directory: &Path) -> Result<(String, Vec<u8>), IdentityError> {
    let path = directory.join(PENDING);
    let kept = fs::read_to_string(&path)
        .ok()
        .and_then(|pem| KeyPair::from_pem(&pem).ok());
    let key = match kept {
        Some(key) => key,
        None => {
            let key = KeyPair::generate().map_err(|error| IdentityError::Key(error.to_string()))?;
            fs::create_dir_all(directory)
                .and_then(|()| write_private(&path, key.serialize_pem().as_bytes()))
                .map_err(|error| IdentityError::File { path, error })?;
            key
        }
    };
    let request = CertificateParams::default()
        .serialize_request(&key)
        .map_err(|error| IdentityError::Key(error.to_string()))?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

fn endpoint(address: &str) -> Result<Endpoint, IdentityError> {
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .map_err(|_| IdentityError::Address(address.to_owned()))?;
    Ok(endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true))
}

/// An error with its causes: the first alone says nothing.
fn connect_error(address: &str, error: &dyn std::error::Error) -> IdentityError {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = inner.source();
    }
    IdentityError::Connect {
        address: address.to_owned(),
        reason,
    }
}

fn refused(address: &str, status: &tonic::Status) -> IdentityError {
    IdentityError::Refused {
        address: address.to_owned(),
        reason: status.message().to_owned(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn fingerprint(token: &str) -> String {
    sha256(token.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    digest
}

/// Trusts one authority, known by its digest, that the peer has to show along with its own certificate.
#[derive(Debug)]
struct PinnedAuthority {
    digest: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|certificate| sha256(certificate) == self.digest).ok_or_else(|| {
            rustls::Error::General(
                "it does not show the authority that the join file names: the file is of another installation, or \
                 somebody stands between"
                    .into(),
            )
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

const NAME: &str = "identity.json";
const PENDING: &str = "pending-key.pem";

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a join file is said, and how to get a right one.
    #[test]
    fn join_files_are_checked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("join");
        assert!(matches!(JoinFile::read(&path), Err(IdentityError::File { .. })));
        for (text, says) in [
            ("control = 1", "expected a string"),
            (
                "control = \"a:1\"\nauthority-sha256 = \"12\"\ntoken = \"t\"",
                "authority-sha256",
            ),
            ("<html>", "tidegate node token"),
        ] {
            fs::write(&path, text).unwrap();
            let error = JoinFile::read(&path).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let digest = "ab".repeat(32);
        fs::write(
            &path,
            format!("# x\ncontrol = \"[::1]:7443\"\nauthority-sha256 = \"{digest}\"\ntoken = \"t\"\n"),
        )
        .unwrap();
        assert_eq!(JoinFile::read(&path).unwrap().digest(), Some([0xab; 32]));
    }

    /// The key of a join survives a restart, so that the token can be used again for it.
    #[test]
    fn a_pending_key_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let first = pending_key(directory.path()).unwrap().0;
        assert_eq!(pending_key(directory.path()).unwrap().0, first);
    }

    /// C7: renewal is due after a third of the certificate's life.
    #[test]
    fn renewal_is_due_after_a_third() {
        let identity = Identity {
            node_id: String::new(),
            control: String::new(),
            joined_with: String::new(),
            private_key: String::new(),
            certificate: String::new(),
            authority: String::new(),
            not_before: 1_000,
            not_after: 1_300,
        };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!identity.renewal_due(at(1_099)));
        assert!(identity.renewal_due(at(1_100)));
    }
}
