//! The two planes apart, under load, and what a kill of either costs: of the control plane nothing, of the data plane its
//! connections. What was acknowledged is never lost.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tidegate_harness::backend::{Backend, pattern};
use tidegate_harness::instance::{Deployed, FREE, Instance};
use tidegate_harness::load::{Load, Target};
use tidegate_harness::process::{PATIENCE, await_end, signal};
use tidegate_harness::raw::{Connection, get, request};
use tidegate_harness::suite::{Context, Test};

use crate::pets::everything;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::both_drivers(
        "a_killed_control_plane_fails_no_request",
        a_killed_control_plane_fails_no_request,
    ),
    Test::both_drivers(
        "a_data_plane_returns_without_a_control_plane",
        a_data_plane_returns_without_a_control_plane,
    ),
    Test::both_drivers("up_restarts_what_is_killed", up_restarts_what_is_killed),
    Test::everywhere(
        "an_orderly_end_finishes_what_it_began",
        an_orderly_end_finishes_what_it_began,
    ),
    Test::once(
        "a_damaged_bundle_stops_nobody_else",
        a_damaged_bundle_stops_nobody_else,
    ),
    Test::once("a_join_token_admits_one_node", a_join_token_admits_one_node),
    Test::once(
        "a_restored_control_plane_is_another_installation",
        a_restored_control_plane_is_another_installation,
    ),
    Test::once("nodes_that_are_away_are_told_of", nodes_that_are_away_are_told_of),
];

/// Both planes as processes of their own, and a backend.
struct Split {
    control: Instance,
    data: Instance,
    backend: Backend,
}

/// A join file for a new node.
fn join_file(control: &Instance, directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(format!("{name}.join"));
    std::fs::write(&path, control.run(&["node", "token"])?)?;
    Ok(path)
}

fn split(context: &Context) -> Result<Split> {
    let backend = Backend::start()?;
    let control = context.plan().control_plane("control", FREE)?;
    let join = join_file(&control, context.directory(), "node")?;
    let config = control.ready().config.to_string();
    let data = context.plan().data_plane("node", &config, Some(&join), FREE)?;
    Ok(Split {
        control,
        data,
        backend,
    })
}

fn target(data: &Instance, deployed: &Deployed) -> Target {
    Target {
        address: data.ready().http,
        request: request("GET", &deployed.host(), &deployed.path("/b/fixed/100")).into_bytes(),
        body: Some(pattern(100)),
    }
}

fn ensure_serves(data: &Instance, deployed: &Deployed, when: &str) -> Result<()> {
    let response = get(data.ready().http, &deployed.host(), &deployed.path("/b/fixed/9"))
        .with_context(|| format!("{when}: API {}", deployed.api_id))?;
    ensure!(
        response.status == 200 && response.body == pattern(9),
        "{when}: API {}: {response:?}",
        deployed.api_id
    );
    Ok(())
}

/// C2, C5: `kill -9` of the control plane while it takes deployments under load: no request fails, what was acknowledged is
/// there when it returns, and it goes on from there.
fn a_killed_control_plane_fails_no_request(context: &Context) -> Result<()> {
    let mut split = split(context)?;
    let mut acknowledged = vec![split.control.import(&everything(&split.backend), "test")?];
    let load = Load::start(&target(&split.data, &acknowledged[0]), 8);
    load.await_answers(200)?;
    for _ in 0..3 {
        let config = split.control.ready().config.to_string();
        for _ in 0..3 {
            acknowledged.push(split.control.import(&everything(&split.backend), "test")?);
        }
        split.control.kill()?;
        load.await_answers(200)?;
        for deployed in &acknowledged {
            ensure_serves(&split.data, deployed, "without a control plane")?;
        }
        split.control = context.plan().control_plane("control", &config)?;
        let listed = split.control.json(&["list", "restApis"])?.to_string();
        for deployed in &acknowledged {
            ensure!(
                listed.contains(&deployed.api_id),
                "API {} was acknowledged and is missing",
                deployed.api_id
            );
        }
    }
    // The node has come back by itself and takes what is new.
    split.control.await_nodes()?;
    let fresh = split.control.import(&everything(&split.backend), "test")?;
    split.control.await_nodes()?;
    ensure_serves(&split.data, &fresh, "after the return")?;
    load.await_answers(200)?;
    load.stop().ensure_flawless(&[200])
}

