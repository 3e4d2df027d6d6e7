//! What a template sees of a request.

use std::borrow::Cow;

use tidegate_plan::path;
use tidegate_vtl::{Each, Scope, Source};

use super::super::query;
use crate::http::{FieldRef, Known};
use crate::pipeline::context;
use crate::pipeline::exchange::Exchange;
use crate::shard::Client;

/// A request as templates see it.
pub(super) struct RequestScope<'x, 'h> {
    pub(super) x: &'x Exchange<'h>,
    pub(super) client: &'x Client,
}

/// The variables of `$context.identity`.
const IDENTITY: [&str; 2] = ["sourceIp", "userAgent"];

/// Whether templates see a header of the client's (OBV-248, OBV-249).
fn is_visible(field: &FieldRef<'_>) -> bool {
    !matches!(
        field.known,
        Some(
            Known::Connection
                | Known::ContentLength
                | Known::ContentMd5
                | Known::Expect
                | Known::MaxForwards
                | Known::ProxyAuthenticate
                | Known::Server
                | Known::Te
                | Known::Trailer
                | Known::TransferEncoding
                | Known::Upgrade
                | Known::WwwAuthenticate
        )
    )
}

fn text(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

impl RequestScope<'_, '_> {
    /// The last value of a header. The spelling decides only between headers that differ in nothing else (VTL-O56).
    fn header(&self, name: &str) -> Option<&[u8]> {
        let name = name.as_bytes();
        let mut found = None;
        let mut is_exact = false;
        for field in self.x.head.fields().iter().filter(is_visible) {
            let exact = field.name == name;
            if exact || (!is_exact && field.name.eq_ignore_ascii_case(name)) {
                found = Some(field.value);
                is_exact |= exact;
            }
        }
        found
    }
}

impl Scope for RequestScope<'_, '_> {
    fn parameter(&self, source: Source, name: &str) -> Option<Cow<'_, str>> {
        match source {
            Source::Path => {
                let value = context::path_parameter(self.x, name)?;
                Some(text(path::decode(value.as_bytes(), false)))
            }
            Source::Querystring => context::query_parameter(self.x, name.as_bytes()).map(text),
            Source::Header => self.header(name).map(String::from_utf8_lossy),
        }
    }

    fn parameters<'a>(&'a self, source: Source, each: Each<'a, '_>) {
        match source {
            Source::Path => {
                let names = self.x.route().map(|route| route.parameters());
                for (at, name) in names.unwrap_or_default().iter().enumerate() {
                    if let Some(value) = self.x.capture(at) {
                        each(Cow::Borrowed(name), text(path::decode(value.as_bytes(), false)));
                    }
                }
            }
            Source::Querystring => {
                let query = self.x.query.unwrap_or_default();
                let mut seen: Vec<Cow<'_, [u8]>> = Vec::new();
                for (name, _) in query::parameters(query) {
                    let name = path::decode(name, true);
                    if seen.contains(&name) {
                        continue;
                    }
                    let value = query::last(query, &name).unwrap_or_default();
                    each(text(name.clone()), text(path::decode(value, true)));
                    seen.push(name);
                }
            }
            Source::Header => {
                let mut seen: Vec<&[u8]> = Vec::new();
                for field in self.x.head.fields().iter().filter(is_visible) {
                    if seen.iter().any(|name| name.eq_ignore_ascii_case(field.name)) {
                        continue;
                    }
                    seen.push(field.name);
                    let name = String::from_utf8_lossy(field.name);
                    let value = self.header(&name).unwrap_or(field.value);
                    each(name, String::from_utf8_lossy(value));
                }
            }
        }
    }

    fn stage_variable(&self, name: &str) -> Option<Cow<'_, str>> {
        context::stage_variable(self.x, name).map(Cow::Borrowed)
    }

    fn stage_variables<'a>(&'a self, each: Each<'a, '_>) {
        let Some(stage) = &self.x.stage else { return };
        let plan = &stage.shared.plan;
        let canary = plan.canary.as_ref().filter(|_| self.x.canary);
        // What the canary has of its own comes once, with the canary's value.
        let own = canary.map(|canary| &canary.variables);
        for (name, value) in own.into_iter().flat_map(|variables| variables.iter()) {
            each(Cow::Borrowed(name), Cow::Borrowed(value));
        }
        for (name, value) in plan.variables.iter() {
            if own.is_none_or(|own| own.get(name).is_none()) {
                each(Cow::Borrowed(name), Cow::Borrowed(value));
            }
        }
    }

    fn context(&self, name: &[&str]) -> Option<Cow<'_, str>> {
        match name {
            [one] => context::variable(self.x, self.client, one).map(text),
            several => context::variable(self.x, self.client, &several.join(".")).map(text),
        }
    }

    fn context_group<'a>(&'a self, name: &[&str], each: Each<'a, '_>) -> bool {
        if name != ["identity"] {
            return false;
        }
        for variable in IDENTITY {
            let name = format!("identity.{variable}");
            if let Some(value) = context::variable(self.x, self.client, &name) {
                each(Cow::Borrowed(variable), text(value));
            }
        }
        true
    }
}
