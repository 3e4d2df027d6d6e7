//! `String.format`, as far as templates use it.

use super::value::Value;
use super::{Renderer, Run, fail};
use crate::number::Number;

/// The widest field.
const WIDTH: usize = 1000;

/// `%-08.3d` in its parts.
#[derive(Default)]
struct Field {
    to_the_left: bool,
    zeros: bool,
    plus: bool,
    commas: bool,
    width: usize,
    precision: Option<usize>,
    conversion: char,
}

impl<'r> Renderer<'r, '_> {
    /// Fills the fields of a format with values in turn.
    pub(super) fn format(&mut self, format: &str, values: &[Value<'r>]) -> Run<&'r str> {
        let mut values = match values {
            [list] if self.is_list(*list) => self.items(*list)?.unwrap_or_default().iter().copied(),
            _ => values.iter().copied(),
        };
        self.capture(|renderer| {
            let mut rest = format;
            while let Some(at) = rest.find('%') {
                renderer.write(&rest[..at])?;
                let field;
                (field, rest) = match read(&rest[at + 1..]) {
                    Some(read) => read,
                    None => return fail("format", "a `%` begins no field; write `%%` for the sign"),
                };
                match field.conversion {
                    '%' => renderer.write("%")?,
                    'n' => renderer.write("\n")?,
                    _ => {
                        let Some(value) = values.next() else {
                            return fail("format", "there are more fields than values");
                        };
                        renderer.field(&field, value)?;
                    }
                }
            }
            renderer.write(rest)
        })
    }

    fn field(&mut self, field: &Field, value: Value<'r>) -> Run {
        let number = value.number();
        let text = match (field.conversion, number) {
            ('s' | 'S', _) => {
                let text = match value {
                    Value::Null => "null",
                    value => self.text(value)?,
                };
                let text: String = text.chars().take(field.precision.unwrap_or(usize::MAX)).collect();
                if field.conversion == 'S' {
                    text.to_uppercase()
                } else {
                    text
                }
            }
            ('b', _) => value.is_true().to_string(),
            ('d', Some(Number::Int(int))) => signed(field, int < 0, int.unsigned_abs().to_string()),
            ('x', Some(Number::Int(int))) => format!("{int:x}"),
            ('X', Some(Number::Int(int))) => format!("{int:X}"),
            ('f', Some(number)) => {
                let double = number.as_double();
                signed(
                    field,
                    double < 0.0,
                    format!("{:.*}", field.precision.unwrap_or(6), double.abs()),
                )
            }
            (conversion, _) => {
                return fail(
                    "format",
                    format!("`%{conversion}` does not take {}", value.kind()),
                );
            }
        };
        let missing = field.width.saturating_sub(text.chars().count());
        let blanks = if field.zeros { "0" } else { " " }.repeat(missing);
        if field.to_the_left {
            self.write(&text)?;
            self.write(&" ".repeat(missing))
        } else if field.zeros && text.starts_with(['-', '+']) {
            self.write(&text[..1])?;
            self.write(&blanks)?;
            self.write(&text[1..])
        } else {
            self.write(&blanks)?;
            self.write(&text)
        }
    }
}

fn read(text: &str) -> Option<(Field, &str)> {
    let mut field = Field::default();
    let mut rest = text;
    loop {
        match rest.as_bytes().first()? {
            b'-' => field.to_the_left = true,
            b'0' => field.zeros = true,
            b'+' => field.plus = true,
            b',' => field.commas = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let width = digits(rest);
    if width > 0 {
        field.width = rest[..width].parse().ok().filter(|width| *width <= WIDTH)?;
        rest = &rest[width..];
    }
    if let Some(behind) = rest.strip_prefix('.') {
        let precision = digits(behind);
        field.precision = Some(
            behind[..precision]
                .parse()
                .ok()
                .filter(|precision| *precision <= WIDTH)?,
        );
        rest = &behind[precision..];
    }
    field.conversion = rest.chars().next().filter(|c| "sSdfxXbn%".contains(*c))?;
    Some((field, &rest[1..]))
}

fn signed(field: &Field, is_negative: bool, digits: String) -> String {
    let mut out = String::new();
    if is_negative {
        out.push('-');
    } else if field.plus {
        out.push('+');
    }
    if !field.commas {
        return out + &digits;
    }
    let whole = digits.find('.').unwrap_or(digits.len());
    for (at, digit) in digits.char_indices() {
        if at > 0 && at < whole && (whole - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