/// C1, D9: `kill -9` of a data plane, the control plane gone: it serves again from its last known good, several times.
fn a_data_plane_returns_without_a_control_plane(context: &Context) -> Result<()> {
    let mut split = split(context)?;
    let mut deployed = Vec::new();
    for _ in 0..3 {
        deployed.push(split.control.import(&everything(&split.backend), "test")?);
    }
    deployed[1] = split
        .control
        .replace(&deployed[1], &everything(&split.backend).mock("GET", "/new", 204))?;
    let config = split.control.ready().config.to_string();
    split.control.kill()?;
    for round in 0..3 {
        split.data.kill()?;
        split.data = context.plan().data_plane("node", &config, None, FREE)?;
        for one in &deployed {
            ensure_serves(
                &split.data,
                one,
                &format!("start {round} from the last known good"),
            )?;
        }
        let new = get(
            split.data.ready().http,
            &deployed[1].host(),
            &deployed[1].path("/new"),
        )?;
        ensure!(
            new.status == 204,
            "the newest deployment is the one that returns: {new:?}"
        );
    }
    split.control = context.plan().control_plane("control", &config)?;
    split.control.await_nodes()?;
    let fresh = split.control.import(&everything(&split.backend), "test")?;
    split.control.await_nodes()?;
    ensure_serves(&split.data, &fresh, "with the control plane back")
}

/// C12: `up` restarts a plane that was killed, at the same addresses, and the other one does not notice.
fn up_restarts_what_is_killed(context: &Context) -> Result<()> {
    let backend = Backend::start()?;
    let mut up = context.plan().up("up")?;
    let deployed = up.import(&everything(&backend), "test")?;
    let first = up.ready().clone();
    let (control, data) = (
        first.control_plane.context("a control plane")?,
        first.data_plane.context("a data plane")?,
    );
    let load = Load::start(&target(&up, &deployed), 4);
    load.await_answers(100)?;
    signal(control, Signal::KILL)?;
    ensure!(await_end(control, PATIENCE)?, "the control plane outlives a kill");
    up.await_ready(|ready| ready.control_plane.is_some_and(|pid| pid != control))?;
    ensure!(
        up.ready().admin == first.admin && up.ready().http == first.http,
        "addresses moved: {:?}",
        up.ready().json
    );
    // Where the nodes answer is remembered: the import prints it, whether the data plane is back by then or not.
    let second = up.import(&everything(&backend), "test")?;
    up.await_nodes()?;
    ensure_serves(&up, &second, "after the control plane's return")?;
    load.await_answers(100)?;
    load.stop().ensure_flawless(&[200])?;
    signal(data, Signal::KILL)?;
    ensure!(await_end(data, PATIENCE)?, "the data plane outlives a kill");
    up.await_ready(|ready| ready.data_plane.is_some_and(|pid| pid != data))?;
    ensure!(
        up.ready().http == first.http,
        "the data plane's address moved: {:?}",
        up.ready().json
    );
    ensure_serves(&up, &deployed, "after the data plane's return")?;
    ensure_serves(&up, &second, "after the data plane's return")?;
    let planes = [up.ready().control_plane, up.ready().data_plane];
    ensure!(up.terminate()?.success(), "an orderly end is no failure");
    for pid in planes.into_iter().flatten() {
        ensure!(await_end(pid, PATIENCE)?, "process {pid} outlives its supervisor");
    }
    Ok(())
}

