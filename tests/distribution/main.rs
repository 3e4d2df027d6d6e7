//! Both ends of the configuration stream against each other: real TLS on loopback, real store, real disk.

mod fixture;
mod relay;
mod tickets;

use std::{sync::atomic::Ordering, time::Duration};

use fixture::{Gate, Installation, News, NodeDirectory};
use relay::Relay;
use tidegate_controlplane::service::Fleet;
use tidegate_dataplane::config::{Identity, IdentityError, JoinFile};
use tidegate_proto::config::v1::{Flush, Probe};

const SOON: Duration = Duration::from_secs(60);

/// C1, C2: a node joins, gets everything, then what changes and no more; a change is live when the wait ends.
#[tokio::test]
async fn a_node_joins_and_follows() {
    let installation = Installation::start().await;
    installation.publish("a", Some("one")).await;
    installation.publish("b", Some("one")).await;
    let directory = NodeDirectory::new(&installation, "edge-1").await;
    let mut node = directory.start(2);
    assert_eq!(node.news().await, News::Configured);
    assert_eq!(node.served(), ["a=one", "b=one"]);

    let revision = installation.publish("a", Some("two")).await;
    let rollout = installation.distributor.wait(revision, SOON).await;
    assert!(rollout.complete, "{rollout:?}");
    assert_eq!(rollout.nodes[0].node_name, "edge-1");
    assert_eq!(node.served(), ["a=two", "b=one"]);
    let revision = installation.publish("b", None).await;
    installation.distributor.wait(revision, SOON).await;
    assert_eq!(node.served(), ["a=two"]);

    let known = &installation.distributor.nodes().await.unwrap()[0];
    assert!(known.connected && known.shards == 2 && known.refused.is_empty());
    // Everything once, then each change by itself.
    assert_eq!(installation.source.asked()[0], 0);
    assert!(installation.source.asked()[1..].iter().all(|since| *since > 0));
}

/// Must show 3: a node that restarts without a control plane serves the same; when one is back it goes on from there.
#[tokio::test]
async fn a_restart_without_control_plane_serves_the_same() {
    let mut installation = Installation::start().await;
    let revision = installation.publish("a", Some("one")).await;
    let directory = NodeDirectory::new(&installation, "edge-1").await;
    let mut node = directory.start(2);
    node.news().await;
    installation.distributor.wait(revision, SOON).await;
    installation.stop().await;
    drop(node);

    let mut node = directory.start(4);
    assert_eq!(node.news().await, News::Configured);
    assert_eq!(node.served(), ["a=one"]);
    installation.restart().await;
    let mut lowest = installation.distributor.registry().lowest();
    lowest.wait_for(|lowest| *lowest != u64::MAX).await.unwrap();
    let revision = installation.publish("b", Some("two")).await;
    assert!(installation.distributor.wait(revision, SOON).await.complete);
    assert_eq!(node.served(), ["a=one", "b=two"]);
    // The second life of the control plane was never asked for everything.
    assert!(!installation.source.asked().contains(&0));
}

/// C1: what a node cannot use is refused by itself: it keeps the old content, everything else goes on.
#[tokio::test]
async fn a_bad_bundle_stops_nothing_else() {
    let installation = Installation::start().await;
    installation.publish("a", Some("one")).await;
    let directory = NodeDirectory::new(&installation, "edge-1").await;
    let mut node = directory.start(1);
    node.news().await;
    installation.publish_garbage("a").await;
    let revision = installation.publish("b", Some("two")).await;
    let rollout = installation.distributor.wait(revision, SOON).await;
    assert!(!rollout.complete);
    assert_eq!(rollout.nodes[0].revision, revision);
    assert_eq!(rollout.nodes[0].refused[0].id, "a/prod");
    assert_eq!(node.served(), ["a=one", "b=two"]);
    // One that the control plane cannot make is no different.
    installation.source.broken.store(true, Ordering::Relaxed);
    let revision = installation.publish("b", Some("three")).await;
    let rollout = installation.distributor.wait(revision, SOON).await;
    let refused: Vec<_> = rollout.nodes[0]
        .refused
        .iter()
        .map(|outcome| outcome.id.as_str())
        .collect();
    assert!(refused.contains(&"b/prod"), "{refused:?}");
    installation.source.broken.store(false, Ordering::Relaxed);
    // A node asks again for what it refused when it comes back.
    drop(node);
    let mut node = directory.start(1);
    node.news().await;
    let revision = installation.publish("a", Some("mended")).await;
    let mut lowest = installation.distributor.registry().lowest();
    let reached = |lowest: &u64| *lowest >= revision && *lowest != u64::MAX;
    lowest.wait_for(reached).await.unwrap();
    let rollout = installation.distributor.wait(revision, SOON).await;
    assert!(rollout.complete, "{rollout:?}");
    assert_eq!(node.served(), ["a=mended", "b=three"]);
}

