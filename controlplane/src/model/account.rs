//! The settings of one account in one region.

use serde::{Deserialize, Serialize};

use super::{Refusal, ThrottleSettings};

/// The settings of one account in one region.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The role that writes logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloudwatch_role_arn: Option<String>,
    /// What the account may use; shown, and enforced only where the installation sets one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_settings: Option<ThrottleSettings>,
    /// Features that are switched on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    /// The form of API keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_version: Option<String>,
}

impl Account {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["throttleSettings", "features", "apiKeyVersion"];

    /// The service's figures.
    pub fn fill_defaults(&mut self) {
        self.throttle_settings.get_or_insert(ThrottleSettings {
            burst_limit: Some(5_000),
            rate_limit: Some(10_000.0),
        });
        self.features.get_or_insert_with(|| vec!["UsagePlans".into()]);
        self.api_key_version.get_or_insert_with(|| "4".into());
    }

    /// A role ARN, or none.
    pub fn check(&self) -> Result<(), Refusal> {
        match self.cloudwatch_role_arn.as_deref() {
            Some(arn) if !arn.is_empty() && !arn.starts_with("arn:") => Err(Refusal::bad_request(
                "The role ARN does not have required permissions configured",
            )),
            _ => Ok(()),
        }
    }
}
