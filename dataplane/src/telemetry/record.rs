//! What the pipeline says about one finished request.

use std::net::IpAddr;

use super::log::LogTarget;
use super::series::Slot;

/// One finished request. Everything is borrowed: recording copies what the access log format asks for and keeps
/// nothing else.
///
/// Texts that were not known when the request ended stay empty; the access log shows `-` for them.
#[derive(Clone, Copy, Debug)]
pub struct RequestRecord<'a> {
    /// The stage's series; none for a request that reached no stage.
    pub stage: Option<Slot>,
    /// The method's series, where detailed metrics are on.
    pub method: Option<Slot>,
    /// Where the stage's access log line goes.
    pub log: Option<LogTarget>,

    /// Wall clock at receipt, milliseconds since 1970.
    pub received_unix_ms: u64,
    /// From the request's first byte to the response's last, nanoseconds.
    pub latency_ns: u64,
    /// The status that was sent; 499 where the client had gone.
    pub status: u16,
    /// Bytes of response payload sent.
    pub response_length: u64,
    /// Set when the gateway itself answered.
    pub error: Option<GatewayError<'a>>,
    /// Set when a backend was called.
    pub integration: Option<IntegrationOutcome<'a>>,

    /// The peer of the TCP connection, never taken from a header (OBS-087).
    pub source_ip: IpAddr,
    /// What the log shows as request id: the client's own only where it was a UUID (OBS-038, OBS-039).
    pub request_id: &'a [u8],
    /// Made by the gateway (OBS-040).
    pub extended_request_id: &'a [u8],
    /// The client's method.
    pub http_method: &'a [u8],
    /// The path as received, without query; it begins with the stage where the default endpoint was used.
    pub path: &'a [u8],
    /// The matched resource, `/pets/{petId}`.
    pub resource_path: &'a [u8],
    /// The matched resource's id.
    pub resource_id: &'a [u8],
    /// The host that was called, without port.
    pub domain_name: &'a [u8],
    /// The client's `User-Agent`.
    pub user_agent: &'a [u8],
}

/// The gateway's own answer.
#[derive(Clone, Copy, Debug)]
pub struct GatewayError<'a> {
    /// The gateway response type, `MISSING_AUTHENTICATION_TOKEN`.
    pub response_type: &'a [u8],
    /// The type's own status, before a customised response changed it: by this the request is counted (OBS-006).
    pub type_status: u16,
    /// `$context.error.message`.
    pub message: &'a [u8],
    /// `$context.error.validationErrorString`.
    pub validation: &'a [u8],
}

/// What came of the call to the backend.
#[derive(Clone, Copy, Debug)]
pub struct IntegrationOutcome<'a> {
    /// From relaying the request until the backend's response head, or until the failure; nanoseconds.
    pub latency_ns: u64,
    /// The backend's status, where it answered.
    pub status: Option<u16>,
    /// What went wrong, in words for the API's developer.
    pub error: &'a [u8],
}

/// Whose fault a request's outcome is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Neither error metric.
    Fine,
    /// `4XXError`.
    ClientError,
    /// `5XXError`.
    ServerError,
}

impl Class {
    /// By status.
    pub fn of(status: u16) -> Class {
        match status {
            400..=499 => Class::ClientError,
            500..=599 => Class::ServerError,
            _ => Class::Fine,
        }
    }
}

impl RequestRecord<'_> {
    /// A gateway error counts by the family of its type, whatever status a customised response gave it (OBS-006);
    /// anything else by the status sent.
    pub fn class(&self) -> Class {
        Class::of(self.error.map_or(self.status, |error| error.type_status))
    }
}
