//! What answers a method: a backend, a fixed answer, a known failure.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tidegate_vtl::path::{JsonPath, PathError};

use crate::binding::{FunctionArn, NoFunction};
use crate::custom::Custom;
use crate::header::{HeaderName, HeaderValue};
use crate::names::{NameError, Status, Verb};
use crate::pass_through::PassThrough;

/// What answers a method.
#[derive(Debug, Clone)]
pub enum Integration {
    /// Type `HTTP_PROXY`: request and response pass through.
    HttpProxy(Box<HttpBackend>),
    /// Type `HTTP` in pass-through: the response goes back under a selected status, without its headers.
    Http(Box<HttpBackend>),
    /// Type `MOCK` with a fixed answer.
    Mock(Box<Mock>),
    /// Types `HTTP`, `AWS` and `MOCK` whose requests or answers are reshaped.
    Custom(Box<Custom>),
    /// Type `AWS_PROXY`: a Lambda function answers.
    LambdaProxy(Box<Lambda>),
    /// What the service accepts and fails at run time: answers 500. The reason is for the log.
    Broken(Box<str>),
}

impl Integration {
    /// Whether messages go through as they are, their coding included (decision D13).
    pub fn is_pass_through(&self) -> bool {
        matches!(self, Integration::HttpProxy(backend) if backend.pass_through.is_some())
    }
}

/// Why an integration cannot be served as given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum IntegrationError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Function(#[from] NoFunction),
    #[error("scheme `{0}` is not http or https")]
    Scheme(String),
    #[error("host `{0}` is neither a DNS name nor an IP address")]
    Host(String),
    #[error("port {0} is not between 1 and 65535")]
    Port(u32),
    #[error("the URI uses `{{{0}}}`, which no mapping `integration.request.path.{0}` fills")]
    UnmappedPathParameter(String),
    #[error("`integration.request.{0}.{1}` is mapped twice")]
    MappedTwice(MappingTarget, String),
    #[error("the gateway sets `{0}` itself; a mapping onto it fails every request (OBV-255)")]
    ReservedHeader(String),
    #[error("the URI's path must begin with `/` or be empty, not `{0}`")]
    PathStart(String),
    #[error("literal `{0}` of the URI holds a byte that cannot stand in a request target")]
    UriLiteral(String),
    #[error("response pattern `{0}` comes after the default, which takes everything")]
    AfterDefault(String),
    #[error("HTTP/2 by ALPN needs a backend behind TLS")]
    AlpnWithoutTls,
    #[error("clients share connections of HTTP/2, and the PROXY protocol names one client a connection")]
    SharedAndNamed,
    #[error(
        "a method that passes upgrades, trailers or HTTP/2 through cannot map bodies or repeated parameters"
    )]
    ThroughAndRich,
    #[error("time-out of {0} ms is not between {1} and {2} ms")]
    Timeout(u32, u32, u32),
}

/// A call of a Lambda function. Where the function is, bindings say at run time (decision C9).
#[derive(Debug, Clone)]
pub struct Lambda {
    /// The function.
    pub function: FunctionArn,
    /// The role whose credentials sign the call (RES-100); `None`: the function's own permission lets it be called.
    pub credentials: Option<Box<str>>,
    /// How long the call takes at most.
    pub timeout: Duration,
}

impl Lambda {
    /// Checks a call. `timeout_ms` 0 stands for the default.
    ///
    /// # Errors
    /// When the name is no function's ARN, or the time-out out of bounds.
    pub fn new(function: &str, credentials: &str, timeout_ms: u32) -> Result<Self, IntegrationError> {
        Ok(Lambda {
            function: FunctionArn::parse(function, "", "")?,
            credentials: (!credentials.is_empty()).then(|| credentials.into()),
            timeout: timeout(timeout_ms)?,
        })
    }
}

/// Where a backend listens. Equal targets share connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    scheme: Scheme,
    host: Host,
    port: NonZeroU16,
    insecure_skip_verification: bool,
    proxy_protocol: Option<ProxyProtocol>,
}

