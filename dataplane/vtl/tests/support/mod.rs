//! A request for templates to read, and short ways to render.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::borrow::Cow;

use tidegate_vtl::{
    Budget, Document, Each, ErrorKind, Overrides, Phase, Render, RenderError, Rendered, Scope, Source,
    Template,
};

/// What a request has, as lists of names and values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) path: Vec<(&'static str, &'static str)>,
    pub(crate) query: Vec<(&'static str, &'static str)>,
    pub(crate) header: Vec<(&'static str, &'static str)>,
    pub(crate) stage: Vec<(&'static str, &'static str)>,
    /// By full name behind `$context`, such as `identity.sourceIp`.
    pub(crate) context: Vec<(&'static str, &'static str)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn of(body: &str) -> Request {
        Request {
            body: body.to_owned(),
            ..Request::default()
        }
    }

    fn source(&self, source: Source) -> &[(&'static str, &'static str)] {
        match source {
            Source::Path => &self.path,
            Source::Querystring => &self.query,
            Source::Header => &self.header,
        }
    }
}

impl Scope for Request {
    fn parameter(&self, source: Source, name: &str) -> Option<Cow<'_, str>> {
        let found = self.source(source).iter().rfind(|(held, _)| *held == name);
        found.map(|(_, value)| Cow::Borrowed(*value))
    }

    fn parameters<'a>(&'a self, source: Source, each: Each<'a, '_>) {
        // What a caller had to decode comes as its own text.
        self.source(source)
            .iter()
            .for_each(|(name, value)| each((*name).into(), Cow::Owned((*value).to_owned())));
    }

    fn stage_variable(&self, name: &str) -> Option<Cow<'_, str>> {
        self.stage
            .iter()
            .find(|(held, _)| *held == name)
            .map(|(_, value)| Cow::Borrowed(*value))
    }

    fn stage_variables<'a>(&'a self, each: Each<'a, '_>) {
        self.stage
            .iter()
            .for_each(|(name, value)| each((*name).into(), (*value).into()));
    }

    fn context(&self, name: &[&str]) -> Option<Cow<'_, str>> {
        let name = name.join(".");
        self.context
            .iter()
            .find(|(held, _)| *held == name)
            .map(|(_, value)| Cow::Owned((*value).to_owned()))
    }

    fn context_group<'a>(&'a self, name: &[&str], each: Each<'a, '_>) -> bool {
        let is_group = matches!(name, ["identity"] | ["authorizer"]);
        if is_group {
            for (held, value) in &self.context {
                if let Some((group, key)) = held.split_once('.')
                    && [group] == name
                    && !key.contains('.')
                {
                    each(key.into(), (*value).into());
                }
            }
        }
        is_group
    }
}

/// Renders a request template.
pub(crate) fn render(template: &str, request: &Request) -> Result<Rendered, RenderError> {
    render_with(
        template,
        request,
        Phase::Request,
        &mut Overrides::new(),
        &Budget::default(),
    )
}

pub(crate) fn render_with(
    template: &str,
    request: &Request,
    phase: Phase,
    overrides: &mut Overrides,
    budget: &Budget,
) -> Result<Rendered, RenderError> {
    let template = Template::parse(template).unwrap_or_else(|error| panic!("{template}\n{error}"));
    let body = Document::new(&*request.body);
    let render = Render {
        phase,
        scope: request,
        body: &body,
        budget,
    };
    template.render(render, overrides)
}

/// The output over a request.
pub(crate) fn output(template: &str, request: &Request) -> String {
    match render(template, request) {
        Ok(rendered) => rendered.text,
        Err(error) => panic!("{template}\n{error}"),
    }
}

/// The output over a body.
pub(crate) fn over(template: &str, body: &str) -> String {
    output(template, &Request::of(body))
}

/// The output over nothing.
pub(crate) fn plain(template: &str) -> String {
    over(template, "")
}

/// Why a render over a body fails.
pub(crate) fn failure(template: &str, body: &str) -> ErrorKind {
    match render(template, &Request::of(body)) {
        Ok(rendered) => panic!("{template}\nrenders `{}`", rendered.text),
        Err(error) => error.kind,
    }
}

/// Each template's output over nothing.
pub(crate) fn all_plain(table: &[(&str, &str)]) {
    for (template, expected) in table {
        assert_eq!(plain(template), *expected, "{template}");
    }
}

/// Each template's output over a body.
pub(crate) fn all_over(body: &str, table: &[(&str, &str)]) {
    for (template, expected) in table {
        assert_eq!(over(template, body), *expected, "{template}");
    }
}
