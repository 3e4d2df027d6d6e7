//! The floor of the side-by-side measurement: what a proxy on our own runtime costs that has no features at all.
//!
//! `peers-floor ADDRESS BACKEND [auto|uring|epoll]`: parses both heads, drops hop-by-hop fields, adds X-Forwarded-For,
//! keeps connections to its one backend. No routes, limits, time-outs, logs or counters; only requests without a body.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use tidegate_rt::{
    Buffer, Chunk, ConnectOptions, DriverChoice, ListenOptions, Listener, RuntimeOptions, Stream,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Header fields that a head may have.
const FIELDS: usize = 64;

/// Idle connections to the backend.
type Idle = Rc<RefCell<Vec<Stream>>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(backend)) = (arguments.next(), arguments.next()) else {
        bail!("usage: peers-floor ADDRESS BACKEND [auto|uring|epoll]");
    };
    let choice: DriverChoice = arguments.next().as_deref().unwrap_or("auto").parse()?;
    let listener = tidegate_rt::listen(
        address.parse().context("the address to listen on")?,
        &ListenOptions::default(),
    )
    .with_context(|| format!("listening on {address}"))?;
    let backend: SocketAddr = backend.parse().context("the backend's address")?;
    let kind = tidegate_rt::probe(choice)?;
    tidegate_rt::run(RuntimeOptions::new(kind), async move {
        let listener = Listener::from_std(listener)?;
        let idle = Idle::default();
        loop {
            let (stream, peer) = listener.accept().await?;
            let idle = idle.clone();
            drop(tidegate_rt::spawn(async move {
                // A connection that ends in an error has ended; there is no log here to tell.
                let _ = serve(stream, peer, backend, &idle).await;
            }));
        }
    })?
}

async fn serve(mut client: Stream, peer: SocketAddr, backend: SocketAddr, idle: &Idle) -> Result<()> {
    let forwarded = format!("X-Forwarded-For: {}\r\n\r\n", peer.ip());
    let options = ConnectOptions::default();
    while let Some(head) = read_head(&mut client).await? {
        let request = rewrite_request(&head, forwarded.as_bytes())?;
        let kept = idle.borrow_mut().pop();
        let mut upstream = match kept {
            Some(upstream) => upstream,
            None => Stream::connect(backend, &options).await?,
        };
        upstream.queue(request);
        upstream.flush().await?;
        let head = read_head(&mut upstream).await?.context("the backend closed")?;
        let (mut answer, mut left, body) = rewrite_response(&head)?;
        // What of the body came with the head goes out with it.
        left -= body.len().min(left);
        answer.extend_from_slice(&body);
        client.queue(answer.freeze());
        while left > 0 {
            let chunk = upstream
                .read()
                .await?
                .context("the backend closed within a body")?;
            left -= chunk.len().min(left);
            client.queue(chunk);
        }
        client.flush().await?;
        idle.borrow_mut().push(upstream);
    }
    Ok(())
}

/// Reads until a head is complete; the bytes behind it stay in the chunk.
async fn read_head(stream: &mut Stream) -> Result<Option<Chunk>> {
    let Some(mut chunk) = stream.read().await? else {
        return Ok(None);
    };
    while !chunk.windows(4).any(|window| window == b"\r\n\r\n") {
        let Some(next) = stream.read().await? else {
            bail!("cut within a head");
        };
        chunk = match chunk.try_join(next) {
            Ok(()) => chunk,
            Err(next) => Chunk::from([&chunk[..], &next[..]].concat()),
        };
    }
    Ok(Some(chunk))
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

fn rewrite_request(head: &Chunk, forwarded: &[u8]) -> Result<Chunk> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(head, &mut fields)?;
    if parsed != httparse::Status::Complete(head.len()) {
        bail!("a body or another request behind the head");
    }
    let mut out = Buffer::with_capacity(head.len() + 128);
    out.extend_from_slice(request.method.unwrap_or_default().as_bytes());
    out.put_u8(b' ');
    out.extend_from_slice(request.path.unwrap_or_default().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for field in request.headers.iter().filter(|field| !is_hop_by_hop(field.name)) {
        put_field(&mut out, field);
    }
    out.extend_from_slice(forwarded);
    Ok(out.freeze())
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

struct Writer<'a>(&'a mut Buffer);

impl std::io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
