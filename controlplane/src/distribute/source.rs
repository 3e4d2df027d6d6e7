//! Where bundles come from: what the distribution asks of the compiler.

use std::collections::BTreeMap;

use async_trait::async_trait;
use prost::bytes::Bytes;
use tidegate_proto::config::v1::BundleKind;

use crate::model::Refusal;

/// What a bundle is called: unique per kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleKey {
    /// What it holds.
    pub kind: BundleKind,
    /// For a stage `{api id}/{stage name}`.
    pub id: String,
}

/// What differs between two revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The revision up to which this was looked at.
    pub to: u64,
    /// Everything that exists stands in `present`, because the changes since then are not known any more.
    pub full: bool,
    /// Bundles that are new or may have new content.
    pub present: Vec<BundleKey>,
    /// Bundles that are gone. A name that never was a bundle does no harm.
    pub gone: Vec<BundleKey>,
}

/// A bundle's content as compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// The revision of its last change, at most that of the store when it was compiled.
    pub revision: u64,
    /// The format of `content`.
    pub format: u32,
    /// The message that the kind names, encoded.
    pub content: Bytes,
    /// Labels that a node must have to get it; empty: every node.
    pub node_selector: BTreeMap<String, String>,
}

/// The bundles of the installation as of its store.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// What changed after `since`; 0 asks for all. Reads one consistent view, at least as new as the last revision that
    /// the store announced.
    async fn changed(&self, since: u64) -> Result<Changed, Refusal>;

    /// The newest content of a bundle in a format that the asker reads; `None`: there is no such bundle.
    async fn compiled(&self, key: &BundleKey, format: u32) -> Result<Option<Compiled>, Refusal>;
}