/// A version of the PROXY protocol, by whose header connections to a backend begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The place of a [`Target`] in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetIndex(pub u32);

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS.
    Https,
}

/// A backend's host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name, in lower case, without a trailing dot.
    Name(Box<str>),
    /// An address, which needs no resolution.
    Address(IpAddr),
}

impl Target {
    /// Checks a backend's address. `port` 0 stands for the scheme's own.
    pub fn new(
        scheme: &str,
        host: &str,
        port: u32,
        insecure_skip_verification: bool,
    ) -> Result<Self, IntegrationError> {
        let scheme = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            _ => return Err(IntegrationError::Scheme(clip(scheme))),
        };
        let number = if port == 0 {
            u32::from(scheme.default_port())
        } else {
            port
        };
        let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
        let port = port.ok_or(IntegrationError::Port(number))?;
        Ok(Target {
            scheme,
            host: Host::parse(host)?,
            port,
            insecure_skip_verification,
            proxy_protocol: None,
        })
    }

    /// The same, with connections that name their client.
    #[must_use]
    pub fn with_proxy_protocol(self, version: Option<ProxyProtocol>) -> Self {
        Target {
            proxy_protocol: version,
            ..self
        }
    }

    /// By which header connections begin, if by any. Such a connection is one client's.
    pub fn proxy_protocol(&self) -> Option<ProxyProtocol> {
        self.proxy_protocol
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// Whether any certificate of the backend is accepted (`tlsConfig.insecureSkipVerification`).
    pub fn insecure_skip_verification(&self) -> bool {
        self.insecure_skip_verification
    }

    /// What goes into `Host` (OBV-237): brackets round an IPv6 address, the port where it is not the scheme's.
    pub fn authority(&self) -> String {
        let port = self.port.get();
        let host = match &self.host {
            Host::Name(name) => name.to_string(),
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
            Host::Address(address) => address.to_string(),
        };
        if port == self.scheme.default_port() {
            host
        } else {
            format!("{host}:{port}")
        }
    }
}

impl Scheme {
    /// 80 or 443.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }

    /// The scheme as written in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

impl Host {
    /// Takes an IP address (IPv6 with or without brackets) or a DNS name of at most 253 bytes. Underscores are
    /// let through: container networks use them.
    pub fn parse(text: &str) -> Result<Self, IntegrationError> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Host::Address(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // A name that ends in a number is an address gone wrong, and resolvers disagree about it.
        let ends_in_number = name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if name.len() > 253 || !name.split('.').all(is_label) || ends_in_number {
            return Err(IntegrationError::Host(clip(text)));
        }
        Ok(Host::Name(name.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(address) => address.fmt(f),
        }
    }
}

/// The HTTP method towards the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendMethod {
    /// The client's.
    Same,
    /// Always this one.
    Fixed(Verb),
}

/// A call to an HTTP backend.
#[derive(Debug, Clone)]
pub struct HttpBackend {
    target: TargetIndex,
    method: BackendMethod,
    uri: Box<[UriPart]>,
    mappings: Box<[Mapping]>,
    responses: Box<[ResponseSelection]>,
    timeout: Duration,
    pass_through: Option<PassThrough>,
    rich: bool,
}

/// A piece of the URI's path and query, with its placeholder resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UriPart {
    /// Text to send as it stands.
    Literal(Box<str>),
    /// The value of the mapping at this place of [`HttpBackend::mappings`], to be encoded as a path value.
    Mapped(u16),
    /// The value of the path parameter of this name that a mapping or a template has set, to be encoded as a path value.
    Named(Box<str>),
    /// The value of a stage variable, which may be the canary's. It is the operator's text and stands as it is.
    StageVariable(Box<str>),
}

/// A piece of the URI as a definition gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UriPartSpec {
    /// Text to send as it stands.
    Literal(String),
    /// `{name}`: the value of the mapping onto `integration.request.path.{name}`.
    PathParameter(String),
    /// `${stageVariables.name}`.
    StageVariable(String),
}

