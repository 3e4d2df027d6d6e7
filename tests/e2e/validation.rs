//! Request validators: what is refused before a backend sees it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tidegate_harness::backend::Backend;
use tidegate_harness::definition::Definition;
use tidegate_harness::instance::Deployed;
use tidegate_harness::raw::{Connection, Response, exchange, request, request_with};
use tidegate_harness::suite::{Context, Test};

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::everywhere("missing_parameters_are_named", missing_parameters_are_named),
    Test::everywhere("bodies_must_fit_their_model", bodies_must_fit_their_model),
    Test::both_drivers("large_and_deep_bodies", large_and_deep_bodies),
    Test::both_drivers("the_owner_s_answer_is_given", the_owner_s_answer_is_given),
    Test::once("a_test_invocation_says_why", a_test_invocation_says_why),
];

/// The validation API of the guide: `GET` needs a parameter, `POST` a header and a body that is a pet.
fn api(backend: &Backend) -> Definition {
    let pet = json!({
        "type": "object", "required": ["name", "price", "type"],
        "properties": {
            "id": { "type": "integer" }, "name": { "type": "string" },
            "type": { "type": "string", "enum": ["dog", "cat", "fish"] },
            "price": { "$ref": "#/components/schemas/Price" },
        },
    });
    let integration = |verb: &str, mapped: Value| {
        json!({
            "type": "http_proxy", "httpMethod": verb, "uri": backend.url("/echo/it"), "requestParameters": mapped,
        })
    };
    let content = |media_type: &str| json!({ "content": { media_type: { "schema": { "$ref": "#/components/schemas/Pet" } } } });
    let parameter = |place: &str, name: &str| json!({ "in": place, "name": name, "required": true, "schema": { "type": "string" } });
    let responses = json!({ "200": { "description": "fine" } });
    Definition::new("validation")
        .member(
            "components",
            json!({ "schemas": { "Pet": pet, "Price": { "type": "number", "minimum": 25.0, "maximum": 500.0 } } }),
        )
        .member(
            "x-amazon-apigateway-request-validators",
            json!({
                "all": { "validateRequestParameters": true, "validateRequestBody": true },
                "params-only": { "validateRequestParameters": true, "validateRequestBody": false },
            }),
        )
        .operation(
            "GET",
            "/validation",
            json!({
                "x-amazon-apigateway-request-validator": "params-only", "responses": responses,
                "parameters": [parameter("query", "q1"), parameter("query", "q2"), parameter("header", "h1")],
                "x-amazon-apigateway-integration":
                    integration("GET", json!({ "integration.request.querystring.type": "method.request.querystring.q1" })),
            }),
        )
        .operation(
            "POST",
            "/validation",
            json!({
                "x-amazon-apigateway-request-validator": "all", "responses": responses,
                "parameters": [parameter("header", "h1")], "requestBody": content("application/json"),
                "x-amazon-apigateway-integration":
                    integration("POST", json!({ "integration.request.header.custom_h1": "method.request.header.h1" })),
            }),
        )
        .operation(
            "POST",
            "/unchecked",
            json!({
                "responses": responses, "parameters": [parameter("header", "h1")],
                "requestBody": content("application/json"),
                "x-amazon-apigateway-integration": integration("POST", json!({})),
            }),
        )
}

