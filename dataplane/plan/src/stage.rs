//! A stage as served: its plans, settings and variables.

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use crate::checks::Checks;
use crate::custom::Backend;
use crate::gateway_response::GatewayResponses;
use crate::integration::{Integration, Target, TargetIndex};
use crate::limits::{Limit, Limits};
use crate::names::{AccountId, ApiId, DeploymentId, MethodKey, Region, ResourceId, StageName, Verb};
use crate::path::PathRef;
use crate::trie::{self, Captures, RouteIndex, Trie, TrieError};

/// One stage of one API, ready to serve.
#[derive(Debug)]
pub struct StagePlan {
    /// The API.
    pub api: ApiId,
    /// The stage.
    pub stage: StageName,
    /// The account in ARNs and logs.
    pub account: AccountId,
    /// The region in host names, ARNs and logs.
    pub region: Region,
    /// The API's name, a dimension of its metrics.
    pub api_name: Arc<str>,
    /// The default endpoint answers 403 (the API is reached through its domains only).
    pub disable_execute_api_endpoint: bool,
    /// What most requests get.
    pub primary: Plan,
    /// What a share of the requests gets instead.
    pub canary: Option<Canary>,
    /// The stage's variables.
    pub variables: Variables,
    /// Where each request's line goes.
    pub access_log: Option<AccessLog>,
    /// Metric series per method, where a method does not say otherwise.
    pub metrics_enabled: bool,
    /// Labels a node must have to serve the stage; none: every node.
    pub node_selector: Vec<(String, String)>,
}

/// The canary of a stage.
#[derive(Debug)]
pub struct Canary {
    /// The deployment under trial.
    pub plan: Plan,
    /// Variables that differ from the stage's.
    pub variables: Variables,
    percent: f64,
}

impl Canary {
    /// Takes a share of 0 to 100 percent.
    pub fn new(plan: Plan, percent: f64, variables: Variables) -> Result<Self, PlanError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(PlanError::CanaryPercent(percent));
        }
        Ok(Canary {
            plan,
            variables,
            percent,
        })
    }

    /// The share of requests, 0 to 100.
    pub fn percent(&self) -> f64 {
        self.percent
    }
}

/// Stage variables by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(HashMap<Box<str>, Arc<str>, ahash::RandomState>);

impl Variables {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&Arc<str>> {
        self.0.get(name)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<str>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Variables {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Variables(
            pairs
                .into_iter()
                .map(|(name, value)| (name.as_ref().into(), value.as_ref().into()))
                .collect(),
        )
    }
}

/// A token bucket's figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throttle {
    rate: f64,
    burst: u64,
}

impl Throttle {
    /// Takes requests a second and a burst. A negative figure means no limit and gives `None`; a rate or burst of
    /// 0 admits nothing.
    pub fn new(rate: f64, burst: i64) -> Result<Option<Self>, PlanError> {
        if !rate.is_finite() {
            return Err(PlanError::ThrottleRate(rate));
        }
        if rate < 0.0 {
            return Ok(None);
        }
        Ok(u64::try_from(burst).ok().map(|burst| Throttle { rate, burst }))
    }

    /// Requests a second.
    pub fn rate(self) -> f64 {
        self.rate
    }

    /// How many may come at once.
    pub fn burst(self) -> u64 {
        self.burst
    }
}

/// A stage's access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where the lines go, as the bindings resolved it.
    pub destination: Box<str>,
    /// The line's format, with `$context` variables.
    pub format: Box<str>,
}

/// The compiled form of one deployment.
#[derive(Debug)]
pub struct Plan {
    deployment: DeploymentId,
    trie: Trie,
    routes: Box<[Route]>,
    targets: Box<[Target]>,
    gateway_responses: GatewayResponses,
    binary_media_types: Box<[Box<str>]>,
    minimum_compression: Option<u64>,
}

impl Plan {
    /// The deployment it was compiled from.
    pub fn deployment(&self) -> &DeploymentId {
        &self.deployment
    }

    /// The resource that a path addresses, the stage's segment being gone. Fills in where the values of its
    /// parameters stand.
    pub fn find(&self, path: PathRef<'_>, captures: &mut Captures) -> Option<(RouteIndex, &Route)> {
        let index = self.trie.find(path, captures)?;
        Some((index, &self.routes[index.0 as usize]))
    }

