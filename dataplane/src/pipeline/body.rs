//! A request's body taken whole, for phases that must see all of it before anything else happens; or dropped.

use std::future::poll_fn;
use std::task::Poll;

use tidegate_rt::{Buffer, Chunk};

use super::exchange::Exchange;
use crate::http::Framing;
use crate::shard::{Client, Gone};

/// Room that is made for a body before any of it has come: what a head promises costs nothing to promise.
const FIRST_ROOM: u64 = 64 * 1024;

/// Takes the body whole, into [`Exchange::body`]. The first call reads it; a body that was taken stays.
///
/// # Errors
/// Where the client goes, sends something else than its head says, too much (`payload-bytes`), or takes too long
/// between two parts (`body-idle-timeout`).
pub async fn take(x: &mut Exchange<'_>, client: &mut Client) -> Result<(), Gone> {
    if x.body.is_some() {
        return Ok(());
    }
    let room = match client.framing {
        Framing::Empty => {
            x.body = Some(Chunk::default());
            return Ok(());
        }
        Framing::Length(length) => length.min(FIRST_ROOM),
        Framing::Chunked | Framing::UntilClose => 0,
    };
    let mut parts = Parts::new(usize::try_from(room).unwrap_or(0));
    read(client, |part| parts.add(part)).await?;
    x.body = Some(parts.finish());
    Ok(())
}

/// Reads the rest of the body and drops it; whether it ended as it should.
pub async fn discard(client: &mut Client) -> bool {
    read(client, |_| {}).await.is_ok()
}

/// Reads the body to its end, while what is queued for the client is sent.
async fn read(client: &mut Client, mut each: impl FnMut(Chunk)) -> Result<(), Gone> {
    let limit = client.shard.bounds.body_idle;
    client.timer.set_after(limit);
    poll_fn(|cx| {
        if client.shard.stopping() {
            return Poll::Ready(Err(Gone::Stopped));
        }
        loop {
            match client.poll_body(cx) {
                Poll::Ready(Ok(Some(part))) => {
                    each(part);
                    client.timer.set_after(limit);
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(gone)) => return Poll::Ready(Err(gone)),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(_)) = client.poll_send(cx) {
            return Poll::Ready(Err(Gone::Aborted));
        }
        client.timer.poll_elapsed(cx).map(|()| Err(Gone::TooSlow))
    })
    .await
}

/// Parts of a body on their way to being one; the only part of a small one is not copied.
pub struct Parts {
    first: Option<Chunk>,
    joined: Option<Buffer>,
    room: usize,
}

impl Parts {
    /// No parts yet. `room`: bytes that are likely to come.
    pub fn new(room: usize) -> Self {
        Self {
            first: None,
            joined: None,
            room,
        }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        match (&self.joined, &self.first) {
            (Some(joined), _) => joined.len(),
            (None, Some(first)) => first.len(),
            (None, None) => 0,
        }
    }

    /// Adds a part behind the others.
    pub fn add(&mut self, part: Chunk) {
        if let Some(joined) = &mut self.joined {
            joined.reserve(part.len());
            joined.extend_from_slice(&part);
            return;
        }
        let Some(first) = &mut self.first else {
            self.first = Some(part);
            return;
        };
        if let Err(part) = first.try_join(part) {
            let mut joined = Buffer::with_capacity(self.room.max(first.len() + part.len()));
            joined.extend_from_slice(first);
            joined.extend_from_slice(&part);
            self.first = None;
            self.joined = Some(joined);
        }
    }

    /// All of them in one piece.
    pub fn finish(self) -> Chunk {
        match (self.joined, self.first) {
            (Some(joined), _) => joined.freeze(),
            (None, Some(first)) => first,
            (None, None) => Chunk::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_one() {
        let mut parts = Parts::new(0);
        assert_eq!(parts.bytes(), 0);
        for part in ["one", "", "two", "three"] {
            parts.add(Chunk::copy_from_slice(part.as_bytes()));
        }
        assert_eq!(parts.bytes(), 11);
        assert_eq!(&parts.finish()[..], b"onetwothree");
        assert!(Parts::new(10).finish().is_empty());
    }
}
