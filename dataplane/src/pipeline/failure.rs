//! Why a request did not get an integration's answer: one constant a reason, with the client's view of it.

use tidegate_plan::ResponseType;

use crate::http::RequestError;

/// A reason, as the client is told it. Where it has a response type an API can override the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The type whose override counts; `None` where no API is known yet, or none may be asked.
    pub kind: Option<ResponseType>,
    /// The status where nothing overrides it.
    pub status: u16,
    /// `$context.error.message`.
    pub message: &'static str,
    /// The value of `x-amzn-ErrorType`, which no override changes (GWR-016).
    pub error_type: &'static str,
    /// The connection cannot go on: what follows on it is not known to be a request.
    pub fatal: bool,
}

const fn typed(kind: ResponseType, status: u16, message: &'static str, error_type: &'static str) -> Failure {
    Failure {
        kind: Some(kind),
        status,
        message,
        error_type,
        fatal: false,
    }
}

const fn protocol(status: u16, message: &'static str, error_type: &'static str) -> Failure {
    Failure {
        kind: None,
        status,
        message,
        error_type,
        fatal: true,
    }
}

impl Failure {
    /// No such resource or method (RES-050, GWR-032).
    pub const MISSING_AUTHENTICATION_TOKEN: Self = typed(
        ResponseType::MissingAuthenticationToken,
        403,
        "Missing Authentication Token",
        "MissingAuthenticationTokenException",
    );
    /// A required parameter is missing or blank (INT-149). Which ones, [`Detail`](super::exchange::Detail) tells.
    pub const MISSING_PARAMETERS: Self = typed(
        ResponseType::BadRequestParameters,
        400,
        "Missing required request parameters",
        "BadRequestException",
    );
    /// The body does not fit its model (INT-150).
    pub const INVALID_BODY: Self = typed(
        ResponseType::BadRequestBody,
        400,
        "Invalid request body",
        "BadRequestException",
    );
    /// The body is a JSON object gone wrong, and a mapping reads it (OBV-281).
    pub const INVALID_JSON: Self = typed(
        ResponseType::BadRequestBody,
        400,
        "Invalid JSON in request body",
        "BadRequestException",
    );
    /// A request template reads the body's JSON, and it is none (VTL-270, VTL-390).
    pub const UNREADABLE_BODY: Self = typed(
        ResponseType::BadRequestBody,
        400,
        "Could not parse request body into json",
        "BadRequestException",
    );
    /// No template takes a body of that type, and it may not pass without one (VTL-082, VTL-083; GWR-035).
    pub const UNSUPPORTED_MEDIA_TYPE: Self = typed(
        ResponseType::UnsupportedMediaType,
        415,
        "Unsupported Media Type",
        "BadRequestException",
    );
    /// A throttle refused (SEC-075).
    pub const THROTTLED: Self = typed(
        ResponseType::Throttled,
        429,
        "Too Many Requests",
        "TooManyRequestsException",
    );
    /// The payload is over the bound (GWR-034). QUO-121: never overridden, hence without a type.
    pub const TOO_LARGE: Self = Failure {
        kind: None,
        status: 413,
        message: "HTTP content length exceeded 10485760 bytes.",
        error_type: "RequestTooLargeException",
        fatal: false,
    };
    /// The integration did not answer in time.
    pub const TIMED_OUT: Self = typed(
        ResponseType::IntegrationTimeout,
        504,
        "Endpoint request timed out",
        "InternalServerErrorException",
    );
    /// The backend cannot be reached, or ended the connection before it answered.
    pub const UNREACHABLE: Self = typed(
        ResponseType::IntegrationFailure,
        504,
        "Network error communicating with endpoint",
        "InternalServerErrorException",
    );
    /// The backend answered something that is not HTTP, or more than may pass.
    pub const INVALID_ANSWER: Self = Self {
        status: 502,
        message: "Internal server error",
        ..Self::UNREACHABLE
    };
    /// The backend switched protocols without being asked (decision D14).
    pub const UNSOLICITED_UPGRADE: Self = Self::INVALID_ANSWER;
    /// The backend's answer is over the bound of payloads.
    pub const ANSWER_TOO_LARGE: Self = Self {
        status: 500,
        ..Self::INVALID_ANSWER
    };
    /// The API cannot work as it is configured (GWR-030, OBV-255).
    pub const CONFIGURATION: Self = typed(
        ResponseType::ApiConfigurationError,
        500,
        "Internal server error",
        "InternalServerErrorException",
    );
    /// No API or stage of that name, or not by this endpoint.
    pub const FORBIDDEN: Self = Failure {
        kind: None,
        status: 403,
        message: "Forbidden",
        error_type: "ForbiddenException",
        fatal: false,
    };
    /// The path cannot be read (decision D12).
    pub const BAD_PATH: Self = Failure {
        kind: None,
        status: 400,
        message: "Bad Request",
        error_type: "BadRequestException",
        fatal: false,
    };
    /// The authority is not one that the TLS connection was made for (decision D18).
    pub const MISDIRECTED: Self = Failure {
        kind: None,
        status: 421,
        message: "Misdirected Request",
        error_type: "MisdirectedRequestException",
        fatal: false,
    };
    /// More requests wait for the backend than may (decision D16).
    pub const OVERLOADED: Self = protocol(503, "Service Unavailable", "ServiceUnavailableException");
    /// Not a request that HTTP/1.1 knows.
    pub const BAD_REQUEST: Self = protocol(400, "Bad Request", "BadRequestException");
    /// The client took too long to send its request.
    pub const REQUEST_TIMED_OUT: Self = protocol(408, "Request Timeout", "RequestTimeoutException");
    /// The request line is over its bound.
    pub const URI_TOO_LONG: Self = protocol(414, "Request URI too long", "RequestUriTooLongException");
    /// The headers are over their bounds (QUO-068).
    pub const HEADERS_TOO_LARGE: Self = protocol(
        431,
        "Request Header Fields Too Large",
        "RequestHeaderFieldsTooLargeException",
    );
    /// `Expect` holds something else than `100-continue`.
    pub const EXPECTATION_FAILED: Self = protocol(417, "Expectation Failed", "ExpectationFailedException");
    /// A transfer coding that we do not know.
    pub const NOT_IMPLEMENTED: Self = protocol(501, "Not Implemented", "NotImplementedException");
    /// A version of HTTP that we do not speak.
    pub const VERSION: Self = protocol(
        505,
        "HTTP Version Not Supported",
        "HttpVersionNotSupportedException",
    );

    /// The body where no template is configured. The service writes a blank after the colon in the answers of its
    /// integrations and of its validators, and none in those before them (OBV-256; INT-149, INT-150; GWR).
    pub fn default_body(&self) -> (&'static str, &'static str) {
        let of_validator = matches!(
            self.kind,
            Some(
                ResponseType::BadRequestParameters
                    | ResponseType::BadRequestBody
                    | ResponseType::UnsupportedMediaType
            )
        );
        match self.status {
            500.. => ("{\"message\": \"", "\"}"),
            _ if of_validator => ("{\"message\": \"", "\"}"),
            _ => ("{\"message\":\"", "\"}"),
        }
    }
}

/// What a client is told that sent no proper head.
impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error.status() {
            414 => Failure::URI_TOO_LONG,
            417 => Failure::EXPECTATION_FAILED,
            431 => Failure::HEADERS_TOO_LARGE,
            501 => Failure::NOT_IMPLEMENTED,
            505 => Failure::VERSION,
            _ => Failure::BAD_REQUEST,
        }
    }
}
