//! What templates set beside the body: parameters of the backend's request, headers and status of the answer.

use crate::scope::Source;

/// The overrides of one request. The request template's render fills the request's part; the response template's
/// render reads that (OBV-231) and fills the response's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    request: [Vec<Override>; 3],
    response: Vec<Override>,
    status: Option<u16>,
}

/// One overridden parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The parameter's name, as the template wrote it.
    pub name: String,
    /// What it is set to.
    pub value: OverrideValue,
}

/// What a parameter is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverrideValue {
    /// One value.
    One(String),
    /// A parameter of several values (VTL-147).
    Many(Vec<String>),
}

/// Which of a method's templates is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A request template: it may set `$context.requestOverride`.
    Request,
    /// A response template: it may set `$context.responseOverride`.
    Response,
}

impl Overrides {
    /// None.
    pub fn new() -> Self {
        Overrides::default()
    }

    /// Whether no template has set anything.
    pub fn is_empty(&self) -> bool {
        self.request.iter().all(Vec::is_empty) && self.response.is_empty() && self.status.is_none()
    }

    /// Parameters of the backend's request, in the order in which they were set.
    pub fn request(&self, source: Source) -> &[Override] {
        &self.request[source as usize]
    }

    /// Headers of the answer, in the order in which they were set.
    pub fn response_headers(&self) -> &[Override] {
        &self.response
    }

    /// The answer's status, 100 to 599.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Forgets what a phase has set.
    pub(crate) fn clear(&mut self, phase: Phase) {
        match phase {
            Phase::Request => self.request.iter_mut().for_each(Vec::clear),
            Phase::Response => {
                self.response.clear();
                self.status = None;
            }
        }
    }

    pub(crate) fn table(&self, phase: Phase, source: Source) -> &[Override] {
        match (phase, source) {
            (Phase::Request, _) => self.request(source),
            (Phase::Response, Source::Header) => &self.response,
            (Phase::Response, _) => &[],
        }
    }

    /// An override; headers by any spelling.
    pub(crate) fn get(&self, phase: Phase, source: Source, name: &str) -> Option<&OverrideValue> {
        let is = |held: &&Override| match source {
            Source::Header => held.name.eq_ignore_ascii_case(name),
            _ => held.name == name,
        };
        self.table(phase, source).iter().find(is).map(|held| &held.value)
    }

    /// Sets a parameter; false where it has been set already (VTL-142).
    pub(crate) fn set(&mut self, phase: Phase, source: Source, name: &str, value: OverrideValue) -> bool {
        if self.get(phase, source, name).is_some() {
            return false;
        }
        let entry = Override {
            name: name.to_owned(),
            value,
        };
        match phase {
            Phase::Request => self.request[source as usize].push(entry),
            Phase::Response => self.response.push(entry),
        }
        true
    }

    /// Sets the status; false where it has been set already.
    pub(crate) fn set_status(&mut self, status: u16) -> bool {
        self.status.replace(status).is_none()
    }
}
