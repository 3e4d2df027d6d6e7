//! The pet store through both planes: what a caller of a plain proxied API sees.

use anyhow::{Result, ensure};
use serde_json::Value;
use tidegate_harness::backend::{Backend, pattern};
use tidegate_harness::definition::Definition;
use tidegate_harness::raw::{Connection, get, request, request_with};
use tidegate_harness::suite::{Context, Test};
use tidegate_harness::tools;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::everywhere("pets_come_from_the_backend", pets_come_from_the_backend),
    Test::everywhere("a_wrong_path_is_refused", a_wrong_path_is_refused),
    Test::everywhere("the_invoke_url_works_in_curl", the_invoke_url_works_in_curl),
    Test::everywhere(
        "the_backend_sees_the_right_headers",
        the_backend_sees_the_right_headers,
    ),
    Test::everywhere("backend_headers_are_remapped", backend_headers_are_remapped),
    Test::everywhere(
        "bodies_arrive_whole_in_both_directions",
        bodies_arrive_whole_in_both_directions,
    ),
    Test::everywhere("keep_alive_pipelining_and_head", keep_alive_pipelining_and_head),
    Test::both_drivers(
        "mock_methods_answer_by_themselves",
        mock_methods_answer_by_themselves,
    ),
    Test::both_drivers("hyper_gets_pets", hyper_gets_pets),
    Test::once("the_driver_is_the_one_asked_for", the_driver_is_the_one_asked_for),
    Test::both_drivers("a_file_server_is_proxied", a_file_server_is_proxied),
];

/// The pet store: two proxied methods, and one with a parameter.
pub(crate) fn pet_store(backend: &Backend) -> Definition {
    Definition::new("PetStore")
        .proxy("GET", "/pets", &backend.url("/pets"))
        .proxy("GET", "/pets/{petId}", &backend.url("/pets/{petId}"))
}

/// A definition whose `/b/{proxy+}` leads to everything that the backend can do.
pub(crate) fn everything(backend: &Backend) -> Definition {
    Definition::new("everything").proxy("ANY", "/b/{proxy+}", &backend.url("/{proxy}"))
}

/// DEP-001, DEP-003, RES-078, OBV-234: stage and resource lead to the backend's URI, by host and by path.
fn pets_come_from_the_backend(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&pet_store(&shared.backend))?;
    let hosts = [
        deployed.host(),
        format!("{}.execute-api.us-east-1.localhost", deployed.api_id),
        format!("{}:{}", deployed.host(), shared.http().port()),
        deployed
            .host()
            .to_ascii_uppercase()
            .replace(&deployed.api_id.to_ascii_uppercase(), &deployed.api_id),
    ];
    for host in hosts {
        let pets = get(shared.http(), &host, &deployed.path("/pets"))?;
        ensure!(pets.status == 200, "{host}: {pets:?}");
        ensure!(
            pets.json()?.as_array().is_some_and(|pets| pets.len() == 3),
            "{host}: {}",
            pets.text()
        );
    }
    for target in [deployed.path("/pets/2"), deployed.path("/pets/2?x=1")] {
        let pet = get(shared.http(), &deployed.host(), &target)?;
        ensure!(
            pet.status == 200 && pet.json()?["type"] == "cat",
            "{target}: {pet:?}"
        );
    }
    let by_path = get(shared.http(), "127.0.0.1", &deployed.user_request("/pets/1"))?;
    ensure!(
        by_path.status == 200 && by_path.json()?["type"] == "dog",
        "{by_path:?}"
    );
    // OBV-244: the backend's own status goes through.
    let unknown = get(shared.http(), &deployed.host(), &deployed.path("/pets/9"))?;
    ensure!(
        unknown.status == 404 && unknown.json()?["error"] == "no such pet",
        "{unknown:?}"
    );
    Ok(())
}

