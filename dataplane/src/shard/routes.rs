//! Which stage a request is for: by the default endpoint's host name, or by path.

use std::rc::Rc;
use std::sync::Arc;

use tidegate_plan::{Plan, TargetIndex};

use crate::config::{Settings, Stage};
use crate::net::upstream::{Upstream, Upstreams};

type Map<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

/// A shard's table of stages.
#[derive(Debug)]
pub struct Routes {
    apis: Map<Box<[u8]>, Rc<Api>>,
    settings: Arc<Settings>,
}

/// The stages of one API, few as a rule.
#[derive(Debug, Clone, Default)]
pub struct Api {
    stages: Vec<Rc<LocalStage>>,
}

/// One shard's side of a stage.
#[derive(Debug)]
pub struct LocalStage {
    /// What all shards share.
    pub shared: Arc<Stage>,
    /// Upstreams of the primary deployment, by target.
    primary: Box<[Rc<Upstream>]>,
    /// Upstreams of the canary.
    canary: Box<[Rc<Upstream>]>,
}

impl LocalStage {
    /// Finds or makes the stage's upstreams on this shard.
    pub fn new(shared: Arc<Stage>, upstreams: &Upstreams) -> Self {
        let of = |plan: &Plan| {
            plan.targets()
                .iter()
                .map(|target| upstreams.of(target))
                .collect::<Box<[_]>>()
        };
        let primary = of(&shared.plan.primary);
        let canary = shared
            .plan
            .canary
            .as_ref()
            .map(|canary| of(&canary.plan))
            .unwrap_or_default();
        Self {
            shared,
            primary,
            canary,
        }
    }

    /// The plan that a request runs.
    pub fn plan(&self, canary: bool) -> &Plan {
        match &self.shared.plan.canary {
            Some(chosen) if canary => &chosen.plan,
            _ => &self.shared.plan.primary,
        }
    }

    /// The upstream behind a target of a plan of this stage.
    pub fn upstream(&self, canary: bool, target: TargetIndex) -> Option<&Rc<Upstream>> {
        let upstreams = if canary { &self.canary } else { &self.primary };
        upstreams.get(target.0 as usize)
    }
}

impl Api {
    /// The stage of that name.
    pub fn stage(&self, name: &[u8]) -> Option<&Rc<LocalStage>> {
        self.stages
            .iter()
            .find(|stage| stage.shared.plan.stage.as_str().as_bytes() == name)
    }
}

impl Default for Routes {
    fn default() -> Self {
        let settings = Settings {
            domain_suffixes: vec!["localhost".into()],
            ..Settings::default()
        };
        Self {
            apis: Map::default(),
            settings: Arc::new(settings),
        }
    }
}

impl Routes {
    /// Takes a stage in, in place of the one of its name.
    pub fn put(&mut self, stage: LocalStage) {
        let plan = &stage.shared.plan;
        let key = plan.api.as_str().as_bytes();
        let mut api = self.apis.get(key).map(|api| Api::clone(api)).unwrap_or_default();
        api.stages.retain(|known| known.shared.plan.stage != plan.stage);
        let key: Box<[u8]> = key.into();
        api.stages.push(Rc::new(stage));
        self.apis.insert(key, Rc::new(api));
    }

    /// Forgets a stage.
    pub fn remove(&mut self, api: &str, stage: &str) {
        let Some(known) = self.apis.get(api.as_bytes()) else {
            return;
        };
        let mut left = Api::clone(known);
        left.stages
            .retain(|known| known.shared.plan.stage.as_str() != stage);
        if left.stages.is_empty() {
            self.apis.remove(api.as_bytes());
        } else {
            self.apis.insert(api.as_bytes().into(), Rc::new(left));
        }
    }

    /// Takes the installation's settings over.
    pub fn settings(&mut self, settings: &Arc<Settings>) {
        self.settings = Arc::clone(settings);
    }

    /// The API of that id.
    pub fn api(&self, id: &[u8]) -> Option<&Rc<Api>> {
        self.apis.get(id)
    }

    /// Whether `host` (without port) is a default endpoint, and which API it names (DEP-008). Host names have no case;
    /// the id is returned in the host's own spelling, lower case only where `lower` had to be filled.
    pub fn api_of_host<'h>(&self, host: &'h [u8], lower: &'h mut [u8; 63]) -> Option<&'h [u8]> {
        let (id, _) = split_host(host, &self.settings.domain_suffixes)?;
        if !id.iter().any(u8::is_ascii_uppercase) {
            return Some(id);
        }
        let lower = lower.get_mut(..id.len())?;
        lower.copy_from_slice(id);
        lower.make_ascii_lowercase();
        Some(lower)
    }

    /// Whether `/restapis/{api}/{stage}/_user_request_/…` is answered for this peer.
    pub fn by_path(&self, loopback: bool) -> bool {
        loopback || self.settings.invoke_by_path_everywhere
    }
}

/// Splits `{api}.execute-api[.{region}].{suffix}` into the API's id and the region, if there is one.
fn split_host<'h>(host: &'h [u8], suffixes: &[String]) -> Option<(&'h [u8], Option<&'h [u8]>)> {
    const SERVICE: &[u8] = b"execute-api.";
    let dot = host.iter().position(|b| *b == b'.')?;
    let (id, rest) = (&host[..dot], &host[dot + 1..]);
    let service = rest.get(..SERVICE.len())?;
    if id.is_empty() || !is_same(service, SERVICE) {
        return None;
    }
    let rest = &rest[SERVICE.len()..];
    for suffix in suffixes {
        let suffix = suffix.as_bytes();
        let Some(at) = rest.len().checked_sub(suffix.len()) else {
            continue;
        };
        if !is_same(&rest[at..], suffix) {
            continue;
        }
        if at == 0 {
            return Some((id, None));
        }
        // One label for the region, any that is configured for an API (decision C8).
        let region = rest[..at].strip_suffix(b".");
        if let Some(region) = region
            && !region.is_empty()
            && !region.contains(&b'.')
        {
            return Some((id, Some(region)));
        }
    }
    None
}

/// Whether two names are one, whatever their case. Nearly always they are spelt alike.
fn is_same(name: &[u8], other: &[u8]) -> bool {
    name == other || name.eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(host: &str) -> Option<String> {
        let suffixes = ["localhost".to_owned(), "gateway.example.com".to_owned()];
        split_host(host.as_bytes(), &suffixes).map(|(id, _)| String::from_utf8_lossy(id).into_owned())
    }

    /// DEP-008, RES-018.
    #[test]
    fn default_endpoints_are_known_by_their_host() {
        assert_eq!(id("abc.execute-api.localhost").as_deref(), Some("abc"));
        assert_eq!(id("abc.execute-api.us-east-1.localhost").as_deref(), Some("abc"));
        assert_eq!(
            id("Abc.Execute-API.US-east-1.Gateway.Example.COM").as_deref(),
            Some("Abc")
        );
        for other in [
            "localhost",
            "execute-api.localhost",
            ".execute-api.localhost",
            "abc.execute-api.localhost.evil",
            "abc.execute-api.a.b.localhost",
            "abc.execute-api.xlocalhost",
            "abc.execute-api..localhost",
            "abc.execute-api.",
            "",
        ] {
            assert_eq!(id(other), None, "{other}");
        }
    }
}
