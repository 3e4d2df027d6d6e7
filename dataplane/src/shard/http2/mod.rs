//! HTTP/2 towards clients: one task drives a connection, and one each of its streams, all on the connection's shard.
//!
//! The `h2` crate keeps the protocol's state; `pipe` carries its bytes and counts frames as they arrive (`meter`);
//! a `stream` is a client like any other to the pipeline.

mod meter;
mod pipe;
mod stream;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tidegate_rt as rt;
use tidegate_rt::{Chunk, Instant};

pub use meter::Allowances;
pub(crate) use meter::Meter;
pub(super) use stream::Http2;

use super::bounds::Http2Bounds;
use super::client::{AddressText, Client, Identity, Origin, Wire};
use super::http1::linger;
use super::{Registered, Shard, connection};
use crate::http::Compression;
use crate::net::io::Io;
use pipe::Pipe;

/// Serves a connection to its end. The client's preface is still to be read.
pub(super) async fn run(
    shard: Rc<Shard>,
    io: Io,
    _place: Registered,
    origin: Origin,
    identity: Option<Rc<Identity>>,
) {
    shard.counters().http2_connections.add(1);
    let bounds = &shard.bounds;
    let pipe = Pipe::new(io, bounds.http2.allowances, bounds.window);
    let mut timer = rt::Timer::new();
    let Some(h2) = handshake(&shard, &pipe, &mut timer).await else {
        return;
    };
    let mut driver = Driver {
        h2,
        pipe,
        shard,
        origin,
        peer_text: AddressText::of(origin.peer.ip()),
        identity,
        open: Rc::default(),
        introduced: None,
        timer,
        idle_since: None,
        fresh: true,
        yields: false,
        leaving: false,
        aborted: false,
    };
    let end = poll_fn(|cx| driver.poll(cx)).await;
    driver.close(end).await;
}

/// Exchanges prefaces (RFC 9113 section 3.4).
async fn handshake(shard: &Shard, pipe: &Pipe, timer: &mut rt::Timer) -> Option<Connection<Pipe, Chunk>> {
    let mut handshake = builder(&shard.bounds.http2).handshake(pipe.clone());
    timer.set_after(shard.bounds.head);
    let shaken = poll_fn(|cx| {
        if shard.closing_idle() {
            return Poll::Ready(None);
        }
        let _ = pipe.resume(cx);
        let polled = Pin::new(&mut handshake).poll(cx);
        pipe.settle(cx);
        polled.map(Result::ok)
    });
    rt::with_deadline(timer, shaken).await.ok().flatten()
}

fn builder(bounds: &Http2Bounds) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(bounds.streams)
        .initial_window_size(bounds.stream_window)
        .initial_connection_window_size(bounds.connection_window)
        .max_header_list_size(bounds.header_list)
        .max_send_buffer_size(bounds.send_buffer)
        .data_frame_budget(bounds.small_data)
        .max_local_error_reset_streams(Some(bounds.stream_errors))
        .max_pending_accept_reset_streams(bounds.resets);
    builder
}

/// Names stay in the table of compression until younger entries push them out: of those there is one a second at least,
/// the date, and some sixty have room. Older entries of a name are compared with each response that has it, so there are
/// to be few.
const INTRODUCE_AFTER: Duration = Duration::from_secs(20);

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Both sides know.
    Told,
    /// The client takes nothing, or cannot be reached.
    Lost,
    /// The shard stops.
    Stopped,
}

/// What drives a connection.
struct Driver {
    h2: Connection<Pipe, Chunk>,
    pipe: Pipe,
    shard: Rc<Shard>,
    origin: Origin,
    peer_text: AddressText,
    identity: Option<Rc<Identity>>,
    open: Rc<Open>,
    /// When a response last gave the compression the names whose values it is otherwise spared.
    introduced: Option<Instant>,
    timer: rt::Timer,
    /// Since when no stream is open.
    idle_since: Option<Instant>,
    /// No stream has come yet.
    fresh: bool,
    /// Another connection waits for its place.
    yields: bool,
    /// The client has been told to open no more streams.
    leaving: bool,
    /// The client has been told that everything ends.
    aborted: bool,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.open.note(cx.waker());
        loop {
            if self.shard.stopping() {
                return Poll::Ready(End::Stopped);
            }
            if self.pipe.resume(cx).is_err() {
                return Poll::Ready(End::Lost);
            }
            self.leave_when_asked();
            let polled = self.poll_h2(cx);
            self.pipe.settle(cx);
            if polled.is_ready() {
                return Poll::Ready(End::Told);
            }
            match self.poll_time(cx) {
                Poll::Ready(Some(end)) => return Poll::Ready(end),
                // Something is to be said: once more.
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Moves the protocol on and starts what streams have come; ready when it has ended.
    fn poll_h2(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.accept(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(peer = %self.origin.peer, %error, "an HTTP/2 connection ended");
                    if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        self.shard.counters().http2_floods.add(1);
                    }
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => match self.pipe.refused() {
                    Some(refused) if !self.aborted => {
                        tracing::debug!(peer = %self.origin.peer, ?refused, "an HTTP/2 connection is ended");
                        if refused.reason() == Reason::ENHANCE_YOUR_CALM {
                            self.shard.counters().http2_floods.add(1);
                        }
                        self.abort(refused.reason());
                    }
                    _ => return Poll::Pending,
                },
            }
        }
    }