/// GWR-022, GWR-032, DEP-005: what does not exist below a stage, and a stage or API that does not exist.
fn a_wrong_path_is_refused(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&pet_store(&shared.backend))?;
    let host = deployed.host();
    for (method, target) in [
        ("GET", deployed.path("/dogs")),
        ("GET", deployed.path("/pets/1/owner")),
        ("GET", deployed.path("")),
        ("GET", deployed.path("/")),
        ("DELETE", deployed.path("/pets")),
    ] {
        let mut connection = Connection::open(shared.http())?;
        connection.send(request(method, &host, &target))?;
        let refused = connection.response()?;
        ensure!(refused.status == 403, "{method} {target}: {refused:?}");
        ensure!(
            refused.text() == r#"{"message":"Missing Authentication Token"}"#,
            "{method} {target}: {}",
            refused.text()
        );
        ensure!(
            refused.header("x-amzn-errortype") == Some("MissingAuthenticationTokenException"),
            "{refused:?}"
        );
        ensure!(
            refused.header("content-type") == Some("application/json"),
            "{refused:?}"
        );
        ensure!(refused.header("x-amzn-requestid").is_some(), "{refused:?}");
        // A refusal does not cost the connection.
        connection.send(request("GET", &host, &deployed.path("/pets")))?;
        ensure!(
            connection.response()?.status == 200,
            "the connection serves no longer"
        );
    }
    let unknown_stage = get(shared.http(), &host, "/nostage/pets")?;
    ensure!(
        unknown_stage.status == 403 && unknown_stage.text() == r#"{"message":"Forbidden"}"#,
        "{unknown_stage:?}"
    );
    let unknown_api = get(
        shared.http(),
        "zzzzzzzzzz.execute-api.localhost",
        &deployed.path("/pets"),
    )?;
    ensure!(
        unknown_api.status == 403 && unknown_api.text() == r#"{"message":"Forbidden"}"#,
        "{unknown_api:?}"
    );
    Ok(())
}

/// The printed URL works where `*.localhost` cannot be resolved.
fn the_invoke_url_works_in_curl(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&pet_store(&shared.backend))?;
    let url = format!("{}/pets", deployed.invoke_url.trim_end_matches('/'));
    let output = tools::curl(&["--noproxy", "*", "--fail-with-body", &url])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{url}: {} {text} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let pets: Value = serde_json::from_str(&text)?;
    ensure!(pets[0]["type"] == "dog", "{pets}");
    Ok(())
}

/// OBV-237, OBV-238, OBV-250, OBV-251: what an `HTTP_PROXY` backend receives, and what it does not.
fn the_backend_sees_the_right_headers(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let sent = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/x\r\nUser-Agent: test/1\r\nReferer: r\r\nPragma: p\r\nAuthorization: a\r\n\
         Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-Mine: 2\r\nTE: trailers\r\nUpgrade: h2c\r\nVia: 1.1 x\r\nMax-Forwards: 3\r\n\
         Proxy-Authenticate: n\r\nTrailer: t\r\nContent-Encoding: zip\r\nServer: s\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
        deployed.path("/b/echo/headers?a=1&b=%2F"),
        deployed.host(),
    );
    let echoed = tidegate_harness::raw::exchange(shared.http(), sent)?;
    ensure!(echoed.status == 200, "{echoed:?}");
    let echoed = echoed.json()?;
    ensure!(echoed["target"] == "/echo/headers?a=1&b=%2F", "{echoed}");
    let fields: Vec<(String, String)> = serde_json::from_value(echoed["headers"].clone())?;
    let all = |name: &str| -> Vec<&str> {
        fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    };
    for (name, value) in [
        ("accept", "text/x"),
        ("user-agent", "test/1"),
        ("referer", "r"),
        ("pragma", "p"),
        ("authorization", "a"),
        ("x-mine", "2"),
    ] {
        ensure!(all(name) == [value], "{name}: {:?}", all(name));
    }
    ensure!(
        all("host") == [shared.backend.address().to_string()],
        "host: {:?}",
        all("host")
    );
    ensure!(
        all("x-amzn-apigateway-api-id") == [deployed.api_id.as_str()],
        "{:?}",
        all("x-amzn-apigateway-api-id")
    );
    ensure!(
        all("x-amzn-trace-id").len() == 1 && all("x-amzn-trace-id")[0].starts_with("Root=1-"),
        "{:?}",
        all("x-amzn-trace-id")
    );
    ensure!(
        all("x-forwarded-for") == ["192.0.2.1, 127.0.0.1"],
        "{:?}",
        all("x-forwarded-for")
    );
    for name in [
        "x-hop",
        "te",
        "upgrade",
        "via",
        "max-forwards",
        "proxy-authenticate",
        "trailer",
        "content-encoding",
        "server",
        "expect",
        "transfer-encoding",
        "keep-alive",
    ] {
        ensure!(
            all(name).is_empty(),
            "{name} reached the backend: {:?}",
            all(name)
        );
    }
    Ok(())
}

/// OBV-241, OBV-242, OBV-264: what the client receives of a backend's headers, and what the gateway adds.
fn backend_headers_are_remapped(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let response = get(shared.http(), &deployed.host(), &deployed.path("/b/headers/3"))?;
    ensure!(response.status == 200 && response.text() == "ok", "{response:?}");
    ensure!(
        response.header("x-amzn-remapped-server") == Some("pets"),
        "{response:?}"
    );
    ensure!(
        response.header("x-amzn-remapped-content-length") == Some("2"),
        "{response:?}"
    );
    for name in ["x-amzn-requestid", "x-amz-apigw-id", "date", "connection"] {
        ensure!(response.count(name) == 1, "{name}: {response:?}");
    }
    ensure!(
        response.header("connection") == Some("keep-alive"),
        "{response:?}"
    );
    ensure!(response.header("x-extra-2") == Some("2"), "{response:?}");
    for name in ["x-hop", "keep-alive", "x-amzn-trace-id"] {
        ensure!(response.count(name) == 0, "{name}: {response:?}");
    }
    let mut closing = Connection::open(shared.http())?;
    closing.send(format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        deployed.path("/b/fixed/5"),
        deployed.host()
    ))?;
    let response = closing.response()?;
    ensure!(response.header("connection") == Some("close"), "{response:?}");
    ensure!(closing.drain()?.0.is_empty(), "bytes after the last response");
    Ok(())
}

