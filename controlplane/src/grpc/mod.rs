//! The Admin API's face: translates between the contract and the use cases, and nothing more.

mod accept;
mod convert;
mod gate;
mod listen;
mod streams;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tidegate_proto::{
    admin::v1::{self as admin, admin_service_server::AdminService},
    config::v1::{Probe, ProbeResult, probe::Mode},
};
use tonic::{Code as GrpcCode, Request, Response, Status, metadata::MetadataMap};

use crate::{
    model::{CanarySettings, Code, Collection, Key, Principal, Refusal, id},
    service::{Apply, Caller, Deploy, Service},
};

pub use listen::{AdminListener, AdminOptions};

/// How long a join token is good for unless the call says otherwise.
const JOIN_TOKEN: Duration = Duration::from_secs(3_600);

/// The Admin API.
pub struct AdminFace {
    service: Service,
    options: FaceOptions,
}

/// What the face needs to know of where it runs.
#[derive(Clone, Debug)]
pub struct FaceOptions {
    /// Where copies for backups are made.
    pub scratch: PathBuf,
    /// The largest document that an import takes, in bytes.
    pub import_bytes: usize,
    /// Connections at a time.
    pub connections: usize,
}

impl AdminFace {
    /// The Admin API over the use cases.
    pub fn new(service: Service, options: FaceOptions) -> Self {
        Self { service, options }
    }

    /// Who calls (C6): the principal that the gate has found.
    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let principal = request
            .extensions()
            .get::<Principal>()
            .cloned()
            .ok_or_else(|| Status::unauthenticated("a token is needed"))?;
        Ok(Caller {
            principal: principal.id.unwrap_or_default(),
            account: principal.account_id.unwrap_or_default(),
            region: None,
            admin: principal.admin.unwrap_or(false),
            source: request
                .remote_addr()
                .map(|address: SocketAddr| address.to_string())
                .unwrap_or_default(),
            face: "grpc",
            request_id: id::random(16).map_err(status)?,
        })
    }
}

#[tonic::async_trait]
impl AdminService for AdminFace {
    async fn apply(
        &self,
        request: Request<admin::ApplyRequest>,
    ) -> Result<Response<admin::ApplyResponse>, Status> {
        let caller = self.caller(&request).await?;
        let request = request.into_inner();
        let apply = Apply {
            entities: request
                .entities
                .into_iter()
                .map(convert::to_apply)
                .collect::<Result<_, _>>()?,
            prune: Some(request.prune).filter(|name| !name.is_empty()),
            dry_run: request.dry_run,
            wait: millis(request.wait_ms),
        };
        let applied = self.service.apply(&caller, apply).await.map_err(status)?;
        Ok(Response::new(admin::ApplyResponse {
            entities: applied
                .entities
                .iter()
                .map(convert::to_message)
                .collect::<Result<_, _>>()?,
            pruned: applied.pruned,
            rollout: applied.rollout,
        }))
    }

    async fn get(&self, request: Request<admin::GetRequest>) -> Result<Response<admin::Entity>, Status> {
        let caller = self.caller(&request).await?;
        let key = Key::parse(&request.get_ref().name).map_err(status)?;
        let stored = self.service.get(&caller, &key).await.map_err(status)?;
        convert::to_message(&stored).map(Response::new)
    }

    async fn list(
        &self,
        request: Request<admin::ListRequest>,
    ) -> Result<Response<admin::ListResponse>, Status> {
        let caller = self.caller(&request).await?;
        let request = request.into_inner();
        let collection = Collection::parse(&request.parent).map_err(status)?;
        let page = self
            .service
            .list(&caller, &collection, request.page_size, &request.page_token)
            .await
            .map_err(status)?;
        Ok(Response::new(admin::ListResponse {
            entities: page
                .entities
                .iter()
                .map(convert::to_message)
                .collect::<Result<_, _>>()?,
            next_page_token: page.next.unwrap_or_default(),
        }))
    }

    async fn delete(
        &self,
        request: Request<admin::DeleteRequest>,
    ) -> Result<Response<admin::DeleteResponse>, Status> {
        let caller = self.caller(&request).await?;
        let request = request.into_inner();
        let key = Key::parse(&request.name).map_err(status)?;
        let rollout = self
            .service
            .delete(&caller, key, request.expected_revision, millis(request.wait_ms))
            .await
            .map_err(status)?;
        Ok(Response::new(admin::DeleteResponse { rollout }))
    }

    type WatchStream = streams::WatchStream;

