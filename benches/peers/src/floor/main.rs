//! The floor of the side-by-side measurement: what a proxy on our own runtime costs that has no features at all.
//!
//! `peers-floor ADDRESS TLS_ADDRESS BACKEND CERTIFICATE KEY [auto|uring|epoll]`: parses both heads, drops hop-by-hop
//! fields, adds X-Forwarded-For, keeps connections to its one backend; `/direct` it answers itself. No routes, limits,
//! time-outs, logs or counters; only requests without a body.

mod client;

use std::cell::RefCell;
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use tidegate_rt::{
    Buffer, Chunk, ConnectOptions, DriverChoice, ListenOptions, Listener, RuntimeOptions, Stream,
};

use client::Client;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Header fields that a head may have.
const FIELDS: usize = 64;

/// Bytes of a body that wait for a slower client.
const WINDOW: usize = 128 * 1024;

/// What `/direct` is answered with: the header fields that a server sends in any case.
const DIRECT: &[u8] = b"HTTP/1.1 200 OK\r\nServer: floor\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 0\r\n\r\n";

/// Idle connections to the backend.
type Idle = Rc<RefCell<Vec<Stream>>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, tls_address, backend, certificate, key, driver @ ..] = arguments.as_slice() else {
        bail!("usage: peers-floor ADDRESS TLS_ADDRESS BACKEND CERTIFICATE KEY [auto|uring|epoll]");
    };
    let choice: DriverChoice = driver.first().map_or("auto", String::as_str).parse()?;
    let [plain, tls] = [address, tls_address].map(|address| -> Result<_> {
        tidegate_rt::listen(
            address.parse().context("the address to listen on")?,
            &ListenOptions::default(),
        )
        .with_context(|| format!("listening on {address}"))
    });
    let (plain, tls) = (plain?, tls?);
    let config = client::config(certificate, key)?;
    let backend: SocketAddr = backend.parse().context("the backend's address")?;
    let kind = tidegate_rt::probe(choice)?;
    tidegate_rt::run(RuntimeOptions::new(kind), async move {
        let (plain, tls) = (Listener::from_std(plain)?, Listener::from_std(tls)?);
        let idle = Idle::default();
        let shared = idle.clone();
        drop(tidegate_rt::spawn(async move {
            while let Ok((stream, peer)) = tls.accept().await {
                // A session cannot be set up only when memory is out; the connection then ends.
                if let Ok(client) = Client::tls(stream, &config) {
                    spawn(client, peer, backend, &shared);
                }
            }
        }));
        loop {
            let (stream, peer) = plain.accept().await?;
            spawn(Client::Plain(stream), peer, backend, &idle);
        }
    })?
}

fn spawn(client: Client, peer: SocketAddr, backend: SocketAddr, idle: &Idle) {
    let idle = idle.clone();
    drop(tidegate_rt::spawn(async move {
        // A connection that ends in an error has ended; there is no log here to tell.
        let _ = serve(client, peer, backend, &idle).await;
    }));
}

async fn serve(mut client: Client, peer: SocketAddr, backend: SocketAddr, idle: &Idle) -> Result<()> {
    let forwarded = format!("X-Forwarded-For: {}\r\n\r\n", peer.ip());
    let options = ConnectOptions::default();
    while let Some(first) = client.read().await? {
        let head = whole_head(first, async || client.read().await).await?;
        let request = rewrite_request(&head, forwarded.as_bytes())?;
        let Some(outgoing) = request.outgoing else {
            client.queue(Chunk::from_static(DIRECT))?;
            client.flush().await?;
            if request.last {
                break;
            }
            continue;
        };
        let kept = idle.borrow_mut().pop();
        let mut upstream = match kept {
            Some(upstream) => upstream,
            None => Stream::connect(backend, &options).await?,
        };
        upstream.queue(outgoing);
        upstream.flush().await?;
        let first = upstream.read().await?.context("the backend closed")?;
        let head = whole_head(first, async || Ok(upstream.read().await?)).await?;
        let (mut answer, mut left, body) = rewrite_response(&head)?;
        // What of the body came with the head goes out with it.
        left -= body.len().min(left);
        answer.extend_from_slice(&body);
        let mut waiting = answer.len();
        client.queue(answer.freeze())?;
        while left > 0 {
            if waiting >= WINDOW {
                client.flush().await?;
                waiting = 0;
            }
            let chunk = upstream
                .read()
                .await?
                .context("the backend closed within a body")?;
            left -= chunk.len().min(left);
            waiting += chunk.len();
            client.queue(chunk)?;
        }
        client.flush().await?;
        idle.borrow_mut().push(upstream);
        if request.last {
            break;
        }
    }
    client.close().await
}

