//! How a backend's answer becomes the method's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, Templates, rules};

/// One way from a backend's answer to the client's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntegrationResponse {
    /// The client's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<String>,
    /// Selects this response by the backend's status or error text; empty or absent: the default (RES-112).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection_pattern: Option<String>,
    /// `method.response.header.{name}` from a mapping expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_parameters: Option<BTreeMap<String, String>>,
    /// Media type to template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_templates: Option<Templates>,
    /// `CONVERT_TO_BINARY` or `CONVERT_TO_TEXT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_handling: Option<String>,
}

impl IntegrationResponse {
    /// The rules that a response obeys by itself (OBV-107, OBV-118). No method response needs to exist (OBV-110).
    pub fn check(&self) -> Result<(), Refusal> {
        rules::status_code(self.status_code.as_deref().unwrap_or_default())?;
        rules::one_of(
            "putIntegrationResponseInput.contentHandling",
            self.content_handling.as_deref(),
            &["CONVERT_TO_BINARY", "CONVERT_TO_TEXT"],
        )?;
        for name in self.response_parameters.iter().flatten().map(|(name, _)| name) {
            rules::mapping_name(name, "method.response", &["header", "multivalueheader"])?;
        }
        for media in self.response_templates.iter().flatten().map(|(media, _)| media) {
            rules::media_type(media)?;
        }
        Ok(())
    }

    /// Whether it answers what no other response selects (RES-010, RES-112).
    pub fn is_default(&self) -> bool {
        self.selection_pattern.as_deref().unwrap_or_default().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-107: only what was sent comes back, empty things as empty.
    #[test]
    fn presence() {
        let text = r#"{"statusCode":"200","selectionPattern":"","responseTemplates":{},"contentHandling":"CONVERT_TO_BINARY"}"#;
        let response: IntegrationResponse = serde_json::from_str(text).expect("parses");
        assert_eq!(response.check(), Ok(()));
        assert!(response.is_default());
        assert_eq!(serde_json::to_string(&response).expect("serializes"), text);
    }
}
