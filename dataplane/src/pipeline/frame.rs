//! What the head says about the message itself: its body, and whether the client waits to be asked for it.

use super::exchange::Exchange;
use super::failure::Failure;
use crate::http::Framing;
use crate::shard::Client;

/// Prepares the body. The head was checked when it was read.
pub(super) fn frame(x: &mut Exchange<'_>, client: &mut Client) -> Result<(), Failure> {
    let framing = x.head.framing();
    client.begin_body(framing, x.head.expects_continue());
    match framing {
        Framing::Length(length) if length > client.shard.bounds.payload => Err(Failure::TOO_LARGE),
        _ => Ok(()),
    }
}
