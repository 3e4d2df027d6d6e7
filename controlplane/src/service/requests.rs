//! What calls take and give.

use std::time::Duration;

use serde_json::{Map, Value};
use tidegate_proto::admin::v1::Rollout;

use crate::model::{Entity, Key};

/// Entities to create and change.
#[derive(Clone, Debug, Default)]
pub struct Apply {
    /// In this order.
    pub entities: Vec<ApplyEntity>,
    /// Below this name, what the call does not mention is deleted.
    pub prune: Option<String>,
    /// Say what would happen, and do nothing.
    pub dry_run: bool,
    /// How long to wait for the nodes; `None`: the installation's setting.
    pub wait: Option<Duration>,
}

/// One entity to create or change.
#[derive(Clone, Debug, Default)]
pub struct ApplyEntity {
    /// An entity's name, or a collection's. A segment `key:{key}` stands for the id behind a caller's key.
    pub name: String,
    /// The members to set.
    pub body: Map<String, Value>,
    /// The caller's own key for the entity; the name is then the collection's.
    pub key: Option<String>,
    /// The members to set or, where the body lacks them, to remove; `None`: the members present.
    pub mask: Option<Vec<String>>,
    /// The revision the entity must have; 0: it must not exist.
    pub expected_revision: Option<u64>,
}

/// What an Apply did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// The entities as they are now, in the order of the call.
    pub entities: Vec<Stored>,
    /// The names of what was deleted.
    pub pruned: Vec<String>,
    /// How far it has come; none where nothing of it reaches traffic.
    pub rollout: Option<Rollout>,
}

/// An entity with its name and revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// What it is called.
    pub key: Key,
    /// Its last change.
    pub revision: u64,
    /// The entity, as the caller may see it.
    pub entity: Entity,
}

/// Part of a collection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The entities.
    pub entities: Vec<Stored>,
    /// Where the next page begins; `None`: this is the last.
    pub next: Option<String>,
}
