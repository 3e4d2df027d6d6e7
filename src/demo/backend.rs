//! The sample backend: a small pet store over plain HTTP.

use std::convert::Infallible;

use anyhow::Context;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    cli::{DemoBackendArgs, GlobalArgs},
    instance::write_atomically,
    logging, planes,
    supervise::block_on,
};

/// `tidegate demo-backend`.
pub(crate) fn run(global: &GlobalArgs, args: &DemoBackendArgs) -> anyhow::Result<()> {
    planes::end_with(args.supervised_by)?;
    logging::start(
        global.log.as_deref(),
        global.log_format.map(|format| format.name()),
        "warn",
    )?;
    block_on(async {
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("cannot listen on {}", args.listen))?;
        let address = listener.local_addr()?;
        match &args.ready_file {
            Some(file) => write_atomically(
                file,
                &serde_json::to_vec(&json!({"address": address.to_string(), "pid": std::process::id()}))?,
            )?,
            None => println!("http://{address}/petstore/pets"),
        }
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            };
            // A connection that ended before it was accepted is no reason to stop.
            let Ok((stream, _)) = accepted else { continue };
            tokio::spawn(async move {
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service_fn(serve))
                    .await;
                if let Err(error) = served {
                    tracing::debug!("a connection ended: {error}");
                }
            });
        }
    })
}

async fn serve(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    Ok(match (&method, path.trim_end_matches('/')) {
        (&Method::GET | &Method::HEAD, "/petstore/pets") => answer(StatusCode::OK, &list(&query)),
        (&Method::POST, "/petstore/pets") => {
            match Limited::new(request.into_body(), MAX_BODY).collect().await {
                Ok(body) => match serde_json::from_slice::<Value>(&body.to_bytes()) {
                    Ok(pet) => answer(StatusCode::OK, &json!({"pet": pet, "message": "success"})),
                    Err(error) => answer(
                        StatusCode::BAD_REQUEST,
                        &json!({"message": format!("no JSON: {error}")}),
                    ),
                },
                Err(_) => answer(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    &json!({"message": "at most 1 MiB"}),
                ),
            }
        }
        (_, "/petstore/pets") => {
            let mut response = cannot(&method, &path);
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
            response
        }
        (&Method::GET | &Method::HEAD, other) => match other.strip_prefix("/petstore/pets/").and_then(pet) {
            Some(pet) => answer(StatusCode::OK, &pet),
            None => cannot(&method, &path),
        },
        _ => cannot(&method, &path),
    })
}

/// Three pets, all of the type that the query names.
fn list(query: &str) -> Value {
    let wanted = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("type="))
        .filter(|kind| !kind.is_empty());
    PETS.iter()
        .take(3)
        .map(|(id, kind, price)| json!({"id": id, "type": wanted.unwrap_or(kind), "price": price}))
        .collect()
}

fn pet(id: &str) -> Option<Value> {
    let id: u32 = id.parse().ok()?;
    let (id, kind, price) = PETS.iter().find(|(known, _, _)| *known == id)?;
    Some(json!({"id": id, "type": kind, "price": price}))
}

fn answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    respond(status, "application/json", body.to_string())
}

fn cannot(method: &Method, path: &str) -> Response<Full<Bytes>> {
    respond(
        StatusCode::NOT_FOUND,
        "text/plain",
        format!("Cannot {method} {path}"),
    )
}

fn respond(status: StatusCode, media: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

const PETS: [(u32, &str, f64); 4] = [
    (1, "dog", 249.99),
    (2, "cat", 124.99),
    (3, "fish", 0.99),
    (4, "bird", 999.99),
];
const MAX_BODY: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// SCN-001, SCN-002, SCN-003: the fixture's answers.
    #[test]
    fn fixture() {
        assert_eq!(
            list(""),
            json!([{"id":1,"type":"dog","price":249.99},{"id":2,"type":"cat","price":124.99},{"id":3,"type":"fish","price":0.99}])
        );
        assert_eq!(
            list("page=2&type=fish")[0],
            json!({"id":1,"type":"fish","price":249.99})
        );
        assert_eq!(pet("4"), Some(json!({"id":4,"type":"bird","price":999.99})));
        assert_eq!(pet("x"), None);
    }
}
