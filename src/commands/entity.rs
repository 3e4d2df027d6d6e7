//! `get`, `list`, `delete`, `bind`.

use anyhow::Context;
use serde_json::Value;
use tidegate_proto::admin::v1::{DeleteRequest, Entity, GetRequest, ListRequest};

use super::{function, import::warn_incomplete};
use crate::{
    cli::{BindArgs, DeleteArgs, GetArgs, GlobalArgs, ListArgs, OutputFormat},
    client::{Client, check_name},
    output,
};

/// `tidegate get`.
pub(crate) async fn get(global: &GlobalArgs, args: &GetArgs) -> anyhow::Result<()> {
    check_name(&args.name)?;
    let mut client = Client::connect(global).await?;
    let request = GetRequest {
        name: args.name.clone(),
    };
    let entity = client
        .api
        .get(request)
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    let value = serde_json::to_value(&entity)?;
    match global.output {
        OutputFormat::Json => output::json(&value),
        OutputFormat::Table => {
            println!("{}  (revision {})", entity.name, entity.revision);
            println!("{}", output::properties(members(&value)).trim_fmt());
            Ok(())
        }
    }
}

/// `tidegate list`.
pub(crate) async fn list(global: &GlobalArgs, args: &ListArgs) -> anyhow::Result<()> {
    check_name(&args.parent)?;
    let mut client = Client::connect(global).await?;
    let limit = args.limit.unwrap_or(usize::MAX);
    let mut entities: Vec<Entity> = Vec::new();
    let mut page_token = String::new();
    while entities.len() < limit {
        let request = ListRequest {
            parent: args.parent.clone(),
            page_size: PAGE,
            page_token,
        };
        let page = client
            .api
            .list(request)
            .await
            .map_err(|status| client.explain(status))?
            .into_inner();
        let last = page.next_page_token.is_empty() || page.entities.is_empty();
        entities.extend(page.entities);
        page_token = page.next_page_token;
        if last {
            break;
        }
    }
    entities.truncate(limit);
    let values = entities
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<Vec<Value>, _>>()?;
    output::print(global.output, &values, || {
        let mut table = output::table(["NAME", "WHAT", "REVISION"]);
        for (entity, value) in entities.iter().zip(&values) {
            table.add_row([
                entity.name.clone(),
                summary(members(value)),
                entity.revision.to_string(),
            ]);
        }
        table
    })
}

/// `tidegate delete`.
pub(crate) async fn delete(global: &GlobalArgs, args: &DeleteArgs) -> anyhow::Result<()> {
    check_name(&args.name)?;
    let mut client = Client::connect(global).await?;
    let request = DeleteRequest {
        name: args.name.clone(),
        expected_revision: args.expected_revision,
        wait_ms: args.wait_ms,
    };
    let response = client
        .api
        .delete(request)
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    warn_incomplete(response.rollout.as_ref());
    match global.output {
        OutputFormat::Json => output::json(&response),
        OutputFormat::Table => {
            println!("deleted {}", args.name);
            Ok(())
        }
    }
}

/// `tidegate bind`.
pub(crate) async fn bind(global: &GlobalArgs, args: &BindArgs) -> anyhow::Result<()> {
    let options = args
        .options
        .iter()
        .map(|(name, value)| Ok((name.clone(), from_file(value)?)))
        .collect::<anyhow::Result<_>>()?;
    let mut client = Client::connect(global).await?;
    let bound = function::bind(&mut client, &args.kind, &args.pattern, &args.target, options).await?;
    match global.output {
        OutputFormat::Json => output::json(&bound),
        OutputFormat::Table => {
            println!(
                "{}: {} {} -> {}",
                bound.name, args.kind, args.pattern, args.target
            );
            Ok(())
        }
    }
}

/// An option's value, or what the file behind `@` holds: secrets do not belong into lists of processes.
fn from_file(value: &str) -> anyhow::Result<String> {
    let Some(file) = value.strip_prefix('@') else {
        return Ok(value.to_owned());
    };
    let content = super::read_input(file.as_ref(), MAX_OPTION)?;
    let text = String::from_utf8(content).with_context(|| format!("{file} is not text"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The members of an entity's body: the one object beside name and revision.
fn members(entity: &Value) -> &Value {
    entity
        .as_object()
        .and_then(|members| {
            members
                .iter()
                .find(|(name, _)| !matches!(name.as_str(), "name" | "revision"))
        })
        .map_or(&Value::Null, |(_, body)| body)
}

/// What tells an entity from its neighbours, for people.
fn summary(body: &Value) -> String {
    TELLING
        .iter()
        .filter_map(|name| body.get(name).map(|value| (name, value)))
        .filter(|(_, value)| !value.is_null())
        .take(3)
        .map(|(name, value)| format!("{name}={}", output::cell(value)))
        .collect::<Vec<_>>()
        .join("  ")
}

/// Members worth a table's space, the most telling first.
const TELLING: [&str; 14] = [
    "name",
    "stageName",
    "path",
    "httpMethod",
    "domainName",
    "kind",
    "pattern",
    "target",
    "deploymentId",
    "responseType",
    "description",
    "accountId",
    "createdDate",
    "arn",
];

const PAGE: u32 = 500;
/// The largest file that an option is read from.
const MAX_OPTION: u64 = 64 << 10;
