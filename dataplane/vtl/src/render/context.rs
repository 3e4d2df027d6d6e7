//! `$context`: its variables, and the overrides that are assigned to it.

use super::value::{List, Map, Value};
use super::{Renderer, Run};
use crate::error::ErrorKind;
use crate::overrides::{OverrideValue, Phase};
use crate::scope::{Source, is_hidden};
use crate::syntax::Step;

/// The longest name of a variable, in parts.
const PARTS: usize = 8;

impl<'r> Renderer<'r, '_> {
    /// Follows the parts of a reference below `$context` as far as they name a variable; gives the value and the
    /// parts that are left.
    pub(super) fn context(&mut self, path: &'r [&'r str], steps: &'r [Step]) -> Run<(Value<'r>, &'r [Step])> {
        let mut name = [""; PARTS];
        let mut len = path.len().min(PARTS);
        name[..len].copy_from_slice(&path[..len]);
        let mut left = steps;
        while let [step, rest @ ..] = left {
            let part = match step {
                Step::Property(part) => &**part,
                Step::Index(part) => {
                    let part = self.expression(part)?;
                    self.text(part)?
                }
                Step::Method { name, arguments, .. } if &**name == "get" && arguments.len() == 1 => {
                    let part = self.expression(&arguments[0])?;
                    self.text(part)?
                }
                Step::Method { .. } => break,
            };
            if len == PARTS {
                return Ok((Value::Null, &[]));
            }
            name[len] = part;
            len += 1;
            left = rest;
        }
        let name = &name[..len];
        let value = self.variable(name)?;
        let [
            Step::Method {
                name: method,
                arguments,
                compiled,
            },
            rest @ ..,
        ] = left
        else {
            return Ok((value, left));
        };
        Ok((self.call(value, method, arguments, compiled)?, rest))
    }

    /// A variable, or a group of them to go on from.
    fn variable(&mut self, name: &[&'r str]) -> Run<Value<'r>> {
        if let Some((phase, rest)) = override_of(name) {
            return match rest {
                [source, key] => match Source::of(source) {
                    Some(source) => self.override_value(phase, source, key),
                    None => Ok(Value::Null),
                },
                ["status"] if phase == Phase::Response => Ok(self
                    .overrides
                    .status()
                    .map_or(Value::Null, |status| Value::Int(status.into()))),
                [] | [_] => Ok(Value::Context(self.bump.alloc_slice_copy(name))),
                _ => Ok(Value::Null),
            };
        }
        if is_hidden(name) {
            return Ok(Value::Null);
        }
        let scope = self.scope;
        if let Some(text) = scope.context(name) {
            return Ok(Value::Text(self.keep(text)?));
        }
        match name.is_empty() || scope.context_group(name, &mut |_, _| {}) {
            true => Ok(Value::Context(self.bump.alloc_slice_copy(name))),
            false => Ok(Value::Null),
        }
    }

    /// What an override has been set to, in this template or in the request's before it (OBV-231).
    fn override_value(&mut self, phase: Phase, source: Source, key: &str) -> Run<Value<'r>> {
        match self.overrides.get(phase, source, key).cloned() {
            None => Ok(Value::Null),
            Some(OverrideValue::One(text)) => Ok(Value::Text(self.keep_str(&text)?)),
            Some(OverrideValue::Many(texts)) => {
                let list = List::new(self.bump, false, []);
                for text in texts {
                    let text = self.keep_str(&text)?;
                    self.push(list, Value::Text(text))?;
                }
                Ok(Value::List(list))
            }
        }
    }

    /// A group of variables as a map (OBV-276).
    pub(super) fn context_map(&mut self, path: &'r [&'r str]) -> Run<Option<&'r Map<'r>>> {
        if let Some((phase, rest)) = override_of(path) {
            let [source] = rest else { return Ok(None) };
            let Some(source) = Source::of(source) else {
                return Ok(None);
            };
            let names: Vec<String> = self
                .overrides
                .table(phase, source)
                .iter()
                .map(|entry| entry.name.clone())
                .collect();
            let map = self.new_map();
            for name in names {
                let value = self.override_value(phase, source, &name)?;
                let name = self.keep_str(&name)?;
                self.put(map, name, value)?;
            }
            return Ok(Some(map));
        }
        let mut is_group = false;
        let map = self.gather(|scope, each| is_group = scope.context_group(path, each))?;
        Ok(is_group.then_some(map))
    }

    /// `#set($context.… = value)` and `$context.….put(key, value)`.
    pub(super) fn assign_context(&mut self, path: &[&'r str], key: &'r str, value: Value<'r>) -> Run {
        let full = || format!("$context.{}", [path, &[key]].concat().join("."));
        let Some((phase, rest)) = override_of(path) else {
            self.note(|| format!("`{}` cannot be set; only overrides can", full()));
            return Ok(());
        };
        if phase != self.phase {
            let which = if phase == Phase::Request {
                "request"
            } else {
                "response"
            };
            self.note(|| format!("`{}` is set in a {which} template only", full()));
            return Ok(());
        }
        let is_status = phase == Phase::Response && rest.is_empty() && key == "status";
        let source = match rest {
            [source] if !is_status => {
                Source::of(source).filter(|source| phase == Phase::Request || *source == Source::Header)
            }
            _ => None,
        };
        if value.is_null() {
            self.note(|| format!("`{}` is null and so not set", full()));
            return Ok(());
        }
        let is_new = if is_status {
            let status = self.status(value)?;
            self.overrides.set_status(status)
        } else if let Some(source) = source {
            let value = self.override_text(value)?;
            self.take(key.len())?;
            self.overrides.set(phase, source, key, value)
        } else {
            self.note(|| format!("there is no override `{}`", full()));
            return Ok(());
        };
        match is_new {
            true => Ok(()),
            false => Err(Box::new(ErrorKind::OverriddenTwice(full()))),
        }
    }

    fn status(&mut self, value: Value<'r>) -> Run<u16> {
        let text = self.text(value)?;
        match text.trim_ascii().parse() {
            Ok(status @ 100..=599) => Ok(status),
            _ => Err(Box::new(ErrorKind::Status(text.chars().take(40).collect()))),
        }
    }

    /// A list becomes a parameter of several values (VTL-147, OBV-277).
    fn override_text(&mut self, value: Value<'r>) -> Run<OverrideValue> {
        if !self.is_list(value) {
            let text = self.text(value)?;
            self.take(text.len())?;
            return Ok(OverrideValue::One(text.to_owned()));
        }
        let mut texts = Vec::new();
        for item in self.items(value)?.unwrap_or_default() {
            let text = self.text(*item)?;
            self.take(text.len())?;
            texts.push(text.to_owned());
        }
        Ok(OverrideValue::Many(texts))
    }
}

/// Whose overrides a name is about, and what of it is left.
fn override_of<'n, 's>(name: &'n [&'s str]) -> Option<(Phase, &'n [&'s str])> {
    match name {
        ["requestOverride", rest @ ..] => Some((Phase::Request, rest)),
        ["responseOverride", rest @ ..] => Some((Phase::Response, rest)),
        _ => None,
    }
}
