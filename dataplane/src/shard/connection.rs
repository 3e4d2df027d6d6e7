//! One client connection: TLS if there is any, then requests one after the other until one side ends it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;
use tidegate_rt as rt;
use tidegate_rt::{Chunk, Instant};

use super::accept::Slot;
use super::{Protocol, Registered, Shard};
use crate::http::{Decoded, Decoder, Framing, RequestError, RequestHead, Scanner};
use crate::net::io::Io;
use crate::net::tls::{Certificates, TlsStream};
use crate::pipeline::failure::Failure;
use crate::pipeline::{self, After};

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The peer, from TCP and nothing else (OBS-087).
    pub peer: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// Both ends are on this machine's loopback.
    pub loopback: bool,
    /// The port it came in by.
    pub port: u16,
}

/// What a TLS connection was made for (decision D18).
#[derive(Debug)]
pub struct Identity {
    /// The name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// The certificates of that moment.
    pub certificates: Arc<Certificates>,
}

/// A client's connection, as the life of a request sees it.
pub struct Client {
    /// Its bytes.
    pub io: Io,
    /// The shard it lives on.
    pub shard: Rc<Shard>,
    /// Where it comes from.
    pub origin: Origin,
    /// What its TLS was made for.
    pub identity: Option<Identity>,
    /// Bytes received and not yet understood: the rest of a body, or the next requests.
    pub input: Option<Chunk>,
    /// The body of the current request.
    pub body: Decoder,
    /// How the body of the current request ends.
    pub framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The client has ended its direction.
    pub finished: bool,
    /// Wakes the connection when something takes too long.
    pub timer: rt::Timer,
    place: Registered,
    stalled: Option<(Instant, usize)>,
    peer_text: SmallVec<[u8; 46]>,
}

/// Why the client's side of an exchange ended early.
#[derive(Debug)]
pub enum Gone {
    /// It reset the connection, or ended it within a body.
    Aborted,
    /// Its body is not what its head says.
    Malformed,
    /// Its body is over the bound.
    TooLarge,
    /// It took too long to send its body.
    TooSlow,
    /// The shard stops.
    Stopped,
}

enum Next {
    Request(RequestHead),
    Refuse(Failure),
    Close,
}

/// Serves a connection to its end.
pub(super) async fn run(shard: Rc<Shard>, stream: rt::Stream, origin: Origin, _slot: Slot) {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let place = Registered::new(&shard, waker);
    let Some(mut client) = Client::open(shard, place, stream, origin).await else {
        return;
    };
    let mut first = true;
    loop {
        let after = match client.next(first).await {
            // On the heap while there is a request: what it needs is most of what a connection would hold when idle.
            Next::Request(head) => Box::pin(pipeline::serve(&mut client, head)).await,
            Next::Refuse(failure) => pipeline::refuse(&mut client, failure),
            Next::Close => After::Close,
        };
        first = false;
        match after {
            After::Next => {}
            After::Close => return client.close().await,
            After::Linger => return client.linger().await,
            After::Truncated => return client.truncate().await,
            After::Reset => return client.io.reset(),
        }
    }
}

impl Client {
    async fn open(shard: Rc<Shard>, place: Registered, stream: rt::Stream, origin: Origin) -> Option<Self> {
        let mut timer = rt::Timer::new();
        let (io, identity) = match origin.protocol {
            Protocol::Http => (Io::Plain(stream), None),
            Protocol::Https => {
                timer.set_after(shard.bounds.handshake);
                // On the heap for as long as it lasts.
                let (stream, identity) = Box::pin(handshake(&shard, stream, &mut timer)).await?;
                (Io::Tls(Box::new(stream)), Some(identity))
            }
        };
        Some(Self {
            io,
            origin,
            identity,
            input: None,
            body: Decoder::new(Framing::Empty, &shard.limits),
            framing: Framing::Empty,
            expects_continue: false,
            finished: false,
            timer,
            place,
            stalled: None,
            peer_text: origin.peer.ip().to_string().into_bytes().into(),
            shard,
        })
    }

