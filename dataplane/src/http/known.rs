//! The header fields that have rules: of the protocol, of the service, of the gateway.

use std::array;
use std::sync::LazyLock;

use http::HeaderName;

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

    /// The field's name in an HTTP/2 message.
    pub fn header_name(self) -> HeaderName {
        HEADER_NAMES[self as usize].clone()
    }

    /// Tells a field by its name, in any case. One slot of a table that is without collisions can hold it.
    pub fn from_name(name: &[u8]) -> Option<Known> {
        if name.is_empty() || name.len() > LONGEST {
            return None;
        }
        let slot = &SLOTS[slot_of(name)];
        slot.matches(name).then_some(slot.known)
    }

    /// Whether `name` is this field's, in any case.
    pub fn is(self, name: &[u8]) -> bool {
        Known::from_name(name) == Some(self)
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

/// The length of the longest name.
const LONGEST: usize = 24;

/// A name as it is compared: eight bytes at a time.
#[derive(Debug, Clone, Copy)]
struct Slot {
    known: Known,
    /// 0 where no name has this slot.
    length: usize,
    /// In lower case.
    name: [u8; LONGEST],
    /// 0x20 for each letter: the bit in which its two cases differ.
    case: [u8; LONGEST],
}

const SLOT_COUNT: usize = 128;

/// The names as HTTP/2 has them: cloning one that is static copies a few words.
static HEADER_NAMES: LazyLock<[HeaderName; COUNT]> = LazyLock::new(|| {
    array::from_fn(|at| {
        let slot = &SLOTS[slot_of(Known::ALL[at].name().as_bytes())];
        HeaderName::from_static(std::str::from_utf8(&slot.name[..slot.length]).unwrap_or_default())
    })
});

/// The fields, each where its name says.
static SLOTS: [Slot; SLOT_COUNT] = slots();

/// Where a name stands if it is known. The factors were searched for; `slots` checks that no two names meet.
const fn slot_of(name: &[u8]) -> usize {
    let length = name.len();
    let first = (name[0] | 0x20) as usize;
    let middle = (name[length / 2] | 0x20) as usize;
    let last = (name[length - 1] | 0x20) as usize;
    (length * 19 + first * 58 + last * 13 + middle * 15) % SLOT_COUNT
}

const fn slots() -> [Slot; SLOT_COUNT] {
    let mut table = [Slot {
        known: Known::Accept,
        length: 0,
        name: [0; LONGEST],
        case: [0; LONGEST],
    }; SLOT_COUNT];
    let mut at = 0;
    while at < Known::ALL.len() {
        let known = Known::ALL[at];
        let name = known.name().as_bytes();
        let slot = &mut table[slot_of(name)];
        assert!(slot.length == 0, "two names in one slot");
        slot.known = known;
        slot.length = name.len();
        let mut byte = 0;
        while byte < name.len() {
            slot.name[byte] = name[byte].to_ascii_lowercase();
            slot.case[byte] = if name[byte].is_ascii_alphabetic() { 0x20 } else { 0 };
            byte += 1;
        }
        at += 1;
    }
    table
}

impl Slot {
    #[inline]
    fn matches(&self, name: &[u8]) -> bool {
        let length = self.length;
        if name.len() != length {
            return false;
        }
        match length {
            0..4 => (0..length).all(|at| (name[at] ^ self.name[at]) & !self.case[at] == 0),
            4..8 => self.word::<4>(name, 0) & self.word::<4>(name, length - 4),
            8..16 => self.word::<8>(name, 0) & self.word::<8>(name, length - 8),
            _ => self.word::<8>(name, 0) & self.word::<8>(name, 8) & self.word::<8>(name, length - 8),
        }
    }

    /// Whether the `N` bytes from `at` are those of the name.
    #[inline]
    fn word<const N: usize>(&self, name: &[u8], at: usize) -> bool {
        let load = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..N].copy_from_slice(&bytes[at..at + N]);
            u64::from_le_bytes(word)
        };
        (load(name) ^ load(&self.name)) & !load(&self.case) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_told_by_its_name_in_any_case() {
        for (at, known) in Known::ALL.into_iter().enumerate() {
            assert_eq!(known as usize, at);
            assert_eq!(known.header_name().as_str(), known.name().to_ascii_lowercase());
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
            // Differs from a known name in the bit of the case alone, where the known name has no letter.
            "Content\rLength",
            "Content-MD\x15",
            "Xost",
            "Host\0",
        ] {
            assert_eq!(Known::from_name(other.as_bytes()), None, "{other}");
        }
    }
}
