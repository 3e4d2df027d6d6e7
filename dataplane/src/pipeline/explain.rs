//! What would become of a request, phase by phase, without running it: `tidegate explain`.
//!
//! It asks the functions that the phases ask, against what this shard serves now. Nothing is sent, counted, logged or
//! taken from a limit.

use tidegate_plan::custom::{Backend, Custom, Templates};
use tidegate_plan::integration::BackendMethod;
use tidegate_plan::path::{self, NormalPath};
use tidegate_plan::trie::Captures;
use tidegate_plan::{Checks, HttpBackend, Integration, Plan, ProxyProtocol, Verb};
use tidegate_proto::config::v1::{ExplainStep, Probe, ProbeResult};
use tidegate_rt as rt;

use super::exchange::below;
use super::failure::Failure;
use super::locate::stage_of;
use crate::config::ProbeCall;
use crate::http::{Framing, HeadLimits, RequestHead};
use crate::shard::{LocalStage, Shard};

/// Longest URL and headers that are taken, in bytes: far over the bounds of requests, so that those answer.
const INPUT_MAX: usize = 256 * 1024;

/// Answers a probe in the mode `explain`, against what this shard serves.
pub(super) fn explain(shard: &Shard, call: ProbeCall) {
    let ProbeCall { probe, reply, .. } = call;
    let mut steps = Steps(Vec::new());
    let (status, error) = match head(shard, &probe, &mut steps) {
        Ok(Ok(head)) => (phases(shard, &head, &mut steps), String::new()),
        Ok(Err(status)) => (status, String::new()),
        Err(error) => (0, error),
    };
    // The asker may have gone.
    let _ = reply.send(ProbeResult {
        id: probe.id.clone(),
        status: status.into(),
        steps: steps.0,
        error,
        ..ProbeResult::default()
    });
}

struct Steps(Vec<ExplainStep>);

impl Steps {
    fn push(&mut self, phase: &str, decision: impl Into<String>) {
        self.0.push(ExplainStep {
            phase: phase.to_owned(),
            decision: decision.into(),
        });
    }

    fn refuse(&mut self, phase: &str, failure: Failure) -> u16 {
        let Failure { status, message, .. } = failure;
        self.push(phase, format!("refused: {status} {message}"));
        status
    }
}