/// C1, C2: a byte flipped on the way, under the hash of what was sent: the node refuses that bundle by its name and keeps
/// the old content, in one part or several; everything else of the same delta goes on, and the roll-out tells. What was
/// refused is asked for again with the next stream.
#[tokio::test]
async fn a_byte_flipped_on_the_way_is_refused() {
    let installation = Installation::start().await;
    let large = |word: &str| format!("{word}{}", "x".repeat(3 * 1024 * 1024));
    installation.source.put("a", Some("one"));
    installation.source.put("large", Some("one"));
    installation.publish("b", Some("one")).await;
    let directory = NodeDirectory::new(&installation, "edge-1").await;
    let relay = Relay::start(&installation, &directory).await;
    let mut node = directory.start_through(&relay.address());
    node.news().await;
    assert_eq!(node.served(), ["a=one", "b=one", "large=one"]);

    relay.damage(&["a/prod", "large/prod"], "two");
    installation.source.put("a", Some("two"));
    installation.source.put("large", Some(&large("two")));
    let revision = installation.publish("b", Some("two")).await;
    let rollout = installation.distributor.wait(revision, SOON).await;
    assert_eq!(rollout.nodes[0].revision, revision);
    assert!(!rollout.complete);
    // In the order in which the node came to them.
    let mut refused: Vec<_> = rollout.nodes[0]
        .refused
        .iter()
        .map(|outcome| (outcome.id.as_str(), outcome.revision))
        .collect();
    refused.sort_unstable();
    assert_eq!(refused, [("a/prod", revision), ("large/prod", revision)]);
    for outcome in &rollout.nodes[0].refused {
        assert!(outcome.refusal.contains("SHA-256"), "{}", outcome.refusal);
    }
    assert_eq!(node.served(), ["a=one", "b=two", "large=one"]);
    let known = &installation.distributor.nodes().await.unwrap()[0];
    assert!(known.connected && known.refused.len() == 2, "{known:?}");
    assert_eq!(relay.mend(), ["a/prod", "large/prod"]);

    relay.cut().await;
    let revision = installation.publish("b", Some("three")).await;
    let rollout = installation.distributor.wait(revision, SOON).await;
    assert!(rollout.complete, "{rollout:?}");
    let large = format!("large={}", large("two"));
    assert!(node.served() == ["a=two", "b=three", &large]);
}

/// C1: a thousand bundles, one of them several chunks large.
#[tokio::test]
async fn many_and_large_bundles_arrive() {
    let installation = Installation::start().await;
    for at in 0..1_000 {
        installation.source.put(&format!("api{at}"), Some("small"));
    }
    let large = "x".repeat(3 * 1024 * 1024);
    let revision = installation.publish("large", Some(&large)).await;
    let directory = NodeDirectory::new(&installation, "edge-1").await;
    let mut node = directory.start(2);
    node.news().await;
    assert!(installation.distributor.wait(revision, SOON).await.complete);
    let served = node.served();
    assert_eq!(served.len(), 1_001);
    assert!(served.contains(&format!("large={large}")));
    drop(node);
    let mut node = directory.start(2);
    node.news().await;
    assert_eq!(node.served(), served);
}

/// C2: a node that is slow is named after the wait, costs nothing, and gets what it missed as one.
#[tokio::test]
async fn a_slow_node_gets_what_it_missed_as_one() {
    let installation = Installation::start().await;
    let gate = Gate::open();
    let directory = NodeDirectory::new(&installation, "slow").await;
    let mut node = directory.start_behind(gate.clone());
    node.news().await;
    gate.close();
    let first = installation.publish("a", Some("0")).await;
    let mut last = first;
    for at in 1..=50 {
        last = installation.publish("a", Some(&at.to_string())).await;
    }
    let rollout = installation.distributor.wait(last, Duration::ZERO).await;
    assert!(!rollout.complete);
    assert_eq!(rollout.nodes[0].node_name, "slow");
    assert!(rollout.nodes[0].revision < first);
    let before = installation.source.asked().len();
    gate.release();
    let rollout = installation.distributor.wait(last, SOON).await;
    assert!(rollout.complete, "{rollout:?}");
    assert_eq!(node.served(), ["a=50"]);
    assert!(installation.source.asked().len() <= before + 2);
}

