//! Backends that are gone, slow, dying or talking nonsense: the caller gets a defined answer, never a body that seems
//! whole and is not, and the next request is served.

use anyhow::{Context as _, Result, ensure};
use tidegate_harness::backend::{Backend, GARBAGE, pattern};
use tidegate_harness::definition::Definition;
use tidegate_harness::instance::Deployed;
use tidegate_harness::raw::{Connection, Response, get, request};
use tidegate_harness::suite::{Context, Shared, Test};

use crate::pets::everything;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::everywhere("gone", gone),
    Test::everywhere("slow", slow),
    Test::everywhere("dying_before_an_answer", dying_before_an_answer),
    Test::everywhere("dying_within_a_body", dying_within_a_body),
    Test::everywhere("garbage", garbage),
    Test::everywhere(
        "an_early_answer_stops_the_upload",
        an_early_answer_stops_the_upload,
    ),
    Test::both_drivers("an_unasked_switch_is_refused", an_unasked_switch_is_refused),
    Test::both_drivers(
        "a_backend_that_returns_is_used_again",
        a_backend_that_returns_is_used_again,
    ),
];

/// What a caller is told of a backend that cannot be reached or leaves.
const NETWORK_ERROR: &str = "Network error communicating with endpoint";

/// The service's form of an answer that the gateway gives for a failed integration.
fn ensure_failure(response: &Response, status: u16, message: &str) -> Result<()> {
    ensure!(response.status == status, "{response:?}");
    ensure!(response.json()?["message"] == message, "{response:?}");
    ensure!(
        response.header("content-type") == Some("application/json"),
        "{response:?}"
    );
    ensure!(
        response.header("x-amzn-errortype") == Some("InternalServerErrorException"),
        "{response:?}"
    );
    ensure!(response.header("x-amzn-requestid").is_some(), "{response:?}");
    Ok(())
}

/// The same API still serves.
fn ensure_serves(shared: &Shared, deployed: &Deployed) -> Result<()> {
    let response = get(shared.http(), &deployed.host(), &deployed.path("/b/fixed/10"))?;
    ensure!(
        response.status == 200 && response.body == pattern(10),
        "no longer served: {response:?}"
    );
    Ok(())
}

/// GWR-022, D14: nobody listens at the backend's address: 504 `INTEGRATION_FAILURE`.
fn gone(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let mut backend = Backend::start()?;
    let deployed = shared.deploy(&everything(&backend))?;
    ensure!(
        get(shared.http(), &deployed.host(), &deployed.path("/b/fixed/3"))?.status == 200,
        "before"
    );
    backend.kill()?;
    let mut connection = Connection::open(shared.http())?;
    for method in ["GET", "POST", "GET"] {
        connection.send(format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\nContent-Length: 3\r\n\r\nabc",
            deployed.path("/b/echo"),
            deployed.host()
        ))?;
        let response = connection
            .response()
            .with_context(|| format!("{method} to a backend that is gone"))?;
        ensure_failure(&response, 504, NETWORK_ERROR)?;
    }
    Ok(())
}

/// GWR-022, INT-002, QUO-067: an answer that does not begin within `timeoutInMillis` is a 504 `INTEGRATION_TIMEOUT`.
fn slow(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let definition = Definition::new("slow")
        .proxy_within("ANY", "/hang", &shared.backend.url("/hang/head"), 300)
        .proxy("GET", "/b/{proxy+}", &shared.backend.url("/{proxy}"));
    let deployed = shared.deploy(&definition)?;
    let mut connection = Connection::open(shared.http())?;
    for _ in 0..2 {
        connection.send(request("GET", &deployed.host(), &deployed.path("/hang")))?;
        ensure_failure(&connection.response()?, 504, "Endpoint request timed out")?;
    }
    ensure_serves(&shared, &deployed)
}

