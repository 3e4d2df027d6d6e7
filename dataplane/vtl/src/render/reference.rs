//! References: what `$name`, and what follows it, stands for.

use super::value::{ENTRY, Map, Value};
use super::{Renderer, Run};
use crate::json::{Json, Kind};
use crate::syntax::{Reference, Step};

impl<'r> Renderer<'r, '_> {
    pub(super) fn reference(&mut self, reference: &'r Reference) -> Run<Value<'r>> {
        self.at = reference.at;
        self.spend(1)?;
        let value = self.slots[usize::from(reference.slot)];
        if reference.steps.is_empty() {
            return Ok(value);
        }
        // Calls stand in the arguments of calls.
        self.deeper(|renderer| renderer.follow(value, &reference.steps))
    }

    /// Follows the parts of a reference from a value; null as soon as one leads nowhere.
    fn follow(&mut self, mut value: Value<'r>, mut steps: &'r [Step]) -> Run<Value<'r>> {
        while let [step, rest @ ..] = steps {
            if let Value::Context(path) = value {
                (value, steps) = self.context(path, steps)?;
            } else {
                steps = rest;
                value = match step {
                    Step::Property(name) => self.property(value, name)?,
                    Step::Index(index) => {
                        let index = self.expression(index)?;
                        self.index(value, index)?
                    }
                    Step::Method {
                        name,
                        arguments,
                        compiled,
                    } => self.call(value, name, arguments, compiled)?,
                };
            }
            if value.is_null() {
                break;
            }
        }
        Ok(value)
    }

    /// What an object or array of a document is now: itself, unless the template has changed it.
    pub(super) fn settle(&self, value: Value<'r>) -> Value<'r> {
        match value {
            Value::Json(json) if !self.edited.is_empty() => {
                let identity = json.identity();
                let edited = self.edited.iter().find(|(place, _)| *place == identity);
                edited.map_or(value, |(_, now)| *now)
            }
            _ => value,
        }
    }

    /// A value of a document: scalars become values of the language, `null` becomes null.
    pub(super) fn value_of(&mut self, json: Json<'r>) -> Run<Value<'r>> {
        Ok(match json.kind() {
            Kind::Null => Value::Null,
            Kind::Bool => Value::Bool(json.as_bool() == Some(true)),
            Kind::Number => Value::Number(json.as_number().unwrap_or_default()),
            Kind::String => Value::Text(self.keep(json.as_str().unwrap_or_default())?),
            Kind::Array | Kind::Object => Value::Json(json),
        })
    }

    /// `.name`: a look-up in a map (VTL-245).
    pub(super) fn property(&mut self, value: Value<'r>, name: &'r str) -> Run<Value<'r>> {
        match self.settle(value) {
            Value::Json(json) if json.kind() == Kind::Object => {
                self.spend(1 + (json.len() / 16) as u64)?;
                match json.get(name) {
                    Some(member) => self.value_of(member),
                    None => Ok(Value::Null),
                }
            }
            Value::Map(map) => {
                self.spend(1 + (map.len() / 16) as u64)?;
                Ok(map.get(name).unwrap_or(Value::Null))
            }
            Value::Entry(entry) => Ok(match name {
                "key" => Value::Text(entry.0),
                "value" => entry.1,
                _ => Value::Null,
            }),
            Value::Input if name == "body" => Ok(Value::Text(self.body.text())),
            Value::Foreach(depth) => Ok(self.loop_member(depth, name)),
            value @ (Value::Stage | Value::Params | Value::ParamsOf(_)) => self.host_member(value, name),
            Value::Text(text) if name == "empty" => Ok(Value::Bool(text.is_empty())),
            value @ (Value::List(_) | Value::Json(_) | Value::Range(..)) if name == "empty" => {
                Ok(Value::Bool(self.len(value)? == Some(0)))
            }
            _ => Ok(Value::Null),
        }
    }

    /// `[index]`: an item by number, a member by key.
    fn index(&mut self, value: Value<'r>, index: Value<'r>) -> Run<Value<'r>> {
        match index.number() {
            Some(number) if self.is_list(value) => self.item(value, number.as_int()),
            _ => {
                let name = self.text(index)?;
                self.property(value, name)
            }
        }
    }

    /// An item of a list; nothing beyond its ends.
    pub(super) fn item(&mut self, list: Value<'r>, index: i64) -> Run<Value<'r>> {
        let Ok(at) = usize::try_from(index) else {
            return Ok(Value::Null);
        };
        match self.settle(list) {
            Value::Json(json) => {
                self.spend((json.len().min(at) / 16) as u64)?;
                match json.item(at) {
                    Some(item) => self.value_of(item),
                    None => Ok(Value::Null),
                }
            }
            Value::List(list) => Ok(list.items.borrow().get(at).copied().unwrap_or(Value::Null)),
            Value::Range(first, last) if index as u64 <= first.abs_diff(last) => {
                Ok(Value::Int(if first <= last {
                    first + index
                } else {
                    first - index
                }))
            }
            _ => Ok(Value::Null),
        }
    }

    pub(super) fn is_list(&self, value: Value<'r>) -> bool {
        match self.settle(value) {
            Value::Json(json) => json.kind() == Kind::Array,
            Value::List(_) | Value::Range(..) => true,
            _ => false,
        }
    }

    /// `#set`. Null changes nothing, as in Velocity 1.x; so does a place that cannot be assigned to.
    pub(super) fn assign(&mut self, target: &'r Reference, value: Value<'r>) -> Run {
        self.at = target.at;
        let [path @ .., last] = &*target.steps else {
            if value.is_null() {
                self.note(|| "`#set` to null leaves the variable as it is".to_owned());
            } else {
                self.slots[usize::from(target.slot)] = value;
            }
            return Ok(());
        };
        let holder = self.slots[usize::from(target.slot)];
        let holder = if path.is_empty() {
            holder
        } else {
            self.follow(holder, path)?
        };
        self.at = target.at;
        let key = match last {
            Step::Property(name) => Value::Text(name),
            Step::Index(index) => self.expression(index)?,
            Step::Method { .. } => {
                self.note(|| "`#set` cannot assign to a call".to_owned());
                return Ok(());
            }
        };
        if value.is_null() {
            self.note(|| "`#set` to null changes nothing".to_owned());
            return Ok(());
        }
        match (self.settle(holder), key.number()) {
            (Value::Context(path), _) => {
                let key = self.text(key)?;
                self.assign_context(path, key, value)
            }
            (holder, Some(index)) if self.is_list(holder) => {
                self.set_item(holder, index.as_int(), value)?;
                Ok(())
            }
            (holder, _) => match self.map_to_change(holder)? {
                Some(map) => {
                    let key = self.text(key)?;
                    self.put(map, key, value)?;
                    Ok(())
                }
                None => {
                    self.note(|| format!("`#set` cannot assign to a member of {}", holder.kind()));
                    Ok(())
                }
            },
        }
    }

    /// Sets a key of a map; gives what it had before.
    pub(super) fn put(&mut self, map: &'r Map<'r>, key: &'r str, value: Value<'r>) -> Run<Value<'r>> {
        self.take(ENTRY)?;
        self.spend(1 + (map.len() / 16) as u64)?;
        Ok(map.put(key, value))
    }
}
