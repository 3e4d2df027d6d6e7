//! Gateway responses: what the gateway answers by itself, as the API's owner wants it.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tidegate_harness::definition::Definition;
use tidegate_harness::raw::{exchange, get, request};
use tidegate_harness::suite::{Context, Test};

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::everywhere("the_sample_of_the_guide", the_sample_of_the_guide),
    Test::both_drivers("fallbacks_stand_for_families", fallbacks_stand_for_families),
    Test::both_drivers("a_type_has_its_own", a_type_has_its_own),
    Test::both_drivers("templates_are_chosen_by_accept", templates_are_chosen_by_accept),
];

fn api(responses: Value) -> Definition {
    Definition::new("answers")
        .mock("GET", "/pets/{petId}", 200)
        .proxy("GET", "/gone", "http://127.0.0.1:1/")
        .member("x-amazon-apigateway-gateway-responses", responses)
}

/// GWR-002, GWR-003, GWR-004, GWR-006, GWR-007, GWR-008, GWR-009, GWR-010, GWR-011, GWR-012, GWR-013, GWR-014,
/// GWR-015, GWR-016, GWR-017, GWR-032, GWR-044, GWR-045, INT-220, INT-222: status, headers from constants, header,
/// path and query, and a template with variables.
fn the_sample_of_the_guide(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let template = "{\n  \"message\": $context.error.messageString,\n  \"type\": \"$context.error.responseType\",\n  \
                    \"stage\": \"$context.stage\",\n  \"resourcePath\": \"$context.resourcePath\",\n  \
                    \"unknown\": \"$context.nothing\",\n  \"id\": \"$method.request.path.petId\",\n  \
                    \"q\": \"${method.request.querystring.q}\", \"literal\": \"#if($x)\" }";
    let deployed = shared.deploy(&api(json!({ "MISSING_AUTHENTICATION_TOKEN": {
        "statusCode": 404,
        "responseParameters": {
            "gatewayresponse.header.Access-Control-Allow-Origin": "'a.b.c'",
            "gatewayresponse.header.x-request-id": "method.request.header.x-amzn-RequestId",
            "gatewayresponse.header.x-request-path": "method.request.path.petId",
            "gatewayresponse.header.x-request-query": "method.request.querystring.q",
            "gatewayresponse.header.x-request-either": "method.input.params.q",
            "gatewayresponse.header.x-stage": "context.stage",
            "gatewayresponse.header.x-nothing": "method.request.header.nothing",
        },
        "responseTemplates": { "application/json": template },
    } })))?;
    let answer = exchange(
        shared.http(),
        format!(
            "GET {}?q=1 HTTP/1.1\r\nHost: {}\r\nx-amzn-RequestId: 123344566\r\n\r\n",
            deployed.path("/pets/5/type"),
            deployed.host()
        ),
    )?;
    ensure!(
        answer.status == 404
            && answer.header("content-type") == Some("application/json")
            && answer.header("x-amzn-errortype") == Some("MissingAuthenticationTokenException"),
        "{answer:?}"
    );
    // No resource matched, so that nothing of the path has a name.
    for (name, expected) in [
        ("access-control-allow-origin", Some("a.b.c")),
        ("x-request-id", Some("123344566")),
        ("x-request-path", None),
        ("x-request-query", Some("1")),
        ("x-request-either", Some("1")),
        ("x-stage", Some("test")),
        ("x-nothing", None),
    ] {
        ensure!(answer.header(name) == expected, "{name}: {answer:?}");
    }
    let body = answer.json()?;
    ensure!(
        body == json!({
            "message": "Missing Authentication Token", "type": "MISSING_AUTHENTICATION_TOKEN", "stage": "test",
            "resourcePath": "", "unknown": "", "id": "", "q": "1", "literal": "#if($x)",
        }),
        "{body}"
    );
    // The resource is there, and has no such method.
    let answer = exchange(
        shared.http(),
        request("DELETE", &deployed.host(), &deployed.path("/pets/5")),
    )?;
    let body = answer.json()?;
    ensure!(
        answer.status == 404
            && answer.header("x-request-path") == Some("5")
            && body["resourcePath"] == "/pets/{petId}"
            && body["id"] == "5",
        "{answer:?} {body}"
    );
    Ok(())
}

