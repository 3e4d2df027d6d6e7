//! A place in a template's source.

use crate::error::ParseError;

/// Reads a part of a source, whose offset in the whole is `base`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'s> {
    pub(super) text: &'s str,
    pub(super) at: usize,
    base: usize,
}

/// A failure at a byte of the whole source.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) at: usize,
    pub(super) message: String,
}

impl<'s> Cursor<'s> {
    pub(super) fn new(text: &'s str, base: usize) -> Self {
        Cursor { text, at: 0, base }
    }

    /// Where the cursor is in the whole source.
    pub(super) fn place(&self) -> usize {
        self.base + self.at
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Result<T, Failure> {
        Err(Failure {
            at: self.place(),
            message: message.into(),
        })
    }

    pub(super) fn rest(&self) -> &'s str {
        &self.text[self.at..]
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    pub(super) fn eat(&mut self, sign: &str) -> bool {
        let is_next = self.rest().starts_with(sign);
        self.at += if is_next { sign.len() } else { 0 };
        is_next
    }

    /// Blanks and line ends.
    pub(super) fn skip_white(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    /// Blanks on the line.
    pub(super) fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Blanks and the line's end, if nothing else follows on the line (VTL-220, VTL-221).
    pub(super) fn eat_line_end(&mut self) {
        let mut ahead = *self;
        ahead.skip_blanks();
        if ahead.eat("\r\n") || ahead.eat("\n") || ahead.eat("\r") {
            *self = ahead;
        }
    }

    /// A name: letters, digits, `_` and, in names of variables, `-`.
    pub(super) fn name(&mut self, with_hyphens: bool) -> Option<&'s str> {
        let rest = self.rest();
        let mut bytes = rest.bytes();
        if !bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') {
            return None;
        }
        let is_inside = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' && with_hyphens;
        let end = 1 + bytes.take_while(|b| is_inside(*b)).count();
        self.at += end;
        Some(&rest[..end])
    }
}

impl Failure {
    /// The failure with its line and column.
    pub(super) fn locate(self, source: &str) -> ParseError {
        let (line, column) = locate(source, self.at);
        ParseError {
            line,
            column,
            message: self.message,
        }
    }
}

/// The line and column of a byte.
pub(crate) fn locate(source: &str, at: usize) -> (u32, u32) {
    let before = source.get(..at).unwrap_or(source);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = 1 + memchr::memchr_iter(b'\n', before.as_bytes()).count();
    (line as u32, 1 + before[start..].chars().count() as u32)
}
