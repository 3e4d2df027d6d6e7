//! A request validator: what of a request is checked before the backend sees it.

use serde::{Deserialize, Serialize};

use super::Refusal;

/// A request validator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestValidator {
    /// Six characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Check bodies against models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validate_request_body: Option<bool>,
    /// Check that required parameters are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validate_request_parameters: Option<bool>,
}

impl RequestValidator {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["id"];

    /// Both flags are always there (OBV-129).
    pub fn fill_defaults(&mut self) {
        self.validate_request_body.get_or_insert(false);
        self.validate_request_parameters.get_or_insert(false);
    }

    /// A name is no blank (OBV-134).
    pub fn check(&self) -> Result<(), Refusal> {
        if self.name.as_deref().unwrap_or_default().trim().is_empty() {
            return Err(Refusal::bad_request("Request Validator name cannot be blank"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-129, OBV-134.
    #[test]
    fn defaults_and_name() {
        let mut validator = RequestValidator {
            name: Some("all".into()),
            ..RequestValidator::default()
        };
        validator.fill_defaults();
        assert_eq!(
            serde_json::to_value(&validator).expect("serializes"),
            serde_json::json!({"name": "all", "validateRequestBody": false, "validateRequestParameters": false})
        );
        validator.name = Some(" ".into());
        assert_eq!(
            validator.check().expect_err("refused").message,
            "Request Validator name cannot be blank"
        );
    }
}
