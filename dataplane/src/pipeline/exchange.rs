//! The state of one request on its way through the phases.

use std::rc::Rc;

use tidegate_plan::path::{NormalPath, PathRef};
use tidegate_plan::trie::Captures;
use tidegate_plan::{Method, Plan, Route, Verb};
use tidegate_rt::{Chunk, Instant};

use super::failure::Failure;
use super::ids::{ExtendedId, RequestId, as_request_id};
use crate::http::{Known, RequestHead, Version};
use crate::shard::{Client, LocalStage};

/// One request. Borrows its head, so that nothing of it is copied.
#[derive(Debug)]
pub struct Exchange<'h> {
    /// The request's head.
    pub head: &'h RequestHead,
    /// When the head was complete.
    pub received: Instant,
    /// Its method, if it is one that an API can answer.
    pub verb: Option<Verb>,
    /// `x-amzn-RequestId` of the answer.
    pub request_id: RequestId,
    /// What the access log shows as request id, where that differs (OBS-039).
    pub replaced_id: bool,
    /// `x-amz-apigw-id`.
    pub extended_id: ExtendedId,
    /// The host that was called, without port.
    pub host: &'h [u8],
    /// The path in its one form.
    pub path: Option<NormalPath<'h>>,
    /// Segments of the path that come before the resource's.
    pub skip: u8,
    /// The query, without `?`.
    pub query: Option<&'h [u8]>,
    /// The stage, once it is found.
    pub stage: Option<Rc<LocalStage>>,
    /// The request runs the stage's canary.
    pub canary: bool,
    /// The resource's place in the plan, once it is found: also where it has no such method.
    pub resource: Option<u32>,
    /// Places of resource and method in the plan, once they are found.
    pub place: Option<Place>,
    /// Where the values of the path's parameters stand.
    pub captures: Captures,
    /// The request's body, where a phase had to see it whole.
    pub body: Option<Chunk>,
    /// The body has kept its content coding, whose name goes along.
    pub keeps_coding: bool,
    /// What a failure has to say beside its constant text.
    pub detail: Option<Box<Detail>>,
    /// The connection may carry another request after this one.
    pub keep_alive: bool,
    /// What has come of it.
    pub outcome: Outcome,
}

/// A method's place in its plan.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The route.
    pub route: u32,
    /// The method among the route's.
    pub method: u32,
    /// The method's request validator has something to check.
    pub checked: bool,
}

/// What is to be told of this one request's failure.
#[derive(Debug, Default)]
pub struct Detail {
    /// `$context.error.message`, where it is not the constant one.
    pub message: String,
    /// `$context.error.validationErrorString`.
    pub validation: String,
}

/// What is known of a request at its end.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The status sent; 499 where the client had gone.
    pub status: u16,
    /// Payload bytes of the response.
    pub length: u64,
    /// The gateway's own answer.
    pub failure: Option<Failure>,
    /// What came of the call to the backend.
    pub integration: Option<Called>,
}

/// What came of the call to the backend.
#[derive(Debug, Clone, Copy)]
pub struct Called {
    /// When it began.
    pub begun: Instant,
    /// When the response's head was there, or the failure.
    pub answered: Instant,
    /// The backend's status.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: &'static str,
}

impl<'h> Exchange<'h> {
    /// A request whose head has just been read.
    pub fn begin(client: &Client, head: &'h RequestHead, now: Instant) -> Self {
        let ids = &client.shard.ids;
        let supplied = head.fields().get(Known::XAmznRequestId);
        let own = supplied.and_then(as_request_id);
        Self {
            head,
            received: now,
            verb: head.verb(),
            request_id: own.unwrap_or_else(|| ids.request_id()),
            replaced_id: supplied.is_some() && own.is_none(),
            extended_id: ids.extended_id(),
            host: head.host(),
            path: None,
            skip: 0,
            query: head.query(),
            stage: None,
            canary: false,
            resource: None,
            place: None,
            captures: Captures::new(),
            body: None,
            keeps_coding: false,
            detail: None,
            keep_alive: head.keep_alive(),
            outcome: Outcome::default(),
        }
    }

    /// The response to this request has no body, whatever its head says.
    pub fn is_head(&self) -> bool {
        self.verb == Some(Verb::Head)
    }

    /// The client speaks HTTP/1.0, and knows no body with an end of its own but the connection's.
    pub fn is_http10(&self) -> bool {
        self.head.version() == Version::Http10
    }

    /// `$context.protocol`: `HTTP/1.1` for HTTP/2 too (VTL-329, OBS-086).
    pub fn protocol(&self) -> &'static [u8] {
        match self.head.version() {
            Version::Http10 => b"HTTP/1.0",
            Version::Http11 | Version::Http2 => b"HTTP/1.1",
        }
    }

    /// The plan that the request runs.
    pub fn plan(&self) -> Option<&Plan> {
        self.stage.as_ref().map(|stage| stage.plan(self.canary))
    }

    /// The resource that was found.
    pub fn route(&self) -> Option<&Route> {
        self.plan()?.routes().get(self.resource? as usize)
    }

    /// The method that was found.
    pub fn method(&self) -> Option<&Method> {
        self.route()?.methods().get(self.place?.method as usize)
    }

    /// The path below the stage.
    pub fn resource_path(&self) -> Option<PathRef<'_>> {
        below(self.path.as_ref()?.view(), self.skip)
    }

    /// The value of a path parameter by its place among the route's.
    pub fn capture(&self, at: usize) -> Option<&str> {
        let value = self.captures.value(at, self.resource_path()?)?;
        // OBV-204: a greedy value loses the path's trailing slash.
        Some(value.strip_suffix('/').unwrap_or(value))
    }
}

/// What is left of a path behind its first `skip` segments.
pub fn below(path: PathRef<'_>, skip: u8) -> Option<PathRef<'_>> {
    let mut view = collapse(path);
    for _ in 0..skip {
        view = collapse(view.split_first()?.1);
    }
    Some(view)
}

/// Takes repeated slashes off the front (OBV-206, OBV-207).
pub fn collapse(mut path: PathRef<'_>) -> PathRef<'_> {
    while let Some(("", rest)) = path.split_first()
        && !rest.as_str().is_empty()
    {
        path = rest;
    }
    path
}

impl Exchange<'_> {
    /// What is told of a failure of this request: `$context.error.message`.
    pub fn message<'x>(&'x self, failure: &'x Failure) -> &'x str {
        match &self.detail {
            Some(detail) if !detail.message.is_empty() => &detail.message,
            _ => failure.message,
        }
    }

    /// Notes an answer of the gateway's own.
    pub fn fail(&mut self, failure: Failure) {
        self.outcome.failure = Some(failure);
    }
}
