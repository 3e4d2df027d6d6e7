//! The two directions of a call: the request goes up while the answer is watched for; the answer comes down as fast as
//! the client takes it. One task polls both sides; nothing is read that there is no room for.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;
use tidegate_rt as rt;
use tidegate_rt::{Buffer, Chunk, Instant};

use super::headers;
use crate::http::chunked::{CHUNK_END, ChunkPrefix, LAST_CHUNK, last_chunk};
use crate::http::{Decoded, Decoder, Framing, HeadLimits, ResponseHead, Scanner};
use crate::net::io::Io;
use crate::pipeline::body::Parts;
use crate::shard::{Client, Gone};

/// The request on its way up.
#[derive(Debug)]
pub(super) struct Upload {
    head: Chunk,
    framing: Framing,
    /// Body parts that were sent, for a second attempt; `None` once they are too many.
    held: Option<SmallVec<[Chunk; 4]>>,
    held_bytes: usize,
    hold: usize,
    /// Head and held parts are in the connection's queue.
    begun: bool,
    done: bool,
    /// The body's trailers go along.
    trailers: bool,
    /// It asks for another protocol, so that 101 is an answer.
    switch: bool,
}

/// A final answer's head, and what came behind it.
#[derive(Debug)]
pub(super) struct Answer {
    /// The head.
    pub head: ResponseHead,
    /// Bytes of its body that came with it.
    pub rest: Option<Chunk>,
    /// The request had been sent whole by then.
    pub uploaded: bool,
}

/// Why there is no answer, or not all of it.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client's doing.
    Gone(Gone),
    /// The backend took too long.
    TimedOut,
    /// The backend's answer is not HTTP, or over a bound.
    Invalid,
    /// The backend's answer is over the bound of payloads.
    TooLarge,
    /// The backend switched protocols.
    Upgrade,
    /// The backend ended the connection.
    Closed {
        /// It had sent something before.
        answered: bool,
    },
}

impl Upload {
    /// A request that has not been sent.
    pub(super) fn new(head: Chunk, framing: Framing, hold: usize) -> Self {
        let done = framing == Framing::Empty;
        Self {
            head,
            framing,
            held: Some(SmallVec::new()),
            held_bytes: 0,
            hold,
            begun: false,
            done,
            trailers: false,
            switch: false,
        }
    }

    /// A request whose body is there already, for as many attempts as it takes.
    pub(super) fn whole(head: Chunk, body: Chunk) -> Self {
        let framing = match body.len() as u64 {
            0 => Framing::Empty,
            length => Framing::Length(length),
        };
        let mut upload = Self::new(head, framing, 0);
        upload.done = true;
        upload.held_bytes = body.len();
        upload.held = Some(SmallVec::from_iter((!body.is_empty()).then_some(body)));
        upload
    }

    /// Lets trailers go along, and 101 be an answer.
    pub(super) fn pass_through(&mut self, trailers: bool, switch: bool) {
        self.trailers = trailers;
        self.switch = switch;
    }

    /// Prepares for another attempt; `false` when parts of the body are gone.
    pub(super) fn rewind(&mut self) -> bool {
        self.begun = false;
        self.held.is_some()
    }

    fn begin(&mut self, upstream: &mut Io) {
        self.begun = true;
        upstream.queue(self.head.clone());
        for part in self.held.iter().flatten() {
            queue_body(upstream, part.clone(), self.framing);
        }
        if self.done {
            queue_end(upstream, self.framing);
        }
    }

    fn part(&mut self, part: Chunk, upstream: &mut Io) {
        self.held_bytes += part.len();
        if self.held_bytes > self.hold {
            self.held = None;
        }
        if let Some(held) = &mut self.held {
            held.push(part.clone());
        }
        queue_body(upstream, part, self.framing);
    }

    fn end(&mut self, upstream: &mut Io) {
        self.done = true;
        queue_end(upstream, self.framing);
    }

    /// Ends a body that trailers may follow.
    #[cold]
    fn end_trailed(&mut self, client: &mut Client, upstream: &mut Io, cx: &mut Context<'_>) {
        match client.poll_trailers(cx) {
            Poll::Ready(Some(trailers)) if self.framing == Framing::Chunked => {
                self.done = true;
                // They are not kept for a second attempt.
                self.held = None;
                let trailers = headers::passed_trailers(trailers, headers::Way::ToBackend);
                upstream.queue(Chunk::from(last_chunk(&trailers)));
            }
            _ => self.end(upstream),
        }
    }
}

