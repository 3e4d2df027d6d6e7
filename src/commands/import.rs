//! `import` and `deploy`.

use std::{
    io::Read,
    path::Path,
    sync::{Arc, Mutex},
};

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};
use tidegate_proto::admin::v1::{
    DeployRequest, DeployResponse, ImportOptions, ImportRequest, ImportResponse, Rollout, import_options,
};

use crate::{
    cli::{DeployArgs, GlobalArgs, ImportArgs, ImportMode, OutputFormat},
    client::Client,
    output,
};

/// What `import` prints.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Imported {
    /// The API.
    pub(crate) api_id: String,
    /// The deployment; absent where no stage was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deployment_id: Option<String>,
    /// Where the stage answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) invoke_url: Option<String>,
    /// What was not understood, by name.
    pub(crate) warnings: Vec<String>,
    /// How far the change has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollout: Option<Value>,
}

/// `tidegate import`.
pub(crate) async fn import(global: &GlobalArgs, args: &ImportArgs) -> anyhow::Result<()> {
    // Opened first: a missing file should not need a running instance to be noticed.
    let document = open(&args.file)?;
    let client = Client::connect(global).await?;
    let imported = import_document(client, document, args)
        .await
        .with_context(|| format!("cannot import {}", args.file.display()))?;
    match global.output {
        OutputFormat::Json => output::json(&imported),
        OutputFormat::Table => {
            println!("api         {}", imported.api_id);
            if let Some(deployment) = &imported.deployment_id {
                println!("deployment  {deployment}");
            }
            if let Some(url) = &imported.invoke_url {
                println!("invoke URL  {url}");
            } else {
                println!(
                    "not deployed: `tidegate deploy {} --stage NAME` makes it callable",
                    imported.api_id
                );
            }
            for warning in &imported.warnings {
                eprintln!("warning: {warning}");
            }
            Ok(())
        }
    }
}

fn open(file: &Path) -> anyhow::Result<Box<dyn Read + Send>> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdin()));
    }
    let open = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    anyhow::ensure!(
        !open.metadata()?.is_dir(),
        "{} is a directory; name the document",
        file.display()
    );
    Ok(Box::new(open))
}

/// Sends a document and deploys the API where a stage is named. The document is read as it is sent: whatever its size,
/// the server says when it is too much.
pub(crate) async fn import_document(
    mut client: Client,
    document: impl Read + Send + 'static,
    args: &ImportArgs,
) -> anyhow::Result<Imported> {
    let options = ImportOptions {
        api_id: args.api.clone().unwrap_or_default(),
        mode: match args.mode {
            ImportMode::Merge => import_options::Mode::Merge,
            ImportMode::Overwrite => import_options::Mode::Overwrite,
        }
        .into(),
        fail_on_warnings: args.fail_on_warnings,
        base_path: args.base_path.name().to_owned(),
        file_name: args.file.display().to_string(),
    };
    let first = ImportRequest {
        options: Some(options),
        document: Vec::new(),
    };
    let failure: Arc<Mutex<Option<std::io::Error>>> = Arc::default();
    let rest = parts(document, Arc::clone(&failure));
    let messages = tokio_stream::iter(std::iter::once(first).chain(rest));
    let answer = client.api.import(messages).await;
    if let Some(error) = failure.lock().ok().and_then(|mut failure| failure.take()) {
        return Err(error).with_context(|| format!("cannot read {}", args.file.display()));
    }
    let ImportResponse {
        rest_api, warnings, ..
    } = answer.map_err(|status| client.explain(status))?.into_inner();
    let api_id = rest_api
        .and_then(|api| api.id)
        .context("the server did not say which API it made")?;
    let mut imported = Imported {
        api_id,
        warnings,
        ..Imported::default()
    };
    if let Some(stage) = &args.stage {
        let request = DeployRequest {
            api_id: imported.api_id.clone(),
            stage_name: stage.clone(),
            wait_ms: args.wait_ms,
            ..DeployRequest::default()
        };
        let deployed = client.api.deploy(request).await.map_err(|status| {
            client.explain(status).context(format!(
                "the API {} was imported but not deployed",
                imported.api_id
            ))
        })?;
        let DeployResponse {
            deployment,
            invoke_url,
            warnings,
            rollout,
        } = deployed.into_inner();
        imported.deployment_id = deployment.and_then(|deployment| deployment.id);
        imported.invoke_url = Some(invoke_url).filter(|url| !url.is_empty());
        // The same remark may come from the import and from compiling what was imported.
        for warning in warnings {
            if !imported.warnings.contains(&warning) {
                imported.warnings.push(warning);
            }
        }
        warn_incomplete(rollout.as_ref());
        imported.rollout = rollout.map(serde_json::to_value).transpose()?;
    }
    Ok(imported)
}

