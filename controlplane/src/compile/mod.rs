//! Definitions become bundles.
//!
//! What a deployment froze and what a stage says live (C4) become one `StageBundle`: every URI resolved, every
//! response selection made that can be made ahead. What a requirement says is refused is refused when it is defined;
//! what the service would accept and fail at run time, and what this version cannot do yet, becomes a step that answers
//! the service's 500, and a warning that names it. Nothing that guards a method is ever left out: a method whose guard
//! no node can run answers 500, and not without its guard.

mod binding;
mod bundles;
mod custom;
mod function;
mod integration;
mod mapping;
mod stage_settings;
mod uri;
mod validation;

use std::collections::BTreeMap;

use tidegate_proto::config::v1 as config;

use crate::model::{Binding, Definition, Method, Refusal, RestApi, Stage};

pub(crate) use binding::{SealedCredentials, binding};
pub use bundles::{Compiler, FORMAT};
pub(crate) use bundles::{load_stage, settings, settings_key};
pub use stage_settings::InstallationSettings;

/// What a stage is made of.
#[derive(Clone, Copy, Debug)]
pub struct StageSource<'a> {
    /// The API's id.
    pub api: &'a str,
    /// Whose it is.
    pub account: &'a str,
    /// Where it is.
    pub region: &'a str,
    /// The stage.
    pub stage: &'a Stage,
    /// What it serves.
    pub primary: (&'a str, &'a Definition),
    /// What it serves to a share of the requests.
    pub canary: Option<(&'a str, &'a Definition)>,
    /// The installation's bindings.
    pub bindings: &'a [Binding],
}

/// A compiled thing and what has to be said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled<T> {
    /// The thing.
    pub output: T,
    /// What will not work, by name; each once.
    pub warnings: Vec<String>,
}

/// Compiles a stage.
pub fn stage(source: &StageSource<'_>) -> Result<Compiled<config::StageBundle>, Refusal> {
    let mut warnings = Warnings::default();
    let stage = source.stage;
    let name = stage.stage_name.clone().unwrap_or_default();
    let variables = stage.variables.clone().unwrap_or_default();
    let settings = stage_settings::MethodSettings::new(stage, &mut warnings);
    let guard = stage_settings::stage_guard(stage);
    let compile = |deployment: &str,
                   definition: &Definition,
                   variables: &BTreeMap<String, String>,
                   w: &mut Warnings| {
        let scope = Scope {
            variables,
            settings: &settings,
            guard: guard.as_deref(),
            functions: function::Functions {
                account: source.account,
                bindings: Some(source.bindings),
            },
        };
        plan(deployment, definition, &scope, w)
    };
    let primary = compile(source.primary.0, source.primary.1, &variables, &mut warnings)?;
    let (mut canary, mut canary_percent, mut canary_variables) = (None, 0.0, BTreeMap::new());
    if let (Some(canary_settings), Some((deployment, definition))) = (&stage.canary_settings, source.canary) {
        canary_variables = canary_settings
            .stage_variable_overrides
            .clone()
            .unwrap_or_default();
        canary_percent = canary_settings.percent_traffic.unwrap_or(0.0);
        let mut all = variables.clone();
        all.extend(canary_variables.clone());
        canary = Some(compile(deployment, definition, &all, &mut warnings)?);
    }
    let api = &source.primary.1.rest_api;
    let bundle = config::StageBundle {
        api_id: source.api.into(),
        stage: name,
        account_id: source.account.into(),
        region: source.region.into(),
        api_name: api.name.clone().unwrap_or_default(),
        disable_execute_api_endpoint: api.disable_execute_api_endpoint.unwrap_or(false),
        primary: Some(primary),
        canary,
        canary_percent,
        canary_variables,
        variables,
        throttle: settings.stage_throttle(),
        access_log: stage_settings::access_log(stage, source.bindings, &mut warnings),
        metrics_enabled: settings.stage_metrics(),
        node_selector: BTreeMap::new(),
    };
    Ok(Compiled {
        output: bundle,
        warnings: warnings.list,
    })
}

/// What a deployment would warn about, whatever stage serves it; refuses what cannot be deployed.
pub fn check(definition: &Definition) -> Result<Vec<String>, Refusal> {
    let mut methods = definition
        .resources
        .values()
        .flat_map(|resource| resource.methods.values())
        .peekable();
    if methods.peek().is_none() {
        return Err(Refusal::bad_request("The REST API doesn't contain any methods"));
    }
    if methods.any(|method| method.method_integration.is_none()) {
        return Err(Refusal::bad_request("No integration defined for method"));
    }
    // Without a stage there are no variables: what depends on them is judged when a stage is compiled.
    let mut warnings = Warnings {
        without_variables: true,
        ..Warnings::default()
    };
    let stage = Stage::default();
    let settings = stage_settings::MethodSettings::new(&stage, &mut warnings);
    let scope = Scope {
        variables: &BTreeMap::new(),
        settings: &settings,
        guard: None,
        // Which account's, and where they lead, is judged when a stage is compiled.
        functions: function::Functions {
            account: "000000000000",
            bindings: None,
        },
    };
    plan("", definition, &scope, &mut warnings)?;
    Ok(warnings.list)
}