fn queue_body(upstream: &mut Io, part: Chunk, framing: Framing) {
    if framing == Framing::Chunked {
        upstream.queue(Chunk::copy_from_slice(ChunkPrefix::new(part.len()).as_ref()));
        upstream.queue(part);
        upstream.queue(Chunk::from_static(CHUNK_END));
    } else {
        upstream.queue(part);
    }
}

fn queue_end(upstream: &mut Io, framing: Framing) {
    if framing == Framing::Chunked {
        upstream.queue(Chunk::from_static(LAST_CHUNK));
    }
}

/// Waits for a connection to the backend, until `deadline` at most. The client gets what is queued for it, and is
/// watched, meanwhile.
pub(super) async fn connect<T>(
    client: &mut Client,
    deadline: Instant,
    connection: impl Future<Output = T>,
) -> Result<T, Broken> {
    let mut connection = pin!(connection);
    client.timer.set(deadline);
    client.begin_wait();
    poll_fn(|cx| {
        if let Poll::Ready(made) = connection.as_mut().poll(cx) {
            return Poll::Ready(Ok(made));
        }
        if let Poll::Ready(gone) = client.poll_gone(cx) {
            return Poll::Ready(Err(Broken::Gone(gone)));
        }
        if let Poll::Ready(Err(_)) = client.poll_send(cx) {
            return Poll::Ready(Err(Broken::Gone(Gone::Aborted)));
        }
        client.timer.poll_elapsed(cx).map(|()| Err(Broken::TimedOut))
    })
    .await
}

