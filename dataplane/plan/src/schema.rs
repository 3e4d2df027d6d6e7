//! Models: JSON Schema of draft 4, compiled once, against which bodies are checked (VTL-020 to VTL-030).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Draft, PatternOptions, Retrieve, Uri, ValidationError, Validator};
use serde_json::Value;
use thiserror::Error;

/// How often a pattern that only a backtracking engine can run may step back: look-around and back-references are
/// legal in a schema, and a body must not be able to make them run for ever.
const BACKTRACKS: usize = 100_000;
/// Violations that a report names.
const VIOLATIONS: usize = 20;
/// Bytes of one violation in a report.
const VIOLATION_BYTES: usize = 500;

/// The models that schemas may refer to, by address: `https://apigateway.amazonaws.com/restapis/{api}/models/{name}`
/// (VTL-024). Nothing is ever fetched (VTL-025).
#[derive(Debug, Clone, Default)]
pub struct Models(Arc<HashMap<String, Value, ahash::RandomState>>);

/// Why a model cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum SchemaError {
    #[error("model {0} is not JSON: {1}")]
    NotJson(String, String),
    #[error("model {0} is no JSON Schema of draft 4: {1}")]
    Invalid(String, String),
    #[error("there is no model {0}")]
    Unknown(String),
}

impl Models {
    /// Reads models from pairs of address and JSON text. What follows the first value of a text is left aside
    /// (VTL-O03).
    ///
    /// # Errors
    /// Where a text does not begin with a JSON value.
    pub fn parse<'t>(models: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<Self, SchemaError> {
        let mut parsed = HashMap::default();
        for (address, text) in models {
            let value = serde_json::Deserializer::from_str(text)
                .into_iter::<Value>()
                .next()
                .unwrap_or(Ok(Value::Object(serde_json::Map::new())))
                .map_err(|error| SchemaError::NotJson(address.to_owned(), error.to_string()))?;
            parsed.insert(address.to_owned(), value);
        }
        Ok(Self(Arc::new(parsed)))
    }
}

impl Retrieve for Models {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let address = uri.as_str();
        match self.0.get(address) {
            Some(schema) => Ok(schema.clone()),
            None => Err(SchemaError::Unknown(address.to_owned()).into()),
        }
    }
}

/// A model, ready to check bodies.
#[derive(Debug, Clone)]
pub struct Schema(Arc<Validator>);

impl Schema {
    /// Compiles the model at an address, with all that it refers to.
    ///
    /// # Errors
    /// Where it is no schema, or refers to what is not there.
    pub fn compile(models: &Models, address: &str) -> Result<Self, SchemaError> {
        let schema = models
            .0
            .get(address)
            .ok_or_else(|| SchemaError::Unknown(address.to_owned()))?;
        let options = || {
            jsonschema::options()
                .with_draft(Draft::Draft4)
                .with_base_uri(address)
                .with_retriever(models.clone())
        };
        // In linear time, wherever a schema's patterns let it.
        let linear = options()
            .with_pattern_options(PatternOptions::regex())
            .build(schema);
        let compiled = linear.or_else(|_| {
            options()
                .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS))
                .build(schema)
        });
        compiled
            .map(|validator| Self(Arc::new(validator)))
            .map_err(|error| SchemaError::Invalid(address.to_owned(), clip(&error.to_string()).to_owned()))
    }

    /// Whether a body fits.
    pub fn accepts(&self, body: &Value) -> bool {
        self.0.is_valid(body)
    }

    /// What of a body does not fit, in the service's words: `[first, second]`
    /// (`$context.error.validationErrorString`; INT-150, INT-151). Empty brackets where it fits.
    pub fn violations(&self, body: &Value) -> String {
        let mut report = String::from("[");
        for (at, error) in self.0.iter_errors(body).take(VIOLATIONS).enumerate() {
            if at > 0 {
                report.push_str(", ");
            }
            report.push_str(clip(&violation(&error)));
        }
        report.push(']');
        report
    }
}

