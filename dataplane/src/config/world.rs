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
use tidegate_proto::config::v1::{Ack, Bundle, BundleKind, BundleOutcome, Delta};

use super::{
    Apply, BUNDLE_MAX, BundleKey, Certificate, Change, ConfigMessage, Held, LastKnownGood, LkgError,
    Resolver, SendError, Settings, ShardSink, Stage, Step, confirmation, content,
};
use crate::{
    limit::{self, Limit, LimitId},
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

    /// Hands everything on disk to the shards. What cannot be built (any more) is left out and asked for again.
    pub(super) async fn load(&mut self) -> Result<(), WorldError> {
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
        for (key, live) in work.changes {
            if let Some(Live::Settings(_)) = &live {
                account_before = Some(match self.current.get(&key) {
                    Some(Live::Settings(old)) => old.account_throttle,
                    _ => None,
                });
            }
            changes.extend(match &live {
                Some(live) => Some(live.change()),
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
                    changes.push(live.change());
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
    fn change(&self) -> Change {
        match self {
            Self::Stage(stage) => Change::Stage(stage.clone()),
            Self::Certificate(certificate) => Change::Certificate(certificate.clone()),
            Self::Settings(settings) => Change::Settings(settings.clone()),
        }
    }

    fn is_in_use(&self) -> bool {
        let holders = match self {
            Self::Stage(stage) => Arc::strong_count(stage),
            Self::Certificate(certificate) => Arc::strong_count(certificate),
            Self::Settings(settings) => Arc::strong_count(settings),
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
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    };

    use tidegate_proto::config::v1::{
        Integration, Method, Mock, Plan, Removal, Route, SettingsBundle, StageBundle, Throttle,
        integration::Kind,
    };

    use super::*;
    use crate::telemetry::{self, NodeInfo};

    /// Two shards that run what they get, and write it down.
    #[derive(Default)]
    struct Shards {
        got: Mutex<Vec<String>>,
        stages: Mutex<HashMap<String, Arc<Stage>>>,
        /// How often a mailbox says that it is full.
        full: Mutex<usize>,
        dead: AtomicBool,
    }

    impl ShardSink for Shards {
        fn shards(&self) -> usize {
            2
        }

        fn send(&self, shard: usize, message: ConfigMessage) -> Result<(), SendError> {
            let mut full = self.full.lock().unwrap();
            if *full > 0 {
                *full -= 1;
                return Err(SendError::Full(message));
            }
            if self.dead.load(Ordering::Relaxed) && shard == 1 {
                // It takes the message and dies.
                return Ok(());
            }
            let ConfigMessage::Apply(Apply {
                changes,
                confirmation,
            }) = message
            else {
                panic!("{message:?}")
            };
            if shard == 0 {
                let mut stages = self.stages.lock().unwrap();
                for change in &*changes {
                    self.got.lock().unwrap().push(match change {
                        Change::Stage(stage) => {
                            let name = format!("{}/{}", stage.plan.api.as_str(), stage.plan.stage.as_str());
                            stages.insert(name.clone(), stage.clone());
                            format!("{name}@{}", stage.revision)
                        }
                        Change::StageRemoved { api_id, name } => {
                            stages.remove(&format!("{api_id}/{name}"));
                            format!("-{api_id}/{name}")
                        }
                        other => format!("{other:?}").split(['(', ' ']).next().unwrap().to_owned(),
                    });
                }
            }
            confirmation.confirm();
            Ok(())
        }
    }

    impl Shards {
        fn take(&self) -> Vec<String> {
            let mut got = std::mem::take(&mut *self.got.lock().unwrap());
            got.sort();
            got
        }
    }

    fn world(directory: &std::path::Path, shards: &Arc<Shards>) -> World {
        let info = NodeInfo {
            version: "0".into(),
            driver: "epoll".into(),
            boot_id: "b".into(),
        };
        let (telemetry, _) = Telemetry::start(telemetry::Options::new(info)).unwrap();
        let around = Surroundings {
            shards: shards.clone(),
            telemetry,
            limits: limit::Registry::new(1_000),
            limit_time: Box::new(|| 0),
        };
        World::new(around, LastKnownGood::open(directory).unwrap())
    }

    fn stage(api: &str, body: &str) -> StageBundle {
        let mock = Mock {
            status: 200,
            body: body.into(),
            ..Default::default()
        };
        let method = Method {
            http_method: "GET".into(),
            integration: Some(Integration {
                kind: Some(Kind::Mock(mock)),
                timeout_ms: 0,
            }),
            ..Default::default()
        };
        let route = Route {
            resource_id: "r1".into(),
            path: "/pets".into(),
            methods: vec![method],
        };
        StageBundle {
            api_id: api.into(),
            stage: "prod".into(),
            account_id: "000000000000".into(),
            region: "us-east-1".into(),
            primary: Some(Plan {
                deployment_id: "d1".into(),
                routes: vec![route],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn bundle(kind: BundleKind, id: &str, revision: u64, content: impl Message) -> Bundle {
        let content = content.encode_to_vec();
        Bundle {
            id: id.into(),
            kind: kind.into(),
            format: 1,
            revision,
            sha256: digest::digest(&digest::SHA256, &content).as_ref().to_vec(),
            content: content.into(),
            ..Default::default()
        }
    }

    fn of_stage(api: &str, revision: u64) -> Bundle {
        bundle(
            BundleKind::Stage,
            &format!("{api}/prod"),
            revision,
            stage(api, "x"),
        )
    }

    fn delta(to: u64, bundles: Vec<Bundle>) -> Delta {
        Delta {
            installation_id: "i".into(),
            to_revision: to,
            full: to == 1,
            last: true,
            bundles,
            ..Default::default()
        }
    }

    /// C2: after a restart the shards get from disk what was acknowledged, before any control plane is asked.
    #[tokio::test]
    async fn what_was_acknowledged_is_served_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let shards = Arc::new(Shards::default());
        let mut first = world(directory.path(), &shards);
        let ack = first
            .take(delta(1, vec![of_stage("a", 1), of_stage("b", 1)]))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((ack.revision, ack.outcomes.len()), (1, 0));
        let mut removal = delta(2, vec![of_stage("c", 2)]);
        removal.removals.push(Removal {
            id: "a/prod".into(),
            kind: BundleKind::Stage.into(),
            revision: 2,
        });
        first.take(removal).await.unwrap();
        assert_eq!(shards.take(), ["-a/prod", "a/prod@1", "b/prod@1", "c/prod@2"]);
        drop(first);
        let mut again = world(directory.path(), &shards);
        again.load().await.unwrap();
        assert_eq!(shards.take(), ["b/prod@1", "c/prod@2"]);
        assert_eq!((again.lkg().revision(), again.lkg().installation()), (2, "i"));
    }

    /// C1: a byte flipped anywhere in a bundle refuses that bundle; its old content stays, the others go on.
    #[tokio::test]
    async fn a_flipped_byte_is_refused_and_everything_else_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let shards = Arc::new(Shards::default());
        let mut world = world(directory.path(), &shards);
        world
            .take(delta(1, vec![of_stage("a", 1), of_stage("b", 1)]))
            .await
            .unwrap();
        shards.take();
        let good = of_stage("a", 2);
        let mut revision = 2;
        for at in 0..good.content.len() {
            let mut content = good.content.to_vec();
            content[at] ^= 1 << (at % 8);
            let bad = Bundle {
                content: content.into(),
                revision,
                ..good.clone()
            };
            let ack = world
                .take(delta(revision, vec![bad, of_stage("b", revision)]))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(ack.outcomes.len(), 1, "{at}");
            assert_eq!(
                (ack.outcomes[0].id.as_str(), ack.outcomes[0].revision),
                ("a/prod", revision)
            );
            assert_eq!(shards.take(), [format!("b/prod@{revision}")]);
            revision += 1;
        }
        assert_eq!(shards.stages.lock().unwrap()["a/prod"].revision, 1);
        // The refusal stands until the bundle comes well.
        assert_eq!(
            world
                .take(delta(revision, vec![]))
                .await
                .unwrap()
                .unwrap()
                .outcomes
                .len(),
            1
        );
        let ack = world
            .take(delta(revision + 1, vec![of_stage("a", revision + 1)]))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(ack.outcomes, []);
        assert_eq!(shards.take(), [format!("a/prod@{}", revision + 1)]);
    }

    /// C1: what this node does not understand is refused by name, each with the reason.
    #[tokio::test]
    async fn unusable_bundles_are_refused_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let shards = Arc::new(Shards::default());
        let mut world = world(directory.path(), &shards);
        let nameless = StageBundle {
            account_id: "1".into(),
            ..stage("e", "x")
        };
        let bundles = vec![
            Bundle {
                format: 9,
                ..of_stage("a", 1)
            },
            bundle(BundleKind::KeyPage, "b", 1, SettingsBundle::default()),
            bundle(BundleKind::Stage, "c/prod", 1, stage("other", "x")),
            bundle(
                BundleKind::Certificate,
                "d",
                1,
                tidegate_proto::config::v1::CertificateBundle::default(),
            ),
            bundle(BundleKind::Stage, "e/prod", 1, nameless),
            Bundle {
                error: "the store is broken".into(),
                ..of_stage("f", 1)
            },
            of_stage("g", 1),
        ];
        let mut outcomes = world.take(delta(1, bundles)).await.unwrap().unwrap().outcomes;
        outcomes.sort_by(|a, b| a.id.cmp(&b.id));
        for (outcome, says) in outcomes.iter().zip([
            "format 9",
            "upgrade",
            "holds other/prod",
            "chain",
            "12 digits",
            "store is broken",
        ]) {
            assert!(outcome.refusal.contains(says), "{outcome:?}");
        }
        assert_eq!(outcomes.len(), 6);
        assert_eq!(shards.take(), ["g/prod@1"]);
    }

    /// C1: a bundle larger than a chunk comes in parts; a full delta removes what it does not name.
    #[tokio::test]
    async fn parts_are_put_together_and_a_full_delta_replaces_all() {
        let directory = tempfile::tempdir().unwrap();
        let shards = Arc::new(Shards::default());
        let mut world = world(directory.path(), &shards);
        world
            .take(delta(1, vec![of_stage("a", 1), of_stage("b", 1)]))
            .await
            .unwrap();
        shards.take();
        let large = bundle(BundleKind::Stage, "a/prod", 7, stage("a", &"y".repeat(100_000)));
        let size = large.content.len();
        let mut sent = 0;
        while sent < size {
            let end = (sent + 30_000).min(size);
            let part = Bundle {
                content: large.content.slice(sent..end),
                size: size as u64,
                offset: sent as u64,
                ..large.clone()
            };
            let last = end == size;
            let chunk = Delta {
                full: true,
                last,
                installation_id: "j".into(),
                ..delta(7, vec![part])
            };
            assert_eq!(world.take(chunk).await.unwrap().is_some(), last);
            sent = end;
        }
        assert_eq!(shards.take(), ["-b/prod", "a/prod@7"]);
        assert_eq!((world.lkg().revision(), world.lkg().installation()), (7, "j"));
    }

    /// C1: parts that do not follow each other, deltas within deltas, foreign deltas end the stream and change nothing.
    #[tokio::test]
    async fn a_broken_protocol_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let shards = Arc::new(Shards::default());
        let mut world = world(directory.path(), &shards);
        world.take(delta(1, vec![])).await.unwrap();
        let part = |offset, size| Bundle {
            size,
            offset,
            ..of_stage("a", 2)
        };
        let open = Delta {
            last: false,
            ..delta(2, vec![])
        };
        let cases = [
            vec![delta(2, vec![part(5, 1_000)])],
            vec![delta(2, vec![part(0, 1_000)])],
            vec![delta(2, vec![part(0, u64::MAX)])],
            vec![delta(2, vec![part(0, 1_000), of_stage("b", 2)])],
            vec![open.clone(), delta(3, vec![])],
            vec![Delta {
                installation_id: "else".into(),
                ..delta(2, vec![of_stage("b", 2)])
            }],
        ];
        for case in cases {
            world.begin_stream();
            let mut outcome = Ok(None);
            for chunk in case {
                outcome = world.take(chunk).await;
            }
            assert!(matches!(outcome, Err(WorldError::Protocol(_))), "{outcome:?}");
        }
        assert_eq!(shards.take(), Vec::<String>::new());
        assert_eq!(world.lkg().revision(), 1);
    }

    /// C2: a bundle that is there already does not disturb the shards; a full mailbox is tried again; a dead shard is
    /// noticed.
    #[tokio::test]
    async fn handing_over_is_patient_but_not_with_the_dead() {
        let directory = tempfile::tempdir().unwrap();
        let shards = Arc::new(Shards::default());
        let mut world = world(directory.path(), &shards);
        *shards.full.lock().unwrap() = 3;
        world.take(delta(1, vec![of_stage("a", 1)])).await.unwrap();
        assert_eq!(shards.take(), ["a/prod@1"]);
        world.take(delta(2, vec![of_stage("a", 1)])).await.unwrap();
        assert_eq!(shards.take(), Vec::<String>::new());
        shards.dead.store(true, Ordering::Relaxed);
        let outcome = world.take(delta(3, vec![of_stage("a", 3)])).await;
        assert!(matches!(outcome, Err(WorldError::ShardGone)), "{outcome:?}");
    }

    /// D9: the account's limit reaches the stages that are there, and buckets are the same over versions.
    #[tokio::test]
    async fn the_accounts_limit_reaches_every_stage() {
        let directory = tempfile::tempdir().unwrap();
        let shards = Arc::new(Shards::default());
        let mut world = world(directory.path(), &shards);
        let throttled = |revision| {
            let throttle = Some(Throttle { rate: 5.0, burst: 5 });
            bundle(
                BundleKind::Stage,
                "a/prod",
                revision,
                StageBundle {
                    throttle,
                    ..stage("a", "x")
                },
            )
        };
        world.take(delta(1, vec![throttled(1)])).await.unwrap();
        let limits = |shards: &Shards| {
            let stages = shards.stages.lock().unwrap();
            stages["a/prod"].limits(false, 0, 0).to_vec()
        };
        let before = limits(&shards);
        assert_eq!(before.len(), 1);
        let settings = SettingsBundle {
            account_throttle: Some(Throttle {
                rate: 10.0,
                burst: 10,
            }),
            ..Default::default()
        };
        world
            .take(delta(
                2,
                vec![bundle(BundleKind::Settings, "settings", 2, settings)],
            ))
            .await
            .unwrap();
        let after = limits(&shards);
        assert_eq!((after.len(), after[0]), (2, before[0]));
        // Replaced versions are dropped once no shard holds them.
        assert_eq!(world.retired.len(), 1);
        world.tidy().await.unwrap();
        assert_eq!(world.retired.len(), 0);
        world.take(delta(3, vec![throttled(3)])).await.unwrap();
        assert_eq!(limits(&shards), after);
    }
}