/// Which part of the backend's request a mapping fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingTarget {
    /// A `{name}` of the URI.
    Path,
    /// A query parameter.
    Query,
    /// A header.
    Header,
}

impl fmt::Display for MappingTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MappingTarget::Path => "path",
            MappingTarget::Query => "querystring",
            MappingTarget::Header => "header",
        })
    }
}

/// Where a mapping takes its value. Source names are case-sensitive (OBV-283); a missing source adds nothing
/// (OBV-284).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappingSource {
    /// A path parameter of the route; `capture` is its place among the route's parameters, filled in by the
    /// plan's builder, and `None` where the route has no such parameter.
    Path {
        /// The parameter's name.
        name: Box<str>,
        /// Its place among the route's parameters.
        capture: Option<u8>,
    },
    /// The last value of a query parameter (OBV-282).
    Query(Box<str>),
    /// All values of a query parameter.
    Queries(Box<str>),
    /// A header of the client's request.
    Header(Box<str>),
    /// All values of a header of the client's request.
    Headers(Box<str>),
    /// The whole body.
    Body,
    /// What a JSONPath finds in the body.
    BodyPath(BodyPath),
    /// A fixed text.
    Literal(Box<str>),
    /// A stage variable.
    StageVariable(Box<str>),
    /// A `$context` variable, without the prefix.
    Context(Box<str>),
}

/// A place in a JSON body.
#[derive(Debug, Clone)]
pub struct BodyPath(Arc<JsonPath>);

impl BodyPath {
    /// Reads a JSONPath, `$` before it or not: `petstore.pets[0].name` (VTL-104).
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        JsonPath::compile(text).map(|path| Self(Arc::new(path)))
    }

    /// The path.
    pub fn path(&self) -> &JsonPath {
        &self.0
    }
}

impl PartialEq for BodyPath {
    fn eq(&self, other: &Self) -> bool {
        self.0.text() == other.0.text()
    }
}

impl Eq for BodyPath {}

impl MappingSource {
    /// Whether more is needed than a head: the body, or several values in one place.
    pub fn is_rich(&self) -> bool {
        matches!(
            self,
            MappingSource::Queries(_)
                | MappingSource::Headers(_)
                | MappingSource::Body
                | MappingSource::BodyPath(_)
        )
    }

    /// Whether it reads the body.
    pub fn reads_body(&self) -> bool {
        matches!(self, MappingSource::Body | MappingSource::BodyPath(_))
    }

    /// `method.request.path.{name}`, to be resolved by the plan's builder.
    pub fn path(name: &str) -> Self {
        MappingSource::Path {
            name: name.into(),
            capture: None,
        }
    }
}

/// `integration.request.{target}.{name}` from a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    target: MappingTarget,
    name: Box<str>,
    source: MappingSource,
}

impl Mapping {
    /// Checks a mapping: a header's name must be a token and not one that the gateway alone may set (OBV-255),
    /// and a literal for a header must be a value.
    pub fn new(target: MappingTarget, name: &str, source: MappingSource) -> Result<Self, IntegrationError> {
        if target == MappingTarget::Header {
            HeaderName::parse(name)?;
            if name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(IntegrationError::ReservedHeader(name.to_owned()));
            }
            if let MappingSource::Literal(text) = &source {
                HeaderValue::parse(text.as_bytes())?;
            }
        }
        if name.is_empty() {
            return Err(NameError::new("mapping target", "a name after the last dot", name).into());
        }
        Ok(Mapping {
            target,
            name: name.into(),
            source,
        })
    }

    /// Fills in the place of a path parameter, now that the route's are known.
    pub(crate) fn resolve_capture(&mut self, names: &[Box<str>]) {
        if let MappingSource::Path { name, capture } = &mut self.source {
            *capture = names
                .iter()
                .position(|other| other == name)
                .and_then(|at| u8::try_from(at).ok());
        }
    }

    /// What it fills.
    pub fn target(&self) -> MappingTarget {
        self.target
    }

    /// The name within what it fills.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its value comes from.
    pub fn source(&self) -> &MappingSource {
        &self.source
    }
}

