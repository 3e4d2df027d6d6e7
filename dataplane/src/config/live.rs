//! A stage's plan with the node-wide state that it refers to: what the shards run.

use std::path::Path;
use std::sync::Arc;

use regex::Regex;
use tidegate_plan::integration::ResponseSelection;
use tidegate_plan::{Integration, Method, Plan, StagePlan, Throttle};

use crate::limit::{self, Limit, LimitHandle, LimitId, LimitIndex, TooManyLimits};
use crate::telemetry::log::{Format, FormatError, StageFacts};
use crate::telemetry::{LogHandle, LogTarget, SeriesHandle, Slot, Telemetry};

/// One stage of one API as the shards run it. Built on the configuration thread, shared by all shards.
#[derive(Debug)]
pub struct Stage {
    /// What it serves.
    pub plan: Arc<StagePlan>,
    /// The revision of the bundle it was built from.
    pub revision: u64,
    primary: Deployment,
    canary: Deployment,
    /// Absent: the stage is not counted.
    series: Option<SeriesHandle>,
    log: Option<LogHandle>,
}

/// The methods of a plan, by route and place in the route.
#[derive(Debug, Default)]
struct Deployment(Box<[Box<[Live]>]>);

/// What a method has beside its plan.
#[derive(Debug)]
struct Live {
    indexes: Box<[LimitIndex]>,
    handles: Box<[LimitHandle]>,
    series: Option<SeriesHandle>,
    selection: Option<Selection>,
}

/// Which integration response answers which status of the backend, for statuses 100 to 599; 255 stands for none.
#[derive(Debug)]
struct Selection(Box<[u8; 500]>);

