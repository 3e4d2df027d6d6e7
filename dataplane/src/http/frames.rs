//! HTTP/2 frames as they pass: their heads are read to be counted, their payloads are skipped (RFC 9113 section 4).

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head (RFC 9113 section 4.1).
const HEAD: usize = 9;

/// The kind of a frame (RFC 9113 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFC")]
pub enum FrameKind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// An extension, which has no effect here.
    Other,
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Its kind.
    pub kind: FrameKind,
    /// Bytes of payload.
    pub length: u32,
    /// Bytes of payload without the padding of DATA.
    pub carried: u32,
    flags: u8,
}

impl FrameHead {
    fn read(bytes: [u8; HEAD + 1]) -> Self {
        let [a, b, c, kind, flags, .., padding] = bytes;
        let kind = match kind {
            0 => FrameKind::Data,
            1 => FrameKind::Headers,
            2 => FrameKind::Priority,
            3 => FrameKind::RstStream,
            4 => FrameKind::Settings,
            5 => FrameKind::PushPromise,
            6 => FrameKind::Ping,
            7 => FrameKind::GoAway,
            8 => FrameKind::WindowUpdate,
            9 => FrameKind::Continuation,
            _ => FrameKind::Other,
        };
        let length = u32::from_be_bytes([0, a, b, c]);
        let carried = if is_padded_data(&bytes) {
            length.saturating_sub(1 + u32::from(padding))
        } else {
            length
        };
        FrameHead {
            kind,
            length,
            carried,
            flags,
        }
    }

    /// Whether its length is one that its kind can have (RFC 9113 sections 6.3 to 6.9).
    pub fn has_valid_length(&self) -> bool {
        match self.kind {
            FrameKind::Priority => self.length == 5,
            FrameKind::RstStream | FrameKind::WindowUpdate => self.length == 4,
            FrameKind::Settings if self.flags & 0x1 != 0 => self.length == 0,
            FrameKind::Settings => self.length.is_multiple_of(6),
            FrameKind::Ping => self.length == 8,
            FrameKind::GoAway => self.length >= 8,
            _ => true,
        }
    }

    /// It answers a SETTINGS or PING frame.
    pub fn is_ack(&self) -> bool {
        matches!(self.kind, FrameKind::Settings | FrameKind::Ping) && self.flags & 0x1 != 0
    }

    /// The last frame of its stream: END_STREAM of DATA and HEADERS.
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, FrameKind::Data | FrameKind::Headers) && self.flags & 0x1 != 0
    }

    /// The last frame of its field block: END_HEADERS of HEADERS and CONTINUATION.
    pub fn ends_block(&self) -> bool {
        matches!(self.kind, FrameKind::Headers | FrameKind::Continuation) && self.flags & 0x4 != 0
    }
}

/// Whether the payload begins with the length of its padding, and is DATA's, where it matters.
fn is_padded_data(head: &[u8; HEAD + 1]) -> bool {
    head[3] == 0 && head[4] & 0x8 != 0 && head[..3] != [0; 3]
}

/// Follows a client's bytes from frame to frame, however they are cut.
#[derive(Debug, Clone)]
pub struct Frames {
    /// Bytes to come of the preface, or of a payload.
    skip: usize,
    /// With the first byte of a payload that is padded.
    head: [u8; HEAD + 1],
    /// Bytes of `head` that have come.
    have: usize,
    /// The frame whose payload is being skipped.
    current: Option<FrameKind>,
}

impl Default for Frames {
    fn default() -> Self {
        Frames {
            skip: PREFACE.len(),
            head: [0; HEAD + 1],
            have: 0,
            current: None,
        }
    }
}

impl Frames {
    /// Before the preface.
    pub fn new() -> Self {
        Frames::default()
    }

    /// Of a server, which has no preface but its first frame.
    pub fn of_server() -> Self {
        Frames {
            skip: 0,
            ..Frames::default()
        }
    }