    /// Every route, in the order of their indexes.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Every backend that an integration of the plan calls, each once.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The backend at an index that an integration of this plan gave.
    pub fn target(&self, index: TargetIndex) -> &Target {
        &self.targets[index.0 as usize]
    }

    /// The overrides of the gateway's own answers.
    pub fn gateway_responses(&self) -> &GatewayResponses {
        &self.gateway_responses
    }

    /// From how many bytes on answers are compressed for clients that take it (CAC-101); `None`: never.
    pub fn minimum_compression(&self) -> Option<u64> {
        self.minimum_compression
    }

    /// Whether an answer may have to be seen whole although its method reshapes nothing: to be compressed, or converted
    /// between bytes and text.
    pub fn recodes_answers(&self) -> bool {
        self.minimum_compression.is_some() || !self.binary_media_types.is_empty()
    }

    /// Media types whose payloads are passed as bytes.
    pub fn binary_media_types(&self) -> &[Box<str>] {
        &self.binary_media_types
    }
}

/// One resource with its methods. A resource without methods takes its path from less specific ones all the same
/// (RES-047, RES-048).
#[derive(Debug)]
pub struct Route {
    resource: ResourceId,
    path: Arc<str>,
    parameters: Box<[Box<str>]>,
    methods: Box<[Method]>,
}

impl Route {
    /// The resource.
    pub fn resource(&self) -> &ResourceId {
        &self.resource
    }

    /// The resource's path as defined: `/pets/{petId}`.
    pub fn path(&self) -> &Arc<str> {
        &self.path
    }

    /// The names of the path's parameters, in the order of the captures.
    pub fn parameters(&self) -> &[Box<str>] {
        &self.parameters
    }

    /// The methods, each with its index.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// The method that takes a request, and its index: the verb's own before `ANY` (RES-048).
    pub fn method(&self, verb: Verb) -> Option<(usize, &Method)> {
        let with = |key: MethodKey| self.methods.iter().position(|method| method.key == key);
        let at = with(MethodKey::Verb(verb)).or_else(|| with(MethodKey::Any))?;
        Some((at, &self.methods[at]))
    }
}

/// A method of a resource.
#[derive(Debug, Clone)]
pub struct Method {
    /// Which requests it takes.
    pub key: MethodKey,
    /// What is asked of them before; `None`: nothing (INT-140).
    pub checks: Option<Box<Checks>>,
    /// What answers them.
    pub integration: Integration,
    /// Its throttle, a bucket of its own also where the figures are the stage's for all methods (SEC-078).
    pub throttle: Option<Throttle>,
    /// Whether it has metric series of its own; `None`: as the stage says.
    pub metrics_enabled: Option<bool>,
    /// The operation's name in SDKs and logs.
    pub operation_name: Option<Box<str>>,
}

/// Why a plan cannot be built.
#[derive(Debug, Clone, PartialEq, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum PlanError {
    #[error("{0}% is not a canary's share: 0 to 100")]
    CanaryPercent(f64),
    #[error("a throttle's rate is a number, not {0}")]
    ThrottleRate(f64),
    #[error("{0} {1} is given twice")]
    MethodTwice(MethodKey, String),
    #[error(transparent)]
    Path(#[from] TrieError),
    #[error("{0} {1} calls target {2}, which the plan does not have")]
    UnknownTarget(MethodKey, String, u32),
    #[error("a plan holds at most {0} targets")]
    TooManyTargets(u32),
}

/// Collects routes and checks them against each other.
///
/// ```text
/// let mut plan = PlanBuilder::new(deployment);
/// let target = plan.target(Target::new("http", "pets.internal", 8080, false)?)?;
/// plan.route(resource, "/pets/{petId}", vec![Method { .. }])?;
/// let plan = plan.finish();
/// ```
#[derive(Debug)]
pub struct PlanBuilder {
    deployment: DeploymentId,
    trie: trie::Builder,
    routes: Vec<Route>,
    targets: Vec<Target>,
    target_index: HashMap<Target, TargetIndex, ahash::RandomState>,
    gateway_responses: GatewayResponses,
    binary_media_types: Vec<Box<str>>,
    minimum_compression: Option<u64>,
}

const TARGETS_MAX: u32 = 100_000;

impl PlanBuilder {
    /// Begins the plan of a deployment, bounded by the default limits.
    pub fn new(deployment: DeploymentId) -> Self {
        PlanBuilder::with_limits(deployment, &Limits::default())
    }

