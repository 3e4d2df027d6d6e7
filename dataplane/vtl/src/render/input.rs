//! `$input`.

use super::value::{List, Value};
use super::{Renderer, Run, over};
use crate::error::{Bound, ErrorKind};
use crate::json::{Json, JsonError};
use crate::path::{JsonPath, Selection, Step};
use crate::scope::Source;
use crate::syntax::Compiled;

impl<'r> Renderer<'r, '_> {
    /// A call on `$input`; `None` where it has no such method.
    pub(super) fn input(
        &mut self,
        method: &str,
        arguments: &[Value<'r>],
        compiled: &'r Compiled,
    ) -> Run<Option<Value<'r>>> {
        Ok(Some(match (method, arguments) {
            ("params", []) => Value::Params,
            ("params", [name, ..]) => {
                let name = self.text(*name)?;
                Value::Text(self.parameter(name)?)
            }
            ("path", [path, ..]) => {
                // What is not JSON has nothing anywhere (OBV-273).
                let Ok(root) = self.body.json() else {
                    return Ok(Some(Value::Null));
                };
                match self.find(root, *path, compiled)? {
                    Found::Value(value) => value,
                    Found::Selection(selection) => self.selected(selection)?,
                }
            }
            ("json", [path, ..]) => {
                let root = self
                    .body
                    .json()
                    .map_err(|error| Box::new(ErrorKind::Body(error)))?;
                let found = self.find(root, *path, compiled)?;
                let text = self.capture(|renderer| match found {
                    Found::Value(value) => renderer.write_json(value),
                    Found::Selection(Selection::One(json)) => renderer.write_json(Value::Json(json)),
                    Found::Selection(selection) => {
                        selection.write(&mut renderer.out);
                        renderer.write("")
                    }
                })?;
                Value::Text(text)
            }
            ("getBody", []) => Value::Text(self.body.text()),
            _ => return Ok(None),
        }))
    }

    /// A parameter wherever it is: path, query string, header; empty where there is none (VTL-206, VTL-266).
    fn parameter(&mut self, name: &str) -> Run<&'r str> {
        let scope = self.scope;
        if let Some(text) = Source::ALL
            .into_iter()
            .find_map(|source| scope.parameter(source, name))
        {
            return self.keep(text);
        }
        let mut found = None;
        scope.parameters(Source::Header, &mut |header, value| {
            if header.eq_ignore_ascii_case(name) {
                found = Some(value);
            }
        });
        self.keep(found.unwrap_or_default())
    }

    fn find(&mut self, root: Json<'r>, path: Value<'r>, compiled: &'r Compiled) -> Run<Found<'r>> {
        let own;
        let path = match compiled {
            Compiled::Path(path) => &**path,
            _ => {
                let text = self.text(path)?;
                self.spend(10 + (text.len() / 4) as u64)?;
                own = JsonPath::compile(text).map_err(|error| Box::new(ErrorKind::Path(error)))?;
                &own
            }
        };
        if self.edited.is_empty() {
            return self.select(path, root).map(Found::Selection);
        }
        // The template has changed the document: what it put there is found, too.
        if let Some(steps) = path.plain() {
            let mut value = self.value_of(root)?;
            for step in steps {
                value = match step {
                    Step::Member(name) => {
                        let name = self.keep_str(name)?;
                        self.property(value, name)?
                    }
                    Step::Item(index) => {
                        let len = if *index < 0 { self.len(value)? } else { None };
                        let from_end = len.map_or(0, |len| len as i64);
                        self.item(value, index + from_end)?
                    }
                    _ => Value::Null,
                };
                if value.is_null() {
                    return Ok(Found::Selection(Selection::Missing));
                }
            }
            return Ok(Found::Value(value));
        }
        let text = self.capture(|renderer| renderer.write_json(Value::Json(root)))?;
        match self.read(text) {
            Ok(now) => self.select(path, now?).map(Found::Selection),
            Err(error) => Err(Box::new(ErrorKind::Json(error))),
        }
    }

    fn select(&mut self, path: &JsonPath, root: Json<'r>) -> Run<Selection<'r>> {
        path.select(root, &mut self.steps).or_else(|_| over(Bound::Steps))
    }

    /// What a path found, as a value: one, or a list.
    fn selected(&mut self, selection: Selection<'r>) -> Run<Value<'r>> {
        match selection {
            Selection::Missing => Ok(Value::Null),
            Selection::One(json) => self.value_of(json),
            Selection::Many(found) => {
                let list = List::new(self.bump, true, []);
                for json in found {
                    let value = self.value_of(json)?;
                    self.push(list, value)?;
                }
                Ok(Value::List(list))
            }
            Selection::Made(text) => {
                let text = self.keep_str(&text)?;
                match self.read(text) {
                    Ok(json) => {
                        let json = json?;
                        self.value_of(json)
                    }
                    Err(_) => Ok(Value::Text(text)),
                }
            }
        }
    }

    /// Reads a text as JSON that lives as long as the render. The outer failure is the text's, the inner one the
    /// budget's.
    pub(super) fn read(&mut self, text: &'r str) -> Result<Run<Json<'r>>, JsonError> {
        if let Err(error) = self.spend_text(text.len()) {
            return Ok(Err(error));
        }
        let mut room = Ok(());
        let json = Json::read(text, self.budget.json_depth, |nodes| {
            room = self.take(size_of_val(nodes));
            match room {
                Ok(()) => self.bump.alloc_slice_copy(nodes),
                Err(_) => &[],
            }
        })?;
        Ok(room.map(|()| json))
    }
}

enum Found<'r> {
    /// In a document that the template has changed.
    Value(Value<'r>),
    Selection(Selection<'r>),
}
