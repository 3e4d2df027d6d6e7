//! The PROXY protocol from those that send it, haproxy and curl, and from those that should not (D18).

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tidegate_harness::backend::Backend;
use tidegate_harness::http2::{self, Http2, PREFACE, flag, headers, settings};
use tidegate_harness::instance::{Deployed, Instance, Plan};
use tidegate_harness::process::{PATIENCE, await_exit, signal};
use tidegate_harness::raw::{Connection, request};
use tidegate_harness::suite::{Context, Test};
use tidegate_harness::tools;

use crate::pets::everything;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::both_drivers("a_header_names_the_client", a_header_names_the_client),
    Test::once("haproxy_and_curl_are_understood", haproxy_and_curl_are_understood),
    Test::both_drivers("http2_comes_behind_a_header", http2_comes_behind_a_header),
    Test::once("nobody_else_is_believed", nobody_else_is_believed),
];

struct Behind {
    gateway: Instance,
    deployed: Deployed,
    _backend: Backend,
}

/// An installation whose listeners both require the protocol, from such a network.
fn behind(context: &Context, name: &str, network: &str) -> Result<Behind> {
    started(context.plan(), name, network)
}

fn started(plan: Plan, name: &str, network: &str) -> Result<Behind> {
    let backend = Backend::start()?;
    let gateway = plan
        .set("TIDEGATE_PROXY_PROTOCOL", "[http, https]")
        .set("TIDEGATE_PROXY_PROTOCOL_FROM", &format!("[\"{network}\"]"))
        .set("TIDEGATE_LIMITS__PROXY_HEADER_TIMEOUT", "2s")
        .up(name)?;
    let deployed = gateway.import(&everything(&backend), "test")?;
    Ok(Behind {
        gateway,
        deployed,
        _backend: backend,
    })
}

impl Behind {
    fn http(&self) -> SocketAddr {
        self.gateway.ready().http
    }

    fn request(&self) -> String {
        request("GET", &self.deployed.host(), &self.deployed.path("/b/echo"))
    }
}

/// What the backend was told of the client: `X-Forwarded-For` and `X-Forwarded-Port`.
fn told(answer: &serde_json::Value) -> (String, String) {
    let header = |name: &str| {
        answer["headers"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|pair| {
                pair[0]
                    .as_str()
                    .is_some_and(|known| known.eq_ignore_ascii_case(name))
            })
            .and_then(|pair| pair[1].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    (header("x-forwarded-for"), header("x-forwarded-port"))
}

/// Version 2 with IPv4 addresses and one piece of further information.
fn version_2(command: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 16, 203, 0, 113, 7, 198, 51, 100, 1]);
    header.extend([0x30, 0x39, 0x01, 0xbb, 0x20, 0, 1, 0]);
    header
}

/// The header's client is the client, whichever version says it and in whatever pieces it comes; a proxy that speaks for
/// itself is the client itself.
fn a_header_names_the_client(context: &Context) -> Result<()> {
    let behind = behind(context, "up", "127.0.0.0/8")?;
    let own = behind.http().port().to_string();
    let named = ("203.0.113.7".to_owned(), "443".to_owned());
    let itself = ("127.0.0.1".to_owned(), own);
    for (header, expected) in [
        (
            b"PROXY TCP4 203.0.113.7 198.51.100.1 12345 443\r\n".to_vec(),
            &named,
        ),
        (version_2(1), &named),
        (version_2(0), &itself),
        (b"PROXY UNKNOWN\r\n".to_vec(), &itself),
        (
            b"PROXY TCP6 ::ffff:203.0.113.7 2001:db8::2 12345 443\r\n".to_vec(),
            &named,
        ),
    ] {
        for split in [0, 1, header.len() - 1, header.len()] {
            let mut connection = Connection::open(behind.http())?;
            connection.send(&header[..split])?;
            let mut rest = header[split..].to_vec();
            rest.extend(behind.request().as_bytes());
            connection.send(&rest)?;
            // The second request of the connection is the same client's.
            for _ in 0..2 {
                let response = connection.response()?;
                ensure!(response.status == 200, "{response:?}");
                let said = told(&response.json()?);
                ensure!(
                    said == *expected,
                    "{said:?} for {:?}",
                    String::from_utf8_lossy(&header)
                );
                connection.send(behind.request())?;
            }
        }
    }
    Ok(())
}

