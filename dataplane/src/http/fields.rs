//! Header fields: spans over the received head, and the edits made to them.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};

use smallvec::SmallVec;
use tidegate_rt::{Buffer, Chunk};

use super::known::{self, Known};

/// The header fields of a message. The received ones stay in the buffer they arrived in; removing or adding
/// leaves it as it is.
#[derive(Debug, Clone)]
pub struct Fields {
    bytes: Chunk,
    /// Where the last field's line ends.
    end: u32,
    /// Every line ends in CRLF, so that lines may be passed on as they came.
    lines_are_strict: bool,
    /// A bit for each known name of which a field was received, or added later: most questions are for what is not there.
    present: u64,
    parts: Pooled,
}

const _: () = assert!(known::COUNT <= 64);

/// What is known of the fields. Large, hence never moved: a head passes through several hands.
#[derive(Debug, Clone)]
struct Parts {
    table: SmallVec<[Field; 20]>,
    /// The place of the first field of each known name, plus one, and whether it is [`REPEATED`].
    first: [u16; known::COUNT],
    added: SmallVec<[Added; 4]>,
}

/// In the place of a known name's first field: it is not the only one. Places are far below.
const REPEATED: u16 = 1 << 15;

/// Parts in memory that the thread uses again for the next head.
#[derive(Debug)]
struct Pooled(Option<Box<Parts>>);

thread_local! {
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    static UNUSED: RefCell<Vec<Box<Parts>>> = const { RefCell::new(Vec::new()) };
}

/// Memory that a thread keeps for heads, of about 1 KiB each: two for each request that is being answered at a time.
const KEPT: usize = 256;

impl Pooled {
    fn new() -> Self {
        let unused = UNUSED.try_with(|unused| unused.borrow_mut().pop()).ok().flatten();
        Pooled(Some(unused.unwrap_or_else(|| {
            Box::new(Parts {
                table: SmallVec::new(),
                first: [0; known::COUNT],
                added: SmallVec::new(),
            })
        })))
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Some(mut parts) = self.0.take() else { return };
        parts.table.clear();
        parts.added.clear();
        parts.first = [0; known::COUNT];
        // A thread that ends has no use for it.
        let _ = UNUSED.try_with(|unused| {
            let mut unused = unused.borrow_mut();
            if unused.len() < KEPT {
                unused.push(parts);
            }
        });
    }
}

impl Clone for Pooled {
    fn clone(&self) -> Self {
        let mut new = Pooled::new();
        new.table.clone_from(&self.table);
        new.first = self.first;
        new.added.clone_from(&self.added);
        new
    }
}

impl Deref for Pooled {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.0.as_ref().expect("the parts go only when dropped")
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Parts {
        self.0.as_mut().expect("the parts go only when dropped")
    }
}

#[derive(Debug, Clone, Copy)]
struct Field {
    name: u32,
    value: u32,
    value_len: u32,
    name_len: u16,
    known: Option<Known>,
    removed: bool,
}

#[derive(Debug, Clone)]
struct Added {
    name: Chunk,
    value: Chunk,
}

/// Where a line of [`Fields::from_lines`] stands.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub name: Range<usize>,
    pub value: Range<usize>,
}

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub struct FieldRef<'h> {
    /// Which field it is, if it has rules.
    pub known: Option<Known>,
    /// Its name as spelled by the peer.
    pub name: &'h [u8],
    /// Its value without surrounding blanks.
    pub value: &'h [u8],
}

impl Fields {
    /// Fields of a message of our own.
    pub fn empty() -> Self {
        Fields::from_parsed(Chunk::default(), 0, true, &[])
    }

    /// Takes the fields that httparse found in `bytes`; `end` is where the blank line after them begins.
    pub(super) fn from_parsed(
        bytes: Chunk,
        end: usize,
        lines_are_strict: bool,
        parsed: &[httparse::Header<'_>],
    ) -> Self {
        let base = bytes.as_ptr() as usize;
        let mut parts = Pooled::new();
        let Parts { table, first, .. } = &mut *parts;
        let mut present = 0;
        table.extend(parsed.iter().enumerate().map(|(at, header)| Field {
            name: (header.name.as_ptr() as usize - base) as u32,
            // An empty value need not point into the head.
            value: (header.value.as_ptr() as usize).saturating_sub(base) as u32
                * u32::from(!header.value.is_empty()),
            value_len: header.value.len() as u32,
            name_len: header.name.len() as u16,
            known: note(first, &mut present, at, header.name.as_bytes()),
            removed: false,
        }));
        Fields {
            bytes,
            end: end as u32,
            lines_are_strict,
            present,
            parts,
        }
    }

    /// Takes fields that stand in `bytes` as lines, one after the other up to its end.
    pub(super) fn from_lines(bytes: Chunk, lines: &[Line]) -> Self {
        let mut parts = Pooled::new();
        let Parts { table, first, .. } = &mut *parts;
        let mut present = 0;
        table.extend(lines.iter().enumerate().map(|(at, line)| Field {
            name: line.name.start as u32,
            value: line.value.start as u32,
            value_len: line.value.len() as u32,
            name_len: line.name.len() as u16,
            known: note(first, &mut present, at, &bytes[line.name.clone()]),
            removed: false,
        }));
        Fields {
            end: bytes.len() as u32,
            bytes,
            lines_are_strict: true,
            present,
            parts,
        }
    }

    /// The value of the first field of a known name.
    #[inline]
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        if self.present & bit(known) == 0 {
            return None;
        }
        let parts = &*self.parts;
        match usize::from(parts.first[known as usize] & !REPEATED).checked_sub(1) {
            Some(first) if !parts.table[first].removed => Some(self.value(&parts.table[first])),
            _ => self.all(known).next(),
        }
    }

