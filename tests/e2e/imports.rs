//! Documents: what the import takes, what it refuses with line and reason, and what the commands answer to misuse.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use tidegate_harness::instance::FREE;
use tidegate_harness::process::resident;
use tidegate_harness::raw::get;
use tidegate_harness::suite::{Context, Shared, Test};

use crate::pets::{everything, pet_store};

/// All tests of this suite.
pub(crate) const TESTS: &[Test] = &[
    Test::once(
        "malformed_documents_are_refused_with_line_and_reason",
        malformed_documents_are_refused_with_line_and_reason,
    ),
    Test::once("cycles_end", cycles_end),
    Test::once("a_file_of_100_mb_is_refused", a_file_of_100_mb_is_refused),
    Test::once(
        "the_limit_of_a_document_can_be_set",
        the_limit_of_a_document_can_be_set,
    ),
    Test::once("what_is_not_understood_is_named", what_is_not_understood_is_named),
    Test::once("updates_merge_or_overwrite", updates_merge_or_overwrite),
    Test::once(
        "wrong_usage_is_told_from_failure",
        wrong_usage_is_told_from_failure,
    ),
];

fn write(context: &Context, name: &str, text: &str) -> Result<PathBuf> {
    let path = context.directory().join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

fn import(shared: &Shared, path: &std::path::Path) -> Result<Output> {
    shared.instance.command(&[
        "import",
        &path.display().to_string(),
        "--stage",
        "test",
        "-o",
        "json",
    ])
}

/// OAP: a document that is no JSON, no YAML or no OpenAPI: exit code 1, and a message with the line and the reason.
fn malformed_documents_are_refused_with_line_and_reason(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let cases = [
        (
            "cut.json",
            "{\n  \"openapi\": \"3.0.1\",\n  \"info\": {\n    \"title\": ",
            "line 4",
        ),
        (
            "comma.json",
            "{\n  \"openapi\": \"3.0.1\",,\n  \"paths\": {}\n}",
            "line 2",
        ),
        (
            "indent.yaml",
            "openapi: 3.0.1\ninfo:\n  title: x\n version: y\npaths: {}\n",
            "line 4",
        ),
        ("list.json", "[1, 2]", ""),
        ("empty.json", "", ""),
        ("other.json", "{\"hello\": \"world\"}", "openapi"),
        (
            "version.json",
            "{\"openapi\": \"9.9.9\", \"info\": {\"title\": \"x\", \"version\": \"1\"}, \"paths\": {}}",
            "9.9.9",
        ),
        (
            "path.json",
            "{\"openapi\": \"3.0.1\", \"info\": {\"title\": \"x\", \"version\": \"1\"}, \"paths\": {\"pets\": {\"get\": {}}}}",
            "pets",
        ),
        (
            "type.json",
            "{\"openapi\": \"3.0.1\", \"info\": {\"title\": \"x\", \"version\": \"1\"}, \"paths\": 7}",
            "paths",
        ),
    ];
    for (name, text, expected) in cases {
        let output = import(&shared, &write(context, name, text)?)?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(1),
            "{name}: {} {told}",
            output.status
        );
        ensure!(
            told.contains(expected),
            "{name}: the message does not name {expected:?}: {told}"
        );
        ensure!(
            told.contains(name) && !told.contains("panicked"),
            "{name}: {told}"
        );
    }
    ensure_alive(&shared)
}

fn ensure_alive(shared: &Shared) -> Result<()> {
    let deployed = shared.deploy(&pet_store(&shared.backend))?;
    let pets = get(shared.http(), &deployed.host(), &deployed.path("/pets"))?;
    ensure!(pets.status == 200, "{pets:?}");
    Ok(())
}

/// A `$ref` that leads back to itself, in models (allowed by JSON Schema) and in path items (not), and nesting without end.
fn cycles_end(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let head = r#"{"openapi": "3.0.1", "info": {"title": "cycle", "version": "1"}"#;
    let cases = [
        (
            "models.json",
            format!(
                r##"{head}, "paths": {{}}, "components": {{"schemas": {{
                "A": {{"type": "object", "properties": {{"b": {{"$ref": "#/components/schemas/B"}}}}}},
                "B": {{"type": "object", "properties": {{"a": {{"$ref": "#/components/schemas/A"}}}}}}}}}}}}"##
            ),
        ),
        (
            "alias.json",
            format!(
                r##"{head}, "paths": {{}}, "components": {{"schemas": {{
                "A": {{"$ref": "#/components/schemas/B"}}, "B": {{"$ref": "#/components/schemas/A"}}}}}}}}"##
            ),
        ),
        (
            "paths.json",
            format!(
                r##"{head}, "paths": {{"/a": {{"$ref": "#/paths/~1b"}}, "/b": {{"$ref": "#/paths/~1a"}}}}}}"##
            ),
        ),
        (
            "parameters.json",
            format!(
                r##"{head}, "paths": {{"/a": {{"get": {{"parameters": [{{"$ref": "#/components/parameters/p"}}], "responses": {{}}}}}}}},
                "components": {{"parameters": {{"p": {{"$ref": "#/components/parameters/p"}}}}}}}}"##
            ),
        ),
        (
            "deep.json",
            format!(
                r#"{head}, "paths": {}1{}}}"#,
                "{\"a\":".repeat(5_000),
                "}".repeat(5_000)
            ),
        ),
        ("anchors.yaml", {
            let mut text = String::from(
                "openapi: 3.0.1\ninfo: {title: x, version: '1'}\nx-a: &a [x,x,x,x,x,x,x,x,x,x]\n",
            );
            for at in 0..12 {
                let (from, to) = (char::from(b'a' + at), char::from(b'b' + at));
                text.push_str(&format!(
                    "x-{to}: &{to} [{}]\n",
                    vec![format!("*{from}"); 10].join(",")
                ));
            }
            text + "paths: {}\n"
        }),
    ];
    let control = shared.instance.ready().control_plane.context("a control plane")?;
    let before = resident(control)?;
    for (name, text) in cases {
        let output = import(&shared, &write(context, name, &text)?)?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "{name}: {} {told}",
            output.status
        );
        ensure!(
            output.status.success() || !told.trim().is_empty(),
            "{name}: refused without a word"
        );
        ensure!(!told.contains("panicked"), "{name}: {told}");
    }
    let grown = resident(control)?.saturating_sub(before);
    ensure!(grown < 200 << 20, "the control plane grew by {grown} bytes");
    ensure_alive(&shared)
}

