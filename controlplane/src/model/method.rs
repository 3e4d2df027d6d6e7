//! A method of a resource, with its responses and its integration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Integration, MethodResponse, Refusal, rules};

/// A method: who may call it, what it takes, what it answers, what runs behind it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Method {
    /// The verb, or `ANY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_method: Option<String>,
    /// `NONE`, `AWS_IAM`, `CUSTOM` or `COGNITO_USER_POOLS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_type: Option<String>,
    /// The authorizer of the last two types.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorizer_id: Option<String>,
    /// Whether a call needs an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_required: Option<bool>,
    /// The validator of its requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_validator_id: Option<String>,
    /// A name for generated SDKs and logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_name: Option<String>,
    /// `method.request.{location}.{name}` to whether it is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_parameters: Option<BTreeMap<String, bool>>,
    /// Media type to model name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_models: Option<BTreeMap<String, String>>,
    /// Status code to response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method_responses: Option<BTreeMap<String, MethodResponse>>,
    /// What runs behind the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method_integration: Option<Integration>,
    /// The scopes of which a token needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_scopes: Option<Vec<String>>,
}

/// The verbs a method may have, in the order in which the service prints them (OBV-069).
pub const VERBS: [&str; 8] = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "HEAD", "ANY"];
/// The authorization types (RES-055).
pub const AUTHORIZATION_TYPES: [&str; 4] = ["NONE", "AWS_IAM", "CUSTOM", "COGNITO_USER_POOLS"];

impl Method {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &[];

    /// What a method has although nobody said so (OBV-064, OBV-065); `resource` names the cache (RES-008).
    pub fn fill_defaults(&mut self, resource: &str) {
        self.api_key_required.get_or_insert(false);
        if let Some(kind) = &mut self.authorization_type {
            kind.make_ascii_uppercase();
        }
        if let Some(integration) = &mut self.method_integration {
            integration.fill_defaults(resource);
        }
        for (code, response) in self.method_responses.iter_mut().flatten() {
            response.status_code = Some(code.clone());
        }
    }

    /// The verb is known (OBV-069).
    pub fn check_verb(verb: &str) -> Result<(), Refusal> {
        if VERBS.contains(&verb) {
            return Ok(());
        }
        Err(Refusal::bad_request(
            "Invalid HttpMethod specified. Valid options are GET,PUT,POST,DELETE,PATCH,OPTIONS,HEAD,ANY",
        ))
    }

    /// The rules that a method obeys by itself; references to other entities are the service's to check.
    pub fn check(&self) -> Result<(), Refusal> {
        Self::check_verb(self.http_method.as_deref().unwrap_or_default())?;
        let kind = self.authorization_type.as_deref().unwrap_or_default();
        if !AUTHORIZATION_TYPES.contains(&kind) {
            return Err(Refusal::bad_request(
                "Invalid authorization type specified. Valid options are NONE, AWS_IAM, CUSTOM, COGNITO_USER_POOLS",
            ));
        }
        if matches!(kind, "CUSTOM" | "COGNITO_USER_POOLS") && self.authorizer_id.is_none() {
            return Err(invalid_authorizer());
        }
        for name in self.request_parameters.iter().flatten().map(|(name, _)| name) {
            rules::mapping_name(
                name,
                "method.request",
                &[
                    "path",
                    "querystring",
                    "header",
                    "multivaluequerystring",
                    "multivalueheader",
                ],
            )?;
        }
        for media in self.request_models.iter().flatten().map(|(media, _)| media) {
            rules::media_type(media)?;
        }
        for (code, response) in self.method_responses.iter().flatten() {
            rules::status_code(code)?;
            response.check()?;
        }
        match &self.method_integration {
            Some(integration) => integration.check(),
            None => Ok(()),
        }
    }
}

/// The refusal for a method whose authorizer is missing or not of its kind (OBV-070).
pub fn invalid_authorizer() -> Refusal {
    Refusal::bad_request(
        "Invalid authorizer ID specified. Setting the authorization type to CUSTOM or COGNITO_USER_POOLS requires a \
         valid authorizer.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(kind: &str) -> Method {
        let mut method = Method {
            http_method: Some("GET".into()),
            authorization_type: Some(kind.into()),
            ..Method::default()
        };
        method.fill_defaults("abc123");
        method
    }

    /// OBV-064, OBV-065: the exact members, the type in capitals.
    #[test]
    fn defaults() {
        assert_eq!(
            serde_json::to_value(method("None")).expect("serializes"),
            serde_json::json!({"httpMethod": "GET", "authorizationType": "NONE", "apiKeyRequired": false})
        );
    }

    /// OBV-069: the text for an unknown verb.
    #[test]
    fn unknown_verb() {
        assert_eq!(
            Method::check_verb("WRONG").expect_err("refused").message,
            "Invalid HttpMethod specified. Valid options are GET,PUT,POST,DELETE,PATCH,OPTIONS,HEAD,ANY"
        );
    }

    /// OBV-070: a custom method names its authorizer.
    #[test]
    fn custom_needs_authorizer() {
        assert_eq!(method("CUSTOM").check(), Err(invalid_authorizer()));
    }

    /// OBV-075: the text for a parameter that is none; OBV-073, OBV-074: no other rule for names.
    #[test]
    fn request_parameters() {
        let mut method = method("NONE");
        method.request_parameters = Some(BTreeMap::from([("true".into(), true)]));
        assert_eq!(
            method.check().expect_err("refused").message,
            "Invalid mapping expression specified: Validation Result: warnings : [], errors : [Invalid mapping \
             expression specified: true]"
        );
        method.request_parameters = Some(BTreeMap::from([
            ("method.request.path.absent".into(), true),
            ("method.request.header.Transfer-Encoding".into(), false),
        ]));
        assert_eq!(method.check(), Ok(()));
    }
}
