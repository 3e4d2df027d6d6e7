//! Why something is refused: the service's error codes and texts.

use std::fmt;

/// The service's error codes, as far as management calls use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 400: the request breaks a rule.
    BadRequest,
    /// 400: a member fails a constraint of the public model (OBV-008).
    Validation,
    /// 401: no valid credential.
    Unauthorized,
    /// 403: the caller may not do this.
    AccessDenied,
    /// 404: something that the request names does not exist.
    NotFound,
    /// 409: something of that name exists, or it changed meanwhile.
    Conflict,
    /// 429: an installation's or account's bound is reached.
    LimitExceeded,
    /// 429: too many calls for now.
    TooManyRequests,
    /// 503: try again later.
    Unavailable,
    /// 500: a defect or a broken disk; the text says which.
    Internal,
}

impl Code {
    /// The exception's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequestException",
            Self::Validation => "ValidationException",
            Self::Unauthorized => "UnauthorizedException",
            Self::AccessDenied => "AccessDeniedException",
            Self::NotFound => "NotFoundException",
            Self::Conflict => "ConflictException",
            Self::LimitExceeded => "LimitExceededException",
            Self::TooManyRequests => "TooManyRequestsException",
            Self::Unavailable => "ServiceUnavailableException",
            Self::Internal => "InternalFailureException",
        }
    }

    /// The HTTP status that goes with the code (OBV-006).
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::Validation => 400,
            Self::Unauthorized => 401,
            Self::AccessDenied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::LimitExceeded | Self::TooManyRequests => 429,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

/// A refused request: a code and the text that the caller sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of refusal.
    pub code: Code,
    /// The text for the caller.
    pub message: String,
}

impl Refusal {
    /// A refusal with this code and text.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// 400 `BadRequestException`.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    /// 404 `NotFoundException`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// 409 `ConflictException`.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Code::Conflict, message)
    }

    /// 500: a defect or a failing disk.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(Code::Internal, message.to_string())
    }

    /// One member outside its set of values (OBV-009, OBV-010, OBV-014).
    pub fn outside_set(value: &str, location: &str, set: &[&str]) -> Self {
        Self::constraint(
            value,
            location,
            &format!("Member must satisfy enum value set: [{}]", set.join(", ")),
        )
    }

    /// One member that fails a constraint (OBV-009, OBV-010).
    pub fn constraint(value: &str, location: &str, constraint: &str) -> Self {
        Self::new(
            Code::Validation,
            format!(
                "1 validation error detected: Value '{value}' at '{location}' failed to satisfy constraint: {constraint}"
            ),
        )
    }

    /// An API that does not exist (OBV-035).
    pub fn unknown_api(account: &str, api: &str) -> Self {
        Self::not_found(format!("Invalid API identifier specified {account}:{api}"))
    }

    /// A resource that does not exist (OBV-059, OBV-060, OBV-068).
    pub fn unknown_resource() -> Self {
        Self::not_found("Invalid Resource identifier specified")
    }

    /// A method that the resource lacks (OBV-092, OBV-098).
    pub fn unknown_method() -> Self {
        Self::not_found("Invalid Method identifier specified")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for Refusal {}
