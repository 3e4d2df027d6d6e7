//! What may stand at the end of a path: `$.prices.sum()`.

use super::Selection;
use super::filter::Operand;
use crate::json::{Json, Kind};
use crate::number::java_double;

#[derive(Debug)]
pub(crate) enum Function {
    Length,
    Keys,
    Min,
    Max,
    Avg,
    Sum,
    Stddev,
    First,
    Last,
    Index(i64),
    Append(String),
    Concat(String),
}

impl Function {
    pub(super) fn new(name: &str, arguments: Vec<Operand>) -> Result<Function, &'static str> {
        let argument = match arguments.as_slice() {
            [] => None,
            [argument] => Some(argument),
            _ => return Err("the function takes one argument at most"),
        };
        let json = || {
            argument
                .and_then(Operand::as_json)
                .ok_or("the function wants a plain value")
        };
        let function = match name {
            "length" | "size" | "count" => Function::Length,
            "keys" => Function::Keys,
            "min" => Function::Min,
            "max" => Function::Max,
            "avg" => Function::Avg,
            "sum" => Function::Sum,
            "stddev" => Function::Stddev,
            "first" => Function::First,
            "last" => Function::Last,
            "index" => {
                let index = argument.and_then(Operand::as_integer);
                return index.map(Function::Index).ok_or("`index` wants a whole number");
            }
            "append" => return json().map(Function::Append),
            "concat" => {
                return match argument {
                    Some(Operand::Text(text)) => Ok(Function::Concat(text.clone())),
                    Some(_) => Err("`concat` wants a text in quotes"),
                    None => Ok(Function::Concat(String::new())),
                };
            }
            _ => {
                return Err(
                    "no such function; known are length, size, keys, min, max, avg, sum, stddev, first, \
                            last, index, append and concat",
                );
            }
        };
        match argument {
            None => Ok(function),
            Some(_) => Err("the function takes no argument"),
        }
    }

    /// The function's value for what the path before it found.
    pub(super) fn apply<'d>(&self, found: Selection<'d>) -> Selection<'d> {
        let (items, object) = match &found {
            Selection::One(json) if json.kind() == Kind::Array => (json.items().collect(), None),
            Selection::One(json) if json.kind() == Kind::Object => (Vec::new(), Some(*json)),
            Selection::One(json) => {
                return match (self, json.as_str()) {
                    (Function::Concat(behind), Some(text)) => {
                        let mut out = String::new();
                        crate::json::write_string(&(text.into_owned() + behind), &mut out);
                        Selection::Made(out)
                    }
                    _ => Selection::Missing,
                };
            }
            Selection::Many(list) => (list.clone(), None),
            Selection::Missing | Selection::Made(_) => return Selection::Missing,
        };
        self.apply_to(&items, object).unwrap_or(Selection::Missing)
    }

    fn apply_to<'d>(&self, items: &[Json<'d>], object: Option<Json<'d>>) -> Option<Selection<'d>> {
        if let Some(object) = object {
            return match self {
                Function::Length => Some(Selection::Made(object.len().to_string())),
                Function::Keys => {
                    let mut out = String::from("[");
                    for (at, (name, _)) in object.members().enumerate() {
                        if at > 0 {
                            out.push(',');
                        }
                        crate::json::write_string(&name.text(), &mut out);
                    }
                    out.push(']');
                    Some(Selection::Made(out))
                }
                _ => None,
            };
        }
        let at = |index: i64| {
            let index = if index < 0 {
                index + items.len() as i64
            } else {
                index
            };
            let item = usize::try_from(index).ok().and_then(|index| items.get(index));
            item.map(|json| Selection::One(*json))
        };
        let numbers = || -> Option<Vec<f64>> {
            let numbers: Vec<f64> = items
                .iter()
                .filter_map(|json| json.as_number())
                .filter_map(|text| text.parse().ok())
                .collect();
            (!numbers.is_empty()).then_some(numbers)
        };
        let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len() as f64;
        // What is beyond a double is no JSON.
        let made = |number: f64| number.is_finite().then(|| Selection::Made(java_double(number)));
        match self {
            Function::Length => Some(Selection::Made(items.len().to_string())),
            Function::First => at(0),
            Function::Last => at(-1),
            Function::Index(index) => at(*index),
            Function::Min => made(numbers()?.into_iter().fold(f64::INFINITY, f64::min)),
            Function::Max => made(numbers()?.into_iter().fold(f64::NEG_INFINITY, f64::max)),
            Function::Sum => made(numbers()?.into_iter().sum()),
            Function::Avg => made(mean(&numbers()?)),
            Function::Stddev => {
                let numbers = numbers()?;
                let mean = mean(&numbers);
                let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
                made((squares / numbers.len() as f64).sqrt())
            }
            Function::Append(value) => {
                let mut out = Selection::Many(items.to_vec()).to_json();
                out.pop();
                if out.len() > 1 {
                    out.push(',');
                }
                out.push_str(value);
                out.push(']');
                Some(Selection::Made(out))
            }
            Function::Concat(behind) => {
                let texts: String = items.iter().filter_map(|json| json.as_str()).collect();
                let mut out = String::new();
                crate::json::write_string(&(texts + behind), &mut out);
                Some(Selection::Made(out))
            }
            Function::Keys => None,
        }
    }
}
