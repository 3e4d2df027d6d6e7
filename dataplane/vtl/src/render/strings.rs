//! The methods of Java's strings. Places in a text count UTF-16 units, as in Java.

use std::rc::Rc;

use super::value::{ITEM, List, Value};
use super::{Renderer, Run, fail};
use crate::error::ErrorKind;
use crate::regexp::JavaRegex;
use crate::syntax::Compiled;

/// A text's length in UTF-16 units.
fn len(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.encode_utf16().count()
    }
}

/// The byte of a place; the last one it can be is the text's end.
fn byte_at(text: &str, place: usize) -> Option<usize> {
    if text.is_ascii() {
        return (place <= text.len()).then_some(place);
    }
    let mut units = 0;
    for (at, character) in text.char_indices() {
        if units >= place {
            return Some(at);
        }
        units += character.len_utf16();
    }
    (units >= place).then_some(text.len())
}

impl<'r> Renderer<'r, '_> {
    /// A call on a text; `None` where texts have no such method.
    pub(super) fn string(
        &mut self,
        text: &'r str,
        method: &str,
        arguments: &[Value<'r>],
        compiled: &'r Compiled,
    ) -> Run<Option<Value<'r>>> {
        self.spend_text(text.len())?;
        let mut texts = [""; 2];
        for (text, value) in texts.iter_mut().zip(arguments) {
            *text = self.text(*value)?;
        }
        let [first, second] = texts;
        // What Java refuses to take.
        if arguments.iter().any(|argument| argument.is_null())
            && matches!(
                method,
                "contains"
                    | "replace"
                    | "replaceAll"
                    | "split"
                    | "startsWith"
                    | "endsWith"
                    | "concat"
                    | "matches"
            )
        {
            return fail(
                "a method of a string",
                format!("`{method}` wants a text, not null"),
            );
        }
        let place = |at: Option<usize>| Value::Int(at.map_or(-1, |at| len(&text[..at]) as i64));
        Ok(Some(match (method, arguments) {
            ("length" | "size", []) => Value::Int(len(text) as i64),
            ("isEmpty", []) => Value::Bool(text.is_empty()),
            ("isBlank", []) => Value::Bool(text.trim().is_empty()),
            ("toString" | "intern", []) => Value::Text(text),
            ("equals", [other]) => Value::Bool(matches!(other, Value::Text(_)) && text == first),
            ("equalsIgnoreCase", [_]) => Value::Bool(text.to_lowercase() == first.to_lowercase()),
            ("compareTo", [_]) => Value::Int(compare(text, first)),
            ("contains", [_]) => Value::Bool(text.contains(first)),
            ("startsWith", [_]) => Value::Bool(text.starts_with(first)),
            ("startsWith", [_, from]) => {
                let from = index(*from).and_then(|from| byte_at(text, from));
                Value::Bool(from.is_some_and(|from| text[from..].starts_with(first)))
            }
            ("endsWith", [_]) => Value::Bool(text.ends_with(first)),
            ("indexOf", [_]) => place(text.find(first)),
            ("indexOf", [_, from]) => {
                let from = byte_at(text, index(*from).unwrap_or(0)).unwrap_or(text.len());
                place(text[from..].find(first).map(|at| at + from))
            }
            ("lastIndexOf", [_]) => place(text.rfind(first)),
            ("charAt", [at]) => {
                match index(*at).and_then(|at| Some((byte_at(text, at)?, byte_at(text, at + 1)?))) {
                    Some((from, to)) if from < to => Value::Text(&text[from..to]),
                    _ => return fail("charAt", "there is no such place in the text"),
                }
            }
            ("substring" | "subSequence", [from]) => {
                match index(*from).and_then(|from| byte_at(text, from)) {
                    Some(from) => Value::Text(&text[from..]),
                    None => return fail("substring", format!("the text has {} characters only", len(text))),
                }
            }
            ("substring" | "subSequence", [from, to]) => {
                let bytes = |value: &Value<'r>| index(*value).and_then(|at| byte_at(text, at));
                match (bytes(from), bytes(to)) {
                    (Some(from), Some(to)) if from <= to => Value::Text(&text[from..to]),
                    _ => {
                        return fail(
                            "substring",
                            format!("there is no such part in a text of {} characters", len(text)),
                        );
                    }
                }
            }
            ("trim", []) => Value::Text(text.trim_matches(|c| c <= ' ')),
            ("strip", []) => Value::Text(text.trim()),
            ("toLowerCase", []) => Value::Text(self.keep_str(&text.to_lowercase())?),
            ("toUpperCase", []) => Value::Text(self.keep_str(&text.to_uppercase())?),
            ("concat", [_]) => {
                self.take(text.len() + first.len())?;
                Value::Text(self.bump.alloc_str(&[text, first].concat()))
            }
            ("repeat", [times]) => {
                let times = index(*times).unwrap_or(0);
                self.take(text.len().saturating_mul(times))?;
                Value::Text(self.bump.alloc_str(&text.repeat(times)))
            }
            ("replace", [_, _]) => {
                let count = if first.is_empty() {
                    text.len() + 1
                } else {
                    text.matches(first).count()
                };
                self.take(text.len().saturating_add(count.saturating_mul(second.len())))?;
                Value::Text(self.bump.alloc_str(&text.replace(first, second)))
            }
            ("replaceAll" | "replaceFirst", [_, _]) => {
                let regex = self.regex(first, text, compiled)?;
                let replaced = regex.replace(text, second, method == "replaceAll", self.memory);
                match replaced {
                    Ok(text) => Value::Text(self.keep_str(&text)?),
                    Err(reason) => return Err(bad_regex(first, reason)),
                }
            }
            ("matches", [_]) => {
                let regex = self.regex(first, text, compiled)?;
                Value::Bool(regex.matches_whole(text))
            }
            ("split", [_]) => self.split(text, first, 0, compiled)?,
            ("split", [_, limit]) => {
                let limit = limit.number().map_or(0, |limit| limit.as_int());
                self.split(text, first, limit, compiled)?
            }
            ("hashCode", []) => {
                let hash = text.encode_utf16().fold(0_i32, |hash, unit| {
                    hash.wrapping_mul(31).wrapping_add(unit.into())
                });
                Value::Int(hash.into())
            }
            ("format", [_, values @ ..]) => Value::Text(self.format(first, values)?),
            ("toCharArray", []) => self.split(text, "", 0, &Compiled::Nothing)?,
            _ => return Ok(None),
        }))
    }

    fn split(
        &mut self,
        text: &'r str,
        pattern: &'r str,
        limit: i64,
        compiled: &'r Compiled,
    ) -> Run<Value<'r>> {
        let regex = self.regex(pattern, text, compiled)?;
        let parts = regex.split(text, limit);
        self.take(parts.len() * ITEM)?;
        Ok(Value::List(List::new(
            self.bump,
            false,
            parts.into_iter().map(Value::Text),
        )))
    }

    /// The pattern of a call: compiled with the template, or now. Takes the steps for matching it over a text.
    fn regex(&mut self, pattern: &'r str, text: &str, compiled: &'r Compiled) -> Run<Pattern<'r>> {
        // The engine looks at each byte once for most patterns, and never more often than the pattern is long.
        self.spend((text.len() / 16) as u64 * (1 + pattern.len() / 32) as u64)?;
        if let Compiled::Regex(regex) = compiled {
            return Ok(Pattern::Compiled(regex));
        }
        if let Some((_, regex)) = self.patterns.iter().find(|(held, _)| *held == pattern) {
            return Ok(Pattern::Made(Rc::clone(regex)));
        }
        // Compiling takes far longer than matching a short text.
        self.spend(COMPILING)?;
        let regex = JavaRegex::compile(pattern, false).map_err(|reason| bad_regex(pattern, reason))?;
        let regex = Rc::new(regex);
        if self.patterns.len() < PATTERNS {
            self.patterns.push((pattern, Rc::clone(&regex)));
        }
        Ok(Pattern::Made(regex))
    }
}

/// Steps for compiling a pattern.
const COMPILING: u64 = 5000;
/// How many compiled patterns a render keeps.
const PATTERNS: usize = 16;

enum Pattern<'r> {
    Compiled(&'r JavaRegex),
    Made(Rc<JavaRegex>),
}

impl std::ops::Deref for Pattern<'_> {
    type Target = JavaRegex;

    fn deref(&self) -> &JavaRegex {
        match self {
            Pattern::Compiled(regex) => regex,
            Pattern::Made(regex) => regex,
        }
    }
}

fn index(value: Value<'_>) -> Option<usize> {
    usize::try_from(value.number()?.as_int()).ok()
}

/// By UTF-16 units: their difference where they first differ, else that of the lengths.
fn compare(left: &str, right: &str) -> i64 {
    let mut units = left.encode_utf16().zip(right.encode_utf16());
    match units.find(|(left, right)| left != right) {
        Some((left, right)) => i64::from(left) - i64::from(right),
        None => len(left) as i64 - len(right) as i64,
    }
}

fn bad_regex(pattern: &str, reason: impl Into<String>) -> Box<ErrorKind> {
    Box::new(ErrorKind::Regex {
        pattern: pattern.chars().take(80).collect(),
        reason: reason.into(),
    })
}
