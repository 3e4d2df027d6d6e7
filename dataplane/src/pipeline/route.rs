//! Path and method to the resource's method.

use tidegate_plan::trie::Captures;

use super::exchange::{Exchange, Place};
use super::failure::Failure;

/// Finds resource, then method (RES-048). What is not found is answered alike: 403 (RES-050, RES-051).
pub(super) fn route(x: &mut Exchange<'_>) -> Result<(), Failure> {
    let mut captures = std::mem::take(&mut x.captures);
    let place = find(x, &mut captures);
    x.captures = captures;
    x.place = place;
    x.place.map(|_| ()).ok_or(Failure::MISSING_AUTHENTICATION_TOKEN)
}

fn find(x: &Exchange<'_>, captures: &mut Captures) -> Option<Place> {
    let (index, route) = x.plan()?.find(x.resource_path()?, captures)?;
    let (method, _) = route.method(x.verb?)?;
    Some(Place {
        route: index.0,
        method: u32::try_from(method).ok()?,
    })
}
