//! Expressions.

use std::cmp::Ordering;

use super::value::{ITEM, List, Value};
use super::{Renderer, Run};
use crate::number::Number;
use crate::syntax::{Expr, Op};

impl<'r> Renderer<'r, '_> {
    pub(super) fn expression(&mut self, expr: &'r Expr) -> Run<Value<'r>> {
        match expr {
            Expr::Text(text) => Ok(Value::Text(text)),
            Expr::Int(int) => Ok(Value::Int(*int)),
            Expr::Double(double) => Ok(Value::Double(*double)),
            Expr::Bool(value) => Ok(Value::Bool(*value)),
            Expr::Reference(reference) => self.reference(reference),
            other => self.composed(other),
        }
    }

    fn composed(&mut self, expr: &'r Expr) -> Run<Value<'r>> {
        self.spend(1)?;
        self.deeper(|renderer| renderer.compose(expr))
    }

    fn compose(&mut self, expr: &'r Expr) -> Run<Value<'r>> {
        Ok(match expr {
            Expr::Template(block) => {
                let text = self.capture(|renderer| renderer.block(block).map(drop))?;
                Value::Text(text)
            }
            Expr::List(items) => {
                self.take(items.len() * ITEM)?;
                let list = List::new(self.bump, false, []);
                for item in items {
                    let item = self.expression(item)?;
                    list.items.borrow_mut().push(item);
                }
                Value::List(list)
            }
            Expr::Map(entries) => {
                let map = self.new_map();
                for (key, value) in entries {
                    let key = self.expression(key)?;
                    let key = self.text(key)?;
                    let value = self.expression(value)?;
                    self.put(map, key, value)?;
                }
                Value::Map(map)
            }
            Expr::Range(ends) => {
                let (first, last) = (self.expression(&ends.0)?, self.expression(&ends.1)?);
                match (first.number(), last.number()) {
                    (Some(Number::Int(first)), Some(Number::Int(last))) => Value::Range(first, last),
                    _ => Value::Null,
                }
            }
            Expr::Not(inner) => Value::Bool(!self.expression(inner)?.is_true()),
            Expr::Negate(inner) => match self.expression(inner)?.number() {
                Some(number) => compute(Op::Subtract, Number::Int(0), number),
                None => Value::Null,
            },
            Expr::Chain(first, links) => self.chain(first, links)?,
            plain => return self.expression(plain),
        })
    }

    fn chain(&mut self, first: &'r Expr, links: &'r [(Op, Expr)]) -> Run<Value<'r>> {
        let mut left = self.expression(first)?;
        for (op, right) in links {
            self.spend(1)?;
            left = match op {
                // What the left side decides, the right side is not asked for.
                Op::And => Value::Bool(left.is_true() && self.expression(right)?.is_true()),
                Op::Or => Value::Bool(left.is_true() || self.expression(right)?.is_true()),
                op => {
                    let right = self.expression(right)?;
                    self.binary(*op, left, right)?
                }
            };
        }
        Ok(left)
    }

    fn binary(&mut self, op: Op, left: Value<'r>, right: Value<'r>) -> Run<Value<'r>> {
        let numbers = left.number().zip(right.number());
        Ok(match op {
            Op::Equal => Value::Bool(self.equal(left, right)?),
            Op::Unequal => Value::Bool(!self.equal(left, right)?),
            Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => {
                let order = numbers.and_then(|(left, right)| left.compare(right));
                if order.is_none() {
                    self.note(|| {
                        format!(
                            "{} and {} have no order; the comparison is false",
                            left.kind(),
                            right.kind()
                        )
                    });
                }
                Value::Bool(match op {
                    Op::Less => order == Some(Ordering::Less),
                    Op::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                    Op::Greater => order == Some(Ordering::Greater),
                    _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
                })
            }
            Op::Add if matches!(left, Value::Text(_)) || matches!(right, Value::Text(_)) => {
                Value::Text(self.capture(|renderer| {
                    renderer.print(left)?;
                    renderer.print(right)
                })?)
            }
            _ => match numbers {
                Some((left, right)) => compute(op, left, right),
                None => Value::Null,
            },
        })
    }

    /// Whether two values are equal: numbers by their size, others by how they print, so that null is the empty
    /// string (SCN-185, VTL-206).
    pub(super) fn equal(&mut self, left: Value<'r>, right: Value<'r>) -> Run<bool> {
        if let Some((left, right)) = left.number().zip(right.number()) {
            return Ok(left.compare(right) == Some(Ordering::Equal));
        }
        match (left, right) {
            (Value::Text(left), Value::Text(right)) => {
                self.spend_text(left.len().min(right.len()))?;
                Ok(left == right)
            }
            (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
            _ => Ok(self.text(left)? == self.text(right)?),
        }
    }
}

/// Whole numbers stay whole and are divided as such; beyond 64 bits they become doubles.
fn compute<'r>(op: Op, left: Number, right: Number) -> Value<'r> {
    if let (Number::Int(left), Number::Int(right)) = (left, right) {
        let whole = match op {
            Op::Add => left.checked_add(right),
            Op::Subtract => left.checked_sub(right),
            Op::Multiply => left.checked_mul(right),
            _ if right == 0 => return Value::Null,
            Op::Divide => left.checked_div(right),
            _ => left.checked_rem(right),
        };
        if let Some(whole) = whole {
            return Value::Int(whole);
        }
    }
    let (left, right) = (left.as_double(), right.as_double());
    match op {
        Op::Add => Value::Double(left + right),
        Op::Subtract => Value::Double(left - right),
        Op::Multiply => Value::Double(left * right),
        _ if right == 0.0 => Value::Null,
        Op::Divide => Value::Double(left / right),
        _ => Value::Double(left % right),
    }
}