/// An integration response of type `HTTP`: chosen by the backend's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseSelection {
    /// A regular expression over the backend's status as text; `None` is the default, which takes the rest.
    pub pattern: Option<Box<str>>,
    /// The status towards the client.
    pub status: Status,
    /// Static response headers.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
}

/// The shortest time-out an integration may set (QUO-067), in milliseconds.
pub const TIMEOUT_MIN_MS: u32 = 50;
/// The longest time-out an integration may set, in milliseconds: five minutes, which the service grants on request.
pub const TIMEOUT_MAX_MS: u32 = 300_000;
/// The time-out where an integration sets none (QUO-067), in milliseconds.
pub const TIMEOUT_DEFAULT_MS: u32 = 29_000;

impl HttpBackend {
    /// Checks a call and resolves the placeholders of its URI. `timeout_ms` 0 stands for the default.
    pub fn new(
        target: TargetIndex,
        method: BackendMethod,
        uri: Vec<UriPartSpec>,
        mappings: Vec<Mapping>,
        responses: Vec<ResponseSelection>,
        timeout_ms: u32,
    ) -> Result<Self, IntegrationError> {
        for (at, one) in mappings.iter().enumerate() {
            let same = |other: &Mapping| {
                other.target == one.target
                    && match one.target {
                        MappingTarget::Header => other.name.eq_ignore_ascii_case(&one.name),
                        MappingTarget::Path | MappingTarget::Query => other.name == one.name,
                    }
            };
            if mappings[..at].iter().any(same) {
                return Err(IntegrationError::MappedTwice(one.target, one.name.to_string()));
            }
        }
        if let Some(UriPartSpec::Literal(first)) = uri.first()
            && !first.starts_with(['/', '?'])
        {
            return Err(IntegrationError::PathStart(clip(first)));
        }
        let uri = uri
            .into_iter()
            .map(|part| resolve(part, &mappings))
            .collect::<Result<_, _>>()?;
        if let Some(at) = responses.iter().position(|one| one.pattern.is_none())
            && let Some(late) = responses.get(at + 1)
        {
            return Err(IntegrationError::AfterDefault(
                late.pattern.as_deref().unwrap_or_default().to_owned(),
            ));
        }
        Ok(HttpBackend {
            rich: mappings.iter().any(|one| one.source.is_rich()),
            target,
            method,
            uri,
            mappings: mappings.into(),
            responses: responses.into(),
            timeout: timeout(timeout_ms)?,
            pass_through: None,
        })
    }

    /// A call that mappings and templates fill: they are the [`Custom`]'s, and what fills a placeholder is known when a
    /// request runs. `timeout_ms` 0 stands for the default.
    ///
    /// # Errors
    /// Where the call cannot be made as given.
    pub fn behind_templates(
        target: TargetIndex,
        method: BackendMethod,
        uri: Vec<UriPartSpec>,
        timeout_ms: u32,
    ) -> Result<Self, IntegrationError> {
        let names: Vec<_> = uri
            .into_iter()
            .map(|part| match part {
                UriPartSpec::PathParameter(name) => Ok(UriPart::Named(name.into())),
                other => resolve(other, &[]),
            })
            .collect::<Result<_, _>>()?;
        let mut backend = HttpBackend::new(target, method, vec![], vec![], vec![], timeout_ms)?;
        if let Some(UriPart::Literal(first)) = names.first()
            && !first.starts_with(['/', '?'])
        {
            return Err(IntegrationError::PathStart(clip(first)));
        }
        backend.uri = names.into();
        Ok(backend)
    }

