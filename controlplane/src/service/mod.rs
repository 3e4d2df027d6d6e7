//! The use cases. Both faces call these, and nothing below them.
//!
//! Every call names its caller; whether the caller may do it is decided here, and who did what is written in the
//! transaction that does it (C6).

mod apply;
mod authorize;
mod bindings;
mod deploy;
mod export;
mod fleet;
mod freeze;
mod import;
mod ocsp;
mod principals;
mod references;
mod remove;
mod requests;
mod special;
mod texts;
mod unit;

use std::{sync::Arc, time::Duration};

use tidegate_proto::admin::v1::Rollout;

use crate::{
    compile,
    model::{Collection, Key, Kind, Refusal},
    store::{self, Audit, Change, List, Store},
};

pub use authorize::Caller;
pub use deploy::{Deploy, Deployed};
pub use fleet::{Fleet, NoFleet};
pub use import::{Import, ImportOutcome};
pub use principals::Bootstrap;
pub use requests::{Applied, Apply, ApplyEntity, Page, Stored};

use unit::Unit;

/// Entities in a page unless the caller says otherwise (C11).
pub const DEFAULT_PAGE: u32 = 25;
/// Most entities in a page.
pub const LARGEST_PAGE: u32 = 500;
/// Most entities that one Apply may change.
pub const LARGEST_APPLY: usize = 10_000;

/// What holds for the whole installation, as it was configured.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// The region of calls that name none.
    pub region: String,
    /// The account of principals that are made without one: 12 digits.
    pub account: String,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            region: "us-east-1".into(),
            account: "000000000000".into(),
        }
    }
}

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    fleet: Arc<dyn Fleet>,
    options: ServiceOptions,
}

