//! What the heads of all responses have in common.

use super::ids::{ExtendedId, RequestId};
use crate::http::{HeadWriter, Known};
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
    if let Some(out) = head.as_text() {
        let connection: &[u8] = if keep_alive {
            b"\r\nConnection: keep-alive\r\nx-amzn-RequestId: "
        } else {
            b"\r\nConnection: close\r\nx-amzn-RequestId: "
        };
        out.extend_from_slices([
            b"Date: ",
            date,
            connection,
            id,
            b"\r\nx-amz-apigw-id: ",
            extended,
            b"\r\n",
        ]);
    } else {
        head.known(Known::Date, date)
            .unique(Known::XAmznRequestId, id)
            .unique(Known::XAmzApigwId, extended);
    }
}