    async fn watch(
        &self,
        request: Request<admin::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.caller(&request).await?;
        Ok(Response::new(streams::watch(
            self.service.clone(),
            caller,
            request.into_inner(),
        )))
    }

    async fn import(
        &self,
        request: Request<tonic::Streaming<admin::ImportRequest>>,
    ) -> Result<Response<admin::ImportResponse>, Status> {
        let caller = self.caller(&request).await?;
        streams::import(
            &self.service,
            &caller,
            self.options.import_bytes,
            request.into_inner(),
        )
        .await
        .map(Response::new)
    }

    async fn deploy(
        &self,
        request: Request<admin::DeployRequest>,
    ) -> Result<Response<admin::DeployResponse>, Status> {
        let caller = self.caller(&request).await?;
        let request = request.into_inner();
        let deploy = Deploy {
            api: request.api_id,
            stage: text(request.stage_name),
            stage_description: text(request.stage_description),
            description: text(request.description),
            variables: request.variables,
            canary: request.canary_settings.map(|canary| CanarySettings {
                percent_traffic: canary.percent_traffic,
                deployment_id: None,
                stage_variable_overrides: Some(canary.stage_variable_overrides).filter(|map| !map.is_empty()),
                use_stage_cache: canary.use_stage_cache,
            }),
            tracing_enabled: request.tracing_enabled,
            wait: millis(request.wait_ms),
        };
        let deployed = self.service.deploy(&caller, deploy).await.map_err(status)?;
        let deployment = match convert::to_message(&deployed.deployment)?.body {
            Some(admin::entity::Body::Deployment(deployment)) => Some(deployment),
            _ => None,
        };
        Ok(Response::new(admin::DeployResponse {
            deployment,
            invoke_url: deployed.invoke_url,
            warnings: deployed.warnings,
            rollout: deployed.rollout,
        }))
    }

    async fn nodes(
        &self,
        request: Request<admin::NodesRequest>,
    ) -> Result<Response<admin::NodesResponse>, Status> {
        self.caller(&request)
            .await?
            .may_manage("list nodes")
            .map_err(status)?;
        let nodes = self.service.fleet().nodes().await.map_err(status)?;
        let revision = *self.service.store().revisions().borrow();
        Ok(Response::new(admin::NodesResponse { nodes, revision }))
    }

    async fn create_join_token(
        &self,
        request: Request<admin::CreateJoinTokenRequest>,
    ) -> Result<Response<admin::CreateJoinTokenResponse>, Status> {
        self.caller(&request)
            .await?
            .may_manage("let nodes join")
            .map_err(status)?;
        let request = request.into_inner();
        let valid = match request.valid_seconds {
            0 => JOIN_TOKEN,
            seconds => Duration::from_secs(seconds.into()),
        };
        let (join_file, expires) = self
            .service
            .fleet()
            .create_join_token(&request.node_name, valid)
            .await
            .map_err(status)?;
        let expires = pbjson_types::Timestamp {
            seconds: expires.unix(),
            nanos: 0,
        };
        Ok(Response::new(admin::CreateJoinTokenResponse {
            join_file,
            expires: Some(expires),
        }))
    }

    async fn remove_node(
        &self,
        request: Request<admin::RemoveNodeRequest>,
    ) -> Result<Response<admin::RemoveNodeResponse>, Status> {
        self.caller(&request)
            .await?
            .may_manage("remove nodes")
            .map_err(status)?;
        self.service
            .fleet()
            .remove_node(&request.get_ref().id)
            .await
            .map_err(status)?;
        Ok(Response::new(admin::RemoveNodeResponse {}))
    }

    async fn explain(
        &self,
        request: Request<admin::ExplainRequest>,
    ) -> Result<Response<admin::ExplainResponse>, Status> {
        self.caller(&request)
            .await?
            .may_manage("explain requests")
            .map_err(status)?;
        let request = request.into_inner();
        let probe = Probe {
            mode: Mode::Explain.into(),
            method: request.method,
            url: request.url,
            headers: request.headers,
            ..Probe::default()
        };
        let result = self.ask(request.node_id, probe).await?;
        Ok(Response::new(admin::ExplainResponse {
            steps: result.steps,
            status: result.status,
        }))
    }

