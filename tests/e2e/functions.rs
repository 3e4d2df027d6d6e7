//! Lambda functions behind `AWS_PROXY` integrations: workers on PyPI `awslambdaric`, URLs, the Invoke API.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use tidegate_harness::definition::Definition;
use tidegate_harness::instance::{Deployed, Instance};
use tidegate_harness::process;
use tidegate_harness::raw::{Response, exchange, get, request_with};
use tidegate_harness::suite::{Context, Test};
use tidegate_harness::tools;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::everywhere("workers_answer", workers_answer),
    Test::everywhere("endpoints_are_called", endpoints_are_called),
    Test::everywhere("an_unbound_function_is_500", an_unbound_function_is_500),
    Test::once(
        "a_thousand_calls_over_fifty_workers",
        a_thousand_calls_over_fifty_workers,
    ),
];

/// `tidegate worker` with so many copies of `awslambdaric`; ended when dropped.
struct Workers(Child);

impl Workers {
    /// Returns when every copy has read the handler.
    fn start(context: &Context, instance: &Instance, name: &str, count: usize) -> Result<Self> {
        let packages = tools::python_package("awslambdaric", "awslambdaric")?;
        let python = tools::find("python3")?;
        let directory = context.directory().join(name);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("app.py"), include_str!("functions.py"))?;
        let mut child = Command::new(context.binary())
            .args(["worker", name, "-n", &count.to_string(), "--data-dir"])
            .arg(instance.data())
            .arg("--")
            .arg(python)
            .args(["-m", "awslambdaric", "app.handler"])
            .env("PYTHONPATH", packages)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = child.stdout.take().context("the workers' output")?;
        let workers = Self(child);
        let (told, tell) = mpsc::channel();
        // Reads to the end, so that no worker waits for its words to be heard.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody may listen any more.
                let _ = told.send(line);
            }
        });
        let mut copies = BTreeSet::new();
        while copies.len() < count {
            let line = tell.recv().context("the workers have ended")?;
            if let Some((copy, "imported")) = line.rsplit_once(' ') {
                copies.insert(copy.to_owned());
            }
        }
        Ok(workers)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // By signal, so that the copies end with it.
        let _ = process::signal(self.0.id(), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Free a moment ago.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// `ANY /{proxy+}` on a function.
fn calling(function: &str) -> Definition {
    let integration = json!({
        "type": "aws_proxy", "httpMethod": "POST",
        "uri": format!("arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function}/invocations"),
    });
    Definition::new("calling")
        .method("ANY", "/{proxy+}", 200, integration)
        .member("x-amazon-apigateway-binary-media-types", json!(["image/png"]))
}

fn arn(name: &str) -> String {
    format!("arn:aws:lambda:us-east-1:000000000000:function:{name}")
}

/// A name that no other test uses: instances are shared.
fn name(context: &Context, what: &str) -> String {
    format!("{what}-{}-{}", context.world().name(), std::process::id())
}

/// SCN-015 onwards, RES-120, RES-136, RES-139, RES-141, OBV-211, OBV-213, GWR-106: what workers answer, to the client.
fn workers_answer(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let name = name(context, "answering");
    let listen = free()?.to_string();
    let bound = shared
        .instance
        .run(&["function", "put", &name, "--runtime", "--listen", &listen])?;
    ensure!(bound.contains(&arn(&name)), "{bound}");
    let deployed = shared.deploy(&calling(&arn(&name)))?;
    ensure!(deployed.warnings.is_empty(), "{:?}", deployed.warnings);
    let workers = Workers::start(context, &shared.instance, &name, 2)?;
    let call =
        |path: &str| -> Result<Response> { get(shared.http(), &deployed.host(), &deployed.path(path)) };

    let answer = call("/hi")?;
    ensure!(
        answer.status == 201 && answer.text().starts_with("pid "),
        "{answer:?}"
    );
    ensure!(answer.count("x-own") == 2, "{answer:?}");
    ensure!(
        answer.header("x-amzn-Remapped-Connection") == Some("upgrade"),
        "{answer:?}"
    );
    ensure!(
        answer.header("content-type") == Some("application/json"),
        "{answer:?}"
    );
    ensure!(answer.header("x-amzn-trace-id").is_some(), "{answer:?}");

    let body = br#"{"greeter":"jane"}"#;
    let target = format!("{}?a=1&a=2", deployed.path("/event"));
    let answer = exchange(
        shared.http(),
        request_with("POST", &deployed.host(), &target, "application/json", body),
    )?;
    let told = answer.json()?;
    let event = &told["event"];
    ensure!(
        event["httpMethod"] == "POST" && event["resource"] == "/{proxy+}",
        "{event}"
    );
    ensure!(event["pathParameters"] == json!({ "proxy": "event" }), "{event}");
    ensure!(event["queryStringParameters"] == json!({ "a": "2" }), "{event}");
    ensure!(event["body"] == "{\"greeter\":\"jane\"}", "{event}");
    ensure!(
        event["requestContext"]["path"] == deployed.path("/event"),
        "{event}"
    );
    ensure!(told["arn"] == arn(&name), "{told}");

    ensure!(call("/empty")?.status == 200, "an empty object is an answer");
    for path in ["/fail", "/malformed"] {
        let answer = call(path)?;
        ensure!(answer.status == 502, "{path}: {answer:?}");
        ensure!(
            answer.text() == "{\"message\": \"Internal server error\"}",
            "{answer:?}"
        );
    }
    let accepting = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: image/png\r\n\r\n",
        deployed.path("/binary"),
        deployed.host()
    );
    let answer = exchange(shared.http(), accepting)?;
    ensure!(answer.body == [0xff, 0], "{answer:?}");

    // A worker that dies with the request in hand: 502 at once, and its successor goes on.
    for _ in 0..3 {
        let answer = call("/die")?;
        ensure!(answer.status == 502, "{answer:?}");
    }
    ensure!(call("/hi")?.status == 201, "another worker has taken the place");
    drop(workers);
    let deleted = shared.instance.run(&["function", "delete", &name])?;
    ensure!(deleted.starts_with("deleted bindings/"), "{deleted}");
    ensure!(call("/hi")?.status == 500, "a function that is unbound");
    Ok(())
}

