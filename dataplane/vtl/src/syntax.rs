//! What a template is made of.

mod cursor;
mod expression;
mod parser;

use crate::error::Warning;
use crate::path::JsonPath;
use crate::regexp::JavaRegex;

pub(crate) use cursor::locate;
pub(crate) use parser::parse;

/// A parsed template. Variables are numbered: a render keeps them in a row of slots.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) body: Block,
    /// The bodies of `#define`, by number.
    pub(crate) defined: Box<[Block]>,
    /// By number; `None` for a name that only looked like a definition.
    pub(crate) macros: Box<[Option<Macro>]>,
    pub(crate) slots: usize,
    pub(crate) warnings: Vec<Warning>,
    /// The source, for places in messages.
    pub(crate) source: Box<str>,
}

/// Statements and text in a row.
pub(crate) type Block = Box<[Node]>;

/// A variable's number.
pub(crate) type Slot = u16;

/// Names that stand for something before a template sets them.
pub(crate) mod known {
    use super::Slot;

    pub(crate) const INPUT: Slot = 0;
    pub(crate) const UTIL: Slot = 1;
    pub(crate) const CONTEXT: Slot = 2;
    pub(crate) const STAGE: Slot = 3;
    pub(crate) const FOREACH: Slot = 4;
    pub(crate) const COUNT: Slot = 5;
    pub(crate) const NAMES: [&str; 6] = [
        "input",
        "util",
        "context",
        "stageVariables",
        "foreach",
        "velocityCount",
    ];
}

#[derive(Debug)]
pub(crate) enum Node {
    Text(Box<str>),
    Reference(Reference),
    /// A reference behind backslashes: two of them print one, an odd one takes the reference's meaning away if it
    /// has a value.
    Escaped {
        slashes: usize,
        reference: Reference,
        source: Box<str>,
    },
    Set {
        target: Reference,
        value: Expr,
    },
    If {
        arms: Box<[(Expr, Block)]>,
        otherwise: Block,
    },
    Foreach {
        at: u32,
        slot: Slot,
        list: Expr,
        body: Block,
    },
    Define {
        slot: Slot,
        number: usize,
    },
    Call {
        at: u32,
        number: usize,
        arguments: Box<[Expr]>,
        source: Box<str>,
    },
    Break,
    Stop,
}

#[derive(Debug)]
pub(crate) struct Macro {
    pub(crate) parameters: Box<[Slot]>,
    pub(crate) body: Block,
}

/// `$name` and what follows it.
#[derive(Debug)]
pub(crate) struct Reference {
    /// Where it stands in the source.
    pub(crate) at: u32,
    pub(crate) slot: Slot,
    pub(crate) steps: Box<[Step]>,
}

#[derive(Debug)]
pub(crate) enum Step {
    Property(Box<str>),
    Index(Expr),
    Method {
        name: Box<str>,
        arguments: Box<[Expr]>,
        compiled: Compiled,
    },
}

/// What of a call can be made ready when its first argument is a constant.
#[derive(Debug)]
pub(crate) enum Compiled {
    Nothing,
    Path(Box<JsonPath>),
    Regex(Box<JavaRegex>),
}

#[derive(Debug)]
pub(crate) enum Expr {
    Text(Box<str>),
    /// A text in double quotes with references or directives in it.
    Template(Block),
    Int(i64),
    Double(f64),
    Bool(bool),
    Reference(Reference),
    List(Box<[Expr]>),
    Range(Box<(Expr, Expr)>),
    Map(Box<[(Expr, Expr)]>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    /// Operators that bind equally strong, from left to right: however long, no deeper than one.
    Chain(Box<Expr>, Vec<(Op, Expr)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}
