//! OCSP responses that go with certificates (RFC 6960), to be stapled to handshakes (RFC 6066 section 8).

use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use der::Decode;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_ocsp::{BasicOcspResponse, CertStatus, OcspResponse, OcspResponseStatus};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::{Certificate, Refusal, Timestamp};

/// The largest response that is taken, in bytes; one with its signer's certificates is some 2 KiB.
const MAX_BYTES: usize = 16 << 10;

/// Looks at a certificate's OCSP response: it must be one that says that this certificate is good, now and for a while.
/// Notes until when. Its signature is the clients' business, who know whom they trust.
///
/// # Errors
/// When it is not such a response.
pub(super) fn check(certificate: &mut Certificate) -> Result<(), Refusal> {
    certificate.ocsp_until = None;
    let Some(text) = certificate.ocsp_response.as_ref().filter(|text| !text.is_empty()) else {
        certificate.ocsp_response = None;
        return Ok(());
    };
    let refuse = |why: &str| {
        Err(Refusal::bad_request(format!(
            "The OCSP response cannot be used: {why}"
        )))
    };
    if text.len() / 4 * 3 > MAX_BYTES {
        return refuse(&format!("it is larger than {MAX_BYTES} bytes"));
    }
    let Ok(der) = BASE64.decode(text) else {
        return refuse("it is not base64");
    };
    let Ok(response) = OcspResponse::from_der(&der) else {
        return refuse("it is not an OCSP response in DER form");
    };
    if response.response_status != OcspResponseStatus::Successful {
        return refuse(&format!("the responder answered {:?}", response.response_status));
    }
    let basic = response
        .response_bytes
        .and_then(|bytes| BasicOcspResponse::from_der(bytes.response.as_bytes()).ok());
    let Some(basic) = basic else {
        return refuse("it holds no basic response");
    };
    let serial = serial(certificate)?;
    let own = basic
        .tbs_response_data
        .responses
        .iter()
        .find(|single| trimmed(single.cert_id.serial_number.as_bytes()) == serial);
    let Some(own) = own else {
        return refuse("it is for another certificate than the first of the chain");
    };
    match &own.cert_status {
        CertStatus::Good(_) => {}
        CertStatus::Revoked(_) => return refuse("it says that the certificate is revoked"),
        CertStatus::Unknown(_) => return refuse("it says that the responder does not know the certificate"),
    }
    let Some(until) = &own.next_update else {
        return refuse("it does not say until when it is good");
    };
    let until = i64::try_from(until.0.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    if until <= Timestamp::now().unix() {
        return refuse("it has ended; get a new one from the certificate's authority");
    }
    certificate.ocsp_until = Timestamp::from_unix(until);
    Ok(())
}

/// The serial number of the first certificate of the chain.
fn serial(certificate: &Certificate) -> Result<Vec<u8>, Refusal> {
    let malformed = || Refusal::bad_request("The certificate cannot be used: chainPem is malformed");
    let chain = certificate.chain_pem.as_deref().unwrap_or_default();
    let first = CertificateDer::from_pem_slice(chain.as_bytes()).map_err(|_| malformed())?;
    let (_, parsed) = X509Certificate::from_der(&first).map_err(|_| malformed())?;
    Ok(trimmed(parsed.raw_serial()).to_vec())
}

/// Without the zero bytes that keep a number positive.
fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(response: &str) -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let signed = rcgen::CertificateParams::new(vec!["a.example".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .expect("a certificate");
        let mut certificate = Certificate {
            chain_pem: Some(signed.pem()),
            ocsp_response: Some(response.to_owned()),
            ..Certificate::default()
        };
        check(&mut certificate).expect_err("refused").message
    }

    /// RFC 6960 section 4.2.1: what is no successful response is refused with the reason.
    #[test]
    fn what_cannot_be_stapled_is_refused() {
        assert!(refused("%%%").contains("not base64"));
        assert!(refused("AAAA").contains("DER"));
        assert!(refused(&"A".repeat(MAX_BYTES * 2)).contains("larger than"));
        // OCSPResponse ::= SEQUENCE { responseStatus ENUMERATED tryLater (3) }
        assert!(refused(&BASE64.encode([0x30, 3, 0x0a, 1, 3])).contains("TryLater"));
        assert!(refused(&BASE64.encode([0x30, 3, 0x0a, 1, 0])).contains("no basic response"));
    }

    /// Without a response nothing is noted of one.
    #[test]
    fn a_response_that_goes_takes_its_end_along() {
        let mut certificate = Certificate {
            ocsp_until: Some(Timestamp::now()),
            ..Certificate::default()
        };
        check(&mut certificate).expect("nothing to refuse");
        assert_eq!(certificate.ocsp_until, None);
    }
}
