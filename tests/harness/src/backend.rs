//! A backend in a process of its own. The path of a request says how it misbehaves:
//!
//! | Path | Answer |
//! | --- | --- |
//! | `/pets`, `/pets/{id}` | a pet store, as JSON |
//! | `/echo/...` | what came, as JSON: method, target, headers, length and digest of the body |
//! | `/say/{code}...` | what came as its own: that status, the body, and a header `name` for each `x-say-name` |
//! | `/fixed/{n}` | n bytes of [`pattern`] with a Content-Length |
//! | `/chunked/{n}/{size}` | n chunks of `size` bytes of pattern |
//! | `/close/{n}` | n bytes of pattern, ended by closing |
//! | `/status/{code}` | that status with a small body (none for 204 and 304) |
//! | `/headers/{n}` | n extra header fields, hop-by-hop ones among them |
//! | `/early/{code}` | answers before it reads the body, and closes |
//! | `/hang/head`, `/hang/body` | nothing; or a head, half of the body, and then nothing |
//! | `/hold/{name}` | takes nothing of the body until `/_release/{name}` is asked for, then as `/echo` |
//! | `/inform/{n}` | n informational responses, then 200 |
//! | `/switch` | 101 that nobody asked for |
//! | `/die/nothing`, `/die/head`, `/die/length`, `/die/chunked` | closes: at once, within the head, within a body |
//! | `/reset/nothing`, `/reset/length` | the same with a reset |
//! | `/garbage/{kind}` | no HTTP: see [`GARBAGE`] |
//! | `/_count` | how many requests came so far, itself not counted |
//!
//! The process ends when its parent does: it reads its standard input until that closes.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

/// Bytes that tell a shifted, cut or mixed-up body from the right one: a period that no power of two divides.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + (at % 251 % 26) as u8).collect()
}

/// The kinds of `/garbage/{kind}`, and the bytes each answers with before it closes.
pub const GARBAGE: &[(&str, &[u8])] = &[
    ("noise", b"\x00\x01\xfe\xff not http at all\r\n\r\n"),
    (
        "status-line",
        b"HTTP/1.1 abc Strange\r\nContent-Length: 2\r\n\r\nok",
    ),
    ("version", b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    (
        "lengths",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    ),
    (
        "signed-length",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    ),
    (
        "both",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    (
        "bare-cr",
        b"HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        "header-name",
        b"HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 2\r\n\r\nok",
    ),
];

/// A running backend.
#[derive(Debug)]
pub struct Backend {
    child: Child,
    address: SocketAddr,
}

impl Backend {
    /// Starts a backend on a free port of the loopback address.
    pub fn start() -> Result<Self> {
        Self::start_on(0)
    }

    /// Starts a backend on a port where another one was.
    pub fn start_on(port: u16) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe().context("the test executable's own path")?)
            .args([crate::HELPER, "backend", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the backend")?;
        let mut line = String::new();
        let out = child.stdout.take().context("the backend's output")?;
        BufReader::new(out)
            .read_line(&mut line)
            .context("reading the backend's address")?;
        let address = line
            .trim()
            .parse()
            .with_context(|| format!("the backend said {line:?}"))?;
        Ok(Self { child, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many requests came so far.
    pub fn count(&self) -> Result<u64> {
        let response = crate::raw::get(self.address, "backend", "/_count")?;
        Ok(response.text().trim().parse()?)
    }

    /// Has requests for `/hold/{name}` read on.
    pub fn release(&self, name: &str) -> Result<()> {
        let released = crate::raw::get(self.address, "backend", &format!("/_release/{name}"))?;
        ensure!(released.status == 200, "{released:?}");
        Ok(())
    }

    /// Ends the process at once; its port then refuses connections.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing the backend")?;
        self.child.wait().context("reaping the backend")?;
        Ok(())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Best effort: a backend that a test has killed is gone already.
        let _ = self.kill();
    }
}

/// In the helper process: serves until the parent's end of standard input closes.
pub(crate) fn serve(arguments: &[OsString]) -> Result<()> {
    let port: u16 = arguments
        .first()
        .and_then(|port| port.to_str())
        .context("backend: which port?")?
        .parse()?;
    // The standard library sets SO_REUSEADDR, so that a port can be taken over from a backend that was killed.
    let listener = TcpListener::bind(("127.0.0.1", port)).context("binding")?;
    println!("{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // A connection that ends in an error ends; that is what a backend does.
                let _ = converse(stream);
            });
        }
    });
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).context("waiting for the parent")?;
    Ok(())
}

