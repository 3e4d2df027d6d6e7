//! Request validators become what a shard checks.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_plan::schema::{Models, Schema};
use tidegate_proto::config::v1::{self as config, ParameterLocation};

use crate::model::{Definition, Method};

/// The models of one API by address, and which of them its methods check bodies against.
pub(super) struct Validation<'a> {
    /// Address to schema.
    models: BTreeMap<String, &'a str>,
    /// Addresses by the models' names.
    addresses: BTreeMap<&'a str, String>,
    parsed: Result<Models, String>,
    used: BTreeSet<String>,
}

impl<'a> Validation<'a> {
    /// The models of a definition.
    pub(super) fn new(definition: &'a Definition) -> Self {
        let api = definition.rest_api.id.as_deref().unwrap_or_default();
        let mut models = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for (name, model) in &definition.models {
            // VTL-024, VTL-025: an identifier, whatever the host that the API is managed by.
            let address = format!("https://apigateway.amazonaws.com/restapis/{api}/models/{name}");
            models.insert(address.clone(), model.schema.as_deref().unwrap_or_default());
            addresses.insert(name.as_str(), address);
        }
        let pairs = models.iter().map(|(address, schema)| (address.as_str(), *schema));
        let parsed = Models::parse(pairs).map_err(|error| error.to_string());
        Self {
            models,
            addresses,
            parsed,
            used: BTreeSet::new(),
        }
    }

    /// What a method's validator asks; `None` where it asks nothing. The error says why it cannot be asked: such a
    /// method may not answer at all.
    pub(super) fn checks(
        &mut self,
        method: &Method,
        definition: &Definition,
    ) -> Result<Option<config::Checks>, String> {
        let validator = method
            .request_validator_id
            .as_deref()
            .and_then(|id| definition.request_validators.get(id));
        let Some(validator) = validator else {
            return Ok(None);
        };
        let mut checks = config::Checks::default();
        if validator.validate_request_parameters == Some(true) {
            let required = method.request_parameters.iter().flatten();
            for (parameter, _) in required.filter(|(_, required)| **required) {
                checks.required.push(required_parameter(parameter)?);
            }
        }
        if validator.validate_request_body == Some(true) {
            for (media_type, model) in method.request_models.iter().flatten() {
                checks.models.push(config::BodyModel {
                    media_type: match media_type.as_str() {
                        "$default" => String::new(),
                        other => other.to_ascii_lowercase(),
                    },
                    model: self.model(model)?,
                });
            }
        }
        let any = !checks.required.is_empty() || !checks.models.is_empty();
        Ok(any.then_some(checks))
    }

    /// The address of a model that is there and can be used.
    fn model(&mut self, name: &str) -> Result<String, String> {
        let address = self
            .addresses
            .get(name)
            .ok_or_else(|| format!("there is no model {name}"))?;
        let models = self.parsed.as_ref().map_err(String::clone)?;
        Schema::compile(models, address).map_err(|error| error.to_string())?;
        self.used.insert(address.clone());
        Ok(address.clone())
    }

    /// The models that nodes need: those in use, and all that they lead to.
    pub(super) fn into_models(self) -> Vec<config::Model> {
        let mut needed = self.used;
        let mut open: Vec<String> = needed.iter().cloned().collect();
        while let Some(address) = open.pop() {
            let schema = self.models.get(&address).copied().unwrap_or_default();
            for other in self.models.keys().filter(|other| schema.contains(other.as_str())) {
                if needed.insert(other.clone()) {
                    open.push(other.clone());
                }
            }
        }
        needed
            .into_iter()
            .map(|address| config::Model {
                schema: (*self.models.get(&address).unwrap_or(&"")).to_owned(),
                address,
            })
            .collect()
    }
}