/// What holds for every method of a plan.
struct Scope<'a> {
    variables: &'a BTreeMap<String, String>,
    settings: &'a stage_settings::MethodSettings<'a>,
    /// Why no method of this stage may answer.
    guard: Option<&'a str>,
    functions: function::Functions<'a>,
}

/// Warnings, each once, at most [`Warnings::MAX`].
#[derive(Default)]
struct Warnings {
    list: Vec<String>,
    without_variables: bool,
}

impl Warnings {
    /// A definition of 10,000 routes can have something wrong with each; nobody reads more than this.
    const MAX: usize = 200;

    fn add(&mut self, text: String) {
        if self.list.len() < Self::MAX && !self.list.contains(&text) {
            self.list.push(text);
        }
    }
}

fn plan(
    deployment: &str,
    definition: &Definition,
    scope: &Scope<'_>,
    warnings: &mut Warnings,
) -> Result<config::Plan, Refusal> {
    let guard = scope
        .guard
        .map(str::to_owned)
        .or_else(|| api_guard(&definition.rest_api));
    if let Some(guard) = &guard {
        warnings.add(format!("{guard}: every method answers 500"));
    }
    let binary_media_types = definition.rest_api.binary_media_types.clone().unwrap_or_default();
    let recoding = integration::Recoding {
        binary: !binary_media_types.is_empty(),
        compressed: definition.rest_api.minimum_compression_size.is_some(),
    };
    let mut validation = validation::Validation::new(definition);
    let mut routes: Vec<config::Route> = Vec::with_capacity(definition.resources.len());
    for (id, defined) in &definition.resources {
        let path = defined.resource.path.clone().unwrap_or_default();
        let mut methods = Vec::with_capacity(defined.methods.len());
        for (verb, method) in &defined.methods {
            let at = format!("{verb} {path}");
            let guarded = guard.clone().or_else(|| method_guard(method));
            let checks = match &guarded {
                Some(_) => Ok(None),
                None => validation.checks(method, definition),
            };
            let (integration, checks) = match (guarded, checks) {
                (Some(reason), _) | (None, Err(reason)) => {
                    if guard.is_none() {
                        warnings.add(format!("{at}: {reason}: the method answers 500"));
                    }
                    (integration::broken(reason), None)
                }
                (None, Ok(checks)) => {
                    let integration = integration::compile(
                        &at,
                        method,
                        recoding,
                        scope.variables,
                        &scope.functions,
                        warnings,
                    );
                    (integration, checks)
                }
            };
            let responses = method
                .method_responses
                .iter()
                .flatten()
                .filter_map(|(code, _)| code.parse().ok());
            methods.push(config::Method {
                http_method: verb.clone(),
                integration: Some(integration),
                throttle: scope.settings.throttle(&path, verb),
                metrics_enabled: scope.settings.metrics(&path, verb),
                operation_name: method.operation_name.clone().unwrap_or_default(),
                checks,
                responses: responses
                    .map(|status| config::MethodResponse { status })
                    .collect(),
            });
        }
        // Resources without methods count too: they keep requests from less specific ones (RES-047, RES-048).
        routes.push(config::Route {
            resource_id: id.clone(),
            path,
            methods,
        });
    }
    routes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(config::Plan {
        deployment_id: deployment.into(),
        routes,
        gateway_responses: stage_settings::gateway_responses(definition, warnings),
        binary_media_types,
        models: validation.into_models(),
        minimum_compression_size: definition
            .rest_api
            .minimum_compression_size
            .and_then(|size| u32::try_from(size).ok()),
    })
}

/// Why no method of this API may answer: what guards the API as a whole is not there to run.
fn api_guard(api: &RestApi) -> Option<String> {
    if api.policy.as_deref().is_some_and(|policy| !policy.is_empty()) {
        return Some("the resource policy cannot be enforced yet".into());
    }
    let types = api
        .endpoint_configuration
        .as_ref()
        .and_then(|endpoint| endpoint.types.as_deref())
        .unwrap_or_default();
    if types.iter().any(|kind| kind == "PRIVATE") {
        return Some("private endpoints cannot be told from public ones yet".into());
    }
    None
}

/// Why this method may not answer: its guard is not there to run.
fn method_guard(method: &Method) -> Option<String> {
    let kind = method.authorization_type.as_deref().unwrap_or("NONE");
    if kind != "NONE" {
        return Some(format!("authorization type {kind} cannot be enforced yet"));
    }
    if method.api_key_required == Some(true) {
        return Some("API keys cannot be enforced yet".into());
    }
    None
}