    fn accept(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Chunk>) {
        let shard = &self.shard;
        let bounds = &shard.bounds;
        if shard.http2_streams.get() >= bounds.http2.shard_streams {
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        shard.counters().http2_streams.add(1);
        let now = rt::now();
        let compression = match self.introduced {
            Some(at) if now.saturating_duration_since(at) < INTRODUCE_AFTER => Compression::Spare,
            _ => Compression::Introduce,
        };
        if compression == Compression::Introduce {
            self.introduced = Some(now);
        }
        let stream = Http2::new(request, respond, &bounds.request_head, compression);
        let client = Client::of_peer(
            Rc::clone(shard),
            self.origin,
            self.peer_text,
            self.identity.clone(),
            Wire::Http2(Box::new(stream)),
        );
        let guard = OpenStream::new(&self.open, shard);
        self.fresh = false;
        // On the heap before it goes through the hands of the runtime.
        drop(rt::spawn(Box::pin(async move {
            let _guard = guard;
            connection::serve(client).await;
        })));
    }

    /// Tells the client to go where the shard drains or the connection makes room for another.
    fn leave_when_asked(&mut self) {
        if let Some(since) = self.idle_since
            && !self.leaving
            && self.open.count.get() == 0
        {
            self.yields = self.shard.yields_place(since, self.fresh);
        }
        if self.yields || self.shard.draining() {
            self.leave();
        }
    }

    /// Lets the streams finish that are open, and no more begin (RFC 9113 section 6.8).
    fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            if !self.yields {
                // However long no stream has been open: what the client sends before it knows is still taken.
                self.idle_since = None;
            }
            self.h2.graceful_shutdown();
        }
    }

    fn abort(&mut self, reason: Reason) {
        self.aborted = true;
        self.h2.abrupt_shutdown(reason);
    }

    /// Looks at what may have taken too long: ready with an end, or with nothing where something is to be said first.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let now = rt::now();
        let bounds = &self.shard.bounds;
        self.timer.clear();
        if self.pipe.is_stalled(&mut self.timer, &self.shard) {
            return Poll::Ready(Some(End::Lost));
        }
        if self.aborted {
            // Only the sending of that is left.
            return self.timer.poll_elapsed(cx).map(|()| Some(End::Lost));
        }
        let mut deadline: Option<Instant> = self.timer.deadline();
        let mut sooner = |at: Instant| deadline = Some(deadline.map_or(at, |set| set.min(at)));
        if let Some(since) = self.pipe.head_since() {
            let late = since + bounds.head;
            if now >= late {
                tracing::debug!(peer = %self.origin.peer, "a client takes too long to send a head");
                self.abort(Reason::ENHANCE_YOUR_CALM);
                return Poll::Ready(None);
            }
            sooner(late);
        }
        if self.open.count.get() > 0 {
            self.idle_since = None;
        } else {
            let since = *self.idle_since.get_or_insert(now);
            let patience = if self.leaving {
                bounds.linger
            } else {
                bounds.keep_alive
            };
            let late = since + patience;
            if now >= late {
                if self.leaving {
                    self.abort(Reason::NO_ERROR);
                } else {
                    self.leave();
                }
                return Poll::Ready(None);
            }
            sooner(late);
        }
        match deadline {
            Some(at) => self.timer.set(at),
            None => self.timer.clear(),
        }
        self.timer.poll_elapsed(cx).map(|()| None)
    }

    /// Ends the streams that are open and then the connection.
    async fn close(self, end: End) {
        let Self {
            h2,
            pipe,
            shard,
            open,
            mut timer,
            yields,
            ..
        } = self;
        // Streams hear of it by this.
        drop(h2);
        poll_fn(|cx| {
            open.note(cx.waker());
            if open.count.get() == 0 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        match (pipe.into_io(), end) {
            (Some((mut io, finished)), End::Told) => {
                // Nothing of an idle connection is under way that the client could miss: its place is free at once.
                linger(&mut io, &shard, &mut timer, finished || yields).await;
            }
            (Some((io, _)), End::Lost) => io.reset(),
            (_, End::Stopped) | (None, _) => {}
        }
    }
}

/// The streams of a connection that are being served.
#[derive(Default)]
struct Open {
    count: Cell<usize>,
    /// Wakes the connection when the last has ended.
    waker: RefCell<Option<Waker>>,
}

impl Open {
    fn note(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }
}

/// Counts a stream for as long as it is served, a panic included.
struct OpenStream {
    open: Rc<Open>,
    shard: Rc<Shard>,
}

impl OpenStream {
    fn new(open: &Rc<Open>, shard: &Rc<Shard>) -> Self {
        open.count.set(open.count.get() + 1);
        shard.http2_streams.set(shard.http2_streams.get() + 1);
        Self {
            open: Rc::clone(open),
            shard: Rc::clone(shard),
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.shard.http2_streams.set(self.shard.http2_streams.get() - 1);
        let left = self.open.count.get() - 1;
        self.open.count.set(left);
        if left == 0
            && let Some(waker) = &*self.open.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }
}
