//! An answer of the gateway itself, as the user wants it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, rules};

/// The override of one of the gateway's own answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayResponse {
    /// One of [`RESPONSE_TYPES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_type: Option<String>,
    /// Replaces the type's own status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<String>,
    /// `gatewayresponse.header.{name}` from a mapping expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_parameters: Option<BTreeMap<String, String>>,
    /// Media type to template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_templates: Option<BTreeMap<String, String>>,
    /// False for what a user set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_response: Option<bool>,
}

/// The response types and their own status (GWR-021 and its table); `None`: that of the answer it stands for.
pub const RESPONSE_TYPES: [(&str, Option<u16>); 21] = [
    ("DEFAULT_4XX", None),
    ("DEFAULT_5XX", None),
    ("RESOURCE_NOT_FOUND", Some(404)),
    ("UNAUTHORIZED", Some(401)),
    ("INVALID_API_KEY", Some(403)),
    ("ACCESS_DENIED", Some(403)),
    ("AUTHORIZER_FAILURE", Some(500)),
    ("AUTHORIZER_CONFIGURATION_ERROR", Some(500)),
    ("INVALID_SIGNATURE", Some(403)),
    ("EXPIRED_TOKEN", Some(403)),
    ("MISSING_AUTHENTICATION_TOKEN", Some(403)),
    ("INTEGRATION_FAILURE", Some(504)),
    ("INTEGRATION_TIMEOUT", Some(504)),
    ("API_CONFIGURATION_ERROR", Some(500)),
    ("UNSUPPORTED_MEDIA_TYPE", Some(415)),
    ("BAD_REQUEST_PARAMETERS", Some(400)),
    ("BAD_REQUEST_BODY", Some(400)),
    ("REQUEST_TOO_LARGE", Some(413)),
    ("THROTTLED", Some(429)),
    ("QUOTA_EXCEEDED", Some(429)),
    ("WAF_FILTERED", Some(403)),
];

impl GatewayResponse {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["defaultResponse"];

    /// A known type (GWR-021), a status, headers and templates that can be read.
    pub fn check(&self) -> Result<(), Refusal> {
        let kind = self.response_type.as_deref().unwrap_or_default();
        if !RESPONSE_TYPES.iter().any(|(name, _)| *name == kind) {
            let names: Vec<&str> = RESPONSE_TYPES.iter().map(|(name, _)| *name).collect();
            return Err(Refusal::outside_set(kind, "responseType", &names));
        }
        if let Some(status) = &self.status_code {
            rules::status_code(status)?;
        }
        for name in self.response_parameters.iter().flatten().map(|(name, _)| name) {
            if name
                .strip_prefix("gatewayresponse.header.")
                .is_none_or(str::is_empty)
            {
                return Err(rules::invalid_mapping(name));
            }
        }
        for media in self.response_templates.iter().flatten().map(|(media, _)| media) {
            rules::media_type(media)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GWR-021: 21 types, no other.
    #[test]
    fn types() {
        let mut response = GatewayResponse {
            response_type: Some("THROTTLED".into()),
            ..GatewayResponse::default()
        };
        assert_eq!(response.check(), Ok(()));
        response.response_type = Some("OTHER".into());
        assert!(response.check().is_err());
        assert_eq!(RESPONSE_TYPES.len(), 21);
    }
}
