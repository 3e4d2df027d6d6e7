//! One call of a function, in whichever way its binding has it called: by the Lambda Invoke API, by a URL, or by
//! workers (RES-102).

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_plan::binding::{Endpoint, Function, FunctionKind};
use tidegate_plan::integration::Lambda;
use tidegate_policy::sigv4::{self, AmzDate, Credentials, Payload, Rules, Scope};
use tidegate_rt as rt;
use tidegate_rt::{Buffer, Chunk, Instant};

use super::super::http::{self, Ended};
use super::super::relay::{self, Answer, Broken, Upload};
use crate::function::{Call, Outcome};
use crate::http::{Decoder, Framing, HeadWriter, Known};
use crate::net::upstream::Upstream;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::failure::Failure;
use crate::shard::Client;

/// What is called, and how.
pub(in crate::integration) struct Invoke<'c> {
    /// The integration.
    pub(in crate::integration) lambda: &'c Lambda,
    /// The event.
    pub(in crate::integration) payload: Chunk,
    /// Whether the result is waited for.
    pub(in crate::integration) mode: Mode,
    /// `X-Amzn-Trace-Id`.
    pub(in crate::integration) trace: &'c [u8],
    /// When the call began, from which its time counts.
    pub(in crate::integration) begun: Instant,
}

/// Whether a function's result is waited for (RES-148).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::integration) enum Mode {
    /// It is.
    RequestResponse,
    /// The function runs later, and nobody hears of it.
    Event,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::RequestResponse => "RequestResponse",
            Mode::Event => "Event",
        }
    }
}

/// What a function has answered.
pub(in crate::integration) struct Invoked {
    /// The result, or the error object (OBV-217); empty for an event.
    pub(in crate::integration) payload: Chunk,
    /// The function has failed.
    pub(in crate::integration) error: bool,
    /// As the Invoke API has it: 200, or 202 for an event.
    pub(in crate::integration) status: u16,
}

/// Calls a function.
pub(in crate::integration) async fn invoke(
    x: &Exchange<'_>,
    client: &mut Client,
    call: Invoke<'_>,
) -> Result<Invoked, Ended> {
    let shard = Rc::clone(&client.shard);
    let bound = {
        let bindings = shard.bindings.borrow();
        bindings.shared.function(&call.lambda.function).map(|function| {
            let name = call
                .lambda
                .credentials
                .as_deref()
                .or(function.credentials.as_deref());
            let credentials = name.map(|name| bindings.shared.credentials(name).cloned());
            let upstream = function
                .endpoint()
                .and_then(|endpoint| bindings.upstream(endpoint));
            (Arc::clone(function), credentials, upstream)
        })
    };
    let Some((function, credentials, upstream)) = bound else {
        return Err(cannot(&call, "it is not bound"));
    };
    // RES-098: by the integration's credentials, or by the function's own permission.
    if call.lambda.credentials.is_none() && !function.allows(|| source_arn(x)) {
        return Err(cannot(&call, "its allow list does not name this method"));
    }
    match (&function.kind, upstream) {
        (FunctionKind::Runtime(_), _) => by_workers(x, client, &function, call).await,
        (FunctionKind::Invoke(endpoint), Some(upstream)) => {
            let credentials = match credentials {
                Some(None) => return Err(cannot(&call, "its credentials are not bound")),
                Some(Some(credentials)) => Some(credentials),
                None => None,
            };
            let head = invoke_head(x, client, &call, endpoint, &upstream, credentials.as_deref());
            over_http(client, &upstream, head, call).await
        }
        (FunctionKind::Url(endpoint), Some(upstream)) => {
            let head = url_head(x, &call, endpoint, &upstream);
            over_http(client, &upstream, head, call).await
        }
        (_, None) => Err(cannot(&call, "nothing is known of where it is")),
    }
}

/// The API is configured in a way that cannot work: the service's 500.
fn cannot(call: &Invoke<'_>, why: &'static str) -> Ended {
    tracing::debug!(function = %call.lambda.function, why, "a function cannot be called");
    Ended::Failure(Failure::CONFIGURATION)
}

