//! Parameters of a backend's request whose values had to be made before its head is written: from a body, of several
//! values, or by a template.

use std::borrow::Cow;

use tidegate_plan::integration::{Mapping, MappingSource, MappingTarget};
use tidegate_plan::path;
use tidegate_vtl::{Document, OverrideValue, Overrides, Source};

use super::query;
use super::request::value;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::failure::Failure;
use crate::shard::Client;

/// The parameters. A name that stands several times has several values.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// Values for the URI's placeholders, encoded as they go into it.
    path: Vec<(String, String)>,
    /// Query parameters, not encoded.
    pub(super) query: Vec<(String, Vec<u8>)>,
    /// Header fields.
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// The type of a body that is not the client's.
    pub(super) media_type: Option<String>,
}

/// Steps through a body that one mapping may take.
const STEPS: u64 = 1_000_000;

impl Prepared {
    /// Runs the mappings of a request (VTL-100 to VTL-108). `document` is the client's body, for those that read it.
    ///
    /// # Errors
    /// Where the body is a JSON object gone wrong (OBV-281).
    pub(super) fn new(
        x: &Exchange<'_>,
        client: &Client,
        mappings: &[Mapping],
        document: &Document<'_>,
    ) -> Result<Self, Failure> {
        let mut prepared = Self::default();
        if mappings.iter().any(|one| one.source().reads_body()) && is_broken_object(document) {
            return Err(Failure::INVALID_JSON);
        }
        for mapping in mappings {
            let name = mapping.name();
            match mapping.source() {
                MappingSource::Queries(source) => {
                    let query = x.query.unwrap_or_default();
                    for value in query::all(query, source.as_bytes()) {
                        prepared.add(mapping, path::decode(value, true).into_owned());
                    }
                }
                MappingSource::Headers(source) => {
                    for field in x
                        .head
                        .fields()
                        .iter()
                        .filter(|field| field.name == source.as_bytes())
                    {
                        prepared.add(mapping, field.value.to_vec());
                    }
                }
                MappingSource::Body => prepared.add(mapping, document.text().as_bytes().to_vec()),
                MappingSource::BodyPath(at) => {
                    if let Some(found) = find(document, at.path()) {
                        prepared.add(mapping, found.into_bytes());
                    }
                }
                // In canonical form already, slashes of a greedy parameter included (OBV-246).
                MappingSource::Path {
                    capture: Some(at), ..
                } if mapping.target() == MappingTarget::Path => {
                    let value = x.capture(usize::from(*at)).unwrap_or_default();
                    prepared.path.push((name.to_owned(), value.to_owned()));
                }
                source => {
                    if let Some(value) = value(x, client, source) {
                        prepared.add(mapping, value.into_owned());
                    }
                }
            }
        }
        Ok(prepared)
    }

    fn add(&mut self, mapping: &Mapping, value: Vec<u8>) {
        let name = mapping.name();
        match mapping.target() {
            MappingTarget::Path => {
                let encoded = path::encode_path_value(&value, false);
                // VTL-O21: several values for one place stand in it with commas between them.
                match self.path.iter_mut().find(|(known, _)| known == name) {
                    Some((_, text)) => {
                        text.push(',');
                        text.push_str(&encoded);
                    }
                    None => self.path.push((name.to_owned(), encoded.into_owned())),
                }
            }
            MappingTarget::Query => self.query.push((name.to_owned(), value)),
            MappingTarget::Header => self.headers.push((name.to_owned(), printable(value))),
        }
    }

