//! Values as text: as Java prints them, and as JSON.

use std::fmt::Write as _;

use super::value::Value;
use super::{Renderer, Run};
use crate::json::{Json, Kind, write_string};
use crate::number::java_double;

impl<'r> Renderer<'r, '_> {
    /// Prints a value as a reference in the text does: null as nothing.
    pub(super) fn print(&mut self, value: Value<'r>) -> Run {
        match value {
            Value::Null => Ok(()),
            Value::Text(text) | Value::Number(text) => self.write(text),
            Value::Bool(true) => self.write("true"),
            Value::Bool(false) => self.write("false"),
            Value::Int(int) => {
                // Writing to a String cannot fail.
                let _ = write!(self.out, "{int}");
                self.write("")
            }
            Value::Double(double) => self.write(&java_double(double)),
            Value::Block(number) => self.print_block(number),
            Value::Input | Value::Util | Value::Foreach(_) => Ok(()),
            held => self.deeper(|renderer| renderer.print_held(held)),
        }
    }

    /// Prints what holds other values: maps as `{key=value}`, lists as `[item]`, arrays of documents as JSON.
    fn print_held(&mut self, value: Value<'r>) -> Run {
        self.spend(1)?;
        match self.settle(value) {
            Value::Json(json) if json.kind() == Kind::Array => self.write_json(Value::Json(json)),
            Value::Json(json) => {
                self.write("{")?;
                for (at, (name, member)) in json.members().enumerate() {
                    self.spend(1)?;
                    self.write(if at > 0 { ", " } else { "" })?;
                    self.write(&name.text())?;
                    self.write("=")?;
                    let member = self.value_of(member)?;
                    self.print_in_list(member)?;
                }
                self.write("}")
            }
            Value::List(list) if list.is_json => self.write_json(Value::List(list)),
            value @ (Value::List(_) | Value::Range(..)) => {
                let items = self.items(value)?.unwrap_or_default();
                self.write("[")?;
                for (at, item) in items.iter().enumerate() {
                    self.write(if at > 0 { ", " } else { "" })?;
                    self.print_in_list(*item)?;
                }
                self.write("]")
            }
            Value::Entry((name, value)) => {
                self.write(name)?;
                self.write("=")?;
                self.print_in_list(*value)
            }
            other => {
                let Some(map) = self.map(other)? else {
                    return Ok(());
                };
                self.write("{")?;
                let mut at = 0;
                while let Some((name, value)) = { map.entries.borrow().get(at).copied() } {
                    self.write(if at > 0 { ", " } else { "" })?;
                    self.write(name)?;
                    self.write("=")?;
                    self.print_in_list(value)?;
                    at += 1;
                }
                self.write("}")
            }
        }
    }

    fn print_in_list(&mut self, value: Value<'r>) -> Run {
        self.spend(1)?;
        match value {
            Value::Null => self.write("null"),
            value => self.print(value),
        }
    }

    /// A value as text: itself where it is one.
    pub(super) fn text(&mut self, value: Value<'r>) -> Run<&'r str> {
        match value {
            Value::Text(text) | Value::Number(text) => Ok(text),
            Value::Null => Ok(""),
            Value::Bool(true) => Ok("true"),
            Value::Bool(false) => Ok("false"),
            value => self.capture(|renderer| renderer.print(value)),
        }
    }

    /// Writes a value as compact JSON.
    pub(super) fn write_json(&mut self, value: Value<'r>) -> Run {
        self.spend(1)?;
        match self.settle(value) {
            Value::Null => self.write("null"),
            Value::Text(text) => {
                self.spend_text(text.len())?;
                write_string(text, &mut self.out);
                self.write("")
            }
            Value::Json(json) if self.edited.is_empty() => self.write_document(json),
            Value::Json(json) if json.kind() == Kind::Array => {
                let mut items = json.items();
                self.write_json_list(|renderer| items.next().map(|item| renderer.value_of(item)).transpose())
            }
            Value::Json(json) => {
                let mut members = json.members();
                self.write_json_map(|renderer| match members.next() {
                    Some((name, value)) => Ok(Some((renderer.keep(name.text())?, renderer.value_of(value)?))),
                    None => Ok(None),
                })
            }
            value @ (Value::List(_) | Value::Range(..)) => {
                let mut items = self.items(value)?.unwrap_or_default().iter().copied();
                self.write_json_list(|_| Ok(items.next()))
            }
            value @ (Value::Bool(_) | Value::Int(_) | Value::Double(_) | Value::Number(_)) => {
                self.print(value)
            }
            value => match self.map(value)? {
                Some(map) => {
                    let mut at = 0;
                    self.write_json_map(|_| {
                        at += 1;
                        Ok(map.entries.borrow().get(at - 1).copied())
                    })
                }
                None => {
                    let text = self.text(value)?;
                    self.write_json(Value::Text(text))
                }
            },
        }
    }

    /// Writes a part of a document that no template has changed.
    fn write_document(&mut self, json: Json<'r>) -> Run {
        self.spend((json.weight() / 16) as u64)?;
        json.write(&mut self.out);
        self.write("")
    }

    fn write_json_list(&mut self, mut next: impl FnMut(&mut Self) -> Run<Option<Value<'r>>>) -> Run {
        self.deeper(|renderer| {
            renderer.write("[")?;
            let mut is_first = true;
            while let Some(item) = next(renderer)? {
                renderer.write(if std::mem::take(&mut is_first) { "" } else { "," })?;
                renderer.write_json(item)?;
            }
            renderer.write("]")
        })
    }

    fn write_json_map(
        &mut self,
        mut next: impl FnMut(&mut Self) -> Run<Option<(&'r str, Value<'r>)>>,
    ) -> Run {
        self.deeper(|renderer| {
            renderer.write("{")?;
            let mut is_first = true;
            while let Some((name, value)) = next(renderer)? {
                renderer.write(if std::mem::take(&mut is_first) { "" } else { "," })?;
                write_string(name, &mut renderer.out);
                renderer.write(":")?;
                renderer.write_json(value)?;
            }
            renderer.write("}")
        })
    }
}
