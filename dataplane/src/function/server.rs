//! The functions' thread: a listener for the workers of each function, and the way back to the shards.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_plan::binding::{Function, FunctionKind, RuntimeApi};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle, LocalSet, spawn_local};

use super::queue::{ConnectionId, Done, Queue, Ticket};
use super::{Bounds, Caller, Invocation, Order, Outcome, Reply};
use crate::shard::mail::{Mailboxes, ShardMessage};

/// The functions' thread's work.
#[derive(Debug)]
pub struct Worker {
    orders: mpsc::Receiver<Order>,
    bounds: Bounds,
}

/// What the tasks of the thread share.
struct State {
    bounds: Bounds,
    mail: Mailboxes,
    connections: Cell<usize>,
    last_connection: Cell<ConnectionId>,
}

/// One function and its workers.
struct Served {
    state: Rc<State>,
    function: RefCell<Arc<Function>>,
    runtime: RuntimeApi,
    queue: RefCell<Queue>,
    /// Ends an invocation when its time is over; by request id.
    timers: RefCell<HashMap<Arc<str>, AbortHandle>>,
    listener: RefCell<Option<JoinHandle<()>>>,
}

impl Worker {
    pub(super) fn new(orders: mpsc::Receiver<Order>, bounds: Bounds) -> Self {
        Self { orders, bounds }
    }

    /// Serves until every [`super::Functions`] is gone. Blocks the calling thread.
    ///
    /// # Errors
    /// When the thread's event loop cannot be built.
    pub fn run(self, mailboxes: &Mailboxes) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let tasks = LocalSet::new();
        tasks.block_on(&runtime, self.serve(mailboxes.clone()));
        Ok(())
    }

    async fn serve(mut self, mail: Mailboxes) {
        let state = Rc::new(State {
            bounds: self.bounds,
            mail,
            connections: Cell::new(0),
            last_connection: Cell::new(0),
        });
        let mut served: HashMap<Box<str>, Rc<Served>> = HashMap::new();
        while let Some(order) = self.orders.recv().await {
            match order {
                Order::Listen(functions, done) => {
                    listen(&state, &mut served, functions).await;
                    // Who asked may have gone.
                    let _ = done.send(());
                }
                Order::Invoke(function, invocation) => match served.get(&function.binding) {
                    Some(served) => Served::take(served, invocation),
                    None => state.tell(&invocation, Outcome::Gone),
                },
                Order::Retire => {
                    for served in served.values() {
                        served.stop_listening().await;
                        served.queue.borrow_mut().close();
                    }
                }
            }
        }
    }
}

/// Listens for the workers of these functions, and no others.
async fn listen(
    state: &Rc<State>,
    served: &mut HashMap<Box<str>, Rc<Served>>,
    functions: Vec<Arc<Function>>,
) {
    let mut before = std::mem::take(served);
    let mut fresh = Vec::new();
    for function in functions {
        let FunctionKind::Runtime(runtime) = function.kind else {
            continue;
        };
        match before.remove(&function.binding) {
            Some(known) if known.runtime == runtime => {
                *known.function.borrow_mut() = Arc::clone(&function);
                served.insert(function.binding.clone(), known);
            }
            other => {
                if let Some(known) = other {
                    before.insert(function.binding.clone(), known);
                }
                fresh.push((function, runtime));
            }
        }
    }
    // What is gone gives its address back before another takes it.
    for gone in before.into_values() {
        gone.stop_listening().await;
        let left = gone.queue.borrow_mut().abandon();
        left.into_iter().for_each(|done| gone.end(done));
    }
    for (function, runtime) in fresh {
        let binding = function.binding.clone();
        let new = Rc::new(Served {
            state: Rc::clone(state),
            function: RefCell::new(function),
            runtime,
            queue: RefCell::new(Queue::new(state.bounds)),
            timers: RefCell::default(),
            listener: RefCell::default(),
        });
        let listener = new.bind().await;
        let task = spawn_local(Rc::clone(&new).accept(listener));
        *new.listener.borrow_mut() = Some(task);
        served.insert(binding, new);
    }
}