/// D15: SIGTERM: requests that have begun are finished, connections that idle are closed, the process ends with success.
fn an_orderly_end_finishes_what_it_began(context: &Context) -> Result<()> {
    let mut split = split(context)?;
    let deployed = split.control.import(&everything(&split.backend), "test")?;
    let address = split.data.ready().http;
    let mut idle = Connection::open(address)?;
    idle.send(request("GET", &deployed.host(), &deployed.path("/b/fixed/3")))?;
    ensure!(idle.response()?.status == 200, "before");
    let mut busy = Connection::open(address)?;
    busy.send(format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Length: 6\r\n\r\nabc",
        deployed.path("/b/echo"),
        deployed.host()
    ))?;
    let mut large = Connection::open(address)?;
    large.send(request(
        "GET",
        &deployed.host(),
        &deployed.path("/b/fixed/9000000"),
    ))?;
    large.read_some(1)?;
    signal(split.data.pid().context("a process")?, Signal::TERM)?;
    // The idle one is closed, which shows that the drain has begun.
    let (rest, _) = idle.drain()?;
    ensure!(rest.is_empty(), "an idle connection gets nothing: {rest:?}");
    busy.send("def")?;
    let answered = busy.response().context("a request that had begun")?;
    ensure!(
        answered.status == 200 && answered.json()?["body"] == "abcdef",
        "{answered:?}"
    );
    ensure!(answered.header("connection") == Some("close"), "{answered:?}");
    ensure!(
        large.response()?.body == pattern(9_000_000),
        "a response that had begun"
    );
    ensure!(split.data.await_exit()?.success(), "the end is in order");
    ensure!(Connection::open(address).is_err(), "nobody listens any more");
    Ok(())
}

/// C1: the last known good with one byte flipped in any of its records: at most the API of that record is missing, every
/// other one is served, and all are back when the control plane is.
fn a_damaged_bundle_stops_nobody_else(context: &Context) -> Result<()> {
    let mut split = split(context)?;
    let mut deployed = Vec::new();
    for _ in 0..3 {
        deployed.push(split.control.import(&everything(&split.backend), "test")?);
    }
    let config = split.control.ready().config.to_string();
    split.control.kill()?;
    split.data.kill()?;
    let file = split.data.data().join("node/last-known-good");
    let sound = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    let records: Vec<usize> = sound
        .windows(RECORD.len())
        .enumerate()
        .filter(|(_, window)| *window == RECORD)
        .map(|(at, _)| at)
        .collect();
    ensure!(
        records.len() >= deployed.len(),
        "{} records hold {} APIs",
        records.len(),
        deployed.len()
    );
    let mut missing = 0;
    for (at, record) in records.iter().enumerate() {
        let end = records.get(at + 1).copied().unwrap_or(sound.len());
        let mut damaged = sound.clone();
        damaged[end - 1] ^= 1;
        std::fs::write(&file, &damaged)?;
        split.data = context.plan().data_plane("node", &config, None, FREE)?;
        let mut served = 0;
        for one in &deployed {
            let response = get(split.data.ready().http, &one.host(), &one.path("/b/fixed/9"))?;
            ensure!(
                matches!(response.status, 200 | 403),
                "record {at} at {record}: {response:?}"
            );
            served += usize::from(response.status == 200);
        }
        ensure!(
            served + 1 >= deployed.len(),
            "a flipped byte in record {at} at {record} left {served} of 3 APIs"
        );
        missing += deployed.len() - served;
        split.data.kill()?;
    }
    ensure!(missing > 0, "no damage was noticed");
    split.data = context.plan().data_plane("node", &config, None, FREE)?;
    split.control = context.plan().control_plane("control", &config)?;
    split.control.await_nodes()?;
    for one in &deployed {
        ensure_serves(&split.data, one, "with the control plane back")?;
    }
    Ok(())
}

/// What each record of the last known good begins with.
const RECORD: &[u8] = &[0xf5, b'T', b'G', b'r', 0x0d, 0x0a, 0x00, 0xfa];

/// A join token is good once; a node that has joined needs none, and `tidegate nodes` shows it.
fn a_join_token_admits_one_node(context: &Context) -> Result<()> {
    let control = context.plan().control_plane("control", FREE)?;
    let join = join_file(&control, context.directory(), "node")?;
    let config = control.ready().config.to_string();
    let mut first = context.plan().data_plane("first", &config, Some(&join), FREE)?;
    let nodes = control.json(&["nodes"])?;
    ensure!(
        nodes["nodes"].as_array().is_some_and(|nodes| nodes.len() == 1),
        "{nodes}"
    );
    let second = context.plan().data_plane("second", &config, Some(&join), FREE);
    let error = second.err().context("a used token admitted a second node")?;
    ensure!(
        format!("{error:#}").to_lowercase().contains("token"),
        "the refusal does not say why: {error:#}"
    );
    first.terminate()?;
    let again = context.plan().data_plane("first", &config, None, FREE)?;
    ensure!(
        again.ready().http.port() != 0,
        "the node that has joined starts without a token"
    );
    Ok(())
}

