//! What templates, mappings and gateway responses may ask of a request: `$context`, stage variables and the method
//! request's parameters. One place, so that a name means the same everywhere.

use std::borrow::Cow;
use std::io::Write as _;

use tidegate_plan::path;

use super::exchange::Exchange;
use crate::http::Known;
use crate::integration::query;
use crate::shard::Client;

/// A `$context` variable by its name without the prefix (VTL-320); `None` where it is not known, or has no value for this
/// request. What only an error knows (`error.*`) is told by [`super::gateway_response`].
pub fn variable<'x>(x: &'x Exchange<'_>, client: &'x Client, name: &str) -> Option<Cow<'x, [u8]>> {
    let plan = x.stage.as_ref().map(|stage| &stage.shared.plan);
    let text: &[u8] = match name {
        "requestId" => &x.request_id,
        "extendedRequestId" => &x.extended_id,
        "apiId" => plan?.api.as_str().as_bytes(),
        "stage" => plan?.stage.as_str().as_bytes(),
        "accountId" => plan?.account.as_str().as_bytes(),
        "deploymentId" => x.plan()?.deployment().as_str().as_bytes(),
        "httpMethod" => x.head.method(),
        "path" => x.path.as_ref()?.as_str().as_bytes(),
        "resourcePath" => x.route()?.path().as_bytes(),
        "resourceId" => x.route()?.resource().as_str().as_bytes(),
        "domainName" => x.host,
        "domainPrefix" => x.host.split(|b| *b == b'.').next()?,
        "protocol" => x.protocol(),
        "identity.sourceIp" => client.peer_text(),
        "identity.userAgent" => x.head.fields().get(Known::UserAgent)?,
        "error.validationErrorString" => x.detail.as_ref()?.validation.as_bytes(),
        "requestTime" => return Some(Cow::Owned(request_time(x, client))),
        "requestTimeEpoch" => {
            let millis = client.shard.clock.epoch(x.received).as_millis();
            return Some(Cow::Owned(millis.to_string().into_bytes()));
        }
        _ => return None,
    };
    Some(Cow::Borrowed(text))
}

/// `09/Apr/2015:12:34:56 +0000`.
fn request_time(x: &Exchange<'_>, client: &Client) -> Vec<u8> {
    // `Thu, 09 Apr 2015 12:34:56 GMT`.
    let date = client.shard.clock.date(x.received);
    let part = |range: std::ops::Range<usize>| date.as_ref().get(range).unwrap_or_default().escape_ascii();
    let mut text = Vec::with_capacity(26);
    // Writing to a Vec cannot fail.
    let _ = write!(
        text,
        "{}/{}/{}:{} +0000",
        part(5..7),
        part(8..11),
        part(12..16),
        part(17..25)
    );
    text
}

/// A stage variable, the canary's where the request runs it.
pub fn stage_variable<'x>(x: &'x Exchange<'_>, name: &str) -> Option<&'x str> {
    let plan = &x.stage.as_ref()?.shared.plan;
    let canary = plan.canary.as_ref().filter(|_| x.canary);
    let own = canary.and_then(|canary| canary.variables.get(name));
    own.or_else(|| plan.variables.get(name)).map(|value| &**value)
}

/// The value of a path parameter by its place among the route's, as it was sent (OBV-203).
pub fn path_parameter<'x>(x: &'x Exchange<'_>, name: &str) -> Option<&'x str> {
    let at = x.route()?.parameters().iter().position(|one| **one == *name)?;
    x.capture(at)
}

/// The last value of a query parameter, decoded once as form data (OBV-202, OBV-282).
pub fn query_parameter<'x>(x: &'x Exchange<'_>, name: &[u8]) -> Option<Cow<'x, [u8]>> {
    Some(path::decode(query::last(x.query?, name)?, true))
}
