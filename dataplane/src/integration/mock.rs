//! `MOCK` with a fixed answer.

use tidegate_plan::integration::Mock;
use tidegate_rt as rt;

use crate::http::Known;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::response::{HEAD_ROOM, own};
use crate::pipeline::{After, body as request_body};
use crate::shard::{Client, Delivery};

/// Answers at once; what the client still sends is read and dropped, so that the connection can go on.
pub(super) async fn answer(x: &mut Exchange<'_>, client: &mut Client, mock: &Mock) -> After {
    let mut read = client.discard_received();
    x.keep_alive &= !client.shard.draining();
    if !read && x.keep_alive {
        read = request_body::discard(client).await;
    }
    x.keep_alive &= read && !client.is_finished();
    let status = mock.status.code();
    let body = &*mock.body;
    let mut response = client.response(status, HEAD_ROOM + body.len(), mock.headers.len());
    let mut head = response.head();
    own(
        &mut head,
        &client.shard.clock.date(rt::now()),
        x.keep_alive,
        &x.request_id,
        &x.extended_id,
    );
    let mut typed = false;
    for (name, value) in &mock.headers {
        typed |= name.as_str().eq_ignore_ascii_case("content-type");
        head.field(name.as_str().as_bytes(), value.as_bytes());
    }
    if !typed {
        // QUO-122.
        head.known(
            Known::ContentType,
            mock.content_type
                .as_ref()
                .map_or(b"application/json".as_slice(), |value| value.as_bytes()),
        );
    }
    let has_body = !matches!(status, 204 | 304);
    if has_body {
        head.number(Known::ContentLength, body.len() as u64);
    }
    let length = if has_body && !x.is_head() { body.len() } else { 0 };
    client.begin(response, Delivery::whole(length as u64));
    client.part_from_slice(&body[..length]);
    client.end();
    x.outcome.status = status;
    x.outcome.length = length as u64;
    match (x.keep_alive, read) {
        (true, _) => After::Next,
        (false, true) => After::Close,
        (false, false) => After::Linger,
    }
}