/// What one call of a test's endpoint brought: the head and the body.
type Called = (String, String);

/// An endpoint that gives every call the same answer, and tells what it was asked.
fn endpoint(answer: &'static str) -> Result<(SocketAddr, mpsc::Receiver<Called>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (told, tell) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).is_ok_and(|length| length > 0) {}
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
            if stream.read_exact(&mut body).is_ok() {
                let _ = told.send((head, String::from_utf8_lossy(&body).into_owned()));
                let _ = stream.get_mut().write_all(answer.as_bytes());
            }
        }
    });
    Ok((address, tell))
}

/// C9, RES-098, RES-100, OBV-176: a function behind a URL, and one behind an endpoint of the Invoke API, signed.
fn endpoints_are_called(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let name = name(context, "endpoint");
    let deployed = shared.deploy(&calling(&arn(&name)))?;
    ensure!(
        deployed.warnings.iter().any(|text| text.contains("is not bound")),
        "{:?}",
        deployed.warnings
    );
    let call = || -> Result<Response> { get(shared.http(), &deployed.host(), &deployed.path("/x")) };
    let run = |arguments: &[&str]| shared.instance.run(arguments);

    let (address, asked) = endpoint(
        "HTTP/1.1 200 OK\r\nContent-Length: 38\r\nConnection: close\r\n\r\n{\"statusCode\":202,\"body\":\"from a url\"}",
    )?;
    let url = format!("http://{address}/functions/f");
    run(&["function", "put", &name, "--url", &url])?;
    let answer = call()?;
    ensure!(
        answer.status == 202 && answer.text() == "from a url",
        "{answer:?}"
    );
    let (head, event) = asked.recv()?;
    ensure!(head.starts_with("POST /functions/f HTTP/1.1\r\n"), "{head}");
    ensure!(event.contains("\"path\":\"/x\""), "{event}");

    let (address, asked) = endpoint(
        "HTTP/1.1 200 OK\r\nX-Amz-Function-Error: Unhandled\r\nTransfer-Encoding: chunked\r\n\r\n\
         12\r\n{\"errorMessage\":\"x\r\n2\r\n\"}\r\n0\r\n\r\n",
    )?;
    let role = format!("arn:aws:iam::000000000000:role/{name}");
    let secret = context.directory().join("secret");
    std::fs::write(&secret, "hush-hush\n")?;
    let option = format!("secret-access-key=@{}", secret.display());
    run(&["bind", "credentials", &role, "AKIDEXAMPLE", "--option", &option])?;
    let url = format!("http://{address}");
    run(&["function", "put", &name, "--invoke", &url, "--credentials", &role])?;
    let answer = call()?;
    ensure!(answer.status == 502, "a function error: {answer:?}");
    let (head, _) = asked.recv()?;
    ensure!(
        head.starts_with(&format!(
            "POST /2015-03-31/functions/{}/invocations HTTP/1.1\r\n",
            arn(&name)
        )),
        "{head}"
    );
    ensure!(
        head.contains("\r\nX-Amz-Invocation-Type: RequestResponse\r\n"),
        "{head}"
    );
    ensure!(
        head.contains("\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
            && head.contains("/us-east-1/lambda/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-invocation-type, Signature="),
        "{head}"
    );
    // C7: the secret is shown to nobody.
    let shown = run(&["list", "bindings", "-o", "json"])?;
    ensure!(
        shown.contains("AKIDEXAMPLE") && !shown.contains("hush-hush"),
        "{shown}"
    );
    ensure!(
        !shared.instance.log().contains("hush-hush"),
        "the secret is in the log"
    );

    // RES-102: an allow list that does not name the method.
    run(&[
        "function",
        "put",
        &name,
        "--invoke",
        &url,
        "--allow",
        "arn:aws:execute-api:*:other/*",
    ])?;
    ensure!(call()?.status == 500, "not allowed");
    let own = format!("arn:aws:execute-api:us-east-1:*:{}/*/GET/*", deployed.api_id);
    run(&["function", "put", &name, "--invoke", &url, "--allow", &own])?;
    ensure!(call()?.status == 502, "allowed: the function's error");
    Ok(())
}

/// C9: 500 with the service's body, a warning when it is deployed, and clear words from the command line.
fn an_unbound_function_is_500(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let name = name(context, "unbound");
    let deployed = shared.deploy(&calling(&name))?;
    let warned = format!("the function {} is not bound", arn(&name));
    ensure!(
        deployed.warnings.iter().any(|text| text.contains(&warned)),
        "{:?}",
        deployed.warnings
    );
    let answer = get(shared.http(), &deployed.host(), &deployed.path("/x"))?;
    ensure!(answer.status == 500, "{answer:?}");
    ensure!(
        answer.text() == "{\"message\": \"Internal server error\"}",
        "{answer:?}"
    );
    let worker = Command::new(context.binary())
        .args(["worker", &name, "--data-dir"])
        .arg(shared.instance.data())
        .args(["--", "true"])
        .output()?;
    let delete = shared.instance.command(&["function", "delete", &name])?;
    for refused in [worker, delete] {
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(
            !refused.status.success() && said.contains(&format!("there is no function {name}")),
            "{said}"
        );
    }
    Ok(())
}

/// A thousand calls at once over fifty workers: every one is answered, by many.
fn a_thousand_calls_over_fifty_workers(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let name = name(context, "thousand");
    let listen = free()?.to_string();
    shared
        .instance
        .run(&["function", "put", &name, "--runtime", "--listen", &listen])?;
    let deployed: Deployed = shared.deploy(&calling(&name))?;
    let _workers = Workers::start(context, &shared.instance, &name, 50)?;
    let (host, target) = (deployed.host(), deployed.path("/hi"));
    let http = shared.http();
    let answers: Vec<Result<Response>> = thread::scope(|scope| {
        let calls: Vec<_> = (0..1000)
            .map(|_| {
                let call = || get(http, &host, &target);
                let thread = thread::Builder::new().stack_size(256 * 1024);
                thread.spawn_scoped(scope, call)
            })
            .collect();
        calls
            .into_iter()
            .map(|call| match call?.join() {
                Ok(answer) => answer,
                Err(_) => anyhow::bail!("a call has panicked"),
            })
            .collect()
    });
    let mut workers = BTreeSet::new();
    for answer in answers {
        let answer = answer?;
        ensure!(answer.status == 201, "{answer:?}");
        workers.insert(answer.text());
    }
    ensure!(workers.len() > 1, "one worker has done everything");
    Ok(())
}