/// `tidegate deploy`.
pub(crate) async fn deploy(global: &GlobalArgs, args: &DeployArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(global).await?;
    let request = DeployRequest {
        api_id: args.api.clone(),
        stage_name: args.stage.clone().unwrap_or_default(),
        description: args.description.clone().unwrap_or_default(),
        variables: args.variables.iter().cloned().collect(),
        wait_ms: args.wait_ms,
        ..DeployRequest::default()
    };
    let response = client
        .api
        .deploy(request)
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    warn_incomplete(response.rollout.as_ref());
    let id = response
        .deployment
        .as_ref()
        .and_then(|deployment| deployment.id.clone())
        .unwrap_or_default();
    let value = json!({
        "apiId": args.api,
        "deploymentId": id,
        "invokeUrl": response.invoke_url,
        "warnings": response.warnings,
        "rollout": response.rollout,
    });
    match global.output {
        OutputFormat::Json => output::json(&value),
        OutputFormat::Table => {
            println!("deployment  {id}");
            if !response.invoke_url.is_empty() {
                println!("invoke URL  {}", response.invoke_url);
            }
            for warning in &response.warnings {
                eprintln!("warning: {warning}");
            }
            Ok(())
        }
    }
}

/// Tells on standard error where a change has not reached every node, or was refused by one.
pub(crate) fn warn_incomplete(rollout: Option<&Rollout>) {
    for line in rollout.map(incomplete).unwrap_or_default() {
        eprintln!("{line}");
    }
}

/// What there is to say of a roll-out that has not reached every node that is known.
fn incomplete(rollout: &Rollout) -> Vec<String> {
    let mut lines = Vec::new();
    let (away, connected): (Vec<_>, Vec<_>) = rollout.nodes.iter().partition(|node| node.away);
    for node in &connected {
        for refused in &node.refused {
            lines.push(format!(
                "warning: node {} keeps the old {}: {}",
                node.node_id, refused.id, refused.refusal
            ));
        }
    }
    if connected.is_empty() {
        lines.push("note: no data plane is connected; the change takes effect when one is".to_owned());
    } else if !rollout.complete {
        lines.push(format!(
            "note: not every data plane runs revision {rev} yet; `tidegate wait {rev}` waits for it",
            rev = rollout.revision
        ));
    }
    for node in away.iter().take(AWAY_SHOWN) {
        lines.push(format!(
            "note: data plane {} ({}) is away, last seen at revision {}; it takes what it missed when it is back",
            node.node_name, node.node_id, node.revision
        ));
    }
    if let more @ 1.. = away.len().saturating_sub(AWAY_SHOWN) {
        lines.push(format!(
            "note: {more} more data planes are away; see tidegate nodes"
        ));
    }
    lines
}

/// The document in messages. A failure to read ends them and is left in `failure`.
fn parts(
    mut document: impl Read,
    failure: Arc<Mutex<Option<std::io::Error>>>,
) -> impl Iterator<Item = ImportRequest> {
    std::iter::from_fn(move || {
        let mut part = Vec::with_capacity(CHUNK);
        match document.by_ref().take(CHUNK as u64).read_to_end(&mut part) {
            Ok(0) => None,
            Ok(_) => Some(ImportRequest {
                options: None,
                document: part,
            }),
            Err(error) => {
                if let Ok(mut failure) = failure.lock() {
                    *failure = Some(error);
                }
                None
            }
        }
    })
}

const CHUNK: usize = 512 << 10;
/// Nodes that are away and named one by one.
const AWAY_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use tidegate_proto::admin::v1::NodeRollout;

    use super::*;

    /// C2: nothing is said where all is well, and no change is called live on a node that is away.
    #[test]
    fn what_is_outstanding_is_said() {
        let node = |name: &str, revision, away| NodeRollout {
            node_name: name.into(),
            node_id: format!("id-{name}"),
            revision,
            away,
            ..NodeRollout::default()
        };
        let said = |complete, nodes| {
            incomplete(&Rollout {
                revision: 7,
                complete,
                nodes,
            })
            .join("\n")
        };
        assert_eq!(said(true, vec![node("a", 7, false)]), "");
        assert!(said(true, Vec::new()).contains("no data plane is connected"));
        let away = said(true, vec![node("a", 6, true)]);
        assert!(away.contains("no data plane is connected"), "{away}");
        assert!(
            away.contains("a (id-a) is away, last seen at revision 6"),
            "{away}"
        );
        assert!(said(false, vec![node("a", 6, false)]).contains("tidegate wait 7"));
        let many = (0..12).map(|_| node("a", 6, true)).collect();
        assert!(said(true, many).contains("2 more data planes are away"));
    }
}
