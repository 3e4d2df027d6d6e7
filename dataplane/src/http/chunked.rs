//! The chunked transfer coding (RFC 9112 section 7.1), both ways.
//!
//! The decoder is a state machine over slices: it says where the next piece of the body stands and copies nothing.
//! It is strict: sizes are hexadecimal digits and nothing else, every line ends in CRLF, extensions and trailers
//! are bounded, and dropped unless somebody asks for trailers.

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_plan::header::is_token_byte;

use super::error::BodyError;

/// Reads a chunked body.
#[derive(Debug, Clone)]
pub struct ChunkedDecoder {
    state: State,
    extensions_left: u32,
    trailers_left: u32,
    /// The lines of the trailer section so far, where they are asked for.
    kept: Option<Box<TrailerLines>>,
}

/// The lines of a trailer section, each with its end. Boxed where it is kept: few bodies have one.
#[derive(Debug, Clone, Default)]
pub struct TrailerLines(Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a chunk's size, of which this many digits have come.
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
    },
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a trailer line, which may be the blank one.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    FinalLf,
    Done,
}

impl State {
    /// Within the lines of the trailer section, the blank one at its end aside.
    fn is_in_trailer(self) -> bool {
        matches!(
            self,
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf
        )
    }
}

/// What one step over some input found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A piece of the body; the input up to the range's end is used up.
    Data(Range<usize>),
    /// The whole input is used up and held no body bytes.
    More,
    /// The body has ended; this much of the input is used up.
    End(usize),
}

impl ChunkedDecoder {
    /// Begins a body, with bounds for the extensions and the trailer section.
    pub fn new(extension_bytes: usize, trailer_bytes: usize) -> Self {
        let state = State::Size { value: 0, digits: 0 };
        let narrow = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        ChunkedDecoder {
            state,
            extensions_left: narrow(extension_bytes),
            trailers_left: narrow(trailer_bytes),
            kept: None,
        }
    }

    /// Has the trailer section kept. To be called before its first byte has come.
    pub fn keep_trailers(&mut self) {
        self.kept = Some(Box::default());
    }

    /// The lines of the trailer section, each with its end, where they were to be kept and there were any.
    pub fn take_trailers(&mut self) -> Option<Box<TrailerLines>> {
        self.kept.take().filter(|lines| !lines.0.is_empty())
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Looks at more input, up to and including the next piece of the body.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let mut at = 0;
        loop {
            if self.state == State::Done {
                return Ok(Step::End(at));
            }
            if let State::Data { left } = self.state {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                if here == 0 {
                    return Ok(Step::More);
                }
                self.state = match left - here as u64 {
                    0 => State::DataCr,
                    left => State::Data { left },
                };
                return Ok(Step::Data(at..at + here));
            }
            let Some(&b) = input.get(at) else {
                return Ok(Step::More);
            };
            at += 1;
            let before = self.state;
            self.state = self.next(b)?;
            if let Some(kept) = &mut self.kept
                && before.is_in_trailer()
                && self.state != State::FinalLf
            {
                kept.0.push(b);
            }
        }
    }

