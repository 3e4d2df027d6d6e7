//! From text to nodes: one pass, no recursion.

use super::{JsonError, Node, Tag};

/// Reads a whole text as one value.
pub(super) fn parse(text: &str, depth: usize) -> Result<Vec<Node>, JsonError> {
    if u32::try_from(text.len()).is_err() {
        return Err(error(text, 0, "a JSON document of 4 GiB and more cannot be read"));
    }
    let mut parser = Parser {
        text,
        bytes: text.as_bytes(),
        at: 0,
        // A value takes some twenty bytes of usual documents; a bad guess costs a copy.
        nodes: Vec::with_capacity(text.len() / 16 + 4),
        open: Vec::with_capacity(16),
        depth,
    };
    match parser.document() {
        Ok(()) => Ok(parser.nodes),
        Err(reason) => Err(error(text, parser.at, reason)),
    }
}

/// The text of a string whose span has escapes. The parser has checked them.
pub(super) fn unescape(span: &str) -> String {
    let mut out = String::with_capacity(span.len());
    let mut rest = span;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let letter = rest.as_bytes().get(at + 1).copied().unwrap_or_default();
        rest = &rest[(at + 2).min(rest.len())..];
        match letter {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => out.push(unicode(&mut rest)),
            other => out.push(char::from(other)),
        }
    }
    out.push_str(rest);
    out
}

/// The character behind `\u`, with the second half of a pair; half a pair alone becomes U+FFFD.
fn unicode(rest: &mut &str) -> char {
    let Some(first) = take_hex(rest) else {
        return char::REPLACEMENT_CHARACTER;
    };
    if !(0xD800..0xDC00).contains(&first) {
        return char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER);
    }
    let mut ahead = *rest;
    if let Some(behind) = ahead.strip_prefix("\\u") {
        ahead = behind;
        if let Some(second @ 0xDC00..0xE000) = take_hex(&mut ahead) {
            *rest = ahead;
            let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        }
    }
    char::REPLACEMENT_CHARACTER
}

fn take_hex(rest: &mut &str) -> Option<u32> {
    let code = u32::from_str_radix(rest.get(..4)?, 16).ok()?;
    *rest = &rest[4..];
    Some(code)
}

fn error(text: &str, at: usize, reason: &'static str) -> JsonError {
    let before = &text.as_bytes()[..at.min(text.len())];
    let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    JsonError {
        reason,
        line: 1 + memchr::memchr_iter(b'\n', before).count(),
        column: 1 + String::from_utf8_lossy(&before[start..]).chars().count(),
    }
}

struct Parser<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    nodes: Vec<Node>,
    /// The containers around the place that is read, as places among the nodes.
    open: Vec<usize>,
    depth: usize,
}

type Step<T = ()> = Result<T, &'static str>;

