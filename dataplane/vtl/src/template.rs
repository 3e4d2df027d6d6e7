//! A template: parsed once, rendered by every shard.

use bumpalo::Bump;

use crate::budget::Budget;
use crate::error::{ParseError, RenderError, Warning};
use crate::json::Document;
use crate::overrides::{Overrides, Phase};
use crate::render::Renderer;
use crate::scope::Scope;
use crate::syntax::{self, Program};

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    program: Program,
}

/// What a template is rendered over.
#[derive(Clone, Copy)]
pub struct Render<'a> {
    /// Which template of the method this is.
    pub phase: Phase,
    /// The request's parameters and variables.
    pub scope: &'a dyn Scope,
    /// The payload of this side: the client's for a request, the backend's for a response (VTL-007).
    pub body: &'a Document<'a>,
    /// What it may cost.
    pub budget: &'a Budget,
}

/// What a render gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The output.
    pub text: String,
    /// What had no effect, for the execution log; the first few.
    pub notes: Vec<Warning>,
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Template, ParseError> {
        let program = syntax::parse(text)?;
        Ok(Template { program })
    }

    /// What the template holds that will fail when it is rendered, for whoever stores it.
    pub fn warnings(&self) -> &[Warning] {
        &self.program.warnings
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.program.source
    }

    /// Renders the template. Overrides of this phase that `overrides` held are forgotten first, and are none after
    /// a failure (VTL-141); those of the other phase can be read by the template (OBV-231).
    pub fn render(&self, render: Render<'_>, overrides: &mut Overrides) -> Result<Rendered, RenderError> {
        overrides.clear(render.phase);
        let bump = Bump::new();
        let mut renderer = Renderer::new(&self.program, render, overrides, &bump);
        match renderer.run() {
            Ok(()) => Ok(renderer.finish()),
            Err(kind) => {
                let (line, column) = syntax::locate(&self.program.source, renderer.place());
                overrides.clear(render.phase);
                Err(RenderError {
                    line,
                    column,
                    kind: *kind,
                })
            }
        }
    }
}
