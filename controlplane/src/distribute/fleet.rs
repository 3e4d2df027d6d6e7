//! What services ask of the nodes: roll-out, joins, commands.

use std::time::Duration;

use async_trait::async_trait;
use tidegate_proto::{
    admin::v1::{Node, Rollout},
    config::v1::{Flush, Probe, ProbeResult, control_message::Message},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Distributor, join,
    session::{Command, Reply},
};
use crate::{
    model::{Code, Refusal, Timestamp},
    service::Fleet,
};

/// How long a node may take for a probe: the longest integration, and some.
const PROBE: Duration = Duration::from_secs(35);
/// How long a node may take for a flush.
const FLUSH: Duration = Duration::from_secs(10);

#[async_trait]
impl Fleet for Distributor {
    async fn wait(&self, revision: u64, limit: Duration) -> Rollout {
        self.registry().rollout().wait(revision, limit).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, Refusal> {
        Ok(self.registry().list())
    }

    async fn create_join_token(
        &self,
        node_name: &str,
        valid: Duration,
    ) -> Result<(String, Timestamp), Refusal> {
        let shared = &self.shared;
        let token = join::create_token(&*shared.store, node_name, valid).await?;
        let file = join::join_file(&shared.options.control_address, &shared.authority, &token);
        Ok((file, token.expires))
    }

    async fn remove_node(&self, id: &str) -> Result<(), Refusal> {
        join::remove(&*self.shared.store, id).await?;
        self.registry().remove(id);
        Ok(())
    }

    async fn probe(&self, node: Option<&str>, probe: Probe) -> Result<ProbeResult, Refusal> {
        let (id, way) = self
            .registry()
            .commands(node)
            .into_iter()
            .next()
            .ok_or_else(|| unconnected(node))?;
        match command(&id, &way, Message::Probe(probe), PROBE).await? {
            Reply::Probe(result) if result.error.is_empty() => Ok(result),
            Reply::Probe(result) => Err(Refusal::new(
                Code::Unavailable,
                format!("Node {id} cannot run this: {}", result.error),
            )),
            Reply::Flush(_) => Err(confused(&id)),
        }
    }

    async fn flush(&self, flush: Flush) -> Result<(), Refusal> {
        let mut running = tokio::task::JoinSet::new();
        for (id, way) in self.registry().commands(None) {
            let message = Message::Flush(flush.clone());
            running.spawn(async move {
                match command(&id, &way, message, FLUSH).await? {
                    Reply::Flush(result) if result.error.is_empty() => Ok(()),
                    Reply::Flush(result) => Err(Refusal::new(
                        Code::Unavailable,
                        format!("Node {id} did not empty its cache: {}", result.error),
                    )),
                    Reply::Probe(_) => Err(confused(&id)),
                }
            });
        }
        let mut outcome = Ok(());
        while let Some(one) = running.join_next().await {
            outcome = outcome.and(one.unwrap_or_else(|error| Err(Refusal::internal(error))));
        }
        outcome
    }

    fn addresses(&self) -> (String, String) {
        let (http, https) = self.registry().addresses();
        (http.unwrap_or_default(), https.unwrap_or_default())
    }

    fn authority_pem(&self) -> String {
        self.authority().pem().to_owned()
    }
}

/// Sends a command and waits for its answer.
async fn command(
    id: &str,
    way: &mpsc::Sender<Command>,
    message: Message,
    patience: Duration,
) -> Result<Reply, Refusal> {
    let (reply, answer) = oneshot::channel();
    let exchange = async {
        way.send(Command { message, reply }).await.map_err(|_| ())?;
        answer.await.map_err(|_| ())
    };
    match timeout(patience, exchange).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(())) => Err(Refusal::new(
            Code::Unavailable,
            format!("Node {id} left before it answered. Try again"),
        )),
        Err(_) => Err(Refusal::new(
            Code::Unavailable,
            format!("Node {id} did not answer within {} seconds", patience.as_secs()),
        )),
    }
}

fn unconnected(node: Option<&str>) -> Refusal {
    let who = match node {
        Some(node) => format!("Node {node} is not connected"),
        None => "No node is connected".to_owned(),
    };
    Refusal::new(
        Code::Unavailable,
        format!("{who}. Start one with tidegate dataplane, or see tidegate nodes"),
    )
}

fn confused(id: &str) -> Refusal {
    Refusal::internal(format!("node {id} answered something else than it was asked"))
}
