//! The answers the gateway gives by itself, and their overrides.

use std::fmt;

use thiserror::Error;

use crate::header::{HeaderName, HeaderValue};
use crate::names::{NameError, Status};

/// The kinds of answer the gateway gives without an integration (GWR-021).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(
    missing_docs,
    reason = "each is named by `ResponseType::name` and documented by the service"
)]
pub enum ResponseType {
    AccessDenied,
    ApiConfigurationError,
    AuthorizerConfigurationError,
    AuthorizerFailure,
    BadRequestParameters,
    BadRequestBody,
    Default4xx,
    Default5xx,
    ExpiredToken,
    IntegrationFailure,
    IntegrationTimeout,
    InvalidApiKey,
    InvalidSignature,
    MissingAuthenticationToken,
    QuotaExceeded,
    RequestTooLarge,
    ResourceNotFound,
    Throttled,
    Unauthorized,
    UnsupportedMediaType,
    WafFiltered,
}

impl ResponseType {
    /// Every type, in the order of the variants.
    pub const ALL: [ResponseType; 21] = [
        ResponseType::AccessDenied,
        ResponseType::ApiConfigurationError,
        ResponseType::AuthorizerConfigurationError,
        ResponseType::AuthorizerFailure,
        ResponseType::BadRequestParameters,
        ResponseType::BadRequestBody,
        ResponseType::Default4xx,
        ResponseType::Default5xx,
        ResponseType::ExpiredToken,
        ResponseType::IntegrationFailure,
        ResponseType::IntegrationTimeout,
        ResponseType::InvalidApiKey,
        ResponseType::InvalidSignature,
        ResponseType::MissingAuthenticationToken,
        ResponseType::QuotaExceeded,
        ResponseType::RequestTooLarge,
        ResponseType::ResourceNotFound,
        ResponseType::Throttled,
        ResponseType::Unauthorized,
        ResponseType::UnsupportedMediaType,
        ResponseType::WafFiltered,
    ];

    /// Reads an identifier as it stands in definitions; any other name is refused (GWR-021).
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| {
                NameError::new(
                    "gateway response type",
                    "one of the service's 21 identifiers",
                    text,
                )
            })
    }

    /// The identifier in definitions and in `$context.error.responseType` (GWR-007).
    pub fn name(self) -> &'static str {
        match self {
            ResponseType::AccessDenied => "ACCESS_DENIED",
            ResponseType::ApiConfigurationError => "API_CONFIGURATION_ERROR",
            ResponseType::AuthorizerConfigurationError => "AUTHORIZER_CONFIGURATION_ERROR",
            ResponseType::AuthorizerFailure => "AUTHORIZER_FAILURE",
            ResponseType::BadRequestParameters => "BAD_REQUEST_PARAMETERS",
            ResponseType::BadRequestBody => "BAD_REQUEST_BODY",
            ResponseType::Default4xx => "DEFAULT_4XX",
            ResponseType::Default5xx => "DEFAULT_5XX",
            ResponseType::ExpiredToken => "EXPIRED_TOKEN",
            ResponseType::IntegrationFailure => "INTEGRATION_FAILURE",
            ResponseType::IntegrationTimeout => "INTEGRATION_TIMEOUT",
            ResponseType::InvalidApiKey => "INVALID_API_KEY",
            ResponseType::InvalidSignature => "INVALID_SIGNATURE",
            ResponseType::MissingAuthenticationToken => "MISSING_AUTHENTICATION_TOKEN",
            ResponseType::QuotaExceeded => "QUOTA_EXCEEDED",
            ResponseType::RequestTooLarge => "REQUEST_TOO_LARGE",
            ResponseType::ResourceNotFound => "RESOURCE_NOT_FOUND",
            ResponseType::Throttled => "THROTTLED",
            ResponseType::Unauthorized => "UNAUTHORIZED",
            ResponseType::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            ResponseType::WafFiltered => "WAF_FILTERED",
        }
    }

    /// The status when nothing overrides it; `None` for the two fallbacks (GWR-022, GWR-023).
    pub fn default_status(self) -> Option<Status> {
        let code = match self {
            ResponseType::Default4xx | ResponseType::Default5xx => return None,
            ResponseType::BadRequestParameters | ResponseType::BadRequestBody => 400,
            ResponseType::Unauthorized => 401,
            ResponseType::ResourceNotFound => 404,
            ResponseType::RequestTooLarge => 413,
            ResponseType::UnsupportedMediaType => 415,
            ResponseType::QuotaExceeded | ResponseType::Throttled => 429,
            ResponseType::ApiConfigurationError
            | ResponseType::AuthorizerConfigurationError
            | ResponseType::AuthorizerFailure => 500,
            ResponseType::IntegrationFailure | ResponseType::IntegrationTimeout => 504,
            ResponseType::AccessDenied
            | ResponseType::ExpiredToken
            | ResponseType::InvalidApiKey
            | ResponseType::InvalidSignature
            | ResponseType::MissingAuthenticationToken
            | ResponseType::WafFiltered => 403,
        };
        Status::new(code).ok()
    }

    /// The type whose override holds where this one has none.
    pub fn fallback(self) -> Option<ResponseType> {
        match self.default_status()?.code() {
            400..=499 => Some(ResponseType::Default4xx),
            _ => Some(ResponseType::Default5xx),
        }
    }
}