    /// The next request's head. Sends what is queued before it waits, so that the answers to pipelined requests that
    /// need no waiting leave together.
    async fn next(&mut self, first: bool) -> Next {
        let shard = Rc::clone(&self.shard);
        let generation = shard.idle_generation();
        let bounds = &shard.bounds;
        self.begin_wait();
        let mut scanner = Scanner::new();
        let mut begun = false;
        let mut limit = if first { bounds.head } else { bounds.keep_alive };
        loop {
            if let Some(input) = &self.input
                && self.io.queued() < bounds.window
            {
                match scanner.advance(input, &bounds.request_head, true) {
                    Ok(Some(length)) => {
                        let bytes = self.take(length);
                        return match RequestHead::parse(bytes, &bounds.request_head) {
                            Ok(head) => Next::Request(head),
                            Err(error) => Next::Refuse(refusal(error)),
                        };
                    }
                    Ok(None) if self.finished => return Next::Close,
                    Ok(None) => {
                        if !begun && scanner.has_begun() {
                            begun = true;
                            limit = bounds.head;
                            self.timer.set_after(limit);
                        }
                    }
                    Err(error) => return Next::Refuse(refusal(error.into())),
                }
            } else if self.finished && self.input.is_none() {
                return Next::Close;
            } else if !begun {
                self.timer.set_after(limit);
            }
            let full = self.io.queued() >= bounds.window;
            let waited = poll_fn(|cx| {
                let idle = !begun && !full;
                if shard.stopping() || (idle && (shard.draining() || shard.idle_generation() != generation)) {
                    return Poll::Ready(Err(Waited::Close));
                }
                match self.poll_send(cx) {
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Waited::Close)),
                    Poll::Ready(Ok(())) if full => return Poll::Ready(Ok(())),
                    _ => {}
                }
                // Read when all is sent, which is at once as a rule: by then the next request may be there.
                if self.io.queued() == 0 || self.io.queued() < bounds.window && self.place.waits_long() {
                    match self.poll_receive(cx) {
                        Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(Waited::Close)),
                        Poll::Pending => {}
                    }
                }
                if self.poll_stalled() {
                    return Poll::Ready(Err(Waited::Close));
                }
                match self.timer.poll_elapsed(cx) {
                    Poll::Ready(()) if begun => Poll::Ready(Err(Waited::TooSlow)),
                    Poll::Ready(()) => Poll::Ready(Err(Waited::Close)),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
            match waited {
                Ok(()) => {}
                Err(Waited::Close) => return Next::Close,
                Err(Waited::TooSlow) => return Next::Refuse(Failure::REQUEST_TIMED_OUT),
            }
        }
    }

    fn take(&mut self, count: usize) -> Chunk {
        let Some(mut input) = self.input.take() else {
            return Chunk::default();
        };
        let front = input.split_to(count);
        if !input.is_empty() {
            self.input = Some(input);
        }
        front
    }

