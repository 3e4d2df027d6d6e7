//! The Lambda Runtime API over sockets, with a shard on the other side.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_plan::binding::{FunctionArn, FunctionKind};
use tidegate_plan::{Limit, Limits};
use tidegate_proto::config::v1 as proto;
use tidegate_rt as rt;

use super::{Bounds, Call, Calls, Functions, Outcome};
use crate::config::{Binding, Bindings};
use crate::shard::mail::{Mailboxes, ShardMessage};

const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function:hello";

/// A function with workers, and a thread that stands for a shard.
struct Fixture {
    address: SocketAddr,
    functions: Functions,
    calls: mpsc::Sender<Ask>,
    event_loop: tokio::runtime::Runtime,
}

/// A call for the shard to make: with this event, for so long; asynchronous where nobody waits.
struct Ask {
    event: &'static str,
    time: Duration,
    answer: Option<mpsc::Sender<Option<Outcome>>>,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut Limits), target: impl FnOnce(&mut proto::RuntimeTarget)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        let (functions, worker) = Functions::new(Bounds::new(&limits));
        let (sender, receiver) = rt::mail::channel(64).unwrap();
        let mail = Mailboxes::new(vec![sender]);
        thread::spawn(move || worker.run(&mail));
        // Free a moment ago, and nobody else takes one so soon again.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut runtime = proto::RuntimeTarget {
            address: address.to_string(),
            separate_connections: false,
        };
        target(&mut runtime);
        let event_loop = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bindings = Arc::new(bindings(runtime));
        event_loop.block_on(functions.listen(&bindings));
        let arn = FunctionArn::parse(ARN, "", "").unwrap();
        let function = Arc::clone(bindings.function(&arn).unwrap());
        let (calls, asked) = mpsc::channel::<Ask>();
        let own = functions.clone();
        thread::spawn(move || {
            let driver = rt::probe(rt::DriverChoice::Epoll).unwrap();
            rt::run(rt::RuntimeOptions::new(driver), async move {
                let mut inbox = receiver.attach().unwrap();
                let calls = Calls::new(own, 0);
                for (number, ask) in asked.into_iter().enumerate() {
                    let call = Call {
                        id: format!("id-{number}").into(),
                        arn: ARN.into(),
                        payload: Bytes::from_static(ask.event.as_bytes()),
                        trace: Some("Root=1-2-3".into()),
                        client_context: None,
                    };
                    let now = Instant::now();
                    let Some(answer) = ask.answer else {
                        assert!(calls.send(&function, call, now));
                        continue;
                    };
                    let outcome = match calls.call(&function, call, now + ask.time) {
                        None => None,
                        Some(pending) => {
                            if let Some(ShardMessage::Invoked(reply)) = inbox.recv().await {
                                calls.settle(reply);
                            }
                            Some(pending.await)
                        }
                    };
                    answer.send(outcome).unwrap();
                }
            })
            .unwrap();
        });
        Self {
            address,
            functions,
            calls,
            event_loop,
        }
    }

    fn plain() -> Self {
        Self::new(|_| {}, |_| {})
    }

    /// Has the shard call the function.
    fn call(&self, event: &'static str) -> mpsc::Receiver<Option<Outcome>> {
        let (answer, receiver) = mpsc::channel();
        let ask = Ask {
            event,
            time: Duration::from_secs(60),
            answer: Some(answer),
        };
        self.calls.send(ask).unwrap();
        receiver
    }

    fn send(&self, event: &'static str) {
        let ask = Ask {
            event,
            time: Duration::ZERO,
            answer: None,
        };
        self.calls.send(ask).unwrap();
    }

    fn worker(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }
}

fn bindings(runtime: proto::RuntimeTarget) -> Bindings {
    let bundle = proto::BindingBundle {
        id: "b1".into(),
        pattern: ARN.into(),
        target: Some(proto::binding_bundle::Target::Function(proto::FunctionTarget {
            kind: Some(proto::function_target::Kind::Runtime(runtime)),
            ..proto::FunctionTarget::default()
        })),
    };
    Bindings::new(&[Binding::read(bundle).unwrap()])
}

