//! The HTTP server for `/metrics`, `/healthz` and `/readyz`, on an address of its own.
//!
//! It runs on a helper thread and shares nothing with the shards but counters, so it answers while they are busy.
//! For operators and their tools only: it belongs on a private address.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};

use super::Telemetry;
use super::exposition::Exposition;

/// The running server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on a bound listener.
    pub fn start(listener: TcpListener, telemetry: Arc<Telemetry>) -> io::Result<Server> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("metrics".into())
            .spawn(move || runtime.block_on(serve(listener, telemetry, stopped)))?;
        Ok(Server {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, finishes the answers that were begun within [`GRACE`], and returns.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

async fn serve(
    listener: tokio::net::TcpListener,
    telemetry: Arc<Telemetry>,
    mut stopped: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: trying again at once would only spin.
                tracing::warn!(%error, "the metrics server cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Over the bound the connection is closed unanswered.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let telemetry = Arc::clone(&telemetry);
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &telemetry);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_headers(MAX_HEADERS)
                .max_buf_size(MAX_HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let life = tokio::time::sleep(MAX_LIFE);
            let mut life = std::pin::pin!(life);
            let mut stopping = false;
            loop {
                tokio::select! {
                    // Errors are the client's: a bad head, a broken connection.
                    _ = connection.as_mut() => break,
                    () = life.as_mut() => break,
                    _ = stopped.wait_for(|stop| *stop), if !stopping => {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
            drop(place);
        });
    }
    drop(listener);
    let all = places.acquire_many(MAX_CONNECTIONS as u32);
    // Whoever has not read its answer by then does not get it.
    let _ = tokio::time::timeout(GRACE, all).await;
}

fn answer<B>(request: &Request<B>, telemetry: &Arc<Telemetry>) -> Response<Text> {
    let head = request.method() == Method::HEAD;
    if !head && request.method() != Method::GET {
        let mut answer = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered here\n".into(),
        );
        answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        "/metrics" if head => with_type(Response::new(Text::Whole(None)), METRICS_TYPE),
        "/metrics" => {
            let pieces = Exposition::new(Arc::clone(telemetry));
            with_type(Response::new(Text::Metrics(Box::new(pieces))), METRICS_TYPE)
        }
        // The process runs and this thread turns; whether traffic should come is /readyz's to say.
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => {
            let reasons = telemetry.node().not_ready_because();
            if reasons.is_empty() {
                text(StatusCode::OK, "ready\n".into())
            } else {
                text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("not ready\n{}\n", reasons.join("\n")),
                )
            }
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz here\n".into(),
        ),
    }
}

fn text(status: StatusCode, body: String) -> Response<Text> {
    let mut answer = Response::new(Text::Whole(Some(body)));
    *answer.status_mut() = status;
    with_type(answer, "text/plain; charset=utf-8")
}

fn with_type(mut answer: Response<Text>, content_type: &'static str) -> Response<Text> {
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// An answer's body: short and whole, or made while it is sent.
enum Text {
    Whole(Option<String>),
    Metrics(Box<Exposition>),
}

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Text::Whole(text) => text.take(),
            Text::Metrics(exposition) => exposition.piece(),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(Bytes::from(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Text::Whole(None))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Text::Whole(text) => {
                hyper::body::SizeHint::with_exact(text.as_ref().map_or(0, String::len) as u64)
            }
            Text::Metrics(_) => hyper::body::SizeHint::default(),
        }
    }
}

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Connections at once: a few scrapers, a few probes.
const MAX_CONNECTIONS: usize = 64;
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 16 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// After this long a connection is closed, whatever it does: a scraper that does not read holds nothing for ever.
const MAX_LIFE: Duration = Duration::from_secs(300);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What [`Server::stop`] waits for.
pub const GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;
    use crate::telemetry::{NodeInfo, Options};

    fn start() -> (Server, Arc<Telemetry>) {
        let info = NodeInfo {
            version: "0.1.0".into(),
            driver: "epoll".into(),
            boot_id: "b".into(),
        };
        let (telemetry, _) = Telemetry::start(Options::new(info)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (
            Server::start(listener, Arc::clone(&telemetry)).unwrap(),
            telemetry,
        )
    }

    fn ask(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(server: &Server, path: &str) -> String {
        ask(
            server,
            &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        )
    }

    /// OBS-008: Prometheus text.
    #[test]
    fn metrics_are_served_in_the_prometheus_format() {
        let (server, _telemetry) = start();
        let answer = get(&server, "/metrics");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("content-type: text/plain; version=0.0.4"),
            "{answer}"
        );
        assert!(
            answer.contains("tidegate_node_info{version=\"0.1.0\",driver=\"epoll\"} 1\n"),
            "{answer}"
        );
        let head = ask(
            &server,
            "HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        );
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        server.stop();
    }

    #[test]
    fn readiness_follows_the_node_and_says_why_not() {
        let (server, telemetry) = start();
        assert!(get(&server, "/readyz").starts_with("HTTP/1.1 200 OK\r\n"));
        telemetry
            .node()
            .block("configuration", "waiting for the control plane");
        let answer = get(&server, "/readyz");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.ends_with("not ready\nconfiguration: waiting for the control plane\n"),
            "{answer}"
        );
        assert!(get(&server, "/healthz").starts_with("HTTP/1.1 200 OK\r\n"));
        telemetry.node().unblock("configuration");
        telemetry.node().set_draining();
        assert!(get(&server, "/readyz").contains("draining"));
    }

    #[test]
    fn other_requests_get_a_defined_answer() {
        let (server, _telemetry) = start();
        assert!(get(&server, "/").starts_with("HTTP/1.1 404 "));
        let post = ask(
            &server,
            "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        );
        assert!(
            post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"),
            "{post}"
        );
        let long = format!(
            "GET /healthz HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
            "a".repeat(15_000)
        );
        assert!(
            ask(&server, &(long.replace("Host", "Connection: close\r\nHost"))).starts_with("HTTP/1.1 200 ")
        );
        let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "A: a\r\n".repeat(65));
        assert!(ask(&server, &many).starts_with("HTTP/1.1 431 "));
        assert!(ask(&server, "\x16\x03\x01 nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn stopping_ends_idle_connections() {
        let (server, _telemetry) = start();
        let mut idle = TcpStream::connect(server.address()).unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut first = [0; 8];
        idle.read_exact(&mut first).unwrap();
        let address = server.address();
        server.stop();
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).unwrap();
        assert!(TcpStream::connect(address).is_err());
    }
}
