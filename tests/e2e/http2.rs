//! HTTP/2 towards clients, through clients that are not ours: curl, nghttp, h2load. What frames do one by one is shown in
//! `dataplane/tests/http2/`.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tidegate_harness::backend::pattern;
use tidegate_harness::http2::{Http2, code, flag, frame, headers, kind, request, reset};
use tidegate_harness::process::resident;
use tidegate_harness::raw::{Connection, get};
use tidegate_harness::suite::{Context, Test};
use tidegate_harness::tools;

use crate::pets::{everything, pet_store};

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::everywhere("curl_gets_http2_by_alpn", curl_gets_http2_by_alpn),
    Test::everywhere("curl_knows_beforehand", curl_knows_beforehand),
    Test::once(
        "plain_ports_speak_it_only_when_told",
        plain_ports_speak_it_only_when_told,
    ),
    Test::everywhere("nghttp_gets_pets", nghttp_gets_pets),
    Test::everywhere("h2load_is_served_whole", h2load_is_served_whole),
    Test::both_drivers("floods_hold_little_memory", floods_hold_little_memory),
];

/// RFC 9113 section 3.2: HTTP/2 over TLS, bodies both ways.
fn curl_gets_http2_by_alpn(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let authority = context.directory().join("authority.pem");
    std::fs::write(&authority, shared.instance.run(&["ca"])?)?;
    let authority = authority.display().to_string();
    let body = context.directory().join("body");
    std::fs::write(&body, pattern(3_000_000))?;
    let upload = format!("@{}", body.display());
    let port = shared.instance.ready().https.port();
    let url = |path: &str| format!("https://{}:{port}{}", deployed.host(), deployed.path(path));
    let resolve = format!("{}:{port}:127.0.0.1", deployed.host());
    let told = "\n%{http_version} %{http_code}\n";
    let common = [
        "--noproxy",
        "*",
        "--cacert",
        &authority,
        "--resolve",
        &resolve,
        "-w",
        told,
    ];
    let curl = |more: &[&str]| -> Result<Vec<u8>> {
        let output = tools::curl(&[&common[..], more].concat())?;
        ensure!(
            output.status.success(),
            "{more:?}: {} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    };
    let fixed = curl(&["--http2", &url("/b/fixed/100000")])?;
    ensure!(
        fixed == [&pattern(100_000)[..], b"\n2 200\n"].concat(),
        "{} bytes",
        fixed.len()
    );
    let echoed = curl(&[
        "--http2",
        "--data-binary",
        &upload,
        "-o",
        "/dev/null",
        &url("/b/echo"),
    ])?;
    ensure!(echoed == b"\n2 200\n", "{}", String::from_utf8_lossy(&echoed));
    let old = curl(&["--http1.1", &url("/b/fixed/5")])?;
    ensure!(old.ends_with(b"\n1.1 200\n"), "{}", String::from_utf8_lossy(&old));
    let head = curl(&["--http2", "--head", &url("/b/fixed/5")])?;
    let head = String::from_utf8_lossy(&head).into_owned();
    ensure!(
        head.starts_with("HTTP/2 200") && head.contains("content-length: 5\r\n"),
        "{head}"
    );
    ensure!(
        head.contains("x-amzn-requestid: ") && !head.contains("connection:"),
        "{head}"
    );
    let missing = curl(&["--http2", &url("/nowhere")])?;
    let missing = String::from_utf8_lossy(&missing).into_owned();
    ensure!(
        missing == "{\"message\":\"Missing Authentication Token\"}\n2 403\n",
        "{missing}"
    );
    Ok(())
}

/// RFC 9113 section 3.3: with prior knowledge on a plain port; a body both ways.
fn curl_knows_beforehand(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let body = context.directory().join("body");
    std::fs::write(&body, pattern(5_000_000))?;
    let upload = format!("@{}", body.display());
    let url = |path: &str| format!("http://{}{}", shared.http(), deployed.user_request(path));
    for (more, ends) in [
        (vec![url("/b/fixed/5")], "\n2 200\n"),
        (
            vec![
                "--data-binary".into(),
                upload,
                "-o".into(),
                "/dev/null".into(),
                url("/b/echo"),
            ],
            "\n2 200\n",
        ),
    ] {
        let mut arguments = vec![
            "--noproxy",
            "*",
            "--http2-prior-knowledge",
            "-w",
            "\n%{http_version} %{http_code}\n",
        ];
        arguments.extend(more.iter().map(String::as_str));
        let output = tools::curl(&arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success() && text.ends_with(ends),
            "{more:?}: {} {text} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// The setting `http2-prior-knowledge` is off by default.
fn plain_ports_speak_it_only_when_told(context: &Context) -> Result<()> {
    let instance = context.plan().up("plain")?;
    let mut connection = Connection::open(instance.ready().http)?;
    connection.send(tidegate_harness::http2::PREFACE)?;
    let refused = connection.response()?;
    ensure!(refused.status == 505, "{refused:?}");
    Ok(())
}

/// nghttp prints the frames that it sees: three requests on one connection.
fn nghttp_gets_pets(context: &Context) -> Result<()> {
    let nghttp = tools::find("nghttp")?;
    let shared = context.shared()?;
    let deployed = shared.deploy(&pet_store(&shared.backend))?;
    let base = format!("http://{}", shared.http());
    let urls = ["/pets", "/pets/1", "/pets/2"].map(|path| format!("{base}{}", deployed.user_request(path)));
    let output = tools::run(
        Command::new(&nghttp)
            .args(["--verbose", "--timeout=30"])
            .args(&urls),
    )?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{} {text}", output.status);
    ensure!(text.matches(":status: 200").count() == 3, "{text}");
    ensure!(text.contains("\"dog\"") && text.contains("\"cat\""), "{text}");
    ensure!(!text.contains("RST_STREAM"), "{text}");
    Ok(())
}

/// Thousands of requests on a few connections with many streams each, over both transports: all of them answered.
fn h2load_is_served_whole(context: &Context) -> Result<()> {
    let h2load = tools::find("h2load")?;
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let target = deployed.user_request("/b/fixed/5000");
    for url in [
        format!("http://{}{target}", shared.http()),
        format!("https://{}{target}", shared.instance.ready().https),
    ] {
        let output = tools::run(Command::new(&h2load).args(["-n", "2000", "-c", "4", "-m", "32", &url]))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{} {text}", output.status);
        ensure!(
            text.contains("2000 succeeded, 0 failed, 0 errored") && text.contains("status codes: 2000 2xx"),
            "{url}: {text}"
        );
    }
    Ok(())
}

/// Floods of every weight end their connections, and the data plane is as small after them as before.
fn floods_hold_little_memory(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b/fixed/5"));
    let pid = shared
        .instance
        .ready()
        .data_plane
        .context("the ready file names the data plane's process")?;
    let slow = deployed.path("/b/hang/head");
    let fetch = headers(1, flag::END_STREAM, &request("GET", &host, &slow, &[]));
    let post = headers(1, 0, &request("POST", &host, &slow, &[]));
    let flood = |name: &str, first: &[u8], more: &dyn Fn(u32) -> Vec<u8>| -> Result<()> {
        let mut client = Http2::open(shared.http())?;
        client.send(first)?;
        for at in 0..200_000 {
            client.send(more(at))?;
            if at % 1000 == 999 && !client.ping()? {
                break;
            }
        }
        client.end()?;
        ensure!(
            client.goaways.last().map(|(_, code)| *code) == Some(code::ENHANCE_YOUR_CALM),
            "{name}: {:?}",
            client.goaways
        );
        Ok(())
    };
    let rapid = |at: u32| {
        let mut request = fetch.clone();
        request[5..9].copy_from_slice(&(2 * at + 1).to_be_bytes());
        [request, reset(2 * at + 1, code::CANCEL)].concat()
    };
    // What the pool and the allocator keep after such use belongs to them.
    flood("rapid reset", &[], &rapid)?;
    let before = resident(pid)?;
    for _ in 0..20 {
        flood("rapid reset", &[], &rapid)?;
        flood("empty data", &post, &|_| frame(kind::DATA, 0, 1, b""))?;
        flood("ping", &[], &|_| frame(kind::PING, 0, 0, &[0; 8]))?;
    }
    let served = get(shared.http(), &host, &path)?;
    ensure!(served.status == 200, "{served:?}");
    let grown = resident(pid)?.saturating_sub(before);
    ensure!(grown < 64 << 20, "memory grew by {grown} bytes");
    Ok(())
}