/// haproxy with `send-proxy` and `send-proxy-v2`, and curl over TLS, are believed; haproxy's health checks count as good.
fn haproxy_and_curl_are_understood(context: &Context) -> Result<()> {
    let haproxy = tools::find("haproxy")?;
    tools::find("curl")?;
    let behind = behind(context, "up", "127.0.0.0/8")?;
    for option in ["send-proxy", "send-proxy-v2"] {
        // A port that was free a moment ago.
        let front = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let configuration = context.directory().join(format!("{option}.cfg"));
        std::fs::write(
            &configuration,
            format!(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
                 listen front\n bind {front}\n server gateway {} {option}\n",
                behind.http()
            ),
        )?;
        let mut proxy = Process(
            Command::new(&haproxy)
                .args(["-db", "-f"])
                .arg(&configuration)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?,
        );
        let url = format!(
            "http://{}:{}{}",
            behind.deployed.host(),
            front.port(),
            behind.deployed.path("/b/echo")
        );
        let resolve = format!("{}:{}:127.0.0.1", behind.deployed.host(), front.port());
        // Another loopback address than haproxy's own tells the two apart. curl asks again until haproxy listens.
        let output = tools::curl(&[
            "--noproxy",
            "*",
            "--interface",
            "127.0.0.9",
            "--retry",
            "50",
            "--retry-connrefused",
            "--retry-delay",
            "1",
            "--fail-with-body",
            "--resolve",
            &resolve,
            &url,
        ])?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "{option}: {} {text} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let said = told(&serde_json::from_str(&text)?);
        ensure!(
            said == ("127.0.0.9".to_owned(), front.port().to_string()),
            "{option}: {said:?}"
        );
        proxy.end()?;
    }
    for (version, spoken) in [("--http1.1", "1.1"), ("--http2", "2")] {
        curl_names_itself(context, &behind, version, spoken)?;
    }
    Ok(())
}

/// curl over TLS, and behind TLS the version of HTTP that it is told to speak.
fn curl_names_itself(context: &Context, behind: &Behind, version: &str, spoken: &str) -> Result<()> {
    let authority = context.directory().join("authority.pem");
    std::fs::write(&authority, behind.gateway.run(&["ca"])?)?;
    let port = behind.gateway.ready().https.port();
    let url = format!(
        "https://{}:{port}{}",
        behind.deployed.host(),
        behind.deployed.path("/b/echo")
    );
    let resolve = format!("{}:{port}:127.0.0.1", behind.deployed.host());
    let output = tools::curl(&[
        "--noproxy",
        "*",
        "--interface",
        "127.0.0.8",
        "--haproxy-protocol",
        "--cacert",
        &authority.display().to_string(),
        "--resolve",
        &resolve,
        version,
        "-w",
        "\n%{http_version}",
        &url,
    ])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{version}: {} {text} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let (body, used) = text.rsplit_once('\n').context("a body and a version")?;
    let said = told(&serde_json::from_str(body)?);
    ensure!(
        said.0 == "127.0.0.8" && used == spoken,
        "{version}: {said:?} over {used}"
    );
    Ok(())
}

