//! Peers that mean harm or are broken: noise on every port, heads and bodies that never end, aborts at every byte. Others
//! are served meanwhile, nothing is lost, and memory stays bounded.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tidegate_harness::backend::{Backend, pattern};
use tidegate_harness::definition::Definition;
use tidegate_harness::instance::FREE;
use tidegate_harness::process::{PATIENCE, await_exit, resident};
use tidegate_harness::raw::{Connection, End, get, request, request_with};
use tidegate_harness::suite::{Context, Shared, Test};
use tidegate_harness::tools;

use crate::pets::everything;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::everywhere("a_panic_ends_one_connection", a_panic_ends_one_connection),
    Test::both_drivers("noise_on_every_port", noise_on_every_port),
    Test::once(
        "strangers_at_the_configuration_address",
        strangers_at_the_configuration_address,
    ),
    Test::both_drivers(
        "unfinished_heads_run_out_of_time",
        unfinished_heads_run_out_of_time,
    ),
    Test::both_drivers(
        "unfinished_bodies_run_out_of_time",
        unfinished_bodies_run_out_of_time,
    )
    .slow(),
    Test::everywhere("requests_aborted_at_each_byte", requests_aborted_at_each_byte),
    Test::everywhere("responses_aborted_on_the_way", responses_aborted_on_the_way),
    Test::both_drivers(
        "readers_that_do_not_read_hold_little",
        readers_that_do_not_read_hold_little,
    ),
    Test::everywhere(
        "readers_that_pause_get_everything",
        readers_that_pause_get_everything,
    ),
    Test::everywhere(
        "backends_that_pause_get_everything",
        backends_that_pause_get_everything,
    ),
    Test::both_drivers(
        "backends_that_never_read_on_are_timed_out",
        backends_that_never_read_on_are_timed_out,
    ),
    Test::once(
        "large_calls_of_the_admin_api_are_refused",
        large_calls_of_the_admin_api_are_refused,
    ),
    Test::once(
        "silent_admin_connections_make_room",
        silent_admin_connections_make_room,
    ),
];

/// A generator with a seed, so that what failed once fails again.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                (self.0 >> 24) as u8
            })
            .collect()
    }
}

fn data_plane(shared: &Shared) -> Result<u32> {
    shared
        .instance
        .ready()
        .data_plane
        .context("the ready file names the data plane's process")
}

/// Descriptors that the data plane holds open, but for the connections to backends that it keeps for the next request:
/// those come and go with the tests beside this one.
fn descriptors(shared: &Shared) -> Result<usize> {
    let kept = metric(shared, "tidegate_upstream_connections", "state=\"idle\"")?;
    let open = std::fs::read_dir(format!("/proc/{}/fd", data_plane(shared)?))?.count();
    Ok(open.saturating_sub(kept.try_into()?))
}

/// Serves requests until the data plane holds no more descriptors than `bound`; each request is a turn in which it can
/// let go of what it holds.
fn ensure_let_go(shared: &Shared, host: &str, target: &str, bound: usize) -> Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let served = get(shared.http(), host, target)?;
        ensure!(served.status == 200, "no longer served: {served:?}");
        let open = descriptors(shared)?;
        if open <= bound {
            return Ok(());
        }
        if std::time::Instant::now() > deadline {
            bail!("{open} descriptors are open, {bound} are allowed");
        }
        std::thread::yield_now();
    }
}

