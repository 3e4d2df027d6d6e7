//! Where cloud names lead on this installation (C9).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, rules};

/// Where a cloud name leads on this installation (C9).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Six characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// One of [`BINDING_KINDS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// An ARN, or the beginning of one followed by `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// A URL, a path or a name, as the kind has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Settings of the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<BTreeMap<String, String>>,
}

/// The ports that functions' listeners for their workers get where none is named: below those that kernels give to
/// outgoing connections.
pub const RUNTIME_PORTS: std::ops::RangeInclusive<u16> = 26_000..=26_999;

/// What can be bound (C9).
pub const BINDING_KINDS: [&str; 8] = [
    "function",
    "credentials",
    "certificate",
    "link",
    "log-sink",
    "object-store",
    "oidc-issuer",
    "service-endpoint",
];

impl Binding {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["id"];

    /// A kind, a pattern with its `*` at the end only, a target.
    pub fn check(&self) -> Result<(), Refusal> {
        rules::one_of(
            "binding.kind",
            Some(self.kind.as_deref().unwrap_or_default()),
            &BINDING_KINDS,
        )?;
        let pattern = self.pattern.as_deref().unwrap_or_default();
        if pattern.is_empty() || pattern.strip_suffix('*').unwrap_or(pattern).contains('*') {
            return Err(Refusal::bad_request(format!(
                "Invalid binding pattern: {pattern}. Give an ARN, or the beginning of one followed by *"
            )));
        }
        if self.target.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request("A binding needs a target"));
        }
        Ok(())
    }

    /// How well the pattern fits: its length, or `None` where it does not.
    pub fn fit(&self, kind: &str, name: &str) -> Option<usize> {
        let pattern = self
            .pattern
            .as_deref()
            .filter(|_| self.kind.as_deref() == Some(kind))?;
        match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning).then_some(beginning.len()),
            None => (pattern == name).then_some(usize::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(pattern: &str) -> Binding {
        Binding {
            kind: Some("log-sink".into()),
            pattern: Some(pattern.into()),
            target: Some("/var/log/x".into()),
            ..Binding::default()
        }
    }

    /// The longest beginning fits best, the whole name best of all.
    #[test]
    fn binding_fit() {
        let name = "arn:aws:logs:us-east-1:0:log-group:a";
        assert_eq!(binding("arn:aws:logs:*").fit("log-sink", name), Some(13));
        assert_eq!(binding(name).fit("log-sink", name), Some(usize::MAX));
        assert_eq!(binding(name).fit("function", name), None);
        assert_eq!(binding("arn:aws:sns:*").fit("log-sink", name), None);
        assert!(binding("a*b*").check().is_err());
        assert_eq!(binding("a*").check(), Ok(()));
    }
}
