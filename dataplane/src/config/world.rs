//! What the node serves, and how it changes: check, build, append, hand over, confirm (decision C2).

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use prost::Message;
use tidegate_proto::config::v1::{Ack, Bundle, BundleKind, BundleOutcome, Delta, TicketKeys};

use super::{
    Apply, BUNDLE_MAX, Binding, Bindings, BundleKey, Certificate, Change, ConfigMessage, Held, LastKnownGood,
    LkgError, Resolver, SendError, Settings, ShardSink, Stage, Step, confirmation, content, orders::Frozen,
    tickets,
};
use crate::{
    function::Functions,
    limit::{self, Limit, LimitId},
    net::tls::Tickets,
    telemetry::Telemetry,
};

/// The bundle formats that this node reads, newest first.
pub const FORMATS: [u32; 1] = [1];

/// Changes handed over at once when the node starts.
const BATCH: usize = 256;
/// Refusals that are told at once; the control plane keeps no more for a node.
const REFUSALS_TOLD: usize = 256;
/// How often unused limits and series are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// How long to wait before a full mailbox is tried again.
const MAILBOX_FULL: Duration = Duration::from_millis(5);
/// How long to wait before the disk is asked for again.
const REOPEN: Duration = Duration::from_millis(50);
/// Names in an error message are cut here.
const SHOWN: usize = 200;