/// GWR-022, D14, D11: a backend that ends the connection before or within a head is a 504 `INTEGRATION_FAILURE`. A
/// request that may be repeated may reach it twice, one that may not reaches it once.
fn dying_before_an_answer(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let backend = Backend::start()?;
    let deployed = shared.deploy(&everything(&backend))?;
    for path in ["/b/die/nothing", "/b/reset/nothing", "/b/die/head"] {
        let response = get(shared.http(), &deployed.host(), &deployed.path(path))?;
        ensure_failure(&response, 504, NETWORK_ERROR).with_context(|| path.to_owned())?;
        let before = backend.count()?;
        let mut connection = Connection::open(shared.http())?;
        connection.send(format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Length: 3\r\n\r\nabc",
            deployed.path(path),
            deployed.host()
        ))?;
        let response = connection.response()?;
        ensure_failure(&response, 504, NETWORK_ERROR).with_context(|| format!("POST {path}"))?;
        ensure!(
            backend.count()? == before + 1,
            "POST {path} reached the backend {} times",
            backend.count()? - before
        );
    }
    let serves = get(shared.http(), &deployed.host(), &deployed.path("/b/fixed/10"))?;
    ensure!(serves.status == 200, "{serves:?}");
    Ok(())
}

/// D14: a backend that dies within a body: the client sees a cut or a reset, never a clean end.
fn dying_within_a_body(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    for path in ["/b/die/length", "/b/reset/length", "/b/die/chunked"] {
        let mut connection = Connection::open(shared.http())?;
        connection.send(request("GET", &deployed.host(), &deployed.path(path)))?;
        let (bytes, _) = connection.drain()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        ensure!(text.starts_with("HTTP/1.1 200 "), "{path}: {text}");
        let mut again = Connection::open(shared.http())?;
        again.send(request("GET", &deployed.host(), &deployed.path(path)))?;
        ensure!(again.response().is_err(), "{path} ended cleanly: {text}");
        ensure_serves(&shared, &deployed)?;
    }
    Ok(())
}

/// D14, D15, RFC 9112: a head that is none is a 502, as a malformed answer of a function is (OBV-213), and its connection
/// is not used again.
fn garbage(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    for (kind, _) in GARBAGE {
        let mut connection = Connection::open(shared.http())?;
        connection.send(request(
            "GET",
            &deployed.host(),
            &deployed.path(&format!("/b/garbage/{kind}")),
        ))?;
        let response = connection
            .response()
            .with_context(|| format!("garbage of kind {kind}"))?;
        ensure_failure(&response, 502, "Internal server error").with_context(|| kind.to_owned())?;
        connection.send(request("GET", &deployed.host(), &deployed.path("/b/fixed/10")))?;
        let next = connection
            .response()
            .with_context(|| format!("the request after garbage of kind {kind}"))?;
        ensure!(
            next.status == 200 && next.body == pattern(10),
            "{kind}: then {next:?}"
        );
    }
    Ok(())
}

/// D14: the response is read while the body is still being sent, and a final one stops the upload.
fn an_early_answer_stops_the_upload(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let mut connection = Connection::open(shared.http())?;
    connection.send(format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000000\r\n\r\n",
        deployed.path("/b/early/409"),
        deployed.host()
    ))?;
    connection.send(pattern(1_000))?;
    let response = connection.response()?;
    ensure!(
        response.status == 409 && response.text() == "early",
        "{response:?}"
    );
    ensure_serves(&shared, &deployed)
}

/// D14: a 101 that nobody asked for is a failed integration.
fn an_unasked_switch_is_refused(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let response = get(shared.http(), &deployed.host(), &deployed.path("/b/switch"))?;
    ensure_failure(&response, 502, "Internal server error")?;
    ensure_serves(&shared, &deployed)
}

/// D11: idle connections to a backend that has restarted are noticed and not used.
fn a_backend_that_returns_is_used_again(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let mut first = Backend::start()?;
    let port = first.address().port();
    let deployed = shared.deploy(&everything(&first))?;
    for _ in 0..4 {
        ensure!(
            get(shared.http(), &deployed.host(), &deployed.path("/b/fixed/3"))?.status == 200,
            "before"
        );
    }
    first.kill()?;
    let second = Backend::start_on(port)?;
    for at in 0..8 {
        let mut connection = Connection::open(shared.http())?;
        connection.send(format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Length: 3\r\n\r\nabc",
            deployed.path("/b/echo"),
            deployed.host()
        ))?;
        let response = connection.response()?;
        ensure!(
            response.status == 200,
            "POST {at} after the backend's return: {response:?}"
        );
    }
    ensure!(
        second.count()? == 8,
        "the backend saw {} of 8 requests",
        second.count()?
    );
    Ok(())
}
