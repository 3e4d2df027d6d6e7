//! Brings bundles to the nodes and knows how far each has come.
//!
//! A node opens one stream over mutual TLS and says which revision it holds; the control plane answers with what
//! changed since, and goes on from there. What is to be sent is always computed from the revision that a node
//! acknowledged, never queued for it: a slow node costs no memory and gets the changes it missed as one.
//!
//! | File | Holds |
//! | --- | --- |
//! | `ca` | the internal certificate authority |
//! | `join` | one-time tokens, certificates of nodes |
//! | `listen`, `server` | the configuration address |
//! | `session`, `feed`, `bundles` | one node's stream, one delta, what deltas are made of |
//! | `tickets` | the keys of TLS session tickets |
//! | `registry`, `remember` | the nodes and the roll-out; what of it outlives the process |
//! | `fleet` | what services ask of the nodes |

mod bundles;
mod ca;
mod certificate;
mod feed;
mod fleet;
mod join;
mod listen;
mod registry;
mod remember;
mod server;
mod session;
mod source;
mod tickets;

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};

use bundles::Bundles;
use tickets::Tickets;

use crate::{model::Refusal, store::Store};

pub use ca::{Authority, CONTROL_NAME, KeyedCertificate, NODE_LIFETIME, NodeCertificate};
pub use join::{DEFAULT_VALIDITY, LONGEST_VALIDITY};
pub use registry::{
    AWAY_TOLD, Connection, LONGEST_WAIT, NodeRecord, REFUSALS_KEPT, Registry, Rollout, Standing,
};
pub use source::{BundleKey, Changed, Compiled, Source};
pub use tickets::TICKET_KEY_ROTATION;

/// The bundle formats that are compiled, newest first.
pub const FORMATS: [u32; 1] = [1];

/// The distribution of configuration. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Distributor {
    shared: Arc<Shared>,
}

/// What the distribution has to know.
#[derive(Clone, Debug)]
pub struct DistributorOptions {
    /// The configuration address as nodes reach it, `10.0.0.5:7443`: stands in join files.
    pub control_address: String,
    /// Names and addresses for the configuration address's certificate, besides loopback. Nodes do not need them: they
    /// look for [`CONTROL_NAME`].
    pub server_names: Vec<String>,
    /// How long nodes' certificates live.
    pub node_lifetime: Duration,
    /// Suffixes of invoke hosts, for the default HTTPS certificate.
    pub domain_suffixes: Vec<String>,
    /// The region in invoke hosts.
    pub region: String,
    /// How long nodes seal TLS session tickets with one key (D18).
    pub ticket_key_rotation: Duration,
}

struct Shared {
    store: Arc<dyn Store>,
    bundles: Arc<Bundles>,
    authority: Arc<Authority>,
    registry: Registry,
    tickets: Tickets,
    options: DistributorOptions,
    /// Ends every stream.
    stopping: watch::Sender<bool>,
}

// === impl DistributorOptions ===

impl Default for DistributorOptions {
    fn default() -> Self {
        Self {
            control_address: "127.0.0.1:7443".to_owned(),
            server_names: Vec::new(),
            node_lifetime: NODE_LIFETIME,
            domain_suffixes: vec!["localhost".to_owned()],
            region: "us-east-1".to_owned(),
            ticket_key_rotation: TICKET_KEY_ROTATION,
        }
    }
}

// === impl Distributor ===

impl Distributor {
    /// Makes ready: the authority and the default certificate are there afterwards, and the nodes known.
    pub async fn open(
        store: Arc<dyn Store>,
        source: Arc<dyn Source>,
        options: DistributorOptions,
    ) -> Result<Self, Refusal> {
        let authority = Arc::new(Authority::open(&*store).await?);
        let registry = Registry::new(join::nodes(&*store).await?);
        let tickets = Tickets::open(&*store, options.ticket_key_rotation).await?;
        let bundles = Arc::new(Bundles::new(store.clone(), source));
        let distributor = Self {
            shared: Arc::new(Shared {
                store,
                bundles,
                authority,
                registry,
                tickets,
                options,
                stopping: watch::channel(false).0,
            }),
        };
        distributor.keep_certificate_current().await?;
        Ok(distributor)
    }

    /// Serves the configuration address until `stop` resolves.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), Refusal> {
        server::serve(self.clone(), listener, stop).await
    }

    /// The nodes.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// The internal authority.
    pub fn authority(&self) -> &Authority {
        &self.shared.authority
    }

    /// Turns the session ticket keys over now instead of when it is due: the next key seals from this moment on.
    pub async fn turn_ticket_keys(&self) -> Result<(), Refusal> {
        self.shared.tickets.step(&*self.shared.store, true).await
    }

    async fn keep_certificate_current(&self) -> Result<(), Refusal> {
        let shared = &self.shared;
        let options = &shared.options;
        certificate::keep_current(
            &*shared.store,
            &shared.authority,
            &options.domain_suffixes,
            &options.region,
        )
        .await
    }
}