/// D2, D14: bodies of every framing, with sizes around the edges of buffers, in both directions.
fn bodies_arrive_whole_in_both_directions(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let mut connection = Connection::open(shared.http())?;
    for size in [
        0,
        1,
        2,
        4_095,
        4_096,
        4_097,
        16_383,
        16_384,
        65_535,
        65_536,
        65_537,
        1 << 20,
        5_000_000,
    ] {
        connection.send(request(
            "GET",
            &deployed.host(),
            &deployed.path(&format!("/b/fixed/{size}")),
        ))?;
        let response = connection.response()?;
        ensure!(
            response.status == 200 && response.body == pattern(size),
            "fixed {size}: {} bytes came",
            response.body.len()
        );
        connection.send(request_with(
            "POST",
            &deployed.host(),
            &deployed.path("/b/echo"),
            "text/plain",
            &pattern(size),
        ))?;
        let echoed = connection.response()?.json()?;
        ensure!(
            echoed["length"] == size && echoed["isPattern"] == true,
            "sent {size}: {}, {}",
            echoed["length"],
            echoed["isPattern"]
        );
    }
    for (chunks, size) in [(1, 1), (3, 4_096), (1_000, 1), (50, 20_000), (7, 65_537)] {
        connection.send(request(
            "GET",
            &deployed.host(),
            &deployed.path(&format!("/b/chunked/{chunks}/{size}")),
        ))?;
        let response = connection.response()?;
        ensure!(
            response.status == 200 && response.body == pattern(chunks * size),
            "{chunks} chunks of {size}: {} bytes",
            response.body.len()
        );
        let mut upload = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            deployed.path("/b/echo"),
            deployed.host()
        )
        .into_bytes();
        for (at, chunk) in pattern(chunks * size).chunks(size).enumerate() {
            let extension = if at < 10 { ";x=\"y\"" } else { "" };
            upload.extend(format!("{:X}{extension}\r\n", chunk.len()).into_bytes());
            upload.extend_from_slice(chunk);
            upload.extend_from_slice(b"\r\n");
        }
        upload.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
        connection.send(upload)?;
        let echoed = connection.response()?.json()?;
        ensure!(
            echoed["length"] == chunks * size && echoed["isPattern"] == true,
            "{chunks} chunks of {size}: {echoed}"
        );
    }
    let ended_by_close = get(shared.http(), &deployed.host(), &deployed.path("/b/close/100000"))?;
    ensure!(
        ended_by_close.status == 200 && ended_by_close.body == pattern(100_000),
        "{} bytes",
        ended_by_close.body.len()
    );
    Ok(())
}

/// D14: many requests on one connection, sent ahead of their answers; HEAD, 204 and 304 carry no body.
fn keep_alive_pipelining_and_head(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let host = deployed.host();
    let mut connection = Connection::open(shared.http())?;
    let ahead: String = (0..20)
        .map(|at| request("GET", &host, &deployed.path(&format!("/b/fixed/{at}"))))
        .collect();
    connection.send(ahead)?;
    for at in 0..20 {
        let response = connection.response()?;
        ensure!(
            response.status == 200 && response.body == pattern(at),
            "pipelined {at}: {response:?}"
        );
    }
    connection.send(request("HEAD", &host, &deployed.path("/b/fixed/1000")))?;
    let head = connection.response_to(true)?;
    ensure!(head.status == 200, "{head:?}");
    for code in [204, 304] {
        connection.send(request(
            "GET",
            &host,
            &deployed.path(&format!("/b/status/{code}")),
        ))?;
        let bare = connection.response()?;
        ensure!(bare.status == code && bare.body.is_empty(), "{bare:?}");
    }
    connection.send(request("GET", &host, &deployed.path("/b/inform/3")))?;
    ensure!(
        connection.response()?.text() == "informed",
        "after informational responses"
    );
    connection.send(request("GET", &host, &deployed.path("/b/fixed/3")))?;
    ensure!(
        connection.response()?.body == pattern(3),
        "the connection is out of step"
    );
    // The client's end of sending does not cost it the answer.
    connection.send(request("GET", &host, &deployed.path("/b/fixed/70000")))?;
    connection.finish()?;
    ensure!(
        connection.response()?.body == pattern(70_000),
        "after the client's FIN"
    );
    Ok(())
}

