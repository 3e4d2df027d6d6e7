//! Usage plans and the keys in them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, rules};

/// What the holders of some keys may use, and how much.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsagePlan {
    /// Six characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The stages it opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_stages: Option<Vec<ApiStage>>,
    /// Requests a second for each key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<ThrottleSettings>,
    /// Requests a period for each key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaSettings>,
    /// The product at the marketplace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_code: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
}

/// A stage that a plan opens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiStage {
    /// The API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_id: Option<String>,
    /// Its stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Overrides by method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<BTreeMap<String, ThrottleSettings>>,
}

/// A token bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThrottleSettings {
    /// Its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_limit: Option<i32>,
    /// Tokens a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<f64>,
}

/// Requests a period.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaSettings {
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i32>,
    /// How many are taken off the first period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    /// `DAY`, `WEEK` or `MONTH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
}

/// A key in a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsagePlanKey {
    /// The key's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `API_KEY`.
    #[serde(rename = "type")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The key's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The key's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl UsagePlan {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["id"];

    /// `apiStages` is always there (OBV-163).
    pub fn fill_defaults(&mut self) {
        self.api_stages.get_or_insert_default();
    }

    /// A name, a known period, no negative limits.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.name.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request("Usage Plan name cannot be blank"));
        }
        if let Some(quota) = &self.quota {
            rules::one_of(
                "createUsagePlanInput.quota.period",
                quota.period.as_deref(),
                &["DAY", "WEEK", "MONTH"],
            )?;
            if quota.limit.is_some_and(|limit| limit < 0) || quota.offset.is_some_and(|offset| offset < 0) {
                return Err(Refusal::bad_request(
                    "Usage Plan quota limit and offset must not be negative",
                ));
            }
        }
        let buckets = self.throttle.iter().chain(
            self.api_stages
                .iter()
                .flatten()
                .flat_map(|stage| stage.throttle.iter().flatten().map(|(_, t)| t)),
        );
        for bucket in buckets {
            bucket.check()?;
        }
        rules::tags(self.tags.as_ref())
    }
}

impl ThrottleSettings {
    /// No negative and no infinite rates.
    pub fn check(&self) -> Result<(), Refusal> {
        if self
            .rate_limit
            .is_some_and(|rate| !rate.is_finite() || rate < 0.0)
            || self.burst_limit.is_some_and(|burst| burst < 0)
        {
            return Err(Refusal::bad_request(
                "Throttle rate and burst must not be negative",
            ));
        }
        Ok(())
    }
}

impl UsagePlanKey {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["value", "name"];

    /// Its kind is always there (OBV-164).
    pub fn fill_defaults(&mut self) {
        self.kind.get_or_insert_with(|| "API_KEY".into());
    }

    /// A key of the one kind there is.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.id.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request("Invalid API Key identifier specified"));
        }
        if self.kind.as_deref() != Some("API_KEY") {
            return Err(Refusal::bad_request("Usage Plan key type must be API_KEY"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-163: a plan with a name only.
    #[test]
    fn defaults() {
        let mut plan = UsagePlan {
            name: Some("gold".into()),
            ..UsagePlan::default()
        };
        plan.fill_defaults();
        assert_eq!(
            serde_json::to_value(&plan).expect("serializes"),
            serde_json::json!({"name": "gold", "apiStages": []})
        );
        assert_eq!(plan.check(), Ok(()));
        plan.quota = Some(QuotaSettings {
            period: Some("YEAR".into()),
            ..QuotaSettings::default()
        });
        assert!(plan.check().is_err());
    }
}