/// Bytes that are no protocol, and protocols at the wrong port: an answer or an end, and the process lives.
fn noise_on_every_port(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let ready = shared.instance.ready();
    let mut noise = Noise(0x7469_6465_6761_7465);
    let hello = [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &noise.bytes(194)].concat();
    let ports = [
        ("http", ready.http),
        ("https", ready.https),
        ("admin", ready.admin),
        ("management", ready.management),
        ("metrics", ready.metrics),
        ("config", ready.config),
    ];
    ensure!(ready.config.port() != 0, "the configuration address is not told");
    for (name, address) in ports {
        if address.port() == 0 {
            continue; // not served in this release
        }
        let mut inputs = vec![
            hello.clone(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff".to_vec(),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"\r\n\r\n\r\n\r\n".to_vec(),
            b"SSH-2.0-x\r\n".to_vec(),
            vec![0; 70_000],
        ];
        inputs.extend((0..40).map(|at| noise.bytes(1 + at * at * 7)));
        for (at, input) in inputs.iter().enumerate() {
            provoke(address, input).with_context(|| format!("input {at} at the {name} port"))?;
        }
    }
    let served = get(shared.http(), &deployed.host(), &deployed.path("/b/fixed/5"))?;
    ensure!(served.status == 200, "{served:?}");
    let again = shared
        .deploy(&everything(&shared.backend))
        .context("the Admin API after the noise")?;
    ensure!(
        get(shared.http(), &again.host(), &again.path("/b/fixed/5"))?.status == 200,
        "a new API"
    );
    Ok(())
}

/// Sends bytes and an end, and reads until the peer ends too; a reset is an end as well.
fn provoke(address: SocketAddr, input: &[u8]) -> Result<()> {
    let mut connection = Connection::open(address)?;
    if connection.send(input).is_err() || connection.finish().is_err() {
        return Ok(()); // refused already
    }
    connection.drain().map(|_| ())
}

/// C6, D15: 100 MB to the Admin API: without a token not a byte of it is taken in, with one not more than a message may
/// have; either way the answer says why, and the control plane holds none of it.
fn large_calls_of_the_admin_api_are_refused(context: &Context) -> Result<()> {
    let nghttp = tools::find("nghttp")?;
    let up = context.plan().up("up")?;
    let control = up.ready().control_plane.context("a control plane")?;
    let file = context.directory().join("message");
    // A gRPC message: not compressed, of 100 MB, all of it zero bytes.
    let mut message = vec![0; 5 + 100_000_000];
    message[1..5].copy_from_slice(&100_000_000_u32.to_be_bytes());
    std::fs::write(&file, &message)?;
    let token_file = up.ready().json["adminTokenFile"]
        .as_str()
        .context("a token file")?;
    let token = std::fs::read_to_string(token_file)?;
    let url = format!("http://{}/tidegate.admin.v1.AdminService/Get", up.ready().admin);
    let before = resident(control)?;
    for (token, status) in [("wrong", "16"), (token.trim(), "11")] {
        let authorization = format!("authorization: Bearer {token}");
        let mut running = Vec::new();
        for _ in 0..8 {
            let mut command = Command::new(&nghttp);
            command
                .args(["-v", "-n", "-d"])
                .arg(&file)
                .args([
                    "-H",
                    ":method: POST",
                    "-H",
                    "content-type: application/grpc",
                    "-H",
                    "te: trailers",
                ])
                .args(["-H", &authorization, &url])
                .stdout(Stdio::piped());
            running.push(command.spawn()?);
        }
        for child in running {
            let told = child.wait_with_output()?;
            let head = String::from_utf8_lossy(&told.stdout).into_owned();
            ensure!(
                head.contains(&format!("grpc-status: {status}")),
                "no status {status} in what nghttp tells"
            );
        }
        let grown = resident(control)?.saturating_sub(before);
        ensure!(
            grown < 64 << 20,
            "{status}: the control plane grew by {grown} bytes"
        );
    }
    up.run(&["nodes"]).map(drop)
}

/// `admin-connections`: connections that say nothing are ended, and whoever waits behind them gets his turn.
fn silent_admin_connections_make_room(context: &Context) -> Result<()> {
    let up = context
        .plan()
        .set("TIDEGATE_LIMITS__ADMIN_CONNECTIONS", "8")
        .up("up")?;
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(Connection::open(up.ready().admin)?);
    }
    up.run(&["nodes"])?;
    for (at, connection) in silent.into_iter().enumerate() {
        // Ended by the other side: with nothing, or a reset.
        let ended = connection.drain();
        ensure!(
            ended.is_ok_and(|(rest, _)| rest.len() < 64),
            "connection {at} got an answer"
        );
    }
    Ok(())
}