/// One violation. The wording is that of the service's validator for what models use most.
fn violation(error: &ValidationError<'_>) -> String {
    let found = error.instance();
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            format!("object has missing required properties ([{property}])")
        }
        ValidationErrorKind::Type { kind } => {
            let mut allowed = String::new();
            let mut add = |name: &str| {
                let comma = if allowed.is_empty() { "" } else { "," };
                // Writing to a String cannot fail.
                let _ = write!(allowed, "{comma}\"{name}\"");
            };
            match kind {
                TypeKind::Single(kind) => add(&kind.to_string()),
                TypeKind::Multiple(kinds) => kinds.iter().for_each(|kind| add(&kind.to_string())),
            }
            let kind = type_of(found);
            format!("instance type ({kind}) does not match any allowed primitive type (allowed: [{allowed}])")
        }
        ValidationErrorKind::Enum { options } => {
            format!("instance value ({found}) not found in enum (possible values: {options})")
        }
        ValidationErrorKind::Maximum { limit } => format!(
            "numeric instance is greater than the required maximum (maximum: {limit}, found: {found})"
        ),
        ValidationErrorKind::Minimum { limit } => {
            format!("numeric instance is lower than the required minimum (minimum: {limit}, found: {found})")
        }
        ValidationErrorKind::MaxLength { limit } => {
            format!(
                "string {found} is too long (length: {}, maximum allowed: {limit})",
                length(found)
            )
        }
        ValidationErrorKind::MinLength { limit } => {
            format!(
                "string {found} is too short (length: {}, required minimum: {limit})",
                length(found)
            )
        }
        ValidationErrorKind::Pattern { pattern } => {
            format!("ECMA 262 regex \"{pattern}\" does not match input string {found}")
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let names: Vec<_> = unexpected.iter().map(|name| format!("\"{name}\"")).collect();
            format!(
                "object instance has properties which are not allowed by the schema: [{}]",
                names.join(",")
            )
        }
        _ => error.to_string(),
    }
}

