//! `HTTP_PROXY` and `HTTP` pass-through: one request to a backend, its answer to the client.

use std::rc::Rc;

use tidegate_plan::PassThrough;
use tidegate_plan::integration::{HttpBackend, ResponseSelection};
use tidegate_rt as rt;
use tidegate_rt::{Chunk, Instant};
use tidegate_vtl::Document;

use super::headers::{self, Rule};
use super::prepared::Prepared;
use super::relay::{self, Answer, Broken, Upload};
use super::{recoded, request, through};
use crate::http::{Decoded, Decoder, Fields, Framing, HeadWriter, Known, ResponseHead};
use crate::net::upstream::{ConnectError, Connection, Named, Upstream};
use crate::pipeline::exchange::{Called, Exchange};
use crate::pipeline::failure::Failure;
use crate::pipeline::response::{HEAD_ROOM, own};
use crate::pipeline::{After, body, gateway_response, probe};
use crate::shard::{Client, Delivery, Gone, LocalStage, Shard};

/// Which rules hold between client and backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `HTTP_PROXY`.
    Proxy,
    /// `HTTP_PROXY` that lets more pass (decision D13).
    Through(PassThrough),
    /// `HTTP`.
    Custom,
}

/// How a call ends that did not bring an answer to the client's connection.
pub(super) enum Ended {
    Failure(Failure),
    Gone(Gone),
    Crowded,
}

/// Calls the backend and relays its answer.
pub(super) async fn call(
    x: &mut Exchange<'_>,
    client: &mut Client,
    stage: &Rc<LocalStage>,
    backend: &HttpBackend,
    kind: Kind,
) -> After {
    let Some(upstream) = stage.upstream(x.canary, backend.target()).map(Rc::clone) else {
        return gateway_response::answer(x, client, Failure::CONFIGURATION);
    };
    let begun = rt::now();
    let mut deadline = begun + backend.timeout();
    let answered = attempt(x, client, stage, &upstream, backend, kind, None, &mut deadline).await;
    match answered {
        Ok((answer, connection)) => {
            note_answer(x, client, begun, &answer.head);
            respond(x, client, stage, backend, kind, &upstream, answer, connection).await
        }
        Err(ended) => end(x, client, begun, ended),
    }
}

/// As [`call`], for `HTTP_PROXY` with parameters that have to be made before the head is written.
pub(super) async fn call_prepared(
    x: &mut Exchange<'_>,
    client: &mut Client,
    stage: &Rc<LocalStage>,
    backend: &HttpBackend,
) -> After {
    let Some(upstream) = stage.upstream(x.canary, backend.target()).map(Rc::clone) else {
        return gateway_response::answer(x, client, Failure::CONFIGURATION);
    };
    let reads_body = backend.mappings().iter().any(|one| one.source().reads_body());
    if reads_body && let Err(gone) = body::take(x, client).await {
        return gateway_response::client_gone(x, client, gone);
    }
    let prepared = {
        let body = x.body.as_deref().unwrap_or_default();
        let document = Document::from_bytes(body).with_depth(client.shard.bounds.json_depth);
        Prepared::new(x, client, backend.mappings(), &document)
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return gateway_response::answer(x, client, failure),
    };
    let (begun, kind) = (rt::now(), Kind::Proxy);
    let mut deadline = begun + backend.timeout();
    let asked = attempt(
        x,
        client,
        stage,
        &upstream,
        backend,
        kind,
        Some(&prepared),
        &mut deadline,
    );
    match asked.await {
        Ok((answer, connection)) => {
            note_answer(x, client, begun, &answer.head);
            respond(x, client, stage, backend, kind, &upstream, answer, connection).await
        }
        Err(ended) => end(x, client, begun, ended),
    }
}

/// Notes what the backend has answered.
pub(super) fn note_answer(x: &mut Exchange<'_>, client: &Client, begun: Instant, head: &ResponseHead) {
    note(x, begun, Some(head.status()), "");
    if let Some(test) = &client.test {
        test.note_answer(head);
    }
    probe("response", x, client);
}

