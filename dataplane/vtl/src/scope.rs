//! What a template sees of the request, and what it sets.

use std::borrow::Cow;

/// Where a parameter of the method request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The path, decoded.
    Path,
    /// The query string, decoded.
    Querystring,
    /// The header.
    Header,
}

impl Source {
    /// All sources in the order in which `$input.params(name)` asks them (VTL-266).
    pub const ALL: [Source; 3] = [Source::Path, Source::Querystring, Source::Header];

    /// Its key in `$input.params()` and in overrides.
    pub fn name(self) -> &'static str {
        match self {
            Source::Path => "path",
            Source::Querystring => "querystring",
            Source::Header => "header",
        }
    }

    /// The source of a key.
    pub fn of(name: &str) -> Option<Source> {
        Source::ALL.into_iter().find(|source| source.name() == name)
    }
}

/// Takes names and their values, one pair a call.
pub type Each<'a, 'f> = &'f mut dyn FnMut(Cow<'a, str>, Cow<'a, str>);

/// What a template can read beside the body. The caller implements it over its request; a render borrows what it is
/// given and copies only what the caller had to make.
///
/// A repeated parameter has its last value here (VTL-267).
pub trait Scope {
    /// A parameter of exactly this name.
    fn parameter(&self, source: Source, name: &str) -> Option<Cow<'_, str>>;

    /// All parameters of a source in the request's order, each name once and as the client wrote it.
    fn parameters<'a>(&'a self, source: Source, each: Each<'a, '_>);

    /// A stage variable.
    fn stage_variable(&self, name: &str) -> Option<Cow<'_, str>>;

    /// All stage variables.
    fn stage_variables<'a>(&'a self, each: Each<'a, '_>);

    /// A context variable by the parts of its name behind `$context`, such as `["identity", "sourceIp"]`. Not asked
    /// for overrides, nor for variables that only access logs have.
    fn context(&self, name: &[&str]) -> Option<Cow<'_, str>>;

    /// The variables of a group, such as `["identity"]` or `["authorizer"]`, that have a value; false for what is
    /// no group that a template may take as a map. `["authorizer", "claims"]` is none (VTL-322).
    fn context_group<'a>(&'a self, name: &[&str], each: Each<'a, '_>) -> bool;
}

/// Whether a `$context` variable exists in access logs only, or in gateway responses (VTL-323, VTL-350). Templates
/// read nothing there.
pub(crate) fn is_hidden(name: &[&str]) -> bool {
    matches!(
        name.first(),
        Some(
            &"authorize"
                | &"authenticate"
                | &"customDomain"
                | &"error"
                | &"integration"
                | &"integrationLatency"
                | &"integrationStatus"
                | &"responseLatency"
                | &"responseLength"
                | &"status"
                | &"waf"
                | &"xrayTraceId"
        )
    )
}