/// The method's ARN, by which a function's permission names it (OBV-220): path parameters are stars.
fn source_arn(x: &Exchange<'_>) -> String {
    let Some(plan) = x.stage.as_ref().map(|stage| &stage.shared.plan) else {
        return String::new();
    };
    let path = x.route().map(|route| &**route.path()).unwrap_or_default();
    let path: Vec<&str> = path
        .trim_start_matches('/')
        .split('/')
        .map(|segment| if segment.starts_with('{') { "*" } else { segment })
        .collect();
    format!(
        "arn:aws:execute-api:{}:{}:{}/{}/{}/{}",
        plan.region.as_str(),
        plan.account.as_str(),
        plan.api.as_str(),
        plan.stage.as_str(),
        String::from_utf8_lossy(x.head.method()),
        path.join("/"),
    )
}

/// By the functions' thread, and the workers that ask it.
async fn by_workers(
    x: &Exchange<'_>,
    client: &mut Client,
    function: &Arc<Function>,
    call: Invoke<'_>,
) -> Result<Invoked, Ended> {
    let shard = Rc::clone(&client.shard);
    if let Some(test) = &client.test {
        // OBV-175: what would be sent to the service.
        let arn = &call.lambda.function;
        let head = format!("POST /2015-03-31/functions/{arn}/invocations HTTP/1.1\r\n\r\n");
        test.note_request(
            "https",
            &format!("lambda.{}.amazonaws.com", arn.region()),
            head.as_bytes(),
        );
    }
    let now = std::time::Instant::now();
    let invocation = Call {
        id: String::from_utf8_lossy(&shard.ids.request_id()).into(),
        arn: call.lambda.function.as_str().into(),
        payload: Bytes::copy_from_slice(&call.payload),
        trace: Some(String::from_utf8_lossy(call.trace).into()),
        client_context: None,
    };
    let full = || {
        tracing::warn!(function = %call.lambda.function, request = %x.request_id.escape_ascii(), "an invocation is refused: too many wait");
        Err(Ended::Failure(Failure::CONFIGURATION))
    };
    if call.mode == Mode::Event {
        return match shard.calls.send(function, invocation, now) {
            true => Ok(Invoked {
                payload: Chunk::default(),
                error: false,
                status: 202,
            }),
            false => full(),
        };
    }
    let deadline = call.begun + call.lambda.timeout;
    let Some(pending) = shard.calls.call(function, invocation, now + call.lambda.timeout) else {
        return full();
    };
    let (payload, error) = match relay::connect(client, deadline, pending).await {
        Ok(Outcome::Result(result)) => (result, false),
        Ok(Outcome::Error(error)) => (error, true),
        Ok(Outcome::TooMany) => return full(),
        Ok(Outcome::Gone | Outcome::Kept) => return Err(cannot(&call, "it is not bound any more")),
        Err(Broken::Gone(gone)) => return Err(Ended::Gone(gone)),
        Err(_) => return Err(Ended::Failure(Failure::TIMED_OUT)),
    };
    if let Some(test) = &client.test {
        test.note_answered(200, Vec::new());
    }
    Ok(Invoked {
        payload: payload.into(),
        error,
        status: 200,
    })
}

/// The head of a call of the Lambda Invoke API (OBV-175, OBV-176).
fn invoke_head(
    x: &Exchange<'_>,
    client: &Client,
    call: &Invoke<'_>,
    endpoint: &Endpoint,
    upstream: &Upstream,
    credentials: Option<&Credentials>,
) -> Chunk {
    let arn = &call.lambda.function;
    let path = format!("{}/2015-03-31/functions/{arn}/invocations", endpoint.path);
    let mode = call.mode.name();
    let host = upstream.authority.as_bytes();
    let mut out = Buffer::with_capacity(1536);
    out.extend_from_slices([b"POST ", path.as_bytes(), b" HTTP/1.1\r\n"]);
    let mut head = HeadWriter::resume(&mut out);
    head.known(Known::Host, host);
    head.field(b"x-amzn-lambda-integration-tag", &x.request_id);
    if let Some(credentials) = credentials {
        let shard = &client.shard;
        let headers: [(&str, &[u8]); 3] = [
            ("Host", host),
            ("Content-Type", b"application/json"),
            ("X-Amz-Invocation-Type", mode.as_bytes()),
        ];
        let request = sigv4::Request {
            method: "POST",
            path: path.as_bytes(),
            query: b"",
            headers: &headers,
            payload: Payload::Bytes(&call.payload),
        };
        let scope = Scope {
            date: AmzDate::from_unix(shard.clock.epoch(rt::now()).as_secs()),
            region: arn.region(),
            service: "lambda",
        };
        let mut keys = shard.signing_keys.borrow_mut();
        for (name, value) in
            sigv4::sign_headers(&request, credentials, &scope, Rules::of("lambda"), &mut keys)
        {
            head.field(name.as_bytes(), value.as_bytes());
        }
    }
    head.field(b"X-Amz-Invocation-Type", mode.as_bytes());
    common(x, call, &mut head);
    head.end();
    out.freeze()
}

