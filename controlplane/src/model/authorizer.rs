//! An authorizer: who decides whether a caller may pass.

use serde::{Deserialize, Serialize};

use super::{Refusal, rules};

/// An authorizer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorizer {
    /// Six characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `TOKEN`, `REQUEST`, `COGNITO_USER_POOLS` or `JWT`.
    #[serde(rename = "type")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// User pools.
    #[serde(rename = "providerARNs")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_arns: Option<Vec<String>>,
    /// `custom` or `cognito_user_pools`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_type: Option<String>,
    /// The function that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorizer_uri: Option<String>,
    /// The role that calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorizer_credentials: Option<String>,
    /// Where the identity comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_source: Option<String>,
    /// What a token must look like to be asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_validation_expression: Option<String>,
    /// How long a decision holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorizer_result_ttl_in_seconds: Option<i32>,
    /// Issuers of tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_configuration: Option<JwtConfiguration>,
}

/// Whose tokens a JWT authorizer takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtConfiguration {
    /// The issuers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuers: Option<Vec<JwtIssuer>>,
    /// Signature algorithms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_algorithms: Option<Vec<String>>,
}

/// One issuer of tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtIssuer {
    /// The `iss` claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Accepted `aud` claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audiences: Option<Vec<String>>,
    /// Further claims that are checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_claims: Option<Vec<JwtAdditionalClaim>>,
    /// Where the keys are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
}

/// A claim that is checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtAdditionalClaim {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_name: Option<String>,
    /// `SINGLE_STRING`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Whether it must be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// Accepted values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_values: Option<Vec<String>>,
}

const MAX_TTL: i32 = 3_600;

impl Authorizer {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["id"];

    /// `authType` follows the type (OBV-135); no default time to live is shown (OBV-136).
    pub fn fill_defaults(&mut self) {
        let kind = match self.kind.as_deref() {
            Some("COGNITO_USER_POOLS") => "cognito_user_pools",
            Some("TOKEN" | "REQUEST") => "custom",
            _ => return,
        };
        self.auth_type.get_or_insert_with(|| kind.into());
    }

    /// The rules that an authorizer obeys by itself; its function is not looked up (OBV-137).
    pub fn check(&self) -> Result<(), Refusal> {
        if self.name.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request("Authorizer name must be non-empty"));
        }
        let kind = self.kind.as_deref().unwrap_or_default();
        rules::one_of(
            "createAuthorizerInput.type",
            Some(kind),
            &["REQUEST", "TOKEN", "COGNITO_USER_POOLS", "JWT"],
        )?;
        if let Some(ttl) = self.authorizer_result_ttl_in_seconds
            && !(0..=MAX_TTL).contains(&ttl)
        {
            return Err(Refusal::bad_request(
                "Authorizer result TTL must be between 0 and 3600 seconds",
            ));
        }
        match kind {
            "TOKEN" | "REQUEST" if self.authorizer_uri.as_deref().unwrap_or_default().is_empty() => Err(
                Refusal::bad_request("Invalid Authorizer URI: the URI must be non-empty"),
            ),
            "COGNITO_USER_POOLS" if self.provider_arns.as_ref().is_none_or(Vec::is_empty) => {
                Err(Refusal::bad_request(
                    "Provider ARNs must be specified for authorizers of type COGNITO_USER_POOLS",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Whether a method of this authorization type may name it (RES-056).
    pub fn serves(&self, authorization_type: &str) -> bool {
        match authorization_type {
            "CUSTOM" => matches!(self.kind.as_deref(), Some("TOKEN" | "REQUEST" | "JWT")),
            "COGNITO_USER_POOLS" => self.kind.as_deref() == Some("COGNITO_USER_POOLS"),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-135, OBV-136, OBV-137: the exact members; a URI with blanks is accepted. RES-056: who may name it.
    #[test]
    fn token_authorizer() {
        let mut authorizer = Authorizer {
            name: Some("a".into()),
            kind: Some("TOKEN".into()),
            authorizer_uri: Some("arn:aws:apigateway: us-east-1 :lambda".into()),
            identity_source: Some("method.request.header.Auth".into()),
            ..Authorizer::default()
        };
        authorizer.fill_defaults();
        assert_eq!(authorizer.check(), Ok(()));
        let value = serde_json::to_value(&authorizer).expect("serializes");
        assert_eq!(value["authType"], "custom");
        assert_eq!(value.as_object().map(serde_json::Map::len), Some(5));
        assert!(authorizer.serves("CUSTOM") && !authorizer.serves("COGNITO_USER_POOLS"));
    }
}