/// Reads until a head is complete; the bytes behind it stay in the chunk.
async fn whole_head(mut chunk: Chunk, mut more: impl AsyncFnMut() -> Result<Option<Chunk>>) -> Result<Chunk> {
    while !chunk.windows(4).any(|window| window == b"\r\n\r\n") {
        let Some(next) = more().await? else {
            bail!("cut within a head");
        };
        chunk = match chunk.try_join(next) {
            Ok(()) => chunk,
            Err(next) => Chunk::from([&chunk[..], &next[..]].concat()),
        };
    }
    Ok(chunk)
}

fn is_hop_by_hop(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.iter().any(|hop| hop.eq_ignore_ascii_case(name))
}

fn put_field(out: &mut Buffer, field: &httparse::Header<'_>) {
    out.extend_from_slice(field.name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(field.value);
    out.extend_from_slice(b"\r\n");
}

/// A request, ready to be passed on.
struct Request {
    /// What the backend gets; `None` for what is answered here.
    outgoing: Option<Chunk>,
    /// Whether the client wants the connection closed behind the answer.
    last: bool,
}

fn rewrite_request(head: &Chunk, forwarded: &[u8]) -> Result<Request> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(head, &mut fields)?;
    if parsed != httparse::Status::Complete(head.len()) {
        bail!("a body or another request behind the head");
    }
    let path = request.path.unwrap_or_default();
    let mut last = false;
    let mut out = Buffer::with_capacity(head.len() + 128);
    out.extend_from_slice(request.method.unwrap_or_default().as_bytes());
    out.put_u8(b' ');
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for field in request.headers.iter() {
        if !is_hop_by_hop(field.name) {
            put_field(&mut out, field);
        } else if field.name.eq_ignore_ascii_case("connection") {
            last |= field.value.eq_ignore_ascii_case(b"close");
        }
    }
    let outgoing = (path != "/direct").then(|| {
        out.extend_from_slice(forwarded);
        out.freeze()
    });
    Ok(Request { outgoing, last })
}

/// The head for the client, the length of the body, and what of the body has come.
fn rewrite_response(head: &Chunk) -> Result<(Buffer, usize, Chunk)> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let httparse::Status::Complete(end) = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, head, &mut fields)?
    else {
        bail!("an unfinished head");
    };
    let mut length = None;
    let mut out = Buffer::with_capacity(head.len());
    write!(
        Writer(&mut out),
        "HTTP/1.1 {} {}\r\n",
        response.code.unwrap_or_default(),
        response.reason.unwrap_or_default()
    )?;
    for field in response.headers.iter().filter(|field| !is_hop_by_hop(field.name)) {
        if field.name.eq_ignore_ascii_case("content-length") {
            length = Some(std::str::from_utf8(field.value)?.parse()?);
        }
        put_field(&mut out, field);
    }
    out.extend_from_slice(b"\r\n");
    Ok((
        out,
        length.context("a response without a length")?,
        head.slice(end..),
    ))
}

/// A buffer that is written to.
pub(crate) struct Writer<'a>(pub(crate) &'a mut Buffer);

impl std::io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
