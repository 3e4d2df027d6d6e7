//! Content codings: requests that come compressed, answers that go so.

use std::io::{Read as _, Write as _};

use anyhow::{Result, ensure};
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::json;
use tidegate_harness::backend::{Backend, pattern};
use tidegate_harness::definition::Definition;
use tidegate_harness::instance::Deployed;
use tidegate_harness::raw::{Connection, Response, exchange};
use tidegate_harness::suite::{Context, Test};
use tidegate_harness::tools;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::everywhere("answers_are_compressed", answers_are_compressed),
    Test::both_drivers("what_is_small_or_encoded_is_not", what_is_small_or_encoded_is_not),
    Test::everywhere("requests_are_decompressed", requests_are_decompressed),
    Test::both_drivers("bombs_stop_at_the_bound", bombs_stop_at_the_bound),
    Test::both_drivers("proxied_payloads_are_converted", proxied_payloads_are_converted),
    Test::once("curl_reads_it", curl_reads_it),
];

fn send(
    context: &Context,
    deployed: &Deployed,
    verb: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Result<Response> {
    let mut text = format!(
        "{verb} {} HTTP/1.1\r\nHost: {}\r\n",
        deployed.path(path),
        deployed.host()
    );
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    exchange(context.shared()?.http(), bytes)
}

fn gzip(body: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body)?;
    Ok(encoder.finish()?)
}

fn api(backend: &Backend, least: u32) -> Definition {
    let reshaped = |template: &str| {
        json!({
            "type": "http", "httpMethod": "POST", "uri": backend.url("/say/200"),
            "requestParameters": { "integration.request.header.x-say-content-encoding": "method.request.header.coding" },
            "responses": { "default": { "statusCode": "200", "responseTemplates": { "application/json": template } } },
        })
    };
    let plain = json!({
        "type": "http", "httpMethod": "GET", "uri": backend.url("/pets"), "responses": { "default": { "statusCode": "200" } },
    });
    let mock = json!({
        "type": "mock", "requestTemplates": { "application/json": "{\"statusCode\": 200}" },
        "responses": { "default": { "statusCode": "200", "responseTemplates": { "application/json": "[1, 2, 3, 4, 5]" } } },
    });
    Definition::new("codings")
        .member("x-amazon-apigateway-minimum-compression-size", json!(least))
        .proxy("ANY", "/b/{proxy+}", &backend.url("/{proxy}"))
        .method("GET", "/http", 200, plain)
        .method("POST", "/twice", 200, reshaped("$input.body$input.body"))
        .method("POST", "/same", 200, reshaped(""))
        .method("GET", "/mock", 200, mock)
}

/// CAC-101, CAC-110, CAC-111, CAC-112, CAC-113, CAC-130, CAC-133, CAC-135, CAC-136: whatever the type of the
/// integration, where the client asks for it.
fn answers_are_compressed(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&api(&shared.backend, 0))?;
    for path in [
        "/b/pets",
        "/b/fixed/100000",
        "/b/chunked/20/5000",
        "/b/close/70000",
        "/http",
        "/mock",
    ] {
        let plain = send(context, &deployed, "GET", path, &[], b"")?;
        ensure!(
            plain.status == 200 && plain.header("content-encoding").is_none() && !plain.body.is_empty(),
            "{path}: {plain:?}"
        );
        for (accept, coding) in [
            ("gzip", Some("gzip")),
            ("gzip, deflate, br", Some("gzip")),
            ("DEFLATE", Some("deflate")),
            ("*", Some("gzip")),
            ("br;q=1.0,gzip;q=0.8", None),
            ("identity", None),
            ("gzip;q=0", None),
        ] {
            let answer = send(
                context,
                &deployed,
                "GET",
                path,
                &[("Accept-Encoding", accept)],
                b"",
            )?;
            ensure!(
                answer.status == 200
                    && answer.header("content-encoding") == coding
                    && answer.header("content-type") == plain.header("content-type"),
                "{path} {accept}: {answer:?}"
            );
            let mut body = Vec::new();
            match coding {
                Some("gzip") => GzDecoder::new(&answer.body[..]).read_to_end(&mut body)?,
                Some(_) => ZlibDecoder::new(&answer.body[..]).read_to_end(&mut body)?,
                None => answer.body.as_slice().read_to_end(&mut body)?,
            };
            ensure!(body == plain.body, "{path} {accept}: {} bytes", body.len());
            ensure!(
                answer
                    .header("content-length")
                    .is_none_or(|length| length == answer.body.len().to_string()),
                "{path} {accept}: {answer:?}"
            );
        }
    }
    let mut connection = Connection::open(shared.http())?;
    let (target, host) = (deployed.path("/b/pets"), deployed.host());
    connection.send(format!(
        "HEAD {target} HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: gzip\r\n\r\n"
    ))?;
    let head = connection.response_to(true)?;
    ensure!(
        head.status == 200 && head.header("content-encoding").is_none() && head.body.is_empty(),
        "{head:?}"
    );
    Ok(())
}