    /// Begins the plan of a deployment.
    pub fn with_limits(deployment: DeploymentId, limits: &Limits) -> Self {
        PlanBuilder {
            deployment,
            trie: trie::Builder::new(limits.count(Limit::RoutesPerApi)),
            routes: Vec::new(),
            targets: Vec::new(),
            target_index: HashMap::default(),
            gateway_responses: GatewayResponses::default(),
            binary_media_types: Vec::new(),
            minimum_compression: None,
        }
    }

    /// Adds a backend and says where it stands; an equal one is added once.
    pub fn target(&mut self, target: Target) -> Result<TargetIndex, PlanError> {
        if let Some(&index) = self.target_index.get(&target) {
            return Ok(index);
        }
        let index = u32::try_from(self.targets.len())
            .ok()
            .filter(|&at| at < TARGETS_MAX);
        let index = TargetIndex(index.ok_or(PlanError::TooManyTargets(TARGETS_MAX))?);
        self.targets.push(target.clone());
        self.target_index.insert(target, index);
        Ok(index)
    }

    /// Adds a resource with its methods and says where it stands. A resource without methods is to be added too:
    /// it takes its path from less specific ones (RES-047, RES-048).
    pub fn route(
        &mut self,
        resource: ResourceId,
        path: &str,
        mut methods: Vec<Method>,
    ) -> Result<RouteIndex, PlanError> {
        let parameters: Box<[Box<str>]> = path
            .split('/')
            .filter_map(parameter_name)
            .map(Into::into)
            .collect();
        for at in 0..methods.len() {
            let key = methods[at].key;
            if methods[..at].iter().any(|other| other.key == key) {
                return Err(PlanError::MethodTwice(key, path.to_owned()));
            }
            let target = match &mut methods[at].integration {
                Integration::HttpProxy(backend) | Integration::Http(backend) => {
                    backend.resolve_captures(&parameters);
                    Some(backend.target().0)
                }
                Integration::Custom(custom) => {
                    for mapping in &mut custom.mappings {
                        mapping.resolve_capture(&parameters);
                    }
                    match &custom.backend {
                        Backend::Http(backend) => Some(backend.target().0),
                        Backend::Mock => None,
                    }
                }
                Integration::Mock(_) | Integration::LambdaProxy(_) | Integration::Broken(_) => None,
            };
            if let Some(target) = target
                && target as usize >= self.targets.len()
            {
                return Err(PlanError::UnknownTarget(key, path.to_owned(), target));
            }
            if let Some(checks) = &mut methods[at].checks {
                checks.resolve_captures(&parameters);
            }
        }
        let index = self.trie.insert(path)?;
        self.routes.push(Route {
            resource,
            path: path.into(),
            parameters,
            methods: methods.into(),
        });
        Ok(index)
    }

    /// Sets the overrides of the gateway's own answers.
    pub fn gateway_responses(&mut self, overrides: GatewayResponses) {
        self.gateway_responses = overrides;
    }

    /// Sets the media types whose payloads are passed as bytes.
    pub fn binary_media_types<S: AsRef<str>>(&mut self, types: impl IntoIterator<Item = S>) {
        self.binary_media_types = types.into_iter().map(|one| one.as_ref().into()).collect();
    }

    /// Has answers of so many bytes and more compressed.
    pub fn minimum_compression(&mut self, bytes: u64) {
        self.minimum_compression = Some(bytes);
    }

    /// The finished plan.
    pub fn finish(self) -> Plan {
        Plan {
            deployment: self.deployment,
            trie: self.trie.finish(),
            routes: self.routes.into(),
            targets: self.targets.into(),
            gateway_responses: self.gateway_responses,
            binary_media_types: self.binary_media_types.into(),
            minimum_compression: self.minimum_compression,
        }
    }
}

