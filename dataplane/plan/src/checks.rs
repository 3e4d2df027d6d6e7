//! What a method's request validator asks of a request (INT-140 to INT-156).

use crate::schema::Schema;

/// The checks of one method, in the order in which they are made: parameters, then the body (INT-O23).
#[derive(Debug, Clone, Default)]
pub struct Checks {
    required: Box<[Required]>,
    models: Box<[BodyModel]>,
}

/// A parameter that must be there and must not be blank (INT-144).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Required {
    /// Where it stands.
    pub location: Location,
    /// Its name, as it is told to the client.
    pub name: Box<str>,
}

/// Where a parameter of a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In the path; the place among the route's parameters, filled in by the plan's builder. `None`: the route has no
    /// such parameter, so that it is always missing.
    Path(Option<u8>),
    /// In the query string.
    Query,
    /// In a header.
    Header,
}

/// The model for bodies of one media type.
#[derive(Debug, Clone)]
pub struct BodyModel {
    /// In lower case, without parameters; `None` stands for every type (`$default`; INT-147).
    pub media_type: Option<Box<str>>,
    /// What bodies are checked against.
    pub schema: Schema,
}

impl Checks {
    /// Checks of parameters and bodies.
    pub fn new(required: Vec<Required>, models: Vec<BodyModel>) -> Self {
        Self {
            required: required.into(),
            models: models.into(),
        }
    }

    /// Whether nothing is checked.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.models.is_empty()
    }

    /// The parameters that must be there, in the order in which missing ones are told.
    pub fn required(&self) -> &[Required] {
        &self.required
    }

    /// Whether there is a body to be checked, for some media type.
    pub fn any_model(&self) -> bool {
        !self.models.is_empty()
    }

    /// The model for a body of a media type in lower case, without parameters. Its own goes before the one for all
    /// (INT-O28); without either, bodies of that type are not checked (INT-146).
    pub fn model(&self, media_type: &str) -> Option<&Schema> {
        let of = |wanted: Option<&str>| {
            self.models
                .iter()
                .find(|model| model.media_type.as_deref() == wanted)
        };
        of(Some(media_type))
            .or_else(|| of(None))
            .map(|model| &model.schema)
    }

    /// Fills in the places of path parameters, now that the route's are known.
    pub(crate) fn resolve_captures(&mut self, names: &[Box<str>]) {
        for required in &mut self.required {
            if let Location::Path(capture) = &mut required.location {
                *capture = names
                    .iter()
                    .position(|name| *name == required.name)
                    .and_then(|at| u8::try_from(at).ok());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Models;

    /// INT-146, INT-147, INT-O28.
    #[test]
    fn the_own_model_goes_before_the_one_for_all() {
        let models =
            Models::parse([("a:n", r#"{"type": "number"}"#), ("a:s", r#"{"type": "string"}"#)]).unwrap();
        let model = |media_type: Option<&str>, name: &str| BodyModel {
            media_type: media_type.map(Into::into),
            schema: Schema::compile(&models, name).unwrap(),
        };
        let checks = Checks::new(
            vec![],
            vec![model(None, "a:n"), model(Some("application/json"), "a:s")],
        );
        let takes_text = |media_type: &str| checks.model(media_type).map(|one| one.accepts(&json!("x")));
        assert_eq!(takes_text("application/json"), Some(true));
        assert_eq!(takes_text("text/plain"), Some(false));
        let json_only = Checks::new(vec![], vec![model(Some("application/json"), "a:s")]);
        assert!(json_only.model("text/plain").is_none());
        assert!(json_only.any_model() && !json_only.is_empty());
        assert!(Checks::default().is_empty());
    }
}
