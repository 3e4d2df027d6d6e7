//! What the heads of all responses have in common.

use tidegate_rt as rt;
use tidegate_rt::Chunk;

use super::After;
use super::exchange::Exchange;
use super::ids::{ExtendedId, RequestId};
use crate::http::{HeadWriter, Known};
use crate::shard::clock::HttpDate;
use crate::shard::{Client, Delivery};

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

/// A response whose body is there whole.
pub struct Whole<'a> {
    /// The status.
    pub status: u16,
    /// The media type; `None` where a header of its own says it.
    pub media_type: Option<&'a [u8]>,
    /// The body.
    pub body: &'a Chunk,
    /// Bytes that headers beside those of every response take.
    pub room: usize,
    /// How many those are.
    pub fields: usize,
}

/// Bodies up to this many bytes are copied behind their head, so that one buffer carries both.
const COPIED: usize = 8 * 1024;

impl Whole<'_> {
    /// Sends the response. `read`: the request has been read to its end. `headers` writes what the response has beside
    /// what every response has.
    pub fn send(
        self,
        x: &mut Exchange<'_>,
        client: &mut Client,
        read: bool,
        headers: impl FnOnce(&mut HeadWriter<'_>),
    ) -> After {
        x.keep_alive &= read && !client.is_finished() && !client.shard.draining();
        let status = self.status;
        // RFC 9110 section 8.6: these have no body, and no length of one.
        let has_body = !matches!(status, 204 | 304);
        let copied = if self.body.len() <= COPIED {
            self.body.len()
        } else {
            0
        };
        let mut response = client.response(status, HEAD_ROOM + self.room + copied, self.fields);
        let mut head = response.head();
        own(
            &mut head,
            &client.shard.clock.date(rt::now()),
            x.keep_alive,
            &x.request_id,
            &x.extended_id,
        );
        headers(&mut head);
        if let Some(media_type) = self.media_type.filter(|_| has_body) {
            head.known(Known::ContentType, media_type);
        }
        if has_body {
            head.number(Known::ContentLength, self.body.len() as u64);
        }
        let length = if has_body && !x.is_head() {
            self.body.len()
        } else {
            0
        };
        client.begin(response, Delivery::whole(length as u64));
        if length > 0 {
            if copied > 0 {
                client.part_from_slice(self.body);
            } else {
                client.part(self.body.clone());
            }
        }
        client.end();
        x.outcome.status = status;
        x.outcome.length = length as u64;
        match (x.keep_alive, read) {
            (true, _) => After::Next,
            (false, true) => After::Close,
            (false, false) => After::Linger,
        }
    }
}