/// What content refers to on this node.
pub struct Surroundings {
    /// The way to the shards.
    pub shards: Arc<dyn ShardSink>,
    /// Series, logs, the node's own state.
    pub telemetry: Arc<Telemetry>,
    /// The node's limits.
    pub limits: limit::Registry,
    /// The time by which the shards count limits.
    pub limit_time: Box<dyn Fn() -> limit::Nanos + Send>,
    /// The keys of session tickets, where the node answers HTTPS.
    pub tickets: Option<Arc<Tickets>>,
    /// Where workers of functions ask for invocations.
    pub functions: Option<Functions>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The configuration in force.
#[derive(Debug)]
pub(super) struct World {
    around: Surroundings,
    lkg: LastKnownGood,
    settings: Arc<Settings>,
    current: HashMap<BundleKey, Live>,
    /// Replaced content that shards may still use: dropped here, when no one else holds it.
    retired: Vec<Live>,
    receiving: Option<Receiving>,
    swept: Instant,
}

/// Why the configuration cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorldError {
    /// The disk; tried again with the next stream.
    #[error("cannot keep the configuration: {0}")]
    Disk(#[from] LkgError),
    /// A shard ended.
    #[error("a shard has ended")]
    ShardGone,
    /// The control plane broke the protocol.
    #[error("the control plane broke the protocol: {0}")]
    Protocol(&'static str),
}

/// Content as the shards run it.
#[derive(Clone, Debug)]
enum Live {
    Stage(Arc<Stage>),
    Certificate(Arc<Certificate>),
    Settings(Arc<Settings>),
    Binding(Arc<Binding>),
}

/// A delta of which chunks have come.
#[derive(Debug)]
struct Receiving {
    to: u64,
    full: bool,
    /// What a full delta has named: the rest goes at its end.
    named: HashSet<BundleKey>,
    part: Option<Part>,
}

/// A bundle that comes in parts.
#[derive(Debug)]
struct Part {
    envelope: Bundle,
    content: BytesMut,
    size: usize,
}

/// What a chunk amounts to.
#[derive(Debug, Default)]
struct Work {
    steps: Vec<Step>,
    /// New content by key; `None`: gone.
    changes: Vec<(BundleKey, Option<Live>)>,
}

// === impl World ===

impl World {
    pub(super) fn new(around: Surroundings, lkg: LastKnownGood) -> Self {
        Self {
            around,
            lkg,
            settings: Arc::default(),
            current: HashMap::new(),
            retired: Vec::new(),
            receiving: None,
            swept: Instant::now(),
        }
    }

    /// The last known good.
    pub(super) fn lkg(&self) -> &LastKnownGood {
        &self.lkg
    }

    /// The shards.
    pub(super) fn shards(&self) -> &Arc<dyn ShardSink> {
        &self.around.shards
    }

    /// The node's telemetry.
    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.around.telemetry
    }

    /// Takes the installation's ticket keys, in place of those it had.
    pub(super) fn take_ticket_keys(&self, message: TicketKeys) {
        let keys = tickets::received(message);
        // Sent without being asked for.
        let Some(held) = &self.around.tickets else { return };
        tracing::info!(keys = keys.len(), "the session ticket keys have changed");
        held.install(keys);
        self.keep_ticket_keys(held);
    }

    fn keep_ticket_keys(&self, held: &Tickets) {
        if self.lkg.is_released() {
            return;
        }
        let path = self.lkg.directory().join(tickets::NAME);
        let mut keys = held.save();
        keys.retain(|key| key.shared);
        if let Err(error) = tickets::keep(&path, self.lkg.sealer(), keys) {
            tracing::warn!(%error, "the session ticket keys are not on disk as they should be");
        }
    }

    /// Hands everything on disk to the shards. What cannot be built (any more) is left out and asked for again.
    pub(super) async fn load(&mut self) -> Result<(), WorldError> {
        // What came from another process is newer.
        if let Some(held) = self.around.tickets.as_ref().filter(|held| !held.has_shared()) {
            let path = self.lkg.directory().join(tickets::NAME);
            held.install(tickets::load(&path, self.lkg.sealer()));
            self.keep_ticket_keys(held);
        }
        let mut keys: Vec<_> = self.lkg.keys().cloned().collect();
        // Settings first: stages are built under them.
        keys.sort_by_key(|key| (key.kind != i32::from(BundleKind::Settings), key.clone()));
        for batch in keys.chunks(BATCH) {
            let mut work = Work::default();
            for key in batch {
                let outcome = match self.lkg.read(key) {
                    Ok(Some(bundle)) => self.build(&bundle).map_err(|refusal| (bundle.revision, refusal)),
                    Ok(None) => continue,
                    Err(error) => {
                        let revision = self.lkg.held(key).map_or(0, |held| held.revision);
                        Err((revision, error.to_string()))
                    }
                };
                match outcome {
                    Ok(live) => {
                        if let Live::Settings(settings) = &live {
                            self.settings = settings.clone();
                        }
                        work.changes.push((key.clone(), Some(live)));
                    }
                    Err((revision, refusal)) => {
                        tracing::error!(
                            bundle = key.id,
                            refusal,
                            "a bundle on disk cannot be used and is asked for again"
                        );
                        let outcome = BundleOutcome {
                            id: key.id.clone(),
                            kind: key.kind,
                            revision,
                            refusal,
                        };
                        work.steps.push(Step::Refuse(outcome));
                    }
                }
            }
            self.carry_out(work).await?;
        }
        self.around.telemetry.node().set_revision(self.lkg.revision());
        Ok(())
    }

    /// Lets another process have the disk (D17). What is told to it is the revision that it must find there.
    pub(super) fn release(&mut self) -> Frozen {
        self.lkg.release();
        Frozen {
            installation: self.lkg.installation().to_owned(),
            revision: self.lkg.revision(),
        }
    }

    /// Takes the disk back: the other process is gone. What it noted there holds.
    pub(super) async fn reopen(&mut self) {
        let mut said = false;
        while self.lkg.is_released() {
            if let Err(error) = self.lkg.reopen() {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "cannot take the last known good configuration back yet; trying again");
                }
                tokio::time::sleep(REOPEN).await;
            }
        }
    }

    /// The levels of the node's limits, at most so many.
    pub(super) fn levels(&self, most: usize) -> Vec<limit::Level> {
        self.around.limits.levels((self.around.limit_time)(), most)
    }

    /// Puts the node's limits to levels that they had in another process.
    pub(super) fn restore(&mut self, levels: Vec<limit::Level>) {
        let now = (self.around.limit_time)();
        self.around.limits.restore(levels, now);
    }

    /// A stream begins: what an earlier one left half-way is forgotten.
    pub(super) fn begin_stream(&mut self) {
        self.receiving = None;
    }

    /// What is told about refusals: standing ones, a bounded number.
    pub(super) fn refused(&self) -> Vec<BundleOutcome> {
        self.lkg.refused().take(REFUSALS_TOLD).cloned().collect()
    }

    /// Takes a chunk; the last of a delta is answered with an acknowledgement.
    pub(super) async fn take(&mut self, delta: Delta) -> Result<Option<Ack>, WorldError> {
        let mut receiving = match self.receiving.take() {
            Some(receiving) if receiving.to == delta.to_revision && receiving.full == delta.full => receiving,
            Some(_) => return Err(WorldError::Protocol("a delta within another")),
            None => Receiving {
                to: delta.to_revision,
                full: delta.full,
                named: HashSet::new(),
                part: None,
            },
        };
        if !delta.full && delta.installation_id != self.lkg.installation() {
            return Err(WorldError::Protocol(
                "a delta on top of another installation's configuration",
            ));
        }
        let mut work = Work::default();
        for bundle in delta.bundles {
            if receiving.full {
                receiving.named.insert(key_of(&bundle));
            }
            if let Some(whole) = receiving.assemble(bundle)? {
                self.consider(whole, &mut work);
            }
        }
        for removal in delta.removals {
            let key = BundleKey {
                kind: removal.kind,
                id: removal.id.clone(),
            };
            work.changes.push((key, None));
            work.steps.push(Step::Remove(removal));
        }
        if delta.last {
            if receiving.part.is_some() {
                return Err(WorldError::Protocol("the delta ends within a bundle"));
            }
            if receiving.full {
                self.remove_unnamed(&receiving, &mut work);
            }
            work.steps.push(Step::Commit {
                installation: delta.installation_id,
                revision: delta.to_revision,
            });
        }
        self.carry_out(work).await?;
        if !delta.last {
            self.receiving = Some(receiving);
            return Ok(None);
        }
        if receiving.full {
            self.lkg.healed();
        }
        self.around.telemetry.node().set_revision(delta.to_revision);
        Ok(Some(Ack {
            revision: delta.to_revision,
            outcomes: self.refused(),
        }))
    }

    /// Drops what no shard uses any more, forgets limits and series that nobody names, tidies the disk. Called now and
    /// then.
    pub(super) async fn tidy(&mut self) -> Result<(), WorldError> {
        self.retired.retain(Live::is_in_use);
        if let Some(held) = self.around.tickets.as_ref().filter(|held| held.forget()) {
            self.keep_ticket_keys(held);
        }
        if self.swept.elapsed() >= SWEEP {
            self.swept = Instant::now();
            self.around.telemetry.series().sweep(Instant::now());
            let gone = self.around.limits.sweep((self.around.limit_time)());
            if !gone.is_empty() {
                self.hand_over(vec![Change::LimitsForgotten(gone.into())]).await?;
            }
        }
        if let Err(error) = self.lkg.compact() {
            tracing::error!(%error, "cannot write the last known good configuration anew");
        }
        Ok(())
    }

    /// Checks and builds a bundle; what cannot be used is refused, by itself.
    fn consider(&mut self, bundle: Bundle, work: &mut Work) {
        let key = key_of(&bundle);
        let same = Held {
            revision: bundle.revision,
            sha256: bundle.sha256.clone(),
        };
        let known_refusal = self
            .lkg
            .refused()
            .any(|outcome| outcome.id == key.id && outcome.kind == key.kind);
        if self.lkg.held(&key) == Some(&same) && self.current.contains_key(&key) && !known_refusal {
            // Sent again, as after a reconnect half-way: nothing to disturb the shards with.
            return;
        }
        let built = check(&bundle).and_then(|()| self.build(&bundle));
        match built {
            Ok(live) => {
                if let Live::Settings(settings) = &live {
                    self.settings = settings.clone();
                }
                work.steps.push(Step::Put(bundle));
                work.changes.push((key, Some(live)));
            }
            Err(refusal) => {
                tracing::warn!(
                    bundle = key.id,
                    revision = bundle.revision,
                    refusal,
                    "a bundle is refused; its old content stays"
                );
                let (id, kind) = (key.id, key.kind);
                work.steps.push(Step::Refuse(BundleOutcome {
                    id,
                    kind,
                    revision: bundle.revision,
                    refusal,
                }));
            }
        }
    }

    /// Builds the stage of a test invocation. It refers to no limit, series or log of this node (OBS-002), and is not
    /// handed to the shards as content: nothing routes to it.
    pub(super) fn build_ephemeral(&mut self, bundle: &Bundle) -> Result<Arc<Stage>, String> {
        check(bundle)?;
        if bundle.kind() != BundleKind::Stage {
            return Err("a test runs on a stage".to_owned());
        }
        let message = tidegate_proto::config::v1::StageBundle::decode(&*bundle.content)
            .map_err(|error| format!("the bundle cannot be decoded: {error}"))?;
        let plan = content::stage(message).map_err(|error| error.to_string())?;
        let stage = Arc::new(Stage::ephemeral(Arc::new(plan)).map_err(|error| error.to_string())?);
        // Dropped here, however large, when the shard has done with it.
        self.retired.push(Live::Stage(stage.clone()));
        Ok(stage)
    }

    fn build(&mut self, bundle: &Bundle) -> Result<Live, String> {
        let undecodable = |error: prost::DecodeError| format!("cannot be decoded: {error}");
        let misnamed = |holds: String| content::ContentError::Misnamed(bundle.id.clone(), holds).to_string();
        match bundle.kind() {
            BundleKind::Stage => {
                let message =
                    tidegate_proto::config::v1::StageBundle::decode(&*bundle.content).map_err(undecodable)?;
                let plan = content::stage(message).map_err(|error| error.to_string())?;
                let name = format!("{}/{}", plan.api.as_str(), plan.stage.as_str());
                if name != bundle.id {
                    return Err(misnamed(name));
                }
                let stage = self.resolve(Arc::new(plan), bundle.revision)?;
                Ok(Live::Stage(Arc::new(stage)))
            }
            BundleKind::Certificate => {
                let message = tidegate_proto::config::v1::CertificateBundle::decode(&*bundle.content)
                    .map_err(undecodable)?;
                let certificate = content::certificate(message).map_err(|error| error.to_string())?;
                if *certificate.id != *bundle.id {
                    return Err(misnamed(certificate.id.to_string()));
                }
                Ok(Live::Certificate(Arc::new(certificate)))
            }
            BundleKind::Settings => {
                let message = tidegate_proto::config::v1::SettingsBundle::decode(&*bundle.content)
                    .map_err(undecodable)?;
                let settings = content::settings(message).map_err(|error| error.to_string())?;
                Ok(Live::Settings(Arc::new(settings)))
            }
            BundleKind::Binding => {
                let message = tidegate_proto::config::v1::BindingBundle::decode(&*bundle.content)
                    .map_err(undecodable)?;
                if message.id != bundle.id {
                    return Err(misnamed(message.id));
                }
                let binding = Binding::read(message).map_err(|error| error.to_string())?;
                Ok(Live::Binding(Arc::new(binding)))
            }
            _ => Err(format!(
                "bundles of kind {} are not known to this version of the node: upgrade it",
                bundle.kind
            )),
        }
    }

    /// Finds what a plan refers to on this node.
    fn resolve(&mut self, plan: Arc<tidegate_plan::StagePlan>, revision: u64) -> Result<Stage, String> {
        let now = (self.around.limit_time)();
        let account = match self.settings.account_throttle {
            None => None,
            Some((rate, burst)) => {
                let burst = i64::try_from(burst).unwrap_or(i64::MAX);
                let limit = Limit::new(rate, burst).map_err(|error| error.to_string())?;
                let id = LimitId::Account {
                    account: plan.account.as_str().to_owned(),
                    region: plan.region.as_str().to_owned(),
                };
                Some(
                    self.around
                        .limits
                        .resolve(id, limit, now)
                        .map_err(|error| error.to_string())?,
                )
            }
        };
        let telemetry = &self.around.telemetry;
        let mut resolver = Resolver {
            limits: &mut self.around.limits,
            telemetry,
            account,
            now,
        };
        Stage::resolve(plan, revision, &mut resolver).map_err(|error| error.to_string())
    }

    fn remove_unnamed(&self, receiving: &Receiving, work: &mut Work) {
        let refused = self.lkg.refused().map(|outcome| BundleKey {
            kind: outcome.kind,
            id: outcome.id.clone(),
        });
        let known: HashSet<BundleKey> = self.lkg.keys().cloned().chain(refused).collect();
        for key in known {
            if !receiving.named.contains(&key) {
                work.steps.push(Step::Remove(tidegate_proto::config::v1::Removal {
                    id: key.id.clone(),
                    kind: key.kind,
                    revision: receiving.to,
                }));
                work.changes.push((key, None));
            }
        }
    }

    /// Disk, then shards, then the books.
    async fn carry_out(&mut self, work: Work) -> Result<(), WorldError> {
        if !work.steps.is_empty() {
            self.lkg.append(&work.steps)?;
        }
        let mut changes = Vec::with_capacity(work.changes.len());
        let mut account_before = None;
        let mut rebound = false;
        for (key, live) in work.changes {
            rebound |= key.kind == i32::from(BundleKind::Binding);
            if let Some(Live::Settings(_)) = &live {
                account_before = Some(match self.current.get(&key) {
                    Some(Live::Settings(old)) => old.account_throttle,
                    _ => None,
                });
            }
            changes.extend(match &live {
                Some(live) => live.change(),
                None => self.removal(&key),
            });
            let replaced = match live {
                Some(live) => self.current.insert(key, live),
                None => self.current.remove(&key),
            };
            self.retired.extend(replaced);
        }
        if account_before.is_some_and(|before| before != self.settings.account_throttle) {
            self.resolve_all(&mut changes);
        }
        if rebound {
            let bindings = Arc::new(Bindings::new(self.current.values().filter_map(Live::binding)));
            // First, so that workers have somewhere to ask when the first request comes.
            if let Some(functions) = &self.around.functions {
                functions.listen(&bindings).await;
            }
            changes.push(Change::Bindings(bindings));
        }
        self.hand_over(changes).await
    }

    /// The account's limit came, went or changed, and every stage is under it.
    fn resolve_all(&mut self, changes: &mut Vec<Change>) {
        let stages: Vec<_> = self
            .current
            .iter()
            .filter_map(|(key, live)| match live {
                Live::Stage(stage) => Some((key.clone(), stage.plan.clone(), stage.revision)),
                _ => None,
            })
            .collect();
        for (key, plan, revision) in stages {
            match self.resolve(plan, revision) {
                Ok(stage) => {
                    let live = Live::Stage(Arc::new(stage));
                    changes.extend(live.change());
                    self.retired.extend(self.current.insert(key, live));
                }
                Err(refusal) => {
                    tracing::error!(stage = key.id, refusal, "the account's limit cannot be applied")
                }
            }
        }
    }

    fn removal(&self, key: &BundleKey) -> Option<Change> {
        match self.current.get(key)? {
            Live::Stage(stage) => Some(Change::StageRemoved {
                api_id: stage.plan.api.shared(),
                name: stage.plan.stage.shared(),
            }),
            Live::Certificate(certificate) => Some(Change::CertificateRemoved {
                id: certificate.id.clone(),
            }),
            Live::Settings(_) => Some(Change::Settings(Arc::default())),
            Live::Binding(_) => None,
        }
    }

    /// Gives changes to every shard and waits until each runs them.
    async fn hand_over(&self, changes: Vec<Change>) -> Result<(), WorldError> {
        if changes.is_empty() {
            return Ok(());
        }
        let changes: Arc<[Change]> = changes.into();
        let shards = &self.around.shards;
        let (shares, done) = confirmation(shards.shards());
        for (shard, confirmation) in shares.into_iter().enumerate() {
            let mut message = ConfigMessage::Apply(Apply {
                changes: changes.clone(),
                confirmation,
            });
            loop {
                match shards.send(shard, message) {
                    Ok(()) => break,
                    Err(SendError::Gone) => return Err(WorldError::ShardGone),
                    Err(SendError::Full(back)) => message = back,
                }
                tokio::time::sleep(MAILBOX_FULL).await;
            }
        }
        done.await.map_err(|_| WorldError::ShardGone)
    }
}