/// CAC-101, CAC-131, CAC-132, CAC-134: the size is the one behind the template; what a backend has encoded goes on as
/// it is.
fn what_is_small_or_encoded_is_not(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&api(&shared.backend, 1000))?;
    let accept = ("Accept-Encoding", "gzip");
    for (path, length, compressed) in [
        ("/b/fixed/999", 0, false),
        ("/b/fixed/1000", 0, true),
        ("/twice", 499, false),
        ("/twice", 500, true),
        ("/same", 999, false),
        ("/same", 1000, true),
    ] {
        let verb = if length == 0 { "GET" } else { "POST" };
        let answer = send(context, &deployed, verb, path, &[accept], &pattern(length))?;
        ensure!(
            (answer.header("content-encoding") == Some("gzip")) == compressed,
            "{path} {length}: {answer:?}"
        );
    }
    let encoded = gzip(&pattern(5000))?;
    let bare = send(
        context,
        &deployed,
        "GET",
        "/b/echo/x",
        &[("Content-Encoding", "zip")],
        b"",
    )?;
    ensure!(bare.status == 200, "{bare:?}");
    let same = send(
        context,
        &deployed,
        "POST",
        "/same",
        &[accept, ("coding", "br")],
        &encoded,
    )?;
    ensure!(
        same.header("content-encoding") == Some("br") && same.body == encoded,
        "{same:?}"
    );
    let proxied = [
        accept,
        ("x-say-content-encoding", "gzip"),
        ("x-say-content-type", "text/plain"),
    ];
    let proxied = send(context, &deployed, "POST", "/b/say/200", &proxied, &encoded)?;
    ensure!(
        proxied.count("content-encoding") == 1 && proxied.body == encoded,
        "{proxied:?}"
    );
    Ok(())
}

/// CAC-120, CAC-121, CAC-122, CAC-123, CAC-125, CAC-126, OBV-251: templates, models and backends see the body itself.
fn requests_are_decompressed(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let backend = Backend::start()?;
    let templated = json!({
        "type": "http", "httpMethod": "POST", "uri": backend.url("/echo/x"),
        "requestTemplates": { "application/json": "<$input.json('$.type')>" },
        "responses": { "default": { "statusCode": "200" } },
    });
    let definition = Definition::new("compressed requests")
        .proxy("ANY", "/b/{proxy+}", &backend.url("/{proxy}"))
        .method("POST", "/t", 200, templated);
    let deployed = shared.deploy(&definition)?;
    let body = br#"{"type":"dog","price":249.99}"#;
    let zipped = gzip(body)?;
    let mut deflated = ZlibEncoder::new(Vec::new(), Compression::default());
    deflated.write_all(body)?;
    let deflated = deflated.finish()?;
    for (coding, sent) in [("gzip", &zipped), ("GZIP", &zipped), ("deflate", &deflated)] {
        let coded = [("Content-Encoding", coding), ("Content-Type", "application/json")];
        let shaped = send(context, &deployed, "POST", "/t", &coded, sent)?;
        ensure!(
            shaped.status == 200 && shaped.json()?["body"] == "<\"dog\">",
            "{shaped:?}"
        );
        let passed = send(context, &deployed, "POST", "/b/echo/x", &coded, sent)?.json()?;
        ensure!(
            passed["body"] == std::str::from_utf8(body)? && passed["length"] == body.len(),
            "{passed}"
        );
        ensure!(
            !passed["headers"]
                .to_string()
                .to_lowercase()
                .contains("content-encoding"),
            "{passed}"
        );
    }
    let calls = backend.count()?;
    for (coding, sent) in [
        ("gzip", &body[..]),
        ("gzip", &zipped[..zipped.len() - 5]),
        ("br", &body[..]),
        ("gzip, deflate", &zipped[..]),
    ] {
        let refused = send(
            context,
            &deployed,
            "POST",
            "/b/echo/x",
            &[("Content-Encoding", coding)],
            sent,
        )?;
        ensure!(
            refused.status == 415 && refused.text() == r#"{"message": "Unsupported Media Type"}"#,
            "{coding}: {refused:?}"
        );
    }
    ensure!(backend.count()? == calls, "the backend was called");
    let same = send(
        context,
        &deployed,
        "POST",
        "/b/echo/x",
        &[("Content-Encoding", "identity")],
        body,
    )?;
    ensure!(same.json()?["length"] == body.len(), "{same:?}");
    // CAC-126: below the API's threshold nothing is decoded, and the backend is told.
    let small = shared.deploy(&api(&backend, 10_000))?;
    let kept = send(
        context,
        &small,
        "POST",
        "/b/echo/x",
        &[("Content-Encoding", "gzip")],
        &zipped,
    )?
    .json()?;
    ensure!(
        kept["length"] == zipped.len()
            && kept["headers"]
                .to_string()
                .to_lowercase()
                .contains("content-encoding"),
        "{kept}"
    );
    Ok(())
}

