//! What the service adds to a binding, and refuses of it (C9).

use std::{collections::BTreeSet, net::SocketAddr};

use tidegate_plan::binding::FunctionArn;

use crate::{
    compile::{self, SealedCredentials},
    model::{Binding, Kind, RUNTIME_PORTS, Refusal},
    store::{List, Read, Secret},
};

/// The options of credentials that the store seals.
const SECRET_ACCESS_KEY: &str = "secret-access-key";
const SESSION_TOKEN: &str = "session-token";
/// The beginning of a function's target whose workers ask for invocations.
const RUNTIME: &str = "runtime://";

/// Completes and checks a binding that is made, or changed from `old`: a function's name becomes its ARN in this
/// region and account, a function with workers gets a port, secrets leave the members for the store to seal.
pub(super) async fn bind(
    view: &mut dyn Read,
    id: &str,
    old: Option<&Binding>,
    new: &mut Binding,
    (region, account): (&str, &str),
) -> Result<Secret, Refusal> {
    new.check()?;
    if old.is_some_and(|old| old.kind != new.kind) {
        return Err(Refusal::bad_request(
            "The kind of a binding stays: delete it, and bind anew",
        ));
    }
    let kind = new.kind.clone().unwrap_or_default();
    if kind == "function"
        && let Some(pattern) = &mut new.pattern
        && !pattern.ends_with('*')
        && let Ok(arn) = FunctionArn::parse(pattern, region, account)
    {
        *pattern = arn.as_str().to_owned();
    }
    let mut others = Vec::new();
    for row in view.list(&List::all(Kind::Binding)).await? {
        if row.key.id != id {
            let other: Binding = serde_json::from_value(row.body).map_err(Refusal::internal)?;
            others.push((row.key.to_string(), other));
        }
    }
    let same = others
        .iter()
        .find(|(_, other)| other.kind == new.kind && other.pattern == new.pattern);
    if let Some((name, other)) = same {
        return Err(Refusal::conflict(format!(
            "{name} binds the {kind} {} already",
            other.pattern.as_deref().unwrap_or_default()
        )));
    }
    let mut secret = Secret::Keep;
    match kind.as_str() {
        "function" => listen(new, old, &others)?,
        "credentials" => secret = seal(new, old)?,
        _ => {}
    }
    compile::binding(new, None)?;
    Ok(secret)
}

/// Finds a function with workers an address of its own.
fn listen(new: &mut Binding, old: Option<&Binding>, others: &[(String, Binding)]) -> Result<(), Refusal> {
    let address_of = |binding: &Binding| {
        let target = binding.target.as_deref()?.strip_prefix(RUNTIME)?;
        target.parse::<SocketAddr>().ok()
    };
    if new.target.as_deref() == Some("runtime") {
        let kept = old.and_then(address_of);
        let taken: BTreeSet<u16> = others
            .iter()
            .filter_map(|(_, other)| address_of(other))
            .map(|address| address.port())
            .collect();
        let free = || {
            let port = RUNTIME_PORTS.into_iter().find(|port| !taken.contains(port))?;
            Some(SocketAddr::from(([127, 0, 0, 1], port)))
        };
        let address = kept.or_else(free).ok_or_else(|| {
            Refusal::bad_request(format!(
                "Every port from {} to {} is a function's: name an address, as runtime://ADDRESS:PORT",
                RUNTIME_PORTS.start(),
                RUNTIME_PORTS.end()
            ))
        })?;
        new.target = Some(format!("{RUNTIME}{address}"));
    }
    let own = address_of(new);
    let taken = own.and_then(|own| others.iter().find(|(_, other)| address_of(other) == Some(own)));
    match (own, taken) {
        (Some(own), Some((name, _))) => Err(Refusal::conflict(format!(
            "{own} is where workers of another function ask for invocations: see {name}"
        ))),
        _ => Ok(()),
    }
}

/// Takes the secrets out of credentials.
fn seal(new: &mut Binding, old: Option<&Binding>) -> Result<Secret, Refusal> {
    let mut take = |name| new.options.as_mut().and_then(|options| options.remove(name));
    let (key, token) = (take(SECRET_ACCESS_KEY), take(SESSION_TOKEN));
    if new.options.as_ref().is_some_and(|options| options.is_empty()) {
        new.options = None;
    }
    match key.filter(|key| !key.is_empty()) {
        Some(secret_access_key) => {
            let sealed = SealedCredentials {
                secret_access_key,
                session_token: token.unwrap_or_default(),
            };
            let sealed = serde_json::to_vec(&sealed).map_err(Refusal::internal)?;
            Ok(Secret::Sealed(sealed))
        }
        None if token.is_none() && old.is_some_and(|old| old.target == new.target) => Ok(Secret::Keep),
        None => Err(Refusal::bad_request(format!(
            "Credentials need the option {SECRET_ACCESS_KEY}, which belongs to the access key that is their target"
        ))),
    }
}
