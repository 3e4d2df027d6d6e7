//! Stored rows as callers see them.

use serde_json::Value;

use super::Stored;
use crate::{
    model::{Account, Entity, Key, Kind, Refusal},
    store::{Read, Row},
};

/// Members that are the store's own business.
const HIDDEN: [&str; 2] = ["definitionSha256", "compileWarnings"];

/// A row as an entity. With `reveal` an API key shows its value, as it does when it is created (OBV-156, OBV-161).
pub(super) async fn stored(view: &mut dyn Read, row: Row, reveal: bool) -> Result<Stored, Refusal> {
    let Row {
        key,
        mut body,
        revision,
        ..
    } = row;
    match key.kind {
        Kind::Deployment => {
            for member in HIDDEN {
                body.as_object_mut().map(|members| members.shift_remove(member));
            }
        }
        Kind::ApiKey if reveal => {
            let value = view.secret(&key).await?;
            set_text(&mut body, "value", value);
        }
        Kind::UsagePlanKey => {
            // OBV-164: the key's name and value are shown with its place in the plan.
            let owner = Key::top(Kind::ApiKey, key.id.clone());
            let value = view.secret(&owner).await?;
            set_text(&mut body, "value", value);
            let name = view
                .get(&owner)
                .await?
                .and_then(|row| row.body.get("name").cloned());
            if let (Some(name), Some(members)) = (name, body.as_object_mut()) {
                members.insert("name".into(), name);
            }
        }
        _ => {}
    }
    let entity = Entity::from_json(key.kind, body).map_err(|refusal| {
        Refusal::internal(format!(
            "the store holds something unreadable: {key}: {}",
            refusal.message
        ))
    })?;
    Ok(Stored {
        key,
        revision,
        entity,
    })
}

/// An account that nobody has changed.
pub(super) fn default_account() -> Result<Stored, Refusal> {
    let mut account = Account::default();
    account.fill_defaults();
    Ok(Stored {
        key: Key::top(Kind::Account, "account"),
        revision: 0,
        entity: Entity::Account(account),
    })
}

fn set_text(body: &mut Value, member: &str, value: Option<Vec<u8>>) {
    if let (Some(Ok(text)), Some(members)) = (value.map(String::from_utf8), body.as_object_mut()) {
        members.insert(member.into(), Value::String(text));
    }
}
