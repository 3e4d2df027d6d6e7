//! The installation's own certificate authority.
//!
//! It vouches for two roles and keeps them apart by their extended key usage: control planes may serve, nodes may
//! connect. Whoever speaks to a control plane checks for the name [`CONTROL_NAME`], not for an address: the authority
//! gives that name to nobody else, and addresses change.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject,
    },
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    model::{Key, Kind, Refusal, id},
    store::{Put, Read, Secret, Store, StoreError, Write, transact},
};

/// The name that a control plane's certificate carries whatever its address is.
pub const CONTROL_NAME: &str = "control.tidegate.internal";

/// How long a node's certificate lives. It is renewed when a third of that has passed (C7).
pub const NODE_LIFETIME: Duration = Duration::from_secs(90 * DAY);

const DAY: u64 = 86_400;
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(20 * 365 * DAY);
const SERVER_LIFETIME: Duration = Duration::from_secs(90 * DAY);
const HTTPS_LIFETIME: Duration = Duration::from_secs(365 * DAY);
/// Certificates begin a little in the past, for machines whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(3_600);
/// A request for a certificate holds one public key and a name.
const CSR_MAX: usize = 16 * 1024;

/// The authority: its certificate and its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCertificate {
    /// The certificate, PEM.
    pub pem: String,
    /// When it begins to hold.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

/// A certificate with its key, PEM.
pub struct KeyedCertificate {
    /// The certificate and the authority's.
    pub chain_pem: String,
    /// PKCS #8.
    pub private_key_pem: String,
    /// When it ends.
    pub not_after: SystemTime,
}

// === impl Authority ===

impl Authority {
    /// The installation's authority; made, with its key sealed in the store, when there is none yet.
    pub async fn open(store: &dyn Store) -> Result<Self, Refusal> {
        let installation = store.installation().to_owned();
        let (pem, key) = transact(store, move |tx| {
            Box::pin(async move {
                if let Some(found) = load(tx.as_read()).await? {
                    return Ok(found);
                }
                let (pem, key) = generate(&installation)?;
                keep(tx, &pem, &key).await?;
                Ok((pem, key))
            })
        })
        .await?
        .0;
        Self::from_parts(pem, &key)
    }

    fn from_parts(pem: String, key: &[u8]) -> Result<Self, Refusal> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(broken)?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key)).map_err(broken)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(broken)?;
        Ok(Self {
            certificate,
            pem,
            issuer,
        })
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The SHA-256 of its certificate in lower-case hexadecimal: what join files carry.
    pub fn digest(&self) -> String {
        hex(digest::digest(&digest::SHA256, &self.certificate).as_ref())
    }

    /// Certifies the key of a request as that of a node. The request's own wishes for names and uses are not heard.
    pub fn issue_node(
        &self,
        node_id: &str,
        request: &[u8],
        lifetime: Duration,
    ) -> Result<NodeCertificate, Refusal> {
        if request.len() > CSR_MAX {
            return Err(Refusal::bad_request(format!(
                "A certificate request has at most {CSR_MAX} bytes"
            )));
        }
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(
            request,
        ))
        .map_err(|error| {
            Refusal::bad_request(format!("The certificate request is not valid PKCS #10: {error}"))
        })?;
        let (not_before, not_after) = validity(lifetime);
        let mut params = leaf(not_before, not_after, ExtendedKeyUsagePurpose::ClientAuth)?;
        params.distinguished_name.push(DnType::CommonName, node_id);
        request.params = params;
        let certificate = request.signed_by(&self.issuer).map_err(broken)?;
        Ok(NodeCertificate {
            pem: certificate.pem(),
            not_before,
            not_after,
        })
    }

    /// Makes a server certificate for these names and addresses.
    pub fn issue_server(&self, names: &[String], lifetime: Duration) -> Result<KeyedCertificate, Refusal> {
        let (not_before, not_after) = validity(lifetime);
        let mut params = leaf(not_before, not_after, ExtendedKeyUsagePurpose::ServerAuth)?;
        params.distinguished_name.push(DnType::CommonName, "Tidegate");
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => name.as_str().try_into().map(SanType::DnsName),
            })
            .collect::<Result<_, _>>()
            .map_err(|error| {
                Refusal::bad_request(format!("A certificate cannot carry these names: {error}"))
            })?;
        let key = KeyPair::generate().map_err(broken)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(broken)?;
        Ok(KeyedCertificate {
            chain_pem: format!("{}{}", certificate.pem(), self.pem),
            private_key_pem: key.serialize_pem(),
            not_after,
        })
    }

    /// The certificate with which nodes serve HTTPS where no other fits: `*.execute-api.{suffix}` with and without
    /// region, the suffix itself, and the loopback addresses.
    pub fn issue_default_https(
        &self,
        suffixes: &[String],
        region: &str,
    ) -> Result<KeyedCertificate, Refusal> {
        let mut names = Vec::new();
        for suffix in suffixes {
            names.push(format!("*.execute-api.{suffix}"));
            names.push(format!("*.execute-api.{region}.{suffix}"));
            names.push(suffix.clone());
        }
        for loopback in ["localhost", "127.0.0.1", "::1"] {
            if !names.iter().any(|name| name == loopback) {
                names.push(loopback.to_owned());
            }
        }
        self.issue_server(&names, HTTPS_LIFETIME)
    }

    /// TLS for the configuration address: a certificate that is renewed by itself, and client certificates of this
    /// authority, asked for and not demanded (a node that joins has none yet).
    pub fn server_config(self: &Arc<Self>, names: Vec<String>) -> Result<rustls::ServerConfig, Refusal> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(broken)?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(broken)?;
        let resolver = ServerCertificate::new(self.clone(), names)?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(broken)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// The node that a verified client certificate names.
