//! `get`, `list`, `delete`, `bind`.

use anyhow::Context;
use serde_json::Value;
use tidegate_proto::admin::v1::{
    ApplyEntity, ApplyRequest, Binding, DeleteRequest, Entity, GetRequest, ListRequest, entity::Body,
};

use super::import::warn_incomplete;
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
    let mut client = Client::connect(global).await?;
    let binding = Binding {
        id: None,
        kind: Some(args.kind.clone()),
        pattern: Some(args.pattern.clone()),
        target: Some(args.target.clone()),
        options: args.options.iter().cloned().collect(),
    };
    let entity = Entity {
        name: "bindings".to_owned(),
        body: Some(Body::Binding(binding)),
        ..Entity::default()
    };
    // Binding the same name again changes where it leads.
    let key = format!("{} {}", args.kind, args.pattern);
    let request = ApplyRequest {
        entities: vec![ApplyEntity {
            entity: Some(entity),
            key,
            ..ApplyEntity::default()
        }],
        ..ApplyRequest::default()
    };
    let response = client
        .api
        .apply(request)
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    warn_incomplete(response.rollout.as_ref());
    let bound = response
        .entities
        .into_iter()
        .next()
        .context("the server did not say what it bound")?;
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
