//! Statements.

use super::value::{Map, Value};
use super::{Loop, Renderer, Run};
use crate::json::Kind;
use crate::syntax::{Block, Expr, Node, Slot, known};

/// How a block ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    /// `#break`: the innermost loop is over.
    Break,
    /// `#stop`: the template is over.
    Stop,
}

impl<'r> Renderer<'r, '_> {
    pub(super) fn block(&mut self, block: &'r Block) -> Run<Flow> {
        for node in block {
            let flow = match node {
                Node::Text(text) => {
                    self.write(text)?;
                    Flow::Next
                }
                Node::Reference(reference) => {
                    let value = self.reference(reference)?;
                    self.print(value)?;
                    Flow::Next
                }
                other => self.statement(other)?,
            };
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, node: &'r Node) -> Run<Flow> {
        self.spend(1)?;
        match node {
            Node::Text(_) | Node::Reference(_) => {}
            Node::Escaped {
                slashes,
                reference,
                source,
            } => {
                let value = self.reference(reference)?;
                let shown = if value.is_null() { *slashes } else { slashes / 2 };
                for _ in 0..shown {
                    self.write("\\")?;
                }
                match slashes.is_multiple_of(2) {
                    true => self.print(value)?,
                    false => self.write(source)?,
                }
            }
            Node::Set { target, value } => {
                let value = self.expression(value)?;
                self.assign(target, value)?;
            }
            Node::If { arms, otherwise } => {
                for (condition, body) in arms {
                    if self.expression(condition)?.is_true() {
                        return self.deeper(|renderer| renderer.block(body));
                    }
                }
                return self.deeper(|renderer| renderer.block(otherwise));
            }
            Node::Foreach { at, slot, list, body } => {
                let list = self.expression(list)?;
                self.at = *at;
                return self.foreach(*slot, list, body);
            }
            Node::Define { slot, number } => self.slots[usize::from(*slot)] = Value::Block(*number),
            Node::Call {
                at,
                number,
                arguments,
                source,
            } => {
                self.at = *at;
                return self.call_macro(*number, arguments, source);
            }
            Node::Break => return Ok(Flow::Break),
            Node::Stop => return Ok(Flow::Stop),
        }
        Ok(Flow::Next)
    }

    fn foreach(&mut self, slot: Slot, list: Value<'r>, body: &'r Block) -> Run<Flow> {
        match self.settle(list) {
            Value::Json(json) if json.kind() == Kind::Array => {
                // Not more items are made than rounds are made.
                let mut items = json.items();
                self.rounds(slot, json.len(), body, |renderer| match items.next() {
                    Some(item) => renderer.value_of(item),
                    None => Ok(Value::Null),
                })
            }
            Value::Range(first, last) => {
                let len = usize::try_from(first.abs_diff(last))
                    .unwrap_or(usize::MAX)
                    .saturating_add(1);
                let mut next = first;
                self.rounds(slot, len, body, |_| {
                    let item = Value::Int(next);
                    next = if first <= last {
                        next.saturating_add(1)
                    } else {
                        next.saturating_sub(1)
                    };
                    Ok(item)
                })
            }
            list => match self.items(list)? {
                Some(items) => {
                    let mut next = items.iter();
                    self.rounds(slot, items.len(), body, |_| {
                        Ok(next.next().copied().unwrap_or(Value::Null))
                    })
                }
                None => {
                    if !list.is_null() {
                        self.note(|| format!("`#foreach` over {} makes no rounds", list.kind()));
                    }
                    Ok(Flow::Next)
                }
            },
        }
    }

    /// Runs a loop of `len` rounds, or as many as the budget allows (QUO-072). What the loop's variables were is
    /// restored behind it.
    fn rounds(
        &mut self,
        slot: Slot,
        len: usize,
        body: &'r Block,
        mut next: impl FnMut(&mut Self) -> Run<Value<'r>>,
    ) -> Run<Flow> {
        let rounds = len.min(self.budget.iterations as usize);
        if rounds < len {
            self.note(|| format!("`#foreach` ends after {rounds} rounds of {len}"));
        }
        let names = [slot, known::FOREACH, known::COUNT].map(usize::from);
        let before = names.map(|name| self.slots[name]);
        let depth = self.loops.len();
        self.loops.push(Loop {
            index: 0,
            has_next: false,
        });
        let mut flow = Flow::Next;
        for index in 0..rounds {
            self.spend(1)?;
            self.loops[depth] = Loop {
                index,
                has_next: index + 1 < len,
            };
            self.slots[names[1]] = Value::Foreach(depth);
            self.slots[names[2]] = Value::Int(index as i64 + 1);
            self.slots[names[0]] = next(self)?;
            flow = self.deeper(|renderer| renderer.block(body))?;
            if flow != Flow::Next {
                break;
            }
        }
        self.loops.truncate(depth);
        for (name, value) in names.into_iter().zip(before) {
            self.slots[name] = value;
        }
        Ok(if flow == Flow::Stop { flow } else { Flow::Next })
    }

    /// Runs a macro with its parameters set, and restores what they were before.
    fn call_macro(&mut self, number: usize, arguments: &'r [Expr], source: &str) -> Run<Flow> {
        let program = self.program;
        let Some(definition) = &program.macros[number] else {
            self.write(source)?;
            return Ok(Flow::Next);
        };
        let mut values = Vec::with_capacity(definition.parameters.len());
        for at in 0..definition.parameters.len() {
            values.push(match arguments.get(at) {
                Some(argument) => self.expression(argument)?,
                None => Value::Null,
            });
        }
        for (slot, value) in definition.parameters.iter().zip(&mut values) {
            std::mem::swap(&mut self.slots[usize::from(*slot)], value);
        }
        let flow = self.deeper(|renderer| renderer.block(&definition.body))?;
        for (slot, value) in definition.parameters.iter().zip(values) {
            self.slots[usize::from(*slot)] = value;
        }
        // A `#break` ends the macro, not the loop around its call.
        Ok(if flow == Flow::Stop { flow } else { Flow::Next })
    }

    /// Prints a `#define`d block with what its variables are now (OBV-275).
    pub(super) fn print_block(&mut self, number: usize) -> Run {
        let program = self.program;
        self.spend(1)?;
        self.deeper(|renderer| renderer.block(&program.defined[number]))?;
        Ok(())
    }

    /// A member of a loop's `$foreach`.
    pub(super) fn loop_member(&mut self, depth: usize, name: &str) -> Value<'r> {
        let Some(Loop { index, has_next }) = self.loops.get(depth).copied() else {
            return Value::Null;
        };
        match name {
            "index" | "getIndex" => Value::Int(index as i64),
            "count" | "getCount" => Value::Int(index as i64 + 1),
            "hasNext" | "getHasNext" => Value::Bool(has_next),
            "first" | "isFirst" => Value::Bool(index == 0),
            "last" | "isLast" => Value::Bool(!has_next),
            "parent" | "getParent" => depth.checked_sub(1).map_or(Value::Null, Value::Foreach),
            "topmost" | "getTopmost" => Value::Foreach(0),
            _ => Value::Null,
        }
    }

    /// An empty map.
    pub(super) fn new_map(&mut self) -> &'r Map<'r> {
        Map::new(self.bump, [])
    }
}
