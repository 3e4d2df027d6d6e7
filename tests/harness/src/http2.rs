//! A client that writes HTTP/2 frames as they are given, right or wrong, and tells what became of each stream
//! (RFC 9113). It reads of response heads no more than the status.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};

use crate::raw::connect;

/// What a client sends first (section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames (section 6).
#[allow(missing_docs)]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames (section 6).
#[allow(missing_docs)]
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Error codes (section 7).
#[allow(missing_docs)]
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// One frame.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame_saying(payload.len(), kind, flags, stream, payload)
}

/// A frame's bytes, with a length that need not be that of its payload.
pub fn frame_saying(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field block without compression: literals without indexing (RFC 7541 section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            // An integer of seven bits (RFC 7541 section 5.1).
            if text.len() < 127 {
                bytes.push(text.len() as u8);
            } else {
                bytes.push(127);
                let mut left = text.len() - 127;
                while left >= 128 {
                    bytes.push((left % 128) as u8 | 0x80);
                    left /= 128;
                }
                bytes.push(left as u8);
            }
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// A whole head in one HEADERS frame.
pub fn headers(stream: u32, more_flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(
        kind::HEADERS,
        flag::END_HEADERS | more_flags,
        stream,
        &block(fields),
    )
}

/// The fields of a request, with more behind them.
pub fn request<'f>(
    method: &'f str,
    authority: &'f str,
    path: &'f str,
    more: &[(&'f str, &'f str)],
) -> Vec<(&'f str, &'f str)> {
    let mut fields = vec![
        (":method", method),
        (":scheme", "http"),
        (":authority", authority),
        (":path", path),
    ];
    fields.extend(more);
    fields
}

/// SETTINGS with the given identifiers and values.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (identifier, value) in values {
        payload.extend(identifier.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// A WINDOW_UPDATE.
pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// A RST_STREAM.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ended {
    /// Not yet.
    #[default]
    Open,
    /// With END_STREAM.
    Whole,
    /// With RST_STREAM and this code.
    Reset(u32),
}

/// What came on a stream.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// Informational statuses.
    pub informational: Vec<u16>,
    /// The final status.
    pub status: Option<u16>,
    /// The body.
    pub body: Vec<u8>,
    /// How it ended.
    pub ended: Ended,
    /// A RST_STREAM that came after the end (section 8.1: an answer that came before the request's end).
    pub late_reset: Option<u32>,
}

/// What a connection runs over: TCP, or TLS over it.
trait Transport: Read + Write + std::fmt::Debug + Send {}

impl<T: Read + Write + std::fmt::Debug + Send> Transport for T {}

/// A connection.
#[derive(Debug)]
pub struct Http2 {
    stream: Box<dyn Transport>,
    pending: Vec<u8>,
    /// Streams by number.
    pub streams: BTreeMap<u32, Stream>,
    /// Last stream and code of each GOAWAY.
    pub goaways: Vec<(u32, u32)>,
    /// PING frames that answer ours.
    pub pongs: usize,
    /// The server's SETTINGS have been acknowledged.
    pub settled: bool,
    /// Windows are given back as data comes.
    pub reads: bool,
    /// The server's SETTINGS are acknowledged as they come.
    pub acknowledges: bool,
    /// The connection has ended.
    pub closed: bool,
}

impl Http2 {
    /// Connects and says nothing.
    pub fn silent(address: SocketAddr) -> Result<Self> {
        Ok(Self::over(connect(address)?))
    }

