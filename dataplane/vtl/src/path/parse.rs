//! From a path's text to its steps.

use super::filter::{Comparison, Filter, Operand};
use super::function::Function;
use super::{JsonPath, LENGTH, PathError, Step};
use crate::regexp::JavaRegex;

/// How deep parentheses, `!` and paths stand in each other in filters.
const NESTING: usize = 24;

pub(super) fn parse(text: &str) -> Result<JsonPath, PathError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    let path = if text.len() > LENGTH {
        Err("the path is too long; at most 4096 bytes")
    } else {
        parser.root()
    };
    path.map_err(|reason| PathError {
        path: text.chars().take(80).collect(),
        reason,
        column: 1 + text[..parser.at.min(text.len())].chars().count(),
    })
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

type Parsed<T> = Result<T, &'static str>;

impl<'t> Parser<'t> {
    fn root(&mut self) -> Parsed<JsonPath> {
        self.blanks();
        if self.rest().trim_ascii().is_empty() {
            return Err("a path is at least `$`");
        }
        let has_root = self.eat("$") || self.eat("@");
        let path = self.path(!has_root)?;
        self.blanks();
        match self.rest() {
            "" => Ok(path),
            _ => Err("expected `.`, `[` or the end; names with blanks or signs go in `['…']`"),
        }
    }

    /// The steps behind `$` or `@`; `bare` where the first is a name without its dot.
    fn path(&mut self, mut bare: bool) -> Parsed<JsonPath> {
        let start = self.at;
        let mut steps = Vec::new();
        let mut function = None;
        loop {
            if self.eat("..") {
                steps.push(Step::Descend);
                if self.eat("*") {
                    steps.push(Step::All);
                } else if self.peek() == Some('[') {
                    steps.push(self.bracket()?);
                } else {
                    steps.push(Step::Member(self.name()?.into()));
                }
            } else if std::mem::take(&mut bare) && self.peek() != Some('[') || self.eat(".") {
                if self.eat("*") {
                    steps.push(Step::All);
                } else if self.peek() == Some('[') {
                    steps.push(self.bracket()?);
                } else {
                    let name = self.name()?;
                    if self.peek() == Some('(') {
                        function = Some(self.function(name)?);
                        break;
                    }
                    steps.push(Step::Member(name.into()));
                }
            } else if self.peek() == Some('[') {
                steps.push(self.bracket()?);
            } else {
                break;
            }
        }
        let last = steps.len().saturating_sub(1);
        let is_definite = steps.iter().enumerate().all(|(at, step)| match step {
            Step::Member(_) | Step::Item(_) => true,
            // At the end the chosen members make one object.
            Step::Members(_) => at == last,
            _ => false,
        });
        Ok(JsonPath {
            text: self.text[start..self.at].into(),
            steps: steps.into(),
            is_definite: is_definite || function.is_some(),
            function,
        })
    }