/// C7: a token is good for one machine; a file of another installation leads nowhere.
#[tokio::test]
async fn joins_are_refused_with_the_reason() {
    let installation = Installation::start().await;
    let other = Installation::start().await;
    let first = NodeDirectory::new(&installation, "edge-1").await;
    let file = JoinFile::read(&first.join_file).unwrap();
    let join = async |file: &JoinFile| {
        let directory = tempfile::tempdir().unwrap();
        Identity::join(directory.path(), file, "edge").await
    };
    let identity = join(&file).await.unwrap();
    assert!(identity.joined_by(&file));
    let Err(IdentityError::Refused { reason, .. }) = join(&file).await else {
        panic!("the token was taken twice")
    };
    assert!(reason.contains("used before"), "{reason}");

    let foreign = JoinFile {
        authority_sha256: other.distributor.authority().digest(),
        ..file.clone()
    };
    let Err(IdentityError::Connect { reason, .. }) = join(&foreign).await else {
        panic!("a stranger was trusted")
    };
    assert!(reason.contains("does not show the authority"), "{reason}");
    let elsewhere = JoinFile {
        control: other.address(),
        ..file
    };
    assert!(matches!(
        join(&elsewhere).await,
        Err(IdentityError::Connect { .. })
    ));
    // An identity of one installation opens no stream at another, and does not trust it.
    let refused = identity.connect(&other.address()).await;
    assert!(
        matches!(refused, Err(IdentityError::Connect { .. })),
        "{refused:?}"
    );
}

/// A removed node is turned away, goes on serving, and comes back with a new join file.
#[tokio::test]
async fn a_removed_node_comes_back_with_a_new_file() {
    let installation = Installation::start().await;
    installation.publish("a", Some("one")).await;
    let directory = NodeDirectory::new(&installation, "edge-1").await;
    let mut node = directory.start(1);
    node.news().await;
    let mut lowest = installation.distributor.registry().lowest();
    lowest.wait_for(|lowest| *lowest != u64::MAX).await.unwrap();
    let id = installation.distributor.nodes().await.unwrap()[0].id.clone();
    installation.distributor.remove_node(&id).await.unwrap();
    lowest.wait_for(|lowest| *lowest == u64::MAX).await.unwrap();
    assert!(installation.distributor.nodes().await.unwrap().is_empty());
    assert_eq!(node.served(), ["a=one"]);
    directory.new_join_file(&installation).await;
    lowest.wait_for(|lowest| *lowest != u64::MAX).await.unwrap();
    let nodes = installation.distributor.nodes().await.unwrap();
    assert!(nodes.len() == 1 && nodes[0].connected && nodes[0].id != id);
}

/// C7: a certificate is renewed when a third of its life has passed, and the node speaks by the new one.
#[tokio::test]
async fn a_certificate_is_renewed_in_time() {
    // Certificates begin an hour in the past: of one that ends in an hour, a third has passed at once.
    let installation = Installation::start_with(Duration::from_secs(3_600)).await;
    let directory = NodeDirectory::new(&installation, "edge-1").await;
    let file = JoinFile::read(&directory.join_file).unwrap();
    let first = Identity::join(&directory.node, &file, "edge-1").await.unwrap();
    let mut node = directory.start(1);
    node.news().await;
    let now = Identity::load(&directory.node).unwrap().unwrap();
    assert_ne!(now, first);
    assert_eq!(now.node_id, first.node_id);
    let revision = installation.publish("a", Some("one")).await;
    assert!(installation.distributor.wait(revision, SOON).await.complete);
    assert_eq!(node.served(), ["a=one"]);
}

/// C3: a command without a node, or with one that cannot run it, says so.
#[tokio::test]
async fn commands_say_why_they_fail() {
    let installation = Installation::start().await;
    let refusal = installation
        .distributor
        .probe(None, Probe::default())
        .await
        .unwrap_err();
    assert!(
        refusal.message.contains("No node is connected"),
        "{}",
        refusal.message
    );
    installation.distributor.flush(Flush::default()).await.unwrap();
    let directory = NodeDirectory::new(&installation, "edge-1").await;
    let mut node = directory.start(1);
    node.news().await;
    let mut lowest = installation.distributor.registry().lowest();
    lowest.wait_for(|lowest| *lowest != u64::MAX).await.unwrap();
    let probe = Probe {
        method: "GET".into(),
        url: "/known".into(),
        ..Default::default()
    };
    let result = installation
        .distributor
        .probe(Some("edge-1"), probe)
        .await
        .unwrap();
    assert_eq!(result.status, 200);
    let probe = Probe {
        url: "/unknown".into(),
        ..Default::default()
    };
    let refusal = installation.distributor.probe(None, probe).await.unwrap_err();
    assert!(refusal.message.contains("cannot run"), "{}", refusal.message);
    installation.distributor.flush(Flush::default()).await.unwrap();
    let refusal = installation
        .distributor
        .probe(Some("edge-2"), Probe::default())
        .await
        .unwrap_err();
    assert!(
        refusal.message.contains("edge-2 is not connected"),
        "{}",
        refusal.message
    );
}
