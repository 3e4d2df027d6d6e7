//! Which bundles there are, which have changed, and what is in each.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use prost::Message;
use tidegate_proto::config::v1::{BindingBundle, BundleKind, CertificateBundle, StageBundle};

use super::{InstallationSettings, SealedCredentials, StageSource};
use crate::{
    distribute::{BundleKey, Changed, Compiled as Content, Source},
    model::{Binding, Certificate, Definition, Deployment, Key, Kind, Refusal, Stage},
    store::{List, Read, Store},
};

/// The bundle format this program writes.
pub const FORMAT: u32 = 1;

/// Makes bundles of what is in the store.
pub struct Compiler {
    store: Arc<dyn Store>,
}

impl Compiler {
    /// A compiler over a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Source for Compiler {
    async fn changed(&self, since: u64) -> Result<Changed, Refusal> {
        let mut view = self.store.read().await?;
        let (to, oldest) = view.bounds().await?;
        let mut changed = Changed {
            to,
            ..Changed::default()
        };
        if since == 0 || since > to || since < oldest {
            changed.full = true;
            for kind in KINDS {
                let rows = view.list(&List::all(kind)).await?;
                changed
                    .present
                    .extend(rows.iter().filter_map(|row| bundle_key(&row.key)));
            }
            return Ok(changed);
        }
        for change in view.changed(since, &KINDS).await? {
            let list = if change.deleted {
                &mut changed.gone
            } else {
                &mut changed.present
            };
            list.extend(bundle_key(&change.key));
        }
        Ok(changed)
    }

    async fn compiled(&self, key: &BundleKey, format: u32) -> Result<Option<Content>, Refusal> {
        if format != FORMAT {
            return Err(Refusal::internal(format!(
                "bundles of format {format} are not made"
            )));
        }
        let mut view = self.store.read().await?;
        let view = view.as_mut();
        let (revision, content, node_selector) = match key.kind {
            BundleKind::Stage => {
                let Some((api, stage)) = key.id.split_once('/') else {
                    return Ok(None);
                };
                let Some(loaded) = load_stage(view, api, stage).await? else {
                    return Ok(None);
                };
                let bundle = loaded.compile()?.output;
                (loaded.revision, bundle.encode_to_vec(), bundle.node_selector)
            }
            BundleKind::Certificate => match certificate(view, &key.id).await? {
                Some((revision, bundle)) => (revision, bundle.encode_to_vec(), BTreeMap::new()),
                None => return Ok(None),
            },
            BundleKind::Binding => match binding(view, &key.id).await? {
                Some((revision, (bundle, nodes))) => (revision, bundle.encode_to_vec(), nodes),
                None => return Ok(None),
            },
            BundleKind::Settings => {
                let (revision, settings) = settings(view).await?;
                (revision, settings.compile().encode_to_vec(), BTreeMap::new())
            }
            _ => return Ok(None),
        };
        Ok(Some(Content {
            revision,
            format,
            content: content.into(),
            node_selector,
        }))
    }
}

/// The kinds of rows that bundles are made of, one a row.
const KINDS: [Kind; 4] = [Kind::Stage, Kind::Certificate, Kind::Setting, Kind::Binding];

fn bundle_key(key: &Key) -> Option<BundleKey> {
    let (kind, id) = match key.kind {
        Kind::Stage => (BundleKind::Stage, format!("{}/{}", key.parent, key.id)),
        Kind::Certificate => (BundleKind::Certificate, key.id.clone()),
        Kind::Setting => (BundleKind::Settings, key.id.clone()),
        // Most kinds of bindings make no bundle: asked for, there is none.
        Kind::Binding => (BundleKind::Binding, key.id.clone()),
        _ => return None,
    };
    Some(BundleKey { kind, id })
}

/// A stage with all it is made of.
pub(crate) struct LoadedStage {
    pub(crate) revision: u64,
    api: String,
    account: String,
    region: String,
    stage: Stage,
    primary: (String, Definition),
    canary: Option<(String, Definition)>,
    bindings: Vec<Binding>,
}

impl LoadedStage {
    /// Compiles it.
    pub(crate) fn compile(&self) -> Result<super::Compiled<StageBundle>, Refusal> {
        super::stage(&StageSource {
            api: &self.api,
            account: &self.account,
            region: &self.region,
            stage: &self.stage,
            primary: (&self.primary.0, &self.primary.1),
            canary: self
                .canary
                .as_ref()
                .map(|(id, definition)| (id.as_str(), definition)),
            bindings: &self.bindings,
        })
    }
}