    /// A name behind a dot: up to what can follow it.
    fn name(&mut self) -> Parsed<&'t str> {
        let rest = &self.text[self.at..];
        let is_end =
            |c: char| ".[]()".contains(c) || c.is_whitespace() || "=!<>&|,~".contains(c) && self.depth > 0;
        let end = rest.find(is_end).unwrap_or(rest.len());
        if end == 0 {
            return Err("expected a name");
        }
        self.at += end;
        Ok(&rest[..end])
    }

    fn function(&mut self, name: &str) -> Parsed<Function> {
        self.expect("(")?;
        self.blanks();
        let mut arguments = Vec::new();
        while !self.eat(")") {
            arguments.push(self.operand()?);
            self.blanks();
            if !self.eat(",") && self.peek() != Some(')') {
                return Err("expected `,` or `)`");
            }
            self.blanks();
        }
        Function::new(name, arguments)
    }

    fn bracket(&mut self) -> Parsed<Step> {
        self.expect("[")?;
        self.blanks();
        let step = match self.peek() {
            Some('*') => {
                self.at += 1;
                Step::All
            }
            Some('?') => {
                self.at += 1;
                self.blanks();
                self.expect("(")?;
                let filter = self.any()?;
                self.blanks();
                self.expect(")")?;
                Step::Filter(filter)
            }
            Some('\'' | '"') => self.names()?,
            Some('-' | ':' | '0'..='9') => self.indexes()?,
            _ => return Err("expected an index, a name in quotes, `*` or `?(…)`"),
        };
        self.blanks();
        self.expect("]")?;
        Ok(step)
    }

    fn names(&mut self) -> Parsed<Step> {
        let mut names = vec![self.quoted()?.into_boxed_str()];
        self.blanks();
        while self.eat(",") {
            self.blanks();
            names.push(self.quoted()?.into());
            self.blanks();
        }
        Ok(match names.len() {
            1 => Step::Member(names.swap_remove(0)),
            _ => Step::Members(names.into()),
        })
    }

    fn indexes(&mut self) -> Parsed<Step> {
        let first = self.integer()?;
        self.blanks();
        if self.eat(":") {
            self.blanks();
            let last = self.integer()?;
            return Ok(Step::Slice(first, last));
        }
        let mut indexes = vec![first.ok_or("expected an index")?];
        while self.eat(",") {
            self.blanks();
            indexes.push(self.integer()?.ok_or("expected an index")?);
            self.blanks();
        }
        Ok(match indexes[..] {
            [index] => Step::Item(index),
            _ => Step::Items(indexes.into()),
        })
    }

    fn integer(&mut self) -> Parsed<Option<i64>> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| c != '-' && !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let digits = &rest[..end];
        self.at += end;
        match digits {
            "" => Ok(None),
            _ => digits
                .parse::<i32>()
                .map(|index| Some(index.into()))
                .map_err(|_| "not an index"),
        }
    }

    /// A text in single or double quotes, in which a backslash takes the next character as it is.
    fn quoted(&mut self) -> Parsed<String> {
        let quote = self
            .peek()
            .filter(|c| matches!(c, '\'' | '"'))
            .ok_or("expected a name in quotes")?;
        let mut text = String::new();
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, other)) => text.push(other),
                    None => break,
                },
                end if end == quote => {
                    self.at += at + 1;
                    return Ok(text);
                }
                other => text.push(other),
            }
        }
        Err("the quote is not closed")
    }

    // Filters, from the weakest sign to the strongest.

    fn any(&mut self) -> Parsed<Filter> {
        if self.depth == NESTING {
            return Err("the filter nests too deep");
        }
        self.depth += 1;
        let mut filters = vec![self.all()?];
        while self.sign("||") {
            filters.push(self.all()?);
        }
        self.depth -= 1;
        Ok(Filter::Any(filters))
    }

    fn all(&mut self) -> Parsed<Filter> {
        let mut filters = vec![self.not()?];
        while self.sign("&&") {
            filters.push(self.not()?);
        }
        Ok(Filter::All(filters))
    }

    fn not(&mut self) -> Parsed<Filter> {
        let mut is_negated = false;
        while self.sign("!") {
            is_negated = !is_negated;
        }
        let filter = if self.sign("(") {
            let filter = self.any()?;
            self.blanks();
            self.expect(")")?;
            filter
        } else {
            self.comparison()?
        };
        Ok(match is_negated {
            true => Filter::Not(Box::new(filter)),
            false => filter,
        })
    }

    fn comparison(&mut self) -> Parsed<Filter> {
        self.blanks();
        let left = self.operand()?;
        self.blanks();
        let Some((sign, comparison)) = COMPARISONS.iter().find(|(sign, _)| self.is_next(sign)) else {
            return match left {
                Operand::Path { .. } => Ok(Filter::Exists(left)),
                _ => Err("expected a comparison such as `==`"),
            };
        };
        self.at += sign.len();
        self.blanks();
        let right = self.operand()?;
        if matches!(comparison, Comparison::Matches) != matches!(right, Operand::Regex(_)) {
            return Err("`=~` wants a pattern such as `/^a/i`, and nothing else does");
        }
        Ok(Filter::Compare(left, *comparison, right))
    }

    fn is_next(&self, sign: &str) -> bool {
        let Some(behind) = self.rest().strip_prefix(sign) else {
            return false;
        };
        !sign.ends_with(|c: char| c.is_ascii_alphabetic())
            || !behind.starts_with(|c: char| c.is_alphanumeric())
    }

    fn operand(&mut self) -> Parsed<Operand> {
        let rest = self.rest();
        match self.peek() {
            Some(sign @ ('@' | '$')) => {
                if self.depth >= NESTING {
                    return Err("the filter nests too deep");
                }
                self.at += 1;
                // Names in a filter end at its signs.
                self.depth += 1;
                let path = self.path(false)?;
                self.depth -= 1;
                Ok(Operand::Path {
                    is_root: sign == '$',
                    path: Box::new(path),
                })
            }
            Some('\'' | '"') => self.quoted().map(Operand::Text),
            Some('/') => self.regex(),
            Some('[') => {
                self.at += 1;
                let mut list = Vec::new();
                self.blanks();
                while !self.eat("]") {
                    if self.peek() == Some('[') {
                        return Err("a list in a filter holds no lists");
                    }
                    list.push(self.operand()?);
                    self.blanks();
                    if !self.eat(",") && self.peek() != Some(']') {
                        return Err("expected `,` or `]`");
                    }
                    self.blanks();
                }
                Ok(Operand::List(list))
            }
            _ => {
                let end = rest
                    .find(|c: char| !c.is_alphanumeric() && !"+-.".contains(c))
                    .unwrap_or(rest.len());
                let operand = match &rest[..end] {
                    "true" => Operand::Bool(true),
                    "false" => Operand::Bool(false),
                    "null" => Operand::Null,
                    word if word.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                        Operand::Number(word.parse().map_err(|_| "not a number")?)
                    }
                    _ => return Err("expected `@…`, `$…`, a text in quotes, a number or a list"),
                };
                self.at += end;
                Ok(operand)
            }
        }
    }

    fn regex(&mut self) -> Parsed<Operand> {
        let rest = &self.text[self.at + 1..];
        let mut end = None;
        let mut is_escaped = false;
        for (at, character) in rest.char_indices() {
            match character {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '/' => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let end = end.ok_or("the pattern is not closed by `/`")?;
        let behind = &rest[end + 1..];
        let flags = behind
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(behind.len());
        let ignores_case = behind[..flags].contains('i');
        let regex = JavaRegex::compile(&rest[..end], ignores_case);
        let regex = regex.map_err(|_| "the pattern cannot be read, or needs what has no linear time")?;
        self.at += end + 2 + flags;
        Ok(Operand::Regex(Box::new(regex)))
    }

    // Characters.

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn eat(&mut self, sign: &str) -> bool {
        let is_next = self.rest().starts_with(sign);
        self.at += if is_next { sign.len() } else { 0 };
        is_next
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.blanks();
        self.eat(sign)
    }

    fn expect(&mut self, sign: &str) -> Parsed<()> {
        match self.eat(sign) {
            true => Ok(()),
            false => Err(match sign {
                "(" => "expected `(`",
                ")" => "expected `)`",
                "]" => "expected `]`",
                _ => "expected `[`",
            }),
        }
    }
}

/// Longer signs before those they begin with.
const COMPARISONS: [(&str, Comparison); 17] = [
    ("===", Comparison::Equal),
    ("!==", Comparison::Unequal),
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("=~", Comparison::Matches),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
    ("in", Comparison::In),
    ("nin", Comparison::NotIn),
    ("subsetof", Comparison::SubsetOf),
    ("anyof", Comparison::AnyOf),
    ("noneof", Comparison::NoneOf),
    ("contains", Comparison::Contains),
    ("size", Comparison::Size),
    ("empty", Comparison::Empty),
];
