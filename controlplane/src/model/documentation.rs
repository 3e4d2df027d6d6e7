//! Documentation of an API: parts and published versions.

use serde::{Deserialize, Serialize};

use super::{Refusal, Timestamp, rules};

/// A piece of documentation and what it speaks of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentationPart {
    /// Six characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<DocumentationPartLocation>,
    /// JSON text (OBV-138).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<String>,
}

/// What a piece of documentation speaks of; only the members that apply are there (OBV-138).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentationPartLocation {
    /// The kind of thing.
    #[serde(rename = "type")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The resource's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The verb.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The status code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<String>,
    /// The thing's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A published state of the documentation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentationVersion {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When it was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_date: Option<Timestamp>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// In the order in which the service prints them (OBV-141).
const LOCATIONS: [&str; 12] = [
    "RESPONSE_BODY",
    "RESPONSE",
    "METHOD",
    "MODEL",
    "AUTHORIZER",
    "RESPONSE_HEADER",
    "RESOURCE",
    "PATH_PARAMETER",
    "REQUEST_BODY",
    "QUERY_PARAMETER",
    "API",
    "REQUEST_HEADER",
];

impl DocumentationPart {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["id"];

    /// A known location (OBV-141) and some text.
    pub fn check(&self) -> Result<(), Refusal> {
        let kind = self
            .location
            .as_ref()
            .and_then(|l| l.kind.as_deref())
            .unwrap_or_default();
        rules::one_of(
            "createDocumentationPartInput.location.type",
            Some(kind),
            &LOCATIONS,
        )?;
        if self.properties.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request(
                "Documentation part properties must be non-empty",
            ));
        }
        Ok(())
    }
}

impl DocumentationVersion {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["createdDate"];

    /// It has a name.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.version.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request("Documentation version must be non-empty"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-141: the text for an unknown location.
    #[test]
    fn unknown_location() {
        let part = DocumentationPart {
            location: Some(DocumentationPartLocation {
                kind: Some("wrong".into()),
                ..Default::default()
            }),
            properties: Some("{}".into()),
            ..DocumentationPart::default()
        };
        assert_eq!(
            part.check().expect_err("refused").message,
            "1 validation error detected: Value 'wrong' at 'createDocumentationPartInput.location.type' failed to \
             satisfy constraint: Member must satisfy enum value set: [RESPONSE_BODY, RESPONSE, METHOD, MODEL, \
             AUTHORIZER, RESPONSE_HEADER, RESOURCE, PATH_PARAMETER, REQUEST_BODY, QUERY_PARAMETER, API, \
             REQUEST_HEADER]"
        );
    }
}
