//! One HTTP/2 stream: a client with a single request.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, ready};

use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};
use tidegate_rt as rt;
use tidegate_rt::Chunk;

use crate::http::{Compression, Framing, HeadLimits, RequestHead};
use crate::pipeline::After;
use crate::shard::Shard;
use crate::shard::client::{Delivery, Gone, Next, Stall};

/// A stream that a client has opened.
pub(in crate::shard) struct Http2 {
    /// What it asks for.
    next: Option<Next>,
    /// Its request cannot be read: nor is its body.
    malformed: bool,
    /// h2's handles; gone with the stream.
    handles: Option<Handles>,
    body_done: bool,
    /// Bytes of the request's body so far.
    received: u64,
    /// Bytes of it that the head announces.
    announced: Option<u64>,
    /// The part that makes the announced length full, until nothing comes behind it: a backend must not have a whole
    /// request that turns out to be malformed (RFC 9113 section 8.1.1).
    held: Option<Chunk>,
    /// The client waits for `100 Continue` before it sends the body.
    expects_continue: bool,
    /// Parts of the response's body for which the client has not given a window yet.
    parts: VecDeque<Chunk>,
    /// Bytes in `parts`.
    queued: usize,
    compression: Compression,
    /// How the response's body goes out.
    delivery: Delivery,
    /// Nothing comes after `parts`.
    ended: bool,
    /// But these.
    trailers: Option<Box<HeaderMap>>,
    /// The end of the response has been handed to h2.
    closed: bool,
    /// The stream or its connection has ended.
    lost: bool,
}

struct Handles {
    respond: SendResponse<Chunk>,
    body: RecvStream,
    /// Once the response has begun.
    send: Option<SendStream<Chunk>>,
}

