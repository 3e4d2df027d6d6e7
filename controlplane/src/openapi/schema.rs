//! Schemas to models (OAP-057, OAP-058, QUO-155 to QUO-162).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    context::{Context, Version},
    error::ImportError,
    reference::target,
};
use crate::model::{Model, OWN_MODELS};

/// The models of an import.
#[derive(Default)]
pub(super) struct Schemas {
    /// By name.
    pub(super) models: BTreeMap<String, Model>,
    /// A schema's name in the document to its model's.
    names: BTreeMap<String, String>,
    /// Model names in use, each with the last number that was put behind it.
    taken: BTreeMap<String, usize>,
    /// A schema's address in the document to its model's name: what is referred to often is one model.
    inline: BTreeMap<usize, String>,
}

impl Schemas {
    /// Makes a model of every named schema of the document.
    pub(super) fn declare(context: &mut Context<'_>) -> Result<Self, ImportError> {
        let mut schemas = Self::default();
        let Some(named) = named_schemas(context) else {
            return Ok(schemas);
        };
        refuse_cycles(named, prefix(context.version))?;
        for name in named.keys() {
            let model = schemas.free_name(name);
            if model != *name {
                context.warn(format!(
                    "schema `{name}` became the model `{model}`: a model's name has letters and digits only"
                ));
            }
            schemas.names.insert(name.clone(), model);
        }
        for (name, schema) in named {
            let Some(model) = schemas.names.get(name).cloned() else {
                continue;
            };
            schemas.add(context, &format!("schema `{name}`"), model, schema);
        }
        Ok(schemas)
    }

    /// The name of the model for a schema at `place`: the one it refers to, or a new one called `suggestion`.
    pub(super) fn model_for(
        &mut self,
        context: &mut Context<'_>,
        place: &str,
        suggestion: &str,
        schema: &Value,
    ) -> Option<String> {
        if let Some(reference) = target(schema) {
            let known = reference
                .strip_prefix(prefix(context.version))
                .and_then(|name| self.names.get(name).cloned().or_else(|| built_in(name)));
            if known.is_none() {
                context.warn(format!(
                    "{place}: the model `{reference}` is not in the document; imported without it"
                ));
            }
            return known;
        }
        if !schema.is_object() {
            context.warn(format!(
                "{place}: the schema is not an object; imported without a model"
            ));
            return None;
        }
        let address = std::ptr::from_ref(schema) as usize;
        if let Some(known) = self.inline.get(&address) {
            return Some(known.clone());
        }
        let name = self.free_name(suggestion);
        self.inline.insert(address, name.clone());
        self.add(context, place, name.clone(), schema);
        Some(name)
    }

    fn add(&mut self, context: &mut Context<'_>, place: &str, name: String, schema: &Value) {
        let Value::Object(members) = schema else {
            context.warn(format!("{place}: the schema is not an object; not imported"));
            return;
        };
        let mut cleaner = Cleaner {
            names: &self.names,
            version: context.version,
            dropped: BTreeSet::new(),
            lost: BTreeSet::new(),
        };
        let cleaned = cleaner.schema(members);
        let (dropped, lost) = (cleaner.dropped, cleaner.lost);
        if !dropped.is_empty() {
            let names: Vec<_> = dropped.iter().map(|name| format!("`{name}`")).collect();
            context.warn(format!(
                "{place}: models do not know {}; left out",
                names.join(", ")
            ));
        }
        for reference in lost {
            context.warn(format!(
                "{place}: `{reference}` is not a schema of the document; anything is accepted there"
            ));
        }
        let model = Model {
            id: None,
            name: Some(name.clone()),
            description: members
                .get("description")
                .and_then(Value::as_str)
                .map(str::to_owned),
            schema: Some(cleaned.to_string()),
            content_type: Some("application/json".to_owned()),
        };
        if let Err(refusal) = model.check() {
            context.error(format!("{place}: {}", refusal.message));
        }
        self.models.insert(name, model);
    }

    /// Letters and digits of `wanted`, made unique and taken.
    fn free_name(&mut self, wanted: &str) -> String {
        let mut base: String = wanted.chars().filter(char::is_ascii_alphanumeric).collect();
        if base.is_empty() {
            base.push_str("Model");
        }
        let mut number = match self.taken.get(&base) {
            None => {
                self.taken.insert(base.clone(), 1);
                return base;
            }
            Some(number) => *number,
        };
        loop {
            number += 1;
            let name = format!("{base}{number}");
            if !self.taken.contains_key(&name) {
                self.taken.insert(base, number);
                self.taken.insert(name.clone(), 1);
                return name;
            }
        }
    }
}

