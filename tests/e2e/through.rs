//! `x-tidegate-pass-through` from a definition to the wire, with clients and backends that are not ours (decision D13).

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tidegate_harness::definition::Definition;
use tidegate_harness::raw::get;
use tidegate_harness::suite::{Context, Test};
use tidegate_harness::tools;

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::everywhere("a_websocket_passes", a_websocket_passes),
    Test::everywhere("grpc_passes", grpc_passes),
    Test::once(
        "the_setting_is_seen_at_every_layer",
        the_setting_is_seen_at_every_layer,
    ),
];

/// A Python program that serves on the port it prints; ended when dropped.
struct Program {
    script: PathBuf,
    python: PathBuf,
    /// Where it finds the packages that it imports.
    packages: PathBuf,
    child: Child,
    port: u16,
}

impl Program {
    fn serve(context: &Context, name: &str, text: &str, module: &str, package: &str) -> Result<Self> {
        let packages = tools::python_package(package, module)?;
        let python = tools::find("python3")?;
        let script = context.directory().join(name);
        std::fs::write(&script, text)?;
        let mut child = Command::new(&python)
            .arg(&script)
            .arg("serve")
            .env("PYTHONPATH", &packages)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let read = match child.stdout.take() {
            Some(output) => BufReader::new(output).read_line(&mut line),
            None => Ok(0),
        };
        let program = Self {
            script,
            python,
            packages,
            child,
            port: line.trim().parse().unwrap_or_default(),
        };
        read?;
        ensure!(program.port != 0, "{name} names no port: {line:?}");
        Ok(program)
    }

    /// Runs the client of the same program.
    fn call(&self, arguments: &[&str]) -> Result<()> {
        let output = tools::run(
            Command::new(&self.python)
                .arg(&self.script)
                .args(arguments)
                .env("PYTHONPATH", &self.packages),
        )?;
        ensure!(
            output.status.success() && output.stdout.ends_with(b"done\n"),
            "{arguments:?}: {} {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `ANY /{proxy+}` to this backend, with the setting.
fn passing(uri: &str, pass: Value) -> Definition {
    let integration = json!({
        "type": "http_proxy", "httpMethod": "ANY", "uri": format!("{uri}/{{proxy}}"),
        "requestParameters": { "integration.request.path.proxy": "method.request.path.proxy" },
        "x-tidegate-pass-through": pass,
    });
    Definition::new("passing").method("ANY", "/{proxy+}", 200, integration)
}

/// D13: a WebSocket of `websockets` (PyPI) to one of the same, plain and over TLS; without the setting there is none.
fn a_websocket_passes(context: &Context) -> Result<()> {
    let program = Program::serve(
        context,
        "websocket.py",
        include_str!("websocket.py"),
        "websockets",
        "websockets",
    )?;
    let shared = context.shared()?;
    let backend = format!("http://127.0.0.1:{}", program.port);
    let deployed = shared.deploy(&passing(&backend, json!({ "upgrade": true })))?;
    let authority = context.directory().join("authority.pem");
    std::fs::write(&authority, shared.instance.run(&["ca"])?)?;
    let authority = authority.display().to_string();
    let ready = shared.instance.ready();
    let path = deployed.path("/chat");
    program.call(&["call", &ready.http.to_string(), &deployed.host(), &path])?;
    program.call(&[
        "call",
        &ready.https.to_string(),
        &deployed.host(),
        &path,
        &authority,
    ])?;

    let plain = shared.deploy(&passing(&backend, json!({ "via": true })))?;
    let refused = program.call(&[
        "call",
        &ready.http.to_string(),
        &plain.host(),
        &plain.path("/chat"),
    ]);
    let error = format!("{:#}", refused.err().context("a WebSocket passed unasked")?);
    ensure!(error.contains("InvalidStatus"), "{error}");
    Ok(())
}

/// D13: gRPC of `grpcio` (PyPI) on both sides: all kinds of calls, statuses and metadata in trailers, messages as they
/// come and not when all are there, and a deadline that the server hears of.
fn grpc_passes(context: &Context) -> Result<()> {
    let program = Program::serve(context, "grpc.py", include_str!("grpc.py"), "grpc", "grpcio")?;
    let shared = context.shared()?;
    let backend = format!("http://127.0.0.1:{}", program.port);
    let pass = json!({ "http2": "prior-knowledge", "trailers": true });
    let deployed = shared.deploy(&passing(&backend, pass))?;
    let authority = context.directory().join("authority.pem");
    std::fs::write(&authority, shared.instance.run(&["ca"])?)?;
    let https = shared.instance.ready().https.to_string();
    let prefix = deployed.path("");
    program.call(&[
        "call",
        &https,
        &deployed.host(),
        &prefix,
        &authority.display().to_string(),
    ])
}

/// D13: the setting is in the entity, in what is explained, and refused where it cannot be.
fn the_setting_is_seen_at_every_layer(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let pass = json!({ "upgrade": true, "trailers": true, "http2": "prior-knowledge", "via": false });
    let deployed = shared.deploy(&passing(&shared.backend.url(""), pass.clone()))?;
    let url = format!("http://{}{}", deployed.host(), deployed.path("/x"));
    let explained = shared.instance.run(&["explain", "GET", &url])?;
    ensure!(
        explained.contains("passes through: upgrade, trailers, http2 (prior-knowledge)"),
        "{explained}"
    );
    let path = context.directory().join("refused.json");
    std::fs::write(
        &path,
        passing("http://127.0.0.1:1", json!({ "http2": "alpn" })).to_json(),
    )?;
    let refused = shared
        .instance
        .command(&["import", &path.display().to_string()])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.status.success() && said.contains("needs an https:// URI"),
        "{said}"
    );
    ensure!(
        get(shared.http(), &deployed.host(), "/")?.status == 403,
        "the API answers nothing any more"
    );
    Ok(())
}
