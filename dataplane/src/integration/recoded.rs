//! Answers that pass through a method that reshapes nothing, but are compressed, or converted between bytes and text, on
//! their way: they are taken whole.

use std::rc::Rc;

use tidegate_plan::integration::{HttpBackend, ResponseSelection};
use tidegate_rt as rt;
use tidegate_rt::Chunk;

use super::content::{self, Conversion};
use super::http::{Ended, Kind, end, write_head};
use super::relay::{self, Answer, Broken};
use crate::http::{Decoder, Framing, Known, ResponseHead};
use crate::net::upstream::{Connection, Upstream};
use crate::pipeline::coding::{self, Coding};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::failure::Failure;
use crate::pipeline::response::HEAD_ROOM;
use crate::pipeline::{After, gateway_response};
use crate::shard::{Client, Delivery, LocalStage};

/// What is done to an answer's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recoding {
    conversion: Conversion,
    coding: Option<Coding>,
}

/// What is to be done to an answer; `None`: nothing, so that it need not be taken whole. Only a proxied payload is
/// converted: methods that have conversions of their own are no plain ones.
pub(super) fn of(x: &Exchange<'_>, stage: &LocalStage, kind: Kind, head: &ResponseHead) -> Option<Recoding> {
    let plan = stage.plan(x.canary);
    let fields = head.fields();
    let is_encoded = fields.get(Known::ContentEncoding).is_some();
    let conversion = match kind {
        // Payloads that are encoded already are nobody's text.
        Kind::Proxy if !is_encoded => content::of_answer(
            plan.binary_media_types(),
            fields.get(Known::ContentType),
            x.head.fields().get(Known::Accept),
            None,
        ),
        _ => Conversion::Text,
    };
    let converts = matches!(conversion, Conversion::Decode | Conversion::Encode);
    let enough = |least: u64| match head.framing() {
        // What it becomes is not known yet.
        Framing::Length(length) => converts || length >= least,
        Framing::Chunked | Framing::UntilClose => true,
        Framing::Empty => false,
    };
    // CAC-130.
    let coding = plan
        .minimum_compression()
        .filter(|least| !is_encoded && enough(*least))
        .and_then(|_| coding::accepted(x.head.fields()));
    (converts || coding.is_some()).then_some(Recoding { conversion, coding })
}

/// Takes an answer whole, recodes it and sends it.
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
    selected: Option<&ResponseSelection>,
    recoding: Recoding,
) -> After {
    let shard = Rc::clone(&client.shard);
    let begun = x.outcome.integration.map_or_else(rt::now, |called| called.begun);
    let Answer { head, rest, uploaded } = answer;
    let framing = head.framing();
    let mut decoder = Decoder::new(framing, &shard.limits);
    // The backend's time ends with the last byte of what is needed whole (decision D15).
    let deadline = begun + backend.timeout();
    let (body, clean) = match relay::collect(client, &mut connection.io, &mut decoder, rest, deadline).await {
        Ok(collected) => collected,
        Err(broken) => {
            let ended = match broken {
                Broken::Gone(gone) => Ended::Gone(gone),
                Broken::TimedOut => Ended::Failure(Failure::TIMED_OUT),
                Broken::TooLarge => Ended::Failure(Failure::ANSWER_TOO_LARGE),
                _ => Ended::Failure(Failure::INVALID_ANSWER),
            };
            return end(x, client, begun, ended);
        }
    };
    if framing != Framing::UntilClose && head.keep_alive() && uploaded && clean && !connection.spoiled {
        upstream.check_in(connection, &shard.upstreams.helpers);
    }
    let body = match recoding.conversion {
        Conversion::Encode => Chunk::from(content::encode(&body)),
        Conversion::Decode if !body.is_empty() => match content::decode(&body) {
            Ok(decoded) => Chunk::from(decoded),
            Err(failure) => return gateway_response::answer(x, client, failure),
        },
        _ => body,
    };
    let least = stage.plan(x.canary).minimum_compression();
    let coding = recoding
        .coding
        .filter(|_| !body.is_empty() && least.is_some_and(|least| body.len() as u64 >= least));
    let body = match coding {
        Some(coding) => Chunk::from(coding::encode(&body, coding).await),
        None => body,
    };
    let read = uploaded && client.body_is_done();
    x.keep_alive &= read && !client.is_finished() && !shard.draining();
    let status = selected.map_or(head.status(), |selected| selected.status.code());
    let delivery = Delivery::Length(body.len() as u64);
    let mut response = client.response(status, HEAD_ROOM + 1024, head.fields().len() + 1);
    if let Some(coding) = coding {
        response
            .head()
            .known(Known::ContentEncoding, coding.name().as_bytes());
    }
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
    x.outcome.status = status;
    x.outcome.length = body.len() as u64;
    client.begin(response, Delivery::whole(body.len() as u64));
    if !body.is_empty() {
        client.part(body);
    }
    client.end();
    match (x.keep_alive, read) {
        (true, _) => After::Next,
        (false, true) => After::Close,
        (false, false) => After::Linger,
    }
}
