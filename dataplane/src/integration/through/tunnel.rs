//! An exchange that ends as a two-way tunnel: the backend has switched protocols, and from then on bytes pass both ways
//! as they come.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use tidegate_plan::PassThrough;
use tidegate_rt as rt;
use tidegate_rt::{Chunk, Instant};

use super::super::http;
use super::super::relay::Answer;
use crate::http::Known;
use crate::net::upstream::Connection;
use crate::pipeline::After;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::response::HEAD_ROOM;
use crate::shard::{Client, Delivery, Shard, Stall};

/// Tells the client of the switch, and carries bytes until both sides have ended, one breaks off, or neither says
/// anything for too long.
pub(super) async fn run(
    x: &mut Exchange<'_>,
    client: &mut Client,
    answer: Answer,
    connection: Box<Connection>,
    pass: PassThrough,
) -> After {
    let Answer { head, rest, .. } = answer;
    let shard = Rc::clone(&client.shard);
    x.keep_alive = false;
    x.outcome.status = head.status();
    let mut response = client.response(head.status(), HEAD_ROOM + 1024, head.fields().len());
    let mut writer = response.head();
    writer
        .field(b"Date", &shard.clock.date(rt::now()))
        .field(b"Connection", b"Upgrade");
    for name in head.fields().all(Known::Upgrade) {
        writer.field(b"Upgrade", name);
    }
    writer
        .field(b"x-amzn-RequestId", &x.request_id)
        .field(b"x-amz-apigw-id", &x.extended_id);
    http::passed(&mut writer, head.fields());
    if pass.via {
        super::via(head.fields(), head.version(), &mut writer);
    }
    client.begin(response, Delivery::Close);
    shard.counters().tunnels.add(1);
    let mut tunnel = Tunnel {
        connection,
        down: Direction::default(),
        up: Direction::default(),
        stall: Stall::default(),
        last: rt::now(),
        bytes_down: 0,
    };
    if let Some(rest) = rest {
        tunnel.pass_down(client, rest);
    }
    client.begin_wait();
    let end = poll_fn(|cx| tunnel.poll(client, &shard, cx)).await;
    x.outcome.length = tunnel.bytes_down;
    match end {
        End::Told | End::Stopped => After::Close,
        End::Broken(why) => {
            if let Some(called) = &mut x.outcome.integration {
                called.error = why;
            }
            After::Reset
        }
    }
}

/// How a tunnel ends.
enum End {
    /// Both sides have ended their direction and were told of the other's end.
    Told,
    /// The shard stops.
    Stopped,
    /// One side broke off, or took too long.
    Broken(&'static str),
}

/// How far one direction has come.
#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Direction {
    #[default]
    Open,
    /// Its source has ended; what it said, and its end, are still to be passed on.
    Ending,
    Ended,
}

struct Tunnel {
    connection: Box<Connection>,
    /// Backend to client.
    down: Direction,
    /// Client to backend.
    up: Direction,
    /// Since when the backend has taken nothing.
    stall: Stall,
    /// When something was last said.
    last: Instant,
    bytes_down: u64,
}

impl Tunnel {
    fn poll(&mut self, client: &mut Client, shard: &Shard, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if shard.stopping() {
                return Poll::Ready(End::Stopped);
            }
            let up = self.poll_up(client, shard, cx);
            let down = self.poll_down(client, shard, cx);
            let moved = match (up, down) {
                (Ok(up), Ok(down)) => up || down,
                (Err(why), _) | (_, Err(why)) => return Poll::Ready(End::Broken(why)),
            };
            if (self.up, self.down) == (Direction::Ended, Direction::Ended) {
                return Poll::Ready(End::Told);
            }
            if moved {
                continue;
            }
            client.timer.set(self.last + shard.bounds.tunnel_idle);
            if client.poll_stalled() {
                return Poll::Ready(End::Broken(
                    "the client takes nothing of what the tunnel has for it",
                ));
            }
            if self.stall.is_over(&mut client.timer, shard) {
                return Poll::Ready(End::Broken(
                    "the backend takes nothing of what the tunnel has for it",
                ));
            }
            if client.timer.poll_elapsed(cx).is_pending() {
                return Poll::Pending;
            }
            if rt::now() >= self.last + shard.bounds.tunnel_idle {
                return Poll::Ready(End::Broken("neither side of the tunnel said anything"));
            }
        }
    }

    /// Client to backend; whether there is reason to look again.
    fn poll_up(
        &mut self,
        client: &mut Client,
        shard: &Shard,
        cx: &mut Context<'_>,
    ) -> Result<bool, &'static str> {
        let io = &mut self.connection.io;
        while self.up == Direction::Open && io.queued() < shard.bounds.window {
            match client.poll_tunnel(cx) {
                Poll::Ready(Ok(Some(chunk))) => {
                    self.last = rt::now();
                    io.queue(chunk);
                }
                Poll::Ready(Ok(None)) => {
                    self.up = Direction::Ending;
                    io.end();
                }
                Poll::Ready(Err(_)) => return Err("the client broke the tunnel off"),
                Poll::Pending => break,
            }
        }
        let full = io.queued() >= shard.bounds.window;
        let sent = io.poll_flush(cx);
        self.stall.note(&sent, || io.queued());
        match sent {
            Poll::Ready(Err(_)) => return Err("the backend broke the tunnel off"),
            Poll::Ready(Ok(())) if self.up == Direction::Ending => {
                io.shutdown_write();
                self.up = Direction::Ended;
            }
            _ => {}
        }
        // Where sending has made room, the source is asked again: nobody would wake us for what it has sent.
        Ok(self.up == Direction::Open && full && io.queued() < shard.bounds.window)
    }

    /// Backend to client; whether there is reason to look again.
    fn poll_down(
        &mut self,
        client: &mut Client,
        shard: &Shard,
        cx: &mut Context<'_>,
    ) -> Result<bool, &'static str> {
        while self.down == Direction::Open && client.queued() < shard.bounds.window {
            match self.connection.io.poll_read(cx) {
                Poll::Ready(Ok(Some(chunk))) => self.pass_down(client, chunk),
                Poll::Ready(Ok(None)) => {
                    self.down = Direction::Ending;
                    client.end_tunnel();
                }
                Poll::Ready(Err(_)) => return Err("the backend broke the tunnel off"),
                Poll::Pending => break,
            }
        }
        let full = client.queued() >= shard.bounds.window;
        match client.poll_send(cx) {
            Poll::Ready(Err(_)) => return Err("the client broke the tunnel off"),
            Poll::Ready(Ok(())) if self.down == Direction::Ending => {
                client.shutdown_tunnel();
                self.down = Direction::Ended;
            }
            _ => {}
        }
        Ok(self.down == Direction::Open && full && client.queued() < shard.bounds.window)
    }

    fn pass_down(&mut self, client: &mut Client, chunk: Chunk) {
        self.last = rt::now();
        self.bytes_down += chunk.len() as u64;
        client.part(chunk);
    }
}
