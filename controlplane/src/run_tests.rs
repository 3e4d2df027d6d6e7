//! A whole control plane, through its Admin API.

use std::os::unix::fs::PermissionsExt;

use tidegate_proto::admin::v1::{self as admin, admin_service_client::AdminServiceClient, entity::Body};
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tonic::{
    Code, Request, Status, metadata::MetadataValue, service::interceptor::InterceptedService,
    transport::Channel,
};

use super::*;

const DOCUMENT: &str = r#"{
    "openapi": "3.0.1", "info": {"title": "pets", "version": "1"},
    "paths": {"/pets/{petId}": {"get": {
        "parameters": [{"name": "petId", "in": "path", "required": true, "schema": {"type": "string"}}],
        "responses": {"200": {"description": "ok"}},
        "x-amazon-apigateway-integration": {
            "type": "http_proxy", "httpMethod": "GET", "uri": "http://127.0.0.1:9/pets/{petId}",
            "requestParameters": {"integration.request.path.petId": "method.request.path.petId"}
        }
    }}}
}"#;

type Client = AdminServiceClient<InterceptedService<Channel, Bearer>>;

#[derive(Clone)]
struct Bearer(String);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = MetadataValue::try_from(format!("Bearer {}", self.0)).expect("a header value");
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

/// A control plane that runs until it is told to stop.
struct Running {
    admin: String,
    token: String,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), Refusal>>,
}

impl Running {
    async fn start(directory: &Path) -> Self {
        let ready = directory.join("ready.json");
        let options = Options {
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            config: SocketAddr::from(([127, 0, 0, 1], 0)),
            ready_file: Some(ready.clone()),
            ..Options::new(directory.join("data"))
        };
        let (started, serving) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        // The stop is first polled when everything serves.
        let stop_future = async move {
            let _listening = started.send(());
            let _told = stopped.await;
        };
        let task = tokio::spawn(run_until(options, stop_future));
        serving.await.expect("serves");
        let told: serde_json::Value =
            serde_json::from_slice(&fs::read(&ready).expect("a ready file")).expect("JSON");
        let token_file = told["adminTokenFile"].as_str().expect("a token file");
        assert_eq!(
            fs::metadata(token_file).expect("metadata").permissions().mode() & 0o777,
            0o600
        );
        Self {
            admin: told["admin"].as_str().expect("an address").to_owned(),
            token: fs::read_to_string(token_file).expect("a token").trim().to_owned(),
            stop,
            task,
        }
    }

    async fn client(&self, token: &str) -> Client {
        let channel = Channel::from_shared(format!("http://{}", self.admin))
            .expect("a URL")
            .connect()
            .await
            .expect("connects");
        AdminServiceClient::with_interceptor(channel, Bearer(token.into()))
    }

    async fn stop(self) {
        let _listening = self.stop.send(());
        self.task.await.expect("joined").expect("a clean end");
    }
}

async fn import(client: &mut Client, document: &str) -> Result<admin::ImportResponse, Status> {
    let options = admin::ImportOptions {
        file_name: "pets.json".into(),
        ..Default::default()
    };
    let mut parts: Vec<admin::ImportRequest> = document
        .as_bytes()
        .chunks(100)
        .map(|part| admin::ImportRequest {
            options: None,
            document: part.to_vec(),
        })
        .collect();
    parts[0].options = Some(options);
    Ok(client.import(tokio_stream::iter(parts)).await?.into_inner())
}

/// C2, C6, C10: import, deploy, watch, back up, restart: what was acknowledged is there, the token goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_the_admin_api() {
    let directory = tempfile::tempdir().expect("directory");
    let running = Running::start(directory.path()).await;
    let refused = running
        .client("wrong")
        .await
        .nodes(admin::NodesRequest {})
        .await
        .expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);

    let mut client = running.client(&running.token).await;
    let imported = import(&mut client, DOCUMENT).await.expect("imported");
    let api = imported.rest_api.and_then(|api| api.id).expect("an id");
    let deploy = admin::DeployRequest {
        api_id: api.clone(),
        stage_name: "prod".into(),
        ..Default::default()
    };
    let deployed = client.deploy(deploy).await.expect("deployed").into_inner();
    assert_eq!(deployed.warnings, Vec::<String>::new());
    assert!(deployed.rollout.expect("a roll-out").complete, "no node lags");

    let missing = client
        .get(admin::GetRequest {
            name: "restApis/nosuch".into(),
        })
        .await
        .expect_err("refused");
    assert_eq!(
        missing.message(),
        "Invalid API identifier specified 000000000000:nosuch"
    );
    assert_eq!(missing.code(), Code::NotFound);
    assert_eq!(
        missing
            .metadata()
            .get("tidegate-error-code")
            .and_then(|code| code.to_str().ok()),
        Some("NotFoundException")
    );
    let broken = import(&mut client, "{\"openapi\": \"3.0.1\", ")
        .await
        .expect_err("refused");
    assert!(
        broken.message().starts_with("pets.json: "),
        "{}",
        broken.message()
    );

    // A watcher hears what was and what comes, in order.
    let prefix = format!("restApis/{api}/stages");
    let watch = admin::WatchRequest {
        from_revision: 0,
        prefix,
    };
    let mut changes = client.clone().watch(watch).await.expect("watches").into_inner();
    let first = changes.next().await.expect("a change").expect("no error");
    assert_eq!(
        (first.name.as_str(), first.action()),
        (
            format!("restApis/{api}/stages/prod").as_str(),
            admin::change::Action::Put
        )
    );
    let delete = admin::DeleteRequest {
        name: first.name.clone(),
        ..Default::default()
    };
    client.delete(delete).await.expect("deleted");
    let second = changes.next().await.expect("a change").expect("no error");
    assert_eq!(
        (second.action(), second.revision > first.revision),
        (admin::change::Action::Delete, true)
    );
    drop(changes);

    let mut backup = client
        .backup(admin::BackupRequest {})
        .await
        .expect("backs up")
        .into_inner();
    let mut copy = Vec::new();
    while let Some(chunk) = backup.next().await {
        copy.extend_from_slice(&chunk.expect("no error").data);
    }
    assert!(copy.starts_with(b"SQLite format 3\0"));
    assert!(
        !copy
            .windows(running.token.len())
            .any(|window| window == running.token.as_bytes())
    );

    let token = running.token.clone();
    running.stop().await;
    let again = Running::start(directory.path()).await;
    assert_eq!(again.token, token);
    let mut client = again.client(&token).await;
    let stored = client
        .get(admin::GetRequest {
            name: format!("restApis/{api}"),
        })
        .await
        .expect("there")
        .into_inner();
    assert!(matches!(stored.body, Some(Body::RestApi(api)) if api.name.as_deref() == Some("pets")));
    again.stop().await;
}
