//! What passes through an `HTTP_PROXY` integration besides whole messages of HTTP/1.1 (decision D13).

use std::fmt;

use crate::integration::{IntegrationError, Scheme, Target};

/// The setting; the default lets nothing pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PassThrough {
    /// A request to switch protocols, and the tunnel that comes of it.
    pub upgrade: bool,
    /// Trailer fields, both ways.
    pub trailers: bool,
    /// The backend is spoken to in HTTP/2.
    pub http2: Option<BackendHttp2>,
    /// `Forwarded` (RFC 7239), towards the backend.
    pub forwarded: bool,
    /// `Via` (RFC 9110 section 7.6.3), both ways.
    pub via: bool,
}

/// How it is found out that a backend speaks HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendHttp2 {
    /// It is known to (RFC 9113 section 3.3).
    PriorKnowledge,
    /// The TLS handshake says so; else it is spoken to in HTTP/1.1.
    Alpn,
}

impl PassThrough {
    /// Whether anything passes.
    pub fn is_any(self) -> bool {
        self != PassThrough::default()
    }

    /// Whether this backend can be spoken to so.
    pub(crate) fn check(self, target: &Target) -> Result<(), IntegrationError> {
        match (self.http2, target.scheme()) {
            (Some(BackendHttp2::Alpn), Scheme::Http) => Err(IntegrationError::AlpnWithoutTls),
            (Some(_), _) if target.proxy_protocol().is_some() => Err(IntegrationError::SharedAndNamed),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for PassThrough {
    /// What is on, as the OpenAPI extension spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let http2 = match self.http2 {
            None => "",
            Some(BackendHttp2::PriorKnowledge) => "http2 (prior-knowledge)",
            Some(BackendHttp2::Alpn) => "http2 (alpn)",
        };
        let named = [
            (self.upgrade, "upgrade"),
            (self.trailers, "trailers"),
            (self.http2.is_some(), http2),
            (self.forwarded, "forwarded"),
            (self.via, "via"),
        ];
        let mut before = "";
        for (_, name) in named.iter().filter(|(on, _)| *on) {
            write!(f, "{before}{name}")?;
            before = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProxyProtocol;

    #[test]
    fn what_is_on_is_shown() {
        assert_eq!(PassThrough::default().to_string(), "");
        let pass = PassThrough {
            trailers: true,
            http2: Some(BackendHttp2::PriorKnowledge),
            via: true,
            ..PassThrough::default()
        };
        assert_eq!(pass.to_string(), "trailers, http2 (prior-knowledge), via");
        assert!(pass.is_any() && !PassThrough::default().is_any());
    }

    #[test]
    fn alpn_needs_tls() {
        let pass = PassThrough {
            http2: Some(BackendHttp2::Alpn),
            ..PassThrough::default()
        };
        let target = |scheme| Target::new(scheme, "backend.example", 8080, false).unwrap();
        assert_eq!(pass.check(&target("http")), Err(IntegrationError::AlpnWithoutTls));
        assert_eq!(pass.check(&target("https")), Ok(()));
    }

    /// Clients share the connections of HTTP/2; the PROXY protocol names one client a connection.
    #[test]
    fn shared_connections_name_no_client() {
        let target = Target::new("http", "backend.example", 8080, false)
            .unwrap()
            .with_proxy_protocol(Some(ProxyProtocol::V2));
        let mut pass = PassThrough {
            http2: Some(BackendHttp2::PriorKnowledge),
            ..PassThrough::default()
        };
        assert_eq!(pass.check(&target), Err(IntegrationError::SharedAndNamed));
        pass.http2 = None;
        assert_eq!(pass.check(&target), Ok(()));
    }
}
