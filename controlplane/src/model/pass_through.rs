//! What passes through an integration besides whole messages of HTTP/1.1 (decision D13).

use serde::{Deserialize, Serialize};

use super::{IntegrationType, Refusal};

/// The setting; every member is off unless set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PassThrough {
    /// `Upgrade` reaches the backend, and an answer 101 makes a tunnel of the exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<bool>,
    /// Trailer fields, both ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trailers: Option<bool>,
    /// `prior-knowledge` or `alpn`: the backend is spoken to in HTTP/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2: Option<String>,
    /// `Forwarded` (RFC 7239), towards the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<bool>,
    /// `Via` (RFC 9110 section 7.6.3), both ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<bool>,
}

/// How it is found out that a backend speaks HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendHttp2 {
    /// It is known to, over TLS or not (RFC 9113 section 3.3).
    PriorKnowledge,
    /// The TLS handshake says so; else it is spoken to in HTTP/1.1.
    Alpn,
}

impl BackendHttp2 {
    /// Reads a setting.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "prior-knowledge" => Some(Self::PriorKnowledge),
            "alpn" => Some(Self::Alpn),
            _ => None,
        }
    }
}

impl PassThrough {
    /// The rules it obeys in an integration of this type with this backend.
    pub(super) fn check(&self, kind: Option<IntegrationType>, uri: &str) -> Result<(), Refusal> {
        if kind != Some(IntegrationType::HttpProxy) {
            return Err(Refusal::bad_request(
                "Pass-through can be set for integrations of type 'HTTP_PROXY' only",
            ));
        }
        let Some(http2) = &self.http2 else {
            return Ok(());
        };
        match BackendHttp2::parse(http2) {
            None => Err(Refusal::bad_request(
                "Invalid HTTP/2 mode of pass-through specified. Valid options are prior-knowledge, alpn",
            )),
            Some(BackendHttp2::Alpn)
                if uri
                    .get(..8)
                    .is_none_or(|start| !start.eq_ignore_ascii_case("https://")) =>
            {
                Err(Refusal::bad_request(
                    "HTTP/2 mode alpn of pass-through needs an https:// URI: ALPN is a part of TLS. For a plain \
                     backend, specify prior-knowledge",
                ))
            }
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D13: for `HTTP_PROXY` alone, with a mode that exists and can work.
    #[test]
    fn what_is_refused_says_why() {
        let http2 = |mode: &str| PassThrough {
            http2: Some(mode.into()),
            ..PassThrough::default()
        };
        let proxy = Some(IntegrationType::HttpProxy);
        let refusal =
            |pass: &PassThrough, kind, uri: &str| pass.check(kind, uri).expect_err("refused").message;
        for kind in [
            IntegrationType::Http,
            IntegrationType::Mock,
            IntegrationType::AwsProxy,
        ] {
            let message = refusal(&PassThrough::default(), Some(kind), "http://a.test");
            assert!(message.contains("HTTP_PROXY"), "{message}");
        }
        assert!(refusal(&http2("h2c"), proxy, "http://a.test").contains("prior-knowledge, alpn"));
        assert!(refusal(&http2("alpn"), proxy, "http://a.test").contains("https://"));
        for (mode, uri) in [
            ("alpn", "HTTPS://a.test"),
            ("prior-knowledge", "https://a.test"),
            ("prior-knowledge", "http://${stageVariables.host}"),
        ] {
            assert_eq!(http2(mode).check(proxy, uri), Ok(()), "{mode} {uri}");
        }
    }
}