fn parameter_name(part: &str) -> Option<&str> {
    let name = part.strip_prefix('{')?.strip_suffix('}')?;
    Some(name.strip_suffix('+').unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integration::{BackendMethod, HttpBackend, Mapping, MappingSource, MappingTarget};

    fn broken(key: MethodKey) -> Method {
        Method {
            key,
            checks: None,
            integration: Integration::Broken("test".into()),
            throttle: None,
            metrics_enabled: None,
            operation_name: None,
        }
    }

    fn builder() -> PlanBuilder {
        PlanBuilder::new(DeploymentId::parse("dep001").unwrap())
    }

    fn resource() -> ResourceId {
        ResourceId::parse("abc123").unwrap()
    }

    /// RES-048, RES-049
    #[test]
    fn a_named_verb_goes_before_any() {
        let mut plan = builder();
        let methods = vec![broken(MethodKey::Any), broken(MethodKey::Verb(Verb::Get))];
        plan.route(resource(), "/a", methods).unwrap();
        let plan = plan.finish();
        let route = &plan.routes()[0];
        assert_eq!(route.method(Verb::Get).unwrap().0, 1);
        assert_eq!(route.method(Verb::Put).unwrap().0, 0);
    }

    #[test]
    fn a_method_given_twice_is_refused() {
        let methods = vec![broken(MethodKey::Any), broken(MethodKey::Any)];
        let error = builder().route(resource(), "/a", methods).unwrap_err();
        assert_eq!(error, PlanError::MethodTwice(MethodKey::Any, "/a".into()));
    }

    #[test]
    fn equal_targets_are_one_and_captures_are_resolved() {
        let mut plan = builder();
        let target = |host| Target::new("http", host, 0, false).unwrap();
        let first = plan.target(target("a")).unwrap();
        assert_eq!(plan.target(target("A")).unwrap(), first);
        assert_ne!(plan.target(target("b")).unwrap(), first);
        let map = |name: &str| Mapping::new(MappingTarget::Header, name, MappingSource::path(name)).unwrap();
        let mappings = vec![map("item"), map("none")];
        let backend = HttpBackend::new(first, BackendMethod::Same, vec![], mappings, vec![], 0).unwrap();
        let mut method = broken(MethodKey::Any);
        method.integration = Integration::HttpProxy(Box::new(backend));
        plan.route(resource(), "/{shop}/{item+}", vec![method]).unwrap();
        let plan = plan.finish();
        let Integration::HttpProxy(backend) = &plan.routes()[0].methods()[0].integration else {
            panic!("a proxy was given");
        };
        let capture = |at: usize| match backend.mappings()[at].source() {
            MappingSource::Path { capture, .. } => *capture,
            other => panic!("{other:?}"),
        };
        assert_eq!((capture(0), capture(1)), (Some(1), None));
    }

    /// RES-048
    #[test]
    fn the_resource_is_chosen_before_the_method() {
        let mut plan = builder();
        plan.route(resource(), "/{proxy+}", vec![broken(MethodKey::Any)])
            .unwrap();
        plan.route(resource(), "/parent", vec![broken(MethodKey::Verb(Verb::Get))])
            .unwrap();
        let plan = plan.finish();
        let path = crate::path::normalize(b"/parent").unwrap();
        let mut captures = Captures::new();
        let (index, route) = plan.find(path.view(), &mut captures).unwrap();
        assert_eq!(index, RouteIndex(1));
        assert!(route.method(Verb::Post).is_none());
        let again = builder_with("/a").route(resource(), "/a", vec![]).unwrap_err();
        assert_eq!(again, PlanError::Path(TrieError::Duplicate("/a".into())));
    }

    fn builder_with(path: &str) -> PlanBuilder {
        let mut plan = builder();
        plan.route(resource(), path, vec![]).unwrap();
        plan
    }

    #[test]
    fn a_target_of_another_plan_is_refused() {
        let backend =
            HttpBackend::new(TargetIndex(3), BackendMethod::Same, vec![], vec![], vec![], 0).unwrap();
        let mut method = broken(MethodKey::Any);
        method.integration = Integration::Http(Box::new(backend));
        let error = builder().route(resource(), "/a", vec![method]).unwrap_err();
        assert_eq!(error, PlanError::UnknownTarget(MethodKey::Any, "/a".into(), 3));
    }

    #[test]
    fn throttles_know_no_limit_from_nothing_admitted() {
        assert_eq!(Throttle::new(-1.0, 10), Ok(None));
        assert_eq!(Throttle::new(5.0, -1), Ok(None));
        assert_eq!(Throttle::new(0.0, 0).unwrap().unwrap().burst(), 0);
        assert!(Throttle::new(f64::NAN, 1).is_err());
    }

    #[test]
    fn a_canary_takes_a_share_between_none_and_all() {
        for (percent, fits) in [
            (0.0, true),
            (100.0, true),
            (-0.1, false),
            (100.1, false),
            (f64::NAN, false),
        ] {
            let made = Canary::new(builder().finish(), percent, Variables::default());
            assert_eq!(made.is_ok(), fits, "{percent}");
        }
    }
}
