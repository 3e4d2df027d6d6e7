//! HTTP/1 on a connection: one request after the other until one side ends it.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use tidegate_plan::Limits;
use tidegate_rt as rt;
use tidegate_rt::{Buffer, Chunk, Instant};

use super::client::{Delivery, Gone, Next, Stall};
use super::{Registered, Shard};
use crate::http::chunked::{CHUNK_END, ChunkPrefix, LAST_CHUNK, last_chunk};
use crate::http::{Decoded, Decoder, Framing, RequestError, RequestHead, Scanner};
use crate::net::io::Io;
use crate::pipeline::After;
use crate::pipeline::failure::Failure;

/// A connection that speaks HTTP/1.
pub(super) struct Http1 {
    io: Io,
    place: Registered,
    /// Bytes received and not yet understood: the rest of a body, or the next requests.
    input: Option<Chunk>,
    /// The body of the current request.
    body: Decoder,
    /// The client waits for `100 Continue` before it sends the body.
    expects_continue: bool,
    /// The client has ended its direction.
    finished: bool,
    /// The head of the current response, and what of its body stands behind it; queued with the next attempt to send.
    out: Option<Buffer>,
    /// How the body of the current response goes out.
    delivery: Delivery,
    /// Until when the answers that are queued wait for the next one.
    held: Option<Instant>,
}

impl Http1 {
    /// A connection on which nothing has been read.
    pub(super) fn new(io: Io, place: Registered, limits: &Limits) -> Self {
        Self {
            io,
            place,
            input: None,
            body: Decoder::new(Framing::Empty, limits),
            expects_continue: false,
            finished: false,
            out: None,
            delivery: Delivery::None,
            held: None,
        }
    }

    /// The next request's head.
    pub(super) async fn next(
        &mut self,
        shard: &Rc<Shard>,
        timer: &mut rt::Timer,
        stall: &mut Stall,
        first: bool,
    ) -> Next {
        let idle_since = rt::now();
        let bounds = &shard.bounds;
        self.begin_wait();
        let mut scanner = Scanner::new();
        let mut begun = false;
        let mut limit = if first { bounds.head } else { bounds.keep_alive };
        loop {
            if let Some(input) = &self.input
                && self.queued() < bounds.window
            {
                match scanner.advance(input, &bounds.request_head, true) {
                    Ok(Some(length)) => {
                        let bytes = self.take(length);
                        self.hold(shard);
                        return match RequestHead::parse(bytes, &bounds.request_head) {
                            Ok(head) => Next::Request(head),
                            Err(error) => Next::Refuse(error.into()),
                        };
                    }
                    Ok(None) if self.finished => return Next::Close,
                    Ok(None) => {
                        if !begun && scanner.has_begun() {
                            begun = true;
                            limit = bounds.head;
                            timer.set_after(limit);
                        }
                    }
                    Err(error) => return Next::Refuse(RequestError::from(error).into()),
                }
            } else if self.finished && self.input.is_none() {
                return Next::Close;
            } else if !begun {
                timer.set_after(limit);
            }
            let full = self.queued() >= bounds.window;
            let waited = poll_fn(|cx| {
                let idle = !begun && !full;
                if shard.stopping() || (idle && shard.closing_idle()) {
                    return Poll::Ready(Err(Waited::Close));
                }
                match self.poll_send(cx, stall) {
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Waited::Close)),
                    Poll::Ready(Ok(())) if full => return Poll::Ready(Ok(())),
                    _ => {}
                }
                // Read when all is sent, which is at once as a rule: by then the next request may be there.
                if self.queued() == 0 || self.queued() < bounds.window && self.place.waits_long() {
                    match self.poll_receive(cx) {
                        Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(Waited::Close)),
                        Poll::Pending => {}
                    }
                }
                // After the look at what has come: a request that is there is not turned away.
                if idle && shard.yields_place(idle_since, first) {
                    return Poll::Ready(Err(Waited::Close));
                }
                if stall.is_over(timer, shard) {
                    return Poll::Ready(Err(Waited::Close));
                }
                match timer.poll_elapsed(cx) {
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
            let mut joined = Buffer::with_capacity(input.len() + chunk.len());
            joined.extend_from_slice(input);
            joined.extend_from_slice(&chunk);
            *input = joined.freeze();
        }
    }

