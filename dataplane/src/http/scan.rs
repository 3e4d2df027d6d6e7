//! Where a head ends, found as its bytes arrive.

use tidegate_plan::limits::{Limit, Limits};

use super::error::RequestError;

/// The bounds of a head, from the table of limits.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// The first line, without its end.
    pub line: usize,
    /// The whole head.
    pub head: usize,
    /// The sum of the values of the header fields.
    pub values: usize,
    /// The number of header fields; at most [`FIELDS_MAX`].
    pub fields: usize,
}

/// More fields than any setting allows.
pub const FIELDS_MAX: usize = 1024;

/// Fields for which a table is small enough to be made for each head.
pub(super) const SMALL_TABLE: usize = 128;

impl HeadLimits {
    /// The bounds of requests.
    pub fn for_requests(limits: &Limits) -> Self {
        HeadLimits {
            line: limits.count(Limit::RequestLineBytes),
            head: limits.count(Limit::RequestHeadBytes),
            values: limits.count(Limit::HeaderBytes),
            fields: limits.count(Limit::HeaderFields).min(FIELDS_MAX),
        }
    }

    /// The bounds of backends' responses.
    pub fn for_responses(limits: &Limits) -> Self {
        let head = limits.count(Limit::ResponseHeadBytes);
        let fields = limits.count(Limit::ResponseHeaderFields).min(FIELDS_MAX);
        HeadLimits {
            line: head,
            head,
            values: head,
            fields,
        }
    }
}

/// Looks for the end of a head in bytes that grow, each byte once, so that a head sent byte by byte costs no more
/// than one sent at once. Refuses what is over a bound before the rest of it arrives.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    seen: usize,
    line_start: usize,
    lines: usize,
    bare_lf: bool,
}

/// What the scanner refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanError {
    /// The first line is over its bound.
    Line,
    /// The whole head, or the number of its fields, is over its bound.
    Head,
    /// A line ends in LF alone.
    BareLf,
}

impl From<ScanError> for RequestError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Line => RequestError::LineTooLong,
            ScanError::Head => RequestError::HeadTooLarge,
            ScanError::BareLf => RequestError::BareLf,
        }
    }
}

impl Scanner {
    /// Begins with an empty head.
    pub fn new() -> Self {
        Scanner::default()
    }

    /// Whether any byte of a head other than blank lines before it has arrived.
    pub fn has_begun(&self) -> bool {
        self.seen > self.line_start || self.lines > 0
    }

    /// Whether a line so far has ended in LF alone.
    pub fn saw_bare_lf(&self) -> bool {
        self.bare_lf
    }

    /// Takes in the end of a line at `at`; the head's length if it is the last.
    #[inline]
    fn end_line(
        &mut self,
        bytes: &[u8],
        at: usize,
        limits: &HeadLimits,
        strict: bool,
    ) -> Result<Option<usize>, ScanError> {
        let has_cr = at > self.line_start && bytes[at - 1] == b'\r';
        if strict && !has_cr {
            return Err(ScanError::BareLf);
        }
        self.bare_lf |= !has_cr;
        let len = at - usize::from(has_cr) - self.line_start;
        self.seen = at + 1;
        self.line_start = at + 1;
        if len == 0 && self.lines > 0 {
            return if at < limits.head {
                Ok(Some(at + 1))
            } else {
                Err(ScanError::Head)
            };
        }
        // A blank line before the first is skipped (RFC 9112 section 2.2), but counts towards the whole.
        self.lines += usize::from(len > 0);
        if self.lines == 1 && len > limits.line {
            return Err(ScanError::Line);
        }
        if self.lines > limits.fields + 1 || at >= limits.head {
            return Err(ScanError::Head);
        }
        Ok(None)
    }

    /// Given all bytes so far, the length of the head if it is complete, its blank line included. Call with the
    /// same bytes and more until it is. `strict` refuses LF without CR; a backend's response may have it.
    pub fn advance(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
        strict: bool,
    ) -> Result<Option<usize>, ScanError> {
        // Eight bytes at a time: lines are too short for a search that makes ready for long ones.
        let (words, rest) = bytes[self.seen..].as_chunks();
        let mut base = self.seen;
        for word in words {
            let mut found = line_feeds(*word);
            while found != 0 {
                let at = base + found.trailing_zeros() as usize / 8;
                found &= found - 1;
                if let Some(length) = self.end_line(bytes, at, limits, strict)? {
                    return Ok(Some(length));
                }
            }
            base += word.len();
        }
        for (at, byte) in rest.iter().enumerate() {
            if *byte == b'\n'
                && let Some(length) = self.end_line(bytes, base + at, limits, strict)?
            {
                return Ok(Some(length));
            }
        }
        self.seen = bytes.len();
        if self.lines == 0 && bytes.len() - self.line_start > limits.line + 1 {
            return Err(ScanError::Line);
        }
        if bytes.len() >= limits.head {
            return Err(ScanError::Head);
        }
        Ok(None)
    }
}

/// The high bit of each byte that is LF.
#[inline]
fn line_feeds(word: [u8; 8]) -> u64 {
    const LF: u64 = u64::from_le_bytes([b'\n'; 8]);
    const LOW: u64 = u64::from_le_bytes([0x7f; 8]);
    let word = u64::from_le_bytes(word) ^ LF;
    !(((word & LOW) + LOW) | word | LOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        line: 20,
        head: 100,
        values: 50,
        fields: 3,
    };

    fn whole(bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        Scanner::new().advance(bytes, &LIMITS, true)
    }

    #[test]
    fn the_end_is_the_same_wherever_the_bytes_are_split() {
        let head = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        let end = head.len() - 4;
        assert_eq!(whole(head), Ok(Some(end)));
        let mut scanner = Scanner::new();
        for at in 0..end {
            assert_eq!(scanner.advance(&head[..at], &LIMITS, true), Ok(None), "{at}");
        }
        assert_eq!(scanner.advance(&head[..end], &LIMITS, true), Ok(Some(end)));
    }

    /// QUO-050, QUO-068
    #[test]
    fn what_is_over_a_bound_is_refused_before_it_is_complete() {
        assert_eq!(whole(&[b'a'; 21]), Ok(None));
        assert_eq!(whole(&[b'a'; 22]), Err(ScanError::Line));
        assert_eq!(whole(b"aaaaaaaaaaaaaaaaaaaaa\r\n"), Err(ScanError::Line));
        assert_eq!(whole(b"a\r\nb\r\nc\r\nd\r\ne\r\n"), Err(ScanError::Head));
        assert_eq!(
            whole(format!("a\r\nb: {}", "x".repeat(100)).as_bytes()),
            Err(ScanError::Head)
        );
        assert_eq!(whole("\r\n".repeat(60).as_bytes()), Err(ScanError::Head));
    }

    #[test]
    fn a_bare_lf_is_for_backends_only() {
        assert_eq!(whole(b"a\nb\n\n"), Err(ScanError::BareLf));
        assert_eq!(
            Scanner::new().advance(b"a\nb\n\nrest", &LIMITS, false),
            Ok(Some(5))
        );
    }
}