impl State {
    /// Tells the shard that waits.
    fn tell(&self, invocation: &Invocation, outcome: Outcome) {
        let Caller::Shard { shard, call } = invocation.caller else {
            return;
        };
        let send = |outcome| {
            let reply = Reply { call, outcome };
            self.mail.send(shard, ShardMessage::Invoked(reply))
        };
        if send(outcome.clone()) {
            return;
        }
        // A full mailbox empties within moments, or the call's time runs out.
        let (mail, until) = (self.mail.clone(), invocation.until);
        spawn_local(async move {
            while Instant::now() < until {
                tokio::time::sleep(MAILBOX_FULL).await;
                let reply = Reply {
                    call,
                    outcome: outcome.clone(),
                };
                if mail.send(shard, ShardMessage::Invoked(reply)) {
                    return;
                }
            }
        });
    }
}

impl Served {
    /// Takes an invocation in.
    fn take(this: &Rc<Self>, invocation: Invocation) {
        let pushed = this.queue.borrow_mut().push(invocation, Instant::now());
        if let Err(invocation) = pushed {
            if matches!(invocation.caller, Caller::Nobody { .. }) {
                tracing::warn!(function = %invocation.arn, "an asynchronous invocation is dropped: too many have not ended");
            }
            this.state.tell(&invocation, Outcome::TooMany);
        }
    }

    /// Ends an invocation that no worker has any more.
    fn end(self: &Rc<Self>, done: Done) {
        let Done {
            mut invocation,
            outcome,
        } = done;
        if let Some(timer) = self.timers.borrow_mut().remove(&invocation.id) {
            timer.abort();
        }
        let failed = matches!(outcome, Outcome::Error(_));
        if failed {
            tracing::debug!(function = %invocation.arn, id = %invocation.id, "an invocation has failed");
        }
        if matches!(invocation.caller, Caller::Nobody { .. }) {
            let again = match failed {
                true => self.queue.borrow_mut().again(&mut invocation, Instant::now()),
                false => None,
            };
            if let Some(delay) = again {
                let this = Rc::clone(self);
                spawn_local(async move {
                    tokio::time::sleep(delay).await;
                    Self::take(&this, invocation);
                });
                return;
            }
            if failed || outcome == Outcome::Gone {
                tracing::warn!(function = %invocation.arn, id = %invocation.id, "an asynchronous invocation is dropped: it has failed too often, or its function is gone");
            }
            self.queue.borrow_mut().ended(&invocation);
        }
        self.state.tell(&invocation, outcome);
    }

