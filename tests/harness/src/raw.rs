//! A client that writes bytes as they are given and reads HTTP/1.1 responses strictly, telling a clean end from a cut.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How long one read or write may take before the test is told that nothing came.
pub const READ_LIMIT: Duration = Duration::from_secs(45);

/// A response that came complete, by its own framing.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
    /// Whether the connection's end delimited the body.
    pub until_close: bool,
}

impl Response {
    /// The first value of a header, by name in any letter case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// How often a header is present.
    pub fn count(&self, name: &str) -> usize {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .count()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer closed its side in order.
    Closed,
    /// The peer reset the connection.
    Reset,
}

/// A socket that waits [`READ_LIMIT`] at most for anything, and sends at once.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, READ_LIMIT)
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    stream.set_write_timeout(Some(READ_LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Read, but not yet part of a response.
    pending: Vec<u8>,
}

impl Connection {
    /// The client's own address.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    /// Connects.
    pub fn open(address: SocketAddr) -> Result<Self> {
        Ok(Self {
            stream: connect(address)?,
            pending: Vec::new(),
        })
    }

    /// The same connection, to be written to by another thread.
    pub fn again(&self) -> Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone().context("another descriptor")?,
            pending: Vec::new(),
        })
    }

    /// Writes bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.stream.write_all(bytes.as_ref()).context("writing")
    }

    /// Says that nothing more will be written.
    pub fn finish(&mut self) -> Result<()> {
        self.stream.shutdown(Shutdown::Write).context("half-closing")
    }

    /// Closes with a reset instead of an orderly end.
    pub fn reset(self) -> Result<()> {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).context("SO_LINGER")
    }

    /// The next response. `to_head` says that it answers a HEAD request and so carries no body.
    pub fn response_to(&mut self, to_head: bool) -> Result<Response> {
        loop {
            let response = self.one(to_head)?;
            if response.status >= 200 || response.status == 101 {
                return Ok(response);
            }
        }
    }

    /// The next response to anything but HEAD; informational ones are skipped.
    pub fn response(&mut self) -> Result<Response> {
        self.response_to(false)
    }

    /// The next response, informational ones included.
    pub fn any_response(&mut self) -> Result<Response> {
        self.one(false)
    }

    fn one(&mut self, to_head: bool) -> Result<Response> {
        let head_end = loop {
            if let Some(at) = find(&self.pending, b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(self.pending.len() < 1 << 20, "a response head of more than 1 MiB");
            if !self.fill()? {
                bail!(
                    "the connection ended within or before a response head ({} bytes of it came)",
                    self.pending.len()
                );
            }
        };
        let head: Vec<u8> = self.pending.drain(..head_end).collect();
        let (status, headers) = parse_head(&head)?;
        let mut response = Response {
            status,
            headers,
            body: Vec::new(),
            until_close: false,
        };
        if to_head || status < 200 || status == 204 || status == 304 {
            return Ok(response);
        }
        if response
            .header("transfer-encoding")
            .is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
        {
            ensure!(
                response.header("content-length").is_none(),
                "both Transfer-Encoding and Content-Length"
            );
            response.body = self.chunked()?;
        } else if let Some(length) = response.header("content-length") {
            ensure!(
                response.count("content-length") == 1,
                "several Content-Length fields"
            );
            let length: usize = length
                .parse()
                .with_context(|| format!("Content-Length {length:?}"))?;
            response.body = self.exactly(length)?;
        } else {
            while self.fill()? {}
            response.body = std::mem::take(&mut self.pending);
            response.until_close = true;
        }
        Ok(response)
    }

    fn chunked(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).with_context(|| format!("chunk size {line:?}"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            ensure!(self.exactly(2)? == b"\r\n", "a chunk without its line end");
        }
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(at) = find(&self.pending, b"\r\n") {
                let line: Vec<u8> = self.pending.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            ensure!(self.fill()?, "the connection ended within the framing of a body");
        }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.pending.len() < length {
            ensure!(
                self.fill()?,
                "the connection ended after {} of {length} bytes of a body",
                self.pending.len()
            );
        }
        Ok(self.pending.drain(..length).collect())
    }

    /// Reads once; `false` at the connection's end.
    fn fill(&mut self) -> Result<bool> {
        let mut buffer = [0u8; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.pending.extend_from_slice(&buffer[..read]);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading"),
            }
        }
    }

    /// Reads until at least `length` bytes have come, and keeps them for the next response.
    pub fn read_some(&mut self, length: usize) -> Result<()> {
        while self.pending.len() < length {
            ensure!(
                self.fill()?,
                "the connection ended after {} bytes",
                self.pending.len()
            );
        }
        Ok(())
    }

    /// Reads until the connection ends; what came, and how it ended.
    pub fn drain(mut self) -> Result<(Vec<u8>, End)> {
        loop {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return Ok((self.pending, End::Closed)),
                Err(error) => {
                    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                    if matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)) {
                        return Ok((self.pending, End::Reset));
                    }
                    return Err(error);
                }
            }
        }
    }
}

/// Sends one request on a connection of its own and reads the answer.
pub fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Result<Response> {
    let mut connection = Connection::open(address)?;
    connection.send(request)?;
    connection.response()
}

/// A bodiless request with a Host field.
pub fn request(method: &str, host: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// A request with a body of known length.
pub fn request_with(method: &str, host: &str, target: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// GET on a connection of its own.
pub fn get(address: SocketAddr, host: &str, target: &str) -> Result<Response> {
    exchange(address, request("GET", host, target))
}

fn parse_head(head: &[u8]) -> Result<(u16, Vec<(String, String)>)> {
    let text = std::str::from_utf8(head).context("a response head that is not text")?;
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let mut parts = status_line.splitn(3, ' ');
    ensure!(
        matches!(parts.next(), Some("HTTP/1.1" | "HTTP/1.0")),
        "status line {status_line:?}"
    );
    let status = parts
        .next()
        .unwrap_or_default()
        .parse()
        .with_context(|| format!("status line {status_line:?}"))?;
    let mut headers = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("header line {line:?}"))?;
        ensure!(
            !name.is_empty() && !name.ends_with([' ', '\t']),
            "header line {line:?}"
        );
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok((status, headers))
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answered_with(bytes: &'static [u8]) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = Connection::open(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(bytes).unwrap();
        connection
    }

    #[test]
    fn framings_are_read_and_a_cut_is_an_error() {
        let mut two = answered_with(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 204 No\r\n\r\n");
        assert_eq!(two.response().unwrap().text(), "ok");
        assert_eq!(two.response().unwrap().status, 204);
        let mut chunked =
            answered_with(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\na: b\r\n\r\n");
        assert_eq!(chunked.response().unwrap().text(), "abc");
        let mut cut = answered_with(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc");
        assert!(
            cut.response()
                .unwrap_err()
                .to_string()
                .contains("after 3 of 5 bytes")
        );
        let mut unfinished =
            answered_with(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        assert!(unfinished.response().is_err());
        let mut closed = answered_with(b"HTTP/1.1 200 OK\r\n\r\nall of it");
        assert!(
            closed
                .response()
                .is_ok_and(|r| r.until_close && r.text() == "all of it")
        );
    }
}