impl Parser<'_> {
    fn document(&mut self) -> Step {
        self.blanks();
        self.value()?;
        while let Some(&container) = self.open.last() {
            self.blanks();
            let is_object = self.nodes[container].tag == Tag::Object;
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.blanks();
                    if is_object {
                        self.name()?;
                    }
                    self.value()?;
                }
                Some(b'}') if is_object => self.close(container),
                Some(b']') if !is_object => self.close(container),
                Some(_) if is_object => return Err("expected `,` or `}`"),
                Some(_) => return Err("expected `,` or `]`"),
                None => return Err("the document ends inside an object or array"),
            }
        }
        self.blanks();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err("unexpected text behind the document"),
        }
    }

    /// Reads a value; of a container, its opening and what is first in it.
    fn value(&mut self) -> Step {
        loop {
            // Counted in the container that is innermost now.
            if let Some(&container) = self.open.last() {
                self.nodes[container].a += 1;
            }
            match self.peek() {
                Some(b'"') => return self.string(),
                Some(b'-' | b'0'..=b'9') => return self.number(),
                Some(b't') => return self.word("true", Tag::True),
                Some(b'f') => return self.word("false", Tag::False),
                Some(b'n') => return self.word("null", Tag::Null),
                Some(b'{') => {
                    self.enter(Tag::Object)?;
                    if self.peek() == Some(b'}') {
                        return Ok(());
                    }
                    self.name()?;
                }
                Some(b'[') => {
                    self.enter(Tag::Array)?;
                    if self.peek() == Some(b']') {
                        return Ok(());
                    }
                }
                Some(_) => return Err("expected a value"),
                None => return Err("the document ends where a value is expected"),
            }
        }
    }

    fn enter(&mut self, tag: Tag) -> Step {
        if self.open.len() == self.depth {
            return Err("objects and arrays stand too deep in each other");
        }
        self.at += 1;
        self.open.push(self.nodes.len());
        self.nodes.push(Node { tag, a: 0, b: 0 });
        self.blanks();
        Ok(())
    }

    fn close(&mut self, container: usize) {
        self.at += 1;
        self.open.pop();
        if self.nodes[container].tag == Tag::Object {
            self.drop_earlier_doubles(container);
        }
        // Fewer nodes than bytes of text, of which there are fewer than 2^32.
        self.nodes[container].b = (self.nodes.len() - container) as u32;
    }

    /// Reads a member's name and the colon, up to its value.
    fn name(&mut self) -> Step {
        if self.peek() != Some(b'"') {
            return Err("expected a member name in double quotes");
        }
        self.string()?;
        self.blanks();
        if self.peek() != Some(b':') {
            return Err("expected `:` behind a member name");
        }
        self.at += 1;
        self.blanks();
        Ok(())
    }

    fn string(&mut self) -> Step {
        let start = self.at + 1;
        let mut at = start;
        let mut tag = Tag::String;
        loop {
            while let Some(&byte) = self.bytes.get(at)
                && PLAIN[byte as usize]
            {
                at += 1;
            }
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    tag = Tag::Escaped;
                    self.at = at;
                    at += match self.bytes.get(at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                        Some(b'u') if self.is_hex(at + 2) => 6,
                        _ => return Err("a backslash begins no known escape"),
                    };
                }
                Some(_) => {
                    self.at = at;
                    return Err("a control character stands unescaped in a string");
                }
                None => {
                    self.at = at;
                    return Err("the document ends inside a string");
                }
            }
        }
        self.nodes.push(Node {
            tag,
            a: start as u32,
            b: at as u32,
        });
        self.at = at + 1;
        Ok(())
    }

    fn is_hex(&self, at: usize) -> bool {
        let digits = self.bytes.get(at..at + 4);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    }

    fn number(&mut self) -> Step {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        self.nodes.push(Node {
            tag: Tag::Number,
            a: start as u32,
            b: self.at as u32,
        });
        Ok(())
    }

    fn digits(&mut self) -> Step {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            return Err("expected a digit");
        }
        Ok(())
    }

    fn word(&mut self, word: &str, tag: Tag) -> Step {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err("expected a value");
        }
        self.at += word.len();
        self.nodes.push(Node { tag, a: 0, b: 0 });
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Of members with the same name the last value holds, in the first one's place: what is read, printed and
    /// sent on is one and the same.
    fn drop_earlier_doubles(&mut self, object: usize) {
        if !self.has_doubles(object) {
            return;
        }
        let mut members: Vec<(String, std::ops::Range<usize>)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for at in self.names(object).collect::<Vec<_>>() {
            let name = self.name_at(at);
            let range = at..at + 1 + self.width(at + 1);
            let place = *places.entry(name.clone()).or_insert(members.len());
            match members.get_mut(place) {
                Some(member) => member.1 = range,
                None => members.push((name, range)),
            }
        }
        let held: Vec<Node> = members
            .iter()
            .flat_map(|(_, range)| &self.nodes[range.clone()])
            .copied()
            .collect();
        self.nodes.truncate(object + 1);
        self.nodes.extend(held);
        self.nodes[object].a = members.len() as u32;
    }

    fn has_doubles(&self, object: usize) -> bool {
        let count = self.nodes[object].a;
        if count <= FEW {
            // Each against those before it: cheaper than a table while there are few.
            let mut seen = [(0, 0); FEW as usize];
            for (count, at) in self.names(object).enumerate() {
                let node = self.nodes[at];
                if node.tag == Tag::Escaped {
                    return true;
                }
                let span = &self.bytes[node.a as usize..node.b as usize];
                let is_double = |&(a, b): &(u32, u32)| &self.bytes[a as usize..b as usize] == span;
                if seen[..count].iter().any(is_double) {
                    return true;
                }
                seen[count] = (node.a, node.b);
            }
            return false;
        }
        let mut seen = std::collections::HashSet::with_capacity(count as usize);
        self.names(object).any(|at| !seen.insert(self.name_at(at)))
    }

    /// Where the names of an object's members are, while the object is the last value read.
    fn names(&self, object: usize) -> impl Iterator<Item = usize> {
        let mut at = object + 1;
        std::iter::from_fn(move || {
            let name = at;
            (name < self.nodes.len()).then(|| {
                at += 1 + self.width(name + 1);
                name
            })
        })
    }

    fn width(&self, at: usize) -> usize {
        match self.nodes[at] {
            Node {
                tag: Tag::Array | Tag::Object,
                b,
                ..
            } => b as usize,
            _ => 1,
        }
    }

    fn name_at(&self, at: usize) -> String {
        let node = self.nodes[at];
        let span = &self.text[node.a as usize..node.b as usize];
        match node.tag {
            Tag::Escaped => unescape(span),
            _ => span.to_owned(),
        }
    }
}

/// Up to how many members are compared with each other for doubles.
const FEW: u32 = 12;

/// The bytes that stand for themselves inside a string.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = false;
        byte += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};
