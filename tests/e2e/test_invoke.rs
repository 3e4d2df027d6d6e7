//! Test invocations: a method of the draft runs through the data plane's own pipeline, and nothing routes to it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tidegate_harness::backend::{Backend, pattern};
use tidegate_harness::definition::Definition;
use tidegate_harness::instance::Instance;
use tidegate_harness::raw::get;
use tidegate_harness::suite::{Context, Test};

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::both_drivers("a_draft_is_run", a_draft_is_run),
    Test::once("nothing_of_it_is_traffic", nothing_of_it_is_traffic),
    Test::once(
        "large_bodies_are_cut_and_said_to_be",
        large_bodies_are_cut_and_said_to_be,
    ),
    Test::once(
        "what_cannot_be_tested_is_refused",
        what_cannot_be_tested_is_refused,
    ),
];

fn api(backend: &Backend) -> Definition {
    let custom = json!({
        "type": "http", "httpMethod": "GET", "uri": backend.url("/fixed/5"),
        "responses": { "default": { "statusCode": "202" } },
    });
    Definition::new("draft")
        .proxy("ANY", "/b/{proxy+}", &backend.url("/{proxy}"))
        .proxy("POST", "/pets/{petId}", &backend.url("/echo/{petId}"))
        .proxy("GET", "/gone", "http://127.0.0.1:1/")
        .method("GET", "/custom", 202, custom)
        .method(
            "POST",
            "/shaped",
            200,
            json!({
                "type": "http", "httpMethod": "POST", "uri": backend.url("/say/200"),
                "requestTemplates": { "application/json": "<$input.body>" },
                "responses": { "default": { "statusCode": "200", "responseTemplates": { "application/json": "[$input.body]" } } },
            }),
        )
        .mock("GET", "/mock", 204)
        .mock("GET", "/mocked", 200)
}

/// Imports without deploying; the API's id.
fn draft(up: &Instance, backend: &Backend) -> Result<String> {
    let file = up.home().join("draft.json");
    std::fs::write(&file, api(backend).to_json())?;
    let imported = up.json(&["import", &file.display().to_string()])?;
    Ok(imported["apiId"].as_str().context("an id")?.to_owned())
}

fn invoke(up: &Instance, api: &str, arguments: &[&str]) -> Result<Value> {
    let mut all = vec!["test-invoke", api];
    all.extend(arguments);
    up.json(&all)
}