/// Why a plan cannot be run on this node.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The node's table of limits is full.
    #[error(transparent)]
    Limits(#[from] TooManyLimits),
    /// A throttle's figures are not a limit.
    #[error("throttle: {0}")]
    Throttle(#[from] limit::InvalidLimit),
    /// The access log's format cannot be used.
    #[error("access log format: {0}")]
    Log(#[from] FormatError),
    /// A selection pattern is not a regular expression.
    #[error("selection pattern `{0}` is not a regular expression: {1}")]
    Pattern(String, String),
}

/// What plans refer to.
#[derive(Debug)]
pub struct Resolver<'n> {
    /// The node's limits.
    pub limits: &'n mut limit::Registry,
    /// The node's series and logs.
    pub telemetry: &'n Telemetry,
    /// The account's limit, which every stage is under.
    pub account: Option<LimitHandle>,
    /// The time at which limits count.
    pub now: limit::Nanos,
}

impl Stage {
    /// Finds or makes everything that a plan refers to. What has the same identity stays the same over versions
    /// (decision D9).
    ///
    /// # Errors
    /// When the plan cannot be run on this node; nothing of it is in effect then.
    pub fn resolve(
        plan: Arc<StagePlan>,
        revision: u64,
        resolver: &mut Resolver<'_>,
    ) -> Result<Self, ResolveError> {
        let (api, stage) = (plan.api.as_str(), plan.stage.as_str());
        let series = resolver.telemetry.series().stage(api, &plan.api_name, stage);
        let log = match &plan.access_log {
            None => None,
            Some(log) => {
                let facts = StageFacts {
                    api_id: api.into(),
                    stage: stage.into(),
                    account_id: plan.account.as_str().into(),
                    deployment_id: plan.primary.deployment().as_str().into(),
                };
                let format = Format::compile(&log.format, &facts)?;
                Some(
                    resolver
                        .telemetry
                        .log()
                        .open(Path::new(&*log.destination), format),
                )
            }
        };
        let mut throttles = Vec::new();
        let primary = deployment(&plan, &plan.primary, resolver, &mut throttles)?;
        let canary = match &plan.canary {
            Some(canary) => deployment(&plan, &canary.plan, resolver, &mut throttles)?,
            None => Deployment::default(),
        };
        // Only now, as nothing can be refused any more.
        for (handle, limit) in throttles {
            handle.put_in_force(limit, resolver.now);
        }
        Ok(Self {
            plan,
            revision,
            primary,
            canary,
            series: Some(series),
            log,
        })
    }

    /// A stage for one request that is not traffic: under no limit, not counted, not logged.
    ///
    /// # Errors
    /// When the plan cannot be run.
    pub fn ephemeral(plan: Arc<StagePlan>) -> Result<Self, ResolveError> {
        let mut routes = Vec::with_capacity(plan.primary.routes().len());
        for route in plan.primary.routes() {
            let methods = route.methods().iter().map(|method| {
                Ok(Live {
                    indexes: Box::default(),
                    handles: Box::default(),
                    series: None,
                    selection: selection(method)?,
                })
            });
            routes.push(methods.collect::<Result<Box<[_]>, ResolveError>>()?);
        }
        Ok(Self {
            plan,
            revision: 0,
            primary: Deployment(routes.into()),
            canary: Deployment::default(),
            series: None,
            log: None,
        })
    }

    /// The limits that a method is under, narrowest first (SEC-077).
    pub fn limits(&self, canary: bool, route: u32, method: u32) -> &[LimitIndex] {
        self.live(canary, route, method)
            .map(|live| &*live.indexes)
            .unwrap_or_default()
    }

    /// Every limit that the stage refers to, to be installed in a shard before its first request.
    pub fn limit_handles(&self) -> impl Iterator<Item = &LimitHandle> {
        let methods = self.primary.0.iter().chain(&self.canary.0).flatten();
        methods.flat_map(|live| live.handles.iter())
    }

    /// The stage's metric series; none for an ephemeral one.
    pub fn series(&self) -> Option<Slot> {
        self.series.as_ref().map(SeriesHandle::slot)
    }

    /// A method's own metric series.
    pub fn method_series(&self, canary: bool, route: u32, method: u32) -> Option<Slot> {
        self.live(canary, route, method)?
            .series
            .as_ref()
            .map(SeriesHandle::slot)
    }

    /// Where its access log goes.
    pub fn log(&self) -> Option<LogTarget> {
        self.log.as_ref().map(LogHandle::target)
    }

    /// Which of an integration's responses answers a status of the backend: the first whose pattern matches the whole
    /// status, else the default (RES-112, RES-113).
    pub fn select(&self, canary: bool, route: u32, method: u32, status: u16) -> Option<usize> {
        let selection = self.live(canary, route, method)?.selection.as_ref()?;
        let chosen = *selection.0.get(usize::from(status).checked_sub(100)?)?;
        (chosen != u8::MAX).then_some(usize::from(chosen))
    }

    fn live(&self, canary: bool, route: u32, method: u32) -> Option<&Live> {
        let deployment = if canary && self.plan.canary.is_some() {
            &self.canary
        } else {
            &self.primary
        };
        deployment.0.get(route as usize)?.get(method as usize)
    }
}

/// `throttles` gets what is to be put in force when the whole stage is known to be good.
fn deployment(
    stage: &StagePlan,
    plan: &Plan,
    resolver: &mut Resolver<'_>,
    throttles: &mut Vec<(LimitHandle, Limit)>,
) -> Result<Deployment, ResolveError> {
    let mut routes = Vec::with_capacity(plan.routes().len());
    for route in plan.routes() {
        let methods = route
            .methods()
            .iter()
            .map(|method| live(stage, route.path(), method, resolver, throttles));
        routes.push(methods.collect::<Result<Box<[_]>, _>>()?);
    }
    Ok(Deployment(routes.into()))
}

fn live(
    stage: &StagePlan,
    path: &str,
    method: &Method,
    resolver: &mut Resolver<'_>,
    throttles: &mut Vec<(LimitHandle, Limit)>,
) -> Result<Live, ResolveError> {
    let (api, name) = (stage.api.as_str().to_owned(), stage.stage.as_str().to_owned());
    let mut handles = Vec::with_capacity(2);
    if let Some(throttle) = method.throttle {
        let id = LimitId::Method {
            api: api.clone(),
            stage: name.clone(),
            resource: path.to_owned(),
            method: method.key.as_str().to_owned(),
        };
        let limit = limit_of(throttle)?;
        let handle = resolver.limits.find(id, limit)?;
        throttles.push((handle.clone(), limit));
        handles.push(handle);
    }
    handles.extend(resolver.account.clone());
    let series = method.metrics_enabled.unwrap_or(stage.metrics_enabled).then(|| {
        resolver
            .telemetry
            .series()
            .method(&api, &stage.api_name, &name, path, method.key.as_str())
    });
    let selection = selection(method)?;
    Ok(Live {
        indexes: handles.iter().map(LimitHandle::index).collect(),
        handles: handles.into(),
        series,
        selection,
    })
}

fn selection(method: &Method) -> Result<Option<Selection>, ResolveError> {
    match &method.integration {
        Integration::Http(backend) => Selection::new(backend.responses()).map(Some),
        _ => Ok(None),
    }
}

fn limit_of(throttle: Throttle) -> Result<Limit, limit::InvalidLimit> {
    Limit::new(
        throttle.rate(),
        i64::try_from(throttle.burst()).unwrap_or(i64::MAX),
    )
}

impl Selection {
    fn new(responses: &[ResponseSelection]) -> Result<Self, ResolveError> {
        let mut table = Box::new([u8::MAX; 500]);
        // The first match wins: later ones are written first and written over.
        for (at, response) in responses.iter().enumerate().take(usize::from(u8::MAX)).rev() {
            let pattern = match &response.pattern {
                None => None,
                Some(pattern) => Some(
                    Regex::new(&format!("^(?:{pattern})$"))
                        .map_err(|error| ResolveError::Pattern(pattern.to_string(), error.to_string()))?,
                ),
            };
            for (offset, chosen) in table.iter_mut().enumerate() {
                let matches = |pattern: &Regex| pattern.is_match(&(offset + 100).to_string());
                if pattern.as_ref().is_none_or(matches) {
                    *chosen = at as u8;
                }
            }
        }
        Ok(Self(table))
    }
}

#[cfg(test)]
mod tests {
    use tidegate_plan::Status;

    use super::*;

    fn response(pattern: Option<&str>, status: u32) -> ResponseSelection {
        ResponseSelection {
            pattern: pattern.map(Into::into),
            status: Status::new(status).unwrap(),
            headers: Box::default(),
        }
    }

    /// OBV-243, OBV-245, RES-112.
    #[test]
    fn responses_are_selected_by_the_whole_status() {
        let selection = Selection::new(&[
            response(Some("4\\d{2}"), 400),
            response(Some("40"), 500),
            response(None, 200),
        ])
        .unwrap();
        let of = |status: usize| selection.0[status - 100];
        assert_eq!((of(404), of(499), of(200), of(503)), (0, 0, 2, 2));
        let strict = Selection::new(&[response(Some("2\\d{2}"), 200)]).unwrap();
        assert_eq!((strict.0[100], strict.0[400]), (0, u8::MAX));
        assert!(Selection::new(&[response(Some("("), 200)]).is_err());
    }
}
