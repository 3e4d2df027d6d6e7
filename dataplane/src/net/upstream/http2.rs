//! HTTP/2 towards an upstream (decision D13): connections with many streams each, as many as the table of limits and the
//! backend allow. A connection has a permit like any other, and a task that drives it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use rustls::ClientConfig;
use tidegate_plan::BackendHttp2;
use tidegate_rt as rt;
use tidegate_rt::{Chunk, Instant};

use super::pipe::Pipe;
use super::{ConnectError, Connection, Counted, Helpers, Permit, Upstream, Waiting};
use crate::net::io::Io;
use crate::net::tls::server::HTTP2;

/// Bounds of HTTP/2 towards upstreams, from the table of limits.
#[derive(Debug, Clone, Copy)]
pub struct Http2Limits {
    /// Streams of one connection at a time.
    pub streams: usize,
    /// Bytes of a response's body that nobody has asked for yet.
    pub stream_window: u32,
    /// The same of all streams of a connection together.
    pub connection_window: u32,
    /// Bytes of a request's body that h2 holds.
    pub send_buffer: usize,
    /// A response's head as HTTP/2 counts it.
    pub header_list: u32,
    /// Bytes that wait to be sent on one connection.
    pub queued: usize,
    /// Silence of a backend with open streams before it is asked for a sign of life.
    pub ping_after: Duration,
    /// For that sign to come.
    pub ping_timeout: Duration,
}

/// A shard's HTTP/2 connections to one target.
#[derive(Debug, Default)]
pub(super) struct Multiplexed {
    list: RefCell<Vec<Rc<Session>>>,
    /// One is being opened.
    connecting: Cell<bool>,
    /// The backend has chosen HTTP/1.1 in its last handshake.
    declined: Cell<bool>,
}

/// One connection.
pub(super) struct Session {
    /// Opens streams; gone when no more are to be opened.
    send: RefCell<Option<SendRequest<Chunk>>>,
    open: Cell<usize>,
    /// Since when no stream is open.
    idle_since: Cell<Option<Instant>>,
    waker: RefCell<Waker>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({} streams)", self.open.get())
    }
}

/// The right to open one stream, and its place among the connection's.
#[derive(Debug)]
pub struct Slot {
    /// Opens it.
    pub send: SendRequest<Chunk>,
    /// The connection has carried streams before: the backend may have left it in the meantime.
    pub reused: bool,
    session: Rc<Session>,
    upstream: Rc<Upstream>,
}

/// What a target that may speak HTTP/2 has for a request.
#[derive(Debug)]
pub enum Opened {
    /// A stream.
    Stream(Slot),
    /// It speaks HTTP/1.1: [`Upstream::checkout`] has a connection.
    Http1,
}

impl Upstream {
    /// A place for one stream: on a connection that has room, else on a new one. `again`: for a second attempt.
    ///
    /// # Errors
    /// When none can be had in time.
    pub async fn stream(
        self: &Rc<Self>,
        helpers: &Helpers,
        mode: BackendHttp2,
        again: bool,
    ) -> Result<Opened, ConnectError> {
        if !again {
            self.retries.credit();
        }
        let mut permit = None;
        loop {
            if let Some(slot) = self.take_slot() {
                return Ok(Opened::Stream(slot));
            }
            if mode == BackendHttp2::Alpn && self.http2.declined.get() && !self.idle.borrow().is_empty() {
                return Ok(Opened::Http1);
            }
            if permit.is_none() && !self.is_worth_waiting_for() {
                permit = self.endpoint.try_acquire();
            }
            let permit = match permit.take() {
                Some(permit) => permit,
                None => match self.wait_for_room(helpers).await? {
                    Some(waited) => {
                        permit = Some(waited);
                        continue;
                    }
                    None => continue,
                },
            };
            if self.open_session(helpers, permit, mode).await? == Spoken::Http1 {
                return Ok(Opened::Http1);
            }
        }
    }

    /// Waits for a connection that has room, or for a permit to make one.
    async fn wait_for_room(&self, helpers: &Helpers) -> Result<Option<Permit>, ConnectError> {
        if self.waiters.borrow().len() >= self.limits.max_waiters {
            return Err(ConnectError::Crowded);
        }
        let mut timer = rt::Timer::new();
        // Another request may be connecting.
        timer.set_after(self.limits.pool_wait.max(self.limits.connect));
        let mut place = Waiting::begin(self);
        let won = poll_fn(|cx| {
            if self.has_room() {
                return Poll::Ready(None);
            }
            place.stand(cx.waker());
            if self.is_worth_waiting_for() {
                return Poll::Pending;
            }
            self.endpoint.wait(helpers.shard);
            match self.endpoint.try_acquire() {
                Some(permit) => Poll::Ready(Some(permit)),
                None => Poll::Pending,
            }
        });
        let won = rt::with_deadline(&mut timer, won).await;
        place.served = won.is_ok();
        won.map_err(|_| ConnectError::Exhausted)
    }

