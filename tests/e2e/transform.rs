//! Mappings and templates: what a backend gets of a request, and what a client gets of its answer.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tidegate_harness::backend::Backend;
use tidegate_harness::definition::Definition;
use tidegate_harness::instance::Deployed;
use tidegate_harness::raw::{Connection, Response, exchange};
use tidegate_harness::suite::{Context, Test};

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::everywhere("a_mock_decides_by_its_template", a_mock_decides_by_its_template),
    Test::everywhere("bodies_are_reshaped_both_ways", bodies_are_reshaped_both_ways),
    Test::everywhere("requests_are_mapped", requests_are_mapped),
    Test::everywhere("answers_are_mapped", answers_are_mapped),
    Test::both_drivers("responses_are_selected", responses_are_selected),
    Test::both_drivers("unmapped_types_pass_or_do_not", unmapped_types_pass_or_do_not),
    Test::both_drivers("templates_override", templates_override),
    Test::both_drivers("payloads_are_converted", payloads_are_converted),
    Test::both_drivers(
        "what_cannot_be_rendered_is_refused",
        what_cannot_be_rendered_is_refused,
    ),
    Test::both_drivers("preflights_are_answered", preflights_are_answered),
    Test::both_drivers("large_answers_are_reshaped", large_answers_are_reshaped),
];