/// Sends the request and waits for the final answer's head. The body goes up meanwhile; an answer that comes first
/// ends it (decision D14).
///
/// `deadline` is where the backend's time ends (`timeoutInMillis`; decision D15, QUO-067). It is moved by the time in
/// which nobody but the client was waited for, see [`Patience`].
pub(super) async fn ask(
    client: &mut Client,
    upstream: &mut Io,
    upload: &mut Upload,
    deadline: &mut Instant,
    to_head: bool,
) -> Result<Answer, Broken> {
    let shard = std::rc::Rc::clone(&client.shard);
    let bounds = &shard.bounds;
    upload.begin(upstream);
    let mut received = Received::new(bounds.informational, to_head, upload.switch);
    let mut patience = Patience::new(*deadline, bounds.body_idle);
    client.begin_wait();
    let answered = poll_fn(|cx| {
        loop {
            let mut moved = false;
            while !upload.done && upstream.queued() < bounds.window {
                match client.poll_body(cx) {
                    Poll::Ready(Ok(Some(part))) => {
                        upload.part(part, upstream);
                        patience.silent = None;
                        moved = true;
                    }
                    Poll::Ready(Ok(None)) => {
                        match upload.trailers {
                            false => upload.end(upstream),
                            true => upload.end_trailed(client, upstream, cx),
                        }
                        patience.silent = None;
                        moved = true;
                    }
                    Poll::Ready(Err(gone)) => return Poll::Ready(Err(Broken::Gone(gone))),
                    Poll::Pending => {
                        patience.silent.get_or_insert_with(rt::now);
                        break;
                    }
                }
            }
            // An error in sending is not the end: the answer may have come before it.
            let full = upstream.queued() >= bounds.window;
            let _ = upstream.poll_flush(cx);
            // Room for more of the body, for which the client is to be asked again.
            moved |= !upload.done && full && upstream.queued() < bounds.window;
            if upload.done
                && let Poll::Ready(gone) = client.poll_gone(cx)
            {
                return Poll::Ready(Err(Broken::Gone(gone)));
            }
            // A request that is sent whole is sent at once, as a rule, and cannot have been answered before.
            let answerable = !upload.done || upstream.queued() == 0 || client.waits_long();
            let read = if answerable {
                upstream.poll_read(cx)
            } else {
                Poll::Pending
            };
            match read {
                Poll::Ready(Ok(Some(chunk))) => {
                    received.append(chunk);
                    moved = true;
                    match received.final_head(&bounds.response_head) {
                        Ok(Some(head)) => {
                            let uploaded = upload.done && upstream.queued() == 0;
                            return Poll::Ready(Ok(Answer {
                                head,
                                rest: received.bytes.take(),
                                uploaded,
                            }));
                        }
                        Ok(None) => {}
                        Err(broken) => return Poll::Ready(Err(broken)),
                    }
                }
                Poll::Ready(Ok(None) | Err(_)) => {
                    return Poll::Ready(Err(Broken::Closed {
                        answered: received.any,
                    }));
                }
                Poll::Pending => {}
            }
            let Ok(held) = client.poll_send_unless_held(cx) else {
                return Poll::Ready(Err(Broken::Gone(Gone::Aborted)));
            };
            if moved {
                continue;
            }
            match patience.poll(&mut client.timer, upstream.queued() == 0, held, cx) {
                Poll::Ready(Some(late)) => return Poll::Ready(Err(late)),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    patience.go_on(rt::now());
    *deadline = patience.backend;
    answered
}

/// How long an answer is waited for, and on whose account.
///
/// The backend's time begins with the call, connecting included, and is not begun anew by anything it takes or sends.
/// It stands still while the backend has taken everything there is and the client does not send more: the service
/// calls a backend only when it holds the whole request, so a slow client never costs the backend its time there
/// either. The client's slowness has a bound of its own, which counts from its last part on.
#[derive(Debug)]
pub(super) struct Patience {
    /// Where the backend's time ends.
    pub(super) backend: Instant,
    /// Since when it stands still.
    still: Option<Instant>,
    /// Since when the client has been asked for more of the body and has not sent any.
    pub(super) silent: Option<Instant>,
    body_idle: Duration,
}

impl Patience {
    pub(super) fn new(backend: Instant, body_idle: Duration) -> Self {
        Self {
            backend,
            still: None,
            silent: None,
            body_idle,
        }
    }

    /// Has the backend's time run on.
    pub(super) fn go_on(&mut self, now: Instant) {
        if let Some(since) = self.still.take() {
            self.backend += now.saturating_duration_since(since);
        }
    }

    /// Ready when one of the two has taken too long, or with `None` at `held`, when there is something to be sent.
    /// `taken`: the backend has taken everything that there is for it.
    pub(super) fn poll(
        &mut self,
        timer: &mut rt::Timer,
        taken: bool,
        held: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Broken>> {
        let now = rt::now();
        let client = self.silent.map(|since| since + self.body_idle);
        if taken && client.is_some() {
            self.still.get_or_insert(now);
        } else {
            self.go_on(now);
        }
        let (deadline, late) = match client {
            Some(client) if self.still.is_some() || client < self.backend => {
                (client, Broken::Gone(Gone::TooSlow))
            }
            _ => (self.backend, Broken::TimedOut),
        };
        let held = held.filter(|held| *held < deadline);
        timer.set(held.unwrap_or(deadline));
        timer.poll_elapsed(cx).map(|()| held.is_none().then_some(late))
    }
}

/// An answer on its way in, until its final head is complete.
struct Received {
    bytes: Option<Chunk>,
    scanner: Scanner,
    any: bool,
    informational: usize,
    to_head: bool,
    switch: bool,
}

impl Received {
    fn new(informational: usize, to_head: bool, switch: bool) -> Self {
        Self {
            bytes: None,
            scanner: Scanner::new(),
            any: false,
            informational,
            to_head,
            switch,
        }
    }

    fn append(&mut self, chunk: Chunk) {
        self.any = true;
        let Some(known) = &mut self.bytes else {
            self.bytes = Some(chunk);
            return;
        };
        if let Err(chunk) = known.try_join(chunk) {
            let mut joined = Buffer::with_capacity(known.len() + chunk.len());
            joined.extend_from_slice(known);
            joined.extend_from_slice(&chunk);
            *known = joined.freeze();
        }
    }

    /// The final answer's head, once it is complete; informational ones before it are skipped, as many as may come.
    fn final_head(&mut self, limits: &HeadLimits) -> Result<Option<ResponseHead>, Broken> {
        while let Some(bytes) = &mut self.bytes {
            let Some(length) = self
                .scanner
                .advance(bytes, limits, false)
                .map_err(|_| Broken::Invalid)?
            else {
                return Ok(None);
            };
            let head = bytes.split_to(length);
            if bytes.is_empty() {
                self.bytes = None;
            }
            let bare_lf = std::mem::take(&mut self.scanner).saw_bare_lf();
            let head =
                ResponseHead::parse(head, bare_lf, self.to_head, limits).map_err(|_| Broken::Invalid)?;
            if !head.is_informational() {
                return match head.status() {
                    101 if self.switch => Ok(Some(head)),
                    101 => Err(Broken::Upgrade),
                    200..=599 => Ok(Some(head)),
                    _ => Err(Broken::Invalid),
                };
            }
            self.informational = self.informational.checked_sub(1).ok_or(Broken::Invalid)?;
        }
        Ok(None)
    }
}

/// Ends a response as its body has ended: with trailers, where they were kept.
pub(super) fn end(client: &mut Client, decoder: &mut Decoder) {
    match decoder.take_trailers() {
        None => client.end(),
        Some(trailers) => client.end_with(headers::passed_trailers(trailers, headers::Way::ToClient)),
    }
}

/// Relays the rest of an answer's body; `true` when nothing follows it on the backend's connection.
pub(super) async fn stream(
    client: &mut Client,
    upstream: &mut Io,
    decoder: &mut Decoder,
    length: &mut u64,
) -> Result<bool, Broken> {
    let shard = std::rc::Rc::clone(&client.shard);
    let bounds = &shard.bounds;
    let mut input: Option<Chunk> = None;
    let mut ended = false;
    let mut last: Option<Instant> = None;
    client.begin_wait();
    poll_fn(|cx| {
        loop {
            let mut moved = false;
            while !ended && client.queued() < bounds.window {
                match poll_part(cx, upstream, decoder, &mut input) {
                    Poll::Ready(Ok(Some(part))) => {
                        *length += part.len() as u64;
                        if *length > bounds.payload {
                            return Poll::Ready(Err(Broken::Invalid));
                        }
                        client.part(part);
                        last = None;
                        moved = true;
                    }
                    Poll::Ready(Ok(None)) => {
                        ended = true;
                        end(client, decoder);
                    }
                    Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
                    Poll::Pending => break,
                }
            }
            if ended {
                return Poll::Ready(Ok(input.is_none()));
            }
            let full = client.queued() >= bounds.window;
            if let Poll::Ready(Err(_)) = client.poll_send(cx) {
                return Poll::Ready(Err(Broken::Gone(Gone::Aborted)));
            }
            // Where sending has made room, the backend is asked again: nobody would wake us for what it has sent.
            if moved || (full && client.queued() < bounds.window) {
                continue;
            }
            if let Poll::Ready(gone) = client.poll_gone(cx) {
                return Poll::Ready(Err(Broken::Gone(gone)));
            }
            let since = *last.get_or_insert_with(rt::now);
            client.timer.set(since + bounds.stream_idle);
            if client.poll_stalled() {
                return Poll::Ready(Err(Broken::Gone(Gone::Aborted)));
            }
            return match client.timer.poll_elapsed(cx) {
                // The timer may stand for the client's stall: that is seen above, next time.
                Poll::Ready(()) if client.poll_stalled() => Poll::Ready(Err(Broken::Gone(Gone::Aborted))),
                Poll::Ready(()) => Poll::Ready(Err(Broken::TimedOut)),
                Poll::Pending => Poll::Pending,
            };
        }
    })
    .await
}

/// Reads the rest of an answer's body whole, until `deadline` at most; and whether nothing follows it on the backend's
/// connection. `rest`: what of it came with the head.
pub(super) async fn collect(
    client: &mut Client,
    upstream: &mut Io,
    decoder: &mut Decoder,
    rest: Option<Chunk>,
    deadline: Instant,
) -> Result<(Chunk, bool), Broken> {
    let limit = client.shard.bounds.payload;
    let mut input = rest;
    let mut parts = Parts::new(0);
    client.timer.set(deadline);
    client.begin_wait();
    poll_fn(|cx| {
        loop {
            match poll_part(cx, upstream, decoder, &mut input) {
                Poll::Ready(Ok(Some(part))) => {
                    parts.add(part);
                    if parts.bytes() as u64 > limit {
                        return Poll::Ready(Err(Broken::TooLarge));
                    }
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(_)) = client.poll_send(cx) {
            return Poll::Ready(Err(Broken::Gone(Gone::Aborted)));
        }
        if let Poll::Ready(gone) = client.poll_gone(cx) {
            return Poll::Ready(Err(Broken::Gone(gone)));
        }
        client.timer.poll_elapsed(cx).map(|()| Err(Broken::TimedOut))
    })
    .await?;
    Ok((parts.finish(), input.is_none()))
}

/// The next part of a body; `None` at its end.
fn poll_part(
    cx: &mut Context<'_>,
    upstream: &mut Io,
    decoder: &mut Decoder,
    input: &mut Option<Chunk>,
) -> Poll<Result<Option<Chunk>, Broken>> {
    loop {
        if decoder.is_done() {
            return Poll::Ready(Ok(None));
        }
        if let Some(bytes) = input {
            let decoded = decoder.decode(bytes);
            if bytes.is_empty() {
                *input = None;
            }
            match decoded {
                Ok(Decoded::Data(part)) => return Poll::Ready(Ok(Some(part))),
                Ok(Decoded::End) => return Poll::Ready(Ok(None)),
                Ok(Decoded::More) => {}
                Err(_) => return Poll::Ready(Err(Broken::Invalid)),
            }
        }
        match upstream.poll_read(cx) {
            Poll::Ready(Ok(Some(chunk))) => *input = Some(chunk),
            Poll::Ready(Ok(None)) if decoder.end_of_input().is_ok() => return Poll::Ready(Ok(None)),
            Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Err(Broken::Closed { answered: true })),
            Poll::Pending => return Poll::Pending,
        }
    }
}