pub(super) fn node_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

/// The share of a certificate's life after which it is renewed.
pub(super) fn renewal_due(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> bool {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    now >= not_before + life / 3
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The certificate of the configuration address; a new one takes its place when a third of its life has passed.
struct ServerCertificate {
    authority: Arc<Authority>,
    names: Vec<String>,
    current: Mutex<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

// === impl ServerCertificate ===

impl ServerCertificate {
    fn new(authority: Arc<Authority>, mut names: Vec<String>) -> Result<Self, Refusal> {
        if !names.iter().any(|name| name == CONTROL_NAME) {
            names.push(CONTROL_NAME.to_owned());
        }
        let current = Mutex::new(Current::issue(&authority, &names)?);
        Ok(Self {
            authority,
            names,
            current,
        })
    }
}

impl Current {
    fn issue(authority: &Authority, names: &[String]) -> Result<Self, Refusal> {
        let issued = authority.issue_server(names, SERVER_LIFETIME)?;
        let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(broken)?;
        let key = PrivateKeyDer::from_pem_slice(issued.private_key_pem.as_bytes()).map_err(broken)?;
        let key = rustls::crypto::aws_lc_rs::default_provider()
            .key_provider
            .load_private_key(key)
            .map_err(broken)?;
        let renew_at = SystemTime::now() + SERVER_LIFETIME / 3;
        Ok(Self {
            key: Arc::new(CertifiedKey::new(chain, key)),
            renew_at,
        })
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if SystemTime::now() >= current.renew_at {
            match Current::issue(&self.authority, &self.names) {
                Ok(renewed) => *current = renewed,
                Err(error) => tracing::error!(
                    error = error.message,
                    "cannot renew the control plane's certificate"
                ),
            }
        }
        Some(current.key.clone())
    }
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

fn key_of_authority() -> Key {
    Key::top(Kind::Authority, "internal")
}

async fn load(tx: &mut dyn Read) -> Result<Option<(String, Vec<u8>)>, Refusal> {
    let key = key_of_authority();
    let Some(row) = tx.get(&key).await? else {
        return Ok(None);
    };
    let pem = row
        .body
        .get("certificate")
        .and_then(Value::as_str)
        .map(str::to_owned);
    match (pem, tx.secret(&key).await?) {
        (Some(pem), Some(secret)) => Ok(Some((pem, secret))),
        _ => Err(StoreError::Corrupt("the certificate authority's row".into()).into()),
    }
}

async fn keep(tx: &mut dyn Write, pem: &str, key: &[u8]) -> Result<(), Refusal> {
    tx.put_quietly(Put {
        key: key_of_authority(),
        account: String::new(),
        region: String::new(),
        body: json!({ "certificate": pem }),
        secret: Secret::Sealed(key.to_vec()),
    })
    .await?;
    Ok(())
}

fn generate(installation: &str) -> Result<(String, Vec<u8>), Refusal> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Tidegate installation {installation}"),
    );
    let (not_before, not_after) = validity(AUTHORITY_LIFETIME);
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params.serial_number = Some(serial()?);
    let key = KeyPair::generate().map_err(broken)?;
    let certificate = params.self_signed(&key).map_err(broken)?;
    Ok((certificate.pem(), key.serialize_der()))
}

fn leaf(
    not_before: SystemTime,
    not_after: SystemTime,
    purpose: ExtendedKeyUsagePurpose,
) -> Result<CertificateParams, Refusal> {
    let mut params = CertificateParams::default();
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.serial_number = Some(serial()?);
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params)
}

fn serial() -> Result<SerialNumber, Refusal> {
    let mut bytes = [0; 16];
    id::fill(&mut bytes)?;
    // Positive and not zero, as RFC 5280 has it.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn validity(lifetime: Duration) -> (SystemTime, SystemTime) {
    let now = SystemTime::now();
    (now - BACKDATE, now + lifetime)
}

fn broken(error: impl std::fmt::Display) -> Refusal {
    Refusal::internal(format!("the certificate authority failed: {error}"))
}

#[cfg(test)]
mod tests {
    use rustls::client::{WebPkiServerVerifier, danger::ServerCertVerifier};
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::store::SqliteStore;

    async fn authority() -> (tempfile::TempDir, SqliteStore, Arc<Authority>) {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path()).await.unwrap();
        let authority = Arc::new(Authority::open(&store).await.unwrap());
        (directory, store, authority)
    }

    fn request() -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut wishes = CertificateParams::new(vec![CONTROL_NAME.to_owned()]).unwrap();
        wishes.is_ca = IsCa::NoCa;
        wishes.serialize_request(&key).unwrap().der().to_vec()
    }

    fn verify(authority: &Authority, chain_pem: &str, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .map(Result::unwrap)
            .collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier
            .verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now())
            .map(|_| ())
    }

    /// C7: one authority an installation, its key sealed: neither the database nor its journal holds it.
    #[tokio::test]
    async fn the_authority_is_kept_and_its_key_sealed() {
        let (directory, store, first) = authority().await;
        let again = Authority::open(&store).await.unwrap();
        assert_eq!(first.pem(), again.pem());
        assert_eq!(first.digest().len(), 64);
        let key = first.issuer.key().serialize_der();
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(32).any(|window| window == &key[key.len() - 32..]));
        }
    }

    /// A node cannot wish itself the control plane's name: its certificate says who it is and serves nobody.
    #[tokio::test]
    async fn a_node_certificate_names_the_node_and_cannot_serve() {
        let (_directory, _store, authority) = authority().await;
        let issued = authority.issue_node("node01", &request(), NODE_LIFETIME).unwrap();
        let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        assert_eq!(node_of(&der).as_deref(), Some("node01"));
        assert!(verify(&authority, &issued.pem, CONTROL_NAME).is_err());
        assert!(
            authority
                .issue_node("node01", b"not a request", NODE_LIFETIME)
                .is_err()
        );
        assert!(
            authority
                .issue_node("node01", &vec![0; CSR_MAX + 1], NODE_LIFETIME)
                .is_err()
        );
    }

    /// The default HTTPS certificate is good for every default invoke host and the loopback addresses.
    #[tokio::test]
    async fn the_default_https_certificate_covers_the_default_hosts() {
        let (_directory, _store, authority) = authority().await;
        let issued = authority
            .issue_default_https(&["localhost".into()], "us-east-1")
            .unwrap();
        for name in [
            "a1.execute-api.localhost",
            "a1.execute-api.us-east-1.localhost",
            "localhost",
            "127.0.0.1",
            "::1",
        ] {
            verify(&authority, &issued.chain_pem, name).unwrap();
        }
        assert!(verify(&authority, &issued.chain_pem, "example.com").is_err());
        assert!(verify(&authority, &issued.chain_pem, CONTROL_NAME).is_err());
        assert!(
            authority
                .issue_server(&["\u{fc}".into()], SERVER_LIFETIME)
                .is_err()
        );
    }

    /// C7: certificates are renewed when a third of their life has passed.
    #[test]
    fn renewal_is_due_after_a_third() {
        let start = SystemTime::UNIX_EPOCH;
        let end = start + Duration::from_secs(90 * DAY);
        assert!(!renewal_due(
            start,
            end,
            start + Duration::from_secs(30 * DAY - 1)
        ));
        assert!(renewal_due(start, end, start + Duration::from_secs(30 * DAY)));
    }
}
