//! Calls of methods: those of Java's lists and maps, and those that every value has.

use super::value::{ENTRY, ITEM, List, Value};
use super::{Renderer, Run, fail};
use crate::json::Kind;
use crate::syntax::{Compiled, Expr};

/// How many arguments a call may have; further ones are dropped.
const ARGUMENTS: usize = 8;

impl<'r> Renderer<'r, '_> {
    /// Calls a method; null, and a note, where the value has no such one.
    pub(super) fn call(
        &mut self,
        value: Value<'r>,
        method: &str,
        arguments: &'r [Expr],
        compiled: &'r Compiled,
    ) -> Run<Value<'r>> {
        if value.is_null() {
            return Ok(Value::Null);
        }
        let at = self.at;
        let mut values = [Value::Null; ARGUMENTS];
        let count = arguments.len().min(ARGUMENTS);
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = self.expression(argument)?;
        }
        self.at = at;
        self.spend(1)?;
        let arguments = &values[..count];
        let settled = self.settle(value);
        let result = match settled {
            Value::Input => self.input(method, arguments, compiled)?,
            Value::Util => self.util(method, arguments)?,
            Value::Text(text) => self.string(text, method, arguments, compiled)?,
            Value::Int(_) | Value::Double(_) | Value::Number(_) => {
                self.number_method(settled, method, arguments)?
            }
            Value::Json(json) if json.kind() == Kind::Array => self.list(settled, method, arguments)?,
            Value::List(_) | Value::Range(..) => self.list(settled, method, arguments)?,
            Value::Json(_)
            | Value::Map(_)
            | Value::Params
            | Value::ParamsOf(_)
            | Value::Stage
            | Value::Context(_) => self.map_method(settled, method, arguments)?,
            Value::Entry(entry) => match method {
                "getKey" => Some(Value::Text(entry.0)),
                "getValue" => Some(entry.1),
                _ => None,
            },
            Value::Foreach(depth) => Some(self.loop_member(depth, method)),
            Value::Null | Value::Bool(_) | Value::Block(_) => None,
        };
        if let Some(result) = result {
            return Ok(result);
        }
        match (method, arguments) {
            ("toString", []) => Ok(Value::Text(self.text(settled)?)),
            ("equals", [other]) => {
                let is_same_kind = settled.kind() == other.kind();
                Ok(Value::Bool(is_same_kind && self.equal(settled, *other)?))
            }
            _ => {
                self.note(|| {
                    format!(
                        "{} has no method `{method}` with {count} arguments",
                        settled.kind()
                    )
                });
                Ok(Value::Null)
            }
        }
    }

    fn list(&mut self, list: Value<'r>, method: &str, arguments: &[Value<'r>]) -> Run<Option<Value<'r>>> {
        Ok(Some(match (method, arguments) {
            ("size" | "count" | "length", []) => self.len_value(list)?,
            ("isEmpty", []) => Value::Bool(self.len(list)? == Some(0)),
            ("get", [index]) => match index.number() {
                Some(index) => {
                    let index = index.as_int();
                    let len = self.len(list)?.unwrap_or_default();
                    if usize::try_from(index).is_ok_and(|index| index < len) {
                        self.item(list, index)?
                    } else {
                        return fail("get", format!("there is no item {index} in a list of {len}"));
                    }
                }
                None => Value::Null,
            },
            ("set", [index, value]) => match index.number() {
                Some(index) => self.set_item(list, index.as_int(), *value)?,
                None => Value::Null,
            },
            ("contains", [value]) => Value::Bool(self.position(list, *value, false)?.is_some()),
            ("indexOf", [value]) => {
                Value::Int(self.position(list, *value, false)?.map_or(-1, |at| at as i64))
            }
            ("lastIndexOf", [value]) => {
                Value::Int(self.position(list, *value, true)?.map_or(-1, |at| at as i64))
            }
            ("containsAll", [values]) => {
                let values = self.items(*values)?.unwrap_or_default();
                let mut holds_all = true;
                for value in values {
                    holds_all = holds_all && self.position(list, *value, false)?.is_some();
                }
                Value::Bool(holds_all)
            }
            ("add", [value]) => match self.list_to_change(list)? {
                Some(list) => {
                    self.push(list, *value)?;
                    Value::Bool(true)
                }
                None => Value::Null,
            },
            ("add", [index, value]) => match self.list_to_change(list)? {
                Some(list) => {
                    self.take(ITEM)?;
                    let len = list.items.borrow().len();
                    match index.number().map(|index| usize::try_from(index.as_int())) {
                        Some(Ok(index)) if index <= len => list.items.borrow_mut().insert(index, *value),
                        _ => return fail("add", format!("there is no such place in a list of {len}")),
                    }
                    self.spend(1 + (len / 16) as u64)?;
                    Value::Null
                }
                None => Value::Null,
            },
            ("addAll", [values]) => match (self.list_to_change(list)?, self.items(*values)?) {
                (Some(list), Some(values)) => {
                    self.take(values.len() * ITEM)?;
                    list.items.borrow_mut().extend(values.iter().copied());
                    Value::Bool(!values.is_empty())
                }
                _ => Value::Bool(false),
            },
            ("remove", [value]) => self.remove_item(list, *value)?,
            ("clear", []) => {
                if let Some(list) = self.list_to_change(list)? {
                    list.items.borrow_mut().clear();
                }
                Value::Null
            }
            ("subList", [from, to]) => {
                let items = self.items(list)?.unwrap_or_default();
                let place =
                    |value: &Value<'r>| value.number().and_then(|at| usize::try_from(at.as_int()).ok());
                match (place(from), place(to)) {
                    (Some(from), Some(to)) if from <= to && to <= items.len() => {
                        Value::List(List::new(self.bump, false, items[from..to].iter().copied()))
                    }
                    _ => {
                        return fail(
                            "subList",
                            format!("there is no such part in a list of {}", items.len()),
                        );
                    }
                }
            }
            ("toArray" | "iterator" | "stream", []) => list,
            _ => return Ok(None),
        }))
    }

    fn position(&mut self, list: Value<'r>, value: Value<'r>, from_end: bool) -> Run<Option<usize>> {
        let items = self.items(list)?.unwrap_or_default();
        let mut found = None;
        for (at, item) in items.iter().enumerate() {
            self.spend(1)?;
            if item.kind() == value.kind() && self.equal(*item, value)? {
                found = Some(at);
                if !from_end {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// By number an item by its place, which it gives; anything else the first item equal to it, and whether there
    /// was one.
    fn remove_item(&mut self, list: Value<'r>, value: Value<'r>) -> Run<Value<'r>> {
        let place = match value.number() {
            Some(index) => usize::try_from(index.as_int()).ok(),
            None => self.position(list, value, false)?,
        };
        let Some(list) = self.list_to_change(list)? else {
            return Ok(Value::Null);
        };
        let len = list.items.borrow().len();
        self.spend(1 + (len / 16) as u64)?;
        let removed = place
            .filter(|at| *at < len)
            .map(|at| list.items.borrow_mut().remove(at));
        match (value.number(), removed) {
            (Some(_), Some(removed)) => Ok(removed),
            (Some(index), None) => fail(
                "remove",
                format!("there is no item {} in a list of {len}", index.as_int()),
            ),
            (None, removed) => Ok(Value::Bool(removed.is_some())),
        }
    }

    fn map_method(
        &mut self,
        map: Value<'r>,
        method: &str,
        arguments: &[Value<'r>],
    ) -> Run<Option<Value<'r>>> {
        Ok(Some(match (method, arguments) {
            ("get", [key]) => {
                let key = self.text(*key)?;
                self.property(map, key)?
            }
            ("getOrDefault", [key, default]) => {
                let key = self.text(*key)?;
                match self.property(map, key)? {
                    Value::Null => *default,
                    value => value,
                }
            }
            ("size" | "count" | "length", []) => self.len_value(map)?,
            ("isEmpty", []) => Value::Bool(self.len(map)? == Some(0)),
            ("containsKey", [key]) => {
                let key = self.text(*key)?;
                let holds = match map {
                    Value::Json(json) => {
                        self.spend(1 + (json.len() / 16) as u64)?;
                        json.get(key).is_some()
                    }
                    map => self.map(map)?.is_some_and(|map| map.get(key).is_some()),
                };
                Value::Bool(holds)
            }
            ("keySet", []) => {
                let Some(map) = self.map(map)? else {
                    return Ok(None);
                };
                self.take(map.len() * ITEM)?;
                let entries = map.entries.borrow();
                Value::List(List::new(
                    self.bump,
                    false,
                    entries.iter().map(|(key, _)| Value::Text(key)),
                ))
            }
            ("values", []) => match self.items(map)? {
                Some(values) => Value::List(List::new(self.bump, false, values.iter().copied())),
                None => return Ok(None),
            },
            ("containsValue", [value]) => match self.items(map)? {
                Some(values) => {
                    let values = Value::List(List::new(self.bump, false, values.iter().copied()));
                    Value::Bool(self.position(values, *value, false)?.is_some())
                }
                None => return Ok(None),
            },
            ("entrySet", []) => {
                let Some(map) = self.map(map)? else {
                    return Ok(None);
                };
                self.take(map.len() * (ITEM + ENTRY))?;
                let entries = map.entries.borrow();
                let bump = self.bump;
                Value::List(List::new(
                    bump,
                    false,
                    entries.iter().map(|entry| Value::Entry(bump.alloc(*entry))),
                ))
            }
            ("put", [key, value]) => {
                let key = self.text(*key)?;
                match map {
                    Value::Context(path) => {
                        self.assign_context(path, key, *value)?;
                        Value::Null
                    }
                    map => match self.map_to_change(map)? {
                        Some(map) => self.put(map, key, *value)?,
                        None => return Ok(None),
                    },
                }
            }
            ("putIfAbsent", [key, value]) => {
                let key = self.text(*key)?;
                let before = self.property(map, key)?;
                if before.is_null()
                    && let Some(map) = self.map_to_change(map)?
                {
                    self.put(map, key, *value)?;
                }
                before
            }
            ("putAll", [other]) => match self.map(*other)? {
                Some(other) => {
                    let entries: Vec<(&'r str, Value<'r>)> = other.entries.borrow().to_vec();
                    for (key, value) in entries {
                        match map {
                            Value::Context(path) => self.assign_context(path, key, value)?,
                            map => {
                                if let Some(map) = self.map_to_change(map)? {
                                    self.put(map, key, value)?;
                                }
                            }
                        }
                    }
                    Value::Null
                }
                None => Value::Null,
            },
            ("remove", [key]) => {
                let key = self.text(*key)?;
                match self.map_to_change(map)? {
                    Some(map) => {
                        self.spend(1 + (map.len() / 16) as u64)?;
                        map.remove(key)
                    }
                    None => return Ok(None),
                }
            }
            ("clear", []) => {
                if let Some(map) = self.map_to_change(map)? {
                    map.entries.borrow_mut().clear();
                }
                Value::Null
            }
            _ => return Ok(None),
        }))
    }

    fn number_method(
        &mut self,
        value: Value<'r>,
        method: &str,
        arguments: &[Value<'r>],
    ) -> Run<Option<Value<'r>>> {
        let Some(number) = value.number() else {
            return Ok(None);
        };
        Ok(Some(match (method, arguments) {
            ("intValue", []) => Value::Int(number.as_int() as i32 as i64),
            ("longValue", []) => Value::Int(number.as_int()),
            ("doubleValue" | "floatValue", []) => Value::Double(number.as_double()),
            ("compareTo", [other]) => match other.number().and_then(|other| number.compare(other)) {
                Some(order) => Value::Int(order as i64),
                None => return fail("compareTo", format!("{} is no number", other.kind())),
            },
            // Static methods of Java's classes, which templates reach through any number.
            ("parseInt" | "parseLong", [text]) => {
                let text = self.text(*text)?;
                match text.parse() {
                    Ok(int) => Value::Int(int),
                    Err(_) => return fail("parseInt", "the text is no whole number"),
                }
            }
            ("parseDouble" | "parseFloat", [text]) => {
                let text = self.text(*text)?;
                match crate::number::Number::read(text.trim_ascii()) {
                    Some(number) => Value::Double(number.as_double()),
                    None => return fail("parseDouble", "the text is no number"),
                }
            }
            ("valueOf", [text]) => {
                let text = self.text(*text)?;
                match crate::number::Number::read(text.trim_ascii()) {
                    Some(number) => number.into(),
                    None => return fail("valueOf", "the text is no number"),
                }
            }
            _ => return Ok(None),
        }))
    }

    fn len_value(&mut self, value: Value<'r>) -> Run<Value<'r>> {
        Ok(match self.len(value)? {
            Some(len) => Value::Int(i64::try_from(len).unwrap_or(i64::MAX)),
            None => Value::Null,
        })
    }

    pub(super) fn push(&mut self, list: &'r List<'r>, value: Value<'r>) -> Run {
        self.take(ITEM)?;
        list.items.borrow_mut().push(value);
        Ok(())
    }
}