    /// Reads more into `input`; notes the client's end of sending.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.finished {
            return Poll::Pending;
        }
        match ready!(self.io.poll_read(cx)) {
            Ok(Some(chunk)) => {
                self.append(chunk);
                Poll::Ready(Ok(()))
            }
            Ok(None) => {
                self.finished = true;
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn append(&mut self, chunk: Chunk) {
        let Some(input) = &mut self.input else {
            self.input = Some(chunk);
            return;
        };
        // Reads that follow each other lie side by side as a rule; else the parts are copied together.
        if let Err(chunk) = input.try_join(chunk) {
            let mut joined = rt::Buffer::with_capacity(input.len() + chunk.len());
            joined.extend_from_slice(input);
            joined.extend_from_slice(&chunk);
            *input = joined.freeze();
        }
    }

    /// The peer's address as text.
    pub fn peer_text(&self) -> &[u8] {
        &self.peer_text
    }

    /// Prepares for the body of a request.
    pub fn begin_body(&mut self, framing: Framing, expects_continue: bool) {
        self.body = Decoder::new(framing, &self.shard.limits);
        self.framing = framing;
        self.expects_continue = expects_continue && !self.body.is_done();
    }

    /// The next part of the request's body; `None` at its end. Asks for it first where the client waits to be asked.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Gone>> {
        if self.body.is_done() {
            return Poll::Ready(Ok(None));
        }
        if self.expects_continue {
            self.expects_continue = false;
            // A client that has begun to send does not wait any more (RFC 9110 section 10.1.1).
            if self.input.is_none() {
                self.io
                    .queue(Chunk::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
            }
        }
        loop {
            if let Some(input) = &mut self.input {
                let decoded = self.body.decode(input);
                if input.is_empty() {
                    self.input = None;
                }
                match decoded {
                    Ok(Decoded::Data(chunk)) => {
                        if self.body.received() > self.shard.bounds.payload {
                            return Poll::Ready(Err(Gone::TooLarge));
                        }
                        return Poll::Ready(Ok(Some(chunk)));
                    }
                    Ok(Decoded::End) => return Poll::Ready(Ok(None)),
                    Ok(Decoded::More) => {}
                    Err(_) => return Poll::Ready(Err(Gone::Malformed)),
                }
            }
            if self.finished {
                return Poll::Ready(Err(Gone::Aborted));
            }
            if ready!(self.poll_receive(cx)).is_err() {
                return Poll::Ready(Err(Gone::Aborted));
            }
        }
    }

    /// Discards what has arrived of the request's body; whether that was all of it.
    pub fn discard_received(&mut self) -> bool {
        while !self.body.is_done()
            && let Some(input) = &mut self.input
        {
            let decoded = self.body.decode(input);
            if input.is_empty() {
                self.input = None;
            }
            match decoded {
                Ok(Decoded::Data(_)) => {}
                Ok(_) => break,
                Err(_) => return false,
            }
        }
        self.body.is_done()
    }

    /// Begins to wait for something else than before: see [`Client::waits_long`].
    pub fn begin_wait(&self) {
        self.place.rests();
    }

    /// Whether the current wait has become a long one (`watch-delay`), so that it pays to look at what matters in long
    /// ones only. The task is woken when it has.
    pub fn waits_long(&self) -> bool {
        self.place.waits_long()
    }

    /// Watches the client while it has nothing to say and the wait is a long one: reads ahead a little, notes its end,
    /// and tells when it is gone.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        if self.shard.stopping() {
            return Poll::Ready(Gone::Stopped);
        }
        if !self.place.waits_long() {
            return Poll::Pending;
        }
        while self.input.as_ref().is_none_or(|input| input.len() < READ_AHEAD) && !self.finished {
            match self.poll_receive(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Gone::Aborted),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    /// Sends what is queued, and notes since when nothing of it has been taken.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.io.poll_flush(cx) {
            Poll::Ready(result) => {
                self.stalled = None;
                Poll::Ready(result)
            }
            Poll::Pending => {
                let left = self.io.queued();
                match self.stalled {
                    Some((_, before)) if before == left => {}
                    _ => self.stalled = Some((rt::now(), left)),
                }
                Poll::Pending
            }
        }
    }

    /// Whether the client has taken nothing for too long. Moves the timer closer where that comes first.
    pub fn poll_stalled(&mut self) -> bool {
        let Some((since, _)) = self.stalled else {
            return false;
        };
        let deadline = since + self.shard.bounds.write_stall;
        if rt::now() >= deadline {
            return true;
        }
        if self.timer.deadline().is_none_or(|set| set > deadline) {
            self.timer.set(deadline);
        }
        false
    }

    /// Sends what is queued and ends the connection in order.
    async fn close(&mut self) {
        self.io.end();
        self.timer.set_after(self.shard.bounds.write_stall);
        let mut timer = std::mem::take(&mut self.timer);
        if self.io.queued() > 0 {
            let _ = rt::with_deadline(
                &mut timer,
                poll_fn(|cx| {
                    if self.shard.stopping() {
                        return Poll::Ready(Ok(()));
                    }
                    self.io.poll_flush(cx)
                }),
            )
            .await;
        }
    }

    /// Sends what is queued and ends the connection without the orderly end that TLS has.
    async fn truncate(&mut self) {
        let mut timer = std::mem::take(&mut self.timer);
        timer.set_after(self.shard.bounds.write_stall);
        let _ = rt::with_deadline(&mut timer, self.io.flush()).await;
    }

    /// Sends what is queued, ends our direction, and reads on for a little, so that the client reads the answer before
    /// it learns that nobody reads its body (decision D14).
    async fn linger(&mut self) {
        self.io.end();
        let bounds = self.shard.bounds;
        let mut timer = std::mem::take(&mut self.timer);
        timer.set_after(bounds.write_stall);
        let sent = rt::with_deadline(
            &mut timer,
            poll_fn(|cx| {
                if self.shard.stopping() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                self.io.poll_flush(cx)
            }),
        )
        .await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
        self.io.shutdown_write();
        timer.set_after(bounds.linger);
        let mut left = bounds.linger_bytes;
        let _ = rt::with_deadline(
            &mut timer,
            poll_fn(|cx| {
                while !self.finished && !self.shard.stopping() {
                    match ready!(self.io.poll_read(cx)) {
                        Ok(Some(chunk)) if chunk.len() <= left => left -= chunk.len(),
                        _ => break,
                    }
                }
                Poll::Ready(())
            }),
        )
        .await;
    }
}

/// What a client is told that sent no proper head.
pub(crate) fn refusal(error: RequestError) -> Failure {
    match error.status() {
        414 => Failure::URI_TOO_LONG,
        417 => Failure::EXPECTATION_FAILED,
        431 => Failure::HEADERS_TOO_LARGE,
        501 => Failure::NOT_IMPLEMENTED,
        505 => Failure::VERSION,
        _ => Failure::BAD_REQUEST,
    }
}

enum Waited {
    Close,
    TooSlow,
}

/// Bytes read ahead of the current request while it is being answered.
const READ_AHEAD: usize = 16 * 1024;

async fn handshake(
    shard: &Rc<Shard>,
    stream: rt::Stream,
    timer: &mut rt::Timer,
) -> Option<(TlsStream, Identity)> {
    let Some(current) = shard.tls.current() else {
        tracing::debug!("a TLS connection came before there is a certificate");
        return None;
    };
    let mut stream = TlsStream::server(stream, Arc::clone(&current.config)).ok()?;
    let shaken = poll_fn(|cx| {
        if shard.stopping() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        stream.poll_handshake(cx)
    });
    match rt::with_deadline(timer, shaken).await {
        Ok(Ok(())) => {
            let server_name = stream.server_name().map(Into::into);
            let certificates = Arc::clone(&current.certificates);
            Some((
                stream,
                Identity {
                    server_name,
                    certificates,
                },
            ))
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            shard.counters().handshake_failures.add(1);
            None
        }
        Err(_) => {
            shard.counters().handshake_failures.add(1);
            None
        }
    }
}
