//! A body of any framing, as it arrives.

use http::HeaderMap;
use tidegate_plan::limits::{Limit, Limits};
use tidegate_rt::Chunk;

use super::chunked::{ChunkedDecoder, Step, TrailerLines};
use super::error::BodyError;

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// After this many bytes, at least one.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection. Responses only.
    UntilClose,
}

impl Framing {
    /// A body of this many bytes.
    pub fn length(bytes: u64) -> Self {
        if bytes == 0 {
            Framing::Empty
        } else {
            Framing::Length(bytes)
        }
    }
}

/// Reads one body out of what a connection receives.
#[derive(Debug, Clone)]
pub struct Decoder {
    kind: Kind,
    received: u64,
}

#[derive(Debug, Clone)]
enum Kind {
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
    Done,
    /// Done, and trailers have come that are wanted.
    Trailed(Box<TrailerLines>),
}

/// What a look at the input gave.
#[derive(Debug)]
pub enum Decoded {
    /// A piece of the body, which shares the input's memory.
    Data(Chunk),
    /// The input is used up; the body goes on.
    More,
    /// The body has ended; what is left of the input belongs to the next message.
    End,
}

impl Decoder {
    /// Begins a body. The bounds of extensions and trailers come from the table of limits.
    pub fn new(framing: Framing, limits: &Limits) -> Self {
        let kind = match framing {
            Framing::Empty | Framing::Length(0) => Kind::Done,
            Framing::Length(length) => Kind::Length(length),
            Framing::Chunked => {
                let (extensions, trailers) = (Limit::ChunkExtensionBytes, Limit::TrailerBytes);
                Kind::Chunked(ChunkedDecoder::new(
                    limits.count(extensions),
                    limits.count(trailers),
                ))
            }
            Framing::UntilClose => Kind::UntilClose,
        };
        Decoder { kind, received: 0 }
    }

