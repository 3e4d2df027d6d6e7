//! Hot upgrades (D17): a new process takes over under load, and no connection is refused, no request lost; where it fails
//! half-way, the old one goes on.

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tidegate_harness::backend::{Backend, pattern};
use tidegate_harness::http2::{self, Ended, Http2};
use tidegate_harness::instance::{Deployed, FREE, Instance};
use tidegate_harness::load::{Load, Seen, Target};
use tidegate_harness::process::{PATIENCE, await_end, await_file, signal, spawn};
use tidegate_harness::raw::{Connection, get, request};
use tidegate_harness::suite::{Context, Test};
use tidegate_harness::tools;

use crate::pets::everything;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::both_drivers("upgrades_lose_nothing", upgrades_lose_nothing),
    Test::both_drivers("a_failed_upgrade_costs_nothing", a_failed_upgrade_costs_nothing),
    Test::both_drivers(
        "other_shards_take_over_and_other_addresses_do_not",
        other_shards_take_over_and_other_addresses_do_not,
    ),
    Test::both_drivers("an_idle_data_plane_makes_way", an_idle_data_plane_makes_way),
    Test::both_drivers(
        "who_is_silent_may_speak_once_more",
        who_is_silent_may_speak_once_more,
    ),
    Test::once(
        "a_data_plane_alone_starts_its_successor",
        a_data_plane_alone_starts_its_successor,
    ),
    Test::once("another_driver_takes_over", another_driver_takes_over),
    Test::once("sockets_come_from_systemd", sockets_come_from_systemd),
    Test::both_drivers("twenty_upgrades_lose_nothing", twenty_upgrades_lose_nothing).slow(),
];

/// Requests of every kind that go on until they are told to stop: HTTP/1.1 on connections that are kept and on new ones,
/// HTTP/2 on connections that are kept, and both over TLS.
struct Traffic {
    kept: Load,
    fresh: Load,
    streams: Rounds,
    tls: [Rounds; 2],
}

impl Traffic {
    fn start(context: &Context, gateway: &Instance, deployed: &Deployed) -> Result<Self> {
        let target = target(gateway, deployed);
        let closing = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            deployed.path("/b/fixed/100"),
            deployed.host()
        );
        let fresh = Target {
            request: closing.into_bytes(),
            ..target.clone()
        };
        Ok(Self {
            kept: Load::start(&target, 8),
            fresh: Load::start(&fresh, 4),
            streams: Streams::start(gateway, deployed),
            tls: [
                tls(context, gateway, deployed, "--http1.1", "1.1")?,
                tls(context, gateway, deployed, "--http2", "2")?,
            ],
        })
    }

    /// Waits until some more of each kind have been answered.
    fn flow(&self) -> Result<()> {
        self.kept.await_answers(100)?;
        self.fresh.await_answers(50)?;
        self.streams.await_answers(50)?;
        self.tls.iter().try_for_each(|tls| tls.await_answers(4))
    }

    /// Every request was answered, and well; a connection may be ended in order after an answer.
    fn ensure_nothing_lost(self) -> Result<()> {
        let flawless = |name: &str, seen: Seen| {
            ensure!(
                seen.failed == 0 && seen.wrong_bodies == 0 && seen.answered() == seen.status(200),
                "{name}: {} failed, {} wrong, {:?}: {:?}",
                seen.failed,
                seen.wrong_bodies,
                seen.by_status,
                seen.failures
            );
            Ok(())
        };
        flawless("kept connections", self.kept.stop())?;
        flawless("fresh connections", self.fresh.stop())?;
        self.streams.stop()?;
        self.tls.into_iter().try_for_each(Rounds::stop)
    }
}

/// Something that is done again and again until it is told to stop, or fails.
struct Rounds {
    name: &'static str,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    worker: Option<JoinHandle<Result<()>>>,
}

