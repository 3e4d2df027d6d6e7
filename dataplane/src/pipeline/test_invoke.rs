//! A test invocation: one request through the same phases and the same wire code as traffic, on a stage that exists for
//! it alone and that no other request can reach (decision C3; DEP-020 to DEP-026).
//!
//! The request goes into one end of a socket pair whose other end is served as a client's connection is. So nothing of
//! the pipeline is a second time here, and what it answers is what a client would be sent. Nothing of it is counted or
//! written to a log (OBS-002); the execution log goes back with the answer.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tidegate_plan::path;
use tidegate_plan::{Limit, Verb};
use tidegate_proto::config::v1::{Header, Probe, ProbeResult};
use tidegate_rt as rt;
use tidegate_rt::Chunk;

use super::exchange::Exchange;
use crate::config::{ProbeCall, Stage};
use crate::http::{Decoded, Decoder, Fields, ResponseHead, Scanner};
use crate::integration::query;
use crate::shard::clock::HttpDate;
use crate::shard::{LocalStage, Shard, serve_test};

/// Longest URL and headers that are taken, in bytes: far over the bounds of requests, so that those answer.
const INPUT_MAX: usize = 256 * 1024;
/// The longest line of a log, in bytes; a longer one is cut (OBV-176).
const LINE_MAX: usize = 1_024;
/// How long an invocation may take: the longest integration of the service, and some.
const PATIENCE: Duration = Duration::from_secs(32);
/// The host that a test is sent to where the caller names none.
const HOST: &str = "testPrefix.testDomainName";
/// Headers of an answer that belong to the connection or to the gateway, not to the method (OBV-169).
const NOT_SHOWN: [&str; 6] = [
    "date",
    "connection",
    "content-length",
    "transfer-encoding",
    "x-amzn-requestid",
    "x-amz-apigw-id",
];
/// As much of a body as a line of a log shows.
fn shown(body: &[u8]) -> String {
    // A byte more than fits tells that there is more.
    String::from_utf8_lossy(&body[..body.len().min(LINE_MAX + 1)]).into_owned()
}

/// Headers whose value is a credential: shown but for its end (SCN-070).
const MASKED: [&str; 3] = ["authorization", "x-api-key", "x-amz-security-token"];

/// What the one request of a test runs on, and what is noted of it on its way.
#[derive(Debug)]
pub struct Test {
    /// Its stage. Nothing but this leads to it.
    pub stage: Rc<LocalStage>,
    trace: RefCell<Trace>,
}

/// What only the pipeline knows.
#[derive(Debug, Default)]
struct Trace {
    path_parameters: Vec<(String, String)>,
    /// The integration's request: where to, and its headers.
    asked: Option<(String, Vec<(String, String)>)>,
    /// The body of the integration's request, where it is not the client's.
    asked_body: Option<String>,
    /// The body of its answer, where it is not the client's.
    answered_body: Option<String>,
    /// The integration's answer: status and headers.
    answered: Option<(u16, Vec<(String, String)>)>,
    integration_ms: u128,
    failure: Option<String>,
}

impl Test {
    /// Notes the request that an HTTP integration sends: `scheme` and `authority`, and the head as it goes out.
    pub fn note_request(&self, scheme: &str, authority: &str, head: &[u8]) {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let target = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .unwrap_or_default();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        self.trace.borrow_mut().asked = Some((format!("{scheme}://{authority}{target}"), headers));
    }

    /// Notes what the integration answered.
    pub fn note_answer(&self, head: &ResponseHead) {
        self.trace.borrow_mut().answered = Some((head.status(), pairs(head.fields())));
    }

    /// Notes the body of the request that an integration sends, where it has been made.
    pub fn note_request_body(&self, body: &[u8]) {
        self.trace.borrow_mut().asked_body = Some(shown(body));
    }