    /// Puts what a template has set in the place of what mappings have (VTL-140, VTL-143, VTL-150).
    ///
    /// # Errors
    /// Where it sets what the gateway alone may (OBV-255).
    pub(super) fn override_by(&mut self, overrides: &Overrides) -> Result<(), Failure> {
        for one in overrides.request(Source::Path) {
            self.path.retain(|(name, _)| *name != one.name);
            let joined = match &one.value {
                OverrideValue::One(value) => Cow::Borrowed(value),
                OverrideValue::Many(values) => Cow::Owned(values.join(",")),
            };
            let encoded = path::encode_path_value(joined.as_bytes(), false);
            self.path.push((one.name.clone(), encoded.into_owned()));
        }
        for one in overrides.request(Source::Querystring) {
            self.query.retain(|(name, _)| *name != one.name);
            for value in values(&one.value) {
                self.query.push((one.name.clone(), value.as_bytes().to_vec()));
            }
        }
        for one in overrides.request(Source::Header) {
            if !is_own(&one.name) {
                return Err(Failure::CONFIGURATION);
            }
            self.headers
                .retain(|(name, _)| !name.eq_ignore_ascii_case(&one.name));
            for value in values(&one.value) {
                self.headers
                    .push((one.name.clone(), printable(value.as_bytes().to_vec())));
            }
        }
        Ok(())
    }

    /// What stands in the place of `{name}`, encoded.
    pub(super) fn path(&self, name: &str) -> Option<&str> {
        let found = self.path.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The values of an override, in order.
pub(super) fn values(value: &OverrideValue) -> &[String] {
    match value {
        OverrideValue::One(value) => std::slice::from_ref(value),
        OverrideValue::Many(values) => values,
    }
}

/// What a path leads to in a body, as the text of a parameter; nothing where it leads nowhere, and in what is not JSON
/// (VTL-O22, VTL-O24).
pub(super) fn find(document: &Document<'_>, path: &tidegate_vtl::JsonPath) -> Option<String> {
    let root = document.json().ok()?;
    let mut steps = STEPS;
    let found = path.select(root, &mut steps).ok()?;
    found.into_text().map(Cow::into_owned)
}

/// Whether a body begins like an object and is none: it fails every mapping that reads it (OBV-280, OBV-281).
pub(super) fn is_broken_object(document: &Document<'_>) -> bool {
    document.text().trim_start().starts_with('{') && document.json().is_err()
}

/// Whether a template may set a header of this name: a token that is not the gateway's own (OBV-255).
pub(super) fn is_own(name: &str) -> bool {
    tidegate_plan::HeaderName::parse(name).is_ok()
        && !name.eq_ignore_ascii_case("content-length")
        && !name.eq_ignore_ascii_case("transfer-encoding")
}

/// A header's value without what would end its line (VTL-O23).
pub(super) fn printable(mut value: Vec<u8>) -> Vec<u8> {
    value.retain(|byte| tidegate_plan::header::is_value(std::slice::from_ref(byte)));
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-279, OBV-280, OBV-281, VTL-O22, VTL-O24.
    #[test]
    fn bodies_give_texts() {
        let find = |body: &str, path: &str| {
            let path = tidegate_vtl::JsonPath::compile(path).unwrap();
            find(&Document::new(body.to_owned()), &path)
        };
        let body = r#"{"petstore": {"pets": [{"name": "rex", "tags": ["a", 1], "n": null, "p": 1.50}]}}"#;
        assert_eq!(find(body, "petstore.pets[0].name").as_deref(), Some("rex"));
        assert_eq!(find(body, "petstore.pets[0].tags").as_deref(), Some(r#"["a",1]"#));
        assert_eq!(find(body, "petstore.pets[0].p").as_deref(), Some("1.50"));
        assert_eq!(find(body, "petstore.pets[0].n"), None);
        assert_eq!(find(body, "petstore.cats"), None);
        assert_eq!(find("plain", "a"), None);
        assert!(is_broken_object(&Document::new(" {\"a\": }")));
        assert!(!is_broken_object(&Document::new("plain")));
        assert!(!is_broken_object(&Document::new("")));
    }

    /// OBV-255, VTL-O23.
    #[test]
    fn headers_cannot_end_their_line() {
        assert_eq!(printable(b"a\r\nb: c\0\t\xe9".to_vec()), b"ab: c\t\xe9");
        assert!(is_own("X-A") && !is_own("a b") && !is_own("") && !is_own("Content-length"));
    }
}
