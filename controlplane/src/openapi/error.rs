//! Why a document is not imported.

use std::fmt;

use crate::model::Refusal;

/// A place in a document; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in bytes.
    pub column: usize,
}

impl Position {
    /// The place of the byte at `offset`.
    pub(super) fn of(bytes: &[u8], offset: usize) -> Self {
        let before = &bytes[..offset.min(bytes.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        Self { line, column }
    }
}

/// Why a document is not imported; nothing of it is then (OAP-047).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportError {
    /// More bytes than the limit.
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Neither JSON nor YAML.
    Syntax {
        /// Where reading stopped, where that is known.
        position: Option<Position>,
        /// What was wrong there.
        reason: String,
    },
    /// Well-formed, but no document that describes a REST API.
    NotADefinition {
        /// What is missing or not supported.
        reason: String,
    },
    /// A `$ref` that leads back to itself with nothing in between.
    Cycle {
        /// The references in order; the last equals the first.
        path: Vec<String>,
    },
    /// Parts that no API can have; each says where (OAP-046).
    Invalid(Vec<String>),
    /// The warnings, where the caller wants none (OAP-050).
    Warnings(Vec<String>),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(
                f,
                "the document is larger than {limit} bytes, the limit of an import"
            ),
            Self::Syntax {
                position: Some(Position { line, column }),
                reason,
            } => {
                write!(
                    f,
                    "the document cannot be read: line {line}, column {column}: {reason}"
                )
            }
            Self::Syntax {
                position: None,
                reason,
            } => write!(f, "the document cannot be read: {reason}"),
            Self::NotADefinition { reason } => write!(f, "the document describes no REST API: {reason}"),
            Self::Cycle { path } => write!(f, "a reference leads back to itself: {}", path.join(" -> ")),
            Self::Invalid(errors) => list(f, "Errors found during import:", errors),
            Self::Warnings(warnings) => list(f, "Warnings found during import:", warnings),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, lead: &str, lines: &[String]) -> fmt::Result {
    f.write_str(lead)?;
    for line in lines {
        write!(f, "\n\t{line}")?;
    }
    Ok(())
}

impl std::error::Error for ImportError {}

impl From<ImportError> for Refusal {
    fn from(error: ImportError) -> Self {
        Self::bad_request(error.to_string())
    }
}
