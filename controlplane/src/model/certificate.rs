//! TLS certificates of the installation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, Timestamp, rules};

/// A TLS certificate of the installation; its key is sealed in the store and never shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Six characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `arn:aws:acm:{region}:{account}:certificate/{id}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// The names it is valid for; empty: it serves who names none of the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
    /// The certificate and those between it and its authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_pem: Option<String>,
    /// Its key; only on the way in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key_pem: Option<String>,
    /// An OCSP response for it in DER form, as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ocsp_response: Option<String>,
    /// Until when that is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ocsp_until: Option<Timestamp>,
    /// Until when it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

impl Certificate {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["id", "arn", "notAfter", "ocspUntil"];

    /// Its labels; chain and key are read by the service.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.chain_pem.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request("A certificate needs its chain in PEM form"));
        }
        rules::tags(self.tags.as_ref())
    }
}
