//! Why a template cannot be stored, and why a render fails.

use thiserror::Error;

use crate::json::JsonError;
use crate::path::PathError;

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What is wrong, and what to write.
    pub message: String,
}

/// What the author of a template should know of: when it is parsed, what will fail in a render (the service stores it
/// all the same); when it is rendered, what had no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What it is about.
    pub message: String,
}

/// Why a render failed. Nothing of its output or overrides is left.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {kind}")]
pub struct RenderError {
    /// The line of the template, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What happened.
    pub kind: ErrorKind,
}

/// What makes a render fail.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `$input.json` of a body that is not JSON: 400 for a request, 500 for a response (VTL-270, VTL-390).
    #[error("Could not parse request body into json: {0}")]
    Body(JsonError),
    /// `$util.parseJson` of what is not JSON.
    #[error("`$util.parseJson`: {0}")]
    Json(JsonError),
    /// The second assignment to one override (VTL-142, VTL-391).
    #[error("`{0}` is overridden twice; collect the value in a variable and assign it once")]
    OverriddenTwice(String),
    /// A status override that is no status.
    #[error("`$context.responseOverride.status` is `{0}`; it must be a number from 100 to 599")]
    Status(String),
    /// A path that is none.
    #[error("{0}")]
    Path(PathError),
    /// A pattern that cannot be compiled, or a replacement that names no group.
    #[error("the regular expression `{pattern}` fails: {reason}")]
    Regex {
        /// The pattern, cut where it is long.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// A method whose arguments make no sense, such as a `substring` beyond the end.
    #[error("`{method}` fails: {reason}")]
    Method {
        /// The method's name.
        method: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A bound of the [`Budget`](crate::Budget).
    #[error("the template goes over its limit of {0}")]
    OverLimit(Bound),
}

/// A bound of the [`Budget`](crate::Budget).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the budget's fields")]
pub enum Bound {
    Steps,
    Output,
    Memory,
    Depth,
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Bound::Steps => "steps (`template-steps`)",
            Bound::Output => "output (`template-output-bytes`)",
            Bound::Memory => "memory (`template-memory-bytes`)",
            Bound::Depth => "depth (`template-depth`)",
        })
    }
}