/// With prior knowledge on the plain port, in whatever pieces header and preface come; HTTP/1.1 there, too.
fn http2_comes_behind_a_header(context: &Context) -> Result<()> {
    let plan = context.plan().set("TIDEGATE_HTTP2_PRIOR_KNOWLEDGE", "true");
    let behind = started(plan, "up", "127.0.0.0/8")?;
    let named = ("203.0.113.7".to_owned(), "443".to_owned());
    let line = b"PROXY TCP4 203.0.113.7 198.51.100.1 12345 443\r\n".to_vec();
    for header in [line, version_2(1)] {
        let (host, path) = (behind.deployed.host(), behind.deployed.path("/b/echo"));
        let head = headers(1, flag::END_STREAM, &http2::request("GET", &host, &path, &[]));
        let all = [&header[..], PREFACE, &settings(&[(1, 0)]), &head].concat();
        // Whole; cut in the header, behind it, in the preface, and behind that.
        for cut in [0, 5, header.len(), header.len() + 3, header.len() + PREFACE.len()] {
            let mut connection = Http2::silent(behind.http())?;
            connection.send(&all[..cut])?;
            connection.send(&all[cut..])?;
            let stream = connection.end_of(1)?;
            ensure!(stream.status == Some(200), "cut at {cut}: {stream:?}");
            let said = told(&serde_json::from_slice(&stream.body)?);
            ensure!(said == named, "cut at {cut}: {said:?}");
        }
        let mut connection = Connection::open(behind.http())?;
        connection.send([&header[..], behind.request().as_bytes()].concat())?;
        let said = told(&connection.response()?.json()?);
        ensure!(said == named, "{said:?}");
    }
    Ok(())
}

/// Without a header, with a malformed one, with one that does not end, and from a network that is not listed: the
/// connection is closed without an answer, and counted.
fn nobody_else_is_believed(context: &Context) -> Result<()> {
    let behind = behind(context, "up", "127.0.0.0/8")?;
    let mut long = version_2(1);
    long[14..16].copy_from_slice(&[0xff, 0xff]);
    let mut cut = version_2(1);
    cut[14..16].copy_from_slice(&[0, 11]);
    let table: Vec<Vec<u8>> = vec![
        behind.request().into_bytes(),
        b"\x16\x03\x01\x02\x00".to_vec(),
        b"proxy TCP4 203.0.113.7 198.51.100.1 12345 443\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 198.51.100.1 12345\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.700 198.51.100.1 12345 443\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 198.51.100.1 12345 443 \r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 198.51.100.1 12345 443\n".to_vec(),
        b"PROXY UDP4 203.0.113.7 198.51.100.1 12345 443\r\n".to_vec(),
        format!("PROXY TCP4 {}", "1".repeat(200)).into_bytes(),
        version_2(2),
        long,
        cut,
        // One that stops half-way.
        b"PROXY TCP4 203.0.113.7".to_vec(),
        b"".to_vec(),
    ];
    let count = table.len();
    for bytes in table {
        let mut connection = Connection::open(behind.http())?;
        connection.send(&bytes)?;
        let (answer, _) = connection.drain()?;
        ensure!(
            answer.is_empty(),
            "{:?} was answered {:?}",
            String::from_utf8_lossy(&bytes),
            String::from_utf8_lossy(&answer)
        );
    }
    let failures = failures(&behind)?;
    ensure!(failures == count as u64, "{failures} of {count} are counted");
    drop(behind);
    let elsewhere = self::behind(context, "elsewhere", "203.0.113.0/24")?;
    let mut connection = Connection::open(elsewhere.http())?;
    connection.send([version_2(1), elsewhere.request().into_bytes()].concat())?;
    let (answer, _) = connection.drain()?;
    ensure!(answer.is_empty(), "{:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

fn failures(behind: &Behind) -> Result<u64> {
    let metrics = behind.gateway.ready().metrics;
    let text = tidegate_harness::raw::get(metrics, "metrics", "/metrics")?.text();
    let mut sum = 0;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("tidegate_proxy_header_failures_total{") {
            let value = rest.rsplit(' ').next().context("a value")?;
            sum += value.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// A process of this test's.
struct Process(Child);

impl Process {
    fn end(&mut self) -> Result<()> {
        signal(self.0.id(), rustix::process::Signal::TERM)?;
        ensure!(await_exit(&mut self.0, PATIENCE)?.is_some(), "it does not end");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended in order where the test came so far.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