    /// Whether more than one field of a known name was received.
    #[inline]
    pub(super) fn is_repeated(&self, known: Known) -> bool {
        self.present & bit(known) != 0 && self.parts.first[known as usize] & REPEATED != 0
    }

    /// The values of all fields of a known name, in order.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let received = match self.parts.first[known as usize] & !REPEATED {
            0 => &[],
            first => &self.parts.table[usize::from(first) - 1..],
        };
        let received = received
            .iter()
            .filter(move |field| field.known == Some(known) && !field.removed);
        let added = self.parts.added.iter().filter(move |added| known.is(&added.name));
        received
            .map(|field| self.value(field))
            .chain(added.map(|added| &*added.value))
    }

    /// The value of the first field of any name, compared without case.
    pub fn get_by_name(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter()
            .find(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// The values of all fields of any name, compared without case, in order.
    pub fn all_by_name<'h>(&'h self, name: &'h [u8]) -> impl Iterator<Item = &'h [u8]> {
        self.iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// All fields: the received ones that were not removed, then the added ones.
    pub fn iter(&self) -> impl Iterator<Item = FieldRef<'_>> {
        let received = self
            .parts
            .table
            .iter()
            .filter(|field| !field.removed)
            .map(|field| FieldRef {
                known: field.known,
                name: self.name(field),
                value: self.value(field),
            });
        let added = self.parts.added.iter().map(|added| FieldRef {
            known: Known::from_name(&added.name),
            name: &added.name,
            value: &added.value,
        });
        received.chain(added)
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.parts.table.iter().filter(|field| !field.removed).count() + self.parts.added.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes every field of a name.
    pub fn remove(&mut self, name: &[u8]) {
        let bytes = &self.bytes;
        for field in &mut self.parts.table {
            field.removed |= bytes[field.name_range()].eq_ignore_ascii_case(name);
        }
        self.parts
            .added
            .retain(|added| !added.name.eq_ignore_ascii_case(name));
    }

    /// Adds a field after the others. The name must be a token and the value free of control bytes: of the
    /// plan's `HeaderName` and `HeaderValue`, or from another head.
    pub fn append(&mut self, name: impl Into<Chunk>, value: impl Into<Chunk>) {
        let (name, value) = (name.into(), value.into());
        debug_assert!(tidegate_plan::header::is_value(&value) && !name.is_empty());
        self.present |= Known::from_name(&name).map_or(0, bit);
        self.parts.added.push(Added { name, value });
    }

    /// Puts one field in the place of all of its name.
    pub fn set(&mut self, name: impl Into<Chunk>, value: impl Into<Chunk>) {
        let name = name.into();
        self.remove(&name);
        self.append(name, value);
    }

    /// Gives every field of a name another name, at the end of the fields.
    pub fn rename(&mut self, name: &[u8], to: &Chunk) {
        self.present |= Known::from_name(to).map_or(0, bit);
        let mut moved: SmallVec<[Chunk; 2]> = SmallVec::new();
        for field in &mut self.parts.table {
            if !field.removed && self.bytes[field.name_range()].eq_ignore_ascii_case(name) {
                field.removed = true;
                moved.push(self.bytes.slice(field.value_range()));
            }
        }
        for added in self
            .parts
            .added
            .iter_mut()
            .filter(|added| added.name.eq_ignore_ascii_case(name))
        {
            added.name = to.clone();
        }
        self.parts.added.extend(moved.into_iter().map(|value| Added {
            name: to.clone(),
            value,
        }));
    }

    /// Whether a `Connection` field names this one as meant for one connection only (RFC 9110 section 7.6.1).
    pub fn connection_names(&self, name: &[u8]) -> bool {
        self.get(Known::Connection).is_some()
            && self
                .all(Known::Connection)
                .flat_map(list)
                .any(|token| token.eq_ignore_ascii_case(name))
    }

    /// Whether any `Connection` field names another than `close` and `keep-alive`, so that every field must be
    /// looked up there.
    pub fn connection_names_others(&self) -> bool {
        let is_other = |token: &[u8]| {
            !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive")
        };
        self.get(Known::Connection).is_some() && self.all(Known::Connection).flat_map(list).any(is_other)
    }

    /// Writes the fields for which `keep` answers yes, as they were received where possible: neighbours that stay
    /// are copied in one piece.
    pub fn write_kept(&self, out: &mut Buffer, mut keep: impl FnMut(FieldRef<'_>) -> bool) {
        let mut run: Option<(usize, usize)> = None;
        for (at, field) in self.parts.table.iter().enumerate() {
            let view = FieldRef {
                known: field.known,
                name: self.name(field),
                value: self.value(field),
            };
            if field.removed || !keep(view) {
                self.flush_run(out, &mut run);
            } else if !self.lines_are_strict {
                write_field(out, view.name, view.value);
            } else {
                let line_end = self.parts.table.get(at + 1).map_or(self.end, |next| next.name) as usize;
                let start = run.map_or(field.name as usize, |(start, _)| start);
                run = Some((start, line_end));
            }
        }
        self.flush_run(out, &mut run);
        for added in &self.parts.added {
            let known = Known::from_name(&added.name);
            if keep(FieldRef {
                known,
                name: &added.name,
                value: &added.value,
            }) {
                write_field(out, &added.name, &added.value);
            }
        }
    }

    fn flush_run(&self, out: &mut Buffer, run: &mut Option<(usize, usize)>) {
        if let Some((start, end)) = run.take() {
            out.extend_from_slice(&self.bytes[start..end]);
        }
    }

    fn name(&self, field: &Field) -> &[u8] {
        &self.bytes[field.name_range()]
    }

    fn value(&self, field: &Field) -> &[u8] {
        &self.bytes[field.value_range()]
    }
}

#[inline]
const fn bit(known: Known) -> u64 {
    1 << known as u64
}

/// Which known field a name is, and that it stands at `at`.
#[inline]
fn note(first: &mut [u16; known::COUNT], present: &mut u64, at: usize, name: &[u8]) -> Option<Known> {
    let known = Known::from_name(name)?;
    *present |= bit(known);
    let first = &mut first[known as usize];
    *first = match *first {
        0 => at as u16 + 1,
        before => before | REPEATED,
    };
    Some(known)
}

impl Field {
    fn name_range(&self) -> Range<usize> {
        self.name as usize..self.name as usize + usize::from(self.name_len)
    }

    fn value_range(&self) -> Range<usize> {
        self.value as usize..self.value as usize + self.value_len as usize
    }
}

/// Writes one field with its line end.
#[inline]
pub fn write_field(out: &mut Buffer, name: &[u8], value: &[u8]) {
    out.extend_from_slices([name, b": ", value, b"\r\n"]);
}

/// The elements of a comma-separated list, empty ones skipped (RFC 9110 section 5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::parse;
    use super::*;

    fn written(fields: &Fields, keep: impl FnMut(FieldRef<'_>) -> bool) -> String {
        let mut out = Buffer::with_capacity(1024);
        fields.write_kept(&mut out, keep);
        String::from_utf8(out.to_vec()).unwrap()
    }

    const HEAD: &str =
        "GET / HTTP/1.1\r\nHost: a\r\nX-A:1\r\nx-a:  2 \r\nConnection: close, X-Hop\r\nX-Hop: h\r\n\r\n";

    #[test]
    fn look_up_is_without_case_and_in_order() {
        let head = parse(HEAD).unwrap();
        let fields = head.fields();
        assert_eq!(fields.get(Known::Host), Some(&b"a"[..]));
        assert_eq!(fields.all_by_name(b"X-a").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(fields.get(Known::Date), None);
        assert_eq!(fields.len(), 5);
        assert!(fields.connection_names(b"x-hop") && fields.connection_names_others());
    }

    #[test]
    fn kept_fields_are_passed_on_as_they_came() {
        let head = parse(HEAD).unwrap();
        let is_own =
            |field: FieldRef<'_>| field.known.is_none() && !head.fields().connection_names(field.name);
        assert_eq!(written(head.fields(), is_own), "X-A:1\r\nx-a:  2 \r\n");
        assert_eq!(
            written(head.fields(), |_| true),
            HEAD["GET / HTTP/1.1\r\n".len()..HEAD.len() - 2]
        );
        assert_eq!(written(head.fields(), |_| false), "");
    }

    #[test]
    fn edits_overlay_what_was_received() {
        let mut fields = parse(HEAD).unwrap().fields().clone();
        fields.remove(b"x-hop");
        fields.rename(b"X-A", &Chunk::from("x-amzn-Remapped-X-A"));
        fields.set("host", "b");
        fields.append("Host", "c");
        assert_eq!(fields.all(Known::Host).collect::<Vec<_>>(), [b"b", b"c"]);
        let expected = "Connection: close, X-Hop\r\nx-amzn-Remapped-X-A: 1\r\nx-amzn-Remapped-X-A: 2\r\nhost: b\r\nHost: c\r\n";
        assert_eq!(written(&fields, |_| true), expected);
        assert_eq!(fields.len(), 5);
        fields.remove(b"HOST");
        assert_eq!(fields.get(Known::Host), None);
    }
}