/// GWR-023, GWR-024, GWR-025, GWR-028, GWR-058: a family's status, headers and templates, for each of its types that
/// has none, and each type's own again when they are taken away.
fn fallbacks_stand_for_families(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let origin = json!({ "gatewayresponse.header.Access-Control-Allow-Origin": "'domain.com'" });
    let deployed = shared.deploy(&api(json!({
        "DEFAULT_4XX": { "statusCode": 499, "responseParameters": origin },
        "DEFAULT_5XX": { "responseParameters": origin, "responseTemplates": { "text/plain": "sorry: $context.error.message" } },
    })))?;
    let missing = get(shared.http(), &deployed.host(), &deployed.path("/nope"))?;
    ensure!(
        missing.status == 499
            && missing.text() == r#"{"message":"Missing Authentication Token"}"#
            && missing.header("access-control-allow-origin") == Some("domain.com"),
        "{missing:?} {}",
        missing.text()
    );
    let gone = get(shared.http(), &deployed.host(), &deployed.path("/gone"))?;
    ensure!(
        gone.status == 504
            && gone.text() == "sorry: Network error communicating with endpoint"
            && gone.header("content-type") == Some("text/plain")
            && gone.header("access-control-allow-origin") == Some("domain.com"),
        "{gone:?} {}",
        gone.text()
    );
    let deployed = shared.instance.replace(&deployed, &api(json!({})))?;
    let missing = get(shared.http(), &deployed.host(), &deployed.path("/nope"))?;
    ensure!(
        missing.status == 403 && missing.header("access-control-allow-origin").is_none(),
        "{missing:?}"
    );
    Ok(())
}

/// GWR-014, GWR-024: a type's own status goes before its family's; headers and templates are its own or none.
fn a_type_has_its_own(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&api(json!({
        "DEFAULT_4XX": { "statusCode": 499, "responseParameters": { "gatewayresponse.header.family": "'f'" } },
        "MISSING_AUTHENTICATION_TOKEN": {
            "statusCode": "410", "responseParameters": { "gatewayresponse.header.own": "'o'", "gatewayresponse.header.Content-Type": "'text/html'" },
            "responseTemplates": { "application/json": "<b>$context.error.message</b>" },
        },
    })))?;
    let missing = get(shared.http(), &deployed.host(), &deployed.path("/nope"))?;
    ensure!(
        missing.status == 410
            && missing.header("own") == Some("o")
            && missing.header("family").is_none()
            && missing.header("content-type") == Some("text/html")
            && missing.count("content-type") == 1
            && missing.text() == "<b>Missing Authentication Token</b>",
        "{missing:?} {}",
        missing.text()
    );
    Ok(())
}

/// GWR-015: the template's media type is the answer's; the client's first that is there, else JSON's.
fn templates_are_chosen_by_accept(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&api(json!({ "DEFAULT_4XX": { "responseTemplates": {
        "application/json": "{\"j\":$context.error.messageString}", "application/xml": "<x>$context.error.message</x>",
    } } })))?;
    for (accept, expected) in [
        ("", "{\"j\":\"Missing Authentication Token\"}"),
        (
            "Accept: application/xml\r\n",
            "<x>Missing Authentication Token</x>",
        ),
        (
            "Accept: text/html, application/xml;q=0.9\r\n",
            "<x>Missing Authentication Token</x>",
        ),
        (
            "Accept: text/html\r\n",
            "{\"j\":\"Missing Authentication Token\"}",
        ),
    ] {
        let text = request("GET", &deployed.host(), &deployed.path("/nope"));
        let text = text.replacen("\r\n\r\n", &format!("\r\n{accept}\r\n"), 1);
        let answer = exchange(shared.http(), text)?;
        ensure!(answer.text() == expected, "{accept}: {}", answer.text());
    }
    Ok(())
}