    /// Whether a connection is being opened that may have room for more than who opens it.
    fn is_worth_waiting_for(&self) -> bool {
        self.http2.connecting.get() && !self.http2.declined.get()
    }

    fn has_room(&self) -> bool {
        let most = self.limits.http2.streams;
        self.http2
            .list
            .borrow()
            .iter()
            .any(|session| session.has_room(most))
    }

    /// A place on the first connection that has one: the others may grow idle.
    fn take_slot(self: &Rc<Self>) -> Option<Slot> {
        let most = self.limits.http2.streams;
        let mut list = self.http2.list.borrow_mut();
        list.retain(|session| session.is_open());
        let session = list.iter().find(|session| session.has_room(most))?;
        let send = session.send.borrow().clone()?;
        let session = Rc::clone(session);
        drop(list);
        let reused = session.begin();
        let slot = Slot {
            send,
            reused,
            session,
            upstream: Rc::clone(self),
        };
        // Those who wait behind may find room too.
        if self.has_room() {
            self.wake_one();
        }
        Some(slot)
    }

    /// Connects, and begins to speak HTTP/2 if that is what was agreed on.
    async fn open_session(
        self: &Rc<Self>,
        helpers: &Helpers,
        permit: Permit,
        mode: BackendHttp2,
    ) -> Result<Spoken, ConnectError> {
        let connecting = Connecting::begin(self);
        // Boxed for the reason that `checkout` has.
        let offer = self.tls_http2.as_ref();
        let connection = Box::pin(self.connect(helpers, permit, offer, None)).await?;
        helpers.counters.upstream_connects.add(1);
        let agreed = match &connection.io {
            Io::Plain(_) => None,
            Io::Tls(stream) => stream.alpn_protocol().map(|name| name == HTTP2),
        };
        let speaks = agreed.unwrap_or(mode == BackendHttp2::PriorKnowledge);
        self.http2.declined.set(!speaks);
        if !speaks {
            self.check_in(connection, helpers);
            return Ok(Spoken::Http1);
        }
        let Connection {
            io, counted, _permit, ..
        } = *connection;
        let limits = &self.limits.http2;
        let pipe = Pipe::new(io, limits.queued);
        // Writes the preface, and waits for nothing.
        let (send, h2) = builder(limits)
            .handshake::<_, Chunk>(pipe.clone())
            .await
            .map_err(|error| ConnectError::Refused(std::io::Error::other(error)))?;
        let session = Rc::new(Session {
            send: RefCell::new(Some(send)),
            open: Cell::new(0),
            idle_since: Cell::new(None),
            waker: RefCell::new(Waker::noop().clone()),
        });
        self.http2.list.borrow_mut().push(Rc::clone(&session));
        let driver = Driver {
            h2,
            ping: None,
            pinged: None,
            pipe,
            session,
            limits: *limits,
            idle: self.limits.idle,
            timer: rt::Timer::new(),
            counted,
            _permit,
        };
        drop(rt::spawn(driver.run()));
        drop(connecting);
        Ok(Spoken::Http2)
    }

    /// Closes the HTTP/2 connections without streams, and lets the others end with their last.
    pub(super) fn close_sessions(&self) {
        for session in self.http2.list.take() {
            session.close();
        }
    }

    /// Closes an HTTP/2 connection without streams, for a shard that has none.
    pub(super) fn yield_session(&self) {
        let mut list = self.http2.list.borrow_mut();
        if let Some(at) = list.iter().position(|session| session.open.get() == 0) {
            list.remove(at).close();
        }
    }

    /// Whether the target has been spoken to in HTTP/2.
    pub(super) fn has_sessions(&self) -> bool {
        !self.http2.list.borrow().is_empty()
    }
}

#[derive(PartialEq, Eq)]
enum Spoken {
    Http2,
    Http1,
}

/// While it lives, others wait for what is being opened.
struct Connecting<'u>(&'u Upstream);

impl<'u> Connecting<'u> {
    fn begin(upstream: &'u Upstream) -> Self {
        upstream.http2.connecting.set(true);
        Connecting(upstream)
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.http2.connecting.set(false);
        self.0.wake_one();
    }
}

/// The configuration that offers HTTP/2 before HTTP/1.1. Multiplexed are shared: what is resumed is TLS, not HTTP.
pub(super) fn offering(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols.insert(0, HTTP2.to_vec());
    Arc::new(config)
}