/// Requests that came, over all connections.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Names that `/_release/` was asked for.
static RELEASED: LazyLock<(Mutex<HashSet<String>>, Condvar)> = LazyLock::new(Default::default);

/// A request whose body has not been read yet.
struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }
}

fn converse(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    let mut reader = BufReader::with_capacity(65_536, stream.try_clone()?);
    let mut stream = stream;
    while let Some(request) = read_head(&mut reader)? {
        if request.target == "/_count" {
            respond(
                &mut stream,
                &request,
                "200 OK",
                "text/plain",
                REQUESTS.load(Ordering::SeqCst).to_string().as_bytes(),
            )?;
            continue;
        }
        if let Some(name) = request.target.strip_prefix("/_release/") {
            let (released, changed) = &*RELEASED;
            let mut released = released.lock().unwrap_or_else(PoisonError::into_inner);
            released.insert(name.to_owned());
            changed.notify_all();
            drop(released);
            respond(&mut stream, &request, "200 OK", "text/plain", b"released")?;
            continue;
        }
        REQUESTS.fetch_add(1, Ordering::SeqCst);
        let path = request.target.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        if let ["early", code] = parts[..] {
            write!(
                stream,
                "HTTP/1.1 {code} Early\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly"
            )?;
            stream.shutdown(std::net::Shutdown::Write)?;
            // Take what is on its way, so that the close does not become a reset that eats the answer.
            std::io::copy(&mut reader, &mut std::io::sink())?;
            return Ok(());
        }
        if let ["hold", name] = parts[..] {
            // What nobody reads, the kernel takes no more of than fits into a buffer of the first size.
            let (released, changed) = &*RELEASED;
            let released = released.lock().unwrap_or_else(PoisonError::into_inner);
            drop(changed.wait_while(released, |released| !released.contains(name)));
        }
        let body = read_body(&mut reader, &mut stream, &request)?;
        if !answer(&mut stream, &request, &parts, &body)? {
            return Ok(());
        }
        if request
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
        {
            return Ok(());
        }
    }
    Ok(())
}