/// OBV-225, OBV-227, OBV-228: a mock answers with its status and an empty body, without any backend.
fn mock_methods_answer_by_themselves(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(
        &Definition::new("mock")
            .mock("GET", "/mock", 200)
            .mock("POST", "/mock", 202),
    )?;
    let mut connection = Connection::open(shared.http())?;
    for (method, status) in [("GET", 200), ("POST", 202), ("GET", 200)] {
        connection.send(request(method, &deployed.host(), &deployed.path("/mock")))?;
        let response = connection.response()?;
        ensure!(
            response.status == status && response.body.is_empty(),
            "{method}: {response:?}"
        );
    }
    Ok(())
}

/// A well-known client library, many requests at once over its pool.
fn hyper_gets_pets(context: &Context) -> Result<()> {
    use http_body_util::{BodyExt, Full};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    let shared = context.shared()?;
    let deployed = shared.deploy(&everything(&shared.backend))?;
    let address = shared.http();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async move {
            let client = Client::builder(TokioExecutor::new()).build_http::<Full<hyper::body::Bytes>>();
            let mut tasks = tokio::task::JoinSet::new();
            for at in 0..64usize {
                let (client, host, path) = (client.clone(), deployed.host(), deployed.path("/b/echo"));
                tasks.spawn(async move {
                    let request = hyper::Request::post(format!("http://{address}{path}"))
                        .header("host", host)
                        .body(Full::from(pattern(at * 1_000)))?;
                    let response = client.request(request).await?;
                    ensure!(response.status() == 200, "{:?}", response.status());
                    let body = response.into_body().collect().await?.to_bytes();
                    let echoed: Value = serde_json::from_slice(&body)?;
                    ensure!(
                        echoed["length"] == at * 1_000 && echoed["isPattern"] == true,
                        "{at}: {echoed}"
                    );
                    Ok(())
                });
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            Ok(())
        })
}

/// D4: the ready file and the metrics name the driver in use; where io_uring is refused that is epoll.
fn the_driver_is_the_one_asked_for(context: &Context) -> Result<()> {
    use tidegate_harness::instance::Plan;
    use tidegate_harness::suite::World;
    for world in World::ALL {
        let home = context.directory().join(world.name());
        std::fs::create_dir_all(&home)?;
        let instance = Plan::new(context.binary(), world, &home).up("one")?;
        let driver = instance.ready().driver.clone();
        let right = match world {
            World::Uring => driver == "uring-defer" || driver == "uring-coop",
            World::Epoll | World::Confined => driver == "epoll",
        };
        ensure!(right, "{}: the driver is {driver:?}", world.name());
        let metrics = get(instance.ready().metrics, "metrics", "/metrics")?;
        ensure!(
            metrics.status == 200 && metrics.text().contains(&driver),
            "{}: no metric names {driver}",
            world.name()
        );
        ensure!(
            get(instance.ready().metrics, "metrics", "/readyz")?.status == 200,
            "{}: not ready",
            world.name()
        );
    }
    Ok(())
}

/// A web server that nobody here wrote, as a backend.
fn a_file_server_is_proxied(context: &Context) -> Result<()> {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let files = context.directory().join("files");
    std::fs::create_dir_all(&files)?;
    std::fs::write(files.join("large.txt"), pattern(3_000_000))?;
    let mut server = Command::new(tools::find("python3")?)
        .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory"])
        .arg(&files)
        .arg("0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let result = (|| {
        let mut line = String::new();
        BufReader::new(server.stdout.take().ok_or_else(|| anyhow::anyhow!("no output"))?)
            .read_line(&mut line)?;
        // `Serving HTTP on 127.0.0.1 port 40123 (http://127.0.0.1:40123/) ...`
        let port: u16 = line
            .split_whitespace()
            .skip_while(|word| *word != "port")
            .nth(1)
            .unwrap_or_default()
            .parse()?;
        let shared = context.shared()?;
        let definition =
            Definition::new("files").proxy("GET", "/{proxy+}", &format!("http://127.0.0.1:{port}/{{proxy}}"));
        let deployed = shared.deploy(&definition)?;
        let file = get(shared.http(), &deployed.host(), &deployed.path("/large.txt"))?;
        ensure!(
            file.status == 200 && file.body == pattern(3_000_000),
            "{} {} bytes",
            file.status,
            file.body.len()
        );
        let missing = get(shared.http(), &deployed.host(), &deployed.path("/absent"))?;
        ensure!(
            missing.status == 404 && missing.text().contains("File not found"),
            "{missing:?}"
        );
        Ok(())
    })();
    server.kill()?;
    server.wait()?;
    result
}
