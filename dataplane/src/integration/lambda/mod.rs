//! Type `AWS_PROXY`: a Lambda function gets the whole request as an event, and answers the whole response.

mod answer;
mod event;
pub(super) mod invoke;

use std::borrow::Cow;

use tidegate_plan::integration::Lambda;
use tidegate_plan::path::PathRef;
use tidegate_rt as rt;
use tidegate_rt::Chunk;

use super::headers::{self, Rule};
use super::http;
use crate::http::Known;
use crate::pipeline::exchange::{Exchange, collapse};
use crate::pipeline::failure::Failure;
use crate::pipeline::response::{HEAD_ROOM, own};
use crate::pipeline::{After, body, coding, context, gateway_response, probe};
use crate::shard::{Client, Delivery, Protocol};
use answer::Answer;
use invoke::{Invoke, Mode};

/// Calls the function with the request's event, and answers with what it says.
pub(super) async fn call(x: &mut Exchange<'_>, client: &mut Client, lambda: &Lambda) -> After {
    if let Err(gone) = body::take(x, client).await {
        return gateway_response::client_gone(x, client, gone);
    }
    let begun = rt::now();
    let trace = trace(x, client);
    let call = Invoke {
        lambda,
        payload: event_of(x, client, &trace).into(),
        mode: Mode::RequestResponse,
        trace: &trace,
        begun,
    };
    let invoked = match invoke::invoke(x, client, call).await {
        Ok(invoked) => invoked,
        Err(ended) => return http::end(x, client, begun, ended),
    };
    http::note(x, begun, Some(invoked.status), "");
    probe("response", x, client);
    let binary = asks_for_binary(x, &invoked.payload);
    let answer = match invoked.error {
        false => answer::read(&invoked.payload, binary).ok(),
        true => None,
    };
    match answer {
        Some(answer) if answer.body.len() as u64 > client.shard.bounds.payload => {
            gateway_response::answer(x, client, Failure::ANSWER_TOO_LARGE)
        }
        Some(answer) => respond(x, client, answer, &trace).await,
        // RES-139, RES-142: the function's error, and what is no answer.
        None => gateway_response::answer(x, client, Failure::INVALID_ANSWER),
    }
}

/// The request's own trace header, or a new one.
fn trace(x: &Exchange<'_>, client: &Client) -> Vec<u8> {
    let shard = &client.shard;
    match x.head.fields().get(Known::XAmznTraceId) {
        Some(own) => own.to_vec(),
        None => shard
            .ids
            .trace_id(shard.clock.epoch(x.received).as_secs())
            .to_vec(),
    }
}

fn event_of(x: &Exchange<'_>, client: &Client, trace: &[u8]) -> Vec<u8> {
    let text = |name| -> Cow<'_, [u8]> { context::variable(x, client, name).unwrap_or_default() };
    let stage = x.stage.as_ref().map(|stage| &stage.shared.plan);
    let stage_name = stage.map(|stage| stage.stage.as_str()).unwrap_or_default();
    let below = x
        .resource_path()
        .map(PathRef::as_str)
        .filter(|path| !path.is_empty());
    let below = below.unwrap_or("/");
    let full_path = match x.path.as_ref() {
        // OBV-206, OBV-207: as it was called, with one slash in front.
        Some(path) if x.skip == 1 => Cow::Borrowed(collapse(path.view()).as_str()),
        _ => Cow::Owned(format!("/{stage_name}{below}")),
    };
    let route = x.route();
    let names = route.map(|route| route.parameters()).unwrap_or_default();
    let path_parameters = names
        .iter()
        .enumerate()
        .filter_map(|(at, name)| Some((&**name, x.capture(at)?)))
        .collect();
    let mut stage_variables: Vec<(&str, &str)> = stage
        .map(|stage| {
            stage
                .variables
                .iter()
                .map(|(name, value)| (name, &**value))
                .collect()
        })
        .unwrap_or_default();
    if let Some(canary) = stage.and_then(|stage| stage.canary.as_ref()).filter(|_| x.canary) {
        for (name, value) in canary.variables.iter() {
            stage_variables.retain(|(known, _)| *known != name);
            stage_variables.push((name, value));
        }
    }
    let body = x.body.as_deref().unwrap_or_default();
    let types = x.plan().map(|plan| plan.binary_media_types()).unwrap_or_default();
    let media_type = x
        .head
        .fields()
        .get(Known::ContentType)
        .unwrap_or(b"application/json");
    event::event(&event::Facts {
        resource: route.map(|route| &**route.path()).unwrap_or_default(),
        resource_id: route.map(|route| route.resource().as_str()).unwrap_or_default(),
        path: below,
        full_path: &full_path,
        method: x.head.method(),
        fields: x.head.fields(),
        trace,
        port: client.origin.local.port(),
        scheme: match client.origin.protocol {
            Protocol::Http => "http",
            Protocol::Https => "https",
        },
        query: x.query.unwrap_or_default(),
        path_parameters,
        stage_variables,
        account: stage.map(|stage| stage.account.as_str()).unwrap_or_default(),
        api: stage.map(|stage| stage.api.as_str()).unwrap_or_default(),
        deployment: x
            .plan()
            .map(|plan| plan.deployment().as_str())
            .unwrap_or_default(),
        stage: stage_name,
        host: x.host,
        request_id: &x.request_id,
        extended_id: &x.extended_id,
        protocol: x.protocol(),
        request_time: &text("requestTime"),
        epoch_ms: client.shard.clock.epoch(x.received).as_millis(),
        source_ip: client.peer_text(),
        body,
        binary: answer::is_binary(types, media_type),
    })
}

