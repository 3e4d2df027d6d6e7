//! From a bundle's bytes to what a shard runs.

use std::sync::Arc;

use rustls::SignatureAlgorithm;
use rustls::sign::CertifiedKey;

/// A certificate and the server names it answers for.
#[derive(Debug)]
pub struct Certificate {
    /// The bundle's id.
    pub id: Arc<str>,
    /// Lower-case names; `*.example.com` stands for one label. Empty: the default certificate.
    pub names: Vec<String>,
    /// Chain and key, checked to belong together.
    key: Arc<CertifiedKey>,
    staple: Option<Staple>,
}

/// The same with an OCSP response, for as long as that is good.
#[derive(Debug)]
struct Staple {
    key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    until: u64,
}

impl Certificate {
    /// A certificate without an OCSP response.
    pub fn new(id: Arc<str>, names: Vec<String>, key: Arc<CertifiedKey>) -> Self {
        Self {
            id,
            names,
            key,
            staple: None,
        }
    }

    /// With an OCSP response in DER form that is good until `until`, in seconds since 1970.
    #[must_use]
    pub fn stapled(mut self, response: Vec<u8>, until: u64) -> Self {
        let mut key = CertifiedKey::clone(&self.key);
        key.ocsp = Some(response);
        self.staple = Some(Staple {
            key: Arc::new(key),
            until,
        });
        self
    }

    /// What a handshake at `now`, in seconds since 1970, shows: a response that has ended is worse than none.
    pub fn shown(&self, now: u64) -> &Arc<CertifiedKey> {
        match &self.staple {
            Some(staple) if now < staple.until => &staple.key,
            _ => &self.key,
        }
    }

    /// The kind of its key.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.key.key.algorithm()
    }

    /// Whether a handshake in which the client takes these signatures can use it.
    pub fn suits(&self, schemes: &[rustls::SignatureScheme]) -> bool {
        self.key.key.choose_scheme(schemes).is_some()
    }
}

/// Settings of the installation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Lower-case suffixes under which `{api}.execute-api.{region?}.{suffix}` is answered.
    pub domain_suffixes: Vec<String>,
    /// Whether `/restapis/{api}/{stage}/_user_request_/…` is answered on every listener, not on loopback alone.
    pub invoke_by_path_everywhere: bool,
    /// Requests a second and burst over all APIs; absent: no such limit.
    pub account_throttle: Option<(f64, u64)>,
    /// The service's hard caps apply instead of the hardware's.
    pub service_limits: bool,
}