/// C7: whoever is no node gets an end at the configuration address, whatever it says and on whatever layer: silence, noise
/// within TLS, another authority's certificate, calls without a certificate, joins without a token. Nodes do not notice.
fn strangers_at_the_configuration_address(context: &Context) -> Result<()> {
    tools::find("curl")?;
    let openssl = tools::find("openssl")?;
    let backend = Backend::start()?;
    let control = context.plan().control_plane("control", FREE)?;
    let directory = context.directory();
    let join = directory.join("node.join");
    std::fs::write(&join, control.run(&["node", "token"])?)?;
    let address = control.ready().config;
    let data = context
        .plan()
        .data_plane("node", &address.to_string(), Some(&join), FREE)?;
    let deployed = control.import(&everything(&backend), "test")?;

    // Silent ones, and ones that stop within their first words: there during all of what follows.
    let mut noise = Noise(0x636f_6e66_6967_2121);
    let mut silent = Vec::new();
    for at in 0..100 {
        let mut connection = Connection::open(address)?;
        connection.send(&[0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..at % 12])?;
        silent.push(connection);
    }

    let certificate = directory.join("stranger.pem").display().to_string();
    let key = directory.join("stranger.key").display().to_string();
    let made = tools::run(Command::new(&openssl).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=node01",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ]))?;
    ensure!(made.status.success(), "openssl req: {made:?}");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut inputs: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        [&preface[..], &[0xff; 64]].concat(),
        // HEADERS that are no HPACK, DATA on a stream that is not open, a frame of 16 MiB.
        [
            &preface[..],
            &settings,
            &[0, 0, 4, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
        ]
        .concat(),
        [&preface[..], &settings, &[0, 0, 1, 0, 0, 0, 0, 0, 7, 0]].concat(),
        [
            &preface[..],
            &settings,
            &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1],
            &noise.bytes(70_000),
        ]
        .concat(),
    ];
    inputs.extend((1..8).map(|at| noise.bytes(at * at * 300)));
    for (at, input) in inputs.iter().enumerate() {
        let ended =
            within_tls(&openssl, address, &[], input).with_context(|| format!("input {at} within TLS"))?;
        ensure!(
            !ended.contains("SSL alert number"),
            "input {at}: the handshake failed: {ended}"
        );
    }
    let refused = within_tls(
        &openssl,
        address,
        &["-cert", &certificate, "-key", &key],
        &inputs[0],
    )?;
    ensure!(
        refused.contains("alert"),
        "a certificate of another authority was taken: {refused}"
    );

    let body = directory.join("body").display().to_string();
    let authority = directory.join("authority.pem").display().to_string();
    std::fs::write(&authority, control.run(&["ca"])?)?;
    let to = format!("control.tidegate.internal:443:127.0.0.1:{}", address.port());
    let unknown_token = [&[0, 0, 0, 0, 5, 0x0a, 3][..], b"abc"].concat();
    for (method, bytes, wanted) in [
        ("JoinService/Join", unknown_token.clone(), "grpc-status: 3"),
        ("JoinService/Join", noise.bytes(300), "grpc-status: "),
        (
            "JoinService/Join",
            [&[0, 0xff, 0xff, 0xff, 0xff][..], &noise.bytes(9_000)].concat(),
            "grpc-status: ",
        ),
        ("JoinService/Join", Vec::new(), "grpc-status: "),
        ("JoinService/Renew", unknown_token.clone(), "grpc-status: 16"),
        ("ConfigService/Stream", unknown_token, "grpc-status: 16"),
        ("ConfigService/Nothing", Vec::new(), "grpc-status: 12"),
    ] {
        std::fs::write(&body, &bytes)?;
        let url = format!("https://control.tidegate.internal/tidegate.config.v1.{method}");
        let called = tools::curl(&[
            "--noproxy",
            "*",
            "--http2",
            "--cacert",
            &authority,
            "--connect-to",
            &to,
            "--include",
            "--header",
            "content-type: application/grpc",
            "--header",
            "te: trailers",
            "--data-binary",
            &format!("@{body}"),
            &url,
        ])?;
        let text = String::from_utf8_lossy(&called.stdout).into_owned();
        ensure!(
            !text.contains("grpc-status: 0") && (text.contains(wanted) || was_reset(&called)),
            "{method} with {} bytes: {text} {}",
            bytes.len(),
            String::from_utf8_lossy(&called.stderr)
        );
    }

    let again = control.import(&everything(&backend), "test")?;
    for one in [&deployed, &again] {
        let served = get(data.ready().http, &one.host(), &one.path("/b/fixed/5"))?;
        ensure!(served.status == 200, "{served:?}");
    }
    for (at, connection) in silent.into_iter().enumerate() {
        connection
            .drain()
            .with_context(|| format!("silent connection {at}"))?;
    }
    let nodes = control.json(&["nodes"])?;
    ensure!(
        nodes["nodes"]
            .as_array()
            .is_some_and(|all| all.len() == 1 && all[0]["connected"] == true),
        "{nodes}"
    );
    let opened = data.log().matches("connected to the control plane").count();
    ensure!(opened == 1, "the node opened {opened} streams");
    Ok(())
}

