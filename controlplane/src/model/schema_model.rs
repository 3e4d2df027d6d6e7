//! A model: a named JSON Schema.

use serde::{Deserialize, Serialize};

use super::{Refusal, rules};

/// A model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Six characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Unique in the API; letters and digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema draft 4, as text (OBV-122).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The media type it describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

impl Model {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["id"];

    /// The two models that every API has (OBV-120, OBV-121); the caller gives them ids.
    pub fn defaults() -> [Self; 2] {
        let model = |name: &str, description: &str, schema: &str| Self {
            id: None,
            name: Some(name.into()),
            description: Some(description.into()),
            schema: Some(schema.into()),
            content_type: Some("application/json".into()),
        };
        [
            model(
                "Empty",
                "This is a default empty schema model",
                "{\n  \"$schema\": \"http://json-schema.org/draft-04/schema#\",\n  \"title\" : \"Empty Schema\",\n  \
                 \"type\" : \"object\"\n}",
            ),
            model(
                "Error",
                "This is a default error schema model",
                "{\n  \"$schema\" : \"http://json-schema.org/draft-04/schema#\",\n  \"title\" : \"Error Schema\",\n  \
                 \"type\" : \"object\",\n  \"properties\" : {\n    \"message\" : { \"type\" : \"string\" }\n  }\n}",
            ),
        ]
    }

    /// The rules that a model obeys by itself (OBV-123, OBV-127, OBV-128).
    pub fn check(&self) -> Result<(), Refusal> {
        let name = self.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(Refusal::bad_request("Model name must be non-empty"));
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Refusal::bad_request(format!(
                "Model name must be alphanumeric: {name}"
            )));
        }
        let schema = self.schema.as_deref().unwrap_or_default();
        if schema.trim().is_empty() {
            return Err(Refusal::bad_request(
                "Model schema must have at least 1 property or array items defined",
            ));
        }
        if let Some(media) = &self.content_type {
            rules::media_type(media)?;
            if media == "application/json"
                && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(schema).is_err()
            {
                return Err(Refusal::bad_request(
                    "Invalid model specified: Validation Result: warnings : [], errors : [Invalid model schema \
                     specified. Only JSON objects are supported]",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-120, OBV-121: the default models are models.
    #[test]
    fn defaults_are_valid() {
        for model in Model::defaults() {
            assert_eq!(model.check(), Ok(()));
        }
    }

    /// OBV-127, OBV-128, OBV-123: empty names and schemas.
    #[test]
    fn empty_members() {
        let mut model = Model {
            content_type: Some("application/xml".into()),
            ..Model::default()
        };
        assert_eq!(
            model.check().expect_err("refused").message,
            "Model name must be non-empty"
        );
        model.name = Some("Pet".into());
        assert_eq!(
            model.check().expect_err("refused").message,
            "Model schema must have at least 1 property or array items defined"
        );
        model.content_type = Some("application/json".into());
        model.description = Some(String::new());
        model.schema = Some(r#"{"title":"Pet","type":"object"}"#.into());
        assert_eq!(model.check(), Ok(()));
    }
}