/// Notes what came of the call.
pub(super) fn note(x: &mut Exchange<'_>, begun: Instant, status: Option<u16>, error: &'static str) {
    x.outcome.integration = Some(Called {
        begun,
        answered: rt::now(),
        status,
        error,
    });
}

/// Ends a call that brought no answer.
pub(super) fn end(x: &mut Exchange<'_>, client: &mut Client, begun: Instant, ended: Ended) -> After {
    match ended {
        Ended::Failure(failure) => {
            note(x, begun, None, failure.message);
            gateway_response::answer(x, client, failure)
        }
        Ended::Gone(gone) => gateway_response::client_gone(x, client, gone),
        Ended::Crowded => {
            note(x, begun, None, Failure::OVERLOADED.message);
            overloaded(x, client)
        }
    }
}

/// Nothing can be done for this request: it is told, as long as telling takes little of the time (decision D16).
fn overloaded(x: &mut Exchange<'_>, client: &mut Client) -> After {
    let shard = Rc::clone(&client.shard);
    if !shard.refusals.may_answer(rt::now()) {
        shard.counters().overload_closed.add(1);
        x.outcome.status = Failure::OVERLOADED.status;
        return After::Reset;
    }
    let began = Instant::now();
    let after = gateway_response::answer(x, client, Failure::OVERLOADED);
    // What came before it may have been waiting.
    shard
        .refusals
        .charge(Instant::now().saturating_duration_since(began));
    shard.counters().overload_answered.add(1);
    after
}

/// Calls the backend and reads its answer whole. The backend's time ends with the last byte (decision D15).
pub(super) async fn fetch(
    x: &mut Exchange<'_>,
    client: &mut Client,
    stage: &Rc<LocalStage>,
    backend: &HttpBackend,
    prepared: &Prepared,
) -> Result<(ResponseHead, Chunk), Ended> {
    let upstream = stage.upstream(x.canary, backend.target()).map(Rc::clone);
    let upstream = upstream.ok_or(Ended::Failure(Failure::CONFIGURATION))?;
    let shard = Rc::clone(&client.shard);
    let begun = rt::now();
    let mut deadline = begun + backend.timeout();
    let kind = Kind::Custom;
    let asked = attempt(
        x,
        client,
        stage,
        &upstream,
        backend,
        kind,
        Some(prepared),
        &mut deadline,
    );
    let (answer, mut connection) = asked.await?;
    note_answer(x, client, begun, &answer.head);
    let framing = answer.head.framing();
    let mut decoder = Decoder::new(framing, &shard.limits);
    let (io, rest) = (&mut connection.io, answer.rest);
    let (body, clean) = match relay::collect(client, io, &mut decoder, rest, deadline).await {
        Ok(collected) => collected,
        Err(Broken::Gone(gone)) => return Err(Ended::Gone(gone)),
        Err(Broken::TimedOut) => return Err(Ended::Failure(Failure::TIMED_OUT)),
        Err(Broken::TooLarge) => return Err(Ended::Failure(Failure::ANSWER_TOO_LARGE)),
        Err(_) => return Err(Ended::Failure(Failure::INVALID_ANSWER)),
    };
    let reusable = framing != Framing::UntilClose && answer.head.keep_alive() && answer.uploaded;
    if reusable && clean && !connection.spoiled {
        upstream.check_in(connection, &shard.upstreams.helpers);
    }
    Ok((answer.head, body))
}

