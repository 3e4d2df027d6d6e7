//! `apply` and `diff`: entities from a file.

use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate_proto::admin::v1::{ApplyEntity, ApplyRequest, Entity, GetRequest};
use tonic::Code;

use super::import::warn_incomplete;
use crate::{
    cli::{ApplyArgs, DiffArgs, GlobalArgs, OutputFormat},
    client::Client,
    output,
};

/// `tidegate apply`.
pub(crate) async fn apply(global: &GlobalArgs, args: &ApplyArgs) -> anyhow::Result<()> {
    let entities = read(&super::read_input(&args.file, MAX_FILE)?)
        .with_context(|| format!("{} cannot be applied", args.file.display()))?;
    let mut client = Client::connect(global).await?;
    let request = ApplyRequest {
        entities,
        prune: args.prune.clone(),
        dry_run: args.dry_run,
        wait_ms: args.wait_ms,
    };
    let response = client
        .api
        .apply(request)
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    if !args.dry_run {
        warn_incomplete(response.rollout.as_ref());
    }
    output::print(global.output, &response, || {
        let mut table = output::table(["NAME", "REVISION", ""]);
        let done = if args.dry_run {
            "would be applied"
        } else {
            "applied"
        };
        for entity in &response.entities {
            table.add_row([&entity.name, &entity.revision.to_string(), done]);
        }
        for name in &response.pruned {
            table.add_row([
                name.as_str(),
                "",
                if args.dry_run {
                    "would be deleted"
                } else {
                    "deleted"
                },
            ]);
        }
        table
    })
}