/// Sends a request and reads its response whole: head and body.
fn ask(worker: &mut TcpStream, method: &str, path: &str, body: &str) -> (String, String) {
    let request = format!(
        "{method} /2018-06-01/runtime/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    worker.write_all(request.as_bytes()).unwrap();
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8(read.clone()).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = header(head, "Content-Length").parse::<usize>().unwrap();
            if body.len() >= length {
                return (head.to_owned(), body.to_owned());
            }
        }
        let mut part = [0; 4096];
        let length = worker.read(&mut part).unwrap();
        assert!(length > 0, "closed within a response: {text}");
        read.extend_from_slice(&part[..length]);
    }
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let field = head
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    field.unwrap_or_else(|| panic!("no {name} in {head}"))
}

fn next(worker: &mut TcpStream) -> (String, String) {
    let (head, body) = ask(worker, "GET", "invocation/next", "");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    (header(&head, "Lambda-Runtime-Aws-Request-Id").to_owned(), body)
}

fn error(outcome: Option<Outcome>) -> String {
    match outcome {
        Some(Outcome::Error(error)) => String::from_utf8(error.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The Lambda guide's "Using the Lambda runtime API": the next invocation with its headers, its result.
#[test]
fn a_worker_asks_and_answers() {
    let f = Fixture::plain();
    let mut worker = f.worker();
    let called = f.call(r#"{"key":1}"#);
    let (head, event) = ask(&mut worker, "GET", "invocation/next", "");
    assert_eq!(event, r#"{"key":1}"#);
    assert_eq!(header(&head, "Lambda-Runtime-Invoked-Function-Arn"), ARN);
    assert_eq!(header(&head, "Lambda-Runtime-Trace-Id"), "Root=1-2-3");
    let deadline: u128 = header(&head, "Lambda-Runtime-Deadline-Ms").parse().unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!(deadline > now.as_millis());
    let id = header(&head, "Lambda-Runtime-Aws-Request-Id").to_owned();
    let (head, body) = ask(
        &mut worker,
        "POST",
        &format!("invocation/{id}/response"),
        "\"hi\"",
    );
    assert!(head.starts_with("HTTP/1.1 202 "), "{head}");
    assert_eq!(body, r#"{"status":"OK"}"#);
    assert_eq!(called.recv().unwrap(), Some(Outcome::Result("\"hi\"".into())));
    // Twice, and for what never was.
    for id in [id.as_str(), "other"] {
        let (head, body) = ask(&mut worker, "POST", &format!("invocation/{id}/response"), "1");
        assert!(
            head.starts_with("HTTP/1.1 400 ") && body.contains("InvalidRequestID"),
            "{head} {body}"
        );
    }
    // RES-154: an error is what the worker says it is.
    let called = f.call("{}");
    let (id, _) = next(&mut worker);
    let said = r#"{"errorMessage":"no","errorType":"E","stackTrace":[]}"#;
    ask(&mut worker, "POST", &format!("invocation/{id}/error"), said);
    assert_eq!(error(called.recv().unwrap()), said);
    for (method, path, status) in [
        ("GET", "invocation/x/response", "405"),
        ("POST", "invocation/next", "405"),
        ("GET", "other", "404"),
    ] {
        let (head, _) = ask(&mut worker, method, path, "");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
}

/// A worker that dies with an invocation in hand fails it; one that only waited fails nothing.
#[test]
fn a_worker_dies() {
    let f = Fixture::plain();
    let mut worker = f.worker();
    let mut waiting = f.worker();
    waiting
        .write_all(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    drop(waiting);
    let called = f.call("{}");
    let (id, _) = next(&mut worker);
    drop(worker);
    let error = error(called.recv().unwrap());
    assert!(
        error.contains("Runtime.ExitError") && error.contains(&id),
        "{error}"
    );
    // Asking again without having answered gives up what was in hand, as well.
    let mut worker = f.worker();
    let called = f.call("1");
    next(&mut worker);
    let again = f.call("2");
    let (id, event) = next(&mut worker);
    assert_eq!(event, "2");
    assert!(super::tests::error(called.recv().unwrap()).contains("Runtime.ExitError"));
    ask(&mut worker, "POST", &format!("invocation/{id}/response"), "3");
    assert_eq!(again.recv().unwrap(), Some(Outcome::Result("3".into())));
}

/// Clients such as curl open a connection for every call.
#[test]
fn separate_connections_say_nothing_about_a_worker() {
    let f = Fixture::new(|_| {}, |target| target.separate_connections = true);
    let called = f.call("{}");
    let mut worker = f.worker();
    let (id, _) = next(&mut worker);
    drop(worker);
    ask(&mut f.worker(), "POST", &format!("invocation/{id}/response"), "1");
    assert_eq!(called.recv().unwrap(), Some(Outcome::Result("1".into())));
}

/// A worker that takes too long, answers too much, or cannot start.
#[test]
fn a_worker_fails() {
    let limit = |limits: &mut Limits| {
        limits.set_number(Limit::FunctionTimeout, 100).unwrap();
        limits.set_number(Limit::FunctionResultBytes, 1024).unwrap();
    };
    let f = Fixture::new(limit, |_| {});
    let mut worker = f.worker();
    let called = f.call("{}");
    let (id, _) = next(&mut worker);
    let late = error(called.recv().unwrap());
    assert!(late.contains("Task timed out after 0.10 seconds"), "{late}");
    let (head, _) = ask(&mut worker, "POST", &format!("invocation/{id}/response"), "1");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");

    let called = f.call("{}");
    let (id, _) = next(&mut worker);
    let (head, _) = ask(
        &mut worker,
        "POST",
        &format!("invocation/{id}/response"),
        &"1".repeat(1025),
    );
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    let large = error(called.recv().unwrap());
    assert!(large.contains("Function.ResponseSizeTooLarge"), "{large}");

    let mut worker = f.worker();
    let called = f.call("{}");
    // The order may still be on its way when the worker fails; it fails again until somebody waits.
    let failed = loop {
        ask(
            &mut worker,
            "POST",
            "init/error",
            r#"{"errorType":"Runtime.ImportModuleError"}"#,
        );
        if let Ok(outcome) = called.try_recv() {
            break error(outcome);
        }
        thread::yield_now();
    };
    assert!(failed.contains("ImportModuleError"), "{failed}");
}

/// RES-153: an asynchronous invocation that fails is tried three times in all.
#[test]
fn events_are_tried_three_times() {
    let limit = |limits: &mut Limits| limits.set_number(Limit::FunctionEventRetryDelay, 1).unwrap();
    let f = Fixture::new(limit, |_| {});
    f.send("\"once\"");
    let mut worker = f.worker();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (id, event) = next(&mut worker);
        assert_eq!(event, "\"once\"");
        ask(&mut worker, "POST", &format!("invocation/{id}/error"), "{}");
        ids.push(id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let called = f.call("\"other\"");
    let (id, event) = next(&mut worker);
    assert_eq!(event, "\"other\"");
    ask(&mut worker, "POST", &format!("invocation/{id}/response"), "1");
    assert_eq!(called.recv().unwrap(), Some(Outcome::Result("1".into())));
}

/// C9: a function that is unbound ends what waits for it, and gives its address back.
#[test]
fn an_unbound_function_is_gone() {
    let f = Fixture::plain();
    let mut worker = f.worker();
    let called = f.call("{}");
    next(&mut worker);
    f.event_loop.block_on(f.functions.listen(&Bindings::default()));
    assert_eq!(called.recv().unwrap(), Some(Outcome::Gone));
    let free = TcpListener::bind(f.address).expect("the address is free again");
    assert_eq!(f.call("{}").recv().unwrap(), Some(Outcome::Gone));
    // Bound again while somebody has the address: workers are served when it is free.
    let bound = bindings(proto::RuntimeTarget {
        address: f.address.to_string(),
        separate_connections: false,
    });
    assert!(
        bound
            .functions()
            .all(|function| matches!(function.kind, FunctionKind::Runtime(_)))
    );
    f.event_loop.block_on(f.functions.listen(&bound));
    drop(free);
    let mut worker = loop {
        match TcpStream::connect(f.address) {
            Ok(worker) => break worker,
            Err(_) => thread::yield_now(),
        }
    };
    let called = f.call("{}");
    let (id, _) = next(&mut worker);
    ask(&mut worker, "POST", &format!("invocation/{id}/response"), "1");
    assert_eq!(called.recv().unwrap(), Some(Outcome::Result("1".into())));
}

/// D17: a process that is being relieved lets go of its address and of the workers that wait.
#[test]
fn workers_go_to_the_process_that_takes_over() {
    let f = Fixture::plain();
    let mut waiting = f.worker();
    waiting
        .write_all(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    // What comes back on this one says that the other's request has been seen, as it was sent before.
    ask(&mut f.worker(), "GET", "other", "");
    f.functions.retire();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let free = loop {
        match TcpListener::bind(f.address) {
            Ok(free) => break free,
            Err(_) => thread::yield_now(),
        }
    };
    drop(free);
}