impl Http2 {
    pub(super) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Chunk>,
        limits: &HeadLimits,
        compression: Compression,
    ) -> Self {
        let (parts, body) = request.into_parts();
        let body_done = body.is_end_stream();
        let head = RequestHead::from_http2(&parts, body_done, limits);
        let announced = match head.as_ref().map(RequestHead::framing) {
            Ok(Framing::Length(length)) => Some(length),
            _ => None,
        };
        let malformed = head.as_ref().is_err_and(|error| error.status() == 400);
        let next = match head {
            Ok(head) => Next::Request(head),
            Err(error) => Next::Refuse(error.into()),
        };
        Self {
            next: Some(next),
            malformed,
            body_done,
            handles: Some(Handles {
                respond,
                body,
                send: None,
            }),
            received: 0,
            announced,
            held: None,
            expects_continue: false,
            parts: VecDeque::new(),
            queued: 0,
            compression,
            delivery: Delivery::None,
            ended: false,
            trailers: None,
            closed: false,
            lost: false,
        }
    }

    /// The stream's one request, then nothing.
    pub(in crate::shard) fn next(&mut self) -> Next {
        self.next.take().unwrap_or(Next::Close)
    }

    // === the request's body ===

    pub(in crate::shard) fn begin_body(&mut self, expects_continue: bool) {
        self.expects_continue = expects_continue && !self.body_done;
    }

    pub(in crate::shard) fn body_is_done(&self) -> bool {
        self.body_done
    }

    /// At most `bound` bytes of body pass. The window is given back with each part that is taken, so that a client
    /// sends no faster than its body is asked for.
    pub(in crate::shard) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        bound: u64,
    ) -> Poll<Result<Option<Chunk>, Gone>> {
        if self.body_done {
            return Poll::Ready(Ok(None));
        }
        let Some(handles) = &mut self.handles else {
            return Poll::Ready(Err(Gone::Aborted));
        };
        loop {
            match handles.body.poll_data(cx) {
                Poll::Ready(Some(Ok(part))) => {
                    let length = part.len();
                    if handles.body.flow_control().release_capacity(length).is_err() {
                        return Poll::Ready(Err(Gone::Aborted));
                    }
                    self.received += length as u64;
                    if self.received > bound {
                        return Poll::Ready(Err(Gone::TooLarge));
                    }
                    if length == 0 {
                        continue;
                    }
                    let part = Chunk::from(part);
                    if self.announced == Some(self.received) && !handles.body.is_end_stream() {
                        self.held = Some(part);
                        continue;
                    }
                    return Poll::Ready(Ok(Some(part)));
                }
                // Trailers may follow: they are read by h2 and go no further unless they are asked for (decision D13).
                Poll::Ready(None) => {
                    self.body_done = self.held.is_none();
                    return Poll::Ready(Ok(self.held.take()));
                }
                // Reset by the client, or by h2 for a body that is not what its head says: nobody is left to answer.
                Poll::Ready(Some(Err(_))) => {
                    self.lost = true;
                    return Poll::Ready(Err(Gone::Aborted));
                }
                Poll::Pending => {
                    if std::mem::take(&mut self.expects_continue) {
                        let mut response = Response::new(());
                        *response.status_mut() = StatusCode::CONTINUE;
                        // A stream that has ended shows with the next poll.
                        let _ = handles.respond.send_informational(response);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// The trailers that followed the body.
    pub(in crate::shard) fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Option<HeaderMap>> {
        match &mut self.handles {
            Some(handles) => handles.body.poll_trailers(cx).map(|read| read.ok().flatten()),
            None => Poll::Ready(None),
        }
    }

    /// Tells when the client has reset the stream, or its connection has ended.
    pub(in crate::shard) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let reset = match &mut self.handles {
            None => return Poll::Ready(Gone::Aborted),
            Some(Handles { send: Some(send), .. }) => send.poll_reset(cx),
            Some(Handles { respond, .. }) => respond.poll_reset(cx),
        };
        let _ = ready!(reset);
        self.lost = true;
        Poll::Ready(Gone::Aborted)
    }

    // === the response ===

    pub(in crate::shard) fn compression(&self) -> Compression {
        self.compression
    }

    pub(in crate::shard) fn begin(&mut self, status: StatusCode, fields: HeaderMap, delivery: Delivery) {
        let Some(handles) = &mut self.handles else {
            return;
        };
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields;
        self.delivery = delivery;
        self.closed = matches!(delivery, Delivery::None | Delivery::Length(0));
        match handles.respond.send_response(response, self.closed) {
            Ok(send) => handles.send = Some(send),
            Err(error) => {
                tracing::debug!(%error, "a response found its stream ended");
                self.lost = true;
            }
        }
    }

    pub(in crate::shard) fn part(&mut self, part: Chunk) {
        if self.delivery != Delivery::None && !self.lost && !part.is_empty() {
            self.queued += part.len();
            self.parts.push_back(part);
        }
    }

    pub(in crate::shard) fn end(&mut self) {
        self.ended = true;
    }

    pub(in crate::shard) fn end_with(&mut self, trailers: HeaderMap) {
        self.ended = true;
        self.trailers = Some(Box::new(trailers));
    }

    pub(in crate::shard) fn queued(&self) -> usize {
        self.queued
    }

    /// Ready when h2 has everything: it takes no more than the client's windows and its own bound let it.
    pub(in crate::shard) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stall: &mut Stall,
    ) -> Poll<io::Result<()>> {
        let sent = self.poll_hand_over(cx);
        stall.note(&sent, || self.queued);
        if matches!(sent, Poll::Ready(Err(_))) {
            self.lost = true;
            self.parts.clear();
            self.queued = 0;
        }
        sent
    }

    fn poll_hand_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gone = || io::Error::from(io::ErrorKind::ConnectionReset);
        if self.lost {
            return Poll::Ready(Err(gone()));
        }
        let Some(Handles { send: Some(send), .. }) = &mut self.handles else {
            return Poll::Ready(Ok(()));
        };
        while !self.closed {
            let (part, last) = match self.parts.front_mut() {
                None if self.ended => match self.trailers.take() {
                    Some(trailers) => {
                        send.send_trailers(*trailers).map_err(|_| gone())?;
                        self.closed = true;
                        break;
                    }
                    None => (Chunk::default(), true),
                },
                None => break,
                Some(front) => {
                    send.reserve_capacity(self.queued);
                    let room = send.capacity();
                    if room == 0 {
                        match ready!(send.poll_capacity(cx)) {
                            Some(Ok(_)) => continue,
                            Some(Err(_)) | None => return Poll::Ready(Err(gone())),
                        }
                    }
                    let part = front.split_to(front.len().min(room));
                    if front.is_empty() {
                        self.parts.pop_front();
                    }
                    (
                        part,
                        self.ended && self.parts.is_empty() && self.trailers.is_none(),
                    )
                }
            };
            self.queued -= part.len();
            send.send_data(part, last).map_err(|_| gone())?;
            self.closed = last;
        }
        Poll::Ready(Ok(()))
    }

    // === the end ===

    pub(in crate::shard) async fn finish(
        &mut self,
        shard: &Shard,
        timer: &mut rt::Timer,
        stall: &mut Stall,
        after: After,
    ) {
        let whole = match after {
            After::Next | After::Close | After::Linger => self.flush(shard, timer, stall).await,
            After::Truncated | After::Reset => false,
        };
        if whole && !self.malformed && !self.body_done {
            self.discard(shard, timer).await;
        }
        let Some(handles) = &mut self.handles else {
            return;
        };
        match after {
            // What is answered too early ends with NO_ERROR (RFC 9113 section 8.1): h2 sees to it, behind the answer.
            _ if whole => {}
            After::Truncated => handles.respond.send_reset(Reason::INTERNAL_ERROR),
            _ => handles.respond.send_reset(Reason::CANCEL),
        }
        self.let_go();
    }

    /// Ends the stream at once.
    pub(in crate::shard) fn reset(mut self) {
        if let Some(handles) = &mut self.handles {
            handles.respond.send_reset(Reason::CANCEL);
        }
        self.let_go();
    }

    /// Hands everything to h2; whether the client let it.
    async fn flush(&mut self, shard: &Shard, timer: &mut rt::Timer, stall: &mut Stall) -> bool {
        let sent = poll_fn(|cx| {
            if shard.stopping() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            timer.clear();
            match self.poll_send(cx, stall) {
                Poll::Pending if stall.is_over(timer, shard) => {
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
                Poll::Pending => match timer.poll_elapsed(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    Poll::Pending => Poll::Pending,
                },
                sent => sent,
            }
        });
        sent.await.is_ok() && self.closed
    }

    /// Reads on for a little, so that the client has read the answer when it learns that nobody reads its body
    /// (decision D14).
    async fn discard(&mut self, shard: &Shard, timer: &mut rt::Timer) {
        timer.set_after(shard.bounds.linger);
        let bound = self.received.saturating_add(shard.bounds.linger_bytes as u64);
        self.expects_continue = false;
        let _ = rt::with_deadline(
            timer,
            poll_fn(|cx| {
                while !shard.stopping() {
                    match ready!(self.poll_body(cx, bound)) {
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => break,
                    }
                }
                Poll::Ready(())
            }),
        )
        .await;
    }

    /// Drops h2's handles. Where h2 itself has failed in between they panic, which must not happen twice at once.
    fn let_go(&mut self) {
        let handles = self.handles.take();
        if catch_unwind(AssertUnwindSafe(|| drop(handles))).is_err() {
            tracing::error!("an HTTP/2 stream could not be ended");
        }
    }
}

impl Drop for Http2 {
    /// Ends a stream that was not finished: its exchange has failed.
    fn drop(&mut self) {
        if let Some(handles) = &mut self.handles {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                handles.respond.send_reset(Reason::INTERNAL_ERROR);
            }));
            self.let_go();
        }
    }
}