    /// Takes the next piece of the body off the front of `input`. Call until it says `More` or `End`.
    pub fn decode(&mut self, input: &mut Chunk) -> Result<Decoded, BodyError> {
        let data = match &mut self.kind {
            Kind::Done | Kind::Trailed(_) => return Ok(Decoded::End),
            _ if input.is_empty() => return Ok(Decoded::More),
            Kind::UntilClose => std::mem::take(input),
            Kind::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= here as u64;
                if *left == 0 {
                    self.kind = Kind::Done;
                }
                input.split_to(here)
            }
            Kind::Chunked(decoder) => match decoder.step(input)? {
                Step::Data(range) => {
                    input.advance(range.start);
                    input.split_to(range.len())
                }
                Step::More => {
                    input.advance(input.len());
                    return Ok(Decoded::More);
                }
                Step::End(used) => {
                    input.advance(used);
                    self.kind = decoder.take_trailers().map_or(Kind::Done, Kind::Trailed);
                    return Ok(Decoded::End);
                }
            },
        };
        self.received += data.len() as u64;
        Ok(Decoded::Data(data))
    }

    /// Has trailers kept, which are dropped otherwise. To be called before the body's end has come.
    pub fn keep_trailers(&mut self) {
        if let Kind::Chunked(decoder) = &mut self.kind {
            decoder.keep_trailers();
        }
    }

    /// The trailers of a body that has ended, where there are any and they were to be kept.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        let Kind::Trailed(lines) = &self.kind else {
            return None;
        };
        let fields = lines.fields();
        self.kind = Kind::Done;
        Some(fields)
    }

    /// Says that the connection has ended, which ends a body without a framing of its own and cuts any other
    /// short.
    pub fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self.kind {
            Kind::UntilClose => {
                self.kind = Kind::Done;
                Ok(())
            }
            Kind::Done | Kind::Trailed(_) => Ok(()),
            Kind::Length(_) | Kind::Chunked(_) => Err(BodyError::Truncated),
        }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.kind, Kind::Done | Kind::Trailed(_))
    }

    /// Body bytes so far, without the framing.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How much is still to come, where the framing says so.
    pub fn remaining(&self) -> Option<u64> {
        match self.kind {
            Kind::Length(left) => Some(left),
            Kind::Done | Kind::Trailed(_) => Some(0),
            Kind::Chunked(_) | Kind::UntilClose => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body and what is left over of pieces fed one after another.
    fn decode(framing: Framing, wire: &[u8], cut: usize) -> (Vec<u8>, Vec<u8>, Decoder) {
        let mut decoder = Decoder::new(framing, &Limits::default());
        let (mut body, mut rest) = (Vec::new(), Vec::new());
        for piece in wire.chunks(cut) {
            let mut input = Chunk::copy_from_slice(piece);
            while let Decoded::Data(data) = decoder.decode(&mut input).unwrap() {
                body.extend_from_slice(&data);
            }
            rest.extend_from_slice(&input);
        }
        (body, rest, decoder)
    }

    #[test]
    fn every_framing_ends_where_it_should_however_it_is_cut() {
        for cut in 1..12 {
            let (body, rest, decoder) = decode(Framing::Length(5), b"helloGET /", cut);
            assert_eq!(
                (&body[..], &rest[..], decoder.is_done()),
                (&b"hello"[..], &b"GET /"[..], true)
            );
            let (body, rest, decoder) = decode(Framing::Chunked, b"5\r\nhello\r\n0\r\n\r\nGET /", cut);
            assert_eq!(
                (&body[..], &rest[..], decoder.is_done()),
                (&b"hello"[..], &b"GET /"[..], true)
            );
            assert_eq!(decoder.received(), 5);
            let (body, rest, mut decoder) = decode(Framing::UntilClose, b"hello", cut);
            assert_eq!(
                (&body[..], rest.len(), decoder.is_done()),
                (&b"hello"[..], 0, false)
            );
            assert_eq!(decoder.end_of_input(), Ok(()));
            let (body, rest, decoder) = decode(Framing::Empty, b"GET /", cut);
            assert_eq!(
                (body.len(), &rest[..], decoder.remaining()),
                (0, &b"GET /"[..], Some(0))
            );
        }
    }

    /// RFC 9112 section 7.1.2: trailers are there for who wants them, however they are cut.
    #[test]
    fn trailers_are_kept_for_who_asks() {
        let wire = b"5\r\nhello\r\n0\r\nX-Sum: 1:2 \r\nx-b:\r\nX-Sum:3\r\n\r\nGET /";
        for cut in 1..wire.len() {
            for keep in [true, false] {
                let mut decoder = Decoder::new(Framing::Chunked, &Limits::default());
                if keep {
                    decoder.keep_trailers();
                }
                let mut rest = Vec::new();
                for piece in wire.chunks(cut) {
                    let mut input = Chunk::copy_from_slice(piece);
                    while let Decoded::Data(_) = decoder.decode(&mut input).unwrap() {}
                    rest.extend_from_slice(&input);
                }
                assert!(decoder.is_done() && rest == b"GET /", "cut into {cut}");
                let trailers = decoder.take_trailers();
                match trailers {
                    None => assert!(!keep),
                    Some(trailers) => {
                        let all: Vec<_> = trailers
                            .get_all("x-sum")
                            .iter()
                            .map(|value| value.as_bytes())
                            .collect();
                        assert_eq!(
                            (all, trailers.get("x-b").unwrap().is_empty()),
                            (vec![&b"1:2"[..], b"3"], true)
                        );
                        assert!(keep);
                    }
                }
                assert!(decoder.take_trailers().is_none() && decoder.is_done());
            }
        }
    }

    #[test]
    fn a_body_cut_short_is_an_error() {
        for (framing, wire) in [
            (Framing::Length(6), &b"hello"[..]),
            (Framing::Chunked, b"5\r\nhello\r\n"),
        ] {
            let (_, _, mut decoder) = decode(framing, wire, 3);
            assert_eq!(decoder.end_of_input(), Err(BodyError::Truncated));
        }
    }
}
