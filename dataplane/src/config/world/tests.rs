//! What a world does with good and bad deltas.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use tidegate_proto::config::v1::{
    HttpProxy, Integration, Method, Mock, Plan, Removal, ResponseSelection, Route, SettingsBundle,
    StageBundle, Throttle, integration::Kind,
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
        tickets: None,
        functions: None,
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

/// C1: a stage that is refused for its last method changes nothing, the limits of the others neither.
#[tokio::test]
async fn a_refused_stage_leaves_the_limits_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let shards = Arc::new(Shards::default());
    let mut world = world(directory.path(), &shards);
    let throttled = |burst| StageBundle {
        throttle: Some(Throttle { rate: 5.0, burst }),
        ..stage("a", "x")
    };
    world
        .take(delta(
            1,
            vec![bundle(BundleKind::Stage, "a/prod", 1, throttled(5))],
        ))
        .await
        .unwrap();
    let burst = || {
        let stages = shards.stages.lock().unwrap();
        let handle = stages["a/prod"].limit_handles().next().unwrap();
        handle.cell().level(0)
    };
    assert_eq!(burst(), 5);
    let mut bad = throttled(2);
    let methods = &mut bad.primary.as_mut().unwrap().routes[0].methods;
    methods.push(Method {
        http_method: "PUT".into(),
        integration: Some(Integration {
            kind: Some(Kind::Http(HttpProxy {
                http_method: "PUT".into(),
                scheme: "http".into(),
                host: "127.0.0.1".into(),
                port: 80,
                responses: vec![ResponseSelection {
                    pattern: "(".into(),
                    status: 200,
                    ..Default::default()
                }],
                ..Default::default()
            })),
            timeout_ms: 0,
        }),
        ..Default::default()
    });
    let ack = world
        .take(delta(2, vec![bundle(BundleKind::Stage, "a/prod", 2, bad)]))
        .await
        .unwrap()
        .unwrap();
    assert!(
        ack.outcomes[0].refusal.contains("not a regular expression"),
        "{ack:?}"
    );
    assert_eq!(burst(), 5);
}

/// SEC-078, DEP-068, DEP-077: a stage's throttle holds for each of its methods by itself; a method's own goes before it,
/// no limit too.
#[tokio::test]
async fn a_stages_throttle_is_one_for_each_method() {
    let directory = tempfile::tempdir().unwrap();
    let shards = Arc::new(Shards::default());
    let mut world = world(directory.path(), &shards);
    let figures = |rate, burst| Some(Throttle { rate, burst });
    let mut content = StageBundle {
        throttle: figures(5.0, 5),
        ..stage("a", "x")
    };
    let methods = &mut content.primary.as_mut().unwrap().routes[0].methods;
    for (verb, own) in [
        ("PUT", None),
        ("POST", figures(1.0, 1)),
        ("DELETE", figures(-1.0, -1)),
    ] {
        let mut method = methods[0].clone();
        method.http_method = verb.into();
        method.throttle = own;
        methods.push(method);
    }
    world
        .take(delta(1, vec![bundle(BundleKind::Stage, "a/prod", 1, content)]))
        .await
        .unwrap();
    let stages = shards.stages.lock().unwrap();
    let bursts: Vec<_> = stages["a/prod"]
        .limit_handles()
        .map(|handle| handle.cell().level(0))
        .collect();
    assert_eq!(bursts, [5, 5, 1]);
    let of = |method| stages["a/prod"].limits(false, 0, method).to_vec();
    assert_eq!((of(0).len(), of(1).len(), of(2).len()), (1, 1, 1));
    assert_ne!(of(0), of(1));
    assert_eq!(of(3), []);
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

/// C9: bindings are handed over as one table, whatever of them has changed; one that cannot be used is refused alone.
#[tokio::test]
async fn bindings_are_handed_over_together() {
    use tidegate_proto::config::v1::{BindingBundle, EndpointTarget, binding_bundle::Target};
    let directory = tempfile::tempdir().unwrap();
    let shards = Arc::new(Shards::default());
    let mut world = world(directory.path(), &shards);
    let bound = |id: &str, named: &str, host: &str| {
        let content = BindingBundle {
            id: named.into(),
            pattern: format!("{id}.*"),
            target: Some(Target::ServiceEndpoint(EndpointTarget {
                scheme: "http".into(),
                host: host.into(),
                ..Default::default()
            })),
        };
        bundle(BundleKind::Binding, id, 1, content)
    };
    let all = vec![
        bound("s3", "s3", "store"),
        bound("sqs", "sqs", "queue"),
        bound("sns", "other", "topic"),
        bound("sts", "sts", "no host"),
    ];
    let ack = world.take(delta(1, all)).await.unwrap().unwrap();
    let mut refused: Vec<_> = ack.outcomes.iter().map(|outcome| outcome.id.as_str()).collect();
    refused.sort_unstable();
    assert_eq!(refused, ["sns", "sts"]);
    assert_eq!(shards.take(), ["Bindings"]);
    let mut removal = delta(2, Vec::new());
    removal.removals.push(Removal {
        id: "s3".into(),
        kind: BundleKind::Binding.into(),
        revision: 2,
    });
    world.take(removal).await.unwrap();
    assert_eq!(shards.take(), ["Bindings"]);
    // What the log is for.
    drop(world);
    let mut again = self::world(directory.path(), &shards);
    again.load().await.unwrap();
    assert_eq!(shards.take(), ["Bindings"]);
}