/// The models that every API has (OBV-120).
fn built_in(name: &str) -> Option<String> {
    matches!(name, "Empty" | "Error").then(|| name.to_owned())
}

fn named_schemas<'a>(context: &mut Context<'a>) -> Option<&'a Map<String, Value>> {
    let root = context.root;
    match context.version {
        Version::Swagger2 => context.object("document", root, "definitions"),
        Version::OpenApi3 => {
            let components = context.object("document", root, "components")?;
            context.object("components", components, "schemas")
        }
    }
}

fn prefix(version: Version) -> &'static str {
    match version {
        Version::Swagger2 => "#/definitions/",
        Version::OpenApi3 => "#/components/schemas/",
    }
}

/// A schema may contain itself through an object's or an array's parts, and only so: otherwise it has no meaning.
fn refuse_cycles(named: &Map<String, Value>, prefix: &str) -> Result<(), ImportError> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Open,
        Done,
    }
    let mut states: BTreeMap<&str, State> = BTreeMap::new();
    for start in named.keys() {
        // Depth first with a stack of our own: a chain may be as long as the document.
        let mut stack: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut next = Some(start.as_str());
        loop {
            if let Some(name) = next.take() {
                match states.get(name) {
                    Some(State::Done) => {}
                    Some(State::Open) => {
                        let from = stack.iter().position(|(open, _)| *open == name).unwrap_or(0);
                        let mut path: Vec<String> = stack[from..]
                            .iter()
                            .map(|(open, _)| format!("{prefix}{open}"))
                            .collect();
                        path.push(format!("{prefix}{name}"));
                        return Err(ImportError::Cycle { path });
                    }
                    None => {
                        if let Some(schema) = named.get(name) {
                            let mut targets = Vec::new();
                            direct_targets(schema, prefix, &mut targets);
                            states.insert(name, State::Open);
                            stack.push((name, targets));
                        }
                    }
                }
            }
            match stack.last_mut() {
                None => break,
                Some((name, targets)) => match targets.pop() {
                    Some(target) => next = Some(target),
                    None => {
                        states.insert(name, State::Done);
                        stack.pop();
                    }
                },
            }
        }
    }
    Ok(())
}

/// The named schemas that `schema` is the same value as, wholly or in part.
fn direct_targets<'a>(schema: &'a Value, prefix: &str, found: &mut Vec<&'a str>) {
    if let Some(name) = target(schema).and_then(|reference| reference.strip_prefix(prefix)) {
        found.push(name);
        return;
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for part in schema
            .get(keyword)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            direct_targets(part, prefix, found);
        }
    }
    if let Some(part) = schema.get("not") {
        direct_targets(part, prefix, found);
    }
}

/// Brings a schema to what models are: JSON Schema draft 4, references to models by their address.
struct Cleaner<'a> {
    names: &'a BTreeMap<String, String>,
    version: Version,
    /// Keywords left out.
    dropped: BTreeSet<String>,
    /// References that lead to no schema.
    lost: BTreeSet<String>,
}

impl Cleaner<'_> {
    fn value(&mut self, schema: &Value) -> Value {
        match schema {
            Value::Object(members) => self.schema(members),
            other => other.clone(),
        }
    }

    fn list(&mut self, schemas: &Value) -> Value {
        match schemas {
            Value::Array(list) => list.iter().map(|schema| self.value(schema)).collect(),
            other => self.value(other),
        }
    }

    fn schema(&mut self, members: &Map<String, Value>) -> Value {
        let mut out = Map::new();
        for (keyword, value) in members {
            let kept = match keyword.as_str() {
                "$ref" => match self.reference(value) {
                    Some(reference) => reference,
                    None => continue,
                },
                "properties" | "patternProperties" | "definitions" => match value {
                    Value::Object(parts) => Value::Object(
                        parts
                            .iter()
                            .map(|(name, part)| (name.clone(), self.value(part)))
                            .collect(),
                    ),
                    other => other.clone(),
                },
                "oneOf" if self.version == Version::Swagger2 => {
                    self.dropped.insert(keyword.clone());
                    continue;
                }
                "allOf" | "anyOf" | "oneOf" | "items" => self.list(value),
                "not" | "additionalProperties" | "additionalItems" => self.value(value),
                "format" if is_number_format(members, value) => {
                    self.dropped
                        .insert(format!("format: {}", value.as_str().unwrap_or_default()));
                    continue;
                }
                known if DRAFT4.contains(&known) => value.clone(),
                other => {
                    self.dropped.insert(other.to_owned());
                    continue;
                }
            };
            out.insert(keyword.clone(), kept);
        }
        Value::Object(out)
    }

    fn reference(&mut self, value: &Value) -> Option<Value> {
        let text = value.as_str()?;
        if text.starts_with(MODEL_ADDRESS) {
            return Some(value.clone());
        }
        let model = text
            .strip_prefix(prefix(self.version))
            .and_then(|name| self.names.get(name).cloned().or_else(|| built_in(name)));
        match model {
            Some(model) => Some(Value::from(format!("{OWN_MODELS}{model}"))),
            None => {
                self.lost.insert(text.to_owned());
                None
            }
        }
    }
}

