//! A REST API: the root of a draft, and what the whole API has in common.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, Timestamp, rules};

/// A REST API, without what lies below it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestApi {
    /// Ten characters, unique over the installation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What people call it; not unique.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_date: Option<Timestamp>,
    /// A version text of the user's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the last import did not understand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
    /// Media types that are binary, in the order in which they were added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary_media_types: Option<Vec<String>>,
    /// Bodies of at least this many bytes may be compressed; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_compression_size: Option<i32>,
    /// Where API keys come from: `HEADER` or `AUTHORIZER`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_source: Option<String>,
    /// Endpoint type and address family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_configuration: Option<EndpointConfiguration>,
    /// The resource policy: JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// The default host name answers 403.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_execute_api_endpoint: Option<bool>,
    /// The resource `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_resource_id: Option<String>,
    /// The TLS policy of the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_policy: Option<String>,
    /// `BASIC` or `STRICT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_access_mode: Option<String>,
    /// `UPDATING`, `AVAILABLE`, `PENDING` or `FAILED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_status: Option<String>,
    /// Why the status is what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_status_message: Option<String>,
}

/// Where and how an API or domain is reached; metadata on this installation (C8).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointConfiguration {
    /// One of `EDGE`, `REGIONAL`, `PRIVATE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
    /// `ipv4` or `dualstack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address_type: Option<String>,
    /// The private listeners that reach a private API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc_endpoint_ids: Option<Vec<String>>,
}

/// Largest value of `minimumCompressionSize` (OBV-046).
const MAX_COMPRESSION_SIZE: i32 = 10_485_760;
/// Longest resource policy (QUO-052).
const MAX_POLICY: usize = 8_192;

impl RestApi {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &[
        "id",
        "createdDate",
        "rootResourceId",
        "warnings",
        "apiStatus",
        "apiStatusMessage",
    ];

    /// Fills what a created API has although nobody said so (OBV-027, OBV-030).
    pub fn fill_defaults(&mut self) {
        self.api_key_source.get_or_insert_with(|| "HEADER".into());
        self.disable_execute_api_endpoint.get_or_insert(false);
        self.endpoint_configuration
            .get_or_insert_default()
            .fill_defaults();
    }

    /// The rules that an API obeys by itself.
    pub fn check(&self) -> Result<(), Refusal> {
        let name = self.name.as_deref().unwrap_or_default();
        if name.trim().is_empty() {
            return Err(Refusal::bad_request("API name cannot be blank"));
        }
        if let Some(size) = self.minimum_compression_size
            && !(0..=MAX_COMPRESSION_SIZE).contains(&size)
        {
            return Err(Refusal::bad_request(
                "Invalid minimum compression size, must be between 0 and 10485760",
            ));
        }
        rules::one_of(
            "restApi.apiKeySource",
            self.api_key_source.as_deref(),
            &["AUTHORIZER", "HEADER"],
        )?;
        rules::one_of(
            "restApi.endpointAccessMode",
            self.endpoint_access_mode.as_deref(),
            &["BASIC", "STRICT"],
        )?;
        if let Some(endpoint) = &self.endpoint_configuration {
            endpoint.check("createRestApiInput")?;
        }
        if let Some(policy) = &self.policy {
            if policy.len() > MAX_POLICY {
                return Err(Refusal::bad_request(format!(
                    "Resource policy exceeds the maximum size of {MAX_POLICY} characters"
                )));
            }
            if serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(policy).is_err() {
                return Err(Refusal::bad_request(
                    "Invalid policy document. Please check the policy syntax and ensure that Principals are valid.",
                ));
            }
        }
        rules::tags(self.tags.as_ref())
    }
}

impl EndpointConfiguration {
    /// An address family goes with every endpoint type (OBV-027, OBV-030).
    pub fn fill_defaults(&mut self) {
        let types = self.types.get_or_insert_with(|| vec!["EDGE".into()]);
        let family = if types.iter().any(|t| t == "PRIVATE") {
            "dualstack"
        } else {
            "ipv4"
        };
        self.ip_address_type.get_or_insert_with(|| family.into());
    }

    /// One known type, one known address family (OBV-031).
    pub fn check(&self, input: &str) -> Result<(), Refusal> {
        let types = self.types.as_deref().unwrap_or_default();
        if types.iter().any(|t| !ENDPOINT_TYPES.contains(&t.as_str())) {
            return Err(Refusal::constraint(
                &format!("[{}]", types.join(", ")),
                &format!("{input}.endpointConfiguration.types"),
                "Member must satisfy constraint: [Member must satisfy enum value set: [PRIVATE, EDGE, REGIONAL]]",
            ));
        }
        if types.len() != 1 {
            return Err(Refusal::bad_request(
                "Invalid endpoint configuration: exactly one endpoint type is required",
            ));
        }
        rules::one_of(
            &format!("{input}.endpointConfiguration.ipAddressType"),
            self.ip_address_type.as_deref(),
            &["ipv4", "dualstack"],
        )
    }
}

const ENDPOINT_TYPES: [&str; 3] = ["PRIVATE", "EDGE", "REGIONAL"];

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> RestApi {
        let mut api = RestApi {
            name: Some("pets".into()),
            ..RestApi::default()
        };
        api.fill_defaults();
        api
    }

    /// OBV-026, OBV-027, OBV-028: the members of an API created with a name only.
    #[test]
    fn defaults() {
        assert_eq!(
            serde_json::to_value(named()).expect("serializes"),
            serde_json::json!({
                "name": "pets", "apiKeySource": "HEADER", "disableExecuteApiEndpoint": false,
                "endpointConfiguration": {"types": ["EDGE"], "ipAddressType": "ipv4"},
            })
        );
    }

    /// OBV-030: private APIs are dual stack.
    #[test]
    fn private_is_dual_stack() {
        let mut endpoint = EndpointConfiguration {
            types: Some(vec!["PRIVATE".into()]),
            ..EndpointConfiguration::default()
        };
        endpoint.fill_defaults();
        assert_eq!(endpoint.ip_address_type.as_deref(), Some("dualstack"));
    }

    /// OBV-031: the text for an unknown endpoint type.
    #[test]
    fn unknown_endpoint_type() {
        let mut api = named();
        api.endpoint_configuration = Some(EndpointConfiguration {
            types: Some(vec!["wrong".into()]),
            ..EndpointConfiguration::default()
        });
        assert_eq!(
            api.check().expect_err("refused").message,
            "1 validation error detected: Value '[wrong]' at 'createRestApiInput.endpointConfiguration.types' failed \
             to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [PRIVATE, \
             EDGE, REGIONAL]]"
        );
    }

    /// OBV-044, OBV-046: 0 is a size, -1 is none.
    #[test]
    fn compression_size() {
        let mut api = named();
        api.minimum_compression_size = Some(0);
        assert_eq!(api.check(), Ok(()));
        api.minimum_compression_size = Some(-1);
        assert_eq!(
            api.check().expect_err("refused").message,
            "Invalid minimum compression size, must be between 0 and 10485760"
        );
    }
}