/// Whether curl met an end of its stream before the answer, as when the server resets what it does not want to read.
fn was_reset(called: &std::process::Output) -> bool {
    matches!(called.status.code(), Some(16 | 52 | 55 | 56 | 92))
}

/// Sends bytes over TLS as HTTP/2 is, and waits for the peer's end; what openssl said.
fn within_tls(openssl: &Path, address: SocketAddr, more: &[&str], input: &[u8]) -> Result<String> {
    let mut client = Command::new(openssl)
        .args([
            "s_client",
            "-quiet",
            "-alpn",
            "h2",
            "-connect",
            &address.to_string(),
        ])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = client.stdin.take().context("openssl's input")?;
    // An end that comes early closes the pipe, which is an end too.
    let _ = stdin.write_all(input);
    let ended = await_exit(&mut client, PATIENCE)?;
    drop(stdin);
    let mut told = String::new();
    if ended.is_none() {
        client.kill()?;
        client.wait()?;
        bail!("the connection is still open");
    }
    if let Some(mut stderr) = client.stderr.take() {
        stderr.read_to_string(&mut told)?;
    }
    Ok(told)
}

/// D15: a request head has ten seconds; 200 connections that send theirs byte by byte do not keep others waiting.
fn unfinished_heads_run_out_of_time(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b/fixed/5"));
    let before = descriptors(&shared)?;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut connection = Connection::open(shared.http())?;
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Slow: "))?;
        slow.push(connection);
    }
    for _ in 0..20 {
        ensure!(
            get(shared.http(), &host, &path)?.status == 200,
            "not served beside slow heads"
        );
        for connection in &mut slow {
            connection.send("a")?;
        }
    }
    for connection in slow {
        let (bytes, _) = connection.drain()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        ensure!(text.is_empty() || text.starts_with("HTTP/1.1 408 "), "{text}");
    }
    ensure_let_go(&shared, &host, &path, before + 20)
}

/// D15: a body that stands still for thirty seconds is given up, at the client's side and at the backend's.
fn unfinished_bodies_run_out_of_time(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b/echo"));
    let before = descriptors(&shared)?;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut upload = Connection::open(shared.http())?;
        upload.send(format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\nabc"
        ))?;
        let mut download = Connection::open(shared.http())?;
        download.send(request("GET", &host, &deployed.path("/b/hang/body")))?;
        slow.extend([upload, download]);
    }
    ensure!(
        get(shared.http(), &host, &deployed.path("/b/fixed/5"))?.status == 200,
        "not served beside slow bodies"
    );
    let began = std::time::Instant::now();
    for (at, connection) in slow.into_iter().enumerate() {
        let kind = if at % 2 == 0 { "upload" } else { "download" };
        let (bytes, _) = connection.drain().with_context(|| {
            format!(
                "{kind} {at} still stood {} s after it had begun",
                began.elapsed().as_secs()
            )
        })?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let right = match kind {
            // Its slowness is the client's, whatever time the backend has.
            "upload" => text.starts_with("HTTP/1.1 408 "),
            _ => text.starts_with("HTTP/1.1 200 ") && bytes.len() < 1_000 + 500,
        };
        ensure!(right, "{kind}: {text}");
    }
    ensure_let_go(&shared, &host, &deployed.path("/b/fixed/5"), before + 20)
}

