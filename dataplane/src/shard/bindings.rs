//! One shard's side of the bindings: the table that all shards share, and the connections that it leads to.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_plan::Target;
use tidegate_plan::binding::Endpoint;

use crate::config::Bindings;
use crate::net::upstream::{Upstream, Upstreams};

/// Where cloud names lead, on one shard.
#[derive(Debug, Default)]
pub struct LocalBindings {
    /// What all shards share.
    pub shared: Arc<Bindings>,
    upstreams: HashMap<Target, Rc<Upstream>, ahash::RandomState>,
}

impl LocalBindings {
    /// Finds or makes the upstreams behind the endpoints on this shard.
    pub fn new(shared: Arc<Bindings>, upstreams: &Upstreams) -> Self {
        let upstreams = shared
            .endpoints()
            .map(|endpoint| (endpoint.target.clone(), upstreams.of(&endpoint.target)))
            .collect();
        Self { shared, upstreams }
    }

    /// The upstream behind an endpoint of a binding.
    pub fn upstream(&self, endpoint: &Endpoint) -> Option<Rc<Upstream>> {
        self.upstreams.get(&endpoint.target).map(Rc::clone)
    }
}