    async fn bind(&self) -> Option<TcpListener> {
        match TcpListener::bind(self.runtime.address).await {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::warn!(address = %self.runtime.address, function = %self.function.borrow().pattern, %error, "cannot listen for a function's workers yet; trying again");
                None
            }
        }
    }

    /// Accepts connections of workers, when the address is free.
    async fn accept(self: Rc<Self>, listener: Option<TcpListener>) {
        let listener = match listener {
            Some(listener) => listener,
            None => loop {
                tokio::time::sleep(BIND_PAUSE).await;
                if let Ok(listener) = TcpListener::bind(self.runtime.address).await {
                    tracing::info!(address = %self.runtime.address, "listening for a function's workers");
                    break listener;
                }
            },
        };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let state = &self.state;
                    // Over the bound the connection is closed unanswered.
                    if state.connections.get() < state.bounds.connections {
                        state.connections.set(state.connections.get() + 1);
                        spawn_local(Rc::clone(&self).connection(stream));
                    }
                }
                Err(error) => {
                    // Out of descriptors, mostly: trying again at once would only spin.
                    tracing::warn!(%error, "a worker's connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Gives its address back.
    async fn stop_listening(&self) {
        let listener = self.listener.borrow_mut().take();
        if let Some(listener) = listener {
            listener.abort();
            // It has ended when its task says so, by being cancelled.
            let _ = listener.await;
        }
    }

    /// One worker's connection.
    async fn connection(self: Rc<Self>, stream: TcpStream) {
        let id = self.state.last_connection.get() + 1;
        self.state.last_connection.set(id);
        let _ = stream.set_nodelay(true);
        let this = &self;
        let service =
            service_fn(
                move |request| async move { Ok::<_, Infallible>(Self::answer(this, request, id).await) },
            );
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .title_case_headers(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        // Errors are the worker's: a bad head, a broken connection.
        let _ = served.await;
        self.state.connections.set(self.state.connections.get() - 1);
        if !self.runtime.separate_connections {
            let lost = self.queue.borrow_mut().disconnected(id);
            lost.into_iter().for_each(|done| self.end(done));
        }
    }

    async fn answer(
        this: &Rc<Self>,
        request: Request<Incoming>,
        connection: ConnectionId,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let Some(rest) = path.strip_prefix("/2018-06-01/runtime/") else {
            return refuse(StatusCode::NOT_FOUND, "NotFound", "There is no such path");
        };
        match (request.method(), rest.split('/').collect::<Vec<_>>().as_slice()) {
            (&Method::GET, ["invocation", "next"]) => Self::next(this, connection).await,
            (&Method::POST, ["invocation", id, "response"]) => {
                let id = (*id).to_owned();
                match this.body(request).await {
                    Ok(result) => this.finish(&id, Outcome::Result(result), StatusCode::ACCEPTED),
                    Err(answer) => this.too_large(&id, answer),
                }
            }
            (&Method::POST, ["invocation", id, "error"]) => {
                let id = (*id).to_owned();
                match this.body(request).await {
                    Ok(error) => this.finish(&id, Outcome::Error(error), StatusCode::ACCEPTED),
                    Err(answer) => this.too_large(&id, answer),
                }
            }
            (&Method::POST, ["init", "error"]) => {
                let error = match this.body(request).await {
                    Ok(error) => error,
                    Err(answer) => return answer,
                };
                let shown: String = String::from_utf8_lossy(&error).chars().take(SHOWN).collect();
                tracing::warn!(function = %this.function.borrow().pattern, error = shown, "a worker cannot start");
                let failed = this.queue.borrow_mut().failed_to_start(error, Instant::now());
                failed.into_iter().for_each(|done| this.end(done));
                accepted()
            }
            (_, ["invocation", "next"] | ["invocation", _, "response" | "error"] | ["init", "error"]) => {
                refuse(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "MethodNotAllowed",
                    "Not by this method",
                )
            }
            _ => refuse(StatusCode::NOT_FOUND, "NotFound", "There is no such path"),
        }
    }

    /// The next invocation, however long it takes to come.
    async fn next(this: &Rc<Self>, connection: ConnectionId) -> Response<Full<Bytes>> {
        if !this.runtime.separate_connections {
            // A worker that asks again has given up what it had.
            let lost = this.queue.borrow_mut().disconnected(connection);
            lost.into_iter().for_each(|done| this.end(done));
        }
        let mut place = Place {
            served: this,
            ticket: None,
        };
        let next = poll_fn(|cx| place.poll_next(cx, connection)).await;
        let Some(invocation) = next else {
            let mut answer = refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "Retire",
                "Another process takes invocations: ask again",
            );
            let headers = answer.headers_mut();
            headers.insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
            return answer;
        };
        let timeout = this
            .function
            .borrow()
            .timeout
            .unwrap_or(this.state.bounds.timeout);
        Self::time(this, &invocation.id, timeout);
        invocation_response(invocation, timeout)
    }

    /// Ends an invocation when its time is over.
    fn time(this: &Rc<Self>, id: &Arc<str>, timeout: Duration) {
        let (served, own) = (Rc::clone(this), Arc::clone(id));
        let timer = spawn_local(async move {
            tokio::time::sleep(timeout).await;
            let late = served.queue.borrow_mut().expire(&own, timeout);
            // This task is the timer: it must not abort itself before it has told.
            served.timers.borrow_mut().remove(&own);
            late.into_iter().for_each(|done| served.end(done));
        });
        this.timers
            .borrow_mut()
            .insert(Arc::clone(id), timer.abort_handle());
    }

    fn finish(self: &Rc<Self>, id: &str, outcome: Outcome, status: StatusCode) -> Response<Full<Bytes>> {
        let done = self.queue.borrow_mut().finish(id, outcome);
        match done {
            Ok(done) => {
                self.end(done);
                match status {
                    StatusCode::ACCEPTED => accepted(),
                    status => refuse(
                        status,
                        "RequestEntityTooLarge",
                        "Exceeded maximum allowed payload size",
                    ),
                }
            }
            Err(_) => refuse(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID"),
        }
    }

    /// A result that is over its bound is the function's error.
    fn too_large(self: &Rc<Self>, id: &str, answer: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
        if answer.status() != StatusCode::PAYLOAD_TOO_LARGE {
            return answer;
        }
        let error = serde_json::json!({
            "errorType": "Function.ResponseSizeTooLarge",
            "errorMessage": format!(
                "Response payload size exceeded maximum allowed payload size ({} bytes).",
                self.state.bounds.result_bytes
            ),
        });
        let outcome = Outcome::Error(Bytes::from(error.to_string()));
        self.finish(id, outcome, StatusCode::PAYLOAD_TOO_LARGE)
    }

    async fn body(&self, request: Request<Incoming>) -> Result<Bytes, Response<Full<Bytes>>> {
        let body = Limited::new(request.into_body(), self.state.bounds.result_bytes);
        match body.collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(refuse(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                "Exceeded maximum allowed payload size",
            )),
            Err(_) => Err(refuse(
                StatusCode::BAD_REQUEST,
                "InvalidRequest",
                "The body is incomplete",
            )),
        }
    }
}

/// A worker's place among those that wait; given up when the worker goes.
struct Place<'s> {
    served: &'s Rc<Served>,
    ticket: Option<Ticket>,
}

