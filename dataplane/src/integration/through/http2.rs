//! A call to a backend that speaks HTTP/2. Both directions run at once and until both have ended, as gRPC needs it;
//! nothing is read that there is no room for.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use smallvec::SmallVec;
use tidegate_plan::integration::HttpBackend;
use tidegate_plan::{BackendHttp2, PassThrough};
use tidegate_rt as rt;
use tidegate_rt::{Chunk, Instant};

use super::super::headers::{self, Way};
use super::super::http::{Ended, Kind};
use super::super::relay::{self, Broken, Patience};
use super::super::{http as http1, request};
use crate::http::{Framing, ResponseHead, Version};
use crate::net::upstream::{Opened, Slot, Upstream};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::failure::Failure;
use crate::pipeline::response::HEAD_ROOM;
use crate::pipeline::{After, gateway_response};
use crate::shard::{Client, Delivery, Gone, LocalStage, Shard};

/// The request's body on its way up.
struct Upload {
    /// What the backend has not given a window for yet.
    parts: VecDeque<Chunk>,
    /// Body parts that were taken from the client, for a second attempt; `None` once they are too many.
    held: Option<SmallVec<[Chunk; 4]>>,
    held_bytes: usize,
    hold: usize,
    /// The client has sent all of it; with these trailers.
    ended: bool,
    trailers: Option<HeaderMap>,
    /// Trailers may pass.
    trailing: bool,
    /// The backend has all that it will get.
    done: bool,
}

/// A stream to the backend. Ends it when dropped early.
struct Stream {
    response: ResponseFuture,
    send: SendStream<Chunk>,
    over: bool,
    _slot: Slot,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.over {
            self.send.send_reset(Reason::CANCEL);
        }
    }
}

/// Why there is no answer.
enum Failed {
    Broken(Broken),
    /// The backend has not looked at the request, and says so (RFC 9113 section 8.7).
    Unprocessed,
}

/// Calls the backend and relays its answer; `None` where it turns out to speak HTTP/1.1.
pub(super) async fn call(
    x: &mut Exchange<'_>,
    client: &mut Client,
    stage: &Rc<LocalStage>,
    backend: &HttpBackend,
    upstream: &Rc<Upstream>,
    pass: PassThrough,
    mode: BackendHttp2,
) -> Option<After> {
    let begun = rt::now();
    let mut deadline = begun + backend.timeout();
    let kind = Kind::Through(pass);
    let message = match message(x, client, stage, backend, upstream, kind) {
        Ok(message) => message,
        Err(failure) => return Some(http1::end(x, client, begun, Ended::Failure(failure))),
    };
    let idempotent = !matches!(request::method(x, backend), "POST" | "PATCH");
    let shard = Rc::clone(&client.shard);
    let mut upload = Upload::new(client.framing, shard.bounds.retry_hold, pass.trailers);
    let mut again = false;
    let ended = loop {
        let opened = upstream.stream(&shard.upstreams.helpers, mode, again);
        let opened = relay::connect(client, deadline, opened).await;
        let slot = match http1::connected(&shard, upstream, opened) {
            Ok(Opened::Stream(slot)) => slot,
            Ok(Opened::Http1) => return None,
            Err(ended) => break ended,
        };
        let reused = slot.reused;
        let failed = match ask(x, client, slot, &message, &mut upload, &mut deadline).await {
            Ok((head, body, stream)) => {
                http1::note_answer(x, client, begun, &head);
                return Some(respond(x, client, kind, head, body, stream, upload).await);
            }
            Err(failed) => failed,
        };
        again = match &failed {
            Failed::Unprocessed => true,
            Failed::Broken(Broken::Closed { answered: false }) => reused && idempotent,
            Failed::Broken(_) => false,
        };
        if again && upload.rewind() && upstream.may_retry() {
            continue;
        }
        break match failed {
            Failed::Broken(Broken::Gone(gone)) => Ended::Gone(gone),
            Failed::Broken(Broken::TimedOut) => Ended::Failure(Failure::TIMED_OUT),
            Failed::Broken(Broken::Invalid | Broken::TooLarge | Broken::Upgrade) => {
                Ended::Failure(Failure::INVALID_ANSWER)
            }
            Failed::Broken(Broken::Closed { .. }) | Failed::Unprocessed => {
                Ended::Failure(Failure::UNREACHABLE)
            }
        };
    };
    Some(http1::end(x, client, begun, ended))
}