impl Rounds {
    /// `round` says how many requests it had answered.
    fn start(name: &'static str, mut round: impl FnMut() -> Result<u64> + Send + 'static) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let worker = {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    answered.fetch_add(round()?, Ordering::SeqCst);
                }
                Ok(())
            })
        };
        Self {
            name,
            stop,
            answered,
            worker: Some(worker),
        }
    }

    fn await_answers(&self, more: u64) -> Result<()> {
        let (goal, deadline) = (
            self.answered.load(Ordering::SeqCst) + more,
            Instant::now() + PATIENCE,
        );
        while self.answered.load(Ordering::SeqCst) < goal {
            let ended = self.worker.as_ref().is_none_or(JoinHandle::is_finished);
            ensure!(
                !ended && Instant::now() < deadline,
                "{}: nothing is answered any more",
                self.name
            );
            std::thread::yield_now();
        }
        Ok(())
    }

    fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        let worker = self.worker.take().context("a worker")?;
        worker
            .join()
            .map_err(|_| anyhow::anyhow!("it panicked"))
            .flatten()
            .with_context(|| self.name)
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// curl over TLS: each call makes a connection and sends several requests on it.
fn tls(
    context: &Context,
    gateway: &Instance,
    deployed: &Deployed,
    flag: &'static str,
    version: &str,
) -> Result<Rounds> {
    tools::find("curl")?;
    let authority = context
        .directory()
        .join(format!("authority-{}.pem", deployed.api_id));
    std::fs::write(&authority, gateway.run(&["ca"])?)?;
    let port = gateway.ready().https.port();
    let url = format!(
        "https://{}:{port}{}",
        deployed.host(),
        deployed.path("/b/fixed/5")
    );
    let resolve = format!("{}:{port}:127.0.0.1", deployed.host());
    let authority = authority.display().to_string();
    let expected = format!("{}/{version};", String::from_utf8(pattern(5))?).repeat(3);
    Ok(Rounds::start(flag, move || {
        let told = "/%{http_version};";
        let output = tools::curl(&[
            "--noproxy",
            "*",
            "--fail-with-body",
            flag,
            "-w",
            told,
            "--resolve",
            &resolve,
            "--cacert",
            &authority,
            &url,
            &url,
            &url,
        ])?;
        ensure!(
            output.status.success() && output.stdout == expected.as_bytes(),
            "{} {:?} {}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(3)
    }))
}

/// HTTP/2 connections that are kept, each with several streams at a time. A stream that was opened must be answered in
/// full; a connection is left for a new one when the server says GOAWAY, not before.
struct Streams {
    address: SocketAddr,
    host: String,
    path: String,
    connections: [Option<(Http2, u32)>; 2],
}

impl Streams {
    fn start(gateway: &Instance, deployed: &Deployed) -> Rounds {
        let mut streams = Self {
            address: gateway.ready().http,
            host: deployed.host(),
            path: deployed.path("/b/fixed/100"),
            connections: [None, None],
        };
        Rounds::start("HTTP/2 streams", move || streams.round())
    }

    /// Has streams under way on every connection at once.
    fn round(&mut self) -> Result<u64> {
        for place in &mut self.connections {
            let (connection, next) = match place {
                Some(open) => open,
                None => place.insert((Http2::open(self.address)?, 1)),
            };
            let fields = http2::request("GET", &self.host, &self.path, &[]);
            let heads: Vec<_> = (0..STREAMS)
                .flat_map(|at| http2::headers(*next + 2 * at, http2::flag::END_STREAM, &fields))
                .collect();
            connection.send(heads)?;
            *next += 2 * STREAMS;
        }
        let mut answered = 0;
        for place in &mut self.connections {
            let Some((connection, next)) = place else { continue };
            for id in (*next - 2 * STREAMS..*next).step_by(2) {
                let stream = connection.end_of(id)?;
                ensure!(
                    stream.ended == Ended::Whole && stream.status == Some(200) && stream.body == pattern(100),
                    "stream {id}: {stream:?}, after {:?}, closed: {}",
                    connection.goaways,
                    connection.closed
                );
                answered += 1;
            }
            connection.streams.clear();
            if !connection.goaways.is_empty() {
                *place = None;
            }
        }
        Ok(answered)
    }
}

/// Streams under way on a connection.
const STREAMS: u32 = 4;

fn target(gateway: &Instance, deployed: &Deployed) -> Target {
    Target {
        address: gateway.ready().http,
        request: request("GET", &deployed.host(), &deployed.path("/b/fixed/100")).into_bytes(),
        body: Some(pattern(100)),
    }
}

fn serves(gateway: &Instance, deployed: &Deployed) -> Result<()> {
    let response = get(
        gateway.ready().http,
        &deployed.host(),
        &deployed.path("/b/fixed/9"),
    )?;
    ensure!(
        response.status == 200 && response.body == pattern(9),
        "{response:?}"
    );
    Ok(())
}

const PRIOR_KNOWLEDGE: &str = "TIDEGATE_HTTP2_PRIOR_KNOWLEDGE";

/// D17: upgrades in a row under load, HTTP/1.1 and HTTP/2, plain and over TLS, on connections that are kept and new ones; the ready file names the new
/// process, the old one ends, and the new one takes configuration.
fn upgrades_lose_nothing(context: &Context) -> Result<()> {
    upgrade_under_load(context, 3)
}

/// D17, the long run.
fn twenty_upgrades_lose_nothing(context: &Context) -> Result<()> {
    upgrade_under_load(context, 20)
}

fn upgrade_under_load(context: &Context, times: usize) -> Result<()> {
    let backend = Backend::start()?;
    let mut up = context.plan().set(PRIOR_KNOWLEDGE, "true").up("up")?;
    let deployed = up.import(&everything(&backend), "test")?;
    let addresses = (up.ready().http, up.ready().https, up.ready().metrics);
    let traffic = Traffic::start(context, &up, &deployed)?;
    let session = context.directory().join("session.pem");
    resumes(&up, &deployed, &session, "-sess_out", "New")?;
    for _ in 0..times {
        traffic.flow()?;
        let before = up.ready().data_plane.context("a data plane")?;
        let answer = up.json(&["upgrade"])?;
        ensure!(answer["from"] == before, "{answer} and {before}");
        up.read_again()?;
        let after = up.ready().data_plane.context("a data plane")?;
        ensure!(
            after != before && answer["to"] == after,
            "{answer}, but the ready file says {after}"
        );
        ensure!(await_end(before, PATIENCE)?, "process {before} does not end");
    }
    traffic.flow()?;
    // The keys of session tickets have travelled.
    resumes(&up, &deployed, &session, "-sess_in", "Reused")?;
    ensure!(
        addresses == (up.ready().http, up.ready().https, up.ready().metrics),
        "addresses moved: {:?}",
        up.ready().json
    );
    up.await_nodes()?;
    let fresh = up.import(&everything(&backend), "test")?;
    serves(&up, &fresh)?;
    let connected = up.json(&["nodes"])?;
    ensure!(
        connected["nodes"]
            .as_array()
            .is_some_and(|nodes| nodes.len() == 1),
        "old and new are one node: {connected}"
    );
    traffic.ensure_nothing_lost()
}

/// Makes a TLS connection with openssl, which says whether it resumed a session.
fn resumes(gateway: &Instance, deployed: &Deployed, session: &Path, flag: &str, says: &str) -> Result<()> {
    let mut client = Command::new(tools::find("openssl")?);
    client
        .args(["s_client", "-tls1_2", "-servername", &deployed.host(), "-connect"])
        .arg(gateway.ready().https.to_string())
        .arg(flag)
        .arg(session)
        .stdin(std::process::Stdio::null());
    let output = client.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        text.contains(&format!("{says}, TLSv1.2")),
        "not {says}: {text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// D17: the new process ends or hangs before it is ready, or after it was told to accept, or is killed: the command says
/// so, the old process goes on and takes configuration, and a later upgrade works.
fn a_failed_upgrade_costs_nothing(context: &Context) -> Result<()> {
    let backend = Backend::start()?;
    let mut up = context
        .plan()
        .set("TIDEGATE_FAULT_INJECTION", "1")
        .set(PRIOR_KNOWLEDGE, "true")
        .set("TIDEGATE_LIMITS__UPGRADE_TIMEOUT", "4s")
        .up("up")?;
    let deployed = up.import(&everything(&backend), "test")?;
    let before = up.ready().data_plane.context("a data plane")?;
    let traffic = Traffic::start(context, &up, &deployed)?;
    let fault = up.data().join("run/upgrade-fault");
    for point in [
        "end-before-ready",
        "hang-before-ready",
        "end-after-go",
        "hang-after-go",
    ] {
        std::fs::write(&fault, point)?;
        let output = up.command(&["upgrade"])?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            !output.status.success() && told.contains("goes on"),
            "{point}: {} {told}",
            output.status
        );
        traffic.flow().with_context(|| format!("after {point}"))?;
        let fresh = up.import(&everything(&backend), "test")?;
        serves(&up, &fresh).with_context(|| format!("what is new after {point}"))?;
    }
    // Killed by somebody else.
    std::fs::write(&fault, "hang-before-ready")?;
    let output = std::thread::scope(|scope| {
        let asked = scope.spawn(|| up.command(&["upgrade"]));
        let supervisor = up.pid().context("a supervisor")?;
        let deadline = Instant::now() + PATIENCE;
        let new = loop {
            if let Some(new) = taking_over(supervisor)? {
                break new;
            }
            ensure!(Instant::now() < deadline, "no new process comes");
            std::thread::yield_now();
        };
        signal(new, Signal::KILL)?;
        asked
            .join()
            .map_err(|_| anyhow::anyhow!("the command panicked"))?
    })?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success() && told.contains("signal 9"),
        "{} {told}",
        output.status
    );
    traffic.flow()?;
    std::fs::remove_file(&fault)?;
    up.read_again()?;
    ensure!(up.ready().data_plane == Some(before), "{:?}", up.ready().json);
    up.run(&["upgrade"])?;
    up.read_again()?;
    ensure!(up.ready().data_plane != Some(before), "{:?}", up.ready().json);
    traffic.flow()?;
    traffic.ensure_nothing_lost()
}