    async fn probe(
        &self,
        request: Request<admin::ProbeRequest>,
    ) -> Result<Response<admin::ProbeResponse>, Status> {
        let caller = self.caller(&request).await?;
        let request = request.into_inner();
        let verb = request.http_method.to_ascii_uppercase();
        let bundle = self
            .service
            .test_bundle(
                &caller,
                &request.api_id,
                &request.resource_id,
                &verb,
                &request.stage_variables,
            )
            .await
            .map_err(status)?;
        let probe = Probe {
            mode: Mode::TestInvoke.into(),
            ephemeral: Some(bundle),
            method: verb,
            url: request.path_with_query_string,
            headers: request.headers,
            body: request.body,
            stage_variables: request.stage_variables,
            resource_id: request.resource_id,
            ..Probe::default()
        };
        let result = self.ask(request.node_id, probe).await?;
        Ok(Response::new(admin::ProbeResponse {
            status: result.status,
            headers: result.headers,
            body: result.body,
            log: result.log,
            latency_ms: result.latency_ms,
            body_bytes: result.body_bytes,
        }))
    }

    async fn wait_revision(
        &self,
        request: Request<admin::WaitRevisionRequest>,
    ) -> Result<Response<admin::Rollout>, Status> {
        self.caller(&request).await?;
        let request = request.into_inner();
        let revision = match request.revision {
            0 => *self.service.store().revisions().borrow(),
            revision => revision,
        };
        let limit = Duration::from_millis(request.wait_ms.into());
        Ok(Response::new(self.service.fleet().wait(revision, limit).await))
    }

    async fn installation(
        &self,
        request: Request<admin::InstallationRequest>,
    ) -> Result<Response<admin::InstallationResponse>, Status> {
        self.caller(&request).await?;
        let settings = self.service.settings().await.map_err(status)?;
        let (http_address, https_address) = self.service.fleet().addresses();
        let url = |scheme: &str, address: String| {
            if address.is_empty() {
                address
            } else {
                format!("{scheme}://{address}")
            }
        };
        Ok(Response::new(admin::InstallationResponse {
            id: self.service.store().installation().into(),
            revision: *self.service.store().revisions().borrow(),
            account_id: self.service.options().account.clone(),
            region: self.service.options().region.clone(),
            authority_pem: self.service.fleet().authority_pem(),
            version: env!("CARGO_PKG_VERSION").into(),
            http_address: url("http", http_address),
            https_address: url("https", https_address),
            domain_suffix: settings.domain_suffixes.into_iter().next().unwrap_or_default(),
        }))
    }

    async fn create_principal(
        &self,
        request: Request<admin::CreatePrincipalRequest>,
    ) -> Result<Response<admin::CreatePrincipalResponse>, Status> {
        let caller = self.caller(&request).await?;
        let request = request.into_inner();
        let (stored, token) = self
            .service
            .create_principal(&caller, &request.name, text(request.account_id), request.admin)
            .await
            .map_err(status)?;
        let principal = match convert::to_message(&stored)?.body {
            Some(admin::entity::Body::Principal(principal)) => Some(principal),
            _ => None,
        };
        Ok(Response::new(admin::CreatePrincipalResponse { principal, token }))
    }

    type BackupStream = streams::BackupStream;

    async fn backup(
        &self,
        request: Request<admin::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        self.caller(&request)
            .await?
            .may_manage("make backups")
            .map_err(status)?;
        streams::backup(&self.service, &self.options.scratch)
            .await
            .map(Response::new)
    }
}

impl AdminFace {
    /// Has a node, or any where none is named, run a command (C3).
    async fn ask(&self, node: String, probe: Probe) -> Result<ProbeResult, Status> {
        let node = text(node);
        self.service
            .fleet()
            .probe(node.as_deref(), probe)
            .await
            .map_err(status)
    }
}

/// A refusal as gRPC has it: the service's text, and its code under `tidegate-error-code`.
pub(crate) fn status(refusal: Refusal) -> Status {
    let code = match refusal.code {
        Code::BadRequest | Code::Validation => GrpcCode::InvalidArgument,
        Code::Unauthorized => GrpcCode::Unauthenticated,
        Code::AccessDenied => GrpcCode::PermissionDenied,
        Code::NotFound => GrpcCode::NotFound,
        Code::Conflict => GrpcCode::Aborted,
        Code::LimitExceeded | Code::TooManyRequests => GrpcCode::ResourceExhausted,
        Code::Unavailable => GrpcCode::Unavailable,
        Code::Internal => GrpcCode::Internal,
    };
    let mut metadata = MetadataMap::new();
    if let Ok(value) = refusal.code.name().parse() {
        metadata.insert("tidegate-error-code", value);
    }
    Status::with_metadata(code, refusal.message, metadata)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn millis(wait: Option<u32>) -> Option<Duration> {
    wait.map(|wait| Duration::from_millis(wait.into()))
}

fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