    fn next(&mut self, b: u8) -> Result<State, BodyError> {
        Ok(match (self.state, b) {
            (State::Size { value, digits }, _) if b.is_ascii_hexdigit() => {
                // Fifteen digits are below 2^60; leading zeros do not make a size longer than that.
                let digit = char::from(b).to_digit(16).unwrap_or(0);
                if digits == 15 {
                    return Err(BodyError::ChunkSize);
                }
                State::Size {
                    value: value << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (State::Size { digits: 0, .. }, _) => return Err(BodyError::ChunkSize),
            (State::Size { value, .. }, b';') => State::Extension { value },
            (State::Size { value, .. } | State::Extension { value }, b'\r') => State::SizeLf { value },
            (State::Size { .. }, _) => return Err(BodyError::ChunkSize),
            (State::Extension { value }, _) => {
                refuse_control(b, BodyError::Chunk)?;
                spend(&mut self.extensions_left, BodyError::ExtensionsTooLong)?;
                State::Extension { value }
            }
            (State::SizeLf { value: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { value }, b'\n') => State::Data { left: value },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::FinalLf,
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(b) => {
                spend(&mut self.trailers_left, BodyError::TrailerTooLong)?;
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) => {
                refuse_control(b, BodyError::Trailer)?;
                spend(&mut self.trailers_left, BodyError::TrailerTooLong)?;
                State::TrailerValue
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::FinalLf, b'\n') => State::Done,
            (State::TrailerStart | State::TrailerName | State::TrailerLf | State::FinalLf, _) => {
                return Err(BodyError::Trailer);
            }
            (State::SizeLf { .. } | State::DataCr | State::DataLf, _) => return Err(BodyError::Chunk),
            // The loop above has dealt with both.
            (State::Data { .. } | State::Done, _) => self.state,
        })
    }
}

fn refuse_control(b: u8, error: BodyError) -> Result<(), BodyError> {
    if (b < 0x20 && b != b'\t') || b == 0x7f {
        Err(error)
    } else {
        Ok(())
    }
}

fn spend(left: &mut u32, error: BodyError) -> Result<(), BodyError> {
    *left = left.checked_sub(1).ok_or(error)?;
    Ok(())
}

/// What goes after a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The end of a body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The line that goes before a chunk's data.
#[derive(Debug, Clone, Copy)]
pub struct ChunkPrefix {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkPrefix {
    /// The line for a chunk of `len` bytes. A length of 0 would end the body: use [`LAST_CHUNK`].
    pub fn new(len: usize) -> Self {
        debug_assert!(len > 0);
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut bytes = [0; 18];
        bytes[16..].copy_from_slice(b"\r\n");
        let (mut start, mut left) = (16, len);
        while left > 0 {
            start -= 1;
            bytes[start] = DIGITS[left & 15];
            left >>= 4;
        }
        ChunkPrefix {
            bytes,
            start: start as u8,
        }
    }
}

impl AsRef<[u8]> for ChunkPrefix {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

/// Writes the end of a body with trailers.
pub fn last_chunk(trailers: &HeaderMap) -> Vec<u8> {
    let mut out = b"0\r\n".to_vec();
    for (name, value) in trailers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

impl TrailerLines {
    /// The fields, which the decoder has checked.
    pub(super) fn fields(&self) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for line in self.0.split(|b| *b == b'\n') {
            let Some(colon) = memchr::memchr(b':', line) else {
                continue;
            };
            let value = line[colon + 1..].trim_ascii();
            if let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(&line[..colon]),
                HeaderValue::from_bytes(value),
            ) {
                fields.append(name, value);
            }
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body and what is left over, having fed the pieces one after another.
    fn decode<'i>(pieces: impl IntoIterator<Item = &'i [u8]>) -> Result<(Vec<u8>, usize, bool), BodyError> {
        let mut decoder = ChunkedDecoder::new(16, 32);
        let (mut body, mut rest) = (Vec::new(), 0);
        for piece in pieces {
            let mut at = 0;
            while !decoder.is_done() {
                match decoder.step(&piece[at..])? {
                    Step::Data(range) => {
                        body.extend_from_slice(&piece[at + range.start..at + range.end]);
                        at += range.end;
                    }
                    Step::More => {
                        at = piece.len();
                        break;
                    }
                    Step::End(used) => at += used,
                }
            }
            rest += piece.len() - at;
        }
        Ok((body, rest, decoder.is_done()))
    }

    #[test]
    fn chunks_extensions_and_trailers_are_read() {
        let whole = b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-T: v\r\nY:\r\n\r\nGET /";
        assert_eq!(decode([&whole[..]]), Ok((b"hello world".to_vec(), 5, true)));
        assert_eq!(decode([&b"0\r\n\r\n"[..]]), Ok((vec![], 0, true)));
        assert_eq!(
            decode([&b"000a\r\n0123456789\r\n00\r\n\r\n"[..]]).unwrap().0,
            b"0123456789"
        );
    }

    #[test]
    fn every_split_gives_the_same() {
        let whole = b"5;x\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-T: v\r\n\r\n";
        let expected = decode([&whole[..]]).unwrap();
        for at in 0..=whole.len() {
            assert_eq!(decode([&whole[..at], &whole[at..]]).unwrap(), expected, "{at}");
        }
        assert_eq!(decode(whole.chunks(1)).unwrap(), expected);
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        for (input, error) in [
            ("\r\n", BodyError::ChunkSize),
            ("+5\r\nhello", BodyError::ChunkSize),
            ("-5\r\n", BodyError::ChunkSize),
            (" 5\r\nhello", BodyError::ChunkSize),
            ("5 \r\nhello", BodyError::ChunkSize),
            ("5\t;a\r\nhello", BodyError::ChunkSize),
            ("0x5\r\nhello", BodyError::ChunkSize),
            ("5_0\r\n", BodyError::ChunkSize),
            ("g\r\n", BodyError::ChunkSize),
            ("5\nhello", BodyError::ChunkSize),
            (";a\r\n", BodyError::ChunkSize),
            ("FFFFFFFFFFFFFFFF\r\n", BodyError::ChunkSize),
            ("10000000000000000\r\n", BodyError::ChunkSize),
            ("0000000000000005\r\nhello", BodyError::ChunkSize),
            ("5\rhello", BodyError::Chunk),
            ("5;a\nhello", BodyError::Chunk),
            ("5;a\0\r\nhello", BodyError::Chunk),
            ("5\r\nhello0\r\n\r\n", BodyError::Chunk),
            ("5\r\nhello\n0\r\n\r\n", BodyError::Chunk),
            ("5\r\nhello\rX", BodyError::Chunk),
            ("5;aaaaaaaaaaaaaaaaa\r\n", BodyError::ExtensionsTooLong),
            ("0\r\n\n", BodyError::Trailer),
            ("0\r\nGET / HTTP/1.1\r\n\r\n", BodyError::Trailer),
            ("0\r\n: v\r\n\r\n", BodyError::Trailer),
            ("0\r\nA: b\n\r\n", BodyError::Trailer),
            ("0\r\n fold\r\n\r\n", BodyError::Trailer),
            (
                "0\r\nA: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
                BodyError::TrailerTooLong,
            ),
        ] {
            assert_eq!(decode([input.as_bytes()]), Err(error), "{input:?}");
        }
    }

    #[test]
    fn a_prefix_is_the_length_in_hexadecimal() {
        for (len, line) in [
            (1, "1\r\n"),
            (10, "a\r\n"),
            (4096, "1000\r\n"),
            (usize::MAX, "ffffffffffffffff\r\n"),
        ] {
            assert_eq!(ChunkPrefix::new(len).as_ref(), line.as_bytes());
        }
    }

    proptest! {
        /// What is encoded decodes to itself, however it is cut up.
        #[test]
        fn encoding_round_trips(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cut in 1usize..20,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(ChunkPrefix::new(chunk.len()).as_ref());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(CHUNK_END);
            }
            wire.extend_from_slice(LAST_CHUNK);
            prop_assert_eq!(decode(wire.chunks(cut)), Ok((chunks.concat(), 0, true)));
        }

        /// Any input is an answer, the same for every way of cutting it up, and never more than went in.
        #[test]
        fn any_input_has_one_answer(
            input in prop::collection::vec(prop::sample::select(b"0123afF;=\r\n\r\n\r\n: xG".to_vec()), 0..80),
            cut in 1usize..10,
        ) {
            let whole = decode([&input[..]]);
            prop_assert_eq!(&decode(input.chunks(cut)), &whole);
            if let Ok((body, rest, _)) = whole {
                prop_assert!(body.len() + rest <= input.len());
            }
        }
    }
}