/// D17: a data plane without a connection to finish ends the moment that it is relieved, before its supervisor can know
/// that the new one serves.
fn an_idle_data_plane_makes_way(context: &Context) -> Result<()> {
    let mut up = context.plan().up("up")?;
    for _ in 0..5 {
        let before = up.ready().data_plane;
        let answer = up.json(&["upgrade"])?;
        up.read_again()?;
        ensure!(
            up.ready().data_plane != before && answer["to"] == up.ready().json["pids"]["dataplane"],
            "{answer} and {:?}",
            up.ready().json
        );
    }
    Ok(())
}

/// D17: the old process answers one more request of each connection that it has, however far that has come; HTTP/2 is told
/// by GOAWAY, first that there is an end, then where it is (RFC 9113 section 6.8). Then it ends.
fn who_is_silent_may_speak_once_more(context: &Context) -> Result<()> {
    let backend = Backend::start()?;
    let mut plan = context.plan().set(PRIOR_KNOWLEDGE, "true");
    // None of them is to come first.
    for bound in ["RETIRE_IDLE_TIMEOUT", "LINGER_TIMEOUT", "REQUEST_HEAD_TIMEOUT"] {
        plan = plan.set(&format!("TIDEGATE_LIMITS__{bound}"), "60s");
    }
    let up = plan.up("up")?;
    let deployed = up.import(&everything(&backend), "test")?;
    let before = up.ready().data_plane.context("a data plane")?;
    let (address, metrics) = (up.ready().http, up.ready().metrics);
    let mut mute = Connection::open(address)?;
    let mut silent = Http2::silent(address)?;
    let mut idle = Http2::open(address)?;
    ensure!(idle.ping()?, "HTTP/2 is spoken");
    let deadline = Instant::now() + PATIENCE;
    while open_connections(metrics)? < 3 {
        ensure!(Instant::now() < deadline, "the connections are not accepted");
        std::thread::yield_now();
    }
    up.run(&["upgrade"])?;
    let (host, path) = (deployed.host(), deployed.path("/b/fixed/7"));
    mute.send(request("GET", &host, &path))?;
    let response = mute.response()?;
    ensure!(
        response.body == pattern(7) && response.header("connection") == Some("close"),
        "{response:?}"
    );
    silent.send([http2::PREFACE, &http2::settings(&[(1, 0)])].concat())?;
    for mut connection in [silent, idle] {
        let stream = connection.get(1, &host, &path)?;
        ensure!(
            stream.status == Some(200) && stream.body == pattern(7),
            "{stream:?} {:?}",
            connection.goaways
        );
        connection.end()?;
        let told = [(LAST_STREAM, http2::code::NO_ERROR), (1, http2::code::NO_ERROR)];
        ensure!(connection.goaways == told, "{:?}", connection.goaways);
    }
    ensure!(await_end(before, PATIENCE)?, "process {before} does not end");
    Ok(())
}