    /// Goes through `bytes`, and shows every head that becomes complete. Ends early where that is an error.
    ///
    /// # Errors
    /// What `seen` answers, and how many of `bytes` come before that head.
    pub fn advance<E>(
        &mut self,
        bytes: &[u8],
        mut seen: impl FnMut(FrameHead) -> Result<(), E>,
    ) -> Result<(), (E, usize)> {
        let (mut at, mut begun) = (0, 0);
        while at < bytes.len() {
            let skipped = self.skip.min(bytes.len() - at);
            self.skip -= skipped;
            at += skipped;
            if self.skip > 0 {
                return Ok(());
            }
            self.current = None;
            if self.have == 0 {
                begun = at;
            }
            let wanted = if self.have < HEAD { HEAD } else { HEAD + 1 };
            let taken = (wanted - self.have).min(bytes.len() - at);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[at..at + taken]);
            self.have += taken;
            at += taken;
            if self.have > HEAD || (self.have == HEAD && !is_padded_data(&self.head)) {
                let head = FrameHead::read(self.head);
                self.skip = head.length as usize - (self.have - HEAD);
                self.have = 0;
                self.current = (self.skip > 0).then_some(head.kind);
                seen(head).map_err(|error| (error, begun))?;
            }
        }
        Ok(())
    }

    /// Whether a frame has begun and not ended. Of DATA that is nothing unusual: streams have a time-out of their own.
    pub fn is_within_frame(&self) -> bool {
        self.have > 0 || self.current.is_some_and(|kind| kind != FrameKind::Data)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(payload);
        bytes
    }

    /// RFC 9113 section 4.1: the same heads are seen however the bytes are cut.
    #[test]
    fn heads_are_seen_once_however_the_bytes_are_cut() {
        let mut wire = PREFACE.to_vec();
        wire.extend(frame(4, 0, b""));
        wire.extend(frame(1, 0x5, &[7; 300]));
        wire.extend(frame(0, 0x1, &[0; 70_000]));
        wire.extend(frame(9, 0x4, b"x"));
        wire.extend(frame(0x42, 0xff, b"xyz"));
        wire.extend(frame(0, 0x8, b"\x02abpp"));
        wire.extend(frame(0, 0x8, b"\x02pp"));
        wire.extend(frame(0, 0x8, b""));
        wire.extend(frame(0, 0x8, b"\xff"));
        for cut in [1, 2, 9, 24, 1000, wire.len()] {
            let mut frames = Frames::new();
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                let Ok(()) = frames.advance(piece, |head| {
                    seen.push((head.kind, head.carried, head.ends_stream(), head.ends_block()));
                    Ok::<_, Infallible>(())
                });
            }
            assert_eq!(
                seen,
                [
                    (FrameKind::Settings, 0, false, false),
                    (FrameKind::Headers, 300, true, true),
                    (FrameKind::Data, 70_000, true, false),
                    (FrameKind::Continuation, 1, false, true),
                    (FrameKind::Other, 3, false, false),
                    (FrameKind::Data, 2, false, false),
                    (FrameKind::Data, 0, false, false),
                    (FrameKind::Data, 0, false, false),
                    (FrameKind::Data, 0, false, false),
                ],
                "cut into {cut}"
            );
            assert!(!frames.is_within_frame());
        }
    }

    #[test]
    fn a_frame_that_is_not_whole_shows() {
        let mut frames = Frames::new();
        let mut feed = |bytes: &[u8]| {
            let Ok(()) = frames.advance(bytes, |_| Ok::<_, Infallible>(()));
            frames.is_within_frame()
        };
        assert!(!feed(PREFACE));
        assert!(feed(&frame(1, 0, b"abc")[..5]));
        assert!(feed(&frame(1, 0, b"abc")[5..11]));
        assert!(!feed(b"c"));
        assert!(!feed(&frame(0, 0, b"abc")[..10]));
    }

    #[test]
    fn a_refused_frame_ends_it() {
        let mut wire = PREFACE.to_vec();
        wire.extend(frame(6, 0, &[0; 8]));
        wire.extend(frame(4, 0, &[0; 6]));
        wire.extend(frame(6, 0, &[0; 8]));
        let before = PREFACE.len() + 9 + 8;
        let refuse = |head: FrameHead| match head.kind {
            FrameKind::Settings => Err(()),
            _ => Ok(()),
        };
        assert_eq!(Frames::new().advance(&wire, refuse), Err(((), before)));
        let mut frames = Frames::new();
        assert_eq!(frames.advance(&wire[..before + 4], refuse), Ok(()));
        assert_eq!(frames.advance(&wire[before + 4..], refuse), Err(((), 0)));
    }
}