/// D14: a client that leaves after any byte of its request, in order or with a reset, costs nobody anything.
fn requests_aborted_at_each_byte(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b/echo"));
    let fixed = deployed.path("/b/fixed/5");
    ensure!(get(shared.http(), &host, &fixed)?.status == 200, "before");
    let before = descriptors(&shared)?;
    let memory = resident(data_plane(&shared)?)?;
    let requests = [
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 20\r\n\r\n12345678901234567890"),
        format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\n12345\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
        ),
    ];
    for bytes in requests {
        for end in 0..=bytes.len() {
            let mut reset = Connection::open(shared.http())?;
            reset.send(&bytes.as_bytes()[..end])?;
            reset.reset()?;
            let mut closed = Connection::open(shared.http())?;
            closed.send(&bytes.as_bytes()[..end])?;
            closed.finish()?;
            let (answer, how) = closed
                .drain()
                .with_context(|| format!("an end after {end} bytes"))?;
            let text = String::from_utf8_lossy(&answer);
            if end == bytes.len() {
                ensure!(
                    text.starts_with("HTTP/1.1 200 ") && how == End::Closed,
                    "a whole request and an end: {text}"
                );
            } else {
                ensure!(
                    text.is_empty() || text.starts_with("HTTP/1.1 400 ") || text.starts_with("HTTP/1.1 408 "),
                    "{end} bytes: {text}"
                );
            }
        }
    }
    ensure_let_go(&shared, &host, &fixed, before + 20)?;
    let grown = resident(data_plane(&shared)?)?.saturating_sub(memory);
    ensure!(grown < 64 << 20, "memory grew by {grown} bytes");
    Ok(())
}

/// D14, D3: a client that resets while a response is on its way, after any part of it; the next ones get theirs whole.
fn responses_aborted_on_the_way(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b/fixed/3000000"));
    let fixed = deployed.path("/b/fixed/5");
    ensure!(get(shared.http(), &host, &fixed)?.status == 200, "before");
    let before = descriptors(&shared)?;
    for at in 0..100 {
        let mut connection = Connection::open(shared.http())?;
        connection.send(request("GET", &host, &path))?;
        connection.read_some(at * 701)?;
        connection.reset()?;
        if at % 10 == 0 {
            let whole = get(shared.http(), &host, &path)?;
            ensure!(
                whole.status == 200 && whole.body == pattern(3_000_000),
                "{} bytes",
                whole.body.len()
            );
        }
    }
    ensure_let_go(&shared, &host, &fixed, before + 20)
}

/// D2: a client that reads on after a pause gets everything: what it took makes room, and room is used at once.
fn readers_that_pause_get_everything(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b/fixed/9000000"));
    for at in 0..10 {
        let mut pausing = Connection::open(shared.http())?;
        pausing.send(request("GET", &host, &path))?;
        pausing.read_some(1)?;
        // Takes about as long as the gateway needs to fill what the other one does not read.
        get(shared.http(), &host, &path)?;
        let response = pausing.response().with_context(|| format!("reader {at}"))?;
        ensure!(
            response.body == pattern(9_000_000),
            "reader {at}: {} bytes",
            response.body.len()
        );
    }
    Ok(())
}

/// Sends a request with a long body on a thread of its own, as nobody may be taking it, and returns the connection to
/// read the answer from.
fn upload(address: SocketAddr, host: &str, path: &str, length: usize) -> Result<Connection> {
    let connection = Connection::open(address)?;
    let mut sending = connection.again()?;
    let bytes = request_with("POST", host, path, "text/plain", &pattern(length));
    // An upload that is refused within cannot be sent to its end.
    std::thread::spawn(move || sending.send(bytes));
    Ok(connection)
}

/// D2: a backend that reads on after a pause gets everything: what it took makes room, and room is used at once.
fn backends_that_pause_get_everything(context: &Context) -> Result<()> {
    const LENGTH: usize = 9_000_000;
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b"));
    for at in 0..10 {
        let name = format!("{}-{at}", deployed.api_id);
        let mut held = upload(shared.http(), &host, &format!("{path}/hold/{name}"), LENGTH)?;
        // Takes about as long as the gateway needs to fill what the other one does not read.
        let mut beside = upload(shared.http(), &host, &format!("{path}/echo"), LENGTH)?;
        ensure!(beside.response()?.json()?["length"] == LENGTH, "the one beside");
        shared.backend.release(&name)?;
        let echoed = held.response().with_context(|| format!("backend {at}"))?.json()?;
        ensure!(
            echoed["length"] == LENGTH && echoed["isPattern"] == true,
            "backend {at}: {}",
            echoed["length"]
        );
    }
    Ok(())
}

