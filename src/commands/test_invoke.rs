//! `test-invoke`.

use anyhow::{Context, bail};
use tidegate_proto::{
    admin::v1::{ListRequest, ProbeRequest, entity::Body},
    config::v1::Header,
};

use crate::{
    cli::{GlobalArgs, OutputFormat, TestInvokeArgs},
    client::Client,
    output,
};

/// Largest body that is sent: the service's bound of a payload.
const MAX_BODY: u64 = 10 << 20;
/// Resources read at a time.
const PAGE: u32 = 500;

/// `tidegate test-invoke`.
pub(crate) async fn test_invoke(global: &GlobalArgs, args: &TestInvokeArgs) -> anyhow::Result<()> {
    let body = match &args.data {
        None => Vec::new(),
        Some(data) => match data.strip_prefix('@') {
            Some(file) => super::read_input(file.as_ref(), MAX_BODY)?,
            None => data.clone().into_bytes(),
        },
    };
    let mut client = Client::connect(global).await?;
    let resource_id = match args.resource.starts_with('/') {
        true => resource_at(&mut client, &args.api, &args.resource).await?,
        false => args.resource.clone(),
    };
    let headers = args.headers.iter().map(|(name, value)| Header {
        name: name.clone(),
        value: value.clone(),
    });
    let request = ProbeRequest {
        api_id: args.api.clone(),
        resource_id,
        http_method: args.method.clone(),
        path_with_query_string: args.path.clone(),
        headers: headers.collect(),
        body,
        stage_variables: args.variables.iter().cloned().collect(),
        node_id: args.node.clone(),
    };
    let response = client
        .api
        .probe(request)
        .await
        .map_err(|status| client.explain(status))?
        .into_inner();
    match global.output {
        OutputFormat::Json => {
            let headers = response.headers.iter();
            output::json(&serde_json::json!({
                "status": response.status,
                "headers": headers.map(|one| (one.name.clone(), one.value.clone())).collect::<Vec<_>>(),
                "body": String::from_utf8_lossy(&response.body),
                "bodyBytes": response.body_bytes,
                "log": response.log,
                "latencyMs": response.latency_ms,
            }))
        }
        OutputFormat::Table => {
            println!("HTTP {} in {} ms", response.status, response.latency_ms);
            for header in &response.headers {
                println!("{}: {}", header.name, header.value);
            }
            println!("\n{}", String::from_utf8_lossy(&response.body));
            eprint!("\n{}", response.log);
            Ok(())
        }
    }
}

/// The id of the resource at a path.
async fn resource_at(client: &mut Client, api: &str, path: &str) -> anyhow::Result<String> {
    let mut request = ListRequest {
        parent: format!("restApis/{api}/resources"),
        page_size: PAGE,
        page_token: String::new(),
    };
    loop {
        let page = client
            .api
            .list(request.clone())
            .await
            .map_err(|status| client.explain(status))?
            .into_inner();
        for entity in page.entities {
            if let Some(Body::Resource(resource)) = entity.body
                && resource.path.as_deref() == Some(path)
            {
                return resource.id.context("a resource without an id");
            }
        }
        if page.next_page_token.is_empty() {
            bail!(
                "API {api} has no resource {path}; `tidegate list restApis/{api}/resources` shows those it has"
            );
        }
        request.page_token = page.next_page_token;
    }
}