    // === the request's body ===

    pub(super) fn begin_body(&mut self, limits: &Limits, framing: Framing, expects_continue: bool) {
        self.body = Decoder::new(framing, limits);
        self.expects_continue = expects_continue && !self.body.is_done();
    }

    /// At most `bound` bytes of body pass.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        bound: u64,
    ) -> Poll<Result<Option<Chunk>, Gone>> {
        if self.body.is_done() {
            return Poll::Ready(Ok(None));
        }
        if self.expects_continue {
            self.expects_continue = false;
            self.commit();
            self.held = None;
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
                        if self.body.received() > bound {
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

    pub(super) fn keep_trailers(&mut self) {
        self.body.keep_trailers();
    }

    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.body.take_trailers()
    }

    pub(super) fn body_is_done(&self) -> bool {
        self.body.is_done()
    }

    pub(super) fn discard_received(&mut self) -> bool {
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

    pub(super) fn begin_wait(&self) {
        self.place.rests();
    }

    pub(super) fn waits_long(&self) -> bool {
        self.place.waits_long()
    }

    /// Where the wait is a long one: reads ahead a little, and notes the client's end.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>, read_ahead: usize) -> Poll<Gone> {
        if !self.place.waits_long() {
            return Poll::Pending;
        }
        while self.input.as_ref().is_none_or(|input| input.len() < read_ahead) && !self.finished {
            match self.poll_receive(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Gone::Aborted),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    // === the response ===

    /// Takes a response's head, without the blank line at its end.
    pub(super) fn begin(&mut self, mut out: Buffer, delivery: Delivery) {
        self.commit();
        out.extend_from_slice(b"\r\n");
        self.out = Some(out);
        self.delivery = delivery;
    }

    pub(super) fn part(&mut self, part: Chunk) {
        match &mut self.out {
            Some(out) if part.len() <= SMALL && out.remaining_capacity() >= part.len() + CHUNK_FRAME => {
                copy_part(out, &part, self.delivery);
            }
            _ => {
                self.commit();
                match self.delivery {
                    Delivery::None => {}
                    Delivery::Length(_) | Delivery::Close => self.io.queue(part),
                    Delivery::Streamed => {
                        self.io
                            .queue(Chunk::copy_from_slice(ChunkPrefix::new(part.len()).as_ref()));
                        self.io.queue(part);
                        self.io.queue(Chunk::from_static(CHUNK_END));
                    }
                }
            }
        }
    }

    pub(super) fn part_from_slice(&mut self, part: &[u8]) {
        match &mut self.out {
            Some(out) => copy_part(out, part, self.delivery),
            None => self.part(Chunk::copy_from_slice(part)),
        }
    }

    pub(super) fn end(&mut self) {
        if self.delivery != Delivery::Streamed {
            return;
        }
        match &mut self.out {
            Some(out) => out.extend_from_slice(LAST_CHUNK),
            None => self.io.queue(Chunk::from_static(LAST_CHUNK)),
        }
    }

    pub(super) fn end_with(&mut self, trailers: &HeaderMap) {
        if self.delivery == Delivery::Streamed {
            self.commit();
            self.io.queue(Chunk::from(last_chunk(trailers)));
        }
    }

    // === a tunnel ===

    pub(super) fn poll_tunnel(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        loop {
            if let Some(input) = self.input.take() {
                return Poll::Ready(Ok(Some(input)));
            }
            if self.finished {
                return Poll::Ready(Ok(None));
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    pub(super) fn end_tunnel(&mut self) {
        self.commit();
        self.io.end();
    }

    pub(super) fn shutdown_tunnel(&mut self) {
        self.io.shutdown_write();
    }

    pub(super) fn queued(&self) -> usize {
        self.io.queued() + self.out.as_ref().map_or(0, |out| out.len())
    }

    /// Lets the answers that are queued wait for the one to the request that is here already (decision D5). They wait
    /// for no more than a moment, counted from the first of them, as the next one may take its backend long.
    fn hold(&mut self, shard: &Shard) {
        if self.queued() == 0 {
            self.held = None;
        } else if self.held.is_none() {
            self.held = Some(rt::now() + shard.bounds.answer_hold);
        }
    }

    /// Until when the answers that are queued are not sent, if they are held.
    pub(super) fn held(&self) -> Option<Instant> {
        self.held.filter(|until| rt::now() < *until)
    }

    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, stall: &mut Stall) -> Poll<io::Result<()>> {
        self.held = None;
        self.commit();
        let sent = self.io.poll_flush(cx);
        stall.note(&sent, || self.io.queued());
        sent
    }

    fn commit(&mut self) {
        if let Some(out) = self.out.take() {
            self.io.queue(out.freeze());
        }
    }

    // === the end ===

    pub(super) async fn finish(&mut self, shard: &Shard, timer: &mut rt::Timer, after: After) {
        self.commit();
        match after {
            After::Next | After::Close => self.close(shard, timer).await,
            After::Linger => linger(&mut self.io, shard, timer, self.finished).await,
            After::Truncated | After::Reset => {
                // Without the orderly end that TLS has.
                timer.set_after(shard.bounds.write_stall);
                let _ = rt::with_deadline(timer, self.io.flush()).await;
            }
        }
    }

    pub(super) fn reset(self) {
        self.io.reset();
    }

    /// Sends what is queued and ends the connection in order.
    async fn close(&mut self, shard: &Shard, timer: &mut rt::Timer) {
        self.io.end();
        if self.io.queued() > 0 {
            timer.set_after(shard.bounds.write_stall);
            let _ = rt::with_deadline(
                timer,
                poll_fn(|cx| {
                    if shard.stopping() {
                        return Poll::Ready(Ok(()));
                    }
                    self.io.poll_flush(cx)
                }),
            )
            .await;
        }
    }
}

/// Sends what is queued, ends our direction, and reads on for a little unless the peer has `finished`, so that it reads
/// the answer before it learns that nobody reads what it sends (decision D14).
pub(super) async fn linger(io: &mut Io, shard: &Shard, timer: &mut rt::Timer, finished: bool) {
    let bounds = &shard.bounds;
    io.end();
    timer.set_after(bounds.write_stall);
    let sent = rt::with_deadline(
        timer,
        poll_fn(|cx| {
            if shard.stopping() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            io.poll_flush(cx)
        }),
    )
    .await;
    if !matches!(sent, Ok(Ok(()))) {
        return;
    }
    io.shutdown_write();
    if finished {
        return;
    }
    timer.set_after(bounds.linger);
    let mut left = bounds.linger_bytes;
    let _ = rt::with_deadline(
        timer,
        poll_fn(|cx| {
            while !shard.stopping() {
                match ready!(io.poll_read(cx)) {
                    Ok(Some(chunk)) if chunk.len() <= left => left -= chunk.len(),
                    _ => break,
                }
            }
            Poll::Ready(())
        }),
    )
    .await;
}

fn copy_part(out: &mut Buffer, part: &[u8], delivery: Delivery) {
    match delivery {
        Delivery::None => {}
        Delivery::Length(_) | Delivery::Close => out.extend_from_slice(part),
        Delivery::Streamed => {
            out.extend_from_slice(ChunkPrefix::new(part.len()).as_ref());
            out.extend_from_slice(part);
            out.extend_from_slice(CHUNK_END);
        }
    }
}

enum Waited {
    Close,
    TooSlow,
}

/// A part of a body up to this long is copied behind the head instead of sent from where it is.
const SMALL: usize = 8 * 1024;

/// What the chunked coding adds to a part, at most.
const CHUNK_FRAME: usize = 24;
