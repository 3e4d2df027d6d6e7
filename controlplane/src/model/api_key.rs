//! API keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, Timestamp, rules};

/// An API key; its value is sealed in the store and shown on request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// Ten characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What clients send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The customer at the marketplace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// When it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_date: Option<Timestamp>,
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated_date: Option<Timestamp>,
    /// Stages it was bound to before there were usage plans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage_keys: Option<Vec<String>>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

impl ApiKey {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["id", "createdDate", "lastUpdatedDate"];

    /// Keys are off unless switched on (OBV-157); an empty value counts as none (OBV-158).
    pub fn fill_defaults(&mut self) {
        self.enabled.get_or_insert(false);
        self.stage_keys.get_or_insert_default();
        self.value = self.value.take().filter(|value| !value.is_empty());
    }

    /// Lengths (OBV-159, OBV-160).
    pub fn check(&self) -> Result<(), Refusal> {
        if let Some(value) = &self.value {
            if value.len() < 20 {
                return Err(Refusal::bad_request(
                    "API Key value should be at least 20 characters",
                ));
            }
            if value.len() > 128 {
                return Err(Refusal::bad_request(
                    "API Key value exceeds maximum size of 128 characters",
                ));
            }
        }
        if self.description.as_ref().is_some_and(|text| text.len() > 125_000) {
            return Err(Refusal::bad_request("Invalid API Key description specified."));
        }
        rules::tags(self.tags.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-157, OBV-158: defaults. OBV-159, OBV-160: bounds and their texts.
    #[test]
    fn defaults_and_bounds() {
        let mut key = ApiKey {
            value: Some(String::new()),
            ..ApiKey::default()
        };
        key.fill_defaults();
        assert_eq!((key.enabled, &key.value), (Some(false), &None));
        key.value = Some("short".into());
        assert_eq!(
            key.check().expect_err("refused").message,
            "API Key value should be at least 20 characters"
        );
        key.value = Some("v".repeat(129));
        assert_eq!(
            key.check().expect_err("refused").message,
            "API Key value exceeds maximum size of 128 characters"
        );
        key.value = None;
        key.description = Some("d".repeat(125_001));
        assert_eq!(
            key.check().expect_err("refused").message,
            "Invalid API Key description specified."
        );
    }
}
