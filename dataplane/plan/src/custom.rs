//! Methods whose requests and answers are reshaped: types `HTTP`, `AWS` and `MOCK` with mappings and templates.

use std::sync::Arc;

use tidegate_vtl::Template;

use crate::header::HeaderName;
use crate::integration::{BodyPath, HttpBackend, Mapping};
use crate::names::Status;
use crate::pattern::Pattern;

/// An integration behind mappings and templates.
#[derive(Debug, Clone)]
pub struct Custom {
    /// What is called.
    pub backend: Backend,
    /// What of the client's request goes where in the backend's.
    pub mappings: Box<[Mapping]>,
    /// What makes the backend's body, by the request's media type.
    pub templates: Templates,
    /// What becomes of a body that no template is for.
    pub passthrough: Passthrough,
    /// What is done to the request's payload.
    pub content_handling: Option<ContentHandling>,
    /// The integration responses, in the order in which they are tried; the default, without pattern, last.
    pub responses: Box<[IntegrationResponse]>,
}

/// What a custom integration calls.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Nothing: the request template names a status (INT-060 to INT-064).
    Mock,
    /// An HTTP server.
    Http(HttpBackend),
}

/// What becomes of a body whose media type has no template (VTL-080 to VTL-085).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Passthrough {
    /// It is sent as it is.
    #[default]
    WhenNoMatch,
    /// It is sent as it is where there are no templates at all, and refused otherwise.
    WhenNoTemplates,
    /// It is refused.
    Never,
}

/// A conversion of a payload between bytes and text (GWR-077).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentHandling {
    /// Text, which is Base64, becomes bytes.
    ToBinary,
    /// Bytes become Base64.
    ToText,
}

/// Templates by media type, in the order of their definition, which the choice depends on (VTL-069).
#[derive(Debug, Clone, Default)]
pub struct Templates(Box<[(Box<str>, Choice)]>);

/// What stands under a media type.
#[derive(Debug, Clone)]
pub enum Choice {
    /// A template.
    Template(Arc<Template>),
    /// An empty one: the payload passes as it is (VTL-067, VTL-O10).
    Unmapped,
}

/// One integration response.
#[derive(Debug, Clone)]
pub struct IntegrationResponse {
    /// What of the backend's answer it is for; `None`: whatever no other is for.
    pub pattern: Option<Pattern>,
    /// The status towards the client. `None`: the method does not declare it, which fails the request (RES-118).
    pub status: Option<Status>,
    /// Headers towards the client.
    pub headers: Box<[(HeaderName, ResponseSource)]>,
    /// What makes the client's body, by what the client accepts.
    pub templates: Templates,
    /// What is done to the payload.
    pub content_handling: Option<ContentHandling>,
}

/// Where a response header takes its value (OBV-285). A missing source adds nothing (OBV-284).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseSource {
    /// The last value of a header of the backend's.
    Header(Box<str>),
    /// All values of a header of the backend's.
    Headers(Box<str>),
    /// The whole body.
    Body,
    /// What a JSONPath finds in the body.
    BodyPath(BodyPath),
    /// A fixed text.
    Literal(Box<str>),
    /// A stage variable.
    StageVariable(Box<str>),
    /// A `$context` variable, without the prefix.
    Context(Box<str>),
}