fn builder(limits: &Http2Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(limits.streams)
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_header_list_size(limits.header_list)
        .max_send_buffer_size(limits.send_buffer);
    builder
}

impl Session {
    /// Whether streams may be opened: the backend has not told us to go (GOAWAY), nor has the connection ended.
    fn is_open(&self) -> bool {
        let mut send = self.send.borrow_mut();
        let mut cx = Context::from_waker(Waker::noop());
        send.as_mut()
            .is_some_and(|send| !matches!(send.poll_ready(&mut cx), Poll::Ready(Err(_))))
    }

    fn has_room(&self, most: usize) -> bool {
        let allowed = self
            .send
            .borrow()
            .as_ref()
            .map_or(0, SendRequest::current_max_send_streams);
        self.open.get() < most.min(allowed) && self.is_open()
    }

    /// Takes a place; whether others have had one before.
    fn begin(&self) -> bool {
        let reused = self.open.get() > 0 || self.idle_since.get().is_some();
        self.open.set(self.open.get() + 1);
        self.idle_since.set(None);
        reused
    }

    /// Has no more streams opened; the connection ends with its last.
    fn close(&self) {
        drop(self.send.take());
        self.waker.borrow().wake_by_ref();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let left = self.session.open.get() - 1;
        self.session.open.set(left);
        if left == 0 {
            self.session.idle_since.set(Some(rt::now()));
            self.session.waker.borrow().wake_by_ref();
        }
        self.upstream.wake_one();
    }
}

/// What drives a connection.
struct Driver {
    h2: h2::client::Connection<Pipe, Chunk>,
    ping: Option<PingPong>,
    /// Since when a sign of life is waited for.
    pinged: Option<Instant>,
    pipe: Pipe,
    session: Rc<Session>,
    limits: Http2Limits,
    idle: Duration,
    timer: rt::Timer,
    counted: Counted,
    _permit: Permit,
}

impl Driver {
    async fn run(mut self) {
        self.ping = self.h2.ping_pong();
        poll_fn(|cx| self.poll(cx)).await;
        // No more streams, before those that are open hear of the end and are tried again.
        self.session.close();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.session.waker.borrow_mut().clone_from(cx.waker());
        loop {
            if self.pipe.resume(cx).is_err() {
                return Poll::Ready(());
            }
            let polled = Pin::new(&mut self.h2).poll(cx);
            self.pipe.settle(cx);
            if let Poll::Ready(end) = polled {
                if let Err(error) = end {
                    tracing::debug!(%error, "an HTTP/2 connection to a backend ended");
                }
                return Poll::Ready(());
            }
            self.counted.set_idle(self.session.open.get() == 0);
            match self.poll_time(cx) {
                Poll::Ready(true) => return Poll::Ready(()),
                // Something is to be said: once more.
                Poll::Ready(false) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Looks at what may have taken too long: ready with whether the connection is dead.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let now = rt::now();
        let deadline = match self.session.idle_since.get() {
            Some(since) if self.session.open.get() == 0 => {
                self.pinged = None;
                let late = since + self.idle;
                if now >= late && self.session.send.borrow().is_some() {
                    self.session.close();
                    return Poll::Ready(false);
                }
                late
            }
            _ => match self.poll_life(cx, now) {
                Ok(deadline) => deadline,
                Err(end) => return Poll::Ready(end),
            },
        };
        if now >= deadline {
            // Closed, and the backend has yet to take notice.
            self.timer.clear();
            return Poll::Pending;
        }
        self.timer.set(deadline);
        self.timer.poll_elapsed(cx).map(|()| false)
    }

    /// Asks a backend with open streams that has been silent for a sign of life; until when that, or silence, may last.
    fn poll_life(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Instant, bool> {
        let heard = self.pipe.heard();
        let Some(ping) = &mut self.ping else {
            return Ok(now + self.limits.ping_after);
        };
        if self.pinged.is_some() && ping.poll_pong(cx).is_ready() {
            self.pinged = None;
        }
        match self.pinged {
            Some(since) => {
                // Whatever it says is a sign; but one that is silent again has missed its answer.
                let silent = if heard < since {
                    since
                } else {
                    heard + self.limits.ping_after
                };
                let late = silent + self.limits.ping_timeout;
                if now >= late {
                    tracing::debug!("a backend does not answer pings");
                    return Err(true);
                }
                Ok(late)
            }
            None if now >= heard + self.limits.ping_after => match ping.send_ping(Ping::opaque()) {
                Ok(()) => {
                    self.pinged = Some(now);
                    Err(false)
                }
                Err(_) => Err(true),
            },
            None => Ok(heard + self.limits.ping_after),
        }
    }
}
