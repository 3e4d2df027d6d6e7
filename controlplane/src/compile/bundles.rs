//! Which bundles there are, which have changed, and what is in each.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use aws_lc_rs::digest;
use prost::Message;
use tidegate_proto::config::v1::{Bundle, BundleKind, CertificateBundle};

use super::{InstallationSettings, StageSource};
use crate::{
    model::{Certificate, Definition, Deployment, Key, Kind, Refusal, Stage},
    store::{List, Read, Store},
};

/// The bundle format this program writes.
pub const FORMAT: u32 = 1;

/// Bytes of compiled bundles that are kept for the next node that asks.
const CACHE_BYTES: usize = 256 << 20;

/// The name of a bundle at a revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BundleRef {
    /// What it holds.
    pub kind: BundleKind,
    /// `{api}/{stage}`, a certificate's id, or `installation`.
    pub id: String,
    /// Its last change.
    pub revision: u64,
    /// Whether that change removed it.
    pub removed: bool,
}

/// What has changed after a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// These, up to a revision.
    Changed {
        /// The last committed revision that is covered.
        to: u64,
        /// Each bundle once; removed ones among them.
        bundles: Vec<BundleRef>,
    },
    /// Too long ago, or never heard of: everything has to be sent.
    Unknown,
}

/// Makes bundles of what is in the store.
pub struct Compiler {
    store: Arc<dyn Store>,
    cache: Mutex<Cache>,
}

impl Compiler {
    /// A compiler over a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            cache: Mutex::default(),
        }
    }

    /// Every bundle there is, and the revision at which that was so.
    pub async fn all(&self) -> Result<(u64, Vec<BundleRef>), Refusal> {
        let mut view = self.store.read().await?;
        let (to, _) = view.bounds().await?;
        let mut bundles = Vec::new();
        for kind in KINDS {
            for row in view.list(&List::all(kind)).await? {
                bundles.extend(reference(&row.key, row.revision, false));
            }
        }
        Ok((to, bundles))
    }

    /// The bundles that have changed after `revision`.
    pub async fn since(&self, revision: u64) -> Result<Since, Refusal> {
        let mut view = self.store.read().await?;
        let (to, oldest) = view.bounds().await?;
        if revision > to || revision < oldest {
            return Ok(Since::Unknown);
        }
        let changes = view.changed(revision, &KINDS).await?;
        let bundles = changes
            .iter()
            .filter_map(|change| reference(&change.key, change.revision, change.deleted))
            .collect();
        Ok(Since::Changed { to, bundles })
    }

    /// A bundle as it is now, which may be newer than the reference; `None` where it has been removed.
    pub async fn bundle(&self, reference: &BundleRef) -> Result<Option<Bundle>, Refusal> {
        if let Some(bundle) = self.lock().get(reference) {
            return Ok(Some(bundle));
        }
        let mut view = self.store.read().await?;
        let view = view.as_mut();
        let (revision, content) = match reference.kind {
            BundleKind::Stage => {
                let Some((api, stage)) = reference.id.split_once('/') else {
                    return Ok(None);
                };
                match load_stage(view, api, stage).await? {
                    Some(loaded) => (loaded.revision, loaded.compile()?.output.encode_to_vec()),
                    None => return Ok(None),
                }
            }
            BundleKind::Certificate => match certificate(view, &reference.id).await? {
                Some((revision, bundle)) => (revision, bundle.encode_to_vec()),
                None => return Ok(None),
            },
            BundleKind::Settings => {
                let (revision, settings) = settings(view).await?;
                (revision, settings.compile().encode_to_vec())
            }
            _ => return Ok(None),
        };
        let bundle = Bundle {
            id: reference.id.clone(),
            kind: reference.kind.into(),
            format: FORMAT,
            revision,
            sha256: digest::digest(&digest::SHA256, &content).as_ref().to_vec(),
            content: content.into(),
        };
        self.lock().put(reference.kind, &bundle);
        Ok(Some(bundle))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The kinds of rows that bundles are made of, one a row.
const KINDS: [Kind; 3] = [Kind::Stage, Kind::Certificate, Kind::Setting];

fn reference(key: &Key, revision: u64, removed: bool) -> Option<BundleRef> {
    let (kind, id) = match key.kind {
        Kind::Stage => (BundleKind::Stage, format!("{}/{}", key.parent, key.id)),
        Kind::Certificate => (BundleKind::Certificate, key.id.clone()),
        Kind::Setting => (BundleKind::Settings, key.id.clone()),
        _ => return None,
    };
    Some(BundleRef {
        kind,
        id,
        revision,
        removed,
    })
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
    bindings: Vec<crate::model::Binding>,
}

impl LoadedStage {
    /// Compiles it.
    pub(crate) fn compile(
        &self,
    ) -> Result<super::Compiled<tidegate_proto::config::v1::StageBundle>, Refusal> {
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
    };
    Ok(Some((row.revision, bundle)))
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

/// Compiled bundles by name and revision, the oldest dropped first.
#[derive(Default)]
struct Cache {
    bundles: HashMap<(BundleKind, String), Bundle>,
    order: VecDeque<(BundleKind, String)>,
    bytes: usize,
}

impl Cache {
    fn get(&self, reference: &BundleRef) -> Option<Bundle> {
        // Certificates carry keys: they are opened anew each time rather than kept in memory.
        self.bundles
            .get(&(reference.kind, reference.id.clone()))
            .filter(|bundle| bundle.revision >= reference.revision && !reference.removed)
            .cloned()
    }

    fn put(&mut self, kind: BundleKind, bundle: &Bundle) {
        if kind == BundleKind::Certificate || bundle.content.len() > CACHE_BYTES / 4 {
            return;
        }
        let name = (kind, bundle.id.clone());
        match self.bundles.insert(name.clone(), bundle.clone()) {
            Some(old) => self.bytes -= old.content.len(),
            None => self.order.push_back(name),
        }
        self.bytes += bundle.content.len();
        while self.bytes > CACHE_BYTES {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(old) = self.bundles.remove(&oldest) {
                self.bytes -= old.content.len();
            }
        }
    }
}