/// Answers; `false` when the connection must end.
fn answer(stream: &mut TcpStream, request: &Request, parts: &[&str], body: &[u8]) -> Result<bool> {
    match parts {
        ["pets"] => respond(
            stream,
            request,
            "200 OK",
            "application/json",
            pets().to_string().as_bytes(),
        )?,
        ["pets", id] => {
            let id: u64 = id.parse().unwrap_or_default();
            let found = pets()
                .as_array()
                .and_then(|all| all.iter().find(|pet| pet["id"] == id).cloned());
            match found {
                Some(pet) => respond(
                    stream,
                    request,
                    "200 OK",
                    "application/json",
                    pet.to_string().as_bytes(),
                )?,
                None => respond(
                    stream,
                    request,
                    "404 Not Found",
                    "application/json",
                    b"{\"error\":\"no such pet\"}",
                )?,
            }
        }
        ["echo", ..] | ["hold", _] => {
            let told = json!({
                "method": request.method, "target": request.target, "headers": request.headers,
                "length": body.len(), "isPattern": body == pattern(body.len()), "body": String::from_utf8_lossy(&body[..body.len().min(4096)]),
            });
            respond(
                stream,
                request,
                "200 OK",
                "application/json",
                told.to_string().as_bytes(),
            )?;
        }
        ["say", code, ..] => {
            write!(stream, "HTTP/1.1 {code} Told\r\n")?;
            for (name, value) in &request.headers {
                if let Some(name) = name.to_ascii_lowercase().strip_prefix("x-say-") {
                    write!(stream, "{name}: {value}\r\n")?;
                }
            }
            write!(stream, "Content-Length: {}\r\n\r\n", body.len())?;
            stream.write_all(body)?;
        }
        ["fixed", n] => respond(stream, request, "200 OK", "text/plain", &pattern(n.parse()?))?,
        ["status", code @ ("204" | "304")] => {
            write!(stream, "HTTP/1.1 {code} Bare\r\nX-Code: {code}\r\n\r\n")?
        }
        ["status", code] => respond(
            stream,
            request,
            &format!("{code} Asked"),
            "text/plain",
            code.as_bytes(),
        )?,
        ["chunked", n, size] => {
            let (n, size): (usize, usize) = (n.parse()?, size.parse()?);
            let body = pattern(n * size);
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
            )?;
            for (at, chunk) in body.chunks(size.max(1)).enumerate() {
                // Extensions are allowed, but all of a body's together have a limit.
                let extension = if at < 10 { ";ext=1" } else { "" };
                write!(stream, "{:x}{extension}\r\n", chunk.len())?;
                stream.write_all(chunk)?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(b"0\r\nX-Trailer: t\r\n\r\n")?;
        }
        ["close", n] => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")?;
            stream.write_all(&pattern(n.parse()?))?;
            return Ok(false);
        }
        ["headers", n] => {
            let mut head = String::from(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nServer: pets\r\n",
            );
            for at in 0..n.parse()? {
                head.push_str(&format!("X-Extra-{at}: {at}\r\n"));
            }
            stream.write_all(format!("{head}\r\nok").as_bytes())?;
        }
        ["inform", n] => {
            for _ in 0..n.parse()? {
                stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
            }
            respond(stream, request, "200 OK", "text/plain", b"informed")?;
        }
        ["switch"] => stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")?,
        ["hang", "head"] => hang(stream)?,
        ["hang", "body"] => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")?;
            stream.write_all(&pattern(500))?;
            hang(stream)?;
        }
        ["die", how] | ["reset", how] => {
            match *how {
                "nothing" => {}
                "head" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le")?,
                "length" => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")?;
                    stream.write_all(&pattern(500))?;
                }
                "chunked" => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1f4\r\n")?;
                    stream.write_all(&pattern(500))?;
                    stream.write_all(b"\r\n")?;
                }
                other => bail!("no such way to die: {other}"),
            }
            if parts[0] == "reset" {
                rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO))?;
            }
            return Ok(false);
        }
        ["garbage", kind] => {
            let bytes = GARBAGE
                .iter()
                .find(|(name, _)| name == kind)
                .map(|(_, bytes)| *bytes);
            stream.write_all(bytes.with_context(|| format!("no such garbage: {kind}"))?)?;
            return Ok(false);
        }
        _ => respond(
            stream,
            request,
            "404 Not Found",
            "text/plain",
            b"the backend has no such path",
        )?,
    }
    Ok(true)
}

/// Waits until the peer gives up.
fn hang(stream: &mut TcpStream) -> Result<()> {
    std::io::copy(stream, &mut std::io::sink())?;
    Ok(())
}

fn respond(stream: &mut TcpStream, request: &Request, status: &str, kind: &str, body: &[u8]) -> Result<()> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: pets\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if request.method != "HEAD" {
        bytes.extend_from_slice(body);
    }
    stream.write_all(&bytes)?;
    Ok(())
}

fn pets() -> serde_json::Value {
    json!([
        { "id": 1, "type": "dog", "price": 249.99 },
        { "id": 2, "type": "cat", "price": 124.99 },
        { "id": 3, "type": "fish", "price": 0.99 },
    ])
}

/// The next request's head; `None` when the peer has finished.
fn read_head(reader: &mut BufReader<TcpStream>) -> Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        bail!("request line {line:?}");
    };
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: Vec::new(),
    };
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "the head was cut");
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Ok(Some(request));
        }
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("header line {line:?}"))?;
        request.headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_body(
    reader: &mut BufReader<TcpStream>,
    stream: &mut TcpStream,
    request: &Request,
) -> Result<Vec<u8>> {
    if request
        .header("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if request.header("transfer-encoding").is_some() {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            ensure!(reader.read_line(&mut line)? > 0, "the body was cut");
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)?;
            let at = body.len();
            body.resize(at + size, 0);
            reader.read_exact(&mut body[at..])?;
            let mut end = String::new();
            while reader.read_line(&mut end)? > 0 && size == 0 && end != "\r\n" {
                end.clear();
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }
    let length = request.header("content-length").map_or(Ok(0), str::parse)?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(body)
}