/// What a first GOAWAY names, when streams may still be on their way.
const LAST_STREAM: u32 = (1 << 31) - 1;

fn open_connections(metrics: SocketAddr) -> Result<u64> {
    let text = get(metrics, "metrics", "/metrics")?.text();
    let values = text
        .lines()
        .filter(|line| line.starts_with("tidegate_connections{"))
        .filter_map(|line| line.rsplit(' ').next());
    values.map(|value| Ok(value.parse::<u64>()?)).sum()
}

/// The child of a process that was started to take over.
fn taking_over(parent: u32) -> Result<Option<u32>> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let is_new = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"--take-over"))
    };
    Ok(children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .find(is_new))
}

/// Both planes apart.
fn split(context: &Context) -> Result<(Instance, Instance, Backend, Deployed)> {
    let backend = Backend::start()?;
    let control = context.plan().control_plane("control", FREE)?;
    let join = context.directory().join("join");
    std::fs::write(&join, control.run(&["node", "token"])?)?;
    let config = control.ready().config.to_string();
    let data = context
        .plan()
        .shards(2)
        .data_plane("node", &config, Some(&join), FREE)?;
    let deployed = control.import(&everything(&backend), "test")?;
    Ok((control, data, backend, deployed))
}

/// D17: a process with more shards takes over, then one with fewer: every socket is still accepted from. One that is to
/// listen elsewhere is refused, with the way out, and the running one goes on.
fn other_shards_take_over_and_other_addresses_do_not(context: &Context) -> Result<()> {
    let (control, mut data, _backend, deployed) = split(context)?;
    let config = control.ready().config.to_string();
    let http = data.ready().http.to_string();
    let target = target(&data, &deployed);
    let kept = Load::start(&target, 8);
    for shards in [3, 1, 2] {
        kept.await_answers(100)?;
        let new = context
            .plan()
            .shards(shards)
            .with(&["--take-over"])
            .data_plane("node", &config, None, &http)?;
        ensure!(
            data.await_exit()?.success(),
            "the old process ends in order for {shards} shards"
        );
        data = new;
        // Connections spread over the sockets by their port: some fall to each.
        for _ in 0..40 {
            serves(&data, &deployed).with_context(|| format!("with {shards} shards"))?;
        }
    }
    let elsewhere = context
        .plan()
        .with(&["--take-over"])
        .data_plane("node", &config, None, "127.0.0.1:9");
    let error = elsewhere.err().context("it listens elsewhere")?;
    ensure!(
        format!("{error:#}").contains("restart it to change them"),
        "{error:#}"
    );
    kept.await_answers(100)?;
    let seen = kept.stop();
    ensure!(seen.failed == 0 && seen.wrong_bodies == 0, "{seen:?}");
    ensure!(data.terminate()?.success(), "the last one ends in order");
    let nobody = context
        .plan()
        .with(&["--take-over"])
        .data_plane("node", &config, None, &http);
    let error = nobody.err().context("nobody is there to take over from")?;
    ensure!(
        format!("{error:#}").contains("no data plane runs on"),
        "{error:#}"
    );
    Ok(())
}