    /// Over a transport that is connected; says nothing.
    pub fn over(stream: impl Read + Write + std::fmt::Debug + Send + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            pending: Vec::new(),
            streams: BTreeMap::new(),
            goaways: Vec::new(),
            pongs: 0,
            settled: false,
            reads: true,
            acknowledges: true,
            closed: false,
        }
    }

    /// Connects and sends the preface.
    pub fn open(address: SocketAddr) -> Result<Self> {
        Self::with_settings(address, &[])
    }

    /// As [`Http2::open`], with settings.
    pub fn with_settings(address: SocketAddr, values: &[(u16, u32)]) -> Result<Self> {
        let mut connection = Self::silent(address)?;
        connection.begin(values)?;
        Ok(connection)
    }

    /// Sends the preface, with settings.
    pub fn begin(&mut self, values: &[(u16, u32)]) -> Result<()> {
        // SETTINGS_HEADER_TABLE_SIZE 0: response heads are literal.
        let all = [&[(1, 0)], values].concat();
        self.send([PREFACE, &settings(&all)].concat())
    }

    /// Writes bytes as they are. A connection that the server has ended is no error: reading tells how.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        match self.stream.write_all(bytes.as_ref()) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Ok(())
            }
            sent => sent.context("writing"),
        }
    }

    /// Opens a stream with a request without a body, and returns when it has ended or cannot any more.
    pub fn get(&mut self, stream: u32, authority: &str, path: &str) -> Result<Stream> {
        self.send(headers(
            stream,
            flag::END_STREAM,
            &request("GET", authority, path, &[]),
        ))?;
        self.end_of(stream)
    }

    /// Reads until a stream has ended, or the connection has.
    pub fn end_of(&mut self, stream: u32) -> Result<Stream> {
        self.until(|all| {
            all.streams
                .get(&stream)
                .is_some_and(|one| one.ended != Ended::Open)
        })?;
        Ok(self.streams.get(&stream).cloned().unwrap_or_default())
    }

    /// Reads until the connection has ended.
    pub fn end(&mut self) -> Result<()> {
        self.until(|_| false)
    }

    /// Sends a PING and reads until it is answered, or the connection has ended; `true` when it was answered.
    pub fn ping(&mut self) -> Result<bool> {
        let before = self.pongs;
        self.send(frame(kind::PING, 0, 0, b"measured"))?;
        self.until(|all| all.pongs > before)?;
        Ok(self.pongs > before)
    }

    /// Reads frames until `enough`, or the connection's end.
    pub fn until(&mut self, enough: impl Fn(&Self) -> bool) -> Result<()> {
        while !self.closed && !enough(self) {
            match self.next_frame()? {
                Some(frame) => self.take(frame)?,
                None => self.closed = true,
            }
        }
        Ok(())
    }

    /// The next frame as it came; `None` at the connection's end, orderly or not.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        if !self.fill(9)? {
            return Ok(None);
        }
        let length = u32::from_be_bytes([0, self.pending[0], self.pending[1], self.pending[2]]) as usize;
        ensure!(length <= 16_384, "a frame of {length} bytes");
        if !self.fill(9 + length)? {
            return Ok(None);
        }
        let bytes: Vec<u8> = self.pending.drain(..9 + length).collect();
        Ok(Some(Frame {
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]),
            payload: bytes[9..].to_vec(),
        }))
    }

    fn take(&mut self, frame: Frame) -> Result<()> {
        let Frame {
            kind,
            flags,
            stream,
            payload,
        } = frame;
        let word = |at: usize| -> Result<u32> {
            let bytes = payload.get(at..at + 4).context("a frame that is too short")?;
            Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        match kind {
            kind::SETTINGS if flags & flag::ACK == 0 => {
                self.settled = true;
                if self.acknowledges {
                    self.send(self::frame(kind::SETTINGS, flag::ACK, 0, &[]))?;
                }
            }
            kind::PING if flags & flag::ACK != 0 => self.pongs += 1,
            kind::PING => self.send(self::frame(kind::PING, flag::ACK, 0, &payload))?,
            kind::GOAWAY => self.goaways.push((word(0)?, word(4)?)),
            kind::RST_STREAM => {
                let code = word(0)?;
                let entry = self.streams.entry(stream).or_default();
                match entry.ended {
                    Ended::Open => entry.ended = Ended::Reset(code),
                    _ => entry.late_reset = Some(code),
                }
            }
            kind::HEADERS => {
                ensure!(
                    flags & flag::END_HEADERS != 0,
                    "a response head in several frames"
                );
                let entry = self.streams.entry(stream).or_default();
                ensure!(
                    entry.ended == Ended::Open,
                    "a head on stream {stream}, which has ended"
                );
                match status(&payload)? {
                    status @ 100..=199 => entry.informational.push(status),
                    status => entry.status = Some(status),
                }
                if flags & flag::END_STREAM != 0 {
                    entry.ended = Ended::Whole;
                }
            }
            kind::DATA => {
                let entry = self.streams.entry(stream).or_default();
                ensure!(entry.status.is_some(), "data before a head on stream {stream}");
                ensure!(
                    entry.ended == Ended::Open,
                    "data on stream {stream}, which has ended"
                );
                entry.body.extend(&payload);
                if flags & flag::END_STREAM != 0 {
                    entry.ended = Ended::Whole;
                }
                let open = entry.ended == Ended::Open;
                let increment = payload.len() as u32;
                if self.reads && increment > 0 {
                    self.send(window_update(0, increment))?;
                    if open {
                        self.send(window_update(stream, increment))?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads until `length` bytes are there; `false` at the connection's end.
    fn fill(&mut self, length: usize) -> Result<bool> {
        let mut bytes = [0; 32 * 1024];
        while self.pending.len() < length {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(read) => self.pending.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error).context("reading a frame"),
            }
        }
        Ok(true)
    }
}

/// The status of a response's field block, where no dynamic table is used: it is the first field (RFC 7541).
fn status(block: &[u8]) -> Result<u16> {
    let mut bytes = block.iter().copied();
    let mut first = bytes.next();
    // A change of the table's size comes before the fields (section 6.3).
    while let Some(0x20..=0x3f) = first {
        if first == Some(0x3f) {
            while bytes.next().is_some_and(|byte| byte & 0x80 != 0) {}
        }
        first = bytes.next();
    }
    // Appendix A: the static table has the commonest.
    let common = [200, 204, 206, 304, 400, 404, 500];
    match first {
        Some(indexed @ 0x88..=0x8e) => Ok(common[usize::from(indexed) - 0x88]),
        // A literal with the name from the static table (entries 8 to 14 are `:status`).
        Some(0x48..=0x4e | 0x08..=0x0e | 0x18..=0x1e) => {
            let length = bytes.next().context("a value without a length")?;
            let value: Vec<u8> = bytes.take(usize::from(length & 0x7f)).collect();
            let text = if length & 0x80 == 0 {
                String::from_utf8(value)?
            } else {
                huffman_digits(&value)?
            };
            text.parse().with_context(|| format!("a status {text:?}"))
        }
        other => bail!("a response that begins with {other:x?} instead of its status"),
    }
}

/// Digits in the code of RFC 7541 appendix B: five bits for 0 to 2, six for the others.
fn huffman_digits(bytes: &[u8]) -> Result<String> {
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
        .collect();
    let (mut text, mut at) = (String::new(), 0);
    // What is left at the end is padding of ones.
    while bits.len() - at >= 5 && !bits[at..].iter().all(|bit| *bit == 1) {
        let five = bits[at..at + 5].iter().fold(0, |value, bit| value << 1 | bit);
        if five <= 2 {
            text.push(char::from(b'0' + five));
            at += 5;
            continue;
        }
        ensure!(bits.len() - at >= 6, "a code that ends early");
        let six = five << 1 | bits[at + 5];
        ensure!(
            (0b011_001..=0b011_111).contains(&six),
            "a code that is no digit's"
        );
        text.push(char::from(b'3' + six - 0b011_001));
        at += 6;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541 appendices A, B and C.6.1.
    #[test]
    fn statuses_are_read_in_every_form() {
        assert_eq!(status(&[0x88]).unwrap(), 200);
        assert_eq!(status(&[0x20, 0x8d]).unwrap(), 404);
        assert_eq!(status(&[0x3f, 0xe1, 0x1f, 0x8b]).unwrap(), 304);
        assert_eq!(status(&[0x48, 0x03, b'4', b'3', b'1']).unwrap(), 431);
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]).unwrap(), 302);
        assert!(status(&[0x41, 0x00]).is_err());
    }

    #[test]
    fn long_literals_have_long_lengths() {
        let value = "v".repeat(127 + 128);
        let bytes = block(&[("a", &value)]);
        assert_eq!(bytes[..5], [0, 1, b'a', 127, 0x80]);
        assert_eq!(bytes.len(), 6 + value.len());
    }
}
