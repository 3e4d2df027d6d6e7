//! Requests that break HTTP's framing or a limit: a defined answer each, and nothing smuggled behind it.

use anyhow::{Context as _, Result, ensure};
use tidegate_harness::backend::pattern;
use tidegate_harness::raw::{Connection, End, get, request};
use tidegate_harness::suite::{Context, Test};

use crate::pets::everything;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::everywhere("broken_framing_is_refused", broken_framing_is_refused),
    Test::everywhere("limits_have_their_answers", limits_have_their_answers),
    Test::both_drivers("payloads_have_a_limit", payloads_have_a_limit),
    Test::both_drivers("bodies_of_all_sizes_go_up", bodies_of_all_sizes_go_up),
    Test::both_drivers("bodies_of_all_sizes_come_down", bodies_of_all_sizes_come_down),
    Test::everywhere(
        "paths_are_taken_literally_or_refused",
        paths_are_taken_literally_or_refused,
    ),
    Test::both_drivers(
        "expectations_are_met_by_the_gateway",
        expectations_are_met_by_the_gateway,
    ),
];

/// RFC 9112, D12, D14: 400 and the end of the connection; a request hidden behind the broken one is never answered.
fn broken_framing_is_refused(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b/echo"));
    let hidden = request("GET", &host, &deployed.path("/b/fixed/7"));
    let line = format!("POST {path} HTTP/1.1\r\n");
    let good = format!("{line}Host: {host}\r\n");
    let cases: Vec<(&str, String)> = vec![
        (
            "both lengths",
            format!("{good}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "two lengths",
            format!("{good}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        ),
        (
            "a list of lengths",
            format!("{good}Content-Length: 3, 4\r\n\r\nabcd"),
        ),
        ("a signed length", format!("{good}Content-Length: +3\r\n\r\nabc")),
        (
            "a negative length",
            format!("{good}Content-Length: -3\r\n\r\nabc"),
        ),
        (
            "a hexadecimal length",
            format!("{good}Content-Length: 0x3\r\n\r\nabc"),
        ),
        ("an empty length", format!("{good}Content-Length: \r\n\r\n")),
        (
            "a length beyond numbers",
            format!("{good}Content-Length: 99999999999999999999999\r\n\r\n"),
        ),
        (
            "an unknown coding",
            format!("{good}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "chunked, but not last",
            format!("{good}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        ),
        (
            "chunked twice",
            format!("{good}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "a disguised coding",
            format!("{good}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "a coding in HTTP/1.0",
            format!("POST {path} HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        ("a folded field", format!("{good}X-A: b\r\n c\r\n\r\n")),
        ("a blank before the colon", format!("{good}X-A : b\r\n\r\n")),
        ("no colon", format!("{good}X-A\r\n\r\n")),
        ("an empty field name", format!("{good}: b\r\n\r\n")),
        ("a bare CR in a value", format!("{good}X-A: b\rc\r\n\r\n")),
        (
            "a bare LF as line end",
            format!("{line}Host: {host}\nX-A: b\r\n\r\n"),
        ),
        ("a NUL in a value", format!("{good}X-A: b\0c\r\n\r\n")),
        ("no Host", format!("{line}X-A: b\r\n\r\n")),
        ("two Hosts", format!("{good}Host: {host}\r\n\r\n")),
        ("an invalid Host", format!("{line}Host: {host}/x\r\n\r\n")),
        ("no version", format!("GET {path}\r\nHost: {host}\r\n\r\n")),
        (
            "another version",
            format!("GET {path} HTTP/3.7\r\nHost: {host}\r\n\r\n"),
        ),
        (
            "two blanks",
            format!("GET  {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ),
        (
            "an impossible method",
            format!("G(T {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ),
        (
            "CONNECT",
            format!("CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n"),
        ),
        (
            "a target that is none",
            format!("GET pets HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ),
    ];
    for (name, bytes) in cases {
        let mut connection = Connection::open(shared.http())?;
        connection
            .send(format!("{bytes}{hidden}"))
            .with_context(|| name.to_owned())?;
        let response = connection.response().with_context(|| name.to_owned())?;
        // RFC 9112 section 6.1 and RFC 9110 section 15.6.6 have a status of their own for what is unknown, not broken.
        let allowed: &[u16] = match name {
            "an unknown coding" | "a disguised coding" => &[400, 501],
            "another version" => &[400, 505],
            _ => &[400],
        };
        ensure!(allowed.contains(&response.status), "{name}: {response:?}");
        ensure!(
            response.header("connection") == Some("close"),
            "{name}: {response:?}"
        );
        let (rest, _) = connection.drain().with_context(|| name.to_owned())?;
        ensure!(
            rest.is_empty(),
            "{name}: behind the refusal came {:?}",
            String::from_utf8_lossy(&rest)
        );
    }
    // Broken within a body, when the head has been accepted: never a success, and never the hidden request's answer.
    for (name, body) in [
        ("a bad chunk size", "xyz\r\nabc\r\n0\r\n\r\n"),
        ("a negative chunk size", "-1\r\nabc\r\n0\r\n\r\n"),
        ("a chunk size beyond numbers", "ffffffffffffffffff\r\nabc\r\n"),
        ("a chunk without its line end", "3\r\nabcd\r\n0\r\n\r\n"),
        ("a bare LF behind a chunk size", "3\nabc\r\n0\r\n\r\n"),
    ] {
        let mut connection = Connection::open(shared.http())?;
        connection.send(format!("{good}Transfer-Encoding: chunked\r\n\r\n{body}{hidden}"))?;
        let (bytes, _) = connection.drain().with_context(|| name.to_owned())?;
        let text = String::from_utf8_lossy(&bytes);
        ensure!(
            text.is_empty() || text.starts_with("HTTP/1.1 400 "),
            "{name}: {text}"
        );
        ensure!(
            text.matches("HTTP/1.1").count() <= 1,
            "{name}: the hidden request was answered: {text}"
        );
    }
    let served = get(shared.http(), &host, &deployed.path("/b/fixed/5"))?;
    ensure!(served.status == 200, "{served:?}");
    Ok(())
}

/// D15, QUO-067: request line 10,240 bytes (414), header block 10,240 bytes of values and 128 fields (431).
fn limits_have_their_answers(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b/echo"));
    let fields = |count: usize| -> String { (0..count).map(|at| format!("X-{at}: v\r\n")).collect() };
    let head = |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
    let cases = [
        (
            "a long but allowed line",
            head(&format!("{path}?{}", "q".repeat(8_000)), ""),
            200,
        ),
        (
            "a line that is too long",
            head(&format!("{path}?{}", "q".repeat(11_000)), ""),
            414,
        ),
        (
            "a line without an end",
            format!("GET /{}", "q".repeat(200_000)),
            414,
        ),
        ("many but allowed fields", head(&path, &fields(100)), 200),
        ("too many fields", head(&path, &fields(200)), 431),
        ("ten thousand and one fields", head(&path, &fields(10_001)), 431),
        (
            "an allowed block",
            head(&path, &format!("X-A: {}\r\n", "v".repeat(8_000))),
            200,
        ),
        (
            "a block that is too large",
            head(&path, &format!("X-A: {}\r\n", "v".repeat(12_000))),
            431,
        ),
        (
            "a block without an end",
            format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-A: {}",
                "v".repeat(500_000)
            ),
            431,
        ),
    ];
    for (name, bytes, status) in cases {
        let mut connection = Connection::open(shared.http())?;
        // The gateway may answer and close before it has taken everything.
        let sent = connection.send(bytes);
        let response = connection
            .response()
            .with_context(|| format!("{name}; sending: {sent:?}"))?;
        ensure!(response.status == status, "{name}: {response:?}");
    }
    Ok(())
}

/// D15, GWR-034: 10,485,760 bytes of payload, announced or not; one more is 413.
fn payloads_have_a_limit(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b/echo"));
    let mut connection = Connection::open(shared.http())?;
    connection.send(tidegate_harness::raw::request_with(
        "POST",
        &host,
        &path,
        "text/plain",
        &pattern(PAYLOAD),
    ))?;
    let echoed = connection.response()?.json()?;
    ensure!(
        echoed["length"] == PAYLOAD && echoed["isPattern"] == true,
        "{}",
        echoed["length"]
    );
    let mut announced = Connection::open(shared.http())?;
    announced.send(format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n",
        PAYLOAD + 1
    ))?;
    let refused = announced.response()?;
    ensure!(refused.status == 413, "{refused:?}");
    ensure!(
        refused.json()?["message"] == "HTTP content length exceeded 10485760 bytes.",
        "{refused:?}"
    );
    let mut chunked = Connection::open(shared.http())?;
    chunked.send(format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ))?;
    let mut sent = 0;
    while sent <= PAYLOAD {
        let mut chunk = b"10000\r\n".to_vec();
        chunk.extend(pattern(65_536));
        chunk.extend_from_slice(b"\r\n");
        sent += 65_536;
        if chunked.send(chunk).is_err() {
            break; // refused and closed already
        }
    }
    let refused = chunked.response().context("after too many chunks")?;
    ensure!(refused.status == 413, "{refused:?}");
    Ok(())
}

/// The limit of payloads (QUO-070).
const PAYLOAD: usize = 10_485_760;

/// How a client speaks: its version and what it says of the connection; whether that goes on.
const CLIENTS: &[(&str, &str, bool)] = &[
    ("1.1", "", true),
    ("1.1", "Connection: close\r\n", false),
    ("1.0", "", false),
    ("1.0", "Connection: keep-alive\r\n", true),
];

/// After an answer: the connection carries another request, or it has ended.
fn ensure_goes_on(mut connection: Connection, on: bool, next: &str) -> Result<()> {
    if !on {
        let (rest, end) = connection.drain()?;
        ensure!(rest.is_empty() && end == End::Closed, "{end:?} after {rest:?}");
        return Ok(());
    }
    connection.send(next)?;
    let response = connection.response().context("the next request")?;
    ensure!(
        response.status == 200 && response.body == pattern(5),
        "{response:?}"
    );
    Ok(())
}

/// QUO-070, RFC 9112 sections 6 and 9.3: bodies up to the limit reach the backend whole, announced or in chunks, from
/// clients of both versions.
fn bodies_of_all_sizes_go_up(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let (host, path) = (deployed.host(), deployed.path("/b/echo"));
    let next = request("GET", &host, &deployed.path("/b/fixed/5"));
    for (length, size) in [
        (0, 1),
        (1, 1),
        (10_000, 999),
        (1_000_000, 16_384),
        (PAYLOAD, 100_003),
    ] {
        for (version, connection_says, on) in CLIENTS {
            let body = pattern(length);
            let head = format!("POST {path} HTTP/{version}\r\nHost: {host}\r\n{connection_says}");
            let announced = [
                format!("{head}Content-Length: {length}\r\n\r\n").as_bytes(),
                &body,
            ]
            .concat();
            let mut requests = vec![announced];
            // HTTP/1.0 has no chunks.
            if *version == "1.1" {
                let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
                for chunk in body.chunks(size) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
                requests.push(bytes);
            }
            for (at, bytes) in requests.into_iter().enumerate() {
                let what = format!("{length} bytes, HTTP/{version} {connection_says:?}, request {at}");
                let mut connection = Connection::open(shared.http())?;
                connection.send(bytes).with_context(|| what.clone())?;
                let response = connection.response().with_context(|| what.clone())?;
                ensure!(response.status == 200, "{what}: {response:?}");
                let echoed = response.json()?;
                ensure!(
                    echoed["length"] == length && echoed["isPattern"] == true,
                    "{what}: {} arrived",
                    echoed["length"]
                );
                ensure_goes_on(connection, *on, &next).with_context(|| what.clone())?;
            }
        }
    }
    Ok(())
}

/// QUO-070, RFC 9112 sections 6 and 9.3, D14: bodies up to the limit reach the client whole, however the backend frames
/// them, on clients of both versions; to HEAD, only their length does.
fn bodies_of_all_sizes_come_down(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let host = deployed.host();
    let next = request("GET", &host, &deployed.path("/b/fixed/5"));
    for (count, size) in [(0, 1), (1, 1), (10, 1_000), (50, 20_000), (160, 65_536)] {
        let length = count * size;
        for (version, connection_says, on) in CLIENTS {
            for path in [
                format!("/b/fixed/{length}"),
                format!("/b/chunked/{count}/{size}"),
                format!("/b/close/{length}"),
            ] {
                let what = format!("{path}, HTTP/{version} {connection_says:?}");
                let mut connection = Connection::open(shared.http())?;
                let head = |method: &str, path: &str| {
                    format!(
                        "{method} {} HTTP/{version}\r\nHost: {host}\r\n{connection_says}\r\n",
                        deployed.path(path)
                    )
                };
                connection.send(head("GET", &path))?;
                let response = connection.response().with_context(|| what.clone())?;
                ensure!(
                    response.status == 200 && response.body == pattern(length),
                    "{what}: {} with {} bytes",
                    response.status,
                    response.body.len()
                );
                // Without a length HTTP/1.0 has nothing but the connection's end.
                let lasting = !response.until_close;
                ensure!(
                    lasting || *version == "1.0",
                    "{what}: ended by the connection's end"
                );
                ensure_goes_on(connection, *on && lasting, &next).with_context(|| what.clone())?;
            }
            let mut connection = Connection::open(shared.http())?;
            connection.send(format!(
                "HEAD {} HTTP/{version}\r\nHost: {host}\r\n{connection_says}\r\n",
                deployed.path(&format!("/b/fixed/{length}"))
            ))?;
            let response = connection.response_to(true)?;
            ensure!(
                response.status == 200 && response.header("content-length") == Some(&length.to_string()),
                "HEAD of {length} bytes: {response:?}"
            );
            ensure_goes_on(connection, *on, &next)
                .with_context(|| format!("after HEAD of {length} bytes"))?;
        }
    }
    Ok(())
}

/// D12, OBV-203: every path trick. Refused ones get 400; the others reach the backend in one form, with as many segments
/// as the caller sent.
fn paths_are_taken_literally_or_refused(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend).proxy(
        "GET",
        "/one/{id}",
        &shared.backend.url("/echo/{id}/end"),
    ))?;
    let host = deployed.host();
    for path in [
        "/b/echo/%00",
        "/b/echo/a%00b",
        "/b/echo/%",
        "/b/echo/%4",
        "/b/echo/%zz",
        "/b/echo/%C",
        "/b/echo/a\\b",
        "/b/echo/../secret",
        "/b/echo/..",
        "/b/echo/.",
        "/b/echo/./x",
        "/b/echo/%2e%2e/secret",
        "/b/echo/%2E/x",
        "/b/echo/.%2e/x",
        "/b/echo/%2e.",
        "/b/%2e%2e",
        "/b/echo/%01",
        "/b/echo/%0a",
        "/b/echo/%0d%0aX-A:%20b",
        "/b/echo/%7f",
        "/../test/b/echo",
        "/%2e%2e/test/b/echo",
    ] {
        let target = if path.starts_with("/..") || path.starts_with("/%2e") {
            path.to_owned()
        } else {
            deployed.path(path)
        };
        let response = get(shared.http(), &host, &target)?;
        ensure!(response.status == 400, "{path}: {response:?}");
    }
    for (path, seen) in [
        ("/b/echo/a%2Fb", "/echo/a%2Fb"),
        ("/b/echo/a%5Cb", "/echo/a%5Cb"),
        ("/b/echo/%252e%252e/x", "/echo/%252e%252e/x"),
        ("/b/echo/a%3Fb%23c", "/echo/a%3Fb%23c"),
        ("/b/echo/%E2%82%AC", "/echo/%E2%82%AC"),
        ("/b/echo/a+b", "/echo/a+b"),
        ("/b/echo/...", "/echo/..."),
        ("/b/echo/a;b=c", "/echo/a;b=c"),
        ("/one/a%2Fb", "/echo/a%2Fb/end"),
        ("/one/a%3Fx=1", "/echo/a%3Fx=1/end"),
        ("/%62/echo/x", "/echo/x"),
    ] {
        let response = get(shared.http(), &host, &deployed.path(path))?;
        ensure!(response.status == 200, "{path}: {response:?}");
        let target = response.json()?["target"].as_str().unwrap_or_default().to_owned();
        ensure!(
            target.eq_ignore_ascii_case(seen),
            "{path} reached the backend as {target}, not {seen}"
        );
    }
    // A literal never matches what only decodes to it, and the absolute form's authority wins.
    ensure!(
        get(shared.http(), &host, &deployed.path("/b%2Fecho/x"))?.status == 403,
        "an encoded slash split a segment"
    );
    let absolute = get(
        shared.http(),
        "elsewhere.example",
        &format!("http://{host}{}", deployed.path("/b/fixed/4")),
    )?;
    ensure!(
        absolute.status == 200 && absolute.body == pattern(4),
        "{absolute:?}"
    );
    Ok(())
}

/// D14: `100 Continue` comes from the gateway, after every check that needs no body; a refusal comes instead of it.
fn expectations_are_met_by_the_gateway(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let mut connection = Connection::open(shared.http())?;
    let expecting = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
            deployed.host()
        )
    };
    connection.send(expecting(&deployed.path("/b/echo")))?;
    let interim = connection.any_response()?;
    ensure!(interim.status == 100, "{interim:?}");
    connection.send("abc")?;
    let echoed = connection.response()?.json()?;
    ensure!(echoed["body"] == "abc", "{echoed}");
    connection.send(expecting(&deployed.path("/nowhere")))?;
    let refused = connection.any_response()?;
    ensure!(refused.status == 403, "{refused:?}");
    Ok(())
}
