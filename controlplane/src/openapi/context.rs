//! What every part of an import needs: the document, the options, and where remarks go.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{ImportOptions, error::ImportError};

/// Which specification a document follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Swagger 2.0.
    Swagger2,
    /// OpenAPI 3.0.
    OpenApi3,
}

/// An import under way.
pub(super) struct Context<'a> {
    /// The document.
    pub(super) root: &'a Map<String, Value>,
    /// Its specification.
    pub(super) version: Version,
    /// The caller's wishes.
    pub(super) options: &'a ImportOptions,
    warnings: Vec<String>,
    seen: BTreeSet<String>,
    errors: Vec<String>,
    foreign: BTreeSet<String>,
    /// Bytes that references may still unfold into.
    unfold: usize,
}

impl<'a> Context<'a> {
    pub(super) fn new(root: &'a Map<String, Value>, version: Version, options: &'a ImportOptions) -> Self {
        Self {
            root,
            version,
            options,
            warnings: Vec::new(),
            seen: BTreeSet::new(),
            errors: Vec::new(),
            foreign: BTreeSet::new(),
            unfold: MAX_UNFOLDED_BYTES,
        }
    }

    /// A reference was followed to `value`: a small document must not become a huge API by naming one large part often.
    pub(super) fn unfold(&mut self, value: &Value) -> Result<(), ImportError> {
        if spend(&mut self.unfold, value) {
            return Ok(());
        }
        Err(ImportError::Invalid(vec![format!(
            "the document's references unfold into more than {} MiB",
            MAX_UNFOLDED_BYTES >> 20
        )]))
    }

    /// Something was not understood; the rest goes on (OAP-048). Said once.
    pub(super) fn warn(&mut self, text: impl Into<String>) {
        let text = shorten(text.into());
        if self.warnings.len() < MAX_REMARKS && self.seen.insert(text.clone()) {
            self.warnings.push(text);
        }
    }

    /// Something that no API can have (OAP-046).
    pub(super) fn error(&mut self, text: impl Into<String>) {
        if self.errors.len() < MAX_REMARKS {
            self.errors.push(shorten(text.into()));
        }
    }

    /// Warns of the members of `object` that `known` does not name. `place` says whose they are.
    pub(super) fn leftovers(&mut self, place: &str, object: &Map<String, Value>, known: &[&str]) {
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            if name.starts_with("x-amazon-apigateway-") || name.starts_with("x-tidegate-") {
                self.warn(format!(
                    "{place}: extension `{name}` is not supported here and was not imported"
                ));
            } else if name.starts_with("x-") {
                if self.foreign.len() < MAX_REMARKS {
                    self.foreign.insert(name.clone());
                }
            } else {
                self.warn(format!("{place}: `{name}` is not supported and was not imported"));
            }
        }
    }

    /// The string under `name`. Numbers and booleans count as their text (OAX-022); anything else is a warning.
    pub(super) fn text(&mut self, place: &str, object: &Map<String, Value>, name: &str) -> Option<String> {
        let value = object.get(name)?;
        let text = scalar(value);
        if text.is_none() && !value.is_null() {
            self.warn(format!("{place}: `{name}` is not text and was not imported"));
        }
        text
    }

    /// The boolean under `name`; `"true"` and `"false"` count.
    pub(super) fn flag(&mut self, place: &str, object: &Map<String, Value>, name: &str) -> Option<bool> {
        match object.get(name)? {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => {
                self.warn(format!(
                    "{place}: `{name}` is neither true nor false and was not imported"
                ));
                None
            }
        }
    }

    /// The whole number under `name`; its text counts (OAX-022).
    pub(super) fn number(&mut self, place: &str, object: &Map<String, Value>, name: &str) -> Option<i32> {
        let value = object.get(name)?;
        let number = match value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.and_then(|number| i32::try_from(number).ok());
        if number.is_none() && !value.is_null() {
            self.warn(format!(
                "{place}: `{name}` is not a whole number and was not imported"
            ));
        }
        number
    }

    /// The strings under `name`; a single string counts as a list of one.
    pub(super) fn texts(
        &mut self,
        place: &str,
        object: &Map<String, Value>,
        name: &str,
    ) -> Option<Vec<String>> {
        match object.get(name)? {
            Value::Array(list) => {
                let texts: Vec<String> = list.iter().filter_map(scalar).collect();
                if texts.len() < list.len() {
                    self.warn(format!(
                        "{place}: `{name}` holds values that are not text; they were not imported"
                    ));
                }
                Some(texts)
            }
            Value::Null => None,
            value => match scalar(value) {
                Some(text) => Some(vec![text]),
                None => {
                    self.warn(format!(
                        "{place}: `{name}` is not a list of texts and was not imported"
                    ));
                    None
                }
            },
        }
    }

    /// The map of name to text under `name`, in the document's order where the map has one. What is not text becomes its JSON text.
    pub(super) fn text_map<M: FromIterator<(String, String)>>(
        &mut self,
        place: &str,
        object: &Map<String, Value>,
        name: &str,
    ) -> Option<M> {
        let members = self.object(place, object, name)?;
        let text = |value: &Value| scalar(value).unwrap_or_else(|| value.to_string());
        Some(
            members
                .iter()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
        )
    }

    /// The object under `name`; anything else is a warning.
    pub(super) fn object<'v>(
        &mut self,
        place: &str,
        object: &'v Map<String, Value>,
        name: &str,
    ) -> Option<&'v Map<String, Value>> {
        match object.get(name)? {
            Value::Object(members) => Some(members),
            Value::Null => None,
            _ => {
                self.warn(format!("{place}: `{name}` is not an object and was not imported"));
                None
            }
        }
    }

    /// The remarks, or the refusal that they amount to.
    pub(super) fn finish(mut self) -> Result<Vec<String>, ImportError> {
        if !self.errors.is_empty() {
            return Err(ImportError::Invalid(self.errors));
        }
        if !self.foreign.is_empty() {
            let names: Vec<_> = self.foreign.iter().map(String::as_str).collect();
            self.warnings.push(format!(
                "extensions that are not ours were not imported: {}",
                names.join(", ")
            ));
        }
        if self.warnings.len() >= MAX_REMARKS {
            self.warnings.push(format!(
                "there are more than {MAX_REMARKS} warnings; the rest is not shown"
            ));
        }
        if self.options.fail_on_warnings && !self.warnings.is_empty() {
            return Err(ImportError::Warnings(self.warnings));
        }
        Ok(self.warnings)
    }
}

/// Takes the size of `value` from `left`; false when it does not suffice. Stops there.
fn spend(left: &mut usize, value: &Value) -> bool {
    let own = 32 + value.as_str().map_or(0, str::len);
    match left.checked_sub(own) {
        Some(rest) => *left = rest,
        None => return false,
    }
    match value {
        Value::Array(list) => list.iter().all(|value| spend(left, value)),
        Value::Object(members) => members.iter().all(|(name, value)| {
            *left = left.saturating_sub(name.len());
            spend(left, value)
        }),
        _ => true,
    }
}

/// Names come from the document and may be of any length.
fn shorten(text: String) -> String {
    match text.char_indices().nth(MAX_REMARK_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// The text of a string, number or boolean.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A document cannot make us answer more than this.
const MAX_REMARKS: usize = 1_000;
const MAX_REMARK_CHARS: usize = 1_000;
const MAX_UNFOLDED_BYTES: usize = 64 << 20;
