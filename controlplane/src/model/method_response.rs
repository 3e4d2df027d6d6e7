//! A response that a method declares.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, rules};

/// A declared response.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MethodResponse {
    /// Three digits, as text (OBV-083).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<String>,
    /// `method.response.header.{name}` to whether it is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_parameters: Option<BTreeMap<String, bool>>,
    /// Media type to model name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_models: Option<BTreeMap<String, String>>,
}

impl MethodResponse {
    /// The rules that a response obeys by itself (OBV-090); any header name may be declared (OBV-093).
    pub fn check(&self) -> Result<(), Refusal> {
        rules::status_code(self.status_code.as_deref().unwrap_or_default())?;
        for name in self.response_parameters.iter().flatten().map(|(name, _)| name) {
            rules::mapping_name(name, "method.response", &["header", "multivalueheader"])?;
        }
        for media in self.response_models.iter().flatten().map(|(media, _)| media) {
            rules::media_type(media)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-081, OBV-082, OBV-020: absent maps stay absent, empty ones stay empty.
    #[test]
    fn presence() {
        let bare = MethodResponse {
            status_code: Some("200".into()),
            ..MethodResponse::default()
        };
        assert_eq!(
            serde_json::to_value(&bare).expect("serializes"),
            serde_json::json!({"statusCode": "200"})
        );
        let text = r#"{"statusCode":"200","responseParameters":{},"responseModels":{}}"#;
        let empty: MethodResponse = serde_json::from_str(text).expect("parses");
        assert_eq!(serde_json::to_string(&empty).expect("serializes"), text);
        assert_eq!(empty.check(), Ok(()));
    }

    /// OBV-093: restricted header names may be declared.
    #[test]
    fn restricted_names() {
        let response = MethodResponse {
            status_code: Some("200".into()),
            response_parameters: Some(BTreeMap::from([(
                "method.response.header.Connection".into(),
                true,
            )])),
            ..MethodResponse::default()
        };
        assert_eq!(response.check(), Ok(()));
    }
}