/// Sends a request with fields and a body on a connection of its own.
fn send(
    context: &Context,
    deployed: &Deployed,
    verb: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Result<Response> {
    let shared = context.shared()?;
    let mut bytes = format!(
        "{verb} {} HTTP/1.1\r\nHost: {}\r\n",
        deployed.path(path),
        deployed.host()
    );
    for (name, value) in fields {
        bytes.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        bytes.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    bytes.push_str("\r\n");
    let mut bytes = bytes.into_bytes();
    bytes.extend_from_slice(body);
    exchange(shared.http(), bytes)
}

/// An `HTTP` integration whose backend tells what it got.
fn http(backend: &Backend, path: &str, more: Value) -> Value {
    let mut integration = json!({
        "type": "http", "httpMethod": "POST", "uri": backend.url(path),
        "responses": { "default": { "statusCode": "200" } },
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        integration[name] = value.clone();
    }
    integration
}

/// The value of a header among those that the backend tells.
fn told<'t>(told: &'t Value, name: &str) -> Vec<&'t str> {
    let pairs = told["headers"].as_array().into_iter().flatten();
    pairs
        .filter(|pair| pair[0].as_str().is_some_and(|one| one.eq_ignore_ascii_case(name)))
        .filter_map(|pair| pair[1].as_str())
        .collect()
}

/// INT-060, INT-061, INT-062, INT-063, INT-064, INT-065, INT-066, INT-067, INT-068, INT-070, VTL-070, OBV-225,
/// OBV-226, OBV-229, OBV-230: the rendered template names the status that chooses the response; nobody is called.
fn a_mock_decides_by_its_template(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let template = "{\n  #if( $input.params('scope') == \"internal\" )\n    \"statusCode\": 200\n  #else\n    \"statusCode\": 500\n  #end\n}";
    let integration = json!({
        "type": "mock", "passthroughBehavior": "when_no_templates",
        "requestTemplates": { "application/json": template },
        "responses": {
            "default": { "statusCode": "200", "responseTemplates": {
                "application/json": "{\"statusCode\": 500, \"id\": \"$input.params('id')\", \"stage\": \"$context.stage\"}" } },
            "5\\d{2}": { "statusCode": "500", "responseTemplates": { "application/json": "{\"message\": \"not here\"}" } },
        },
    });
    let empty = json!({ "type": "mock", "responses": { "default": { "statusCode": "200" } } });
    let unreadable = json!({
        "type": "mock", "requestTemplates": { "application/json": "{\"code\": $context.requestTimeEpoch}" },
        "responses": { "default": { "statusCode": "200" } },
    });
    let operation = json!({
        "responses": { "200": { "description": "" }, "500": { "description": "" } },
        "parameters": [{ "in": "path", "name": "id", "required": true, "schema": { "type": "string" } }],
        "x-amazon-apigateway-integration": integration,
    });
    let definition = Definition::new("mocks")
        .operation("GET", "/{id}", operation)
        .method("GET", "/no/template", 200, empty)
        .method("GET", "/no/status", 200, unreadable);
    let deployed = shared.deploy(&definition)?;
    let inside = send(context, &deployed, "GET", "/a%20b?scope=internal", &[], b"")?;
    ensure!(
        inside.status == 200
            && inside.header("content-type") == Some("application/json")
            && inside.json()? == json!({ "statusCode": 500, "id": "a b", "stage": "test" }),
        "{inside:?} {}",
        inside.text()
    );
    for query in ["", "?scope=public"] {
        let outside = send(context, &deployed, "GET", &format!("/7{query}"), &[], b"")?;
        ensure!(
            outside.status == 500 && outside.text() == r#"{"message": "not here"}"#,
            "{outside:?} {}",
            outside.text()
        );
    }
    let bare = send(context, &deployed, "GET", "/no/template", &[], b"")?;
    ensure!(bare.status == 200 && bare.text().is_empty(), "{bare:?}");
    let broken = send(context, &deployed, "GET", "/no/status", &[], b"")?;
    ensure!(
        broken.status == 500 && broken.text() == r#"{"message": "Internal server error"}"#,
        "{broken:?}"
    );
    Ok(())
}

/// VTL-001, VTL-002, VTL-007, VTL-060, VTL-061, VTL-062, VTL-063, VTL-370, INT-090, INT-092, INT-093, INT-094,
/// OBV-234, OBV-235, OBV-236, OBV-247, OBV-258, OBV-267: the backend gets the request template's text, the client the
/// response template's.
fn bodies_are_reshaped_both_ways(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let request = "#set($root = $input.path('$'))\n{\"kind\": \"$root.type\", \"all\": $input.json('$'), \"who\": \"$input.params('who')\"}";
    let response = "#set($r = $input.path('$'))\n[#foreach($pet in $r)\n{\"description\": \"Item $pet.id is a $pet.type.\", \"askingPrice\": $pet.price}#if($foreach.hasNext),#end\n#end]";
    let reshaped = http(
        &shared.backend,
        "/echo/x",
        json!({ "requestTemplates": { "application/json": request } }),
    );
    let mut pets = http(&shared.backend, "/pets", json!({}));
    pets["httpMethod"] = json!("GET");
    pets["responses"]["default"]["responseTemplates"] = json!({ "application/json": response });
    let definition = Definition::new("reshaped")
        .method("POST", "/in", 200, reshaped.clone())
        .method("GET", "/in", 200, reshaped)
        .method("GET", "/pets", 200, pets);
    let deployed = shared.deploy(&definition)?;
    let fields = [("Content-Type", "application/json; charset=UTF-8"), ("who", "me")];
    let answer = send(
        context,
        &deployed,
        "POST",
        "/in",
        &fields,
        br#"{"type":"dog", "n": 1.50}"#,
    )?;
    let echoed = answer.json()?;
    let body: Value = serde_json::from_str(echoed["body"].as_str().unwrap_or_default())?;
    ensure!(
        answer.status == 200
            && echoed["body"]
                == "{\"kind\": \"dog\", \"all\": {\"type\":\"dog\",\"n\":1.50}, \"who\": \"me\"}",
        "{answer:?} {echoed}"
    );
    ensure!(body["who"] == "me", "{body}");
    ensure!(
        told(&echoed, "content-type") == ["application/json"]
            && told(&echoed, "accept") == ["application/json"]
            && told(&echoed, "who").is_empty()
            && told(&echoed, "x-amzn-apigateway-api-id") == [deployed.api_id.as_str()]
            && told(&echoed, "user-agent") == [format!("AmazonAPIGateway_{}", deployed.api_id)],
        "{echoed}"
    );
    let bodiless = send(context, &deployed, "GET", "/in", &[], b"")?.json()?;
    ensure!(
        bodiless["method"] == "POST" && bodiless["body"] == "{\"kind\": \"\", \"all\": {}, \"who\": \"\"}",
        "{bodiless}"
    );
    for accept in ["application/json", "application/xml"] {
        let pets = send(context, &deployed, "GET", "/pets", &[("Accept", accept)], b"")?;
        ensure!(
            pets.status == 200 && pets.header("content-type") == Some("application/json"),
            "{pets:?}"
        );
        ensure!(
            pets.json()?
                == json!([
                    { "description": "Item 1 is a dog.", "askingPrice": 249.99 },
                    { "description": "Item 2 is a cat.", "askingPrice": 124.99 },
                    { "description": "Item 3 is a fish.", "askingPrice": 0.99 },
                ]),
            "{}",
            pets.text()
        );
    }
    Ok(())
}

/// VTL-103, VTL-104, VTL-105, VTL-106, VTL-107, VTL-108, VTL-004, OBV-246, OBV-253, OBV-254, OBV-279, OBV-280,
/// OBV-281, OBV-282, OBV-283, OBV-284, OBV-285, OBV-288: every source, into path, query and headers; of the method's
/// own request nothing else goes along.
fn requests_are_mapped(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let mapped = json!({
        "integration.request.path.place": "method.request.header.Place",
        "integration.request.path.pet-name": "method.request.body.petstore.pets[0].name",
        "integration.request.querystring.all": "method.request.multivaluequerystring.q",
        "integration.request.querystring.last": "method.request.querystring.q",
        "integration.request.querystring.missing": "method.request.querystring.nothing",
        "integration.request.header.body-header": "method.request.body",
        "integration.request.header.tags": "method.request.body.petstore.tags",
        "integration.request.header.both": "method.request.multivalueheader.Two",
        "integration.request.header.cased": "method.request.header.TWO",
        "integration.request.header.stage": "context.stage",
        "integration.request.header.fixed": "'a, b'",
        "integration.request.header.Connection": "'close'",
        "integration.request.header.User-Agent": "'own'",
    });
    let more = json!({ "requestParameters": mapped });
    let custom = http(&shared.backend, "/echo/{place}/{pet-name}", more.clone());
    let mut proxy = http(&shared.backend, "/echo/{place}/{pet-name}", more);
    proxy["type"] = json!("http_proxy");
    let definition = Definition::new("mapped")
        .method("POST", "/custom", 200, custom)
        .method("POST", "/proxy", 200, proxy);
    let deployed = shared.deploy(&definition)?;
    let body = r#"{"petstore":{"pets":[{"name":"rex/1"}],"tags":["a",1]}}"#;
    let fields = [
        ("Content-Type", "application/json"),
        ("Place", "a b?"),
        ("Two", "1"),
        ("Two", "2"),
        ("X-Client", "x"),
    ];
    for (path, is_proxy) in [
        ("/custom?q=1&q=2%26&other=o", false),
        ("/proxy?q=1&q=2%26&other=o", true),
    ] {
        let answer = send(context, &deployed, "POST", path, &fields, body.as_bytes())?;
        let got = answer.json()?;
        let target = got["target"].as_str().unwrap_or_default();
        ensure!(
            answer.status == 200 && target.starts_with("/echo/a%20b%3F/rex%2F1?"),
            "{answer:?} {got}"
        );
        let query: Vec<_> = target
            .split_once('?')
            .map_or("", |(_, query)| query)
            .split('&')
            .collect();
        for part in ["all=1", "all=2%26", "last=2%26"] {
            ensure!(query.contains(&part), "{part}: {target}");
        }
        ensure!(!target.contains("missing"), "{target}");
        ensure!(query.contains(&"other=o") == is_proxy, "{target}");
        ensure!(
            told(&got, "body-header") == [body]
                && told(&got, "tags") == [r#"["a",1]"#]
                && told(&got, "both") == ["1", "2"]
                && told(&got, "cased").is_empty()
                && told(&got, "stage") == ["test"]
                && told(&got, "fixed") == ["a, b"]
                && told(&got, "user-agent") == ["own"],
            "{got}"
        );
        ensure!(told(&got, "x-client").is_empty() != is_proxy, "{got}");
        ensure!(got["body"] == body, "{got}");
    }
    let malformed = send(context, &deployed, "POST", "/custom", &[], b"{\"petstore\": ")?;
    ensure!(
        malformed.status == 400 && malformed.text() == r#"{"message": "Invalid JSON in request body"}"#,
        "{malformed:?} {}",
        malformed.text()
    );
    let text = send(context, &deployed, "POST", "/custom", &[], b"plain")?.json()?;
    ensure!(
        told(&text, "body-header") == ["plain"] && told(&text, "tags").is_empty(),
        "{text}"
    );
    let none = send(context, &deployed, "POST", "/custom", &[], b"")?.json()?;
    ensure!(told(&none, "body-header") == ["{}"], "{none}");
    Ok(())
}

/// VTL-121, VTL-122, VTL-123, VTL-124, OBV-239, OBV-240, OBV-260, OBV-261, OBV-262, OBV-283, OBV-285, RES-161:
/// headers from headers, bodies and constants; what nobody maps stays behind.
fn answers_are_mapped(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let mut integration = http(
        &shared.backend,
        "/say/200",
        json!({ "requestParameters": {
            "integration.request.header.x-say-x-app-id": "'7'",
            "integration.request.header.x-say-secret": "'s'",
            "integration.request.header.x-say-item": "method.request.multivalueheader.item",
        } }),
    );
    integration["responses"]["default"]["responseParameters"] = json!({
        "method.response.header.location": "integration.response.body.redirect.url",
        "method.response.header.id": "integration.response.header.x-app-id",
        "method.response.header.other-case": "integration.response.header.X-App-Id",
        "method.response.header.items": "integration.response.multivalueheader.item",
        "method.response.header.whole": "integration.response.body",
        "method.response.header.stage": "context.stage",
        "method.response.header.none": "integration.response.body.nothing",
        "method.response.header.Date": "'yesterday'",
        "method.response.header.Transfer-Encoding": "'x'",
        "method.response.header.Content-Type": "'text/custom'",
    });
    let deployed = shared.deploy(&Definition::new("answers").method("POST", "/a", 200, integration))?;
    let body = br#"{"redirect":{"url":"https://example.com/next"}}"#;
    let answer = send(
        context,
        &deployed,
        "POST",
        "/a",
        &[("item", "a"), ("item", "b")],
        body,
    )?;
    ensure!(answer.status == 200 && answer.body == body, "{answer:?}");
    let values = |name: &str| -> Vec<String> {
        let all = answer.headers.iter();
        all.filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.clone())
            .collect()
    };
    for (name, expected) in [
        ("location", vec!["https://example.com/next"]),
        ("id", vec!["7"]),
        ("other-case", vec![]),
        ("items", vec!["a", "b"]),
        ("whole", vec![std::str::from_utf8(body)?]),
        ("stage", vec!["test"]),
        ("none", vec![]),
        ("secret", vec![]),
        ("x-app-id", vec![]),
        ("x-amzn-remapped-date", vec!["yesterday"]),
        ("transfer-encoding", vec![]),
        ("content-type", vec!["text/custom"]),
    ] {
        ensure!(values(name) == expected, "{name}: {answer:?}");
    }
    ensure!(values("x-amzn-trace-id").len() == 1, "{answer:?}");
    Ok(())
}

/// INT-111, INT-113, INT-118, INT-119, INT-120, RES-113, RES-116, RES-118, OBV-243, OBV-245, VTL-064, VTL-065: by
/// status, by the whole of it, the default for the rest.
fn responses_are_selected(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let mut integration = http(&shared.backend, "/status/{code}", json!({}));
    integration["requestParameters"] = json!({ "integration.request.path.code": "method.request.path.code" });
    integration["responses"] = json!({
        "2\\d{2}": { "statusCode": "200" },
        "418": { "statusCode": "418" },
        "default": {
            "statusCode": "400",
            "responseParameters": { "method.response.header.test-method-response-header": "'static value'" },
            "responseTemplates": { "application/json": "json 400 response template", "application/xml": "xml 400 response template" },
        },
    });
    let only = {
        let mut only = integration.clone();
        only["responses"] =
            json!({ "404": { "statusCode": "200", "responseTemplates": { "application/json": "x" } } });
        only
    };
    let parameter =
        json!([{ "in": "path", "name": "code", "required": true, "schema": { "type": "string" } }]);
    let operation = |integration: &Value| {
        json!({
            "responses": { "200": { "description": "" }, "400": { "description": "" } }, "parameters": parameter,
            "x-amazon-apigateway-integration": integration,
        })
    };
    let definition = Definition::new("selected")
        .operation("GET", "/{code}", operation(&integration))
        .operation("GET", "/only/{code}", operation(&only));
    let deployed = shared.deploy(&definition)?;
    let fine = send(context, &deployed, "GET", "/203", &[], b"")?;
    ensure!(fine.status == 200 && fine.text() == "203", "{fine:?}");
    let plain = send(context, &deployed, "GET", "/500", &[], b"")?;
    ensure!(
        plain.status == 400
            && plain.text() == "json 400 response template"
            && plain.header("test-method-response-header") == Some("static value"),
        "{plain:?} {}",
        plain.text()
    );
    let xml = send(
        context,
        &deployed,
        "GET",
        "/500",
        &[("Accept", "application/xml")],
        b"",
    )?;
    ensure!(
        xml.text() == "xml 400 response template" && xml.header("content-type") == Some("application/xml"),
        "{xml:?}"
    );
    // Declared by no method response, and selected by nothing.
    for path in ["/418", "/only/200"] {
        let failed = send(context, &deployed, "GET", path, &[], b"")?;
        ensure!(
            failed.status == 500 && failed.text() == r#"{"message": "Internal server error"}"#,
            "{path}: {failed:?}"
        );
        ensure!(
            failed.header("x-amzn-errortype") == Some("InternalServerErrorException"),
            "{failed:?}"
        );
    }
    Ok(())
}

/// VTL-080, VTL-081, VTL-082, VTL-083, VTL-084, VTL-392, GWR-035, GWR-092, INT-084: the backend never hears of what
/// is refused.
fn unmapped_types_pass_or_do_not(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let backend = Backend::start()?;
    let mut definition = Definition::new("types");
    for (path, behaviour) in [
        ("/pass", "when_no_match"),
        ("/some", "when_no_templates"),
        ("/never", "never"),
    ] {
        let templates = json!({ "application/json": "T" });
        let more = json!({ "passthroughBehavior": behaviour, "requestTemplates": templates });
        definition = definition.method("POST", path, 200, http(&backend, "/echo/x", more));
        let more = json!({ "passthroughBehavior": behaviour });
        definition = definition.method(
            "POST",
            &format!("{path}/bare"),
            200,
            http(&backend, "/echo/x", more),
        );
    }
    let deployed = shared.deploy(&definition)?;
    let mut calls = 0;
    for (path, kind, expected) in [
        ("/pass", None, Some("T")),
        ("/pass", Some("application/json"), Some("T")),
        ("/pass", Some("application/xml"), Some("<a/>")),
        ("/some", None, Some("T")),
        ("/some", Some("application/xml"), None),
        ("/never", Some("application/json"), Some("T")),
        ("/never", Some("application/xml"), None),
        ("/pass/bare", Some("application/xml"), Some("<a/>")),
        ("/some/bare", Some("application/xml"), Some("<a/>")),
        ("/never/bare", Some("application/json"), None),
        ("/never/bare", None, None),
    ] {
        let fields: Vec<_> = kind.map(|kind| ("Content-Type", kind)).into_iter().collect();
        let answer = send(context, &deployed, "POST", path, &fields, b"<a/>")?;
        match expected {
            Some(body) => {
                calls += 1;
                ensure!(
                    answer.status == 200 && answer.json()?["body"] == body,
                    "{path} {kind:?}: {answer:?}"
                );
            }
            None => ensure!(
                answer.status == 415 && answer.text() == r#"{"message": "Unsupported Media Type"}"#,
                "{path} {kind:?}: {answer:?} {}",
                answer.text()
            ),
        }
    }
    ensure!(
        backend.count()? == calls,
        "the backend was called for what was refused"
    );
    Ok(())
}

/// VTL-140, VTL-142, VTL-143, VTL-144, VTL-147, VTL-148, VTL-150, VTL-391, OBV-222, OBV-231, OBV-232, OBV-277,
/// OBV-278: what templates set holds over mappings, once.
fn templates_override(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let request = r#"#set($one = "foo")
#set($three = "$input.params('header1')$input.params('header2')")
$input.json("$")
#set($context.requestOverride.header.header3 = $three)
#set($context.requestOverride.header.header1 = $one)
#set($context.requestOverride.header.multivalueheader = [$one, $three])
#set($context.requestOverride.path.place = "there now")
#set($context.requestOverride.querystring["q"] = "x&y")"#;
    let response = r#"#set($context.responseOverride.status = 299)
#set($context.responseOverride.header.both = ["a", "b"])
#set($context.responseOverride.header.Kept = "by template")
{"was": "$context.requestOverride.querystring.q", "saw": $input.json('$')}"#;
    let mut integration = http(
        &shared.backend,
        "/echo/{place}",
        json!({
            "requestTemplates": { "application/json": request },
            "requestParameters": {
                "integration.request.header.header1": "method.request.header.header1",
                "integration.request.header.header2": "method.request.header.header2",
                "integration.request.querystring.q": "'mapped'",
            },
        }),
    );
    integration["responses"]["default"] = json!({
        "statusCode": "200", "responseTemplates": { "application/json": response },
        "responseParameters": { "method.response.header.kept": "'by mapping'", "method.response.header.other": "'kept'" },
    });
    let twice = "#set($context.requestOverride.header.a = 'x')#set($context.requestOverride.header.a = 'y')";
    let twice = http(
        &shared.backend,
        "/echo/x",
        json!({ "requestTemplates": { "application/json": twice } }),
    );
    let reserved = "#set($context.requestOverride.header.Content-Length = '1')";
    let reserved = http(
        &shared.backend,
        "/echo/x",
        json!({ "requestTemplates": { "application/json": reserved } }),
    );
    let definition = Definition::new("overrides")
        .method("GET", "/o", 200, integration)
        .method("GET", "/twice", 200, twice)
        .method("GET", "/reserved", 200, reserved);
    let deployed = shared.deploy(&definition)?;
    let fields = [("header1", "header1Val"), ("header2", "header2Val")];
    let answer = send(context, &deployed, "GET", "/o", &fields, b"")?;
    ensure!(answer.status == 299, "{answer:?} {}", answer.text());
    let body = answer.json()?;
    let saw = &body["saw"];
    ensure!(
        body["was"] == "x&y" && saw["target"] == "/echo/there%20now?q=x%26y",
        "{body}"
    );
    ensure!(
        told(saw, "header1") == ["foo"]
            && told(saw, "header2") == ["header2Val"]
            && told(saw, "header3") == ["header1Valheader2Val"]
            && told(saw, "multivalueheader") == ["foo", "header1Valheader2Val"],
        "{saw}"
    );
    ensure!(
        answer.count("both") == 2
            && answer.header("kept") == Some("by template")
            && answer.count("kept") == 1,
        "{answer:?}"
    );
    ensure!(answer.header("other") == Some("kept"), "{answer:?}");
    for path in ["/twice", "/reserved"] {
        let failed = send(context, &deployed, "GET", path, &[], b"")?;
        ensure!(
            failed.status == 500 && failed.text() == r#"{"message": "Internal server error"}"#,
            "{path}: {failed:?}"
        );
    }
    Ok(())
}

/// GWR-076, GWR-079, GWR-080, GWR-081, GWR-082, GWR-094, GWR-095, GWR-096, GWR-098, GWR-099, GWR-100, GWR-102,
/// GWR-104, GWR-105, GWR-029: Base64 in and out, by types, by what is accepted and by the setting.
fn payloads_are_converted(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let backend = Backend::start()?;
    let raw: Vec<u8> = (0..=255).collect();
    let text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0BBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn+AgYKDhIWGh4iJiouMjY6PkJGSk5SVlpeYmZqbnJ2en6ChoqOkpaanqKmqq6ytrq+wsbKztLW2t7i5uru8vb6/wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbX2Nna29zd3t/g4eLj5OXm5+jp6uvs7e7v8PHy8/T19vf4+fr7/P3+/w==";
    let said = |more: Value, kind: &str| {
        let mut integration = http(&backend, "/say/200", more);
        integration["requestParameters"] =
            json!({ "integration.request.header.x-say-content-type": format!("'{kind}'") });
        integration
    };
    let to_bytes = said(
        json!({ "contentHandling": "CONVERT_TO_BINARY" }),
        "application/octet-stream",
    );
    let to_text = said(
        json!({
            "contentHandling": "CONVERT_TO_TEXT",
            "requestTemplates": { "application/octet-stream": "{\"body\": \"$input.body\"}" },
        }),
        "text/plain",
    );
    let mut shown = said(json!({}), "application/octet-stream");
    shown["responses"]["default"]["responseTemplates"] =
        json!({ "application/json": "{\"image\": \"$input.body\"}" });
    let definition = Definition::new("payloads")
        .member(
            "x-amazon-apigateway-binary-media-types",
            json!(["application/octet-stream", "image/*"]),
        )
        .method("PUT", "/bytes", 200, to_bytes)
        .method("PUT", "/text", 200, to_text)
        .method("PUT", "/shown", 200, shown);
    let deployed = shared.deploy(&definition)?;
    let octets = "application/octet-stream";
    // Q8 and P13, Q5, Q2's failure.
    let put = |path: &str, kind: &str, accept: &str, body: &[u8]| {
        send(
            context,
            &deployed,
            "PUT",
            path,
            &[("Content-Type", kind), ("Accept", accept)],
            body,
        )
    };
    let same = put("/bytes", octets, octets, &raw)?;
    ensure!(same.status == 200 && same.body == raw, "{same:?}");
    let decoded = put(
        "/bytes",
        "application/json",
        "image/webp,*/*;q=0.8",
        b"W3JhdyBieXRlc10=",
    )?;
    ensure!(decoded.body == b"[raw bytes]", "{decoded:?}");
    let calls = backend.count()?;
    let broken = put("/bytes", "application/json", octets, b"***")?;
    ensure!(
        broken.status == 500 && broken.text() == r#"{"message": "Internal server error"}"#,
        "{broken:?}"
    );
    ensure!(backend.count()? == calls, "the backend was called");
    // P10: bytes for who accepts text.
    let encoded = put("/bytes", octets, "application/json", &raw)?;
    ensure!(encoded.text() == text, "{}", encoded.text());
    // Q9: the template sees Base64.
    let seen = put("/text", octets, "text/plain", &raw)?;
    ensure!(seen.json()?["body"] == text, "{}", seen.text());
    // A response template sees Base64, and who wants bytes sees none of it.
    let shown = put("/shown", octets, "application/json", b"[raw bytes]")?;
    ensure!(
        shown.text() == r#"{"image": "W3JhdyBieXRlc10="}"#,
        "{}",
        shown.text()
    );
    let passed = put("/shown", octets, octets, b"[raw bytes]")?;
    ensure!(passed.body == b"[raw bytes]", "{passed:?}");
    Ok(())
}

/// VTL-390, VTL-O55, VTL-O78, OBV-281: 400 where the client's body is at fault, 500 where the API or its backend is; never
/// half of anything.
fn what_cannot_be_rendered_is_refused(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let backend = Backend::start()?;
    let template = |text: &str| json!({ "requestTemplates": { "application/json": text } });
    let mut answered = http(&backend, "/say/200", json!({}));
    answered["responses"]["default"]["responseTemplates"] = json!({ "application/json": "$input.json('$')" });
    let endless = "#macro(again)x#again()#end#again()";
    let much = "#set($s = 'xxxxxxxxxxxxxxxx')#foreach($i in [1..40])#set($s = $s + $s)#end$s";
    let definition = Definition::new("faults")
        .method(
            "POST",
            "/json",
            200,
            http(&backend, "/echo/x", template("$input.json('$')")),
        )
        .method(
            "POST",
            "/endless",
            200,
            http(&backend, "/echo/x", template(endless)),
        )
        .method("POST", "/much", 200, http(&backend, "/echo/x", template(much)))
        .method("POST", "/answered", 200, answered);
    let deployed = shared.deploy(&definition)?;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for body in ["{\"a\": ", "nothing", "\"\u{1}\"", deep.as_str()] {
        let refused = send(context, &deployed, "POST", "/json", &[], body.as_bytes())?;
        let message = refused.json()?["message"].as_str().unwrap_or_default().to_owned();
        ensure!(
            refused.status == 400 && message.starts_with("Could not parse request body into json: "),
            "{refused:?} {}",
            refused.text()
        );
    }
    for path in ["/endless", "/much"] {
        let failed = send(context, &deployed, "POST", path, &[], b"{}")?;
        ensure!(
            failed.status == 500 && failed.text() == r#"{"message": "Internal server error"}"#,
            "{path}: {failed:?}"
        );
    }
    ensure!(backend.count()? == 0, "the backend was called");
    let failed = send(context, &deployed, "POST", "/answered", &[], b"no json")?;
    ensure!(failed.status == 500, "{failed:?}");
    let fine = send(context, &deployed, "POST", "/answered", &[], b"{\"a\" :1}")?;
    ensure!(fine.status == 200 && fine.text() == "{\"a\":1}", "{fine:?}");
    Ok(())
}

/// GWR-047, GWR-051, GWR-052, GWR-053, GWR-069, GWR-074, INT-069: a preflight is a mock, and the method's own answer
/// has the header.
fn preflights_are_answered(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let preflight = json!({
        "type": "mock", "requestTemplates": { "application/json": "{\"statusCode\": 200}" },
        "responses": { "default": { "statusCode": "200", "responseParameters": {
            "method.response.header.Access-Control-Allow-Methods": "'GET,OPTIONS'",
            "method.response.header.Access-Control-Allow-Headers": "'Content-Type,X-Amz-Date,Authorization,X-Api-Key'",
            "method.response.header.Access-Control-Allow-Origin": "'*'",
        } } },
    });
    let mut own = http(&shared.backend, "/pets", json!({}));
    own["httpMethod"] = json!("GET");
    own["responses"]["default"]["responseParameters"] =
        json!({ "method.response.header.Access-Control-Allow-Origin": "'*'" });
    let definition = Definition::new("cors")
        .method("OPTIONS", "/a", 200, preflight)
        .method("GET", "/a", 200, own)
        .mock("GET", "/a/b", 200);
    let deployed = shared.deploy(&definition)?;
    let mut connection = Connection::open(shared.http())?;
    connection.send(format!(
        "OPTIONS {} HTTP/1.1\r\nHost: {}\r\nOrigin: https://example.com\r\nAccess-Control-Request-Method: GET\r\n\r\n",
        deployed.path("/a"),
        deployed.host()
    ))?;
    let answer = connection.response()?;
    ensure!(
        answer.status == 200
            && answer.header("access-control-allow-origin") == Some("*")
            && answer.header("access-control-allow-methods") == Some("GET,OPTIONS")
            && answer.header("content-length") == Some("0"),
        "{answer:?}"
    );
    let own = send(context, &deployed, "GET", "/a", &[], b"")?;
    ensure!(
        own.status == 200 && own.header("access-control-allow-origin") == Some("*"),
        "{own:?}"
    );
    let none = send(context, &deployed, "OPTIONS", "/a/b", &[], b"")?;
    ensure!(none.status == 403, "{none:?}");
    Ok(())
}

/// Answers of megabytes go through a template whole; what is over the bound ends in 500 and not in a part.
fn large_answers_are_reshaped(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let mut integration = http(&shared.backend, "/fixed/{n}", json!({}));
    integration["requestParameters"] =
        json!({ "integration.request.path.n": "method.request.querystring.n" });
    integration["responses"]["default"]["responseTemplates"] = json!({ "text/plain": "<$input.body>" });
    let deployed = shared.deploy(&Definition::new("large").method("GET", "/l", 200, integration))?;
    let large = send(context, &deployed, "GET", "/l?n=3000000", &[], b"")?;
    ensure!(
        large.status == 200 && large.body.len() == 3_000_002 && large.body.first() == Some(&b'<'),
        "{}",
        large.body.len()
    );
    let over = send(context, &deployed, "GET", "/l?n=10485761", &[], b"")?;
    ensure!(over.status == 500, "{}", over.status);
    let text = over.text();
    ensure!(text.contains("Internal server error"), "{text}");
    let again = send(context, &deployed, "GET", "/l?n=1", &[], b"")?;
    ensure!(again.text() == "<a>", "{}", again.text());
    Ok(())
}
