//! The method response: an integration response is chosen, headers are mapped, a template is rendered, overrides hold
//! (VTL-001).

use tidegate_plan::custom::{
    Choice, ContentHandling, Custom, IntegrationResponse, ResponseSource, Templates,
};
use tidegate_rt::Chunk;
use tidegate_vtl::{Document, Overrides, Phase, Render};

use super::super::content::{self, Conversion, JSON};
use super::super::headers::{self, REMAPPED, Rule};
use super::super::prepared::{find, is_broken_object, is_own, printable, values};
use super::Reply;
use super::request::Request;
use super::scope::RequestScope;
use crate::http::Known;
use crate::pipeline::After;
use crate::pipeline::coding;
use crate::pipeline::context;
use crate::pipeline::exchange::{Detail, Exchange};
use crate::pipeline::failure::Failure;
use crate::pipeline::response::Whole;
use crate::shard::Client;

/// What goes to the client.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    media_type: Vec<u8>,
    body: Chunk,
    /// The integration is one whose answers carry a trace id (OBV-239, OBV-240).
    traced: bool,
}

/// Makes the method response.
///
/// # Errors
/// Where no integration response is for the reply, or what is made of it cannot be sent.
pub(super) fn make(
    x: &mut Exchange<'_>,
    client: &Client,
    custom: &Custom,
    reply: &Reply,
    request: Request,
) -> Result<Answer, Failure> {
    let Some(chosen) = custom.select(&reply.told) else {
        // INT-O18, RES-116, GWR-030.
        let why = "No match for output mapping and no default output mapping configured";
        return Err(fail(
            x,
            &format!("{why}. Endpoint Response Status Code: {}", reply.told),
        ));
    };
    // RES-118.
    let Some(status) = chosen.status else {
        return Err(fail(x, "the integration response has no method response"));
    };
    let head = reply.head.as_ref();
    let typed = head.and_then(|head| head.fields().get(Known::ContentType));
    let payload = payload(x, chosen, reply, typed);
    let document = Document::from_bytes(&payload.bytes).with_depth(client.shard.bounds.json_depth);
    let mut headers = mapped(x, client, chosen, reply, &document)?;
    let mut overrides = request.overrides;
    let mut rendered = None;
    let mut media_type = typed.unwrap_or(JSON.as_bytes()).to_vec();
    if let Some((name, Choice::Template(template))) = payload.template {
        let scope = RequestScope { x, client };
        let render = Render {
            phase: Phase::Response,
            scope: &scope,
            body: &document,
            budget: &client.shard.bounds.template,
        };
        match template.render(render, &mut overrides) {
            Ok(made) => rendered = Some(Chunk::from(made.text)),
            Err(error) => {
                tracing::debug!(%error, "a response template failed");
                return Err(fail(x, &format!("Unable to transform response: {error}")));
            }
        }
        // VTL-O11.
        media_type = name.as_bytes().to_vec();
    }
    override_headers(&mut headers, &overrides)?;
    drop(document);
    let encoded = head.and_then(|head| head.fields().get(Known::ContentEncoding));
    let is_encoding = |(name, _): &(String, Vec<u8>)| name.eq_ignore_ascii_case("content-encoding");
    if let Some(coding) = encoded.filter(|_| rendered.is_none() && !headers.iter().any(is_encoding)) {
        // CAC-134: what comes encoded goes on encoded, and says so.
        headers.push(("Content-Encoding".to_owned(), coding.to_vec()));
    }
    let body = match (rendered, payload.conversion) {
        (Some(rendered), _) => rendered,
        (None, Conversion::Decode) if !payload.bytes.is_empty() => {
            Chunk::from(content::decode(&payload.bytes)?)
        }
        (None, _) => payload.bytes,
    };
    let is_type = |(name, _): &(String, Vec<u8>)| name.eq_ignore_ascii_case("content-type");
    if let Some(at) = headers.iter().rposition(is_type) {
        media_type = headers.swap_remove(at).1;
        headers.retain(|header| !is_type(header));
    }
    Ok(Answer {
        status: overrides.status().unwrap_or(status.code()),
        headers,
        media_type,
        body,
        traced: reply.head.is_some(),
    })
}