/// The request as it would come over the wire, read as one that did; or the status it is refused with. Fails where the
/// call itself makes no sense.
fn head(shard: &Shard, probe: &Probe, steps: &mut Steps) -> Result<Result<RequestHead, u16>, String> {
    let (_, rest) = probe
        .url
        .split_once("://")
        .ok_or("the URL must be absolute, like http://127.0.0.1:8080/prod/pets")?;
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let target = target.split('#').next().unwrap_or_default();
    let slash = if target.starts_with('/') { "" } else { "/" };
    let given = |name: &str| {
        probe
            .headers
            .iter()
            .any(|header| header.name.eq_ignore_ascii_case(name))
    };
    let mut text = format!("{} {slash}{target} HTTP/1.1\r\n", probe.method);
    if !given("host") {
        text.push_str(&format!("Host: {authority}\r\n"));
    }
    for header in &probe.headers {
        text.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    text.push_str("\r\n");
    if text.len() > INPUT_MAX {
        return Err(format!("URL and headers are over {INPUT_MAX} bytes"));
    }
    let limits = HeadLimits::for_requests(&shard.limits);
    Ok(
        RequestHead::parse(rt::Chunk::from(text.into_bytes()), &limits).map_err(|error| {
            let status = steps.refuse("read", error.into());
            steps.push("read", error.to_string());
            status
        }),
    )
}

fn phases(shard: &Shard, head: &RequestHead, steps: &mut Steps) -> u16 {
    match head.framing() {
        Framing::Length(length) if length > shard.bounds.payload => {
            return steps.refuse("frame", Failure::TOO_LARGE);
        }
        _ => steps.push("frame", "accepted"),
    }
    let query_ok = head.query().is_none_or(|query| path::check_query(query).is_ok());
    let path = match path::normalize(head.path()) {
        Ok(path) if query_ok => path,
        _ => return steps.refuse("locate", Failure::BAD_PATH),
    };
    let routes = shard.routes.borrow();
    // Whoever asks may manage the installation, so he is answered as a client on this machine is.
    let (stage, skip) = match stage_of(&routes, head.host(), path.view(), true) {
        Ok(found) => found,
        Err(failure) => return steps.refuse("locate", failure),
    };
    steps.push("locate", located(stage));
    match routed(stage, &path, skip, head.verb(), steps) {
        Some(status) => status,
        None => steps.refuse("route", Failure::MISSING_AUTHENTICATION_TOKEN),
    }
}

fn located(stage: &LocalStage) -> String {
    let plan = &stage.shared.plan;
    let canary = match &plan.canary {
        Some(canary) => format!(
            "; {} % of requests run the canary, deployment {}",
            canary.percent(),
            canary.plan.deployment()
        ),
        None => String::new(),
    };
    let deployment = plan.primary.deployment();
    format!(
        "API {}, stage {}, deployment {deployment}{canary}",
        plan.api, plan.stage
    )
}

/// From the resource on; `None` where there is none.
fn routed(
    stage: &LocalStage,
    path: &NormalPath<'_>,
    skip: u8,
    verb: Option<Verb>,
    steps: &mut Steps,
) -> Option<u16> {
    let plan: &Plan = &stage.shared.plan.primary;
    let resource_path = below(path.view(), skip)?;
    let mut captures = Captures::new();
    let (index, route) = plan.find(resource_path, &mut captures)?;
    let values: String = route
        .parameters()
        .iter()
        .enumerate()
        .filter_map(|(at, name)| Some(format!(", {name} = {}", captures.value(at, resource_path)?)))
        .collect();
    let (at, method) = route.method(verb?)?;
    let key = method.key.as_str();
    steps.push("route", format!("{key} {}{values}", route.path()));
    let limits = u32::try_from(at).map_or(0, |at| stage.shared.limits(false, index.0, at).len());
    steps.push(
        "throttle",
        match limits {
            0 => "no limit".to_owned(),
            count => format!("{count} limit(s) must each have a token"),
        },
    );
    if let Some(checks) = method.checks.as_deref() {
        steps.push("validate", checked(checks));
    }
    let (what, status) = match &method.integration {
        Integration::HttpProxy(backend) => (format!("HTTP_PROXY: {}", call(plan, backend)), 0),
        Integration::Http(backend) => (format!("HTTP: {}", call(plan, backend)), 0),
        Integration::Custom(custom) => (customized(plan, custom), 0),
        Integration::Mock(mock) => (
            format!("MOCK: answers {}", mock.status.code()),
            mock.status.code(),
        ),
        Integration::LambdaProxy(lambda) => (format!("AWS_PROXY: calls {}", lambda.function), 0),
        Integration::Broken(reason) => (format!("cannot work: {reason}"), Failure::CONFIGURATION.status),
    };
    steps.push("integration", what);
    Some(status)
}

fn customized(plan: &Plan, custom: &Custom) -> String {
    let called = match &custom.backend {
        Backend::Mock => "MOCK".to_owned(),
        Backend::Http(backend) => format!("HTTP: {}", call(plan, backend)),
    };
    let types = |templates: &Templates| {
        templates
            .iter()
            .map(|(name, _)| name.to_owned())
            .collect::<Vec<_>>()
    };
    let request = match types(&custom.templates).as_slice() {
        [] => String::new(),
        types => format!("; request templates for {}", types.join(", ")),
    };
    let responses = custom.responses.len();
    format!("{called}{request}; {responses} integration response(s)")
}

fn checked(checks: &Checks) -> String {
    let names: Vec<_> = checks.required().iter().map(|one| &*one.name).collect();
    let parameters = match names.as_slice() {
        [] => String::new(),
        names => format!("needs {}", names.join(", ")),
    };
    let separator = if parameters.is_empty() { "" } else { "; " };
    match checks.any_model() {
        true => format!("{parameters}{separator}checks the body against its model"),
        false => parameters,
    }
}

fn call(plan: &Plan, backend: &HttpBackend) -> String {
    let target = plan.target(backend.target());
    let method = match backend.method() {
        BackendMethod::Same => "the client's method",
        BackendMethod::Fixed(verb) => verb.as_str(),
    };
    let (scheme, authority) = (target.scheme().as_str(), target.authority());
    let timeout = backend.timeout().as_millis();
    let named = match target.proxy_protocol() {
        Some(ProxyProtocol::V1) => "; the PROXY protocol, version 1, names the client",
        Some(ProxyProtocol::V2) => "; the PROXY protocol, version 2, names the client",
        None => "",
    };
    let pass = match backend.pass_through() {
        Some(pass) => format!("; passes through: {pass}"),
        None => String::new(),
    };
    format!("{method} to {scheme}://{authority}, within {timeout} ms{named}{pass}")
}
