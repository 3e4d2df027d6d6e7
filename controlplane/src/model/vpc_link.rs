//! A named way into a private network.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, rules};

/// A named way into a private network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VpcLink {
    /// Six characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The load balancer, which a binding resolves to addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_arns: Option<Vec<String>>,
    /// `AVAILABLE`, `PENDING`, `DELETING` or `FAILED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why the status is what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

impl VpcLink {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["id", "status", "statusMessage"];

    /// A link is usable at once: its addresses come from bindings.
    pub fn fill_defaults(&mut self) {
        self.status.get_or_insert_with(|| "AVAILABLE".into());
    }

    /// A name and a target.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.name.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request("Vpc Link name cannot be blank"));
        }
        if self.target_arns.as_ref().is_none_or(Vec::is_empty) {
            return Err(Refusal::bad_request("Vpc Link needs a target ARN"));
        }
        rules::tags(self.tags.as_ref())
    }
}