impl Service {
    /// The use cases over a store and the nodes.
    pub fn new(store: Arc<dyn Store>, fleet: Arc<dyn Fleet>, options: ServiceOptions) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                fleet,
                options,
            }),
        }
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// The nodes.
    pub fn fleet(&self) -> &Arc<dyn Fleet> {
        &self.inner.fleet
    }

    /// What was configured.
    pub fn options(&self) -> &ServiceOptions {
        &self.inner.options
    }

    /// Creates and changes entities, all in one transaction.
    pub async fn apply(&self, caller: &Caller, apply: Apply) -> Result<Applied, Refusal> {
        if apply.entities.len() > LARGEST_APPLY {
            return Err(Refusal::bad_request(format!(
                "An Apply changes at most {LARGEST_APPLY} entities"
            )));
        }
        let (wait, dry_run) = (apply.wait, apply.dry_run);
        let (caller, options) = (caller.clone(), self.inner.options.clone());
        let store = self.inner.store.as_ref();
        let (((entities, pruned), live), revision) =
            store::run(store, move |tx| applying(tx, apply, caller, options), !dry_run).await?;
        let rollout = self.rollout(revision, live && !dry_run, wait).await?;
        Ok(Applied {
            entities,
            pruned,
            rollout,
        })
    }

    /// Deletes an entity and all that lies in it.
    pub async fn delete(
        &self,
        caller: &Caller,
        key: Key,
        expected_revision: Option<u64>,
        wait: Option<Duration>,
    ) -> Result<Option<Rollout>, Refusal> {
        let key = texts::own_key(key, caller, &self.inner.options);
        let (caller, options) = (caller.clone(), self.inner.options.clone());
        let (live, revision) = store::transact(self.inner.store.as_ref(), move |tx| {
            Box::pin(async move {
                let mut unit = Unit::new(tx, caller, options);
                unit.expect_revision(&key, expected_revision).await?;
                unit.remove(&key).await?;
                unit.audit(&format!("Delete{:?}", key.kind), &key.to_string())
                    .await?;
                Ok(unit.is_live())
            })
        })
        .await?;
        self.rollout(revision, live, wait).await
    }

    /// One entity.
    pub async fn get(&self, caller: &Caller, key: &Key) -> Result<Stored, Refusal> {
        caller.may_read(key.kind)?;
        let key = &texts::own_key(key.clone(), caller, &self.inner.options);
        let mut view = self.inner.store.read().await?;
        let view = view.as_mut();
        texts::check_parent(view, caller, key).await?;
        let row = view.get(key).await?;
        match row {
            Some(row) if caller.sees(&row.account) => export::stored(view, row, false).await,
            None if key.kind == Kind::Account => export::default_account(),
            _ => Err(texts::missing(caller, key)),
        }
    }

    /// A page of a collection, in the order of creation.
    pub async fn list(
        &self,
        caller: &Caller,
        collection: &Collection,
        page_size: u32,
        page_token: &str,
    ) -> Result<Page, Refusal> {
        caller.may_read(collection.kind)?;
        let limit = match page_size {
            0 => DEFAULT_PAGE,
            size => size.min(LARGEST_PAGE),
        };
        let after = match page_token {
            "" => 0,
            token => token
                .parse()
                .map_err(|_| Refusal::bad_request(format!("Invalid position: {token}")))?,
        };
        let mut view = self.inner.store.read().await?;
        let view = view.as_mut();
        texts::check_parent(
            view,
            caller,
            &Key::within(collection.kind, collection.parent.clone(), ""),
        )
        .await?;
        let list = List {
            parent: Some(collection.parent.clone()),
            account: caller.account_filter(collection.kind),
            region: caller.region.clone().filter(|_| collection.parent.is_empty()),
            id_prefix: collection
                .resource
                .as_ref()
                .map(|resource| format!("{resource}/")),
            after,
            limit: limit + 1,
            ..List::all(collection.kind)
        };
        let mut rows = view.list(&list).await?;
        let more = rows.len() > usize::try_from(limit).unwrap_or(usize::MAX);
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let next = more
            .then(|| rows.last().map(|row| row.position.to_string()))
            .flatten();
        let mut entities = Vec::with_capacity(rows.len());
        for row in rows {
            entities.push(export::stored(view, row, false).await?);
        }
        Ok(Page { entities, next })
    }

    /// Changes after a revision that the caller may see, and the revision up to which this is all.
    pub async fn changes(
        &self,
        caller: &Caller,
        after: u64,
        prefix: &str,
        limit: u32,
    ) -> Result<(Vec<Change>, u64), Refusal> {
        let mut view = self.inner.store.read().await?;
        let (newest, oldest) = view.bounds().await?;
        if after < oldest {
            return Err(Refusal::bad_request(format!(
                "Changes up to revision {oldest} are no longer known: list what there is, then watch from {newest}"
            )));
        }
        let mut changes = view.changes(after, limit).await?;
        let covered = match changes.last() {
            Some(last) => last.revision,
            None => newest.max(after),
        };
        changes.retain(|change| {
            change.key.kind.is_managed()
                && caller.sees(&change.account)
                && caller.may_read(change.key.kind).is_ok()
                && (prefix.is_empty() || is_below(&change.key.to_string(), prefix))
        });
        Ok((changes, covered))
    }

    /// Waits until the connected nodes run a revision, as long as the call or the installation says (C2). Nothing is told
    /// of a change that does not reach traffic.
    async fn rollout(
        &self,
        revision: Option<u64>,
        live: bool,
        wait: Option<Duration>,
    ) -> Result<Option<Rollout>, Refusal> {
        let Some(revision) = revision.filter(|_| live) else {
            return Ok(None);
        };
        let wait = match wait {
            Some(wait) => wait,
            None => {
                let mut view = self.inner.store.read().await?;
                let (_, settings) = compile::settings(view.as_mut()).await?;
                Duration::from_millis(settings.rollout_wait_ms.into())
            }
        };
        Ok(Some(self.inner.fleet.wait(revision, wait).await))
    }
}

fn applying(
    tx: &mut dyn store::Write,
    apply: Apply,
    caller: Caller,
    options: ServiceOptions,
) -> store::BoxFuture<'_, Result<(apply::Outcome, bool), Refusal>> {
    Box::pin(async move {
        let mut unit = Unit::new(tx, caller, options);
        let done = unit.apply(apply).await?;
        let first = done
            .0
            .first()
            .map(|stored| stored.key.to_string())
            .unwrap_or_default();
        unit.audit("Apply", &first).await?;
        Ok((done, unit.is_live()))
    })
}

/// Whether a name is another one or lies below it.
fn is_below(name: &str, above: &str) -> bool {
    name.strip_prefix(above.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What is written of a call (C6).
fn audit_of(caller: &Caller, operation: &str, target: &str) -> Audit {
    Audit {
        principal: caller.principal.clone(),
        account: caller.account.clone(),
        source: caller.source.clone(),
        face: caller.face.into(),
        request_id: caller.request_id.clone(),
        operation: operation.into(),
        target: target.into(),
    }
}

#[cfg(test)]
mod tests;