fn length(value: &Value) -> usize {
    value.as_str().map_or(0, |text| text.chars().count())
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(VIOLATION_BYTES)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BASE: &str = "https://apigateway.amazonaws.com/restapis/a1234/models/";

    fn schemas(models: &[(&str, &str)]) -> Models {
        let addressed: Vec<_> = models
            .iter()
            .map(|(name, text)| (format!("{BASE}{name}"), *text))
            .collect();
        Models::parse(addressed.iter().map(|(address, text)| (address.as_str(), *text))).unwrap()
    }

    fn schema(text: &str) -> Schema {
        Schema::compile(&schemas(&[("It", text)]), &format!("{BASE}It")).unwrap()
    }

    const PET: &str = r##"{
        "$schema": "http://json-schema.org/draft-04/schema#", "title": "PetStoreModel", "type": "object",
        "required": ["price", "type"],
        "properties": {
            "id": {"type": "integer"},
            "type": {"type": "string", "enum": ["dog", "cat", "fish"]},
            "price": {"type": "number", "minimum": 25.0, "maximum": 500.0}
        }
    }"##;

    /// VTL-021, VTL-022, VTL-030, INT-145: the keywords that models use; undeclared members are let be.
    #[test]
    fn bodies_are_checked_against_draft_4() {
        let pet = schema(PET);
        for (body, fits) in [
            (json!({"id": 1, "type": "dog", "price": 249.99}), true),
            (json!({"type": "cat", "price": 25}), true),
            (json!({"type": "cat", "price": 500, "more": []}), true),
            (json!({"type": "bird", "price": 30}), false),
            (json!({"type": "cat"}), false),
            (json!({"id": "1", "type": "cat", "price": 30}), false),
            (json!({"id": 1.5, "type": "cat", "price": 30}), false),
            (json!({"type": "cat", "price": 24.99}), false),
            (json!([]), false),
        ] {
            assert_eq!(pet.accepts(&body), fits, "{body}");
        }
        let photos = schema(
            r#"{"type": "object", "properties": {"photos": {"type": "object", "required": ["photo"],
                "properties": {"perpage": {"type": "integer", "minimum": 10}, "photo": {"type": "array"}}}}}"#,
        );
        assert!(!photos.accepts(&json!({"photos": {"perpage": 9, "photo": []}})));
        assert!(photos.accepts(&json!({"photos": {"perpage": 10, "photo": []}})));
        assert!(!photos.accepts(&json!({"photos": {"perpage": 10}})));
        // Draft 4: `exclusiveMinimum` is a flag.
        let over = schema(r#"{"minimum": 3, "exclusiveMinimum": true}"#);
        assert!(!over.accepts(&json!(3)) && over.accepts(&json!(4)));
    }

    /// VTL-023, VTL-024, VTL-025: references within a schema and to other models; nothing else is looked for.
    #[test]
    fn references_lead_to_models() {
        let own = schema(
            r##"{"type": "object", "properties": {"price": {"$ref": "#/definitions/Price"}},
                "definitions": {"Price": {"type": "number", "minimum": 25, "maximum": 500}}}"##,
        );
        assert!(!own.accepts(&json!({"price": 4000})));
        let text = format!(r#"{{"type": "object", "properties": {{"price": {{"$ref": "{BASE}Price"}}}}}}"#);
        let models = schemas(&[
            ("Price", r#"{"type": "number", "minimum": 25, "maximum": 500}"#),
            ("It", &text),
        ]);
        let it = Schema::compile(&models, &format!("{BASE}It")).unwrap();
        assert!(!it.accepts(&json!({"price": 24})));
        assert!(it.accepts(&json!({"price": 25})));
        let lost = schemas(&[("It", &text)]);
        assert!(matches!(
            Schema::compile(&lost, &format!("{BASE}It")),
            Err(SchemaError::Invalid(..))
        ));
        let far = schemas(&[("It", r#"{"$ref": "http://127.0.0.1:1/schema.json"}"#)]);
        assert!(Schema::compile(&far, &format!("{BASE}It")).is_err());
        assert_eq!(
            Schema::compile(&models, "https://nowhere/It").unwrap_err(),
            SchemaError::Unknown("https://nowhere/It".into())
        );
    }

    /// VTL-026: `properties` says nothing of what is no object. VTL-O03: what follows a schema's text is left aside.
    /// VTL-O06: a cycle through an object's members is fine.
    #[test]
    fn odd_schemas_that_the_service_takes() {
        assert!(schema(r#"{"properties": {"id": {"type": "integer"}}}"#).accepts(&json!(1)));
        assert!(!schema(r#"{"type": "integer"}}"#).accepts(&json!("1")));
        assert!(schema("").accepts(&json!(null)));
        let text = format!(r#"{{"type": "object", "properties": {{"next": {{"$ref": "{BASE}Node"}}}}}}"#);
        let models = schemas(&[("Node", &text)]);
        let node = Schema::compile(&models, &format!("{BASE}Node")).unwrap();
        assert!(node.accepts(&json!({"next": {"next": {}}})));
        assert!(!node.accepts(&json!({"next": {"next": 1}})));
        assert!(matches!(
            Models::parse([("a", "{")]),
            Err(SchemaError::NotJson(..))
        ));
        assert!(schemas(&[]).0.is_empty());
    }

    /// INT-151: the report names what was violated.
    #[test]
    fn violations_are_named() {
        let pet = schema(PET);
        let report = |body: Value| pet.violations(&body);
        assert_eq!(
            report(json!({"type": "dog", "price": 1000})),
            "[numeric instance is greater than the required maximum (maximum: 500.0, found: 1000)]"
        );
        assert_eq!(
            report(json!({"type": "bird", "price": 30})),
            "[instance value (\"bird\") not found in enum (possible values: [\"dog\",\"cat\",\"fish\"])]"
        );
        let two = report(json!({"id": "x", "type": "dog"}));
        assert!(
            two.contains("object has missing required properties ([\"price\"])"),
            "{two}"
        );
        assert!(
            two.contains(
                "instance type (string) does not match any allowed primitive type (allowed: [\"integer\"])"
            ),
            "{two}"
        );
        assert_eq!(report(json!({"type": "dog", "price": 30})), "[]");
        let long = report(json!({"type": "x".repeat(5000), "price": 30}));
        assert!(long.len() <= VIOLATION_BYTES + 2);
    }

    /// A pattern that would step back without end is bounded, and what it cannot decide does not pass.
    #[test]
    fn patterns_cannot_run_for_ever() {
        let linear = schema(r#"{"type": "string", "pattern": "^(a+)+$"}"#);
        assert!(!linear.accepts(&json!(format!("{}!", "a".repeat(5000)))));
        let backtracking = schema(r#"{"type": "string", "pattern": "^(?=(a+))(a+)+\\1b$"}"#);
        assert!(!backtracking.accepts(&json!("a".repeat(5000))));
    }
}
