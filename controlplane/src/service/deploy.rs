//! Freezing a draft into a deployment and pointing a stage to it.

use std::{collections::BTreeMap, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use prost::Message;
use tidegate_proto::{
    admin::v1::Rollout,
    config::v1::{Bundle, BundleKind},
};

use super::{Caller, Service, Stored, freeze, texts, unit, unit::Unit};
use crate::{
    compile,
    model::{CanarySettings, Deployment, Entity, Key, Kind, MethodSnapshot, Refusal, Stage, Timestamp, id},
    store::{self, Secret},
};

/// The method that stands for all that a resource does not name.
const ANY: &str = "ANY";

/// What to deploy, and where to.
#[derive(Clone, Debug, Default)]
pub struct Deploy {
    /// The API.
    pub api: String,
    /// The stage that serves it from now on; `None`: no stage does (DEP-042).
    pub stage: Option<String>,
    /// The description of a stage that is made.
    pub stage_description: Option<String>,
    /// The description of the deployment.
    pub description: Option<String>,
    /// Stage variables to set; others stay as they are.
    pub variables: BTreeMap<String, String>,
    /// Serve it to a share of the stage's requests only (DEP-113).
    pub canary: Option<CanarySettings>,
    /// Whether the stage is traced; `None`: as it is.
    pub tracing_enabled: Option<bool>,
    /// How long to wait for the nodes; `None`: the installation's setting.
    pub wait: Option<Duration>,
}

/// What a deploy did.
#[derive(Clone, Debug)]
pub struct Deployed {
    /// The deployment.
    pub deployment: Stored,
    /// Where the stage answers; empty without a stage.
    pub invoke_url: String,
    /// What will not work, by name.
    pub warnings: Vec<String>,
    /// How far it has come; none where no stage serves it.
    pub rollout: Option<Rollout>,
}

impl Service {
    /// Deploys an API (DEP-040 to DEP-046). Every error leaves deployment and stage as they were.
    pub async fn deploy(&self, caller: &Caller, deploy: Deploy) -> Result<Deployed, Refusal> {
        caller.may_write(Kind::Deployment)?;
        let (wait, api, stage) = (deploy.wait, deploy.api.clone(), deploy.stage.clone());
        let (who, options) = (caller.clone(), self.options().clone());
        let ((deployment, warnings, live), revision) = store::transact(self.store().as_ref(), move |tx| {
            Box::pin(async move {
                let mut unit = Unit::new(tx, who, options);
                let (deployment, warnings) = unit.deploy(deploy).await?;
                unit.audit("CreateDeployment", &deployment.key.to_string())
                    .await?;
                Ok((deployment, warnings, unit.is_live()))
            })
        })
        .await?;
        let rollout = self.rollout(revision, live, wait).await?;
        let invoke_url = match stage {
            Some(stage) => self.invoke_url(&api, &stage).await?,
            None => String::new(),
        };
        Ok(Deployed {
            deployment,
            invoke_url,
            warnings,
            rollout,
        })
    }

    /// One resource of an API's draft as a stage's bundle, for a test of one of its methods (DEP-020, OBV-186). The rest of
    /// the draft is left out, so that the path of a test cannot lead anywhere else (OBV-178).
    pub async fn test_bundle(
        &self,
        caller: &Caller,
        api: &str,
        resource: &str,
        verb: &str,
        variables: &BTreeMap<String, String>,
    ) -> Result<Bundle, Refusal> {
        caller.may_write(Kind::Method)?;
        let mut view = self.store().read().await?;
        let view = view.as_mut();
        // OBV-185: the resource is looked for before the method.
        texts::check_parent(view, caller, &Key::within(Kind::ApiResource, api, resource)).await?;
        if view
            .get(&Key::within(Kind::ApiResource, api, resource))
            .await?
            .is_none()
        {
            return Err(Refusal::unknown_resource());
        }
        if verb == ANY {
            return Err(Refusal::bad_request(
                "Name the method to send to a resource whose method is ANY: GET, for example",
            ));
        }
        let own = view.get(&Key::method(api, resource, verb)).await?;
        // SCN-040: what ANY stands for can be tested.
        if own.is_none() && view.get(&Key::method(api, resource, ANY)).await?.is_none() {
            return Err(Refusal::unknown_method());
        }
        let row = view
            .get(&Key::top(Kind::RestApi, api))
            .await?
            .ok_or_else(Refusal::unknown_resource)?;
        let mut definition = freeze::definition(view, api).await?;
        definition.resources.retain(|id, _| id == resource);
        let stage = Stage {
            stage_name: Some("test-invoke-stage".into()),
            variables: Some(variables.clone()),
            ..Stage::default()
        };
        let source = compile::StageSource {
            api,
            account: &row.account,
            region: &row.region,
            stage: &stage,
            primary: ("test-invoke", &definition),
            canary: None,
            bindings: &[],
        };
        let content = compile::stage(&source)?.output.encode_to_vec();
        Ok(Bundle {
            id: format!("{api}/test-invoke-stage"),
            kind: BundleKind::Stage.into(),
            format: compile::FORMAT,
            sha256: digest(&SHA256, &content).as_ref().to_vec(),
            content: content.into(),
            ..Bundle::default()
        })
    }

    /// Where a stage answers. On a loopback listener the form by path, which needs no name to be resolved; empty where
    /// no node says where it listens.
    pub async fn invoke_url(&self, api: &str, stage: &str) -> Result<String, Refusal> {
        let (http, https) = self.fleet().addresses();
        let (scheme, address) = if http.is_empty() {
            ("https", https)
        } else {
            ("http", http)
        };
        if address.is_empty() {
            return Ok(String::new());
        }
        let mut view = self.store().read().await?;
        let (_, settings) = compile::settings(view.as_mut()).await?;
        let socket = address.parse::<std::net::SocketAddr>();
        let by_path = settings.invoke_by_path_everywhere
            || socket
                .as_ref()
                .is_ok_and(|a| a.ip().is_loopback() || a.ip().is_unspecified());
        if by_path {
            let address = match socket {
                Ok(a) if a.ip().is_unspecified() => format!("127.0.0.1:{}", a.port()),
                _ => address,
            };
            return Ok(format!(
                "{scheme}://{address}/restapis/{api}/{stage}/_user_request_/"
            ));
        }
        let suffix = settings
            .domain_suffixes
            .first()
            .map_or("localhost", String::as_str);
        let port = socket.map_or(String::new(), |a| format!(":{}", a.port()));
        Ok(format!("{scheme}://{api}.execute-api.{suffix}{port}/{stage}/"))
    }
}

impl Unit<'_> {
    async fn deploy(&mut self, deploy: Deploy) -> Result<(Stored, Vec<String>), Refusal> {
        let api = deploy.api.clone();
        texts::check_parent(
            self.tx.as_read(),
            &self.caller,
            &Key::within(Kind::Deployment, api.clone(), ""),
        )
        .await?;
        self.tx.lock(&Key::top(Kind::RestApi, api.clone())).await?;
        let definition = freeze::definition(self.tx.as_read(), &api).await?;
        let mut warnings = compile::check(&definition)?;
        let (name, packed) = definition.pack()?;
        self.tx.put_definition(&name, definition.version, &packed).await?;

        let id = self.free_id(id::SHORT).await?;
        let mut summary: BTreeMap<String, BTreeMap<String, MethodSnapshot>> = BTreeMap::new();
        for defined in definition
            .resources
            .values()
            .filter(|defined| !defined.methods.is_empty())
        {
            let path = defined.resource.path.clone().unwrap_or_default();
            let methods = defined.methods.iter().map(|(verb, method)| {
                let snapshot = MethodSnapshot {
                    authorization_type: method.authorization_type.clone(),
                    api_key_required: method.api_key_required,
                };
                (verb.clone(), snapshot)
            });
            summary.insert(path, methods.collect());
        }
        let deployment = Deployment {
            id: Some(id.clone()),
            description: deploy.description.clone().filter(|text| !text.is_empty()),
            created_date: Some(Timestamp::now()),
            api_summary: Some(summary),
            definition: Some(name),
            warnings: Some(warnings.clone()),
        };
        let key = Key::within(Kind::Deployment, api.clone(), id.clone());
        let stored = self
            .put(key, &Entity::Deployment(deployment), Secret::Clear, false)
            .await?;

        match deploy.stage.clone().filter(|name| !name.is_empty()) {
            Some(stage) => {
                self.point(&api, &stage, &id, deploy).await?;
                // Only now is it known what the stage's variables make of it.
                if let Some(loaded) = compile::load_stage(self.tx.as_read(), &api, &stage).await? {
                    for warning in loaded.compile()?.warnings {
                        if !warnings.contains(&warning) {
                            warnings.push(warning);
                        }
                    }
                }
            }
            None if deploy.canary.is_some() => {
                return Err(Refusal::bad_request("Canary settings need a stage name"));
            }
            None => {}
        }
        Ok((stored, warnings))
    }

    /// Points a stage to a deployment, and makes it if need be.
    async fn point(
        &mut self,
        api: &str,
        name: &str,
        deployment: &str,
        deploy: Deploy,
    ) -> Result<(), Refusal> {
        let key = Key::within(Kind::Stage, api, name);
        let existing: Option<Stage> = self.tx.get(&key).await?.map(unit::read_body).transpose()?;
        let now = Timestamp::now();
        let mut stage = match (existing, &deploy.canary) {
            (Some(mut stage), Some(canary)) => {
                // DEP-111, DEP-113, DEP-116: only the canary's deployment changes; what is not given stays.
                let settings = stage.canary_settings.get_or_insert_default();
                settings.deployment_id = Some(deployment.into());
                settings.percent_traffic = canary.percent_traffic.or(settings.percent_traffic);
                settings.use_stage_cache = canary.use_stage_cache.or(settings.use_stage_cache);
                if let Some(overrides) = &canary.stage_variable_overrides {
                    settings.stage_variable_overrides = Some(overrides.clone());
                }
                stage
            }
            (Some(mut stage), None) => {
                if stage.canary_settings.is_some() {
                    return Err(Refusal::bad_request(format!(
                        "Stage {name} has a canary: deploy with canary settings, or remove those of the stage first"
                    )));
                }
                stage.deployment_id = Some(deployment.into());
                stage
            }
            (None, Some(_)) => {
                return Err(Refusal::bad_request(
                    // DEP-114.
                    format!("Stage {name} does not exist: a canary needs a stage that is served already"),
                ));
            }
            (None, None) => Stage {
                stage_name: Some(name.into()),
                deployment_id: Some(deployment.into()),
                description: deploy.stage_description.clone().filter(|text| !text.is_empty()),
                created_date: Some(now),
                ..Stage::default()
            },
        };
        if !deploy.variables.is_empty() {
            stage.variables.get_or_insert_default().extend(deploy.variables);
        }
        stage.tracing_enabled = deploy.tracing_enabled.or(stage.tracing_enabled);
        stage.last_updated_date = Some(now);
        stage.fill_defaults();
        stage.check()?;
        self.put(key, &Entity::Stage(stage), Secret::Keep, false).await?;
        Ok(())
    }
}