/// D17, D4: between a ring and epoll, both ways: the sockets' blocking mode is not the old process's concern any more.
fn another_driver_takes_over(context: &Context) -> Result<()> {
    let (control, mut data, _backend, deployed) = split(context)?;
    let config = control.ready().config.to_string();
    let http = data.ready().http.to_string();
    let kept = Load::start(&target(&data, &deployed), 8);
    for driver in ["epoll", "uring", "epoll"] {
        kept.await_answers(100)?;
        let new = context
            .plan()
            .driver(driver)
            .with(&["--take-over"])
            .data_plane("node", &config, None, &http)?;
        ensure!(data.await_exit()?.success(), "the old process ends in order");
        data = new;
        ensure!(data.ready().driver.starts_with(driver), "{:?}", data.ready().json);
        serves(&data, &deployed)?;
    }
    kept.await_answers(100)?;
    let seen = kept.stop();
    ensure!(seen.failed == 0 && seen.wrong_bodies == 0, "{seen:?}");
    Ok(())
}

/// D17: a data plane without a supervisor starts the process that takes over, tells systemd of it, and ends.
fn a_data_plane_alone_starts_its_successor(context: &Context) -> Result<()> {
    let (control, mut data, _backend, deployed) = split(context)?;
    let config = control.ready().config.to_string();
    data.terminate()?;
    let path = context.directory().join("notify");
    let told = UnixDatagram::bind(&path)?;
    told.set_read_timeout(Some(PATIENCE))?;
    let plan = context.plan().set("NOTIFY_SOCKET", &path.display().to_string());
    let mut data = plan.data_plane("node", &config, None, FREE)?;
    ensure!(hear(&told)? == "READY=1", "systemd is told that it serves");
    let first = data.ready().data_plane.context("a data plane")?;
    let kept = Load::start(&target(&data, &deployed), 8);
    kept.await_answers(100)?;
    let answer = data.json(&["upgrade"])?;
    let second = answer["to"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok())
        .context("a process id")?;
    ensure!(second != first && answer["from"] == first, "{answer}");
    let said = [hear(&told)?, hear(&told)?];
    ensure!(
        said.contains(&format!("MAINPID={second}")) && said.contains(&"READY=1".to_owned()),
        "{said:?}"
    );
    ensure!(data.await_exit()?.success(), "the old process ends in order");
    data.read_again()?;
    ensure!(data.ready().data_plane == Some(second), "{:?}", data.ready().json);
    kept.await_answers(100)?;
    let seen = kept.stop();
    ensure!(seen.failed == 0 && seen.wrong_bodies == 0, "{seen:?}");
    control.await_nodes()?;
    signal(second, Signal::TERM)?;
    ensure!(await_end(second, PATIENCE)?, "the new process ends when told to");
    let output = data.command(&["upgrade"])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success() && told.contains("no data plane runs on"),
        "{told}"
    );
    Ok(())
}

