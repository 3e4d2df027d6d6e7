//! References and the expressions inside directives and calls.

use super::cursor::{Cursor, Failure};
use super::known;
use super::parser::Parser;
use super::{Compiled, Expr, Op, Reference, Step};
use crate::path::JsonPath;
use crate::regexp::JavaRegex;

pub(super) type Parsed<T> = Result<T, Failure>;

impl Parser<'_, '_> {
    /// The reference at a `$`; nothing, and the cursor stays, where the `$` is text (VTL-180).
    pub(super) fn reference(&mut self) -> Parsed<Option<Reference>> {
        let start = self.cursor;
        if !self.cursor.eat("$") {
            return Ok(None);
        }
        self.cursor.eat("!");
        let is_formal = self.cursor.eat("{");
        let Some(name) = self.cursor.name(true) else {
            self.cursor = start;
            return Ok(None);
        };
        let slot = self.slot(name)?;
        let mut steps = Vec::new();
        loop {
            match self.cursor.peek() {
                Some(b'.') => {
                    let before = self.cursor;
                    self.cursor.at += 1;
                    let Some(name) = self.cursor.name(true) else {
                        // The dot is text (VTL-173).
                        self.cursor = before;
                        break;
                    };
                    if self.cursor.peek() != Some(b'(') {
                        steps.push(Step::Property(name.into()));
                        continue;
                    }
                    let arguments = self.deeper(Parser::arguments)?;
                    let compiled =
                        self.compile(name, &arguments, slot == known::INPUT && steps.is_empty(), before);
                    steps.push(Step::Method {
                        name: name.into(),
                        arguments: arguments.into(),
                        compiled,
                    });
                }
                Some(b'[') => {
                    self.cursor.at += 1;
                    let index = self.expression()?;
                    self.cursor.skip_white();
                    if !self.cursor.eat("]") {
                        return self.cursor.fail(
                            "expected `]` behind an index; to print `[` behind a reference write `${…}[`",
                        );
                    }
                    steps.push(Step::Index(index));
                }
                _ => break,
            }
        }
        if is_formal && !self.cursor.eat("}") {
            return self
                .cursor
                .fail("expected `}` to end the reference that `${` begins");
        }
        Ok(Some(Reference {
            at: start.place() as u32,
            slot,
            steps: steps.into(),
        }))
    }

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        self.cursor.eat("(");
        let mut arguments = Vec::new();
        self.cursor.skip_white();
        while !self.cursor.eat(")") {
            arguments.push(self.expression()?);
            self.cursor.skip_white();
            if !self.cursor.eat(",") && self.cursor.peek() != Some(b')') {
                return self.cursor.fail("expected `,` or `)` behind an argument");
            }
            self.cursor.skip_white();
        }
        Ok(arguments)
    }

    /// Makes the path or pattern of a call ready when it is a constant; warns of one that cannot be.
    fn compile(&mut self, method: &str, arguments: &[Expr], is_input: bool, at: Cursor<'_>) -> Compiled {
        let Some(Expr::Text(text)) = arguments.first() else {
            return Compiled::Nothing;
        };
        match method {
            "path" | "json" if is_input => match JsonPath::compile(text) {
                Ok(path) => return Compiled::Path(Box::new(path)),
                Err(error) => self.shared.warnings.push((at.place(), error.to_string())),
            },
            "replaceAll" | "replaceFirst" | "matches" | "split" => match JavaRegex::compile(text, false) {
                Ok(regex) => return Compiled::Regex(Box::new(regex)),
                Err(reason) => {
                    let message = format!("the regular expression `{text}` will fail: {reason}");
                    self.shared.warnings.push((at.place(), message));
                }
            },
            _ => {}
        }
        Compiled::Nothing
    }

    /// An expression with blanks around it.
    pub(super) fn expression(&mut self) -> Parsed<Expr> {
        let expression = self.deeper(|parser| parser.binary(0))?;
        self.cursor.skip_white();
        Ok(expression)
    }

    /// Operators that bind as strong as `floor` or stronger.
    fn binary(&mut self, floor: u8) -> Parsed<Expr> {
        let mut left = self.unary()?;
        let mut last = None;
        loop {
            self.cursor.skip_white();
            let Some((sign, op, strength)) = OPERATORS.iter().find(|(sign, ..)| self.is_operator(sign))
            else {
                return Ok(left);
            };
            if *strength < floor {
                return Ok(left);
            }
            self.cursor.at += sign.len();
            let right = self.deeper(|parser| parser.binary(strength + 1))?;
            left = match left {
                Expr::Chain(first, mut links) if last == Some(*strength) => {
                    links.push((*op, right));
                    Expr::Chain(first, links)
                }
                left => Expr::Chain(Box::new(left), vec![(*op, right)]),
            };
            last = Some(*strength);
        }
    }

    fn is_operator(&self, sign: &str) -> bool {
        let mut cursor = self.cursor;
        match sign.as_bytes()[0].is_ascii_alphabetic() {
            true => cursor.name(false) == Some(sign),
            false => cursor.eat(sign),
        }
    }

    fn unary(&mut self) -> Parsed<Expr> {
        self.cursor.skip_white();
        let mut ahead = self.cursor;
        let is_not = ahead.name(false) == Some("not");
        if is_not || self.cursor.peek() == Some(b'!') {
            self.cursor.at += if is_not { 3 } else { 1 };
            let inner = self.deeper(Parser::unary)?;
            return Ok(Expr::Not(Box::new(inner)));
        }
        if self.cursor.peek() == Some(b'-') && !self.cursor.peek_at(1).is_some_and(|b| b.is_ascii_digit()) {
            self.cursor.at += 1;
            let inner = self.deeper(Parser::unary)?;
            return Ok(Expr::Negate(Box::new(inner)));
        }
        self.primary()
    }

    /// A literal, a reference, or an expression in parentheses.
    pub(super) fn primary(&mut self) -> Parsed<Expr> {
        self.cursor.skip_white();
        match self.cursor.peek() {
            Some(b'$') => match self.reference()? {
                Some(reference) => Ok(Expr::Reference(reference)),
                None => self.cursor.fail("expected a name behind `$`"),
            },
            Some(b'\'' | b'"') => self.quoted(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'(') => {
                self.cursor.at += 1;
                let inner = self.expression()?;
                match self.cursor.eat(")") {
                    true => Ok(inner),
                    false => self.cursor.fail("expected an operator or `)`"),
                }
            }
            Some(b'[') => self.deeper(Parser::list),
            Some(b'{') => self.deeper(Parser::map),
            _ => {
                let start = self.cursor;
                match self.cursor.name(false) {
                    Some("true") => Ok(Expr::Bool(true)),
                    Some("false") => Ok(Expr::Bool(false)),
                    Some(word) => start.fail(format!(
                        "`{word}` is no value; a text wants quotes, a variable `$`"
                    )),
                    None => start.fail("expected a value"),
                }
            }
        }
    }

    /// A text in quotes: as it stands in single ones (VTL-179); two quotes in a row are one.
    fn quoted(&mut self) -> Parsed<Expr> {
        let start = self.cursor;
        let rest = start.rest();
        let quote = &rest[..1];
        let mut doubled = false;
        let mut at = 1;
        let end = loop {
            let Some(found) = memchr::memchr(quote.as_bytes()[0], &rest.as_bytes()[at..]) else {
                return start.fail("this text has no end; a quote inside it is written twice");
            };
            at += found;
            if rest[at + 1..].starts_with(quote) {
                doubled = true;
                at += 2;
            } else {
                break at;
            }
        };
        self.cursor.at += end + 1;
        let inner = &rest[1..end];
        let owned;
        let text = match doubled {
            true => {
                owned = inner.replace(&quote.repeat(2), quote);
                owned.as_str()
            }
            false => inner,
        };
        if quote == "'" || !text.bytes().any(|b| b == b'$' || b == b'#') {
            return Ok(Expr::Text(text.into()));
        }
        let mut parser = Parser::new(Cursor::new(text, start.place() + 1), self.shared, true);
        let block = parser.quoted_block()?;
        Ok(match &*block {
            [] => Expr::Text("".into()),
            // A `$` that begins no reference is text (VTL-180).
            [super::Node::Text(text)] => Expr::Text(text.clone()),
            _ => Expr::Template(block),
        })
    }

    fn number(&mut self) -> Parsed<Expr> {
        let start = self.cursor;
        let bytes = start.rest().as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut end = usize::from(bytes[0] == b'-');
        end += digits(end);
        let mut is_whole = true;
        // Two dots make a range.
        if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            is_whole = false;
            end += 1 + digits(end + 1);
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            let signs = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits((end + 1 + signs).min(bytes.len()));
            if exponent > 0 {
                is_whole = false;
                end += 1 + signs + exponent;
            }
        }
        self.cursor.at += end;
        let text = &start.rest()[..end];
        if is_whole && let Ok(int) = text.parse() {
            return Ok(Expr::Int(int));
        }
        match text.parse() {
            Ok(double) => Ok(Expr::Double(double)),
            Err(_) => start.fail("expected a number"),
        }
    }

    fn list(&mut self) -> Parsed<Expr> {
        self.cursor.at += 1;
        let mut items = Vec::new();
        self.cursor.skip_white();
        while !self.cursor.eat("]") {
            items.push(self.expression()?);
            if items.len() == 1 && self.cursor.eat("..") {
                let first = items.swap_remove(0);
                let last = self.expression()?;
                if !self.cursor.eat("]") {
                    return self.cursor.fail("expected `]` to end the range");
                }
                return Ok(Expr::Range(Box::new((first, last))));
            }
            if !self.cursor.eat(",") && self.cursor.peek() != Some(b']') {
                return self.cursor.fail("expected `,` or `]` in a list");
            }
            self.cursor.skip_white();
        }
        Ok(Expr::List(items.into()))
    }

    fn map(&mut self) -> Parsed<Expr> {
        self.cursor.at += 1;
        let mut entries = Vec::new();
        self.cursor.skip_white();
        while !self.cursor.eat("}") {
            let key = self.expression()?;
            if !self.cursor.eat(":") {
                return self.cursor.fail("expected `:` behind a map's key");
            }
            entries.push((key, self.expression()?));
            if !self.cursor.eat(",") && self.cursor.peek() != Some(b'}') {
                return self.cursor.fail("expected `,` or `}` in a map");
            }
            self.cursor.skip_white();
        }
        Ok(Expr::Map(entries.into()))
    }
}

/// Signs and words with how strong they bind; longer signs before those they begin with.
const OPERATORS: [(&str, Op, u8); 21] = [
    ("||", Op::Or, 1),
    ("or", Op::Or, 1),
    ("&&", Op::And, 2),
    ("and", Op::And, 2),
    ("==", Op::Equal, 3),
    ("eq", Op::Equal, 3),
    ("!=", Op::Unequal, 3),
    ("ne", Op::Unequal, 3),
    ("<=", Op::LessOrEqual, 4),
    ("le", Op::LessOrEqual, 4),
    (">=", Op::GreaterOrEqual, 4),
    ("ge", Op::GreaterOrEqual, 4),
    ("<", Op::Less, 4),
    ("lt", Op::Less, 4),
    (">", Op::Greater, 4),
    ("gt", Op::Greater, 4),
    ("+", Op::Add, 5),
    ("-", Op::Subtract, 5),
    ("*", Op::Multiply, 6),
    ("/", Op::Divide, 6),
    ("%", Op::Remainder, 6),
];