/// OAP, D15: a document has a limit; what is over it is refused with the limit, and not read into memory.
fn a_file_of_100_mb_is_refused(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let path = context.directory().join("large.json");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    file.write_all(
        b"{\"openapi\": \"3.0.1\", \"info\": {\"title\": \"large\", \"version\": \"1\", \"description\": \"",
    )?;
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        file.write_all(&megabyte)?;
    }
    file.write_all(b"\"}, \"paths\": {}}")?;
    drop(file);
    let control = shared.instance.ready().control_plane.context("a control plane")?;
    let before = resident(control)?;
    let output = import(&shared, &path)?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{} {told}", output.status);
    ensure!(
        told.contains("large.json") && told.to_lowercase().contains("mib"),
        "the message names no limit: {told}"
    );
    let grown = resident(control)?.saturating_sub(before);
    ensure!(grown < 64 << 20, "the control plane grew by {grown} bytes");
    ensure_alive(&shared)
}

/// QUO-077: the bound of a document is a setting; over it the refusal names the bound and the setting, under it nothing is
/// said.
fn the_limit_of_a_document_can_be_set(context: &Context) -> Result<()> {
    let control = context
        .plan()
        .set("TIDEGATE_LIMITS__IMPORT_BYTES", "10KiB")
        .control_plane("control", FREE)?;
    let document = |bytes: usize| -> Result<String> {
        let text =
            "{\"openapi\": \"3.0.1\", \"info\": {\"title\": \"sized\", \"version\": \"1\"}, \"paths\": {}}";
        let path = context.directory().join(format!("{bytes}.json"));
        std::fs::write(&path, format!("{text:<bytes$}"))?;
        Ok(path.display().to_string())
    };
    control.run(&["import", &document(10 << 10)?])?;
    let output = control.command(&["import", &document((10 << 10) + 1)?])?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && told.contains("10 KiB") && told.contains("import-bytes"),
        "{} {told}",
        output.status
    );
    Ok(())
}

/// What the import does not take over is a warning that names it.
fn what_is_not_understood_is_named(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let mut document: serde_json::Value = serde_json::from_str(&pet_store(&shared.backend).to_json())?;
    document["paths"]["/pets"]["get"]["x-amazon-apigateway-unheard-of"] = serde_json::json!({ "a": 1 });
    let output = import(&shared, &write(context, "unheard.json", &document.to_string())?)?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        answer["warnings"]
            .to_string()
            .contains("x-amazon-apigateway-unheard-of"),
        "{answer}"
    );
    Ok(())
}

/// OAP: `--mode merge` keeps what the document lacks, `--mode overwrite` deletes it.
fn updates_merge_or_overwrite(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    let deployed = shared.deploy(&pet_store(&shared.backend))?;
    let path = write(context, "more.json", &everything(&shared.backend).to_json())?
        .display()
        .to_string();
    let status = |path: &str| -> Result<u16> {
        Ok(get(shared.http(), &deployed.host(), &deployed.path(path))?.status)
    };
    shared.instance.run(&[
        "import",
        &path,
        "--api",
        &deployed.api_id,
        "--mode",
        "merge",
        "--stage",
        "test",
    ])?;
    ensure!(
        status("/pets")? == 200 && status("/b/fixed/3")? == 200,
        "after a merge"
    );
    shared.instance.run(&[
        "import",
        &path,
        "--api",
        &deployed.api_id,
        "--mode",
        "overwrite",
        "--stage",
        "test",
    ])?;
    ensure!(
        status("/pets")? == 403 && status("/b/fixed/3")? == 200,
        "after an overwrite"
    );
    Ok(())
}

/// Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
fn wrong_usage_is_told_from_failure(context: &Context) -> Result<()> {
    let shared = context.shared()?;
    for (arguments, code) in [
        (&["import"][..], 2),
        (&["no-such-command"], 2),
        (&["import", "x.json", "--mode", "sideways"], 2),
        (&["import", "/nonexistent/x.json", "--stage", "test"], 1),
        (&["get", "restApis/zzzzzzzzzz"], 1),
        (&["list", "restApis"], 0),
        (&["nodes"], 0),
    ] {
        let output = shared.instance.command(arguments)?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?}: {} {told}",
            output.status
        );
        ensure!(
            code == 0 || !told.trim().is_empty(),
            "{arguments:?}: failed without a word"
        );
    }
    Ok(())
}
