//! Path and method to the resource's method.

use tidegate_plan::trie::Captures;

use super::exchange::{Exchange, Place};
use super::failure::Failure;
use crate::shard::Client;

/// Finds resource, then method (RES-048). What is not found is answered alike: 403 (RES-050, RES-051).
pub(super) fn route(x: &mut Exchange<'_>, client: &Client) -> Result<(), Failure> {
    let mut captures = std::mem::take(&mut x.captures);
    let found = find(x, &mut captures);
    x.captures = captures;
    if let Some((resource, place)) = found {
        x.resource = Some(resource);
        x.place = place;
    }
    if x.place.is_none() && client.test.is_some() {
        x.place = addressed(x);
        x.resource = x.place.map(|place| place.route);
    }
    x.place.map(|_| ()).ok_or(Failure::MISSING_AUTHENTICATION_TOKEN)
}

/// A test's plan has one resource, and a path that does not lead there runs it all the same (OBV-178), without values
/// for the path's parameters (OBV-179).
fn addressed(x: &mut Exchange<'_>) -> Option<Place> {
    x.captures = Captures::new();
    let (at, method) = x.plan()?.routes().first()?.method(x.verb?)?;
    Some(Place {
        route: 0,
        method: u32::try_from(at).ok()?,
        checked: method.checks.is_some(),
    })
}

/// The resource, and the method where it has one for the request.
fn find(x: &Exchange<'_>, captures: &mut Captures) -> Option<(u32, Option<Place>)> {
    let (index, route) = x.plan()?.find(x.resource_path()?, captures)?;
    let place = x
        .verb
        .and_then(|verb| route.method(verb))
        .and_then(|(at, method)| {
            Some(Place {
                route: index.0,
                method: u32::try_from(at).ok()?,
                checked: method.checks.is_some(),
            })
        });
    Some((index.0, place))
}