/// DEP-020 to DEP-025, OBV-169 to OBV-174, OBV-178 to OBV-183, SCN-040, SCN-070: status, headers, body, latency and log of
/// methods that no stage serves; the integration is really called.
fn a_draft_is_run(context: &Context) -> Result<()> {
    let backend = Backend::start()?;
    let up = context.plan().up("up")?;
    let id = draft(&up, &backend)?;
    let posted = invoke(
        &up,
        &id,
        &[
            "POST",
            "/pets/{petId}",
            "--path",
            "/pets/7?type=dog&a=%20b",
            "--data",
            "{\"n\":1}",
            "-H",
            "Day: Monday",
            "-H",
            "authorization: Bearer 0123456789abcdef",
        ],
    )?;
    ensure!(posted["status"] == 200, "{posted}");
    let echoed: Value = serde_json::from_str(posted["body"].as_str().context("a body")?)?;
    ensure!(
        echoed["method"] == "POST" && echoed["body"] == "{\"n\":1}",
        "{echoed}"
    );
    let target = echoed["target"].as_str().unwrap_or_default();
    ensure!(target == "/echo/7?type=dog&a=%20b", "{echoed}");
    let log = posted["log"].as_str().context("a log")?;
    let (first, rest) = log.split_once('\n').context("lines")?;
    let request_id = first
        .strip_prefix("Execution log for request ")
        .context("the first line")?;
    let lines: Vec<&str> = rest
        .lines()
        .map(|line| line.split_once(" : ").map_or("", |(_, text)| text))
        .collect();
    for expected in [
        format!("Starting execution for request: {request_id}"),
        "HTTP Method: POST, Resource Path: /pets/7".to_owned(),
        "Method request path: {petId=7}".to_owned(),
        "Method request query string: {type=dog, a= b}".to_owned(),
        "Method request headers: {Day=Monday, authorization=**************abcdef}".to_owned(),
        "Method request body before transformations: {\"n\":1}".to_owned(),
        format!("Endpoint request URI: {}", backend.url("/echo/7?type=dog&a=%20b")),
        format!("Sending request to {}", backend.url("/echo/7?type=dog&a=%20b")),
        "Successfully completed execution".to_owned(),
        "Method completed with status: 200".to_owned(),
    ] {
        ensure!(
            lines.contains(&expected.as_str()),
            "no line `{expected}` in\n{log}"
        );
    }
    ensure!(
        lines
            .iter()
            .any(|line| line.starts_with("Received response. Status: 200, Integration latency: ")),
        "{log}"
    );
    ensure!(
        // The backend's own answer repeats what it got.
        !lines
            .iter()
            .any(|line| line.contains("0123456789") && !line.contains(" response body ")),
        "a credential stands in the log:\n{log}"
    );
    ensure!(
        posted["latencyMs"].is_u64() && posted["bodyBytes"].as_u64() > Some(0),
        "{posted}"
    );

    // OBV-180: without a path the template is the path; the log shows it so.
    let unnamed = invoke(&up, &id, &["POST", "/pets/{petId}"])?;
    ensure!(
        unnamed["log"]
            .as_str()
            .is_some_and(|log| log.contains("Method request path: {petId={petId}}")),
        "{unnamed}"
    );
    // OBV-178, OBV-179: a path that leads elsewhere runs the addressed method, without values.
    let elsewhere = invoke(&up, &id, &["GET", "/mocked", "--path", "/random/test"])?;
    ensure!(
        elsewhere["status"] == 200
            && elsewhere["headers"] == json!([["Content-Type", "application/json"]])
            && elsewhere["log"]
                .as_str()
                .is_some_and(|log| log.contains("Method request path: {}")),
        "{elsewhere}"
    );
    // OBV-174: what goes to the endpoint and comes from it, in its order.
    let shaped = invoke(&up, &id, &["POST", "/shaped", "--data", "{}"])?;
    let log = shaped["log"].as_str().context("a log")?;
    let mut rest = log;
    for expected in [
        "Method request body before transformations: {}\n",
        "Endpoint request URI: ",
        "Endpoint request headers: {",
        "Endpoint request body after transformations: <{}>\n",
        "Sending request to ",
        "Received response. Status: 200, Integration latency: ",
        "Endpoint response headers: {",
        "Endpoint response body before transformations: <{}>\n",
        "Method response body after transformations: [<{}>]\n",
        "Method response headers: {",
        "Successfully completed execution\n",
        "Method completed with status: 200\n",
    ] {
        let at = rest.find(expected);
        rest = &rest[at.with_context(|| format!("no `{expected}` in its place in\n{log}"))?..];
    }
    let empty = invoke(&up, &id, &["GET", "/mock"])?;
    ensure!(empty["status"] == 204 && empty["body"] == "", "{empty}");
    let custom = invoke(&up, &id, &["GET", "/custom"])?;
    ensure!(custom["status"] == 202 && custom["bodyBytes"] == 5, "{custom}");
    // SCN-040: what ANY stands for, greedy.
    let any = invoke(
        &up,
        &id,
        &["PUT", "/b/{proxy+}", "--path", "/b/echo/a/b", "--data", "x"],
    )?;
    ensure!(
        any["status"] == 200
            && any["body"]
                .as_str()
                .is_some_and(|body| body.contains("/echo/a/b"))
            && any["log"]
                .as_str()
                .is_some_and(|log| log.contains("{proxy=echo/a/b}")),
        "{any}"
    );
    // What the gateway answers itself is an answer too.
    let gone = invoke(&up, &id, &["GET", "/gone"])?;
    ensure!(
        gone["status"] == 504
            && gone["log"]
                .as_str()
                .is_some_and(|log| log.contains("Execution failed: ")),
        "{gone}"
    );
    Ok(())
}

