//! JSONPath with the meaning of the Java library that the service links (VTL-269, `docs/templates.md`).
//!
//! No crate has that meaning: the crates follow RFC 9535 or its predecessors, which know no definite paths (one value
//! in place of a list), no functions at the end of a path, no `=~`, `in` or `subsetof`, and take `$.a['b','c']` for
//! two values where the library makes one object. So this module is our own, and no more than a path needs: a path of
//! plain members and indexes, by far the most frequent, allocates nothing.

mod eval;
mod filter;
mod function;
mod parse;

use std::borrow::Cow;

use thiserror::Error;

use crate::json::{Json, Kind};

/// A path, checked and ready to be followed. Shards share it.
#[derive(Debug)]
pub struct JsonPath {
    text: Box<str>,
    steps: Box<[Step]>,
    function: Option<function::Function>,
    is_definite: bool,
}

/// What a path leads to.
#[derive(Debug)]
pub enum Selection<'d> {
    /// A definite path leads nowhere.
    Missing,
    /// The value that a definite path leads to.
    One(Json<'d>),
    /// What an indefinite path (`..`, `*`, filters, slices) finds, perhaps nothing.
    Many(Vec<Json<'d>>),
    /// The JSON text of a value that a function or a choice of members makes.
    Made(String),
}

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{path}` is not a JSONPath: {reason} at character {column}")]
pub struct PathError {
    /// The path, cut where it is long.
    pub path: String,
    /// What is wrong, and what to write.
    pub reason: &'static str,
    /// Where, in characters from 1.
    pub column: usize,
}

/// A path needs more steps in a document than it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the JSONPath takes too many steps through the document")]
pub struct OutOfSteps;

/// One part of a path.
#[derive(Debug)]
pub(crate) enum Step {
    /// `.name`, `['name']`
    Member(Box<str>),
    /// `['a','b']`
    Members(Box<[Box<str>]>),
    /// `[0]`, `[-1]`
    Item(i64),
    /// `[0,2]`
    Items(Box<[i64]>),
    /// `[1:3]`, `[-2:]`, `[:2]`
    Slice(Option<i64>, Option<i64>),
    /// `.*`, `[*]`
    All,
    /// `..`: the value and all below it.
    Descend,
    /// `[?(…)]`
    Filter(filter::Filter),
}

/// The longest path.
const LENGTH: usize = 4096;

impl JsonPath {
    /// Compiles a path. A path that does not begin with `$` begins behind it: `pets[0].name` is `$.pets[0].name`.
    pub fn compile(text: &str) -> Result<JsonPath, PathError> {
        parse::parse(text)
    }

    /// The path as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the path can lead to one value only, so that it yields this value and not a list.
    pub fn is_definite(&self) -> bool {
        self.is_definite
    }

    /// Follows the path from a document's root. Each value that is looked at takes one of `steps`.
    pub fn select<'d>(&self, root: Json<'d>, steps: &mut u64) -> Result<Selection<'d>, OutOfSteps> {
        eval::select(self, root, steps)
    }

    /// The members and indexes of a path that has nothing else.
    pub(crate) fn plain(&self) -> Option<&[Step]> {
        let is_plain = |step: &Step| matches!(step, Step::Member(_) | Step::Item(_));
        (self.function.is_none() && self.steps.iter().all(is_plain)).then_some(&*self.steps)
    }
}

impl<'d> Selection<'d> {
    /// The value as a parameter mapping takes it: a string's own text, other values as compact JSON; nothing where
    /// the path leads nowhere or to `null` (VTL-104).
    pub fn into_text(self) -> Option<Cow<'d, str>> {
        match self {
            Selection::Missing => None,
            Selection::One(json) => match json.kind() {
                Kind::Null => None,
                Kind::String => json.as_str(),
                Kind::Number => json.as_number().map(Cow::Borrowed),
                _ => Some(Cow::Owned(json.to_text())),
            },
            other => Some(Cow::Owned(other.to_json())),
        }
    }

    /// The value as compact JSON: `""` where the path leads nowhere, a list for an indefinite path.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Selection::Missing => out.push_str("\"\""),
            Selection::One(json) => json.write(out),
            Selection::Made(text) => out.push_str(text),
            Selection::Many(list) => {
                out.push('[');
                for (at, json) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    json.write(out);
                }
                out.push(']');
            }
        }
    }
}
