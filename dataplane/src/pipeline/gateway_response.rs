//! The answers that the gateway gives by itself, with an API's overrides.

use std::borrow::Cow;

use tidegate_plan::{GatewayResponse, Status};
use tidegate_rt as rt;
use tidegate_rt::Buffer;

use super::After;
use super::context;
use super::exchange::Exchange;
use super::failure::Failure;
use super::response::{HEAD_ROOM, Whole, own};
use crate::http::Known;
use crate::shard::{Client, Delivery, Gone};

const JSON: &str = "application/json";

/// Answers a request with a failure. What is left of its body decides whether the connection goes on.
// Seldom, and large: what calls it is laid out of the way too.
#[cold]
#[inline(never)]
pub fn answer(x: &mut Exchange<'_>, client: &mut Client, failure: Failure) -> After {
    x.fail(failure);
    let read = client.discard_received() && !failure.fatal;
    // Held, so that what the answer is made from outlives the changes to the exchange.
    let stage = x.stage.clone();
    let plan = stage.as_ref().map(|stage| stage.plan(x.canary));
    let overrides = match failure.kind {
        Some(kind) => plan.map(|plan| plan.gateway_responses()).and_then(|all| {
            let own = all.get(kind);
            let fallback = kind.fallback().and_then(|kind| all.get(kind));
            // GWR-024: a status is inherited; headers and templates are the type's own or the fallback's (GWR-028).
            let status = own
                .and_then(|one| one.status)
                .or_else(|| fallback.and_then(|one| one.status));
            own.or(fallback).map(|content| (content, status))
        }),
        None => None,
    };
    let (content, status) = match overrides {
        Some((content, status)) => (Some(content), status.map_or(failure.status, Status::code)),
        None => (None, failure.status),
    };
    let mut body = Buffer::with_capacity(256);
    let media_type = match content.and_then(|content| template(x, content)) {
        Some((media_type, template)) => {
            render(template, &mut body, |name, out| {
                variable(x, client, &failure, name, out)
            });
            media_type
        }
        None => {
            let (before, after) = failure.default_body();
            body.extend_from_slice(before.as_bytes());
            escape(x.message(&failure), &mut body);
            body.extend_from_slice(after.as_bytes());
            JSON
        }
    };
    let headers = content.map(|content| &*content.headers).unwrap_or_default();
    let is_type = |name: &str| name.eq_ignore_ascii_case("content-type");
    let mut mapped = Vec::new();
    for (name, source) in content.map(|content| &*content.mapped).unwrap_or_default() {
        let mut value = Buffer::with_capacity(64);
        variable(x, client, &failure, source, &mut value);
        // One that would end its line is no header's.
        if !value.is_empty() && tidegate_plan::header::is_value(&value) {
            mapped.push((name, value));
        }
    }
    let own = headers.iter().map(|(name, _)| name);
    let typed = own
        .chain(mapped.iter().map(|(name, _)| *name))
        .any(|name| is_type(name.as_str()));
    let whole = Whole {
        status,
        media_type: (!typed).then_some(media_type.as_bytes()),
        body: &body.freeze(),
        room: mapped.iter().map(|(_, value)| value.len() + 64).sum(),
        fields: 1 + headers.len() + mapped.len(),
    };
    whole.send(x, client, read, |head| {
        head.field(b"x-amzn-ErrorType", failure.error_type.as_bytes());
        for (name, value) in headers {
            head.field(name.as_str().as_bytes(), value.as_bytes());
        }
        for (name, value) in &mapped {
            head.field(name.as_str().as_bytes(), value.trim_ascii());
        }
    })
}

/// Answers where the client's own doing ended the request before its time, as far as there is somebody to answer.
#[cold]
#[inline(never)]
pub fn client_gone(x: &mut Exchange<'_>, client: &mut Client, gone: Gone) -> After {
    match gone {
        Gone::Malformed => answer(x, client, Failure::BAD_REQUEST),
        Gone::TooLarge => answer(x, client, Failure::TOO_LARGE),
        Gone::TooSlow => answer(x, client, Failure::REQUEST_TIMED_OUT),
        Gone::Aborted | Gone::Stopped => {
            // Nobody is left to answer (decision D14).
            x.outcome.status = 499;
            After::Reset
        }
    }
}

/// Answers what is not a request: there is nobody to name in a log.
#[cold]
#[inline(never)]
pub fn refuse(client: &mut Client, failure: Failure) {
    let shard = &client.shard;
    let (before, after) = failure.default_body();
    let length = before.len() + failure.message.len() + after.len();
    let mut response = client.response(failure.status, HEAD_ROOM, 1);
    let mut head = response.head();
    own(
        &mut head,
        &shard.clock.date(rt::now()),
        false,
        &shard.ids.request_id(),
        &shard.ids.extended_id(),
    );
    head.field(b"x-amzn-ErrorType", failure.error_type.as_bytes())
        .known(Known::ContentType, JSON.as_bytes());
    head.number(Known::ContentLength, length as u64);
    client.begin(response, Delivery::whole(length as u64));
    for part in [before, failure.message, after] {
        client.part_from_slice(part.as_bytes());
    }
    client.end();
}