/// The head of a call of a URL that takes the event and answers the result.
fn url_head(x: &Exchange<'_>, call: &Invoke<'_>, endpoint: &Endpoint, upstream: &Upstream) -> Chunk {
    let path = match &*endpoint.path {
        "" => "/",
        path => path,
    };
    let mut out = Buffer::with_capacity(1024);
    out.extend_from_slices([b"POST ", path.as_bytes(), b" HTTP/1.1\r\n"]);
    let mut head = HeadWriter::resume(&mut out);
    head.known(Known::Host, upstream.authority.as_bytes());
    common(x, call, &mut head);
    head.end();
    out.freeze()
}

fn common(x: &Exchange<'_>, call: &Invoke<'_>, head: &mut HeadWriter<'_>) {
    let api = x.stage.as_ref().map(|stage| stage.shared.plan.api.as_str());
    let api = api.unwrap_or_default().as_bytes();
    head.field(b"x-amzn-apigateway-api-id", api);
    head.known(Known::Accept, b"application/json");
    head.joined(b"User-Agent", [b"AmazonAPIGateway_".as_slice(), api]);
    head.known(Known::XAmznTraceId, call.trace);
    head.known(Known::ContentType, b"application/json");
    head.number(Known::ContentLength, call.payload.len() as u64);
}

/// Sends a request that is there whole, and takes the answer whole. A call is not repeated: the function may have run.
async fn over_http(
    client: &mut Client,
    upstream: &Rc<Upstream>,
    head: Chunk,
    call: Invoke<'_>,
) -> Result<Invoked, Ended> {
    let shard = Rc::clone(&client.shard);
    let mut deadline = call.begun + call.lambda.timeout;
    if let Some(test) = &client.test {
        test.note_request(
            upstream.endpoint.target.scheme().as_str(),
            &upstream.authority,
            &head,
        );
    }
    let mut upload = Upload::whole(head, call.payload.clone());
    let idle = upstream.checkout_idle(true, &http::named(client, upstream));
    let mut connection = match idle {
        Some(connection) => connection,
        None => http::connect(client, upstream, deadline).await?,
    };
    if !connection.reused {
        shard.counters().upstream_connects.add(1);
    }
    let broken = |broken| match broken {
        Broken::Gone(gone) => Ended::Gone(gone),
        Broken::TimedOut => Ended::Failure(Failure::TIMED_OUT),
        Broken::Invalid | Broken::Upgrade => Ended::Failure(Failure::INVALID_ANSWER),
        Broken::TooLarge => Ended::Failure(Failure::ANSWER_TOO_LARGE),
        Broken::Closed { .. } => Ended::Failure(Failure::UNREACHABLE),
    };
    let asked = relay::ask(client, &mut connection.io, &mut upload, &mut deadline, false);
    let Answer { head, rest, uploaded } = asked.await.map_err(broken)?;
    if let Some(test) = &client.test {
        test.note_answer(&head);
    }
    let framing = head.framing();
    let mut decoder = Decoder::new(framing, &shard.limits);
    let collected = relay::collect(client, &mut connection.io, &mut decoder, rest, deadline).await;
    let (payload, clean) = collected.map_err(broken)?;
    if framing != Framing::UntilClose && head.keep_alive() && uploaded && clean && !connection.spoiled {
        upstream.check_in(connection, &shard.upstreams.helpers);
    }
    let failed = head.fields().get_by_name(b"x-amz-function-error").is_some();
    match head.status() {
        status @ 200..=299 => Ok(Invoked {
            payload,
            error: failed,
            status,
        }),
        status => {
            tracing::debug!(function = %call.lambda.function, status, "a function's endpoint refuses a call");
            Err(Ended::Failure(match status {
                400..=499 => Failure::CONFIGURATION,
                _ => Failure::INVALID_ANSWER,
            }))
        }
    }
}