fn post(deployed: &Deployed, path: &str, kind: Option<&str>, h1: Option<&str>, body: &str) -> Vec<u8> {
    let mut text = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\n",
        deployed.path(path),
        deployed.host()
    );
    for (name, value) in [("Content-Type", kind), ("h1", h1)] {
        if let Some(value) = value {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text.into_bytes()
}

fn refused(answer: &Response, message: &str) -> Result<()> {
    ensure!(
        answer.status == 400 && answer.text() == format!("{{\"message\": \"{message}\"}}"),
        "{message}: {answer:?} {}",
        answer.text()
    );
    ensure!(
        answer.header("x-amzn-errortype") == Some("BadRequestException"),
        "{answer:?}"
    );
    Ok(())
}

/// INT-144, INT-148, INT-149, INT-152, INT-154, INT-170, GWR-001, GWR-112, GWR-114, OBV-210: what is missing or blank
/// is named in one message, and the backend hears nothing of it.
fn missing_parameters_are_named(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let backend = Backend::start()?;
    let deployed = shared.deploy(&api(&backend))?;
    let (host, http) = (deployed.host(), shared.http());
    let mut connection = Connection::open(http)?;
    for (query, h1, missing) in [
        ("", "", "[h1, q1, q2]"),
        ("?q1=cat", "h1: x\r\n", "[q2]"),
        ("?q1=cat&q2", "h1: x\r\n", "[q2]"),
        ("?q1=cat&q2=%20+%09", "h1: x\r\n", "[q2]"),
        ("?Q1=cat&q2=1", "h1: x\r\n", "[q1]"),
        ("?q1=cat&q2=1", "h1: \r\n", "[h1]"),
    ] {
        let target = deployed.path("/validation");
        connection.send(format!(
            "GET {target}{query} HTTP/1.1\r\nHost: {host}\r\n{h1}\r\n"
        ))?;
        refused(
            &connection.response()?,
            &format!("Missing required request parameters: {missing}"),
        )?;
    }
    ensure!(backend.count()? == 0, "the backend was called");
    connection.send(format!(
        "GET {}?q1=cat&q2=&q2=1 HTTP/1.1\r\nHost: {host}\r\nH1: x\r\n\r\n",
        deployed.path("/validation")
    ))?;
    let passed = connection.response()?;
    ensure!(passed.status == 200, "{passed:?}");
    let target = passed.json()?["target"].as_str().unwrap_or_default().to_owned();
    ensure!(target.contains("type=cat"), "{target}");
    let unchecked = exchange(http, request("POST", &host, &deployed.path("/unchecked")))?;
    ensure!(unchecked.status == 200, "{unchecked:?}");
    Ok(())
}

/// INT-145, INT-146, INT-150, INT-153, INT-172, INT-173, INT-174, GWR-113: bodies that do not fit, parameters first;
/// what fits arrives as it was sent, and what no model is for is not looked at.
fn bodies_must_fit_their_model(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let backend = Backend::start()?;
    let deployed = shared.deploy(&api(&backend))?;
    let json = Some("application/json");
    let invalid = "Invalid request body";
    let mut connection = Connection::open(shared.http())?;
    for (kind, h1, body, message) in [
        (
            json,
            Some("x"),
            r#"{"name":"Bella","type":"dog","price":600}"#,
            invalid,
        ),
        (
            json,
            Some("x"),
            r#"{"name":"Bella","type":"bird","price":30}"#,
            invalid,
        ),
        (json, Some("x"), r#"{"name":"Bella","type":"dog"}"#, invalid),
        (None, Some("x"), r#"{"name":"Bella","type":"dog"}"#, invalid),
        (Some("APPLICATION/json; charset=UTF-8"), Some("x"), "[]", invalid),
        (json, Some("x"), "", invalid),
        (json, Some("x"), "not json", invalid),
        (
            json,
            Some("x"),
            r#"{"name":"Bella","type":"dog","price":30} x"#,
            invalid,
        ),
        (
            json,
            None,
            "not json",
            "Missing required request parameters: [h1]",
        ),
    ] {
        connection.send(post(&deployed, "/validation", kind, h1, body))?;
        refused(&connection.response()?, message).with_context(|| body.to_owned())?;
    }
    ensure!(backend.count()? == 0, "the backend was called");
    let fine = r#"{ "id":2,  "name":"Bella","type":"dog","price":400 }"#;
    for (kind, body) in [(json, fine), (None, fine), (Some("text/plain"), "anything")] {
        connection.send(post(&deployed, "/validation", kind, Some("x"), body))?;
        let passed = connection.response()?;
        ensure!(passed.status == 200, "{passed:?} {}", passed.text());
        let told = passed.json()?;
        ensure!(
            told["body"] == body && told["headers"].to_string().contains("custom_h1"),
            "{told}"
        );
    }
    // In chunks, and after an answer that asks for the body.
    let expecting = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nh1: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        deployed.path("/validation"),
        deployed.host()
    );
    connection.send(expecting)?;
    ensure!(
        connection.any_response()?.status == 100,
        "the body was not asked for"
    );
    let (first, second) = fine.split_at(10);
    connection.send(format!("{:x}\r\n{first}\r\n", first.len()))?;
    connection.send(format!("{:x}\r\n{second}\r\n0\r\n\r\n", second.len()))?;
    let passed = connection.response()?;
    ensure!(
        passed.status == 200 && passed.json()?["body"] == fine,
        "{passed:?}"
    );
    Ok(())
}

/// GWR-034: a body over the bound is too large and not invalid; one within it that is deep or long is judged all the same.
fn large_and_deep_bodies(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let backend = Backend::start()?;
    let deployed = shared.deploy(&api(&backend))?;
    let send = |body: &[u8]| {
        let mut bytes = request_with(
            "POST",
            &deployed.host(),
            &deployed.path("/validation"),
            "application/json",
            body,
        );
        let at = bytes
            .windows(2)
            .position(|two| two == b"\r\n")
            .unwrap_or_default()
            + 2;
        bytes.splice(at..at, *b"h1: x\r\n");
        exchange(shared.http(), bytes)
    };
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    refused(&send(deep.as_bytes())?, "Invalid request body")?;
    refused(&send(b"{\"name\": \"\xff\"}")?, "Invalid request body")?;
    let name = "x".repeat(3 << 20);
    let large = send(format!(r#"{{"name":"{name}","type":"dog","price":30}}"#).as_bytes())?;
    ensure!(large.status == 200, "{large:?}");
    ensure!(
        large.json()?["length"].as_u64() > Some(3 << 20),
        "{}",
        large.text()
    );
    let over = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nh1: x\r\nContent-Length: 10485761\r\n\r\n",
        deployed.path("/validation"),
        deployed.host()
    );
    let over = exchange(shared.http(), over)?;
    ensure!(over.status == 413, "{over:?}");
    Ok(())
}

/// GWR-004, GWR-008, GWR-014, INT-220, INT-222: the owner's own answer, with the reason where he asks for it.
fn the_owner_s_answer_is_given(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let template = r#"{"why":$context.error.messageString,"detail":"$context.error.validationErrorString"}"#;
    let definition = api(&shared.backend).member(
        "x-amazon-apigateway-gateway-responses",
        json!({ "BAD_REQUEST_PARAMETERS": { "statusCode": 422, "responseTemplates": { "application/json": template } } }),
    );
    let deployed = shared.deploy(&definition)?;
    let answer = exchange(
        shared.http(),
        request("GET", &deployed.host(), &deployed.path("/validation?q1=1&q2=2")),
    )?;
    let told = answer.json()?;
    ensure!(
        answer.status == 422 && told["why"] == "Missing required request parameters: [h1]",
        "{answer:?} {told}"
    );
    ensure!(
        told["detail"].as_str().is_some_and(|text| text.contains("[h1]")),
        "{told}"
    );
    Ok(())
}

/// INT-151, INT-212: a test invocation gives the 400 and names the violation near the end of its log.
fn a_test_invocation_says_why(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let up = &shared.instance;
    let deployed = shared.deploy(&api(&shared.backend))?;
    let invoke = |more: &[&str]| {
        let mut arguments = vec!["test-invoke", deployed.api_id.as_str()];
        arguments.extend(more);
        up.json(&arguments)
    };
    let body = r#"{"name":"Bella","type":"dog","price":1000}"#;
    let result = invoke(&["POST", "/validation", "--data", body, "-H", "h1: x"])?;
    ensure!(result["status"] == 400, "{result}");
    let log = result["log"].as_str().context("a log")?;
    ensure!(
        log.contains("numeric instance is greater than the required maximum (maximum: 500"),
        "{log}"
    );
    let result = invoke(&["GET", "/validation"])?;
    ensure!(
        result["status"] == 400
            && result["body"] == r#"{"message": "Missing required request parameters: [h1, q1, q2]"}"#,
        "{result}"
    );
    Ok(())
}