/// GWR-107: the first media type that the client accepts decides; without any, that of the answer.
fn asks_for_binary(x: &Exchange<'_>, result: &[u8]) -> bool {
    let types = x.plan().map(|plan| plan.binary_media_types()).unwrap_or_default();
    if types.is_empty() {
        return false;
    }
    let accepted = x
        .head
        .fields()
        .get(Known::Accept)
        .filter(|value| !value.is_empty());
    if let Some(accepted) = accepted {
        let first = accepted.split(|byte| *byte == b',').next().unwrap_or_default();
        return answer::is_binary(types, first);
    }
    let Ok(answer) = answer::read(result, false) else {
        return false;
    };
    let own = answer
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    answer::is_binary(types, own.map(|(_, value)| value.as_bytes()).unwrap_or_default())
}

/// Writes the function's answer.
async fn respond(x: &mut Exchange<'_>, client: &mut Client, answer: Answer, trace: &[u8]) -> After {
    let read = client.body_is_done();
    x.keep_alive &= read && !client.is_finished() && !client.shard.draining();
    let Answer {
        status,
        headers,
        body,
    } = answer;
    // CAC-134: what the function has encoded goes on as it is.
    let is_encoded = headers
        .iter()
        .any(|(name, _)| Known::ContentEncoding.is(name.as_bytes()));
    let least = x.plan().and_then(|plan| plan.minimum_compression());
    let coding = match least {
        Some(least) if !is_encoded && !body.is_empty() && body.len() as u64 >= least => {
            coding::accepted(x.head.fields())
        }
        _ => None,
    };
    let body = match coding {
        Some(coding) => coding::encode(&body, coding).await,
        None => body,
    };
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + 32)
        .sum();
    let mut response = client.response(status, HEAD_ROOM + size, headers.len());
    let mut head = response.head();
    own(
        &mut head,
        &client.shard.clock.date(rt::now()),
        x.keep_alive,
        &x.request_id,
        &x.extended_id,
    );
    if let Some(coding) = coding {
        head.known(Known::ContentEncoding, coding.name().as_bytes());
    }
    let mut typed = false;
    for (name, value) in &headers {
        let known = Known::from_name(name.as_bytes());
        typed |= known == Some(Known::ContentType);
        match headers::to_client(known) {
            Rule::Pass => head.field(name.as_bytes(), value.as_bytes()),
            Rule::Remap => head.prefixed(headers::REMAPPED, name.as_bytes(), value.as_bytes()),
            Rule::Drop => continue,
        };
    }
    if !headers
        .iter()
        .any(|(name, _)| Known::XAmznTraceId.is(name.as_bytes()))
    {
        // OBV-169.
        head.known(Known::XAmznTraceId, trace);
    }
    // RFC 9110 sections 15.3.5 and 15.4.5: these have no body.
    let has_body = !matches!(status, 204 | 304);
    if has_body {
        if !typed {
            // QUO-122.
            head.known(Known::ContentType, b"application/json");
        }
        head.number(Known::ContentLength, body.len() as u64);
    }
    let length = if has_body && !x.is_head() { body.len() } else { 0 };
    client.begin(response, Delivery::whole(length as u64));
    if length > 0 {
        client.part(Chunk::from(body));
    }
    client.end();
    x.outcome.status = status;
    x.outcome.length = length as u64;
    match (x.keep_alive, read) {
        (true, _) => After::Next,
        (false, true) => After::Close,
        (false, false) => After::Linger,
    }
}