    /// Notes the body of the integration's answer, before it is reshaped.
    pub fn note_answer_body(&self, body: &[u8]) {
        self.trace.borrow_mut().answered_body = Some(shown(body));
    }

    /// Notes an answer that came by another way than HTTP.
    pub fn note_answered(&self, status: u16, headers: Vec<(String, String)>) {
        self.trace.borrow_mut().answered = Some((status, headers));
    }

    /// Notes how the request ended.
    pub(super) fn note_end(&self, x: &Exchange<'_>) {
        let mut trace = self.trace.borrow_mut();
        trace.failure = x.outcome.failure.as_ref().map(|failure| {
            let validation = x.detail.as_ref().map(|detail| detail.validation.as_str());
            match validation.filter(|text| !text.is_empty()) {
                Some(validation) => validation.to_owned(),
                None => x.message(failure).to_owned(),
            }
        });
        if let Some(called) = x.outcome.integration {
            trace.integration_ms = called
                .answered
                .saturating_duration_since(called.begun)
                .as_millis();
        }
        let names = x
            .route()
            .map(tidegate_plan::Route::parameters)
            .unwrap_or_default();
        let values = names.iter().enumerate().filter_map(|(at, name)| {
            let value = x.capture(at)?;
            // OBV-180: the template itself was the path.
            let value = match value == format!("%7B{name}%7D") {
                true => format!("{{{name}}}"),
                false => value.to_owned(),
            };
            Some((name.to_string(), value))
        });
        trace.path_parameters = values.collect();
    }
}

/// Runs a probe in the mode `test invoke` and answers it.
pub(crate) fn test_invoke(shard: &Rc<Shard>, call: ProbeCall) {
    let shard = Rc::clone(shard);
    drop(rt::spawn(async move {
        let ProbeCall { probe, stage, reply } = call;
        let outcome = match stage {
            Some(stage) => invoke(&shard, &probe, stage).await,
            None => Err("a test needs a bundle to run on".to_owned()),
        };
        // The asker may have gone.
        let _ = reply.send(outcome.unwrap_or_else(|error| ProbeResult {
            id: probe.id.clone(),
            error,
            ..ProbeResult::default()
        }));
    }));
}

async fn invoke(shard: &Rc<Shard>, probe: &Probe, stage: Arc<Stage>) -> Result<ProbeResult, String> {
    let head = request_head(probe, &stage)?;
    let test = Rc::new(Test {
        stage: Rc::new(LocalStage::new(stage, &shard.upstreams)),
        trace: RefCell::default(),
    });
    let pair = || -> io::Result<(rt::Stream, rt::Stream)> {
        let (near, far) = UnixStream::pair()?;
        Ok((
            rt::Stream::from_fd(OwnedFd::from(near))?,
            rt::Stream::from_fd(OwnedFd::from(far))?,
        ))
    };
    let (mut near, far) = pair().map_err(|error| format!("no sockets for a test: {error}"))?;
    let begun = rt::now();
    drop(rt::spawn(serve_test(Rc::clone(shard), far, Rc::clone(&test))));
    near.queue(Chunk::from(head.into_bytes()));
    near.queue(Chunk::from(probe.body.clone()));
    let mut timer = rt::Timer::new();
    timer.set_after(PATIENCE);
    let kept = shard.limits.count(Limit::TestInvokeBodyBytes);
    let answer = rt::with_deadline(&mut timer, receive(&mut near, shard, probe, kept))
        .await
        .map_err(|_| format!("the method did not answer within {} seconds", PATIENCE.as_secs()))??;
    let ended = rt::now();
    let latency = ended.saturating_duration_since(begun);
    let headers: Vec<_> = pairs(answer.head.fields())
        .into_iter()
        .filter(|(name, _)| !NOT_SHOWN.iter().any(|hidden| name.eq_ignore_ascii_case(hidden)))
        .collect();
    let log = Log::new(shard.clock.date(begun), shard.clock.date(ended));
    let log = log.write(probe, &test.trace.borrow(), &answer, &headers);
    Ok(ProbeResult {
        id: probe.id.clone(),
        status: answer.head.status().into(),
        headers: headers
            .into_iter()
            .map(|(name, value)| Header { name, value })
            .collect(),
        body: answer.body,
        body_bytes: answer.body_bytes,
        log,
        latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
        ..ProbeResult::default()
    })
}

