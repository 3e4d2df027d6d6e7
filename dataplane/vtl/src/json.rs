//! JSON documents as templates see them: read once, kept as spans of their text.
//!
//! Numbers keep the text they came with, so that `25.0`, `1e7` and integers of any length go out as they came in
//! (VTL-241, VTL-242), and members keep their order (VTL-261). Reading a document makes one allocation that grows,
//! whatever it holds.

mod parse;
mod write;

use std::borrow::Cow;
use std::cell::OnceCell;

use thiserror::Error;

pub(crate) use write::write_string;

/// A body: its text, and its JSON once somebody has asked for it.
///
/// One document serves a whole phase of a request: validation, parameter mappings and the template share what was
/// read.
#[derive(Debug, Default)]
pub struct Document<'b> {
    text: Cow<'b, str>,
    depth: usize,
    parsed: OnceCell<Result<Box<[Node]>, JsonError>>,
}

/// A value inside a document.
#[derive(Clone, Copy)]
pub struct Json<'d> {
    text: &'d str,
    nodes: &'d [Node],
    at: u32,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number of any size.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// Why a text is not a JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason} at line {line}, column {column}")]
pub struct JsonError {
    /// What is wrong.
    pub reason: &'static str,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// One value or member name. Containers are followed by what they hold: arrays by their items, objects by names and
/// values in turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    tag: Tag,
    /// Where a number or string begins in the text (behind its quote); how many items or members a container has.
    a: u32,
    /// Where it ends; how many nodes a container takes, itself included.
    b: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Null,
    False,
    True,
    Number,
    String,
    /// A string with a backslash in it.
    Escaped,
    Array,
    Object,
}

/// How deep documents may be where nobody says otherwise.
pub(crate) const DEPTH: usize = 512;

/// What an empty body reads as (OBV-272).
const EMPTY: &str = "{}";

// === impl Document ===

impl<'b> Document<'b> {
    /// A document of a text, whatever is in it. Nothing is read yet.
    pub fn new(text: impl Into<Cow<'b, str>>) -> Self {
        Document {
            text: text.into(),
            depth: DEPTH,
            parsed: OnceCell::new(),
        }
    }

    /// A document of a body's bytes; what is not UTF-8 counts as U+FFFD.
    pub fn from_bytes(bytes: &'b [u8]) -> Self {
        // Nearly all is valid, and to see that takes less than to look for what is not.
        let text = std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed);
        Document::new(text)
    }

    /// Bounds how deep arrays and objects may stand in each other; a deeper document is not JSON to us.
    pub fn with_depth(self, depth: usize) -> Self {
        Document { depth, ..self }
    }

    /// The body as templates print it: `{}` where there is none (OBV-272).
    pub fn text(&self) -> &str {
        if self.text.is_empty() { EMPTY } else { &self.text }
    }

    /// Whether the body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The JSON of the body: an empty object where the body is empty or blank (OBV-272).
    pub fn json(&self) -> Result<Json<'_>, JsonError> {
        let text = match self.text.trim_ascii() {
            "" => EMPTY,
            _ => &*self.text,
        };
        let parsed = self
            .parsed
            .get_or_init(|| parse::parse(text, self.depth).map(Vec::into_boxed_slice));
        match parsed {
            Ok(nodes) => Ok(Json { text, nodes, at: 0 }),
            Err(error) => Err(error.clone()),
        }
    }
}

// === impl Json ===

