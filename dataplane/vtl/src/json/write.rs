//! From nodes back to compact text.

use super::{Json, Tag};

/// Writes a value without blanks; strings and numbers without escapes go out as they stand in the document.
pub(super) fn write(json: Json<'_>, out: &mut String) {
    let from = json.at as usize;
    let mut open: Vec<Open> = Vec::new();
    for node in &json.nodes[from..from + json.weight()] {
        let is_name = open.last_mut().is_some_and(|inner| inner.separate(out));
        let span = || &json.text[node.a as usize..node.b as usize];
        match node.tag {
            Tag::Null => out.push_str("null"),
            Tag::False => out.push_str("false"),
            Tag::True => out.push_str("true"),
            Tag::Number => out.push_str(span()),
            Tag::String => {
                out.push('"');
                out.push_str(span());
                out.push('"');
            }
            Tag::Escaped => write_string(&super::parse::unescape(span()), out),
            Tag::Array | Tag::Object => {
                let is_object = node.tag == Tag::Object;
                out.push(if is_object { '{' } else { '[' });
                open.push(Open {
                    left: node.a * (1 + u32::from(is_object)),
                    is_first: true,
                    is_object,
                });
            }
        }
        if is_name {
            continue;
        }
        while let Some(inner) = open.last()
            && inner.left == 0
        {
            out.push(if inner.is_object { '}' } else { ']' });
            open.pop();
        }
    }
}

/// A container that is being written.
struct Open {
    /// Nodes to come: items, or names and values.
    left: u32,
    is_first: bool,
    is_object: bool,
}

impl Open {
    /// Writes what goes before the next node; says whether that is a member's name.
    fn separate(&mut self, out: &mut String) -> bool {
        let is_name = self.is_object && self.left.is_multiple_of(2);
        if self.is_object && !is_name {
            out.push(':');
        } else if !self.is_first {
            out.push(',');
        }
        self.is_first = false;
        self.left -= 1;
        is_name
    }
}

/// Writes a text as a JSON string. Other characters than quotes, backslashes and controls stay as they are: `/` and
/// what is not ASCII too.
pub(crate) fn write_string(text: &str, out: &mut String) {
    out.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x8 => "\\b",
            0xc => "\\f",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&text[from..at]);
        from = at + 1;
        if short.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.push_str("\\u00");
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        } else {
            out.push_str(short);
        }
    }
    out.push_str(&text[from..]);
    out.push('"');
}