/// The request's head as a client would send it.
fn request_head(probe: &Probe, stage: &Stage) -> Result<String, String> {
    if Verb::from_token(probe.method.as_bytes()).is_none() {
        return Err(format!("{} is no method that an API can have", probe.method));
    }
    let route = stage.plan.primary.routes().first();
    let template = route.map_or("/", |route| route.path());
    let (path, query) = match probe.url.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (probe.url.as_str(), None),
    };
    // OBV-180: the resource's own path where none is given.
    let path = match path {
        "" => template,
        path => path,
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut head = format!(
        "{} {slash}{}",
        probe.method,
        path.replace('{', "%7B").replace('}', "%7D")
    );
    if let Some(query) = query {
        head.push('?');
        head.push_str(query);
    }
    head.push_str(" HTTP/1.1\r\n");
    if target_is_broken(&head) {
        return Err("path and query hold a blank or a control character: encode it, as %20".to_owned());
    }
    let mut hosted = false;
    for Header { name, value } in &probe.headers {
        let of_connection = [
            "connection",
            "content-length",
            "transfer-encoding",
            "expect",
            "upgrade",
        ];
        if of_connection.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            continue;
        }
        if name.is_empty()
            || !name.bytes().all(is_token)
            || value.bytes().any(|b| matches!(b, 0 | b'\r' | b'\n'))
        {
            return Err(format!("header `{}` cannot be sent", name.escape_debug()));
        }
        hosted |= name.eq_ignore_ascii_case("host");
        // Writing to a String cannot fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if !hosted {
        let _ = write!(head, "Host: {HOST}\r\n");
    }
    if !probe.body.is_empty() {
        let _ = write!(head, "Content-Length: {}\r\n", probe.body.len());
    }
    head.push_str("Connection: close\r\n\r\n");
    if head.len() > INPUT_MAX {
        return Err(format!("URL and headers are over {INPUT_MAX} bytes"));
    }
    Ok(head)
}

