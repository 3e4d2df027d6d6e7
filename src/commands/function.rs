//! `function`: bindings of the kind `function`, by the function's name; and what all commands do with bindings.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use tidegate_proto::admin::v1::{
    ApplyEntity, ApplyRequest, Binding, DeleteRequest, Entity, ListRequest, entity::Body,
};

use super::import::warn_incomplete;
use crate::{
    cli::{FunctionDeleteArgs, FunctionPutArgs, GlobalArgs, OutputFormat},
    client::Client,
    output,
};

/// Bindings read at a time.
const PAGE: u32 = 500;
const FUNCTION: &str = "function";

/// `tidegate function put`.
pub(crate) async fn put(global: &GlobalArgs, args: &FunctionPutArgs) -> anyhow::Result<()> {
    let mut options = BTreeMap::new();
    let mut option = |name: &str, value: String| options.insert(name.to_owned(), value);
    let target = match (&args.url, &args.invoke) {
        (Some(url), _) => {
            option("as", "url".to_owned());
            url.clone()
        }
        (_, Some(url)) => url.clone(),
        _ => match args.listen {
            Some(address) => format!("runtime://{address}"),
            None => "runtime".to_owned(),
        },
    };
    if let Some(name) = &args.credentials {
        option("credentials", name.clone());
    }
    if !args.allow.is_empty() {
        option("allow", args.allow.join(","));
    }
    if let Some(timeout) = args.timeout_ms {
        option("timeout-ms", timeout.to_string());
    }
    if args.separate_connections {
        option("separate-connections", "true".to_owned());
    }
    let mut client = Client::connect(global).await?;
    let bound = bind(&mut client, FUNCTION, &args.name, &target, options).await?;
    match global.output {
        OutputFormat::Json => output::json(&bound),
        OutputFormat::Table => {
            let binding = binding_of(&bound);
            println!(
                "{}: {} -> {}",
                bound.name,
                binding
                    .and_then(|binding| binding.pattern.as_deref())
                    .unwrap_or(&args.name),
                binding
                    .and_then(|binding| binding.target.as_deref())
                    .unwrap_or(&target),
            );
            Ok(())
        }
    }
}

/// `tidegate function list`.
pub(crate) async fn list(global: &GlobalArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(global).await?;
    let functions = bindings(&mut client, FUNCTION).await?;
    output::print(global.output, &functions, || {
        let mut table = output::table(["FUNCTION", "INVOKED AT", "OPTIONS", "BINDING"]);
        for entity in &functions {
            let Some(binding) = binding_of(entity) else {
                continue;
            };
            let options: Vec<String> = binding
                .options
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            table.add_row([
                binding.pattern.clone().unwrap_or_default(),
                binding.target.clone().unwrap_or_default(),
                options.join(" "),
                entity.name.clone(),
            ]);
        }
        table
    })
}

/// `tidegate function delete`.
pub(crate) async fn delete(global: &GlobalArgs, args: &FunctionDeleteArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(global).await?;
    let found = find(&mut client, FUNCTION, &args.name).await?;
    let Some(found) = found else {
        bail!(
            "there is no function {}; `tidegate function list` shows those that there are",
            args.name
        );
    };
    let request = DeleteRequest {
        name: found.name.clone(),
        ..DeleteRequest::default()
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
            println!("deleted {}", found.name);
            Ok(())
        }
    }
}

/// The address at which workers of a function ask for invocations.
pub(crate) async fn runtime_api(client: &mut Client, name: &str) -> anyhow::Result<String> {
    let Some(found) = find(client, FUNCTION, name).await? else {
        bail!(
            "there is no function {name}; `tidegate function put {name} --runtime` makes it one with workers"
        );
    };
    let target = binding_of(&found).and_then(|binding| binding.target.as_deref());
    let target = target.unwrap_or_default();
    match target.strip_prefix("runtime://") {
        Some(address) => Ok(address.to_owned()),
        None => bail!(
            "the function {name} is invoked at {target}, not by workers; `tidegate function put {name} --runtime` \
             changes that"
        ),
    }
}

/// Binds a name; one that is bound already leads to this target, with these options, from now on.
pub(crate) async fn bind(
    client: &mut Client,
    kind: &str,
    pattern: &str,
    target: &str,
    options: BTreeMap<String, String>,
) -> anyhow::Result<Entity> {
    let known = find(client, kind, pattern).await?;
    let binding = Binding {
        id: None,
        kind: Some(kind.to_owned()),
        pattern: match &known {
            // As the server has it: a function's name has become its ARN.
            Some(known) => binding_of(known).and_then(|binding| binding.pattern.clone()),
            None => Some(pattern.to_owned()),
        },
        target: Some(target.to_owned()),
        options,
    };
    let mut apply = ApplyEntity::default();
    if known.is_some() {
        // Options that are not named any more are gone.
        apply.field_mask.get_or_insert_default().paths = vec!["target".to_owned(), "options".to_owned()];
    }
    let entity = Entity {
        name: known.map_or_else(|| "bindings".to_owned(), |known| known.name),
        body: Some(Body::Binding(binding)),
        ..Entity::default()
    };
    apply.entity = Some(entity);
    let request = ApplyRequest {
        entities: vec![apply],
        ..ApplyRequest::default()
    };
    let response = client
        .api
        .apply(request)
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    warn_incomplete(response.rollout.as_ref());
    let bound = response.entities.into_iter().next();
    bound.context("the server did not say what it bound")
}

/// The binding of a name, if there is one. A function's name stands for the ARN that ends in it.
async fn find(client: &mut Client, kind: &str, pattern: &str) -> anyhow::Result<Option<Entity>> {
    let all = bindings(client, kind).await?;
    let is = |entity: &&Entity, fits: &dyn Fn(&str) -> bool| {
        binding_of(entity)
            .and_then(|binding| binding.pattern.as_deref())
            .is_some_and(fits)
    };
    let exact = all.iter().find(|entity| is(entity, &|known| known == pattern));
    if exact.is_some() || kind != FUNCTION || pattern.ends_with('*') {
        return Ok(exact.cloned());
    }
    let ending = format!(":function:{pattern}");
    let named: Vec<_> = all
        .iter()
        .filter(|entity| is(entity, &|known| known.ends_with(&ending)))
        .collect();
    match named.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        _ => bail!("several regions or accounts have a function {pattern}: give its ARN"),
    }
}

/// All bindings of a kind.
async fn bindings(client: &mut Client, kind: &str) -> anyhow::Result<Vec<Entity>> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListRequest {
            parent: "bindings".to_owned(),
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
        all.extend(page.entities.into_iter().filter(|entity| {
            binding_of(entity).is_some_and(|binding| binding.kind.as_deref() == Some(kind))
        }));
        page_token = page.next_page_token;
        if last {
            return Ok(all);
        }
    }
}

fn binding_of(entity: &Entity) -> Option<&Binding> {
    match &entity.body {
        Some(Body::Binding(binding)) => Some(binding),
        _ => None,
    }
}