/// C1: a control plane that was restored from a backup, and has gone its own way under the same revisions, gets its node
/// back with what it has itself: nothing of the lost history stays, nothing of its own is missing.
fn a_restored_control_plane_is_another_installation(context: &Context) -> Result<()> {
    let mut split = split(context)?;
    let kept = split.control.import(&everything(&split.backend), "test")?;
    let backup = context.directory().join("backup");
    let backup_file = backup.display().to_string();
    split.control.run(&["backup", &backup_file])?;
    let spare = context.directory().join("spare.join");
    std::fs::write(&spare, split.control.run(&["node", "token"])?)?;
    let lost = split.control.import(&everything(&split.backend), "test")?;
    split.control.await_nodes()?;
    ensure_serves(&split.data, &lost, "before the loss")?;
    let before = split.control.json(&["ca"])?;
    let config = split.control.ready().config.to_string();
    split.data.kill()?;
    split.control.kill()?;

    let key = split.control.data().join("secrets.key").display().to_string();
    let restored = context.directory().join("restored").display().to_string();
    split.control.run_alone(&[
        "restore",
        &backup_file,
        "--key-file",
        &key,
        "--data-dir",
        &restored,
    ])?;
    split.control = context.plan().control_plane("restored", &config)?;
    let after = split.control.json(&["ca"])?;
    ensure!(
        before["authorityPem"] == after["authorityPem"]
            && before["installationId"] != after["installationId"],
        "{before} {after}"
    );
    // The same revisions are given out again, to other changes.
    let own = [
        split.control.import(&everything(&split.backend), "test")?,
        split.control.import(&everything(&split.backend), "test")?,
    ];
    split.data = context.plan().data_plane("node", &config, None, FREE)?;
    split.control.await_nodes()?;
    for deployed in own.iter().chain([&kept]) {
        ensure_serves(&split.data, deployed, "from the restored control plane")?;
    }
    let gone = get(split.data.ready().http, &lost.host(), &lost.path("/b/fixed/9"))?;
    ensure!(gone.status == 403, "what was lost is still served: {gone:?}");
    Ok(())
}

/// C2: what a roll-out says of a node that is away: that it is, and what it last ran; before and after a restart of the
/// control plane, which remembers where the node answers.
fn nodes_that_are_away_are_told_of(context: &Context) -> Result<()> {
    let mut split = split(context)?;
    split.control.import(&everything(&split.backend), "test")?;
    split.control.await_nodes()?;
    let http = split.data.ready().http;
    split.data.terminate()?;
    let config = split.control.ready().config.to_string();
    for restarted in [false, true] {
        if restarted {
            split.control.terminate()?;
            split.control = context.plan().control_plane("control", &config)?;
        }
        let node = loop {
            let nodes = split.control.json(&["nodes"])?;
            let node = nodes["nodes"][0].clone();
            // The end of its stream reaches the control plane a moment after the end of its process.
            if node["connected"] != true {
                break node;
            }
        };
        ensure!(node["httpAddress"] == http.to_string().as_str(), "{node}");
        let api = everything(&split.backend);
        let deployed = split.control.import(&api, "test")?;
        ensure!(
            deployed.invoke_url.starts_with(&format!("http://{http}/")),
            "{deployed:?}"
        );
        let wait = split.control.json(&["wait", "0"])?;
        ensure!(
            wait["complete"] == true
                && wait["nodes"][0]["away"] == true
                && wait["nodes"][0]["revision"] == node["revision"]
                && wait["revision"] != node["revision"],
            "{wait} {node}"
        );
        let said = split.control.command(&["wait", "0"])?;
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(said.contains("is away, last seen at revision"), "{said}");
    }
    Ok(())
}
