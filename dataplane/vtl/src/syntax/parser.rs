//! Text, directives and references: a template's outer grammar.

use std::collections::HashMap;

use super::cursor::{Cursor, locate};
use super::expression::Parsed;
use super::{Block, Expr, Macro, Node, Program, Reference, Slot, known};
use crate::error::{ParseError, Warning};

/// How deep blocks, parentheses, calls and texts stand in each other.
const NESTING: usize = 64;

/// Parses a template.
pub(crate) fn parse(source: &str) -> Result<Program, ParseError> {
    parse_program(source).map_err(|failure| failure.locate(source))
}

fn parse_program(source: &str) -> Parsed<Program> {
    let mut shared = Shared::new(source);
    let mut parser = Parser::new(Cursor::new(source, 0), &mut shared, false);
    let (body, end) = parser.block()?;
    if let Some(word) = end.word() {
        return parser.cursor.fail(format!(
            "`#{word}` stands before this without an `#if` or `#foreach` to belong to"
        ));
    }
    let warnings = shared.warnings.iter().map(|(at, message)| {
        let (line, column) = locate(source, *at);
        Warning {
            line,
            column,
            message: message.clone(),
        }
    });
    Ok(Program {
        body,
        warnings: warnings.collect(),
        defined: shared.defined.into(),
        macros: shared.macros.into(),
        slots: shared.slots.len(),
        source: source.into(),
    })
}

/// What the parsers of a template and of the texts in it have in common.
pub(super) struct Shared {
    slots: HashMap<String, Slot>,
    defined: Vec<Block>,
    macro_names: Vec<String>,
    macros: Vec<Option<Macro>>,
    pub(super) warnings: Vec<(usize, String)>,
    depth: usize,
}

/// Reads a part of a template.
pub(super) struct Parser<'s, 'p> {
    pub(super) cursor: Cursor<'s>,
    pub(super) shared: &'p mut Shared,
    /// Whether this is a text in double quotes, where backslashes and `##` mean nothing (VTL-182).
    in_quotes: bool,
}

/// What ended a block.
enum End {
    Source,
    Closed,
    Else,
    Elseif,
}

impl End {
    fn word(&self) -> Option<&'static str> {
        match self {
            End::Source => None,
            End::Closed => Some("end"),
            End::Else => Some("else"),
            End::Elseif => Some("elseif"),
        }
    }
}

impl Shared {
    fn new(source: &str) -> Self {
        let slots = known::NAMES
            .iter()
            .enumerate()
            .map(|(at, name)| ((*name).to_owned(), at as Slot))
            .collect();
        // A call may stand before the definition.
        let mut macro_names: Vec<String> = Vec::new();
        for (at, word) in source
            .match_indices("#macro")
            .chain(source.match_indices("#{macro}"))
        {
            let mut cursor = Cursor::new(&source[at + word.len()..], 0);
            cursor.skip_blanks();
            if cursor.eat("(") {
                cursor.skip_white();
                if let Some(name) = cursor.name(false)
                    && !macro_names.iter().any(|known| known == name)
                {
                    macro_names.push(name.to_owned());
                }
            }
        }
        Shared {
            slots,
            defined: Vec::new(),
            macros: macro_names.iter().map(|_| None).collect(),
            macro_names,
            warnings: Vec::new(),
            depth: 0,
        }
    }

    fn macro_number(&self, name: &str) -> Option<usize> {
        self.macro_names.iter().position(|known| known == name)
    }
}

impl<'s, 'p> Parser<'s, 'p> {
    pub(super) fn new(cursor: Cursor<'s>, shared: &'p mut Shared, in_quotes: bool) -> Self {
        Parser {
            cursor,
            shared,
            in_quotes,
        }
    }

