//! Which headers pass between client and backend, and under which name (decision D13).

use http::{HeaderMap, HeaderName};

use crate::http::Known;

/// What becomes of a header on its way to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// It passes as it is.
    Pass,
    /// It goes no further.
    Drop,
    /// It passes as `x-amzn-Remapped-{name}`.
    Remap,
}

/// The prefix of a remapped name (OBV-242).
pub(super) const REMAPPED: &[u8] = b"x-amzn-Remapped-";

/// Client to backend, `HTTP_PROXY` (OBV-250, OBV-251). What the gateway writes itself does not pass.
pub(super) fn passes_to_backend(known: Option<Known>) -> bool {
    !matches!(
        known,
        Some(
            Known::Connection
                | Known::ContentEncoding
                | Known::ContentLength
                | Known::ContentMd5
                | Known::Expect
                | Known::Forwarded
                | Known::Host
                | Known::Http2Settings
                | Known::KeepAlive
                | Known::MaxForwards
                | Known::ProxyAuthenticate
                | Known::ProxyAuthorization
                | Known::ProxyConnection
                | Known::Server
                | Known::Te
                | Known::Trailer
                | Known::TransferEncoding
                | Known::Upgrade
                | Known::Via
                | Known::WwwAuthenticate
                | Known::XAmznApigatewayApiId
                | Known::XAmznTraceId
                | Known::XForwardedFor
                | Known::XForwardedPort
                | Known::XForwardedProto
        )
    )
}

/// Whether a header that a mapping sets reaches the backend (OBV-254).
pub(super) fn may_be_mapped(name: &[u8]) -> bool {
    !matches!(
        Known::from_name(name),
        Some(Known::Connection | Known::Expect | Known::ProxyAuthenticate | Known::Te | Known::Via)
    )
}

/// Backend to client, `HTTP_PROXY` (OBV-241, OBV-242; QUO-126 to QUO-151).
pub(super) fn to_client(known: Option<Known>) -> Rule {
    match known {
        Some(
            Known::Expect
            | Known::Host
            | Known::KeepAlive
            | Known::ProxyAuthenticate
            | Known::ProxyConnection
            | Known::Te
            | Known::Trailer
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Via,
        ) => Rule::Drop,
        Some(
            Known::Authorization
            | Known::Connection
            | Known::ContentLength
            | Known::ContentMd5
            | Known::Date
            | Known::MaxForwards
            | Known::Server
            | Known::UserAgent
            | Known::WwwAuthenticate
            | Known::XAmzApigwId
            | Known::XAmznRequestId,
        ) => Rule::Remap,
        _ => Rule::Pass,
    }
}

/// Where trailers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// With the request.
    ToBackend,
    /// With the response.
    ToClient,
}

/// What of a trailer section passes: nothing that would not as a header under its own name, and nothing that a recipient
/// must know before the body (RFC 9110 section 6.5.1).
pub(super) fn passed_trailers(received: HeaderMap, way: Way) -> HeaderMap {
    let passes = |name: &HeaderName| {
        let known = Known::from_name(name.as_str().as_bytes());
        let as_header = match way {
            Way::ToBackend => passes_to_backend(known),
            Way::ToClient => to_client(known) == Rule::Pass,
        };
        let is_early = matches!(
            known,
            Some(
                Known::Authorization
                    | Known::ContentEncoding
                    | Known::ContentType
                    | Known::Host
                    | Known::Range
                    | Known::XApiKey
            )
        ) || matches!(
            name.as_str(),
            "cookie" | "set-cookie" | "content-range" | "cache-control"
        );
        // The `http` crate lets a quote into names.
        let is_token = name.as_str().bytes().all(tidegate_plan::header::is_token_byte);
        as_header && !is_early && is_token
    };
    let mut passed = HeaderMap::with_capacity(received.len());
    for name in received.keys().filter(|name| passes(name)) {
        for value in received.get_all(name) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

/// Static headers of a response of type `HTTP` (OBV-259 to OBV-261).
pub(super) fn static_to_client(name: &[u8]) -> Rule {
    match Known::from_name(name) {
        Some(Known::TransferEncoding) => Rule::Drop,
        Some(
            Known::Authorization
            | Known::Connection
            | Known::ContentLength
            | Known::ContentMd5
            | Known::Date
            | Known::Expect
            | Known::Host
            | Known::MaxForwards
            | Known::ProxyAuthenticate
            | Known::Server
            | Known::Trailer
            | Known::Upgrade
            | Known::UserAgent
            | Known::WwwAuthenticate,
        ) => Rule::Remap,
        _ => Rule::Pass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> Vec<Option<Known>> {
        names
            .iter()
            .map(|name| Known::from_name(name.as_bytes()))
            .collect()
    }

    /// OBV-250, OBV-251.
    #[test]
    fn what_passes_to_a_proxy_s_backend() {
        let passed = [
            "Accept",
            "Accept-Charset",
            "Accept-Encoding",
            "Age",
            "Authorization",
            "Content-Type",
            "Date",
            "Pragma",
            "Range",
            "Referer",
            "User-Agent",
            "Warn",
            "X-Custom",
        ];
        assert!(known(&passed).into_iter().all(passes_to_backend));
        let held = [
            "Connection",
            "Content-Encoding",
            "Content-MD5",
            "Expect",
            "Max-Forwards",
            "Proxy-Authenticate",
            "Server",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Via",
            "WWW-Authenticate",
        ];
        assert!(!known(&held).into_iter().any(passes_to_backend));
    }

    /// OBV-241.
    #[test]
    fn what_a_proxy_s_client_sees_remapped() {
        let remapped = [
            "Connection",
            "Content-Length",
            "Date",
            "Server",
            "x-amzn-RequestId",
        ];
        assert!(
            known(&remapped)
                .into_iter()
                .all(|known| to_client(known) == Rule::Remap)
        );
        let passed = ["Content-Type", "Access-Control-Allow-Origin", "Set-Cookie"];
        assert!(
            known(&passed)
                .into_iter()
                .all(|known| to_client(known) == Rule::Pass)
        );
    }

    /// OBV-259, OBV-260, OBV-261.
    #[test]
    fn static_headers_of_custom_integrations() {
        for name in [
            "Accept",
            "Content-Encoding",
            "Content-Type",
            "TE",
            "Via",
            "Access-Control-Allow-Origin",
        ] {
            assert_eq!(static_to_client(name.as_bytes()), Rule::Pass, "{name}");
        }
        for name in [
            "Authorization",
            "Connection",
            "Date",
            "Host",
            "Trailer",
            "User-Agent",
            "WWW-Authenticate",
        ] {
            assert_eq!(static_to_client(name.as_bytes()), Rule::Remap, "{name}");
        }
        assert_eq!(static_to_client(b"Transfer-Encoding"), Rule::Drop);
    }
}