/// Notes why a request cannot be answered as the API is configured; the client is told nothing of it.
fn fail(x: &mut Exchange<'_>, why: &str) -> Failure {
    x.detail = Some(Box::new(Detail {
        message: String::new(),
        validation: format!("Execution failed due to configuration error: {why}"),
    }));
    Failure::CONFIGURATION
}

/// A reply's body on its way to a template, or past all of them.
struct Payload<'c> {
    bytes: Chunk,
    conversion: Conversion,
    template: Option<(&'c str, &'c Choice)>,
}

fn payload<'c>(
    x: &Exchange<'_>,
    chosen: &'c IntegrationResponse,
    reply: &Reply,
    typed: Option<&[u8]>,
) -> Payload<'c> {
    let types = x.plan().map(|plan| plan.binary_media_types());
    let types = types.unwrap_or_default();
    let accept = x.head.fields().get(Known::Accept);
    let accept = accept.filter(|value| !value.is_empty());
    let is_binary = content::is_binary_answer(types, typed);
    let wanted = content::wanted(typed, accept);
    let wants_bytes = content::is_binary(types, &wanted);
    let handling = chosen.content_handling;
    let conversion = content::of_answer(types, typed, accept, handling);
    let mut template = template(&chosen.templates, accept);
    // Who wants bytes gets them, unless a template is there for exactly what he wants.
    if wants_bytes && handling != Some(ContentHandling::ToText) && chosen.templates.get(&wanted).is_none() {
        template = None;
    }
    let conversion = match template {
        // Templates see text (GWR-104).
        Some((_, Choice::Template(_))) if is_binary => Conversion::Encode,
        _ => conversion,
    };
    let bytes = match conversion {
        Conversion::Encode => Chunk::from(content::encode(&reply.body)),
        Conversion::Text | Conversion::Bytes | Conversion::Decode => reply.body.clone(),
    };
    Payload {
        bytes,
        conversion,
        template,
    }
}

/// The template for what a client accepts: of its first type that has one, else the first of all (VTL-061 to VTL-067,
/// VTL-O08, OBV-247).
fn template<'c>(templates: &'c Templates, accept: Option<&[u8]>) -> Option<(&'c str, &'c Choice)> {
    let accepted = accept.map_or(vec![JSON.to_owned()], content::accepted);
    let named = accepted.iter().find_map(|media_type| match media_type.as_str() {
        "*/*" => templates.get(JSON).or_else(|| templates.first()),
        other => templates.get(other),
    });
    named.or_else(|| templates.first())
}

/// Runs the header mappings of a response (VTL-121 to VTL-123).
///
/// # Errors
/// Where the body is a JSON object gone wrong, and a mapping reads it (OBV-281).
fn mapped(
    x: &Exchange<'_>,
    client: &Client,
    chosen: &IntegrationResponse,
    reply: &Reply,
    document: &Document<'_>,
) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let reads_body =
        |source: &ResponseSource| matches!(source, ResponseSource::Body | ResponseSource::BodyPath(_));
    if chosen.headers.iter().any(|(_, source)| reads_body(source)) && is_broken_object(document) {
        return Err(Failure::CONFIGURATION);
    }
    // Names are compared with case, of the backend's headers too (OBV-283).
    let of_reply = |name: &str| -> Vec<&[u8]> {
        let fields = reply.head.as_ref().map(|head| head.fields());
        let all = fields.into_iter().flat_map(|fields| fields.iter());
        all.filter(|field| field.name == name.as_bytes())
            .map(|field| field.value)
            .collect()
    };
    let mut headers = Vec::new();
    for (name, source) in &chosen.headers {
        let mut add = |value: &[u8]| headers.push((name.as_str().to_owned(), printable(value.to_vec())));
        match source {
            ResponseSource::Header(name) => {
                if let Some(value) = of_reply(name).last() {
                    add(value);
                }
            }
            ResponseSource::Headers(name) => of_reply(name).into_iter().for_each(add),
            ResponseSource::Body => add(document.text().as_bytes()),
            ResponseSource::BodyPath(path) => {
                if let Some(value) = find(document, path.path()) {
                    add(value.as_bytes());
                }
            }
            ResponseSource::Literal(value) => add(value.as_bytes()),
            ResponseSource::StageVariable(name) => {
                if let Some(value) = context::stage_variable(x, name) {
                    add(value.as_bytes());
                }
            }
            ResponseSource::Context(name) => {
                if let Some(value) = context::variable(x, client, name) {
                    add(&value);
                }
            }
        }
    }
    Ok(headers)
}