/// `tidegate diff`.
pub(crate) async fn diff(global: &GlobalArgs, args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let entities = read(&super::read_input(&args.file, MAX_FILE)?)
        .with_context(|| format!("{} cannot be compared", args.file.display()))?;
    let mut client = Client::connect(global).await?;
    let mut changes = Vec::new();
    for wanted in entities {
        let entity = wanted.entity.unwrap_or_default();
        let name = entity.name.clone();
        let current = if wanted.key.is_empty() {
            match client.api.get(GetRequest { name: name.clone() }).await {
                Ok(found) => Some(serde_json::to_value(found.into_inner())?),
                Err(status) if status.code() == Code::NotFound => None,
                Err(status) => return Err(client.explain(status)),
            }
        } else {
            // Only the server knows what a key stands for: it names the entity when asked what it would do.
            let request = ApplyRequest {
                entities: vec![ApplyEntity {
                    entity: Some(entity.clone()),
                    key: wanted.key.clone(),
                    ..Default::default()
                }],
                dry_run: true,
                ..ApplyRequest::default()
            };
            let planned = client
                .api
                .apply(request)
                .await
                .map_err(|status| client.explain(status))?
                .into_inner();
            let target = planned
                .entities
                .into_iter()
                .next()
                .map(|planned| planned.name)
                .unwrap_or_default();
            match client.api.get(GetRequest { name: target }).await {
                Ok(found) => Some(serde_json::to_value(found.into_inner())?),
                Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => None,
                Err(status) => return Err(client.explain(status)),
            }
        };
        let label = if wanted.key.is_empty() {
            name
        } else {
            format!("{name} (key {})", wanted.key)
        };
        let wanted = serde_json::to_value(&entity)?;
        compare(&label, body(&wanted), current.as_ref().map(body), &mut changes);
    }
    match global.output {
        OutputFormat::Json => output::json(&changes)?,
        OutputFormat::Table => {
            for change in &changes {
                println!("{}", line(change));
            }
        }
    }
    Ok(if args.exit_code && !changes.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Reads entities from YAML documents or JSON. A member that no entity has is refused, not dropped.
fn read(text: &[u8]) -> anyhow::Result<Vec<ApplyEntity>> {
    let mut entities = Vec::new();
    for (index, document) in serde_norway::Deserializer::from_slice(text).enumerate() {
        let value = Value::deserialize(document).map_err(|error| anyhow!("{error}"))?;
        let one = |value: Value| one(value).with_context(|| format!("document {}", index + 1));
        match value {
            Value::Null => {}
            Value::Array(list) => {
                for value in list {
                    entities.push(one(value)?);
                }
            }
            value => entities.push(one(value)?),
        }
        if entities.len() > MAX_ENTITIES {
            bail!("more than {MAX_ENTITIES} entities; apply them in several files");
        }
    }
    if entities.is_empty() {
        bail!("the file holds no entity; `tidegate apply --help` shows what one looks like");
    }
    Ok(entities)
}

fn one(value: Value) -> anyhow::Result<ApplyEntity> {
    let Value::Object(mut members) = value else {
        bail!("an entity is an object with `name`")
    };
    let key = match members.remove("key") {
        None => String::new(),
        Some(Value::String(key)) => key,
        Some(_) => bail!("`key` is a string"),
    };
    let expected_revision = match members.remove("expectedRevision") {
        None => None,
        Some(value) => Some(
            value
                .as_u64()
                .context("`expectedRevision` is a revision number")?,
        ),
    };
    // What `get -o json` printed may be applied again.
    members.remove("revision");
    if !members.get("name").is_some_and(Value::is_string) {
        bail!("`name` is missing: restApis/{{id}}/stages/prod, or a collection together with `key`");
    }
    let given = Value::Object(members);
    let entity: Entity = serde_json::from_value(given.clone()).map_err(|error| anyhow!("{error}"))?;
    if entity.body.is_none() {
        bail!("the entity's members are missing: they stand under its kind (restApi, stage, usagePlan, …)");
    }
    let understood = serde_json::to_value(&entity)?;
    if let Some(path) = lost(&given, &understood, String::new()) {
        bail!("`{path}` is not known here; is it misspelt?");
    }
    Ok(ApplyEntity {
        entity: Some(entity),
        key,
        field_mask: None,
        expected_revision,
    })
}

/// The first member of `given` that `understood` does not have. Empty values may vanish: they are defaults.
fn lost(given: &Value, understood: &Value, path: String) -> Option<String> {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => given.iter().find_map(|(name, value)| {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            match understood.get(name) {
                Some(found) => lost(value, found, path),
                None if is_default(value) => None,
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(understood)) => given
            .iter()
            .zip(understood)
            .enumerate()
            .find_map(|(index, (given, understood))| lost(given, understood, format!("{path}[{index}]"))),
        _ => None,
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    }
}

/// The one object beside name and revision.
fn body(entity: &Value) -> &Value {
    entity
        .as_object()
        .and_then(|members| {
            members
                .iter()
                .find(|(name, _)| !matches!(name.as_str(), "name" | "revision"))
        })
        .map_or(&Value::Null, |(_, body)| body)
}

/// What `wanted` would change in `current`, member by member. What `wanted` does not mention stays.
fn compare(label: &str, wanted: &Value, current: Option<&Value>, changes: &mut Vec<Value>) {
    match (wanted, current) {
        (Value::Object(wanted), Some(Value::Object(current))) => {
            for (name, value) in wanted {
                compare(&format!("{label} {name}"), value, current.get(name), changes);
            }
        }
        (wanted, current) => {
            if current != Some(wanted) {
                let mut change = Map::new();
                change.insert("path".to_owned(), Value::from(label));
                change.insert("from".to_owned(), current.cloned().unwrap_or(Value::Null));
                change.insert("to".to_owned(), wanted.clone());
                changes.push(Value::Object(change));
            }
        }
    }
}

fn line(change: &Value) -> String {
    let path = change["path"].as_str().unwrap_or_default();
    match &change["from"] {
        Value::Null => format!("+ {path}: {}", output::cell(&change["to"])),
        from => format!(
            "~ {path}: {} -> {}",
            output::cell(from),
            output::cell(&change["to"])
        ),
    }
}

const MAX_FILE: u64 = 64 << 20;
/// One Apply is one transaction.
const MAX_ENTITIES: usize = 10_000;

#[cfg(test)]
mod tests {
    use tidegate_proto::admin::v1::entity::Body;

    use super::*;

    #[test]
    fn documents_become_entities() {
        let entities = read(
            b"name: restApis/a1/stages/prod\nstage:\n  description: live\n  methodSettings:\n    '*/*': {throttlingRateLimit: 100, throttlingBurstLimit: 50}\n---\nkey: shop\nname: restApis\nrestApi: {name: Shop}\n",
        )
        .expect("readable");
        assert_eq!(entities.len(), 2);
        assert_eq!(entities[1].key, "shop");
        let Some(Body::Stage(stage)) = entities[0].entity.as_ref().and_then(|e| e.body.clone()) else {
            panic!("a stage")
        };
        assert_eq!(stage.method_settings["*/*"].throttling_rate_limit, Some(100.0));
    }

    #[test]
    fn unknown_members_are_refused_by_name() {
        let error = read(b"name: restApis/a1\nrestApi: {nmae: Shop}").expect_err("misspelt");
        assert!(format!("{error:#}").contains("restApi.nmae"), "{error:#}");
    }

    #[test]
    fn broken_yaml_names_the_line() {
        let error = read(b"name: x\n  stage: [\n").expect_err("broken");
        assert!(format!("{error:#}").contains("line"), "{error:#}");
    }

    #[test]
    fn only_differences_are_told() {
        let current = serde_json::json!({"description": "old", "variables": {"a": "1", "b": "2"}});
        let wanted = serde_json::json!({"description": "new", "variables": {"a": "1", "c": "3"}});
        let mut changes = Vec::new();
        compare("s", &wanted, Some(&current), &mut changes);
        let lines: Vec<_> = changes.iter().map(line).collect();
        assert_eq!(lines, ["~ s description: old -> new", "+ s variables c: 3"]);
    }
}