/// The head of the backend's request.
fn message(
    x: &Exchange<'_>,
    client: &Client,
    stage: &LocalStage,
    backend: &HttpBackend,
    upstream: &Upstream,
    kind: Kind,
) -> Result<Request<()>, Failure> {
    let target = stage.plan(x.canary).target(backend.target());
    let scheme = target.scheme().as_str();
    if let Some(test) = &client.test {
        let text = request::head(x, client, upstream, backend, kind, client.framing, None)?;
        test.note_request(scheme, &target.authority(), &text);
    }
    request::message(x, client, upstream, backend, kind, scheme)
}

/// Sends the request and waits for the final answer's head, as `relay::ask` does; the body goes on behind it.
async fn ask(
    x: &Exchange<'_>,
    client: &mut Client,
    mut slot: Slot,
    message: &Request<()>,
    upload: &mut Upload,
    deadline: &mut Instant,
) -> Result<(ResponseHead, RecvStream, Stream), Failed> {
    let shard = Rc::clone(&client.shard);
    let bounds = &shard.bounds;
    let (response, send) = slot
        .send
        .send_request(message.clone(), upload.done)
        .map_err(|error| failed(&error))?;
    let mut stream = Stream {
        response,
        send,
        over: false,
        _slot: slot,
    };
    let to_head = message.method() == http::Method::HEAD;
    let mut patience = Patience::new(*deadline, bounds.body_idle);
    client.begin_wait();
    let answered = poll_fn(|cx| {
        loop {
            let moved = match upload.poll(client, &mut stream.send, cx) {
                Ok(moved) => moved,
                Err(gone) => return Poll::Ready(Err(Failed::Broken(Broken::Gone(gone)))),
            };
            patience.silent = match upload.waits_for_client() {
                true if !moved => patience.silent.or_else(|| Some(rt::now())),
                _ => None,
            };
            match Pin::new(&mut stream.response).poll(cx) {
                Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(failed(&error))),
                Poll::Pending => {}
            }
            if is_watched(x, upload)
                && let Poll::Ready(gone) = client.poll_gone(cx)
            {
                return Poll::Ready(Err(Failed::Broken(Broken::Gone(gone))));
            }
            let Ok(held) = client.poll_send_unless_held(cx) else {
                return Poll::Ready(Err(Failed::Broken(Broken::Gone(Gone::Aborted))));
            };
            if moved {
                continue;
            }
            match patience.poll(&mut client.timer, upload.parts.is_empty(), held, cx) {
                Poll::Ready(Some(late)) => return Poll::Ready(Err(Failed::Broken(late))),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    patience.go_on(rt::now());
    *deadline = patience.backend;
    if answered.is_ok() {
        // There will be no second attempt.
        upload.held = None;
    }
    let (parts, body) = match answered {
        Ok(response) => response.into_parts(),
        Err(failed) => {
            // What has ended by itself needs no reset.
            stream.over = matches!(failed, Failed::Unprocessed);
            return Err(failed);
        }
    };
    match ResponseHead::from_http2(&parts, body.is_end_stream(), to_head, &bounds.response_head) {
        Ok(head) if (200..=599).contains(&head.status()) => Ok((head, body, stream)),
        _ => Err(Failed::Broken(Broken::Invalid)),
    }
}

/// Whether the client is to be watched besides being asked for its body.
fn is_watched(x: &Exchange<'_>, upload: &Upload) -> bool {
    // A stream can be reset while its body waits for room.
    upload.done || x.head.version() == Version::Http2
}

/// What h2 reports of a stream that brought no answer.
fn failed(error: &h2::Error) -> Failed {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    // h2 reports a GOAWAY to the streams behind the last one that the backend has looked at, and to no others.
    if error.is_remote() && (refused || error.is_go_away()) {
        return Failed::Unprocessed;
    }
    tracing::debug!(%error, "a backend ended a stream without an answer");
    Failed::Broken(match error.is_io() || error.is_remote() {
        true => Broken::Closed {
            answered: error.is_reset(),
        },
        false => Broken::Invalid,
    })
}

/// Writes the answer's head and relays both bodies.
async fn respond(
    x: &mut Exchange<'_>,
    client: &mut Client,
    kind: Kind,
    head: ResponseHead,
    mut body: RecvStream,
    mut stream: Stream,
    mut upload: Upload,
) -> After {
    let shard = Rc::clone(&client.shard);
    let framing = head.framing();
    if let Framing::Length(length) = framing
        && length > shard.bounds.payload
    {
        return gateway_response::answer(x, client, Failure::ANSWER_TOO_LARGE);
    }
    let status = head.status();
    let bodiless = x.is_head() || matches!(status, 204 | 304);
    // Over HTTP/1.1 a body that has not come whole by now ends the connection, as the head has to say so.
    let read = upload.ended && client.body_is_done();
    x.keep_alive &= read && !client.is_finished() && !shard.draining();
    let delivery = match framing {
        _ if bodiless => Delivery::None,
        Framing::Empty => Delivery::Length(0),
        Framing::Length(length) => Delivery::Length(length),
        Framing::Chunked | Framing::UntilClose if !x.is_http10() => Delivery::Streamed,
        Framing::Chunked | Framing::UntilClose => {
            x.keep_alive = false;
            Delivery::Close
        }
    };
    x.outcome.status = status;
    let mut response = client.response(status, HEAD_ROOM + 1024, head.fields().len());
    http1::write_head(x, client, response.head(), &head, status, None, kind, delivery);
    client.begin(response, delivery);
    let passes_trailers = match kind {
        Kind::Through(pass) => super::takes_trailers(x, pass),
        Kind::Proxy | Kind::Custom => false,
    };
    let mut down = Download {
        ended: false,
        trailers: passes_trailers,
        length: 0,
    };
    if delivery == Delivery::None || body.is_end_stream() {
        down.ended = true;
        client.end();
    }
    let relayed = exchange(x, client, &shard, &mut body, &mut stream, &mut upload, &mut down).await;
    x.outcome.length = down.length;
    match relayed {
        Ok(()) => {}
        Err(Broken::Gone(_)) => {
            x.outcome.status = 499;
            return After::Reset;
        }
        Err(_) => return http1::died(x, client, delivery),
    }
    // A body that is of no use any more is stopped; else the stream has ended by itself.
    stream.over = upload.done && body.is_end_stream();
    match (x.keep_alive, client.body_is_done()) {
        (true, _) => After::Next,
        (false, true) => After::Close,
        (false, false) => After::Linger,
    }
}

/// How far the answer's body has come.
struct Download {
    ended: bool,
    /// Trailers pass.
    trailers: bool,
    length: u64,
}

/// Relays both bodies until the answer has ended.
async fn exchange(
    x: &Exchange<'_>,
    client: &mut Client,
    shard: &Shard,
    body: &mut RecvStream,
    stream: &mut Stream,
    upload: &mut Upload,
    down: &mut Download,
) -> Result<(), Broken> {
    let bounds = &shard.bounds;
    let mut last = rt::now();
    client.begin_wait();
    poll_fn(|cx| {
        loop {
            let mut moved = down.poll(client, body, shard, cx)?;
            if down.ended {
                return Poll::Ready(Ok(()));
            }
            moved |= match upload.poll(client, &mut stream.send, cx) {
                Ok(moved) => moved,
                Err(gone) => return Poll::Ready(Err(Broken::Gone(gone))),
            };
            let full = client.queued() >= bounds.window;
            if let Poll::Ready(Err(_)) = client.poll_send(cx) {
                return Poll::Ready(Err(Broken::Gone(Gone::Aborted)));
            }
            // Where sending has made room, the backend is asked again: nobody would wake us for what it has sent.
            if moved || (full && client.queued() < bounds.window) {
                last = rt::now();
                continue;
            }
            if is_watched(x, upload)
                && let Poll::Ready(gone) = client.poll_gone(cx)
            {
                return Poll::Ready(Err(Broken::Gone(gone)));
            }
            client.timer.set(last + bounds.stream_idle);
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

impl Download {
    /// Hands on what has come, as far as there is room; whether anything moved.
    fn poll(
        &mut self,
        client: &mut Client,
        body: &mut RecvStream,
        shard: &Shard,
        cx: &mut Context<'_>,
    ) -> Result<bool, Broken> {
        let mut moved = false;
        while !self.ended && client.queued() < shard.bounds.window {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(part))) => {
                    moved = true;
                    self.length += part.len() as u64;
                    // The window is given back with each part that is taken.
                    if body.flow_control().release_capacity(part.len()).is_err()
                        || self.length > shard.bounds.payload
                    {
                        return Err(Broken::Invalid);
                    }
                    if !part.is_empty() {
                        client.part(Chunk::from(part));
                    }
                }
                Poll::Ready(Some(Err(_))) => return Err(Broken::Closed { answered: true }),
                Poll::Ready(None) => match body.poll_trailers(cx) {
                    Poll::Ready(Ok(trailers)) => {
                        moved = true;
                        self.ended = true;
                        match trailers.filter(|_| self.trailers) {
                            Some(trailers) => {
                                client.end_with(headers::passed_trailers(trailers, Way::ToClient));
                            }
                            None => client.end(),
                        }
                    }
                    Poll::Ready(Err(_)) => return Err(Broken::Closed { answered: true }),
                    Poll::Pending => break,
                },
                Poll::Pending => break,
            }
        }
        Ok(moved)
    }
}

impl Upload {
    fn new(framing: Framing, hold: usize, trailing: bool) -> Self {
        let done = framing == Framing::Empty;
        Self {
            parts: VecDeque::new(),
            held: Some(SmallVec::new()),
            held_bytes: 0,
            hold,
            ended: done,
            trailers: None,
            trailing,
            done,
        }
    }

    /// Prepares for another attempt; `false` when parts of the body are gone.
    fn rewind(&mut self) -> bool {
        let Some(held) = &self.held else {
            return false;
        };
        self.parts = held.iter().cloned().collect();
        // Without a body the head says so.
        self.done = self.ended && self.parts.is_empty() && self.trailers.is_none();
        true
    }

    /// Whether the backend has everything that has come, and more is to come.
    fn waits_for_client(&self) -> bool {
        !self.ended && !self.done && self.parts.is_empty()
    }

    /// Hands on what the backend gives a window for; whether anything moved. Fails where the client does.
    fn poll(
        &mut self,
        client: &mut Client,
        send: &mut SendStream<Chunk>,
        cx: &mut Context<'_>,
    ) -> Result<bool, Gone> {
        let mut moved = false;
        while !self.done {
            match self.poll_hand_over(send, cx) {
                Poll::Ready(Ok(sent)) => moved |= sent,
                // The backend wants no more of it. Its answer is not ended by that, and may say why.
                Poll::Ready(Err(_)) => {
                    self.done = true;
                    break;
                }
                Poll::Pending => break,
            }
            if self.ended {
                let ended = match self.trailers.clone() {
                    Some(trailers) => send.send_trailers(trailers),
                    None => send.send_data(Chunk::default(), true),
                };
                // As above.
                drop(ended);
                self.done = true;
                moved = true;
                break;
            }
            match client.poll_body(cx) {
                Poll::Ready(Ok(Some(part))) => {
                    moved = true;
                    self.hold(&part);
                    self.parts.push_back(part);
                }
                Poll::Ready(Ok(None)) => {
                    if self.trailing {
                        let Poll::Ready(trailers) = client.poll_trailers(cx) else {
                            break;
                        };
                        self.trailers =
                            trailers.map(|trailers| headers::passed_trailers(trailers, Way::ToBackend));
                    }
                    self.ended = true;
                }
                Poll::Ready(Err(gone)) => return Err(gone),
                Poll::Pending => break,
            }
        }
        Ok(moved)
    }

    fn poll_hand_over(
        &mut self,
        send: &mut SendStream<Chunk>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, h2::Error>> {
        let mut moved = false;
        while let Some(front) = self.parts.front_mut() {
            send.reserve_capacity(front.len());
            let room = send.capacity();
            if room == 0 {
                match std::task::ready!(send.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
                }
            }
            let part = front.split_to(front.len().min(room));
            if front.is_empty() {
                self.parts.pop_front();
            }
            send.send_data(part, false)?;
            moved = true;
        }
        Poll::Ready(Ok(moved))
    }

    fn hold(&mut self, part: &Chunk) {
        self.held_bytes += part.len();
        if self.held_bytes > self.hold {
            self.held = None;
        }
        if let Some(held) = &mut self.held {
            held.push(part.clone());
        }
    }
}
