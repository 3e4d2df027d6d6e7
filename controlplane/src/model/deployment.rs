//! A deployment: a frozen definition under an id.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A deployment, as users see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Six characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_date: Option<Timestamp>,
    /// Path to verb to what guards it; shown on request only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_summary: Option<BTreeMap<String, BTreeMap<String, MethodSnapshot>>>,
    /// SHA-256 of the definition, in hexadecimal; the store's, not shown.
    #[serde(rename = "definitionSha256")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// What the compiler had to say about it; the store's, not shown.
    #[serde(rename = "compileWarnings")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// What guards a deployed method.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MethodSnapshot {
    /// The method's authorization type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_type: Option<String>,
    /// Whether a call needs an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_required: Option<bool>,
}

impl Deployment {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &[
        "id",
        "createdDate",
        "apiSummary",
        "definitionSha256",
        "compileWarnings",
    ];
}