/// QUO-160, QUO-164: widths of numbers are not known.
fn is_number_format(members: &Map<String, Value>, format: &Value) -> bool {
    let format = format.as_str().unwrap_or_default();
    format == "decimal"
        || (matches!(format, "int32" | "int64")
            && members.get("type").and_then(Value::as_str) == Some("number"))
}

/// How a model refers to one of another API (VTL-024).
const MODEL_ADDRESS: &str = "https://apigateway.amazonaws.com/restapis/";

/// Keywords that models know and that hold no schemas. `exclusiveMinimum` is not among them (QUO-160).
const DRAFT4: [&str; 23] = [
    "$schema",
    "id",
    "title",
    "description",
    "type",
    "enum",
    "format",
    "required",
    "minimum",
    "maximum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "dependencies",
    "const",
    "$comment",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::ImportOptions, *};

    fn declare(schemas: Value) -> Result<(BTreeMap<String, Model>, Vec<String>), ImportError> {
        let root = json!({"components": {"schemas": schemas}});
        let options = ImportOptions::default();
        let mut context = Context::new(root.as_object().expect("object"), Version::OpenApi3, &options);
        let models = Schemas::declare(&mut context)?.models;
        Ok((models, context.finish()?))
    }

    fn schema(model: &Model) -> Value {
        serde_json::from_str(model.schema.as_deref().expect("a schema")).expect("json")
    }

    /// OAP-058, VTL-024: schemas become models; references become the models' addresses.
    #[test]
    fn references_become_addresses() {
        let (models, warnings) = declare(json!({
            "Pet": {"type": "object", "properties": {"tag": {"$ref": "#/components/schemas/Tag"}}},
            "Tag": {"type": "string"},
        }))
        .expect("models");
        assert_eq!(
            schema(&models["Pet"])["properties"]["tag"]["$ref"],
            format!("{OWN_MODELS}Tag")
        );
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    /// QUO-155, QUO-160: other names and unknown keywords are told by name.
    #[test]
    fn what_models_do_not_know_is_told() {
        let (models, warnings) = declare(json!({
            "Pet_Item": {"type": "object", "properties": {"example": {"type": "string", "example": "x", "nullable": true}}},
        }))
        .expect("models");
        assert_eq!(
            schema(&models["PetItem"]),
            json!({"type": "object", "properties": {"example": {"type": "string"}}})
        );
        let text = warnings.join("\n");
        assert!(
            text.contains("PetItem") && text.contains("`example`") && text.contains("`nullable`"),
            "{text}"
        );
    }

    /// A tree may contain itself; a schema that is itself may not.
    #[test]
    fn only_cycles_without_meaning_are_refused() {
        declare(json!({"Node": {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}}}))
            .expect("a list of nodes");
        let error = declare(json!({
            "A": {"allOf": [{"$ref": "#/components/schemas/B"}]},
            "B": {"$ref": "#/components/schemas/A"},
        }))
        .expect_err("no meaning");
        assert_eq!(
            error,
            ImportError::Cycle {
                path: ["A", "B", "A"]
                    .map(|name| format!("#/components/schemas/{name}"))
                    .to_vec()
            }
        );
    }

    #[test]
    fn long_chains_need_no_stack() {
        let mut named = Map::new();
        for at in 0..50_000 {
            named.insert(
                format!("S{at}"),
                json!({"$ref": format!("#/definitions/S{}", at + 1)}),
            );
        }
        refuse_cycles(&named, "#/definitions/").expect("no cycle");
        named.insert("S50000".to_owned(), json!({"$ref": "#/definitions/S0"}));
        assert!(
            matches!(refuse_cycles(&named, "#/definitions/"), Err(ImportError::Cycle { path }) if path.len() == 50_002)
        );
    }
}