/// Puts what the template has set in the place of what mappings have (VTL-140, OBV-277, VTL-O32).
fn override_headers(headers: &mut Vec<(String, Vec<u8>)>, overrides: &Overrides) -> Result<(), Failure> {
    for one in overrides.response_headers() {
        if !is_own(&one.name) {
            return Err(Failure::CONFIGURATION);
        }
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case(&one.name));
        for value in values(&one.value) {
            headers.push((one.name.clone(), printable(value.as_bytes().to_vec())));
        }
    }
    Ok(())
}

impl Answer {
    /// Compresses it, where the API does and the client takes it (CAC-130 to CAC-133).
    pub(super) async fn compress(&mut self, x: &Exchange<'_>) {
        let is_encoding = |(name, _): &(String, Vec<u8>)| name.eq_ignore_ascii_case("content-encoding");
        let least = x.plan().and_then(|plan| plan.minimum_compression());
        let enough = least.is_some_and(|least| self.body.len() as u64 >= least) && !self.body.is_empty();
        if !enough || x.is_head() || matches!(self.status, 204 | 304) || self.headers.iter().any(is_encoding)
        {
            return;
        }
        if let Some(coding) = coding::accepted(x.head.fields()) {
            self.body = Chunk::from(coding::encode(&self.body, coding).await);
            self.headers
                .push(("Content-Encoding".to_owned(), coding.name().as_bytes().to_vec()));
        }
    }

    /// Sends it. The client's request has been read to its end.
    pub(super) fn send(self, x: &mut Exchange<'_>, client: &mut Client) -> After {
        let trace = self.traced.then(|| {
            let shard = &client.shard;
            shard.ids.trace_id(shard.clock.epoch(x.received).as_secs())
        });
        let sizes = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + 32);
        let whole = Whole {
            status: self.status,
            media_type: Some(&self.media_type),
            body: &self.body,
            room: sizes.sum(),
            fields: self.headers.len() + 1,
        };
        whole.send(x, client, true, |head| {
            for (name, value) in &self.headers {
                let name = name.as_bytes();
                match headers::static_to_client(name) {
                    Rule::Pass => head.field(name, value.trim_ascii()),
                    Rule::Remap => head.prefixed(REMAPPED, name, value.trim_ascii()),
                    Rule::Drop => continue,
                };
            }
            if let Some(trace) = &trace {
                head.unique(Known::XAmznTraceId, trace);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidegate_vtl::Template;

    use super::*;

    /// VTL-061, VTL-062, VTL-064, VTL-065, VTL-066, OBV-247.
    #[test]
    fn templates_are_chosen_by_what_the_client_accepts() {
        let choice = || Choice::Template(Arc::new(Template::parse("T").unwrap()));
        let both = Templates::new([
            ("application/xml".into(), choice()),
            ("application/json".into(), choice()),
        ]);
        let chosen = |templates: &Templates, accept: Option<&str>| {
            template(templates, accept.map(str::as_bytes)).map(|(name, _)| name.to_owned())
        };
        for (accept, expected) in [
            (None, "application/json"),
            (Some("application/json; charset=UTF-8"), "application/json"),
            (
                Some("text/html, application/xml;q=0.9, */*;q=0.8"),
                "application/xml",
            ),
            (Some("*/*"), "application/json"),
            (Some("text/html"), "application/xml"),
        ] {
            assert_eq!(chosen(&both, accept).as_deref(), Some(expected), "{accept:?}");
        }
        let xml = Templates::new([("application/xml".into(), choice())]);
        assert_eq!(chosen(&xml, None).as_deref(), Some("application/xml"));
        assert_eq!(chosen(&xml, Some("*/*")).as_deref(), Some("application/xml"));
        assert_eq!(chosen(&Templates::default(), None), None);
    }
}
