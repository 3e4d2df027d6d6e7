//! The header fields that have rules: of the protocol, of the service, of the gateway.

/// A header field that has a rule. Fields are told apart once, when a head is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is named by `Known::name`")]
pub enum Known {
    Accept,
    AcceptCharset,
    AcceptEncoding,
    Age,
    Authorization,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentMd5,
    ContentType,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    MaxForwards,
    Origin,
    Pragma,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Range,
    Referer,
    Server,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    Warn,
    Warning,
    WwwAuthenticate,
    XAmzApigwId,
    XAmznApigatewayApiId,
    XAmznRequestId,
    XAmznTraceId,
    XApiKey,
    XForwardedFor,
    XForwardedPort,
    XForwardedProto,
}

/// How many fields have rules.
pub const COUNT: usize = Known::ALL.len();

impl Known {
    /// Every one, in the order of the variants.
    pub const ALL: [Known; 42] = [
        Known::Accept,
        Known::AcceptCharset,
        Known::AcceptEncoding,
        Known::Age,
        Known::Authorization,
        Known::Connection,
        Known::ContentEncoding,
        Known::ContentLength,
        Known::ContentMd5,
        Known::ContentType,
        Known::Date,
        Known::Expect,
        Known::Forwarded,
        Known::Host,
        Known::Http2Settings,
        Known::KeepAlive,
        Known::MaxForwards,
        Known::Origin,
        Known::Pragma,
        Known::ProxyAuthenticate,
        Known::ProxyAuthorization,
        Known::ProxyConnection,
        Known::Range,
        Known::Referer,
        Known::Server,
        Known::Te,
        Known::Trailer,
        Known::TransferEncoding,
        Known::Upgrade,
        Known::UserAgent,
        Known::Via,
        Known::Warn,
        Known::Warning,
        Known::WwwAuthenticate,
        Known::XAmzApigwId,
        Known::XAmznApigatewayApiId,
        Known::XAmznRequestId,
        Known::XAmznTraceId,
        Known::XApiKey,
        Known::XForwardedFor,
        Known::XForwardedPort,
        Known::XForwardedProto,
    ];

    /// The field's usual spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Known::Accept => "Accept",
            Known::AcceptCharset => "Accept-Charset",
            Known::AcceptEncoding => "Accept-Encoding",
            Known::Age => "Age",
            Known::Authorization => "Authorization",
            Known::Connection => "Connection",
            Known::ContentEncoding => "Content-Encoding",
            Known::ContentLength => "Content-Length",
            Known::ContentMd5 => "Content-MD5",
            Known::ContentType => "Content-Type",
            Known::Date => "Date",
            Known::Expect => "Expect",
            Known::Forwarded => "Forwarded",
            Known::Host => "Host",
            Known::Http2Settings => "HTTP2-Settings",
            Known::KeepAlive => "Keep-Alive",
            Known::MaxForwards => "Max-Forwards",
            Known::Origin => "Origin",
            Known::Pragma => "Pragma",
            Known::ProxyAuthenticate => "Proxy-Authenticate",
            Known::ProxyAuthorization => "Proxy-Authorization",
            Known::ProxyConnection => "Proxy-Connection",
            Known::Range => "Range",
            Known::Referer => "Referer",
            Known::Server => "Server",
            Known::Te => "TE",
            Known::Trailer => "Trailer",
            Known::TransferEncoding => "Transfer-Encoding",
            Known::Upgrade => "Upgrade",
            Known::UserAgent => "User-Agent",
            Known::Via => "Via",
            Known::Warn => "Warn",
            Known::Warning => "Warning",
            Known::WwwAuthenticate => "WWW-Authenticate",
            Known::XAmzApigwId => "x-amz-apigw-id",
            Known::XAmznApigatewayApiId => "X-Amzn-Apigateway-Api-Id",
            Known::XAmznRequestId => "x-amzn-RequestId",
            Known::XAmznTraceId => "X-Amzn-Trace-Id",
            Known::XApiKey => "x-api-key",
            Known::XForwardedFor => "X-Forwarded-For",
            Known::XForwardedPort => "X-Forwarded-Port",
            Known::XForwardedProto => "X-Forwarded-Proto",
        }
    }

    /// Tells a field by its name, in any case. Length and first letter leave at most three candidates.
    pub fn from_name(name: &[u8]) -> Option<Known> {
        let first = *name.first()? | 0x20;
        let bucket = BUCKETS.get(name.len())?;
        let candidates = &bucket.0[..bucket.1];
        candidates
            .iter()
            .copied()
            .find(|known| known.name().as_bytes()[0] | 0x20 == first && known.is(name))
    }

    /// Whether `name` is this field's, in any case.
    pub fn is(self, name: &[u8]) -> bool {
        self.name().as_bytes().eq_ignore_ascii_case(name)
    }

    /// Whether the field speaks of one connection only and is never passed on (RFC 9110 section 7.6.1).
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Known::Connection
                | Known::Http2Settings
                | Known::KeepAlive
                | Known::ProxyAuthenticate
                | Known::ProxyAuthorization
                | Known::ProxyConnection
                | Known::Te
                | Known::Trailer
                | Known::TransferEncoding
                | Known::Upgrade
        )
    }
}

const LONGEST: usize = 25;
const PER_LENGTH: usize = 8;

/// The fields by the length of their names.
static BUCKETS: [([Known; PER_LENGTH], usize); LONGEST] = buckets();

const fn buckets() -> [([Known; PER_LENGTH], usize); LONGEST] {
    let mut table = [([Known::Accept; PER_LENGTH], 0); LONGEST];
    let mut at = 0;
    while at < Known::ALL.len() {
        let bucket = &mut table[Known::ALL[at].name().len()];
        bucket.0[bucket.1] = Known::ALL[at];
        bucket.1 += 1;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_told_by_its_name_in_any_case() {
        for (at, known) in Known::ALL.into_iter().enumerate() {
            assert_eq!(known as usize, at);
            assert_eq!(Known::from_name(known.name().as_bytes()), Some(known));
            assert_eq!(
                Known::from_name(known.name().to_ascii_uppercase().as_bytes()),
                Some(known)
            );
            assert_eq!(
                Known::from_name(known.name().to_ascii_lowercase().as_bytes()),
                Some(known)
            );
        }
        for other in [
            "",
            "X",
            "Hos",
            "Hosts",
            "Content_Length",
            "Content-Length ",
            "X-Amzn-Apigateway-Api-Idd",
        ] {
            assert_eq!(Known::from_name(other.as_bytes()), None, "{other}");
        }
    }
}