/// Gets a connection and an answer's head, again on a new connection where that is safe (decision D11). All attempts
/// together have until `deadline`, which is moved as [`relay::ask`] has it.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one exchange, each borrowed in its own way"
)]
pub(super) async fn attempt(
    x: &mut Exchange<'_>,
    client: &mut Client,
    stage: &LocalStage,
    upstream: &Rc<Upstream>,
    backend: &HttpBackend,
    kind: Kind,
    prepared: Option<&Prepared>,
    deadline: &mut Instant,
) -> Result<(Answer, Box<Connection>), Ended> {
    let shard = Rc::clone(&client.shard);
    // What a phase before has read whole is sent as one piece.
    let whole = x.body.take();
    let framing = match &whole {
        None => client.framing,
        Some(body) if body.is_empty() => Framing::Empty,
        Some(body) => Framing::Length(body.len() as u64),
    };
    let head =
        request::head(x, client, upstream, backend, kind, framing, prepared).map_err(Ended::Failure)?;
    if let Some(test) = &client.test {
        let target = stage.plan(x.canary).target(backend.target());
        test.note_request(target.scheme().as_str(), &target.authority(), &head);
    }
    let idempotent = !matches!(request::method(x, backend), "POST" | "PATCH");
    let mut upload = match whole {
        None => Upload::new(head, framing, shard.bounds.retry_hold),
        Some(body) => Upload::whole(head, body),
    };
    if let Kind::Through(pass) = kind {
        upload.pass_through(pass.trailers, through::switches(x, pass));
    }
    let to_head = request::method(x, backend) == "HEAD";
    // A second attempt is on a new connection.
    let mut idle = upstream.checkout_idle(!idempotent, &named(client, upstream));
    loop {
        let mut connection = match idle.take() {
            Some(connection) => connection,
            None => connect(client, upstream, *deadline).await?,
        };
        if !connection.reused {
            shard.counters().upstream_connects.add(1);
        }
        let asked = relay::ask(client, &mut connection.io, &mut upload, deadline, to_head);
        match asked.await {
            Ok(answer) => return Ok((answer, connection)),
            Err(Broken::Gone(gone)) => return Err(Ended::Gone(gone)),
            Err(Broken::TimedOut) => return Err(Ended::Failure(Failure::TIMED_OUT)),
            Err(Broken::Invalid | Broken::TooLarge) => {
                return Err(Ended::Failure(Failure::INVALID_ANSWER));
            }
            Err(Broken::Upgrade) => return Err(Ended::Failure(Failure::UNSOLICITED_UPGRADE)),
            // The backend closed an idle connection, before the request or while it was on its way.
            Err(Broken::Closed { answered: false }) if connection.reused => {
                upstream.distrust();
                if !(idempotent && upload.rewind() && upstream.may_retry()) {
                    return Err(Ended::Failure(Failure::UNREACHABLE));
                }
            }
            Err(Broken::Closed { .. }) => return Err(Ended::Failure(Failure::UNREACHABLE)),
        }
    }
}

/// Gets a connection that has carried no request, or that comes free.
pub(super) async fn connect(
    client: &mut Client,
    upstream: &Rc<Upstream>,
    deadline: Instant,
) -> Result<Box<Connection>, Ended> {
    let shard = Rc::clone(&client.shard);
    // Boxed, as it is rare and large, and every request's state would hold it.
    let checkout = Box::pin(upstream.checkout(&shard.upstreams.helpers, named(client, upstream)));
    let made = relay::connect(client, deadline, checkout).await;
    connected(&shard, upstream, made)
}

/// What was connected to, or what the lack of it means for the call.
pub(super) fn connected<T>(
    shard: &Shard,
    upstream: &Upstream,
    made: Result<Result<T, ConnectError>, Broken>,
) -> Result<T, Ended> {
    match made {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            shard.counters().upstream_connect_failures.add(1);
            tracing::debug!(target = %upstream.authority, %error, "no connection to the backend");
            Err(match error {
                ConnectError::Crowded => Ended::Crowded,
                _ => Ended::Failure(Failure::UNREACHABLE),
            })
        }
        Err(Broken::Gone(gone)) => Err(Ended::Gone(gone)),
        Err(_) => Err(Ended::Failure(Failure::TIMED_OUT)),
    }
}

/// Whom the backend is told that a connection is for, where it is told.
pub(super) fn named(client: &Client, upstream: &Upstream) -> Named {
    upstream.proxy_protocol().and_then(|_| client.addresses())
}