fn target_is_broken(line: &str) -> bool {
    line.trim_end_matches("\r\n")
        .bytes()
        .any(|b| b.is_ascii_control())
        || line.matches(' ').count() != 2
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a client got.
struct Received {
    head: ResponseHead,
    /// Its body, as far as the bound goes.
    body: Vec<u8>,
    body_bytes: u64,
}

/// Sends what is queued and reads the answer to its end.
async fn receive(
    near: &mut rt::Stream,
    shard: &Shard,
    probe: &Probe,
    kept: usize,
) -> Result<Received, String> {
    let limits = shard.bounds.response_head;
    let mut scanner = Scanner::new();
    let mut bytes: Option<Chunk> = None;
    let head = loop {
        let Some(chunk) = next(near).await? else {
            return Err("the request was cut off without an answer".to_owned());
        };
        append(&mut bytes, chunk);
        let Some(input) = &mut bytes else { continue };
        let found = scanner.advance(input, &limits, false);
        if let Some(length) = found.map_err(|_| "the answer's head is over the bound of heads")? {
            let head = input.split_to(length);
            let to_head = probe.method == "HEAD";
            break ResponseHead::parse(head, scanner.saw_bare_lf(), to_head, &limits)
                .map_err(|error| format!("the answer cannot be read: {error}"))?;
        }
    };
    let mut decoder = Decoder::new(head.framing(), &shard.limits);
    let mut received = Received {
        head,
        body: Vec::new(),
        body_bytes: 0,
    };
    while !decoder.is_done() {
        let Some(mut input) = bytes.take() else {
            match next(near).await {
                Ok(Some(chunk)) => bytes = Some(chunk),
                Ok(None) if decoder.end_of_input().is_ok() => break,
                _ => return Err("the integration's answer was cut off".to_owned()),
            }
            continue;
        };
        match decoder.decode(&mut input) {
            Ok(Decoded::Data(data)) => {
                received.body_bytes += data.len() as u64;
                let room = kept - received.body.len();
                received.body.extend_from_slice(&data[..data.len().min(room)]);
            }
            Ok(Decoded::End) => break,
            Ok(Decoded::More) => {}
            Err(error) => return Err(format!("the answer cannot be read: {error}")),
        }
        if !input.is_empty() {
            bytes = Some(input);
        }
    }
    Ok(received)
}

/// The next bytes; sends what is queued meanwhile.
async fn next(near: &mut rt::Stream) -> Result<Option<Chunk>, String> {
    poll_fn(|cx| {
        // Who answers before he has read everything need not take the rest.
        let _ = near.poll_flush(cx);
        match near.poll_read(cx) {
            Poll::Ready(Ok(read)) => Poll::Ready(Ok(read)),
            Poll::Ready(Err(_)) => Poll::Ready(Err("the request was cut off without an answer".to_owned())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn append(bytes: &mut Option<Chunk>, chunk: Chunk) {
    let Some(known) = bytes else {
        *bytes = Some(chunk);
        return;
    };
    if let Err(chunk) = known.try_join(chunk) {
        let mut joined = rt::Buffer::with_capacity(known.len() + chunk.len());
        joined.extend_from_slice(known);
        joined.extend_from_slice(&chunk);
        *known = joined.freeze();
    }
}

fn pairs(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields
        .iter()
        .map(|field| (text(field.name), text(field.value)))
        .collect()
}

/// An execution log: the lines of OBV-170 to OBV-174 as far as there is something to tell.
struct Log {
    text: String,
    begun: String,
    ended: String,
}

impl Log {
    fn new(begun: HttpDate, ended: HttpDate) -> Self {
        Self {
            text: String::new(),
            begun: stamp(&begun),
            ended: stamp(&ended),
        }
    }

    fn line(&mut self, at_end: bool, text: &str) {
        let stamp = if at_end { &self.ended } else { &self.begun };
        let (cut, mark) = match text.len() > LINE_MAX {
            true => (text.floor_char_boundary(LINE_MAX), "[TRUNCATED]"),
            false => (text.len(), ""),
        };
        let _ = writeln!(self.text, "{stamp} : {}{mark}", &text[..cut]);
    }

    fn write(
        mut self,
        probe: &Probe,
        trace: &Trace,
        answer: &Received,
        headers: &[(String, String)],
    ) -> String {
        let id = answer
            .head
            .fields()
            .get_by_name(b"x-amzn-requestid")
            .unwrap_or_default();
        let id = String::from_utf8_lossy(id).into_owned();
        let (path, query_text) = probe.url.split_once('?').unwrap_or((&probe.url, ""));
        let query: Vec<_> = query::parameters(query_text.as_bytes())
            .map(|(name, value)| {
                let text = |bytes| String::from_utf8_lossy(&path::decode(bytes, true)).into_owned();
                (text(name), text(value))
            })
            .collect();
        let given: Vec<_> = probe
            .headers
            .iter()
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect();
        let _ = writeln!(self.text, "Execution log for request {id}");
        self.line(false, &format!("Starting execution for request: {id}"));
        self.line(
            false,
            &format!("HTTP Method: {}, Resource Path: {path}", probe.method),
        );
        self.line(
            false,
            &format!("Method request path: {}", map(&trace.path_parameters)),
        );
        self.line(false, &format!("Method request query string: {}", map(&query)));
        self.line(false, &format!("Method request headers: {}", map(&given)));
        let body = String::from_utf8_lossy(&probe.body);
        self.line(
            false,
            &format!("Method request body before transformations: {body}"),
        );
        if let Some((uri, headers)) = &trace.asked {
            self.line(false, &format!("Endpoint request URI: {uri}"));
            self.line(false, &format!("Endpoint request headers: {}", map(headers)));
            let sent = trace.asked_body.as_deref().unwrap_or(&body);
            self.line(
                false,
                &format!("Endpoint request body after transformations: {sent}"),
            );
            self.line(false, &format!("Sending request to {uri}"));
        }
        if let Some((status, headers)) = &trace.answered {
            let took = trace.integration_ms;
            self.line(
                true,
                &format!("Received response. Status: {status}, Integration latency: {took} ms"),
            );
            self.line(true, &format!("Endpoint response headers: {}", map(headers)));
            let told = trace.answered_body.clone();
            let told = told.unwrap_or_else(|| shown(&answer.body));
            self.line(
                true,
                &format!("Endpoint response body before transformations: {told}"),
            );
        }
        let status = answer.head.status();
        if let Some(failure) = &trace.failure {
            self.line(true, &format!("Execution failed: {failure}"));
        } else {
            let body = String::from_utf8_lossy(&answer.body);
            self.line(
                true,
                &format!("Method response body after transformations: {body}"),
            );
            self.line(true, &format!("Method response headers: {}", map(headers)));
            self.line(true, "Successfully completed execution");
        }
        if answer.body_bytes > answer.body.len() as u64 {
            let (kept, all) = (answer.body.len(), answer.body_bytes);
            let name = Limit::TestInvokeBodyBytes.name();
            self.line(
                true,
                &format!("The body shown is the first {kept} of {all} bytes ({name})"),
            );
        }
        self.line(true, &format!("Method completed with status: {status}"));
        self.text
    }
}

/// A map as the log has it (OBV-173), credentials masked.
fn map(pairs: &[(String, String)]) -> String {
    let shown = |(name, value): &(String, String)| {
        if !MASKED.iter().any(|masked| name.eq_ignore_ascii_case(masked)) {
            return format!("{name}={value}");
        }
        // What is short would be shown whole by its end.
        let end = match value.chars().count() {
            count if count > 12 => value.chars().skip(count - 6).collect(),
            _ => String::new(),
        };
        format!("{name}=**************{end}")
    };
    let all: Vec<_> = pairs.iter().map(shown).collect();
    format!("{{{}}}", all.join(", "))
}

/// `Thu Aug 31 01:07:25 UTC 2017` from `Thu, 31 Aug 2017 01:07:25 GMT` (OBV-171).
fn stamp(date: &HttpDate) -> String {
    let text = String::from_utf8_lossy(date.as_ref()).into_owned();
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    format!(
        "{} {} {} {} UTC {}",
        part(0..3),
        part(8..11),
        part(5..7),
        part(17..25),
        part(12..16)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::clock::http_date;

    /// OBV-171, OBV-173, OBV-176, SCN-070.
    #[test]
    fn lines_are_the_services() {
        let date = http_date(1_504_141_645);
        assert_eq!(stamp(&date), "Thu Aug 31 01:07:25 UTC 2017");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(map(&[]), "{}");
        assert_eq!(map(&[pair("a", "1"), pair("b", "")]), "{a=1, b=}");
        assert_eq!(
            map(&[pair("Authorization", "Bearer abcdefgh123456")]),
            "{Authorization=**************123456}"
        );
        assert_eq!(map(&[pair("x-api-key", "secret")]), "{x-api-key=**************}");
        let mut log = Log::new(http_date(0), http_date(1_504_141_645));
        log.line(true, &"é".repeat(LINE_MAX));
        assert!(log.text.starts_with("Thu Aug 31 01:07:25 UTC 2017 : éé"));
        assert!(log.text.ends_with("é[TRUNCATED]\n"));
        assert!(log.text.len() < LINE_MAX + 60);
    }
}
