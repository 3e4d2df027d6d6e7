//! Request limits: of the method, of the account (SEC-077).

use super::exchange::Exchange;
use super::failure::Failure;
use crate::shard::Shard;

/// Takes a token from every limit that the method is under, or from none.
pub(super) fn throttle(x: &Exchange<'_>, shard: &Shard) -> Result<(), Failure> {
    let (Some(stage), Some(place)) = (&x.stage, x.place) else {
        return Ok(());
    };
    let limits = stage.shared.limits(x.canary, place.route, place.method);
    if limits.is_empty() {
        return Ok(());
    }
    let now = shard.limit_time(x.received);
    shard
        .credits
        .borrow_mut()
        .admit(now, limits)
        .map_err(|_| Failure::THROTTLED)
}