fn hear(socket: &UnixDatagram) -> Result<String> {
    let mut text = [0; 256];
    let length = socket.recv(&mut text).context("systemd hears nothing")?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

/// sd_listen_fds(3): sockets that are passed are served from, and stay open for whoever comes next: a connection made
/// while no data plane runs is answered by the one that starts.
fn sockets_come_from_systemd(context: &Context) -> Result<()> {
    let (control, mut data, _backend, deployed) = split(context)?;
    let config = control.ready().config.to_string();
    data.terminate()?;
    let holder = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = holder.local_addr()?;
    rustix::io::fcntl_setfd(&holder, rustix::io::FdFlags::empty())?;
    let python = tools::find("python3")?;
    for names in ["http", "tidegate.socket"] {
        let mut early = Connection::open(address)?;
        early.send(request("GET", &deployed.host(), &deployed.path("/b/fixed/3")))?;
        let run = context.directory().join("activated");
        std::fs::create_dir_all(&run)?;
        let ready = run.join(format!("{names}.ready"));
        let mut command = Command::new(&python);
        command.args(["-c", PASS_ON, &holder.as_raw_fd().to_string(), names]);
        command
            .arg(context.binary())
            .args([
                "dataplane",
                "--control",
                &config,
                "--shards",
                "2",
                "--https",
                FREE,
            ])
            .args(["--metrics", FREE, "--data-dir"])
            .arg(data.data())
            .arg("--ready-file")
            .arg(&ready);
        let log = run.join(format!("{names}.log"));
        let mut child = spawn(command, &log)?;
        let told = await_file(&run, &mut child, || std::fs::read_to_string(&ready).ok());
        if names == "http" {
            let told: serde_json::Value = serde_json::from_str(&told?)?;
            ensure!(told["http"] == address.to_string(), "{told}");
            ensure!(early.response()?.body == pattern(3), "what waited is answered");
            signal(child.id(), Signal::TERM)?;
            ensure!(child.wait()?.success(), "an orderly end");
        } else {
            ensure!(told.is_err(), "a socket of an unknown name is taken");
            let said = std::fs::read_to_string(&log)?;
            ensure!(said.contains("FileDescriptorName="), "{said}");
        }
    }
    Ok(())
}

/// What systemd does before exec: the socket becomes descriptor 3, and the environment says so.
const PASS_ON: &str = "\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
";