/// `method.request.{path|querystring|header}.{name}` (INT-142).
fn required_parameter(parameter: &str) -> Result<config::RequiredParameter, String> {
    let unknown = || format!("required parameter {parameter} has no known place");
    let (location, name) = parameter
        .strip_prefix("method.request.")
        .and_then(|rest| rest.split_once('.'))
        .ok_or_else(unknown)?;
    let location = match location {
        "path" => ParameterLocation::Path,
        "querystring" | "multivaluequerystring" => ParameterLocation::Query,
        "header" | "multivalueheader" => ParameterLocation::Header,
        _ => return Err(unknown()),
    };
    Ok(config::RequiredParameter {
        location: location.into(),
        name: name.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, RequestValidator, RestApi};

    fn definition(models: &[(&str, &str)], parameters: bool, body: bool) -> Definition {
        let mut definition = Definition {
            rest_api: RestApi {
                id: Some("a1234".into()),
                ..RestApi::default()
            },
            ..Definition::default()
        };
        for (name, schema) in models {
            let model = Model {
                schema: Some((*schema).into()),
                ..Model::default()
            };
            definition.models.insert((*name).into(), model);
        }
        let validator = RequestValidator {
            validate_request_parameters: Some(parameters),
            validate_request_body: Some(body),
            ..RequestValidator::default()
        };
        definition.request_validators.insert("v1".into(), validator);
        definition
    }

    fn method(validator: Option<&str>) -> Method {
        Method {
            request_validator_id: validator.map(Into::into),
            request_parameters: Some(BTreeMap::from([
                ("method.request.querystring.petType".into(), true),
                ("method.request.header.h1".into(), false),
                ("method.request.path.id".into(), true),
            ])),
            request_models: Some(BTreeMap::from([("Application/JSON".into(), "Pet".into())])),
            ..Method::default()
        }
    }

    /// INT-141, INT-142, INT-144, INT-154: what is declared required, where the validator is referred to and says so.
    #[test]
    fn validators_say_what_is_checked() {
        let pet = [("Pet", r#"{"type": "object"}"#)];
        let checks = |parameters, body, validator| {
            let definition = definition(&pet, parameters, body);
            let mut validation = Validation::new(&definition);
            let checks = validation
                .checks(&method(validator), &definition)
                .expect("compiles");
            (checks, validation.into_models().len())
        };
        assert_eq!(checks(true, true, None), (None, 0));
        assert_eq!(checks(false, false, Some("v1")), (None, 0));
        let (both, models) = checks(true, true, Some("v1"));
        let both = both.expect("checks");
        let names: Vec<_> = both.required.iter().map(|one| one.name.as_str()).collect();
        assert_eq!((names, models), (vec!["id", "petType"], 1));
        assert_eq!(both.models[0].media_type, "application/json");
        assert!(
            checks(true, false, Some("v1"))
                .0
                .expect("checks")
                .models
                .is_empty()
        );
        assert!(
            checks(false, true, Some("v1"))
                .0
                .expect("checks")
                .required
                .is_empty()
        );
    }

    /// VTL-024: models go along with all that they refer to, and with nothing else.
    #[test]
    fn models_bring_what_they_refer_to() {
        let reference = r#"{"properties": {"price": {"$ref": "https://apigateway.amazonaws.com/restapis/a1234/models/Price"}}}"#;
        let definition = definition(
            &[
                ("Pet", reference),
                ("Price", r#"{"type": "number"}"#),
                ("Other", "{}"),
            ],
            false,
            true,
        );
        let mut validation = Validation::new(&definition);
        validation
            .checks(&method(Some("v1")), &definition)
            .expect("compiles");
        let models = validation.into_models();
        let names: Vec<_> = models
            .iter()
            .filter_map(|model| model.address.rsplit('/').next())
            .collect();
        assert_eq!(names, ["Pet", "Price"]);
    }

    /// What cannot be checked is said, and never left out.
    #[test]
    fn what_cannot_be_checked_is_an_error() {
        for (name, schema) in [("Pet", r#"{"type": 5}"#), ("Pet", "{"), ("Other", "{}")] {
            let definition = definition(&[(name, schema)], false, true);
            let mut validation = Validation::new(&definition);
            assert!(
                validation.checks(&method(Some("v1")), &definition).is_err(),
                "{schema}"
            );
        }
    }
}