/// Reads a stage and all it is made of.
pub(crate) async fn load_stage(
    view: &mut dyn Read,
    api: &str,
    stage: &str,
) -> Result<Option<LoadedStage>, Refusal> {
    let Some(row) = view.get(&Key::within(Kind::Stage, api, stage)).await? else {
        return Ok(None);
    };
    let stage: Stage = read(row.body)?;
    let deployment = stage.deployment_id.clone().unwrap_or_default();
    let primary = load_definition(view, api, &deployment).await?;
    let canary = match stage
        .canary_settings
        .as_ref()
        .and_then(|canary| canary.deployment_id.clone())
    {
        Some(id) if id == deployment => Some((id, primary.clone())),
        Some(id) => {
            let definition = load_definition(view, api, &id).await?;
            Some((id, definition))
        }
        None => None,
    };
    let bindings = view.list(&List::all(Kind::Binding)).await?;
    Ok(Some(LoadedStage {
        revision: row.revision,
        api: api.into(),
        account: row.account,
        region: row.region,
        stage,
        primary: (deployment, primary),
        canary,
        bindings: bindings
            .into_iter()
            .map(|row| read(row.body))
            .collect::<Result<_, _>>()?,
    }))
}

async fn load_definition(view: &mut dyn Read, api: &str, deployment: &str) -> Result<Definition, Refusal> {
    let lost = || {
        Refusal::internal(format!(
            "deployment {deployment} of {api} has lost its definition"
        ))
    };
    let row = view
        .get(&Key::within(Kind::Deployment, api, deployment))
        .await?
        .ok_or_else(lost)?;
    let deployment: Deployment = read(row.body)?;
    let name = deployment.definition.ok_or_else(lost)?;
    let (_, packed) = view.definition(&name).await?.ok_or_else(lost)?;
    Definition::unpack(&packed)
}

async fn certificate(view: &mut dyn Read, id: &str) -> Result<Option<(u64, CertificateBundle)>, Refusal> {
    let key = Key::top(Kind::Certificate, id);
    let Some(row) = view.get(&key).await? else {
        return Ok(None);
    };
    let secret = view
        .secret(&key)
        .await?
        .ok_or_else(|| Refusal::internal(format!("{key} has lost its key")))?;
    let certificate: Certificate = read(row.body)?;
    let bundle = CertificateBundle {
        id: id.into(),
        names: certificate.names.unwrap_or_default(),
        chain_pem: certificate.chain_pem.unwrap_or_default().into_bytes(),
        private_key_pem: secret,
        ocsp: BASE64
            .decode(certificate.ocsp_response.unwrap_or_default())
            .map_err(Refusal::internal)?,
        ocsp_until: certificate.ocsp_until.map_or(0, |until| until.unix()),
    };
    Ok(Some((row.revision, bundle)))
}

async fn binding(
    view: &mut dyn Read,
    id: &str,
) -> Result<Option<(u64, (BindingBundle, BTreeMap<String, String>))>, Refusal> {
    let key = Key::top(Kind::Binding, id);
    let Some(row) = view.get(&key).await? else {
        return Ok(None);
    };
    let secret = match view.secret(&key).await? {
        Some(sealed) => {
            Some(serde_json::from_slice::<SealedCredentials>(&sealed).map_err(Refusal::internal)?)
        }
        None => None,
    };
    let bound = super::binding(&read(row.body)?, secret.as_ref())?;
    Ok(bound.map(|bound| (row.revision, bound)))
}

/// The installation's settings and their revision; the defaults where none were ever set.
pub(crate) async fn settings(view: &mut dyn Read) -> Result<(u64, InstallationSettings), Refusal> {
    match view.get(&settings_key()).await? {
        Some(row) => Ok((row.revision, read(row.body)?)),
        None => Ok((0, InstallationSettings::default())),
    }
}

/// The row of the installation's settings.
pub(crate) fn settings_key() -> Key {
    Key::top(Kind::Setting, "installation")
}

fn read<T: serde::de::DeserializeOwned>(body: serde_json::Value) -> Result<T, Refusal> {
    serde_json::from_value(body).map_err(Refusal::internal)
}