/// The template for a request: of the first media type that it accepts, else JSON's, else the first.
fn template<'p>(x: &Exchange<'_>, content: &'p GatewayResponse) -> Option<(&'p str, &'p str)> {
    let templates = &content.templates;
    let find = |wanted: &str| {
        templates
            .iter()
            .find(|(media_type, _)| media_type.eq_ignore_ascii_case(wanted))
    };
    let accepted = x.head.fields().get(Known::Accept).unwrap_or_default();
    let accepted = accepted.split(|b| *b == b',').find_map(|one| {
        let one = one.split(|b| *b == b';').next().unwrap_or_default();
        find(std::str::from_utf8(one.trim_ascii()).ok()?)
    });
    let (media_type, template) = accepted.or_else(|| find(JSON)).or_else(|| templates.first())?;
    Some((media_type, template))
}

/// The value of a template's variable (GWR-004 to GWR-008); nothing for one that is unknown.
fn variable(x: &Exchange<'_>, client: &Client, failure: &Failure, name: &str, out: &mut Buffer) {
    if let Some(name) = name.strip_prefix("stageVariables.") {
        return out.extend_from_slice(context::stage_variable(x, name).unwrap_or_default().as_bytes());
    }
    if let Some(name) = name.strip_prefix("method.input.params.") {
        let found = ["path", "querystring", "header"]
            .into_iter()
            .find_map(|location| parameter(x, location, name));
        return out.extend_from_slice(&found.unwrap_or_default());
    }
    if let Some((location, name)) = name
        .strip_prefix("method.request.")
        .and_then(|rest| rest.split_once('.'))
    {
        return out.extend_from_slice(&parameter(x, location, name).unwrap_or_default());
    }
    match name.strip_prefix("context.") {
        None => {}
        Some("error.message") => out.extend_from_slice(x.message(failure).as_bytes()),
        // A JSON string with its quotes, so that a template without quotes of its own yields valid JSON.
        Some("error.messageString") => {
            out.put_u8(b'"');
            escape(x.message(failure), out);
            out.put_u8(b'"');
        }
        Some("error.responseType") => {
            let kind = failure.kind.map(|kind| kind.name());
            out.extend_from_slice(kind.unwrap_or_default().as_bytes());
        }
        Some(name) => out.extend_from_slice(&context::variable(x, client, name).unwrap_or_default()),
    }
}

/// The value of a parameter of the method request (GWR-006, GWR-011 to GWR-013).
fn parameter<'x>(x: &'x Exchange<'_>, location: &str, name: &str) -> Option<Cow<'x, [u8]>> {
    match location {
        "header" | "multivalueheader" => Some(Cow::Borrowed(x.head.fields().get_by_name(name.as_bytes())?)),
        "path" => Some(Cow::Borrowed(context::path_parameter(x, name)?.as_bytes())),
        "querystring" | "multivaluequerystring" => context::query_parameter(x, name.as_bytes()),
        _ => None,
    }
}

/// Writes text as it stands within a JSON string.
fn escape(text: &str, out: &mut Buffer) {
    // A JSON writer to memory cannot fail, and its text is at least the two quotes.
    let quoted = serde_json::to_string(text).unwrap_or_default();
    let inner = quoted.get(1..quoted.len().saturating_sub(1));
    out.extend_from_slice(inner.unwrap_or_default().as_bytes());
}

/// Replaces `$name` and `${name}` where the name begins with a known root, and keeps everything else (GWR-003).
fn render(template: &str, out: &mut Buffer, value: impl Fn(&str, &mut Buffer)) {
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        match reference(rest) {
            Some((name, length)) => {
                value(name, out);
                rest = &rest[length..];
            }
            None => {
                out.put_u8(b'$');
                rest = &rest[1..];
            }
        }
    }
    out.extend_from_slice(rest.as_bytes());
}

/// The name of the reference that `text` begins with, and how long the reference is.
fn reference(text: &str) -> Option<(&str, usize)> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let body = text.strip_prefix('$')?;
    let (name, length) = match body.strip_prefix('{') {
        Some(inner) => {
            let end = inner.find('}')?;
            (&inner[..end], end + 3)
        }
        None => {
            let end = body.find(|c| !in_name(c)).unwrap_or(body.len());
            // A full stop after a name ends a sentence.
            let name = body[..end].trim_end_matches(['.', '-']);
            (name, name.len() + 1)
        }
    };
    let known = ["context.", "stageVariables.", "method.request."]
        .iter()
        .any(|root| name.starts_with(root));
    (known && name.chars().all(in_name)).then_some((name, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str) -> String {
        let mut out = Buffer::with_capacity(64);
        render(template, &mut out, |name, out| {
            out.extend_from_slice(format!("<{name}>").as_bytes());
        });
        String::from_utf8(out.to_vec()).unwrap()
    }

    /// GWR-003, GWR-004, GWR-005.
    #[test]
    fn templates_are_simple_substitution() {
        assert_eq!(
            rendered("{\"m\":$context.error.messageString}"),
            "{\"m\":<context.error.messageString>}"
        );
        assert_eq!(rendered("${stageVariables.a}b"), "<stageVariables.a>b");
        assert_eq!(
            rendered("$context.stage. $5 $$ #if($input.body)"),
            "<context.stage>. $5 $$ #if($input.body)"
        );
        assert_eq!(
            rendered("$method.request.header.x-a"),
            "<method.request.header.x-a>"
        );
        assert_eq!(rendered("${context.stage"), "${context.stage");
        assert_eq!(rendered("é$context.stage"), "é<context.stage>");
    }
}
