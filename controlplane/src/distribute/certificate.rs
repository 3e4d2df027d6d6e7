//! The certificate with which nodes serve HTTPS where no other fits: made by the internal authority.

use std::time::{Duration, SystemTime};

use prost::Message;
use serde_json::{Value, json};
use tidegate_proto::config::v1::{BundleKind, CertificateBundle};

use super::{
    ca::{Authority, renewal_due},
    source::{BundleKey, Compiled},
};
use crate::{
    model::{Key, Kind, Refusal},
    store::{Put, Secret, Store, transact},
};

/// The bundle's id.
const ID: &str = "default";
/// The format of its content.
const FORMAT: u32 = 1;

/// The bundle's key.
pub(super) fn key() -> BundleKey {
    BundleKey {
        kind: BundleKind::Certificate,
        id: ID.to_owned(),
    }
}

/// Makes the certificate when there is none, when a third of its life has passed, or when it is for other names. As a
/// change of the store it reaches the nodes like every other.
pub(super) async fn keep_current(
    store: &dyn Store,
    authority: &Authority,
    suffixes: &[String],
    region: &str,
) -> Result<(), Refusal> {
    let names = json!([suffixes, region]);
    let mut read = store.read().await?;
    if let Some(row) = read.get(&row_key()).await? {
        let time = |member: &str| {
            let seconds = row.body.get(member).and_then(Value::as_u64).unwrap_or(0);
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        };
        let fresh = !renewal_due(time("made"), time("ends"), SystemTime::now());
        if fresh && row.body.get("names") == Some(&names) {
            return Ok(());
        }
    }
    drop(read);
    let issued = authority.issue_default_https(suffixes, region)?;
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    };
    let put = Put {
        key: row_key(),
        account: String::new(),
        region: String::new(),
        body: json!({
            "names": names,
            "chain": issued.chain_pem,
            "made": seconds(SystemTime::now()),
            "ends": seconds(issued.not_after),
        }),
        secret: Secret::Sealed(issued.private_key_pem.into_bytes()),
    };
    transact(store, move |tx| Box::pin(async move { Ok(tx.put(put).await?) })).await?;
    Ok(())
}

/// The bundle's content.
pub(super) async fn compiled(store: &dyn Store) -> Result<Option<Compiled>, Refusal> {
    let mut read = store.read().await?;
    let Some(row) = read.get(&row_key()).await? else {
        return Ok(None);
    };
    let Some(private_key_pem) = read.secret(&row_key()).await? else {
        return Ok(None);
    };
    let chain = row.body.get("chain").and_then(Value::as_str).unwrap_or_default();
    let content = CertificateBundle {
        id: ID.to_owned(),
        names: Vec::new(),
        chain_pem: chain.as_bytes().to_vec(),
        private_key_pem,
        ..CertificateBundle::default()
    };
    Ok(Some(Compiled {
        revision: row.revision,
        format: FORMAT,
        content: content.encode_to_vec().into(),
        node_selector: Default::default(),
    }))
}

fn row_key() -> Key {
    Key::top(Kind::Authority, "default-https")
}
