//! What an entity lies in, what kind of entity it is, and what is said where it is missing or in the way.

use super::{Caller, ServiceOptions};
use crate::{
    model::{Key, Kind, Refusal},
    store::{Read, Row},
};

/// Refuses where what the entity lies in does not exist, or is another account's.
pub(super) async fn check_parent(view: &mut dyn Read, caller: &Caller, key: &Key) -> Result<(), Refusal> {
    if key.parent.is_empty() {
        return Ok(());
    }
    let top = view.get(&top_of(key)).await?;
    if top.is_some_and(|row| caller.sees(&row.account)) {
        return Ok(());
    }
    Err(match key.kind {
        // OBV-068, OBV-098, OBV-111: the API is not named.
        Kind::ApiResource | Kind::Method => Refusal::unknown_resource(),
        Kind::UsagePlanKey => missing(caller, &Key::top(Kind::UsagePlan, key.parent.clone())),
        Kind::BasePathMapping => missing(caller, &Key::top(Kind::DomainName, key.parent.clone())),
        // OBV-130.
        Kind::RequestValidator => Refusal::bad_request("Invalid REST API identifier specified"),
        _ => Refusal::unknown_api(&caller.account, &key.parent),
    })
}

/// The text for an entity that is not there.
pub(super) fn missing(caller: &Caller, key: &Key) -> Refusal {
    let text = match key.kind {
        Kind::RestApi => return Refusal::unknown_api(&caller.account, &key.id),
        Kind::ApiResource => return Refusal::unknown_resource(),
        Kind::Method => return Refusal::unknown_method(),
        Kind::Model => return Refusal::not_found(format!("Invalid model name specified: {}", key.id)),
        Kind::RequestValidator => "Invalid Request Validator identifier specified",
        Kind::Authorizer => "Invalid Authorizer identifier specified",
        Kind::GatewayResponse => "Invalid gateway response type specified",
        Kind::DocumentationPart => "Invalid Documentation part identifier specified",
        Kind::DocumentationVersion => "Invalid Documentation version specified",
        Kind::Deployment => "Invalid Deployment identifier specified",
        Kind::Stage => "Invalid stage identifier specified",
        Kind::ApiKey => "Invalid API Key identifier specified",
        Kind::UsagePlan => "Invalid Usage Plan ID specified",
        Kind::UsagePlanKey => "Invalid API Key identifier specified",
        Kind::DomainName => "Invalid domain name identifier specified",
        Kind::BasePathMapping => "Invalid base path mapping identifier specified",
        Kind::ClientCertificate => "Invalid Client Certificate identifier specified",
        Kind::VpcLink => "Invalid Vpc Link identifier specified",
        _ => return Refusal::not_found(format!("Invalid identifier specified: {key}")),
    };
    Refusal::not_found(text)
}

pub(super) fn conflict(key: &Key) -> Refusal {
    Refusal::conflict(match key.kind {
        Kind::Method => "Method already exists for this resource",
        Kind::Model => "Model name already exists for this REST API", // OBV-126
        Kind::Stage => "Stage already exists",
        Kind::UsagePlanKey => "Usage Plan already has this API Key",
        Kind::DomainName => "The domain name you provided already exists.",
        Kind::BasePathMapping => "Base path already exists for this domain name",
        _ => return Refusal::conflict(format!("{key} already exists")),
    })
}

pub(super) fn check_revision(name: &str, row: Option<&Row>, expected: u64) -> Result<(), Refusal> {
    let found = row.map_or(0, |row| row.revision);
    if found == expected {
        return Ok(());
    }
    Err(Refusal::conflict(match (found, expected) {
        (_, 0) => format!("{name} already exists, at revision {found}"),
        (0, _) => format!("{name} does not exist; revision {expected} was expected"),
        _ => format!("{name} is at revision {found}, not {expected}: somebody has changed it meanwhile"),
    }))
}

/// The account's own settings are called `account` by everybody.
pub(super) fn own_key(key: Key, caller: &Caller, options: &ServiceOptions) -> Key {
    if key.kind != Kind::Account {
        return key;
    }
    let region = caller.region.as_deref().unwrap_or(&options.region);
    Key::top(Kind::Account, format!("{}/{region}", caller.account))
}

/// The row under whose lock an entity is changed.
pub(super) fn top_of(key: &Key) -> Key {
    match key.kind.place().0 {
        Some("restApis") => Key::top(Kind::RestApi, key.parent.clone()),
        Some("usagePlans") => Key::top(Kind::UsagePlan, key.parent.clone()),
        Some("domainNames") => Key::top(Kind::DomainName, key.parent.clone()),
        _ => key.clone(),
    }
}

/// Kinds whose changes nodes have to know without a deployment (C4).
pub(super) fn is_live(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Stage | Kind::Certificate | Kind::Setting | Kind::Binding
    )
}

/// Kinds whose ids are generated.
pub(super) fn is_generated(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Method
            | Kind::Model
            | Kind::GatewayResponse
            | Kind::DocumentationVersion
            | Kind::Stage
            | Kind::UsagePlanKey
            | Kind::DomainName
            | Kind::BasePathMapping
            | Kind::Account
    )
}
