//! The end of a request: counted once, logged once.

use tidegate_rt as rt;

use super::exchange::Exchange;
use crate::http::Known;
use crate::shard::Client;
use crate::telemetry::{GatewayError, IntegrationOutcome, RequestRecord};

/// What the access log shows for a client's request id that was not a UUID (OBS-039).
const REPLACED_ID: &[u8] = b"UUID_REPLACED_INVALID_REQUEST_ID";

/// Records a request that has been answered, or whose client has gone.
pub(super) fn finish(x: &Exchange<'_>, client: &Client) {
    if let Some(test) = &client.test {
        return test.note_end(x);
    }
    let now = rt::now();
    let shard = &client.shard;
    let (route, method) = (x.route(), x.method());
    let live = x.stage.as_ref().map(|stage| &stage.shared);
    let resource_path = route.map(|route| route.path().as_bytes());
    let failure = x.outcome.failure.as_ref();
    shard.recorder.record(&RequestRecord {
        stage: live.and_then(|live| live.series()),
        method: match (live, x.place, method) {
            (Some(live), Some(place), Some(_)) => live.method_series(x.canary, place.route, place.method),
            _ => None,
        },
        log: live.and_then(|live| live.log()),
        received_unix_ms: shard
            .clock
            .epoch(x.received)
            .as_millis()
            .try_into()
            .unwrap_or(u64::MAX),
        latency_ns: nanos(now, x.received),
        status: x.outcome.status,
        response_length: x.outcome.length,
        error: failure.map(|failure| GatewayError {
            response_type: failure
                .kind
                .map(|kind| kind.name().as_bytes())
                .unwrap_or_default(),
            type_status: failure.status,
            message: x.message(failure).as_bytes(),
            validation: x
                .detail
                .as_ref()
                .map(|detail| detail.validation.as_bytes())
                .unwrap_or_default(),
        }),
        integration: x.outcome.integration.map(|called| IntegrationOutcome {
            latency_ns: nanos(called.answered, called.begun),
            status: called.status,
            error: called.error.as_bytes(),
        }),
        source_ip: client.origin.peer.ip(),
        request_id: if x.replaced_id { REPLACED_ID } else { &x.request_id },
        extended_request_id: &x.extended_id,
        http_method: x.head.method(),
        path: x
            .path
            .as_ref()
            .map(|path| path.as_str().as_bytes())
            .unwrap_or_default(),
        resource_path: resource_path.unwrap_or_default(),
        resource_id: route
            .map(|route| route.resource().as_str().as_bytes())
            .unwrap_or_default(),
        domain_name: x.host,
        user_agent: match live.and_then(|live| live.log()) {
            Some(_) => x.head.fields().get(Known::UserAgent).unwrap_or_default(),
            None => b"",
        },
    });
}

fn nanos(later: rt::Instant, earlier: rt::Instant) -> u64 {
    u64::try_from(later.saturating_duration_since(earlier).as_nanos()).unwrap_or(u64::MAX)
}
