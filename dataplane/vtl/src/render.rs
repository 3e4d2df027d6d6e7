//! Running a template over a request.
//!
//! Values are small and copied; what they point to lies in the document, in the caller's scope, or in one arena that
//! is given back when the render ends.

mod blocks;
mod context;
mod expression;
mod format;
mod input;
mod maps;
mod methods;
mod print;
mod reference;
mod strings;
mod util;
mod value;

use std::borrow::Cow;
use std::rc::Rc;

use bumpalo::Bump;

use crate::budget::Budget;
use crate::error::{Bound, ErrorKind, Warning};
use crate::json::Document;
use crate::overrides::{Overrides, Phase};
use crate::regexp::JavaRegex;
use crate::scope::Scope;
use crate::syntax::{Program, known, locate};
use crate::template::{Render, Rendered};
use value::Value;

/// A step of a render. Failures are rare, so that they are boxed.
type Run<T = ()> = Result<T, Box<ErrorKind>>;

/// One render.
pub(crate) struct Renderer<'r, 'o> {
    program: &'r Program,
    phase: Phase,
    scope: &'r dyn Scope,
    body: &'r Document<'r>,
    budget: &'r Budget,
    overrides: &'o mut Overrides,
    bump: &'r Bump,
    slots: Vec<Value<'r>>,
    loops: Vec<Loop>,
    /// The output; behind it, for a moment, texts that are being made.
    out: String,
    /// What is left of the budget.
    steps: u64,
    memory: usize,
    depth: u32,
    /// Where in the source the render is.
    at: u32,
    /// Objects and arrays of documents that the template has changed, and what they are now.
    edited: Vec<((usize, u32), Value<'r>)>,
    /// Patterns that came with the request, compiled.
    patterns: Vec<(&'r str, Rc<JavaRegex>)>,
    notes: Vec<Warning>,
}

/// A loop that runs.
#[derive(Debug, Clone, Copy)]
struct Loop {
    index: usize,
    has_next: bool,
}

/// How many notes a render keeps.
const NOTES: usize = 16;

impl<'r, 'o> Renderer<'r, 'o> {
    pub(crate) fn new(
        program: &'r Program,
        render: Render<'r>,
        overrides: &'o mut Overrides,
        bump: &'r Bump,
    ) -> Self {
        let mut slots = vec![Value::Null; program.slots];
        slots[usize::from(known::INPUT)] = Value::Input;
        slots[usize::from(known::UTIL)] = Value::Util;
        slots[usize::from(known::CONTEXT)] = Value::Context(&[]);
        slots[usize::from(known::STAGE)] = Value::Stage;
        Renderer {
            program,
            phase: render.phase,
            scope: render.scope,
            body: render.body,
            budget: render.budget,
            overrides,
            bump,
            slots,
            loops: Vec::new(),
            out: String::with_capacity(render.budget.output.min(program.source.len())),
            steps: render.budget.steps,
            memory: render.budget.memory,
            depth: 0,
            at: 0,
            edited: Vec::new(),
            patterns: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Renders the whole template.
    pub(crate) fn run(&mut self) -> Run {
        let program = self.program;
        self.block(&program.body)?;
        Ok(())
    }

    /// The byte of the source at which the render is.
    pub(crate) fn place(&self) -> usize {
        self.at as usize
    }

    pub(crate) fn finish(self) -> Rendered {
        Rendered {
            text: self.out,
            notes: self.notes,
        }
    }

    /// Takes steps from the budget.
    fn spend(&mut self, steps: u64) -> Run {
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => over(Bound::Steps),
        }
    }

    /// Takes the steps for handling a text.
    fn spend_text(&mut self, len: usize) -> Run {
        self.spend(1 + (len / 256) as u64)
    }

    /// Takes memory from the budget, and the steps for filling it.
    fn take(&mut self, bytes: usize) -> Run {
        match self.memory.checked_sub(bytes) {
            Some(left) => {
                self.memory = left;
                self.spend((bytes / 256) as u64)
            }
            None => over(Bound::Memory),
        }
    }

    /// Goes one deeper, as long as `inner` takes.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Run<T>) -> Run<T> {
        if self.depth == self.budget.depth {
            return over(Bound::Depth);
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Writes to the output.
    fn write(&mut self, text: &str) -> Run {
        if self.out.len() + text.len() > self.budget.output {
            return over(Bound::Output);
        }
        self.out.push_str(text);
        Ok(())
    }

    /// What `inner` writes, as a text of its own.
    fn capture(&mut self, inner: impl FnOnce(&mut Self) -> Run) -> Run<&'r str> {
        let start = self.out.len();
        inner(self)?;
        self.take(self.out.len() - start)?;
        let text = self.bump.alloc_str(&self.out[start..]);
        self.out.truncate(start);
        Ok(text)
    }

    /// Keeps a text that somebody made; what is borrowed is not copied.
    fn keep(&mut self, text: Cow<'r, str>) -> Run<&'r str> {
        match text {
            Cow::Borrowed(text) => Ok(text),
            Cow::Owned(text) => self.keep_str(&text),
        }
    }

    fn keep_str(&mut self, text: &str) -> Run<&'r str> {
        self.take(text.len())?;
        Ok(self.bump.alloc_str(text))
    }

    /// Notes what has no effect.
    fn note(&mut self, message: impl FnOnce() -> String) {
        if self.notes.len() < NOTES {
            let (line, column) = locate(&self.program.source, self.place());
            self.notes.push(Warning {
                line,
                column,
                message: message(),
            });
        }
    }
}

fn over<T>(bound: Bound) -> Run<T> {
    Err(Box::new(ErrorKind::OverLimit(bound)))
}

fn fail<T>(method: &'static str, reason: impl Into<String>) -> Run<T> {
    Err(Box::new(ErrorKind::Method {
        method,
        reason: reason.into(),
    }))
}
