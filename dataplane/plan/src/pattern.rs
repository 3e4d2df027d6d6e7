//! Selection patterns: regular expressions with the meaning that Java gives them (INT-113 to INT-116).

use std::fmt;
use std::sync::Arc;

use fancy_regex::RegexBuilder;
use regex::Regex;
use thiserror::Error;

/// How often a pattern that needs a backtracking engine may step back before it counts as not matching (INT-O20).
const BACKTRACKS: usize = 100_000;
/// Bytes that a compiled pattern may take.
const COMPILED_BYTES: usize = 1 << 20;

/// A pattern that must match the whole of a text: `2\d{2}`, `.*Malformed.*`. A dot matches no line break.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    engine: Engine,
}

#[derive(Clone)]
enum Engine {
    /// In time linear in the text, for all that needs no more.
    Linear(Regex),
    /// Look-around, back-references, possessive quantifiers.
    Backtracking(Arc<fancy_regex::Regex>),
}

/// Why a text is no pattern (INT-O21).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{pattern}` cannot be read as a regular expression: {reason}")]
pub struct PatternError {
    /// The pattern, cut where it is long.
    pub pattern: String,
    /// What is wrong.
    pub reason: String,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Where it is no regular expression, or one that is too large.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let whole = format!(r"\A(?:{text})\z");
        let linear = regex::RegexBuilder::new(&whole)
            .size_limit(COMPILED_BYTES)
            .build();
        let engine = match linear {
            Ok(regex) => Engine::Linear(regex),
            Err(error) => {
                let fancy = RegexBuilder::new(&whole)
                    .backtrack_limit(BACKTRACKS)
                    .delegate_size_limit(COMPILED_BYTES)
                    .build();
                // The first engine's reason is the better worded one.
                let fancy = fancy.map_err(|_| PatternError {
                    pattern: text.chars().take(120).collect(),
                    reason: last_line(&error.to_string()),
                })?;
                Engine::Backtracking(Arc::new(fancy))
            }
        };
        Ok(Self {
            text: text.into(),
            engine,
        })
    }

    /// Whether all of a text matches. A pattern that runs out of steps does not.
    pub fn is_match(&self, text: &str) -> bool {
        match &self.engine {
            Engine::Linear(regex) => regex.is_match(text),
            Engine::Backtracking(regex) => regex.is_match(text).unwrap_or(false),
        }
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// The reason at the end of a message that shows the place first.
fn last_line(message: &str) -> String {
    let line = message.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INT-113, INT-114, INT-116, RES-114, OBV-214, OBV-227.
    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, matches) in [
            (r"2\d{2}", "204", true),
            (r"2\d{2}", "2040", false),
            ("20", "200", false),
            ("4..|5..", "503", true),
            ("4..|5..", "5031", false),
            (".*four hundred.*", "Error: Raising four hundred now", true),
            ("four hundred", "Error: Raising four hundred now", false),
            (".*Invalid request.*", "an Invalid Request came", false),
            (".+", "line1\nline2", false),
            (r"(\n|.)+", "line1\nline2", true),
            (".*", "", true),
            ("Malformed*", "Malformed input ...", false),
        ] {
            assert_eq!(
                Pattern::parse(pattern).unwrap().is_match(text),
                matches,
                "{pattern} {text:?}"
            );
        }
    }

    /// INT-O20: what only a backtracking engine can do works, and cannot run for ever.
    #[test]
    fn look_around_and_back_references() {
        let unlike = Pattern::parse("^(?!.*timeout).*$").unwrap();
        assert!(unlike.is_match("refused") && !unlike.is_match("a timeout"));
        assert!(Pattern::parse(r"(\w)\1").unwrap().is_match("aa"));
        let endless = Pattern::parse(r"(?=(a+))(a+)+\1b").unwrap();
        assert!(!endless.is_match(&"a".repeat(3000)));
    }

    /// INT-O21.
    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        for wrong in ["(", "[a", "a{2", "*"] {
            if let Err(error) = Pattern::parse(wrong) {
                assert_eq!(error.pattern, wrong);
                assert!(
                    !error.reason.is_empty() && !error.reason.contains('\n'),
                    "{error}"
                );
            } else {
                assert_eq!(wrong, "a{2", "{wrong} was taken");
            }
        }
        assert!(Pattern::parse("((a{100}){100}){100}").is_err());
    }
}