impl Place<'_> {
    fn poll_next(&mut self, cx: &Context<'_>, connection: ConnectionId) -> Poll<Option<Invocation>> {
        let mut queue = self.served.queue.borrow_mut();
        queue.poll_next(cx, &mut self.ticket, connection, Instant::now())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.served.queue.borrow_mut().leave(&mut self.ticket);
    }
}

fn invocation_response(invocation: Invocation, timeout: Duration) -> Response<Full<Bytes>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let deadline = (now + timeout).as_millis().to_string();
    let mut answer = Response::new(Full::new(invocation.payload));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let values = [
        ("lambda-runtime-aws-request-id", Some(&*invocation.id)),
        ("lambda-runtime-deadline-ms", Some(deadline.as_str())),
        ("lambda-runtime-invoked-function-arn", Some(&*invocation.arn)),
        ("lambda-runtime-trace-id", invocation.trace.as_deref()),
        (
            "lambda-runtime-client-context",
            invocation.client_context.as_deref(),
        ),
    ];
    for (name, value) in values {
        // A client's text that cannot stand in a header is left out.
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    answer
}

fn accepted() -> Response<Full<Bytes>> {
    json(StatusCode::ACCEPTED, &serde_json::json!({ "status": "OK" }))
}

fn refuse(status: StatusCode, kind: &str, message: &str) -> Response<Full<Bytes>> {
    json(
        status,
        &serde_json::json!({ "errorMessage": message, "errorType": kind }),
    )
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// How long to wait before an address that is taken is tried again: another process may be handing over.
const BIND_PAUSE: Duration = Duration::from_millis(100);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long to wait before a full mailbox is tried again.
const MAILBOX_FULL: Duration = Duration::from_millis(5);
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// What of a worker's own message goes into the log.
const SHOWN: usize = 500;