/// Writes the answer's head and relays its body.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one exchange, each borrowed in its own way"
)]
pub(super) async fn respond(
    x: &mut Exchange<'_>,
    client: &mut Client,
    stage: &LocalStage,
    backend: &HttpBackend,
    kind: Kind,
    upstream: &Rc<Upstream>,
    answer: Answer,
    mut connection: Box<Connection>,
) -> After {
    let framing = answer.head.framing();
    let shard = Rc::clone(&client.shard);
    let selected = match kind {
        Kind::Proxy | Kind::Through(_) => None,
        Kind::Custom => {
            let place = x.place;
            let chosen = place.and_then(|place| {
                stage
                    .shared
                    .select(x.canary, place.route, place.method, answer.head.status())
            });
            match chosen.and_then(|at| backend.responses().get(at)) {
                Some(selected) => Some(selected),
                // GWR-030: no response matches, and there is no default.
                None => return gateway_response::answer(x, client, Failure::CONFIGURATION),
            }
        }
    };
    if let Framing::Length(length) = framing
        && length > shard.bounds.payload
    {
        return gateway_response::answer(x, client, Failure::ANSWER_TOO_LARGE);
    }
    let status = selected.map_or(answer.head.status(), |selected| selected.status.code());
    // RFC 9112 section 6.3: these have no body, whatever the backend sent.
    let bodiless = x.is_head() || matches!(status, 204 | 304);
    if !bodiless
        && stage.plan(x.canary).recodes_answers()
        && let Some(recoding) = recoded::of(x, stage, kind, &answer.head)
    {
        let recoded = recoded::respond(
            x, client, stage, backend, kind, upstream, answer, connection, selected, recoding,
        );
        // Apart, as few routes have it.
        return Box::pin(recoded).await;
    }
    let Answer {
        head,
        mut rest,
        uploaded,
    } = answer;
    let read = uploaded && client.body_is_done();
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

    let mut decoder = Decoder::new(framing, &shard.limits);
    if let Kind::Through(pass) = kind
        && through::takes_trailers(x, pass)
    {
        decoder.keep_trailers();
    }
    let small = rest.as_ref().map_or(0, |rest| rest.len().min(SMALL));
    let mut response = client.response(status, HEAD_ROOM + 1024 + small, head.fields().len());
    write_head(
        x,
        client,
        response.head(),
        &head,
        status,
        selected,
        kind,
        delivery,
    );
    client.begin(response, delivery);

    // What came with the head: copied behind it where it is small, so that one send carries both.
    let mut complete = decoder.is_done();
    while !complete && let Some(input) = &mut rest {
        let decoded = decoder.decode(input);
        if input.is_empty() {
            rest = None;
        }
        match decoded {
            Ok(Decoded::Data(chunk)) => {
                x.outcome.length += chunk.len() as u64;
                client.part(chunk);
                complete = decoder.is_done();
            }
            Ok(Decoded::End) => complete = true,
            Ok(Decoded::More) => {}
            Err(_) => return died(x, client, delivery),
        }
    }
    if complete {
        relay::end(client, &mut decoder);
    }
    // What follows an answer that nobody asked for cannot be the next one's.
    connection.spoiled |= rest.is_some();
    if !complete {
        let streamed = relay::stream(client, &mut connection.io, &mut decoder, &mut x.outcome.length).await;
        match streamed {
            Ok(clean) => connection.spoiled |= !clean,
            Err(Broken::Gone(_)) => {
                x.outcome.status = 499;
                return After::Reset;
            }
            Err(_) => return died(x, client, delivery),
        }
    }
    if framing != Framing::UntilClose && head.keep_alive() && uploaded && !connection.spoiled {
        upstream.check_in(connection, &shard.upstreams.helpers);
    }
    match (x.keep_alive, read) {
        (true, _) => After::Next,
        (false, true) => After::Close,
        (false, false) => After::Linger,
    }
}

/// The backend died within its body: the client must not take what it got for the whole (decision D14).
#[cold]
pub(super) fn died(x: &mut Exchange<'_>, client: &Client, delivery: Delivery) -> After {
    x.keep_alive = false;
    if let Some(called) = &mut x.outcome.integration {
        called.error = "the backend ended the connection within its response";
    }
    tracing::debug!(peer = %client.origin.peer, "a backend died within its response");
    match delivery {
        // The missing bytes or the missing last chunk tell, where an end of the connection alone would not.
        Delivery::Length(_) | Delivery::Streamed => After::Truncated,
        Delivery::Close | Delivery::None => After::Reset,
    }
}