// === impl Live ===

impl Live {
    /// What the shards are told; bindings are told all at once.
    fn change(&self) -> Option<Change> {
        match self {
            Self::Stage(stage) => Some(Change::Stage(stage.clone())),
            Self::Certificate(certificate) => Some(Change::Certificate(certificate.clone())),
            Self::Settings(settings) => Some(Change::Settings(settings.clone())),
            Self::Binding(_) => None,
        }
    }

    fn binding(&self) -> Option<&Binding> {
        match self {
            Self::Binding(binding) => Some(binding),
            _ => None,
        }
    }

    fn is_in_use(&self) -> bool {
        let holders = match self {
            Self::Stage(stage) => Arc::strong_count(stage),
            Self::Certificate(certificate) => Arc::strong_count(certificate),
            Self::Settings(settings) => Arc::strong_count(settings),
            // The shards have its content by other names.
            Self::Binding(_) => 0,
        };
        holders > 1
    }
}

// === impl Receiving ===

impl Receiving {
    /// Puts parts together; a bundle that came whole is given back as it is.
    fn assemble(&mut self, mut bundle: Bundle) -> Result<Option<Bundle>, WorldError> {
        if bundle.size == 0 {
            return match self.part {
                None => Ok(Some(bundle)),
                Some(_) => Err(WorldError::Protocol("a bundle within another")),
            };
        }
        let size = usize::try_from(bundle.size).unwrap_or(usize::MAX);
        if size > BUNDLE_MAX {
            return Err(WorldError::Protocol("a bundle larger than any may be"));
        }
        let content = std::mem::replace(&mut bundle.content, Bytes::new());
        let part = match &mut self.part {
            Some(part) => part,
            None => self.part.insert(Part {
                content: BytesMut::new(),
                size,
                envelope: bundle.clone(),
            }),
        };
        let continues = part.envelope.id == bundle.id
            && part.envelope.kind == bundle.kind
            && part.size == size
            && part.content.len() as u64 == bundle.offset
            && part.content.len() + content.len() <= size;
        if !continues {
            return Err(WorldError::Protocol(
                "the parts of a bundle do not follow each other",
            ));
        }
        part.content.extend_from_slice(&content);
        if part.content.len() < size {
            return Ok(None);
        }
        let Some(part) = self.part.take() else {
            return Ok(None);
        };
        let content = part.content.freeze();
        Ok(Some(Bundle {
            content,
            size: 0,
            offset: 0,
            ..part.envelope
        }))
    }
}

/// Whether a bundle is what it says, in a form that this node reads.
fn check(bundle: &Bundle) -> Result<(), String> {
    if !bundle.error.is_empty() {
        return Err(bundle.error.chars().take(SHOWN).collect());
    }
    if !FORMATS.contains(&bundle.format) {
        return Err(format!(
            "format {} is not one of {FORMATS:?}, which this node reads",
            bundle.format
        ));
    }
    let digest = digest::digest(&digest::SHA256, &bundle.content);
    if digest.as_ref() != &bundle.sha256[..] {
        return Err(
            "the content does not have the SHA-256 that it should: it was changed on the way".to_owned(),
        );
    }
    Ok(())
}

fn key_of(bundle: &Bundle) -> BundleKey {
    BundleKey {
        kind: bundle.kind,
        id: bundle.id.clone(),
    }
}

#[cfg(test)]
mod tests;