impl fmt::Display for ResponseType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One override of a gateway answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayResponse {
    /// Which answer.
    pub kind: ResponseType,
    /// Its status; `None` keeps the fallback's or the type's own.
    pub status: Option<Status>,
    /// Static headers to add.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers with a value of the request's: `method.request.{location}.{name}`, `context.{name}` or
    /// `stageVariables.{name}` (GWR-011 to GWR-013). One without a value is left out.
    pub mapped: Vec<(HeaderName, String)>,
    /// Body templates by media type.
    pub templates: Vec<(String, String)>,
}

/// The same type was overridden twice.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("gateway response {0} is given twice")]
pub struct GivenTwice(pub ResponseType);

/// The overrides of one API: at most one a type.
#[derive(Debug, Clone, Default)]
pub struct GatewayResponses(Vec<GatewayResponse>);

/// What an answer of one type looks like after fallbacks.
#[derive(Debug, Clone, Copy)]
pub struct Resolved<'p> {
    /// The status to answer.
    pub status: Status,
    /// The override whose headers and templates hold, if there is one (GWR-028).
    pub content: Option<&'p GatewayResponse>,
}

impl GatewayResponses {
    /// Refuses a second override of a type.
    pub fn new(overrides: Vec<GatewayResponse>) -> Result<Self, GivenTwice> {
        for (at, one) in overrides.iter().enumerate() {
            if overrides[..at].iter().any(|other| other.kind == one.kind) {
                return Err(GivenTwice(one.kind));
            }
        }
        Ok(GatewayResponses(overrides))
    }

    /// The override of exactly this type.
    pub fn get(&self, kind: ResponseType) -> Option<&GatewayResponse> {
        self.0.iter().find(|one| one.kind == kind)
    }

    /// Status and content for a type: its own override, then its fallback's, then the type's defaults (GWR-024).
    pub fn resolve(&self, kind: ResponseType) -> Resolved<'_> {
        let own = self.get(kind);
        let fallback = kind.fallback().and_then(|fallback| self.get(fallback));
        let status = own
            .and_then(|one| one.status)
            .or_else(|| fallback.and_then(|one| one.status))
            .or_else(|| kind.default_status())
            .unwrap_or(Status::INTERNAL_SERVER_ERROR);
        Resolved {
            status,
            content: own.or(fallback),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_status(kind: ResponseType, code: Option<u32>) -> GatewayResponse {
        let status = code.map(|code| Status::new(code).unwrap());
        GatewayResponse {
            kind,
            status,
            headers: Vec::new(),
            mapped: Vec::new(),
            templates: Vec::new(),
        }
    }

    /// GWR-021, GWR-022, GWR-023
    #[test]
    fn there_are_21_types_with_their_names_and_statuses() {
        for (at, kind) in ResponseType::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
            assert_eq!(ResponseType::parse(kind.name()), Ok(kind));
            let is_fallback = matches!(kind, ResponseType::Default4xx | ResponseType::Default5xx);
            assert_eq!(kind.default_status().is_none(), is_fallback);
        }
        assert!(ResponseType::parse("SOMETHING").is_err());
        assert_eq!(
            ResponseType::IntegrationTimeout.default_status().unwrap().code(),
            504
        );
        assert_eq!(ResponseType::Throttled.fallback(), Some(ResponseType::Default4xx));
        assert_eq!(
            ResponseType::AuthorizerFailure.fallback(),
            Some(ResponseType::Default5xx)
        );
    }

    /// GWR-024, GWR-025, GWR-028
    #[test]
    fn a_types_own_override_wins_then_the_fallbacks() {
        let overrides = GatewayResponses::new(vec![
            with_status(ResponseType::Default4xx, Some(499)),
            with_status(ResponseType::Throttled, None),
            with_status(ResponseType::AccessDenied, Some(401)),
        ])
        .unwrap();
        assert_eq!(overrides.resolve(ResponseType::InvalidApiKey).status.code(), 499);
        assert_eq!(overrides.resolve(ResponseType::Throttled).status.code(), 499);
        let content = overrides.resolve(ResponseType::Throttled).content.unwrap();
        assert_eq!(content.kind, ResponseType::Throttled);
        assert_eq!(overrides.resolve(ResponseType::AccessDenied).status.code(), 401);
        assert_eq!(
            overrides.resolve(ResponseType::IntegrationFailure).status.code(),
            504
        );
    }

    #[test]
    fn a_second_override_of_a_type_is_refused() {
        let twice = vec![with_status(ResponseType::Throttled, None); 2];
        assert_eq!(
            GatewayResponses::new(twice).unwrap_err(),
            GivenTwice(ResponseType::Throttled)
        );
    }
}
