//! Maps and lists in all their forms: of documents, of templates, of the request.

use super::value::{ENTRY, ITEM, List, Map, Value};
use super::{Renderer, Run};
use crate::json::{Json, Kind};
use crate::scope::Source;

impl<'r> Renderer<'r, '_> {
    /// How many items or members a value has; nothing for what has none.
    pub(super) fn len(&mut self, value: Value<'r>) -> Run<Option<usize>> {
        Ok(match self.settle(value) {
            Value::Json(json) => Some(json.len()),
            Value::List(list) => Some(list.items.borrow().len()),
            Value::Map(map) => Some(map.len()),
            Value::Range(first, last) => {
                Some(usize::try_from(first.abs_diff(last)).map_or(usize::MAX, |len| len.saturating_add(1)))
            }
            Value::Params => Some(Source::ALL.len()),
            value => self.map(value)?.map(Map::len),
        })
    }

    /// The items of a list, or the values of a map, as they are now.
    pub(super) fn items(&mut self, value: Value<'r>) -> Run<Option<&'r [Value<'r>]>> {
        Ok(Some(match self.settle(value) {
            Value::Json(json) if json.kind() == Kind::Array => {
                self.take(json.len() * ITEM)?;
                let list = List::new(self.bump, true, []);
                for item in json.items() {
                    let item = self.value_of(item)?;
                    list.items.borrow_mut().push(item);
                }
                self.copy(&list.items.borrow())?
            }
            Value::List(list) => self.copy(&list.items.borrow())?,
            value @ Value::Range(first, _) => {
                let len = self.len(value)?.unwrap_or_default();
                self.take(len.saturating_mul(ITEM))?;
                let is_up = matches!(value, Value::Range(first, last) if first <= last);
                let item = |at: usize| {
                    Value::Int(if is_up {
                        first + at as i64
                    } else {
                        first - at as i64
                    })
                };
                self.bump.alloc_slice_fill_with(len, item)
            }
            value => match self.map(value)? {
                Some(map) => {
                    let values: Vec<Value<'r>> =
                        map.entries.borrow().iter().map(|(_, value)| *value).collect();
                    self.copy(&values)?
                }
                None => return Ok(None),
            },
        }))
    }

    fn copy(&mut self, items: &[Value<'r>]) -> Run<&'r [Value<'r>]> {
        self.take(items.len() * ITEM)?;
        Ok(self.bump.alloc_slice_copy(items))
    }

    /// A value as a map to read from; nothing for what is none.
    pub(super) fn map(&mut self, value: Value<'r>) -> Run<Option<&'r Map<'r>>> {
        Ok(Some(match self.settle(value) {
            Value::Map(map) => map,
            Value::Json(json) if json.kind() == Kind::Object => self.object(json)?,
            Value::Params => {
                let sources = Source::ALL.map(|source| (source.name(), Value::ParamsOf(source)));
                Map::new(self.bump, sources)
            }
            Value::ParamsOf(source) => self.gather(|scope, each| scope.parameters(source, each))?,
            Value::Stage => self.gather(|scope, each| scope.stage_variables(each))?,
            Value::Context(path) => match self.context_map(path)? {
                Some(map) => map,
                None => return Ok(None),
            },
            _ => return Ok(None),
        }))
    }

    /// A map of what the caller's scope tells.
    pub(super) fn gather(
        &mut self,
        tell: impl FnOnce(&'r dyn crate::Scope, crate::Each<'r, '_>),
    ) -> Run<&'r Map<'r>> {
        let map = self.new_map();
        let mut result: Run = Ok(());
        let scope = self.scope;
        tell(scope, &mut |name, value| {
            if result.is_ok() {
                result = (|| {
                    let (name, value) = (self.keep(name)?, self.keep(value)?);
                    self.put(map, name, Value::Text(value))?;
                    Ok(())
                })();
            }
        });
        result?;
        Ok(map)
    }

    fn object(&mut self, json: Json<'r>) -> Run<&'r Map<'r>> {
        self.take(json.len() * ENTRY)?;
        let map = self.new_map();
        for (name, value) in json.members() {
            let (name, value) = (self.keep(name.text())?, self.value_of(value)?);
            // Names of a document's object differ.
            map.entries.borrow_mut().push((name, value));
        }
        Ok(map)
    }

    /// A map that can be changed: an object of a document is copied at the first change, and stands for the object
    /// from then on wherever the template meets it.
    pub(super) fn map_to_change(&mut self, value: Value<'r>) -> Run<Option<&'r Map<'r>>> {
        match self.settle(value) {
            Value::Map(map) => Ok(Some(map)),
            Value::Json(json) if json.kind() == Kind::Object => {
                let map = self.object(json)?;
                self.take(ENTRY)?;
                self.edited.push((json.identity(), Value::Map(map)));
                Ok(Some(map))
            }
            _ => Ok(None),
        }
    }

    /// The same for a list.
    pub(super) fn list_to_change(&mut self, value: Value<'r>) -> Run<Option<&'r List<'r>>> {
        match self.settle(value) {
            Value::List(list) => Ok(Some(list)),
            Value::Json(json) if json.kind() == Kind::Array => {
                let items = self.items(Value::Json(json))?.unwrap_or_default();
                let list = List::new(self.bump, true, items.iter().copied());
                self.edited.push((json.identity(), Value::List(list)));
                Ok(Some(list))
            }
            _ => Ok(None),
        }
    }

    /// Sets an item; gives what it was. Beyond the end nothing is set.
    pub(super) fn set_item(&mut self, list: Value<'r>, index: i64, value: Value<'r>) -> Run<Value<'r>> {
        let Some(list) = self.list_to_change(list)? else {
            return Ok(Value::Null);
        };
        let mut items = list.items.borrow_mut();
        match usize::try_from(index).ok().and_then(|index| items.get_mut(index)) {
            Some(item) => Ok(std::mem::replace(item, value)),
            None => {
                drop(items);
                self.note(|| format!("there is no item {index} to set"));
                Ok(Value::Null)
            }
        }
    }

    /// A member of a map that the caller's scope fills.
    pub(super) fn host_member(&mut self, value: Value<'r>, name: &str) -> Run<Value<'r>> {
        let scope = self.scope;
        let found = match value {
            Value::Params => return Ok(Source::of(name).map_or(Value::Null, Value::ParamsOf)),
            Value::ParamsOf(source) => scope.parameter(source, name),
            Value::Stage => scope.stage_variable(name),
            _ => None,
        };
        match found {
            Some(text) => Ok(Value::Text(self.keep(text)?)),
            None => Ok(Value::Null),
        }
    }
}