impl Templates {
    /// Templates by media type; types are compared without case (VTL-O09).
    pub fn new(templates: impl IntoIterator<Item = (Box<str>, Choice)>) -> Self {
        let lower =
            |(media_type, choice): (Box<str>, Choice)| (media_type.to_ascii_lowercase().into(), choice);
        Self(templates.into_iter().map(lower).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What stands under a media type in lower case.
    pub fn get(&self, media_type: &str) -> Option<(&str, &Choice)> {
        let found = self.0.iter().find(|(known, _)| **known == *media_type);
        found.map(|(known, choice)| (&**known, choice))
    }

    /// What stands first.
    pub fn first(&self) -> Option<(&str, &Choice)> {
        self.0.first().map(|(known, choice)| (&**known, choice))
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Choice)> {
        self.0.iter().map(|(known, choice)| (&**known, choice))
    }
}

impl Custom {
    /// The response for what a backend told, a status or an error's message: the first whose pattern matches all of it,
    /// else the default (RES-112, INT-111 to INT-113, INT-O17).
    pub fn select(&self, told: &str) -> Option<&IntegrationResponse> {
        self.responses.iter().find(|response| {
            response
                .pattern
                .as_ref()
                .is_none_or(|pattern| pattern.is_match(told))
        })
    }
}

/// The status that a rendered request template of a mock names. The key may stand without quotes, and anything may stand
/// before the object (INT-061, INT-066, OBV-225, OBV-226).
pub fn mock_status(rendered: &str) -> Option<u16> {
    let blank = [' ', '\t', '\n', '\r'];
    let (_, rest) = rendered.split_once("statusCode")?;
    let value = rest.trim_start_matches(['"', '\'']).trim_start_matches(blank);
    let value = value.strip_prefix(':')?.trim_start_matches(blank);
    let value = value.trim_start_matches(['"', '\'']);
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (digits, rest) = value.split_at(end);
    let is_integer = !rest.starts_with(['.', 'e', 'E', '-']);
    digits
        .parse()
        .ok()
        .filter(|status| is_integer && (100..=599).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INT-061, INT-066, OBV-225, OBV-226, RES-109, INT-O09.
    #[test]
    fn mock_statuses() {
        for (rendered, status) in [
            (r#"{"statusCode": 200}"#, Some(200)),
            ("{statusCode: 200}", Some(200)),
            ("\n\n null {\"statusCode\" : \"503\"}", Some(503)),
            ("{\n  \"a\": 1,\n  'statusCode' :\n 404 }", Some(404)),
            ("{}", None),
            ("", None),
            (r#"{"statusCode": 20}"#, None),
            (r#"{"statusCode": 200.5}"#, None),
            (r#"{"statusCode": "many"}"#, None),
            (r#"{"statusCode": 99999999999}"#, None),
        ] {
            assert_eq!(mock_status(rendered), status, "{rendered}");
        }
    }

    fn response(pattern: Option<&str>, status: u32) -> IntegrationResponse {
        IntegrationResponse {
            pattern: pattern.map(|text| Pattern::parse(text).unwrap()),
            status: Some(Status::new(status).unwrap()),
            headers: Box::default(),
            templates: Templates::default(),
            content_handling: None,
        }
    }

    fn custom(responses: Vec<IntegrationResponse>) -> Custom {
        Custom {
            backend: Backend::Mock,
            mappings: Box::default(),
            templates: Templates::default(),
            passthrough: Passthrough::default(),
            content_handling: None,
            responses: responses.into(),
        }
    }

    /// INT-062, INT-063, INT-118, INT-120, RES-112, RES-116, RES-117.
    #[test]
    fn the_first_match_answers_and_the_default_takes_the_rest() {
        let chosen = |custom: &Custom, told: &str| {
            let chosen = custom.select(told)?;
            Some(chosen.status?.code())
        };
        let both = custom(vec![response(Some(r"2\d{2}"), 200), response(None, 400)]);
        assert_eq!(chosen(&both, "204"), Some(200));
        assert_eq!(chosen(&both, "500"), Some(400));
        let none = custom(vec![response(Some("404"), 404)]);
        assert_eq!(chosen(&none, "500"), None);
        let all = custom(vec![response(Some(".*"), 500), response(None, 200)]);
        assert_eq!(chosen(&all, ""), Some(500));
        let two = custom(vec![response(Some("4.."), 400), response(Some("404"), 404)]);
        assert_eq!(chosen(&two, "404"), Some(400));
    }

    /// VTL-065, VTL-067, VTL-069, VTL-O09.
    #[test]
    fn templates_stand_in_their_order() {
        let template = |text: &str| Choice::Template(Arc::new(Template::parse(text).unwrap()));
        let templates = Templates::new([
            ("application/XML".into(), template("<a/>")),
            ("application/json".into(), Choice::Unmapped),
        ]);
        assert_eq!(templates.first().unwrap().0, "application/xml");
        assert!(matches!(
            templates.get("application/json"),
            Some((_, Choice::Unmapped))
        ));
        assert!(templates.get("text/plain").is_none() && !templates.is_empty());
    }
}