    /// Reads what nests one deeper.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.shared.depth == NESTING {
            return self.cursor.fail(format!(
                "this nests deeper than {NESTING} levels; set parts of it apart by `#set`"
            ));
        }
        self.shared.depth += 1;
        let result = read(self);
        self.shared.depth -= 1;
        result
    }

    pub(super) fn slot(&mut self, name: &str) -> Parsed<Slot> {
        if let Some(slot) = self.shared.slots.get(name) {
            return Ok(*slot);
        }
        let Ok(slot) = Slot::try_from(self.shared.slots.len()) else {
            return self.cursor.fail("a template has at most 65,535 variables");
        };
        self.shared.slots.insert(name.to_owned(), slot);
        Ok(slot)
    }

    /// A whole text in double quotes.
    pub(super) fn quoted_block(&mut self) -> Parsed<Block> {
        let (block, end) = self.block()?;
        match end.word() {
            None => Ok(block),
            Some(word) => self
                .cursor
                .fail(format!("`#{word}` in this text belongs to nothing in it")),
        }
    }

    /// Text and statements up to the end of the source or a directive that ends the block, which is taken too.
    fn block(&mut self) -> Parsed<(Block, End)> {
        self.deeper(|parser| {
            let mut nodes = Nodes::default();
            let end = parser.nodes(&mut nodes)?;
            Ok((nodes.finish(), end))
        })
    }

    fn nodes(&mut self, nodes: &mut Nodes) -> Parsed<End> {
        loop {
            let rest = self.cursor.rest();
            let Some(plain) = memchr::memchr3(b'$', b'#', b'\\', rest.as_bytes()) else {
                nodes.text(rest);
                self.cursor.at = self.cursor.text.len();
                return Ok(End::Source);
            };
            nodes.text(&rest[..plain]);
            self.cursor.at += plain;
            match rest.as_bytes()[plain] {
                b'$' => match self.reference()? {
                    Some(reference) => nodes.push(Node::Reference(reference)),
                    None => self.literal(nodes, 1),
                },
                b'\\' => self.backslashes(nodes)?,
                _ => {
                    if let Some(end) = self.directive(nodes)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    fn literal(&mut self, nodes: &mut Nodes, len: usize) {
        nodes.text(&self.cursor.rest()[..len]);
        self.cursor.at += len;
    }

    /// Backslashes before a reference or directive; anywhere else they are text.
    fn backslashes(&mut self, nodes: &mut Nodes) -> Parsed<()> {
        let count = self.cursor.rest().bytes().take_while(|b| *b == b'\\').count();
        let mut ahead = self.cursor;
        ahead.at += count;
        if self.in_quotes {
            self.literal(nodes, count);
        } else if ahead.peek() == Some(b'$') {
            let before = std::mem::replace(&mut self.cursor, ahead);
            match self.reference()? {
                Some(reference) => nodes.push(Node::Escaped {
                    slashes: count,
                    reference,
                    source: self.cursor.text[ahead.at..self.cursor.at].into(),
                }),
                None => {
                    self.cursor = before;
                    self.literal(nodes, count);
                }
            }
        } else if ahead.peek() == Some(b'#') && self.is_directive(ahead) {
            nodes.text(&self.cursor.rest()[..count / 2]);
            self.cursor = ahead;
            if !count.is_multiple_of(2) {
                self.literal(nodes, 1);
            }
        } else {
            self.literal(nodes, count);
        }
        Ok(())
    }

    fn is_directive(&self, mut cursor: Cursor<'_>) -> bool {
        let Some(word) = directive_word(&mut cursor) else {
            return false;
        };
        WORDS.contains(&word) || self.shared.macro_number(word).is_some()
    }

    /// What begins with `#`: a comment, a directive, or text. Says so if it ends the block.
    fn directive(&mut self, nodes: &mut Nodes) -> Parsed<Option<End>> {
        if self.comment(nodes) {
            return Ok(None);
        }
        let start = self.cursor;
        let mut behind = start;
        let Some(word) = directive_word(&mut behind) else {
            self.literal(nodes, 1);
            return Ok(None);
        };
        self.cursor = behind;
        let has_arguments = |mut cursor: Cursor<'_>| {
            cursor.skip_blanks();
            cursor.peek() == Some(b'(')
        };
        match word {
            "end" | "else" => {
                self.cursor.eat_line_end();
                return Ok(Some(if word == "end" { End::Closed } else { End::Else }));
            }
            "elseif" => return Ok(Some(End::Elseif)),
            "set" if has_arguments(behind) => {
                nodes.trim_blanks();
                let set = self.set()?;
                nodes.push(set);
            }
            "if" => {
                let node = self.condition(start)?;
                nodes.push(node);
            }
            "foreach" => {
                let node = self.foreach(start)?;
                nodes.push(node);
            }
            "define" if has_arguments(behind) => {
                let node = self.define(start)?;
                nodes.push(node);
            }
            "macro" if has_arguments(behind) => self.definition(start)?,
            "break" => nodes.push(Node::Break),
            "stop" => nodes.push(Node::Stop),
            "include" | "parse" | "evaluate" if has_arguments(behind) => {
                return start.fail(format!("`#{word}` is not supported: a template is one text"));
            }
            _ => match self.shared.macro_number(word) {
                Some(number) if has_arguments(behind) => {
                    let call = self.call(number, start)?;
                    nodes.push(call);
                }
                _ => {
                    self.cursor = start;
                    self.literal(nodes, 1);
                }
            },
        }
        Ok(None)
    }

    fn comment(&mut self, nodes: &mut Nodes) -> bool {
        let rest = self.cursor.rest();
        if rest.starts_with("##") && !self.in_quotes {
            // The line's end belongs to the comment.
            self.cursor.at +=
                memchr::memchr(b'\n', rest.as_bytes()).map_or(rest.len(), |newline| newline + 1);
        } else if let Some(inner) = rest.strip_prefix("#*") {
            self.cursor.at += inner.find("*#").map_or(rest.len(), |end| end + 4);
        } else if let Some(inner) = rest.strip_prefix("#[[") {
            let end = inner.find("]]#");
            nodes.text(&inner[..end.unwrap_or(inner.len())]);
            self.cursor.at += end.map_or(rest.len(), |end| end + 6);
        } else {
            return false;
        }
        true
    }

    fn set(&mut self) -> Parsed<Node> {
        self.open("#set")?;
        let Some(target) = self.reference()? else {
            return self
                .cursor
                .fail("`#set` assigns to a reference, such as in `#set($name = 1)`");
        };
        self.cursor.skip_white();
        if self.cursor.rest().starts_with("==") || !self.cursor.eat("=") {
            return self.cursor.fail("expected `=`, such as in `#set($name = 1)`");
        }
        let value = self.expression()?;
        self.close("#set")?;
        Ok(Node::Set { target, value })
    }

    fn condition(&mut self, start: Cursor<'s>) -> Parsed<Node> {
        let mut arms = Vec::new();
        let mut otherwise = Block::default();
        let mut end = End::Elseif;
        while let End::Elseif = end {
            self.open("#if")?;
            let condition = self.expression()?;
            if self.cursor.peek() == Some(b'=') {
                return self.cursor.fail("a comparison is `==`");
            }
            self.close("#if")?;
            let body;
            (body, end) = self.block()?;
            arms.push((condition, body));
        }
        if let End::Else = end {
            (otherwise, end) = self.block()?;
        }
        match end {
            End::Closed => Ok(Node::If {
                arms: arms.into(),
                otherwise,
            }),
            End::Source => start.fail("this `#if` has no `#end`"),
            End::Else | End::Elseif => self
                .cursor
                .fail("no further `#else` may follow an `#else`; expected `#end`"),
        }
    }

    fn foreach(&mut self, start: Cursor<'s>) -> Parsed<Node> {
        self.open("#foreach")?;
        let slot = self.variable("#foreach($item in $list)")?;
        self.cursor.skip_white();
        if self.cursor.name(false) != Some("in") {
            return self
                .cursor
                .fail("expected `in`, such as in `#foreach($item in $list)`");
        }
        let list = self.expression()?;
        self.close("#foreach")?;
        let body = self.body(start, "#foreach")?;
        Ok(Node::Foreach {
            at: start.place() as u32,
            slot,
            list,
            body,
        })
    }

    fn define(&mut self, start: Cursor<'s>) -> Parsed<Node> {
        self.open("#define")?;
        let slot = self.variable("#define($name)")?;
        self.close("#define")?;
        let body = self.body(start, "#define")?;
        self.shared.defined.push(body);
        Ok(Node::Define {
            slot,
            number: self.shared.defined.len() - 1,
        })
    }

    fn definition(&mut self, start: Cursor<'s>) -> Parsed<()> {
        self.open("#macro")?;
        let Some(name) = self.cursor.name(false) else {
            return self
                .cursor
                .fail("`#macro` wants a name, such as in `#macro(row $cell)`");
        };
        if WORDS.contains(&name) {
            return self
                .cursor
                .fail(format!("`#{name}` is a directive; a macro wants another name"));
        }
        let mut parameters = Vec::new();
        loop {
            self.cursor.skip_white();
            self.cursor.eat(",");
            self.cursor.skip_white();
            if self.cursor.peek() == Some(b')') {
                break;
            }
            parameters.push(self.variable("#macro(row $cell)")?);
        }
        self.close("#macro")?;
        let body = self.body(start, "#macro")?;
        // The first definition holds, as in Velocity.
        if let Some(number) = self.shared.macro_number(name) {
            self.shared.macros[number].get_or_insert(Macro {
                parameters: parameters.into(),
                body,
            });
        }
        Ok(())
    }

    fn call(&mut self, number: usize, start: Cursor<'s>) -> Parsed<Node> {
        self.open("#macro")?;
        let mut arguments: Vec<Expr> = Vec::new();
        loop {
            self.cursor.skip_white();
            self.cursor.eat(",");
            self.cursor.skip_white();
            if self.cursor.peek() == Some(b')') {
                break;
            }
            arguments.push(self.primary()?);
        }
        self.cursor.eat(")");
        let source = self.cursor.text[start.at..self.cursor.at].into();
        self.cursor.eat_line_end();
        Ok(Node::Call {
            at: start.place() as u32,
            number,
            arguments: arguments.into(),
            source,
        })
    }

    /// The block of a directive that only `#end` ends.
    fn body(&mut self, start: Cursor<'s>, directive: &str) -> Parsed<Block> {
        let (body, end) = self.block()?;
        match end {
            End::Closed => Ok(body),
            End::Source => start.fail(format!("this `{directive}` has no `#end`")),
            End::Else | End::Elseif => self.cursor.fail(format!(
                "this `#else` has no `#if`; the block before it belongs to `{directive}`"
            )),
        }
    }

    /// A variable's name alone.
    fn variable(&mut self, example: &str) -> Parsed<Slot> {
        self.cursor.skip_white();
        match self.reference()? {
            Some(Reference { slot, steps, .. }) if steps.is_empty() => Ok(slot),
            _ => self
                .cursor
                .fail(format!("expected a variable, such as in `{example}`")),
        }
    }

    fn open(&mut self, directive: &str) -> Parsed<()> {
        self.cursor.skip_blanks();
        if !self.cursor.eat("(") {
            return self.cursor.fail(format!("expected `(` behind `{directive}`"));
        }
        self.cursor.skip_white();
        Ok(())
    }

    fn close(&mut self, directive: &str) -> Parsed<()> {
        self.cursor.skip_white();
        if !self.cursor.eat(")") {
            return self
                .cursor
                .fail(format!("expected an operator, or `)` to end `{directive}`"));
        }
        self.cursor.eat_line_end();
        Ok(())
    }
}

/// The words that `#` makes directives.
const WORDS: [&str; 13] = [
    "set", "if", "elseif", "else", "end", "foreach", "break", "stop", "macro", "define", "include", "parse",
    "evaluate",
];

/// The word behind `#`, bare or in braces; the cursor moves behind it.
fn directive_word<'s>(cursor: &mut Cursor<'s>) -> Option<&'s str> {
    cursor.eat("#");
    let in_braces = cursor.eat("{");
    let word = cursor.name(false)?;
    (!in_braces || cursor.eat("}")).then_some(word)
}

/// Nodes that are being collected; text that comes in pieces becomes one node.
#[derive(Default)]
struct Nodes {
    nodes: Vec<Node>,
    text: String,
}

impl Nodes {
    fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Drops blanks at the end of the text that directly precedes (VTL-220).
    fn trim_blanks(&mut self) {
        let kept = self.text.trim_end_matches([' ', '\t']).len();
        self.text.truncate(kept);
    }

    fn push(&mut self, node: Node) {
        self.flush();
        self.nodes.push(node);
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.nodes.push(Node::Text(std::mem::take(&mut self.text).into()));
        }
    }

    fn finish(mut self) -> Block {
        self.flush();
        self.nodes.into()
    }
}
