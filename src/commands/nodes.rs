//! `nodes`, `node …`, `wait`, `explain`, `ca`, `principal create`.

use std::process::ExitCode;

use anyhow::Context;
use tidegate_proto::{
    admin::v1::{
        CreateJoinTokenRequest, CreatePrincipalRequest, ExplainRequest, InstallationRequest, NodesRequest,
        RemoveNodeRequest, WaitRevisionRequest,
    },
    config::v1::Header,
};

use super::import::warn_incomplete;
use crate::{
    cli::{
        ExplainArgs, GlobalArgs, NodeRemoveArgs, NodeTokenArgs, OutputFormat, PrincipalCreateArgs, WaitArgs,
    },
    client::Client,
    output,
};

/// `tidegate nodes`.
pub(crate) async fn list(global: &GlobalArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(global).await?;
    let response = client
        .api
        .nodes(NodesRequest {})
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    output::print(global.output, &response, || {
        let mut table = output::table([
            "ID", "NAME", "STATE", "REVISION", "REFUSED", "SHARDS", "DRIVER", "VERSION",
        ]);
        for node in &response.nodes {
            let state = match (node.connected, node.revision == response.revision) {
                (true, true) => "current",
                (true, false) => "behind",
                (false, _) => "away",
            };
            table.add_row([
                node.id.clone(),
                node.name.clone(),
                state.to_owned(),
                format!("{} of {}", node.revision, response.revision),
                node.refused.len().to_string(),
                node.shards.to_string(),
                node.driver.clone(),
                node.version.clone(),
            ]);
        }
        table
    })
}

/// `tidegate node token`.
pub(crate) async fn token(global: &GlobalArgs, args: &NodeTokenArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(global).await?;
    let request = CreateJoinTokenRequest {
        node_name: args.name.clone(),
        valid_seconds: args.valid_seconds,
    };
    let response = client
        .api
        .create_join_token(request)
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    match global.output {
        OutputFormat::Json => output::json(&response),
        OutputFormat::Table => {
            println!("{}", response.join_file.trim_end());
            Ok(())
        }
    }
}

/// `tidegate node remove`.
pub(crate) async fn remove(global: &GlobalArgs, args: &NodeRemoveArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(global).await?;
    let request = RemoveNodeRequest { id: args.id.clone() };
    let response = client
        .api
        .remove_node(request)
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    match global.output {
        OutputFormat::Json => output::json(&response),
        OutputFormat::Table => {
            println!("removed {}", args.id);
            Ok(())
        }
    }
}

/// `tidegate wait`: 0 when every connected node runs the revision, 1 when the time is up.
pub(crate) async fn wait(global: &GlobalArgs, args: &WaitArgs) -> anyhow::Result<ExitCode> {
    let mut client = Client::connect(global).await?;
    let request = WaitRevisionRequest {
        revision: args.revision,
        wait_ms: args.timeout.saturating_mul(1_000),
    };
    let rollout = client
        .api
        .wait_revision(request)
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    output::print(global.output, &rollout, || {
        let mut table = output::table(["NODE", "NAME", "STATE", "REVISION", "REFUSED"]);
        for node in &rollout.nodes {
            let state = match node.away {
                true => "away",
                false if node.revision >= rollout.revision => "current",
                false => "behind",
            };
            table.add_row([
                node.node_id.clone(),
                node.node_name.clone(),
                state.to_owned(),
                node.revision.to_string(),
                node.refused.len().to_string(),
            ]);
        }
        table
    })?;
    warn_incomplete(Some(&rollout));
    Ok(match rollout.complete {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// `tidegate explain`.
pub(crate) async fn explain(global: &GlobalArgs, args: &ExplainArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(global).await?;
    let request = ExplainRequest {
        method: args.method.to_ascii_uppercase(),
        url: args.url.clone(),
        headers: args
            .headers
            .iter()
            .map(|(name, value)| Header {
                name: name.clone(),
                value: value.clone(),
            })
            .collect(),
        node_id: args.node.clone(),
    };
    let response = client
        .api
        .explain(request)
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    output::print(global.output, &response, || {
        let mut table = output::table(["PHASE", "DECISION"]);
        for step in &response.steps {
            table.add_row([&step.phase, &step.decision]);
        }
        let answer = match response.status {
            0 => "the backend's".to_owned(),
            status => status.to_string(),
        };
        table.add_row(["answer", &answer]);
        table
    })
}

/// `tidegate ca`.
pub(crate) async fn authority(global: &GlobalArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(global).await?;
    let installation = client
        .api
        .installation(InstallationRequest {})
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    match global.output {
        OutputFormat::Json => output::json(&serde_json::json!({
            "installationId": installation.id,
            "authorityPem": installation.authority_pem,
        })),
        OutputFormat::Table => {
            println!("{}", installation.authority_pem.trim_end());
            Ok(())
        }
    }
}

/// `tidegate principal create`.
pub(crate) async fn create_principal(global: &GlobalArgs, args: &PrincipalCreateArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(global).await?;
    let request = CreatePrincipalRequest {
        name: args.name.clone(),
        account_id: args.account.clone(),
        admin: args.admin,
    };
    let response = client
        .api
        .create_principal(request)
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    match global.output {
        OutputFormat::Json => output::json(&response),
        OutputFormat::Table => {
            let id = response
                .principal
                .as_ref()
                .and_then(|principal| principal.id.clone())
                .context("the server did not say which principal it made")?;
            println!("principal  {id}");
            println!("token      {}", response.token);
            eprintln!("note: the token is shown this once; keep it safe");
            Ok(())
        }
    }
}