/// D15, QUO-067: a backend that takes the beginning of a body and no more is a 504 when its time is over.
fn backends_that_never_read_on_are_timed_out(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let definition = Definition::new("stalling")
        .proxy_within("POST", "/stall", &shared.backend.url("/hold/for-ever"), 300)
        .proxy("GET", "/b/{proxy+}", &shared.backend.url("/{proxy}"));
    let deployed = shared.deploy(&definition)?;
    let host = deployed.host();
    for _ in 0..3 {
        let mut stalled = upload(shared.http(), &host, &deployed.path("/stall"), 9_000_000)?;
        let response = stalled.response()?;
        ensure!(response.status == 504, "{response:?}");
        ensure!(
            response.json()?["message"] == "Endpoint request timed out",
            "{response:?}"
        );
    }
    let served = get(shared.http(), &host, &deployed.path("/b/fixed/5"))?;
    ensure!(served.status == 200, "{served:?}");
    Ok(())
}

/// D2: a client that does not read makes the gateway stop reading from the backend, not store what comes.
fn readers_that_do_not_read_hold_little(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b/fixed/10000000"));
    ensure!(
        get(shared.http(), &host, &path)?.body.len() == 10_000_000,
        "before"
    );
    let memory = resident(data_plane(&shared)?)?;
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut connection = Connection::open(shared.http())?;
        connection.send(request("GET", &host, &path))?;
        connection.read_some(1)?;
        waiting.push(connection);
    }
    ensure!(
        get(shared.http(), &host, &path)?.body.len() == 10_000_000,
        "beside clients that do not read"
    );
    let grown = resident(data_plane(&shared)?)?.saturating_sub(memory);
    ensure!(
        grown < 100 << 20,
        "50 clients that do not read hold {grown} bytes, of 500 MB that they asked for"
    );
    // All at once, so that none stalls for as long as a peer may.
    let readers: Vec<_> = waiting
        .into_iter()
        .map(|mut connection| std::thread::spawn(move || connection.response()))
        .collect();
    for reader in readers {
        let response = reader
            .join()
            .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        ensure!(
            response.body == pattern(10_000_000),
            "{} bytes came in the end",
            response.body.len()
        );
    }
    Ok(())
}

/// D7: a panic in any phase ends the connection it happened on and is counted; every other connection goes on, and
/// nothing that the request held is lost. The node runs with `TIDEGATE_FAULT_INJECTION=1`.
fn a_panic_ends_one_connection(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b/fixed/5"));
    let mut beside = Connection::open(shared.http())?;
    beside.send(request("GET", &host, &path))?;
    ensure!(beside.response()?.status == 200, "before");
    let before = descriptors(&shared)?;
    for phase in ["frame", "locate", "route", "throttle", "integration", "response"] {
        let counted = panics(&shared)?;
        let mut struck = Connection::open(shared.http())?;
        struck.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Tidegate-Test-Panic: {phase}\r\n\r\n"
        ))?;
        let (bytes, _) = struck.drain()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        ensure!(
            !text.starts_with("HTTP/1.1 200 "),
            "{phase}: answered after a panic: {text}"
        );
        beside.send(request("GET", &host, &path))?;
        let next = beside
            .response()
            .with_context(|| format!("another connection, after a panic in {phase}"))?;
        ensure!(next.status == 200, "{phase}: {next:?}");
        await_panics(&shared, counted + 1).with_context(|| format!("a panic in {phase}"))?;
    }
    ensure_let_go(&shared, &host, &path, before + 10)
}

/// Waits until so many panics are counted. The end of a connection is seen before its task is done with.
fn await_panics(shared: &Shared, expected: u64) -> Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let counted = panics(shared)?;
        if counted >= expected {
            ensure!(
                counted == expected,
                "{counted} panics are counted, {expected} were caused"
            );
            return Ok(());
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "{counted} panics are counted, {expected} were caused"
        );
    }
}

/// Panics that the data plane has caught so far on all its shards, as its metrics tell.
fn panics(shared: &Shared) -> Result<u64> {
    metric(shared, "tidegate_panics_total", "")
}

/// The sum of a metric's series that carry a label.
fn metric(shared: &Shared, name: &str, label: &str) -> Result<u64> {
    let metrics = get(shared.instance.ready().metrics, "metrics", "/metrics")?.text();
    let mut total = None;
    for line in metrics
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label))
    {
        let value: f64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
        *total.get_or_insert(0) += value as u64;
    }
    total.with_context(|| format!("no {name} with {label:?} among the metrics"))
}
