//! What the heads of all responses have in common.

use super::ids::{ExtendedId, RequestId};
use crate::http::HeadWriter;
use crate::shard::clock::HttpDate;

/// Room that the head of one of our own responses takes, headers of overrides aside.
pub const HEAD_ROOM: usize = 512;

/// Writes the headers that every response carries (GWR-017, GWR-018, OBV-264).
pub fn own(
    head: &mut HeadWriter<'_>,
    date: &HttpDate,
    keep_alive: bool,
    id: &RequestId,
    extended: &ExtendedId,
) {
    head.field(b"Date", date)
        .field(b"Connection", if keep_alive { b"keep-alive" } else { b"close" })
        .field(b"x-amzn-RequestId", id)
        .field(b"x-amz-apigw-id", extended);
}
