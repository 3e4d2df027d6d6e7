//! The values of the language.

use std::cell::RefCell;

use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

use crate::json::{Json, Kind};
use crate::number::Number;
use crate::scope::Source;

/// A value. Those that templates can change are shared by reference, as in Java.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'r> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    /// A number of a document, in its own words (VTL-242).
    Number(&'r str),
    Text(&'r str),
    /// An object or array of a document.
    Json(Json<'r>),
    List(&'r List<'r>),
    Map(&'r Map<'r>),
    /// One pair of a map.
    Entry(&'r (&'r str, Value<'r>)),
    Range(i64, i64),
    Input,
    Util,
    Stage,
    Params,
    ParamsOf(Source),
    /// `$context` and what is below it, not yet looked up.
    Context(&'r [&'r str]),
    /// A loop's `$foreach`, by how deep it is.
    Foreach(usize),
    /// A `#define`d block.
    Block(usize),
}

/// A list that can grow.
#[derive(Debug)]
pub(super) struct List<'r> {
    /// Whether it was an array of a document, which prints as JSON.
    pub(super) is_json: bool,
    pub(super) items: RefCell<BumpVec<'r, Value<'r>>>,
}

/// A map that can grow, in the order in which it was filled.
#[derive(Debug)]
pub(super) struct Map<'r> {
    pub(super) entries: RefCell<BumpVec<'r, (&'r str, Value<'r>)>>,
}

/// What an item of a list takes, with room for growth.
pub(super) const ITEM: usize = 2 * size_of::<Value<'static>>();
/// What an entry of a map takes, with room for growth.
pub(super) const ENTRY: usize = 2 * size_of::<(&str, Value<'static>)>();

impl Value<'_> {
    /// Whether a condition holds: everything does but null and `false`.
    pub(super) fn is_true(self) -> bool {
        !matches!(self, Value::Null | Value::Bool(false))
    }

    pub(super) fn is_null(self) -> bool {
        matches!(self, Value::Null)
    }

    /// The number to compute with; texts are none.
    pub(super) fn number(self) -> Option<Number> {
        match self {
            Value::Int(int) => Some(Number::Int(int)),
            Value::Double(double) => Some(Number::Double(double)),
            Value::Number(text) => Number::read(text),
            _ => None,
        }
    }

    /// What the value is, for messages.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Double(_) | Value::Number(_) => "a number",
            Value::Text(_) => "a string",
            Value::Json(json) if json.kind() == Kind::Array => "a list",
            Value::List(_) | Value::Range(..) => "a list",
            Value::Json(_) | Value::Map(_) => "a map",
            Value::Entry(_) => "an entry of a map",
            Value::Input => "`$input`",
            Value::Util => "`$util`",
            Value::Stage => "`$stageVariables`",
            Value::Params | Value::ParamsOf(_) => "a map of parameters",
            Value::Context(_) => "a part of `$context`",
            Value::Foreach(_) => "`$foreach`",
            Value::Block(_) => "a `#define`d block",
        }
    }
}

impl From<Number> for Value<'_> {
    fn from(number: Number) -> Self {
        match number {
            Number::Int(int) => Value::Int(int),
            Number::Double(double) => Value::Double(double),
        }
    }
}

impl<'r> List<'r> {
    pub(super) fn new(
        bump: &'r Bump,
        is_json: bool,
        items: impl IntoIterator<Item = Value<'r>>,
    ) -> &'r List<'r> {
        bump.alloc(List {
            is_json,
            items: RefCell::new(BumpVec::from_iter_in(items, bump)),
        })
    }
}

impl<'r> Map<'r> {
    /// A map of entries whose keys differ.
    pub(super) fn new(
        bump: &'r Bump,
        entries: impl IntoIterator<Item = (&'r str, Value<'r>)>,
    ) -> &'r Map<'r> {
        bump.alloc(Map {
            entries: RefCell::new(BumpVec::from_iter_in(entries, bump)),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    pub(super) fn get(&self, key: &str) -> Option<Value<'r>> {
        let entries = self.entries.borrow();
        entries
            .iter()
            .find(|(held, _)| *held == key)
            .map(|(_, value)| *value)
    }

    /// Sets a key; gives what it had before.
    pub(super) fn put(&self, key: &'r str, value: Value<'r>) -> Value<'r> {
        let mut entries = self.entries.borrow_mut();
        match entries.iter_mut().find(|(held, _)| *held == key) {
            Some((_, held)) => std::mem::replace(held, value),
            None => {
                entries.push((key, value));
                Value::Null
            }
        }
    }

    pub(super) fn remove(&self, key: &str) -> Value<'r> {
        let mut entries = self.entries.borrow_mut();
        match entries.iter().position(|(held, _)| *held == key) {
            Some(at) => entries.remove(at).1,
            None => Value::Null,
        }
    }
}