/// Writes the backend's fields that pass to the client; whether there is a media type among them.
pub(super) fn passed(writer: &mut HeadWriter<'_>, fields: &Fields) -> bool {
    let named = fields.connection_names_others();
    writer.kept(fields, |field| {
        headers::to_client(field.known) == Rule::Pass && !(named && fields.connection_names(field.name))
    });
    for field in fields
        .iter()
        .filter(|field| headers::to_client(field.known) == Rule::Remap)
    {
        writer.prefixed(headers::REMAPPED, field.name, field.value);
    }
    fields.get(Known::ContentType).is_some()
}

/// Body bytes that a response's head is given room for.
const SMALL: usize = 8 * 1024;

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one exchange, each borrowed in its own way"
)]
pub(super) fn write_head(
    x: &Exchange<'_>,
    client: &Client,
    mut writer: HeadWriter<'_>,
    head: &ResponseHead,
    status: u16,
    selected: Option<&ResponseSelection>,
    kind: Kind,
    delivery: Delivery,
) {
    let shard = &client.shard;
    let now = rt::now();
    own(
        &mut writer,
        &shard.clock.date(now),
        x.keep_alive,
        &x.request_id,
        &x.extended_id,
    );
    let mut typed = false;
    match (kind, selected) {
        (Kind::Proxy, _) => typed = passed(&mut writer, head.fields()),
        (Kind::Through(pass), _) => {
            typed = passed(&mut writer, head.fields());
            if through::takes_trailers(x, pass) && delivery == Delivery::Streamed {
                through::announced(head.fields(), &mut writer);
            }
            if pass.via {
                through::via(head.fields(), head.version(), &mut writer);
            }
        }
        (Kind::Custom, selected) => {
            for (name, value) in selected.map(|selected| &*selected.headers).unwrap_or_default() {
                let name = name.as_str().as_bytes();
                typed |= name.eq_ignore_ascii_case(b"content-type");
                match headers::static_to_client(name) {
                    Rule::Pass => {
                        writer.field(name, value.as_bytes());
                    }
                    Rule::Remap => {
                        writer.prefixed(headers::REMAPPED, name, value.as_bytes());
                    }
                    Rule::Drop => {}
                }
            }
            // OBV-240.
            let trace = shard.ids.trace_id(shard.clock.epoch(x.received).as_secs());
            writer.unique(Known::XAmznTraceId, &trace);
            // CAC-134: what comes encoded goes on encoded, and says so.
            let is_encoding = |name: &str| name.eq_ignore_ascii_case("content-encoding");
            let mut mapped = selected.iter().flat_map(|selected| &selected.headers);
            if let Some(coding) = head.fields().get(Known::ContentEncoding)
                && !mapped.any(|(name, _)| is_encoding(name.as_str()))
            {
                writer.known(Known::ContentEncoding, coding);
            }
            if !typed && let Some(media_type) = head.fields().get(Known::ContentType) {
                typed = true;
                writer.known(Known::ContentType, media_type);
            }
        }
    }
    if !typed && status != 204 && status != 304 {
        // QUO-122.
        writer.known(Known::ContentType, b"application/json");
    }
    match delivery {
        Delivery::Length(length) => {
            writer.number(Known::ContentLength, length);
        }
        Delivery::Streamed => {
            writer.known(Known::TransferEncoding, b"chunked");
        }
        Delivery::Close => {}
        // RFC 9110 section 8.6: a HEAD's answer tells the length that a GET's would have.
        Delivery::None => {
            if let Some(length) = head.fields().get(Known::ContentLength).filter(|_| status != 204) {
                writer.known(Known::ContentLength, length);
            } else if x.is_head() && status != 204 && status != 304 {
                writer.known(Known::TransferEncoding, b"chunked");
            }
        }
    }
}