/// C3, OBS-002: no request reaches what is tested, and no counter, series or log knows of it.
fn nothing_of_it_is_traffic(context: &Context) -> Result<()> {
    let backend = Backend::start()?;
    let up = context.plan().up("up")?;
    let id = draft(&up, &backend)?;
    let counted = || -> Result<Vec<String>> {
        let metrics = get(up.ready().metrics, "metrics", "/metrics")?.text();
        ensure!(!metrics.contains("test-invoke"), "{metrics}");
        let lines = metrics.lines().filter(|line| {
            ["requests_total", "Count", "accepted"]
                .iter()
                .any(|name| line.contains(name))
        });
        Ok(lines.map(str::to_owned).collect())
    };
    let before = counted()?;
    ensure!(!before.is_empty(), "nothing is counted at all");
    for _ in 0..3 {
        ensure!(invoke(&up, &id, &["GET", "/mocked"])?["status"] == 200);
    }
    ensure!(counted()? == before, "{before:?} became {:?}", counted()?);
    for stage in ["test-invoke-stage", "null", ""] {
        let path = format!("/restapis/{id}/{stage}/_user_request_/mocked");
        let answer = get(up.ready().http, "127.0.0.1", &path)?;
        ensure!(answer.status == 403, "{path}: {answer:?}");
        let answer = get(
            up.ready().http,
            &format!("{id}.execute-api.localhost"),
            &format!("/{stage}/mocked"),
        )?;
        ensure!(answer.status == 403, "{stage}: {answer:?}");
    }
    Ok(())
}

/// `test-invoke-body-bytes`: what is over it is counted and cut, and the log says so.
fn large_bodies_are_cut_and_said_to_be(context: &Context) -> Result<()> {
    let backend = Backend::start()?;
    let up = context
        .plan()
        .set("TIDEGATE_LIMITS__TEST_INVOKE_BODY_BYTES", "1000")
        .up("up")?;
    let id = draft(&up, &backend)?;
    for (size, kept) in [(1_000, 1_000), (1_001, 1_000), (3_000_000, 1_000)] {
        let answer = invoke(
            &up,
            &id,
            &["GET", "/b/{proxy+}", "--path", &format!("/b/fixed/{size}")],
        )?;
        let body = answer["body"].as_str().context("a body")?;
        ensure!(
            answer["status"] == 200
                && body.as_bytes() == &pattern(size)[..kept]
                && answer["bodyBytes"] == size,
            "{size}: {answer}"
        );
        let told = answer["log"]
            .as_str()
            .is_some_and(|log| log.contains("test-invoke-body-bytes"));
        ensure!(told == (size > kept), "{size}: {answer}");
    }
    // A large body goes the other way as well.
    let body = up.home().join("body");
    std::fs::write(&body, pattern(2_000_000))?;
    let sent = invoke(
        &up,
        &id,
        &[
            "POST",
            "/b/{proxy+}",
            "--path",
            "/b/echo",
            "--data",
            &format!("@{}", body.display()),
        ],
    )?;
    ensure!(sent["status"] == 200, "{sent}");
    let last = sent["body"].as_str().unwrap_or_default();
    ensure!(last.contains("2000000") && last.contains("true"), "{sent}");
    Ok(())
}

/// OBV-185: unknown resources and methods; requests that cannot be sent; nobody there to run it.
fn what_cannot_be_tested_is_refused(context: &Context) -> Result<()> {
    let backend = Backend::start()?;
    let mut up = context.plan().up("up")?;
    let id = draft(&up, &backend)?;
    let refused = |up: &Instance, arguments: &[&str]| -> Result<String> {
        let mut all = vec!["test-invoke", id.as_str()];
        all.extend(arguments);
        let output = up.command(&all)?;
        ensure!(!output.status.success(), "{arguments:?} was taken");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (arguments, why) in [
        (&["GET", "abcdef"][..], "Invalid Resource identifier specified"),
        (&["DELETE", "/mocked"], "Invalid Method identifier specified"),
        (&["GET", "/nowhere"], "has no resource /nowhere"),
        (&["ANY", "/b/{proxy+}"], "Name the method"),
        (&["GET", "/mocked", "--path", "/a b"], "encode it"),
        (&["GET", "/mocked", "-H", "a b: c"], "cannot be sent"),
        (
            &["GET", "/mocked", "--node", "nobody"],
            "Node nobody is not connected",
        ),
    ] {
        let told = refused(&up, arguments)?;
        ensure!(told.contains(why), "{arguments:?}: {told}");
    }
    // A control plane without nodes.
    let alone = context.plan().control_plane("alone", "127.0.0.1:0")?;
    let id_alone = draft(&alone, &backend)?;
    let output = alone.command(&["test-invoke", &id_alone, "GET", "/mocked"])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(told.contains("No node is connected"), "{told}");
    up.terminate()?;
    Ok(())
}