/// A small request that would become a large one ends in 413, and the connection's neighbours are served meanwhile.
fn bombs_stop_at_the_bound(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&api(&shared.backend, 0))?;
    let coded = [("Content-Encoding", "gzip")];
    let bomb = gzip(&vec![0; 64 << 20])?;
    ensure!(bomb.len() < 100_000, "{}", bomb.len());
    let refused = send(context, &deployed, "POST", "/b/echo/x", &coded, &bomb)?;
    ensure!(refused.status == 413, "{refused:?}");
    let large = gzip(&pattern(10 << 20))?;
    let taken = send(context, &deployed, "POST", "/b/echo/x", &coded, &large)?;
    ensure!(
        taken.status == 200 && taken.json()?["isPattern"] == true,
        "{taken:?} {}",
        taken.text()
    );
    Ok(())
}

/// GWR-102, GWR-106 for HTTP_PROXY: payloads of an API with binary types are converted as the tables say.
fn proxied_payloads_are_converted(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let definition = Definition::new("proxied payloads")
        .member("x-amazon-apigateway-binary-media-types", json!(["image/png"]))
        .proxy("ANY", "/b/{proxy+}", &shared.backend.url("/{proxy}"));
    let deployed = shared.deploy(&definition)?;
    let say = |kind: &str, accept: &str, body: &[u8]| {
        let fields = [("x-say-content-type", kind), ("Accept", accept)];
        send(context, &deployed, "POST", "/b/say/200", &fields, body)
    };
    let raw: &[u8] = b"\x89PNG\r\n\xff\x00";
    for (kind, accept, body, expected) in [
        ("image/png", "image/png", raw, raw),
        (
            "image/png",
            "text/html, image/png",
            raw,
            b"iVBORw0K/wA=".as_slice(),
        ),
        ("text/plain", "image/png,*/*", b"iVBORw0K/wA=", raw),
        ("text/plain", "text/plain", raw, raw),
    ] {
        let answer = say(kind, accept, body)?;
        ensure!(
            answer.status == 200 && answer.body == expected && answer.header("content-type") == Some(kind),
            "{kind} for {accept}: {answer:?}"
        );
    }
    let broken = say("text/plain", "image/png", b"***")?;
    ensure!(broken.status == 500, "{broken:?}");
    Ok(())
}

/// CAC-130: a client that asks for compression and undoes it sees nothing of it.
fn curl_reads_it(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&api(&shared.backend, 0))?;
    let host = format!("Host: {}", deployed.host());
    let url = format!("http://{}{}", shared.http(), deployed.path("/b/fixed/50000"));
    let told = "%{size_download} %header{content-encoding}";
    let output = tools::curl(&[
        "--noproxy",
        "*",
        "-sS",
        "--compressed",
        "-H",
        &host,
        "-w",
        told,
        &url,
    ])?;
    ensure!(output.status.success(), "{output:?}");
    let (body, told) = output.stdout.split_at(50_000.min(output.stdout.len()));
    ensure!(body == pattern(50_000), "{} bytes", body.len());
    let told = String::from_utf8_lossy(told);
    let size = told
        .trim()
        .split(' ')
        .next()
        .and_then(|size| size.parse::<u64>().ok());
    ensure!(
        told.contains("gzip") && size.is_some_and(|size| size < 10_000),
        "{told}"
    );
    Ok(())
}
