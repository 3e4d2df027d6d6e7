//! Conditions in paths: `[?(@.price < 10 && @.type in ['cat'])]`.

use std::cmp::Ordering;

use super::{JsonPath, OutOfSteps, Selection};
use crate::json::{Json, Kind};
use crate::regexp::JavaRegex;

#[derive(Debug)]
pub(crate) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Exists(Operand),
    Compare(Operand, Comparison, Operand),
}

#[derive(Debug)]
pub(crate) enum Operand {
    /// `@…` or, from the document's root, `$…`.
    Path {
        is_root: bool,
        path: Box<JsonPath>,
    },
    Text(String),
    Number(f64),
    Bool(bool),
    Null,
    List(Vec<Operand>),
    Regex(Box<JavaRegex>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Matches,
    In,
    NotIn,
    SubsetOf,
    AnyOf,
    NoneOf,
    Contains,
    Size,
    Empty,
}

/// An operand's value for one item.
enum Side<'f, 'd> {
    /// A path that leads nowhere: equal to nothing, `null` included.
    Missing,
    Null,
    Bool(bool),
    Number(f64),
    Text(std::borrow::Cow<'d, str>),
    List(Vec<Side<'f, 'd>>),
    Object(Json<'d>),
    Regex(&'f JavaRegex),
}

impl Filter {
    /// Whether an item passes.
    pub(super) fn passes<'d>(
        &self,
        item: Json<'d>,
        root: Json<'d>,
        steps: &mut u64,
    ) -> Result<bool, OutOfSteps> {
        Ok(match self {
            Filter::All(filters) => {
                for filter in filters {
                    if !filter.passes(item, root, steps)? {
                        return Ok(false);
                    }
                }
                true
            }
            Filter::Any(filters) => {
                for filter in filters {
                    if filter.passes(item, root, steps)? {
                        return Ok(true);
                    }
                }
                false
            }
            Filter::Not(inner) => !inner.passes(item, root, steps)?,
            Filter::Exists(operand) => match operand.value(item, root, steps)? {
                Side::Missing => false,
                // An indefinite path finds a list, which exists if it holds something.
                Side::List(list) if !operand.is_definite() => !list.is_empty(),
                _ => true,
            },
            Filter::Compare(left, comparison, right) => {
                let (left, right) = (left.value(item, root, steps)?, right.value(item, root, steps)?);
                left.compare(*comparison, &right)
            }
        })
    }
}

impl Operand {
    fn is_definite(&self) -> bool {
        match self {
            Operand::Path { path, .. } => path.is_definite(),
            _ => true,
        }
    }

    fn value<'f, 'd>(
        &'f self,
        item: Json<'d>,
        root: Json<'d>,
        steps: &mut u64,
    ) -> Result<Side<'f, 'd>, OutOfSteps> {
        Ok(match self {
            Operand::Path { is_root, path } => {
                let selection =
                    super::eval::select_from(path, if *is_root { root } else { item }, root, steps)?;
                Side::of(selection, steps)?
            }
            Operand::Text(text) => Side::Text(text.clone().into()),
            Operand::Number(number) => Side::Number(*number),
            Operand::Bool(value) => Side::Bool(*value),
            Operand::Null => Side::Null,
            Operand::Regex(regex) => Side::Regex(regex),
            Operand::List(list) => {
                let values = list.iter().map(|operand| operand.value(item, root, steps));
                Side::List(values.collect::<Result<_, _>>()?)
            }
        })
    }

    /// A plain text of a function's argument.
    pub(super) fn as_json(&self) -> Option<String> {
        let mut out = String::new();
        match self {
            Operand::Text(text) => crate::json::write_string(text, &mut out),
            Operand::Number(number) => out = crate::number::java_double(*number),
            Operand::Bool(value) => out = value.to_string(),
            Operand::Null => out = "null".to_owned(),
            _ => return None,
        }
        Some(out)
    }

    pub(super) fn as_integer(&self) -> Option<i64> {
        match self {
            Operand::Number(number) if number.fract() == 0.0 => Some(*number as i64),
            _ => None,
        }
    }
}

impl<'d> Side<'_, 'd> {
    fn of(selection: Selection<'d>, steps: &mut u64) -> Result<Self, OutOfSteps> {
        Ok(match selection {
            Selection::Missing => Side::Missing,
            Selection::One(json) => Side::json(json, steps)?,
            Selection::Many(list) => {
                let sides = list.into_iter().map(|json| Side::json(json, steps));
                Side::List(sides.collect::<Result<_, _>>()?)
            }
            Selection::Made(text) => match text.parse() {
                Ok(number) => Side::Number(number),
                Err(_) => Side::Text(text.into()),
            },
        })
    }

    fn json(json: Json<'d>, steps: &mut u64) -> Result<Self, OutOfSteps> {
        *steps = steps.checked_sub(1).ok_or(OutOfSteps)?;
        Ok(match json.kind() {
            Kind::Null => Side::Null,
            Kind::Bool => Side::Bool(json.as_bool() == Some(true)),
            Kind::Number => Side::Number(
                json.as_number()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(f64::NAN),
            ),
            Kind::String => {
                *steps = steps.checked_sub(json.cost() as u64).ok_or(OutOfSteps)?;
                Side::Text(json.as_str().unwrap_or_default())
            }
            Kind::Array => {
                let items = json.items().map(|item| Side::json(item, steps));
                Side::List(items.collect::<Result<_, _>>()?)
            }
            Kind::Object => {
                // Objects are compared by their text.
                *steps = steps.checked_sub(json.cost() as u64).ok_or(OutOfSteps)?;
                Side::Object(json)
            }
        })
    }

    fn compare(&self, comparison: Comparison, right: &Self) -> bool {
        match comparison {
            Comparison::Equal => self.equals(right),
            Comparison::Unequal => !self.equals(right),
            Comparison::Less => self.order(right) == Some(Ordering::Less),
            Comparison::LessOrEqual => matches!(self.order(right), Some(Ordering::Less | Ordering::Equal)),
            Comparison::Greater => self.order(right) == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => {
                matches!(self.order(right), Some(Ordering::Greater | Ordering::Equal))
            }
            Comparison::Matches => match (self, right) {
                (Side::Text(text), Side::Regex(regex)) => regex.matches_whole(text),
                (Side::Number(number), Side::Regex(regex)) => {
                    regex.matches_whole(&crate::number::java_double(*number))
                }
                _ => false,
            },
            Comparison::In => right.holds(self),
            Comparison::NotIn => matches!(right, Side::List(_)) && !right.holds(self),
            Comparison::SubsetOf => self
                .list()
                .is_some_and(|list| list.iter().all(|side| right.holds(side))),
            Comparison::AnyOf => self
                .list()
                .is_some_and(|list| list.iter().any(|side| right.holds(side))),
            Comparison::NoneOf => self
                .list()
                .is_some_and(|list| !list.iter().any(|side| right.holds(side))),
            Comparison::Contains => match (self, right) {
                (Side::Text(text), Side::Text(part)) => text.contains(&**part),
                _ => self.holds(right),
            },
            Comparison::Size => match right {
                Side::Number(size) => self.size().is_some_and(|len| len as f64 == *size),
                _ => self.size().is_some() && self.size() == right.size(),
            },
            Comparison::Empty => match right {
                Side::Bool(wanted) => self.size().is_some_and(|len| (len == 0) == *wanted),
                _ => false,
            },
        }
    }

    fn list(&self) -> Option<&[Self]> {
        match self {
            Side::List(list) => Some(list),
            _ => None,
        }
    }

    fn holds(&self, side: &Self) -> bool {
        self.list()
            .is_some_and(|list| list.iter().any(|held| held.equals(side)))
    }

    fn size(&self) -> Option<usize> {
        match self {
            Side::Text(text) => Some(text.encode_utf16().count()),
            Side::List(list) => Some(list.len()),
            Side::Object(json) => Some(json.len()),
            _ => None,
        }
    }

    fn equals(&self, right: &Self) -> bool {
        match (self, right) {
            (Side::Missing, _) | (_, Side::Missing) => false,
            (Side::Null, Side::Null) => true,
            (Side::Bool(left), Side::Bool(right)) => left == right,
            (Side::Number(left), Side::Number(right)) => left == right,
            (Side::Text(left), Side::Text(right)) => left == right,
            (Side::List(left), Side::List(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.equals(right))
            }
            (Side::Object(left), Side::Object(right)) => left.to_text() == right.to_text(),
            _ => false,
        }
    }

    fn order(&self, right: &Self) -> Option<Ordering> {
        match (self, right) {
            (Side::Number(left), Side::Number(right)) => left.partial_cmp(right),
            (Side::Text(left), Side::Text(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }
}
