//! What the service asks of the nodes, through whoever is connected to them.

use std::time::Duration;

use async_trait::async_trait;
use tidegate_proto::{
    admin::v1::Node,
    config::v1::{BundleOutcome, Flush, Probe, ProbeResult},
};

use crate::model::{Refusal, Timestamp};

/// The nodes, as far as they are connected.
#[async_trait]
pub trait Fleet: Send + Sync + 'static {
    /// Waits until every connected node has acknowledged `revision`, or `limit` is over (C2).
    async fn wait(&self, revision: u64, limit: Duration) -> RolloutState;

    /// The registered nodes.
    async fn nodes(&self) -> Result<Vec<Node>, Refusal>;

    /// A one-time token by which a node joins: the text of its join file, and until when it holds.
    async fn create_join_token(
        &self,
        node_name: &str,
        valid: Duration,
    ) -> Result<(String, Timestamp), Refusal>;

    /// Forgets a node: its certificate is not taken any more.
    async fn remove_node(&self, id: &str) -> Result<(), Refusal>;

    /// Runs a command on one node, or on any; a refusal says if none is connected (C3).
    async fn probe(&self, node: Option<&str>, probe: Probe) -> Result<ProbeResult, Refusal>;

    /// Empties caches on every connected node (C3).
    async fn flush(&self, flush: Flush) -> Result<(), Refusal>;

    /// The certificate of the internal authority.
    fn authority_pem(&self) -> String;
}

/// How far a revision has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolloutState {
    /// The revision.
    pub revision: u64,
    /// Every connected node runs it.
    pub complete: bool,
    /// The connected nodes.
    pub nodes: Vec<NodeState>,
}

/// How far one node has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeState {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The revision it runs.
    pub revision: u64,
    /// Bundles it refused, whose old content it keeps.
    pub refused: Vec<BundleOutcome>,
}

/// No node at all: everything is rolled out at once, and there is nobody to ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFleet;

#[async_trait]
impl Fleet for NoFleet {
    async fn wait(&self, revision: u64, _limit: Duration) -> RolloutState {
        RolloutState {
            revision,
            complete: true,
            nodes: Vec::new(),
        }
    }

    async fn nodes(&self) -> Result<Vec<Node>, Refusal> {
        Ok(Vec::new())
    }

    async fn create_join_token(
        &self,
        _node_name: &str,
        _valid: Duration,
    ) -> Result<(String, Timestamp), Refusal> {
        Err(unconnected())
    }

    async fn remove_node(&self, id: &str) -> Result<(), Refusal> {
        Err(Refusal::not_found(format!(
            "Invalid node identifier specified: {id}"
        )))
    }

    async fn probe(&self, _node: Option<&str>, _probe: Probe) -> Result<ProbeResult, Refusal> {
        Err(unconnected())
    }

    async fn flush(&self, _flush: Flush) -> Result<(), Refusal> {
        Ok(())
    }

    fn authority_pem(&self) -> String {
        String::new()
    }
}

fn unconnected() -> Refusal {
    Refusal::new(
        crate::model::Code::Unavailable,
        "No node is connected. Start one with tidegate dataplane, or see tidegate nodes",
    )
}