    /// Lets more pass than whole messages of HTTP/1.1, to this backend.
    ///
    /// # Errors
    /// Where such a backend cannot be spoken to so.
    pub fn with_pass_through(
        self,
        pass_through: PassThrough,
        target: &Target,
    ) -> Result<Self, IntegrationError> {
        pass_through.check(target)?;
        if pass_through.is_any() && self.rich {
            return Err(IntegrationError::ThroughAndRich);
        }
        Ok(HttpBackend {
            pass_through: pass_through.is_any().then_some(pass_through),
            ..self
        })
    }

    /// What passes besides whole messages of HTTP/1.1; `None` where nothing does.
    pub fn pass_through(&self) -> Option<PassThrough> {
        self.pass_through
    }

    /// Whether some mapping needs more than a head: see [`MappingSource::is_rich`].
    pub fn is_rich(&self) -> bool {
        self.rich
    }

    /// Which of the plan's targets is called.
    pub fn target(&self) -> TargetIndex {
        self.target
    }

    /// The HTTP method towards the backend.
    pub fn method(&self) -> BackendMethod {
        self.method
    }

    /// Path and query, in order. Empty stands for `/`; the configured URI is called as it is (OBV-234).
    pub fn uri(&self) -> &[UriPart] {
        &self.uri
    }

    /// The parameter mappings.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// The integration responses, in the order in which they are tried.
    pub fn responses(&self) -> &[ResponseSelection] {
        &self.responses
    }

    /// How long the backend may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Fills in the places of path parameters, now that the route's are known.
    pub(crate) fn resolve_captures(&mut self, names: &[Box<str>]) {
        for mapping in &mut self.mappings {
            mapping.resolve_capture(names);
        }
    }
}

fn resolve(part: UriPartSpec, mappings: &[Mapping]) -> Result<UriPart, IntegrationError> {
    match part {
        UriPartSpec::Literal(text) => {
            // Spaces and control bytes would end the request line, `#` is never sent.
            if text.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'#') {
                return Err(IntegrationError::UriLiteral(clip(&text)));
            }
            Ok(UriPart::Literal(text.into()))
        }
        UriPartSpec::PathParameter(name) => mappings
            .iter()
            .position(|one| one.target == MappingTarget::Path && *one.name == *name)
            .and_then(|at| u16::try_from(at).ok())
            .map(UriPart::Mapped)
            .ok_or(IntegrationError::UnmappedPathParameter(name)),
        UriPartSpec::StageVariable(name) => Ok(UriPart::StageVariable(name.into())),
    }
}

