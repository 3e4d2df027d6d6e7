//! From a bundle's bytes to what a shard runs.

use std::sync::Arc;

/// A certificate and the server names it answers for.
#[derive(Debug)]
pub struct Certificate {
    /// The bundle's id.
    pub id: Arc<str>,
    /// Lower-case names; `*.example.com` stands for one label. Empty: the default certificate.
    pub names: Vec<String>,
    /// Chain and key, checked to belong together.
    pub key: Arc<rustls::sign::CertifiedKey>,
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
