//! Entities that are more than their members: keys, certificates, domains, bindings.

use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::{crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{
    model::{
        ApiKey, Binding, Certificate, ClientCertificate, DomainName, Kind, Refusal, Stage, Timestamp, id,
    },
    store::{List, Read, Secret, Write},
};

/// How long a certificate shown to backends is valid.
const CLIENT_CERTIFICATE_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Gives a new API key its value and dates (OBV-156, OBV-158). The value leaves the members: the store seals it.
pub(super) async fn new_api_key(view: &mut dyn Read, key: &mut ApiKey) -> Result<Secret, Refusal> {
    // What the caller gave is checked before it is taken away.
    key.check()?;
    let now = Timestamp::now();
    key.created_date = Some(now);
    key.last_updated_date = Some(now);
    let value = match key.value.take() {
        Some(value) => {
            if view.find(Kind::ApiKey, value.as_bytes()).await?.is_some() {
                return Err(Refusal::conflict("API Key already exists"));
            }
            value
        }
        None => id::secret()?,
    };
    Ok(Secret::SealedAndFound(value.into_bytes()))
}

/// Reads a certificate and its key: they belong together, and the key leaves the members, for the store to seal it.
pub(super) fn read_certificate(
    certificate: &mut Certificate,
    id: &str,
    account: &str,
    region: &str,
) -> Result<Secret, Refusal> {
    let refuse = |why: &str| Refusal::bad_request(format!("The certificate cannot be used: {why}"));
    let chain_pem = certificate.chain_pem.clone().unwrap_or_default();
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| refuse("chainPem is not in PEM form"))?;
    let first = chain
        .first()
        .ok_or_else(|| refuse("chainPem holds no certificate"))?;
    let (_, parsed) =
        X509Certificate::from_der(first).map_err(|_| refuse("the first certificate is malformed"))?;
    certificate.not_after = Timestamp::from_unix(parsed.validity().not_after.timestamp());
    if certificate.names.is_none() {
        certificate.names = Some(names_of(&parsed));
    }
    let key_pem = certificate
        .private_key_pem
        .take()
        .ok_or_else(|| refuse("privateKeyPem is missing"))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|_| refuse("privateKeyPem holds no private key in PEM form"))?;
    let key = any_supported_type(&key).map_err(|_| refuse("the private key is of no supported kind"))?;
    CertifiedKey::new(chain, key)
        .keys_match()
        .map_err(|_| refuse("the private key is not the certificate's"))?;
    certificate.id = Some(id.into());
    certificate.arn = Some(format!("arn:aws:acm:{region}:{account}:certificate/{id}"));
    Ok(Secret::Sealed(key_pem.into_bytes()))
}

/// The names that a certificate is valid for.
fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

/// Makes the certificate that backends are shown, valid for a year.
pub(super) fn new_client_certificate(
    certificate: &mut ClientCertificate,
    id: &str,
) -> Result<Secret, Refusal> {
    let now = Timestamp::now();
    let until = i64::try_from(CLIENT_CERTIFICATE_LIFE.as_secs())
        .ok()
        .and_then(|life| Timestamp::from_unix(now.unix() + life));
    let key = KeyPair::generate().map_err(Refusal::internal)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("tidegate client {id}"));
    params.not_before = std::time::SystemTime::now().into();
    params.not_after = (std::time::SystemTime::now() + CLIENT_CERTIFICATE_LIFE).into();
    let signed = params.self_signed(&key).map_err(Refusal::internal)?;
    certificate.client_certificate_id = Some(id.into());
    certificate.created_date = Some(now);
    certificate.expiration_date = until;
    certificate.pem_encoded_certificate = Some(signed.pem());
    Ok(Secret::Sealed(key.serialize_pem().into_bytes()))
}

/// What a new domain is called and where it is found.
pub(super) fn name_domain(domain: &mut DomainName, id: String, account: &str, region: &str) {
    let name = domain.domain_name.clone().unwrap_or_default();
    domain.domain_name_arn = Some(format!("arn:aws:apigateway:{region}::/domainnames/{name}"));
    if domain.management_policy.is_some() {
        domain.domain_name_arn = Some(format!(
            "arn:aws:apigateway:{region}:{account}:/domainnames/{name}+{id}"
        ));
    }
    domain.regional_domain_name = Some(format!("d-{id}.execute-api.{region}.localhost"));
    domain.domain_name_id = Some(id);
    domain.domain_name_status = Some("AVAILABLE".into());
}

/// Stages whose access log a binding leads somewhere get a new revision: their bundles have changed.
pub(super) async fn touch_bound(tx: &mut dyn Write, binding: &Value) -> Result<(), Refusal> {
    let binding: Binding = serde_json::from_value(binding.clone()).map_err(Refusal::internal)?;
    if binding.kind.as_deref() != Some("log-sink") {
        return Ok(());
    }
    for row in tx.list(&List::all(Kind::Stage)).await? {
        let stage: Stage = serde_json::from_value(row.body).map_err(Refusal::internal)?;
        let destination = stage
            .access_log_settings
            .and_then(|settings| settings.destination_arn);
        if destination.is_some_and(|arn| binding.fit("log-sink", &arn).is_some()) {
            tx.touch(&row.key).await?;
        }
    }
    Ok(())
}
