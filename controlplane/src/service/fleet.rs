//! What the service asks of the nodes, through whoever is connected to them.

use std::time::Duration;

use async_trait::async_trait;
use tidegate_proto::{
    admin::v1::{Node, Rollout},
    config::v1::{Flush, Probe, ProbeResult},
};

use crate::model::{Refusal, Timestamp};

/// The nodes, as far as they are connected.
#[async_trait]
pub trait Fleet: Send + Sync + 'static {
    /// Waits until every connected node has acknowledged `revision`, or `limit` is over (C2).
    async fn wait(&self, revision: u64, limit: Duration) -> Rollout;

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

    /// Where nodes answer, HTTP and HTTPS, as they last told; empty where none says so.
    fn addresses(&self) -> (String, String);

    /// The certificate of the internal authority.
    fn authority_pem(&self) -> String;
}

/// No node at all: everything is rolled out at once, and there is nobody to ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFleet;

#[async_trait]
impl Fleet for NoFleet {
    async fn wait(&self, revision: u64, _limit: Duration) -> Rollout {
        Rollout {
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

    fn addresses(&self) -> (String, String) {
        (String::new(), String::new())
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