impl<'d> Json<'d> {
    /// Reads a text whose nodes `keep` takes into its care.
    pub(crate) fn read(
        text: &'d str,
        depth: usize,
        keep: impl FnOnce(&[Node]) -> &'d [Node],
    ) -> Result<Json<'d>, JsonError> {
        let nodes = keep(&parse::parse(text, depth)?);
        Ok(Json { text, nodes, at: 0 })
    }

    fn node(self) -> Node {
        self.nodes[self.at as usize]
    }

    fn at(self, at: u32) -> Json<'d> {
        Json { at, ..self }
    }

    /// What the value is.
    pub fn kind(self) -> Kind {
        match self.node().tag {
            Tag::Null => Kind::Null,
            Tag::False | Tag::True => Kind::Bool,
            Tag::Number => Kind::Number,
            Tag::String | Tag::Escaped => Kind::String,
            Tag::Array => Kind::Array,
            Tag::Object => Kind::Object,
        }
    }

    /// The value of `true` or `false`.
    pub fn as_bool(self) -> Option<bool> {
        match self.node().tag {
            Tag::True => Some(true),
            Tag::False => Some(false),
            _ => None,
        }
    }

    /// A string's text.
    pub fn as_str(self) -> Option<Cow<'d, str>> {
        let node = self.node();
        match node.tag {
            Tag::String => Some(Cow::Borrowed(self.span(node))),
            Tag::Escaped => Some(Cow::Owned(parse::unescape(self.span(node)))),
            _ => None,
        }
    }

    /// A number's text, as it stands in the document.
    pub fn as_number(self) -> Option<&'d str> {
        let node = self.node();
        (node.tag == Tag::Number).then(|| self.span(node))
    }

    fn span(self, node: Node) -> &'d str {
        &self.text[node.a as usize..node.b as usize]
    }

    /// How many items an array or members an object has; 0 for what is neither.
    pub fn len(self) -> usize {
        match self.node() {
            Node {
                tag: Tag::Array | Tag::Object,
                a,
                ..
            } => a as usize,
            _ => 0,
        }
    }

    /// Whether [`Json::len`] is 0.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// How many values the value holds, at every depth, itself and member names included.
    pub fn weight(self) -> usize {
        self.width() as usize
    }

    /// What handling the whole value takes, in steps: its values, and its text by 64 bytes.
    pub(crate) fn cost(self) -> usize {
        let nodes = &self.nodes[self.at as usize..][..self.weight()];
        let cost = |node: &Node| match node.tag {
            Tag::Number | Tag::String | Tag::Escaped => 1 + (node.b - node.a) as usize / 64,
            _ => 1,
        };
        nodes.iter().map(cost).sum()
    }

    fn width(self) -> u32 {
        match self.node() {
            Node {
                tag: Tag::Array | Tag::Object,
                b,
                ..
            } => b,
            _ => 1,
        }
    }

    /// A member of an object.
    pub fn get(self, name: &str) -> Option<Json<'d>> {
        self.members()
            .find(|(key, _)| key.is(name))
            .map(|(_, value)| value)
    }

    /// An item of an array, from 0.
    pub fn item(self, index: usize) -> Option<Json<'d>> {
        self.items().nth(index)
    }

    /// The items of an array; none for what is not an array.
    pub fn items(self) -> impl Iterator<Item = Json<'d>> {
        let count = match self.kind() {
            Kind::Array => self.len(),
            _ => 0,
        };
        let mut at = self.at + 1;
        (0..count).map(move |_| {
            let item = self.at(at);
            at += item.width();
            item
        })
    }

    /// The members of an object in their order; none for what is not an object.
    pub fn members(self) -> impl Iterator<Item = (Name<'d>, Json<'d>)> {
        let count = match self.kind() {
            Kind::Object => self.len(),
            _ => 0,
        };
        let mut at = self.at + 1;
        (0..count).map(move |_| {
            let (name, value) = (Name(self.at(at)), self.at(at + 1));
            at += 1 + value.width();
            (name, value)
        })
    }

    /// Writes the value as compact JSON.
    pub fn write(self, out: &mut String) {
        write::write(self, out);
    }

    /// The value as compact JSON.
    pub fn to_text(self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// The value for those who work on `serde_json`, such as a validator. Numbers that fit no 64-bit integer become
    /// the nearest double.
    pub fn to_serde(self) -> serde_json::Value {
        use serde_json::Value;
        match self.kind() {
            Kind::Null => Value::Null,
            Kind::Bool => Value::Bool(self.as_bool() == Some(true)),
            Kind::Number => self
                .as_number()
                .and_then(|text| text.parse().ok())
                .map_or(Value::Null, Value::Number),
            Kind::String => Value::String(self.as_str().unwrap_or_default().into_owned()),
            Kind::Array => Value::Array(self.items().map(Json::to_serde).collect()),
            Kind::Object => {
                let members = self
                    .members()
                    .map(|(name, value)| (name.text().into_owned(), value.to_serde()));
                Value::Object(members.collect())
            }
        }
    }

    /// What tells this place of this document from every other while both live.
    pub(crate) fn identity(self) -> (usize, u32) {
        (self.nodes.as_ptr() as usize, self.at)
    }
}

impl std::fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// The name of a member.
#[derive(Debug, Clone, Copy)]
pub struct Name<'d>(Json<'d>);

impl<'d> Name<'d> {
    /// Whether this is the name, unescaped.
    pub fn is(self, name: &str) -> bool {
        let node = self.0.node();
        let span = &self.0.text.as_bytes()[node.a as usize..node.b as usize];
        match node.tag {
            Tag::String => span == name.as_bytes(),
            // An escape takes six bytes at most for one: a long name is not unescaped to learn that it is another.
            _ => span.len() <= 6 * name.len() && self.text() == name,
        }
    }

    /// The name's text.
    pub fn text(self) -> Cow<'d, str> {
        self.0.as_str().unwrap_or_default()
    }
}