fn timeout(ms: u32) -> Result<Duration, IntegrationError> {
    match ms {
        0 => Ok(Duration::from_millis(TIMEOUT_DEFAULT_MS.into())),
        TIMEOUT_MIN_MS..=TIMEOUT_MAX_MS => Ok(Duration::from_millis(ms.into())),
        _ => Err(IntegrationError::Timeout(ms, TIMEOUT_MIN_MS, TIMEOUT_MAX_MS)),
    }
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mock {
    /// The status towards the client.
    pub status: Status,
    /// Static response headers.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
    /// The media type, where there is one.
    pub content_type: Option<HeaderValue>,
    /// The body.
    pub body: Box<[u8]>,
}

/// What an error message quotes of a refused text.
fn clip(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(uri: Vec<UriPartSpec>, mappings: Vec<Mapping>) -> Result<HttpBackend, IntegrationError> {
        HttpBackend::new(TargetIndex(0), BackendMethod::Same, uri, mappings, Vec::new(), 0)
    }

    fn literal(text: &str) -> UriPartSpec {
        UriPartSpec::Literal(text.to_owned())
    }

    /// OBV-237
    #[test]
    fn the_authority_is_what_the_backend_expects_as_host() {
        let authority = |scheme, host, port| Target::new(scheme, host, port, false).unwrap().authority();
        assert_eq!(authority("http", "Example.COM.", 0), "example.com");
        assert_eq!(authority("https", "example.com", 443), "example.com");
        assert_eq!(authority("https", "example.com", 80), "example.com:80");
        assert_eq!(authority("http", "::1", 8080), "[::1]:8080");
        assert_eq!(authority("http", "[::1]", 0), "[::1]");
        assert_eq!(authority("http", "127.0.0.1", 9000), "127.0.0.1:9000");
    }

    #[test]
    fn hosts_that_resolvers_read_differently_are_refused() {
        for bad in [
            "",
            ".",
            "a..b",
            "a b",
            "a/b",
            "127.1",
            "1.2.3.4.5",
            "0x7f.1",
            "a:80",
            "a@b",
            "${x}",
            "é.com",
        ] {
            let long_label = Host::parse(bad);
            assert!(long_label.is_err(), "{bad}: {long_label:?}");
        }
        assert!(Host::parse(&"a".repeat(64)).is_err());
        assert!(Host::parse("pet_store.internal").is_ok());
        assert_eq!(
            Target::new("ftp", "a", 0, false).unwrap_err(),
            IntegrationError::Scheme("ftp".into())
        );
        assert_eq!(
            Target::new("http", "a", 65_536, false).unwrap_err(),
            IntegrationError::Port(65_536)
        );
    }

    /// OBV-288
    #[test]
    fn a_placeholder_of_the_uri_finds_its_mapping() {
        let map = |name: &str| Mapping::new(MappingTarget::Path, name, MappingSource::path(name)).unwrap();
        let uri = vec![literal("/a/"), UriPartSpec::PathParameter("b".into())];
        let made = backend(uri.clone(), vec![map("a"), map("b")]).unwrap();
        assert_eq!(made.uri()[1], UriPart::Mapped(1));
        assert_eq!(made.timeout(), Duration::from_millis(29_000));
        assert_eq!(
            backend(uri, vec![map("a")]).unwrap_err(),
            IntegrationError::UnmappedPathParameter("b".into())
        );
        assert_eq!(
            backend(Vec::new(), vec![map("a"), map("a")]).unwrap_err(),
            IntegrationError::MappedTwice(MappingTarget::Path, "a".into())
        );
    }

    #[test]
    fn a_uri_cannot_split_the_request() {
        for bad in ["/a b", "/a\r\n", "/a#b", "/a\0"] {
            assert!(
                matches!(
                    backend(vec![literal(bad)], vec![]),
                    Err(IntegrationError::UriLiteral(_))
                ),
                "{bad:?}"
            );
        }
        assert!(matches!(
            backend(vec![literal("a")], vec![]),
            Err(IntegrationError::PathStart(_))
        ));
        assert!(backend(vec![literal("?x=1")], vec![]).is_ok());
    }

    /// OBV-255
    #[test]
    fn a_mapping_onto_the_framing_headers_is_told_apart() {
        for name in ["Content-Length", "transfer-encoding"] {
            let made = Mapping::new(MappingTarget::Header, name, MappingSource::Literal("1".into()));
            assert_eq!(made, Err(IntegrationError::ReservedHeader(name.into())));
        }
        let split = MappingSource::Literal("a\r\nb: c".into());
        assert!(Mapping::new(MappingTarget::Header, "X", split).is_err());
    }

    /// QUO-067
    #[test]
    fn the_timeout_has_bounds() {
        assert!(timeout(49).is_err() && timeout(300_001).is_err());
        assert_eq!(timeout(50), Ok(Duration::from_millis(50)));
    }

    #[test]
    fn nothing_is_selected_after_the_default() {
        let select = |pattern: Option<&str>| ResponseSelection {
            pattern: pattern.map(Into::into),
            status: Status::OK,
            headers: Box::default(),
        };
        let with = |list| HttpBackend::new(TargetIndex(0), BackendMethod::Same, vec![], vec![], list, 0);
        assert!(with(vec![select(Some("4.*")), select(None)]).is_ok());
        assert!(with(vec![select(None), select(Some("4.*"))]).is_err());
    }
}
