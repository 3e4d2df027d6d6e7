//! Finding the resource that a path addresses.
//!
//! At each level a literal goes before `{param}`, and `{param}` before `{proxy+}` (RES-047). A level has at most
//! one variable part (OBV-061), and a literal that matches takes everything below it from its siblings, whether
//! or not the rest of the path is found there (RES-047, RES-048). So one walk down decides, and nothing is ever
//! tried twice.
//!
//! The finished trie is three flat arrays and a hash table over them.

use std::collections::HashMap;
use std::ops::Range;

use smallvec::SmallVec;
use thiserror::Error;

use crate::path::{self, PathError, PathRef};

/// The place of a route in its plan, in the order of insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteIndex(pub u32);

/// Where the values of a route's parameters stand in the path, in the order of the route's text. Holds up to
/// eight without allocating; reuse it from request to request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures(SmallVec<[(u32, u32); 8]>);

/// Why a route cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum TrieError {
    #[error("path `{0}` does not begin with `/`")]
    NotAbsolute(String),
    #[error("path `{0}` has an empty part")]
    EmptyPart(String),
    #[error("part `{part}` of `{path}` is neither a literal nor `{{name}}` nor `{{name+}}`")]
    Part { path: String, part: String },
    #[error("part `{part}` of `{path}`: {error}")]
    Literal {
        path: String,
        part: String,
        error: PathError,
    },
    #[error("Cannot create a child of a resource with a greedy path variable: {0}")]
    BelowGreedy(String),
    #[error("A sibling ({0}) of this resource already has a variable path part -- only one is allowed")]
    VariableSibling(String),
    #[error("path `{0}` is given twice")]
    Duplicate(String),
    #[error("path `{0}` has more than {PARAMETERS_MAX} parameters")]
    Parameters(String),
    #[error("an API holds at most {0} resources")]
    Full(usize),
}

/// More parameters than any path of an API has; what indexes them is one byte.
const PARAMETERS_MAX: usize = 255;

/// A node's edges are compared one by one up to this many, and hashed beyond.
const LINEAR_MAX: usize = 6;

/// "No such node" or "no such route".
const NONE: u32 = u32::MAX;

/// Routes, ready to be searched.
#[derive(Debug)]
pub struct Trie {
    nodes: Box<[Node]>,
    edges: Box<[Edge]>,
    text: Box<str>,
    /// Open addressing over `edges`, twice as many slots as hashed edges, a power of two.
    slots: Box<[u32]>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    edges: u32,
    edge_count: u32,
    /// The child for `{param}`.
    variable: u32,
    /// The route of the child `{proxy+}`, which never has children of its own.
    greedy: u32,
    route: u32,
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    text: u32,
    len: u32,
    parent: u32,
    child: u32,
}

impl Trie {
    /// The route that a path addresses, the stage's segment being gone, and where its parameters stand.
    ///
    /// Case matters. One trailing slash is ignored, except that it stays in the value of a greedy parameter. The
    /// empty path and `/` address the root. A parameter takes one segment that is not empty (RES-038); a greedy
    /// one the whole remainder, with something other than slashes in it (RES-041, RES-042).
    pub fn find(&self, path: PathRef<'_>, captures: &mut Captures) -> Option<RouteIndex> {
        captures.0.clear();
        let whole = path.as_str();
        let significant = whole.strip_suffix('/').unwrap_or(whole);
        let bytes = significant.as_bytes();
        let mut node = self.nodes[0];
        // Where the next segment begins: behind the slash that ends the one before.
        let mut start = 1;
        while start <= bytes.len() {
            let end = memchr::memchr(b'/', &bytes[start..]).map_or(bytes.len(), |at| start + at);
            let segment = &bytes[start..end];
            let next = match self.literal(node, segment) {
                NONE if !segment.is_empty() && node.variable != NONE => {
                    captures.push(start..end);
                    node.variable
                }
                NONE if node.greedy != NONE && bytes[start..].iter().any(|b| *b != b'/') => {
                    captures.push(start..whole.len());
                    return Some(RouteIndex(node.greedy));
                }
                NONE => return None,
                child => child,
            };
            node = self.nodes[next as usize];
            start = end + 1;
        }
        (node.route != NONE).then_some(RouteIndex(node.route))
    }

    /// How many bytes the arrays take.
    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.nodes) + size_of_val(&*self.edges) + self.text.len() + size_of_val(&*self.slots)
    }

    fn literal(&self, node: Node, segment: &[u8]) -> u32 {
        let count = node.edge_count as usize;
        if count <= LINEAR_MAX {
            let first = node.edges as usize;
            let found = self.edges[first..first + count]
                .iter()
                .find(|edge| self.text_of(edge) == segment);
            return found.map_or(NONE, |edge| edge.child);
        }
        let parent = self.edges[node.edges as usize].parent;
        let mask = self.slots.len() - 1;
        let mut slot = hash(parent, segment) as usize & mask;
        // Half the slots are empty, so that the search ends.
        while self.slots[slot] != NONE {
            let edge = &self.edges[self.slots[slot] as usize];
            if edge.parent == parent && self.text_of(edge) == segment {
                return edge.child;
            }
            slot = (slot + 1) & mask;
        }
        NONE
    }

    fn text_of(&self, edge: &Edge) -> &[u8] {
        &self.text.as_bytes()[edge.text as usize..(edge.text + edge.len) as usize]
    }
}

impl Captures {
    /// Room for a search's result.
    pub fn new() -> Self {
        Captures::default()
    }

    /// How many parameters the route has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the route has no parameters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a parameter's value stands in the path that was searched.
    pub fn span(&self, at: usize) -> Option<Range<usize>> {
        self.0.get(at).map(|&(start, end)| start as usize..end as usize)
    }

    /// A parameter's value, in canonical form, given the path that was searched.
    pub fn value<'p>(&self, at: usize, path: PathRef<'p>) -> Option<&'p str> {
        path.as_str().get(self.span(at)?)
    }

    fn push(&mut self, span: Range<usize>) {
        // A path is at most a request line long, far below 4 GiB.
        self.0.push((span.start as u32, span.end as u32));
    }
}

/// A route's text cannot be chosen by those who send requests, so a fixed seed is no weakness.
fn hash(parent: u32, segment: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
    hasher.write_u32(parent);
    hasher.write(segment);
    hasher.finish()
}

/// Collects routes, refusing those that cannot stand beside the others.
#[derive(Debug)]
pub struct Builder {
    most: usize,
    routes: u32,
    nodes: Vec<Draft>,
}

#[derive(Debug, Default)]
struct Draft {
    literals: HashMap<Box<str>, u32, ahash::RandomState>,
    /// The part's text with its braces, and the child.
    variable: Option<(Box<str>, u32)>,
    route: Option<u32>,
}

impl Builder {
    /// Begins a trie of at most `most` routes.
    pub fn new(most: usize) -> Self {
        Builder {
            most: most.min(NONE as usize - 1),
            routes: 0,
            nodes: vec![Draft::default()],
        }
    }

    /// Adds a resource's path: `/`, `/pets/{petId}`, `/files/{proxy+}`. After an error
    /// the builder is of no further use: parts of the refused path may stand in it.
    pub fn insert(&mut self, text: &str) -> Result<RouteIndex, TrieError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(TrieError::NotAbsolute(clip(text)));
        };
        if self.routes as usize >= self.most {
            return Err(TrieError::Full(self.most));
        }
        if text.matches('{').count() > PARAMETERS_MAX {
            return Err(TrieError::Parameters(clip(text)));
        }
        let mut node = 0;
        let mut above_greedy = None;
        // The root has no parts.
        for part in rest.split('/').filter(|_| !rest.is_empty()) {
            if let Some(greedy) = above_greedy {
                return Err(TrieError::BelowGreedy(greedy));
            }
            let (child, is_greedy) = self.child(node, text, part)?;
            above_greedy = is_greedy.then(|| part.to_owned());
            node = child;
        }
        let route = &mut self.nodes[node as usize].route;
        if route.is_some() {
            return Err(TrieError::Duplicate(clip(text)));
        }
        *route = Some(self.routes);
        self.routes += 1;
        Ok(RouteIndex(self.routes - 1))
    }

    /// The child of a node for one part of a path, and whether the part is greedy.
    fn child(&mut self, node: u32, path: &str, part: &str) -> Result<(u32, bool), TrieError> {
        let next = self.nodes.len() as u32;
        let draft = &mut self.nodes[node as usize];
        let (child, is_greedy) = match Part::read(path, part)? {
            Part::Literal(literal) => (*draft.literals.entry(literal).or_insert(next), false),
            Part::Variable { greedy } => match &draft.variable {
                Some((existing, child)) if **existing == *part => (*child, greedy),
                Some((existing, _)) => return Err(TrieError::VariableSibling(existing.to_string())),
                None => {
                    draft.variable = Some((part.into(), next));
                    (next, greedy)
                }
            },
        };
        if child == next {
            self.nodes.push(Draft::default());
        }
        Ok((child, is_greedy))
    }

    /// Lays the routes out in flat arrays.
    pub fn finish(self) -> Trie {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let mut edges = Vec::new();
        let mut text = String::new();
        let mut hashed = Vec::new();
        for (at, draft) in self.nodes.iter().enumerate() {
            let first = edges.len();
            let mut literals: Vec<_> = draft.literals.iter().collect();
            literals.sort();
            for (literal, &child) in literals {
                let (parent, len) = (at as u32, literal.len() as u32);
                edges.push(Edge {
                    text: text.len() as u32,
                    len,
                    parent,
                    child,
                });
                text.push_str(literal);
            }
            let edge_count = edges.len() - first;
            if edge_count > LINEAR_MAX {
                hashed.extend(first..edges.len());
            }
            let (variable, greedy) = match &draft.variable {
                Some((part, child)) if part.ends_with("+}") => {
                    (NONE, self.nodes[*child as usize].route.unwrap_or(NONE))
                }
                Some((_, child)) => (*child, NONE),
                None => (NONE, NONE),
            };
            nodes.push(Node {
                edges: first as u32,
                edge_count: edge_count as u32,
                variable,
                greedy,
                route: draft.route.unwrap_or(NONE),
            });
        }
        let slots = slots(&hashed, &edges, text.as_bytes());
        Trie {
            nodes: nodes.into(),
            edges: edges.into(),
            text: text.into(),
            slots,
        }
    }
}

fn slots(hashed: &[usize], edges: &[Edge], text: &[u8]) -> Box<[u32]> {
    if hashed.is_empty() {
        return Box::default();
    }
    let mut slots = vec![NONE; (hashed.len() * 2).next_power_of_two()];
    let mask = slots.len() - 1;
    for &at in hashed {
        let edge = &edges[at];
        let segment = &text[edge.text as usize..(edge.text + edge.len) as usize];
        let mut slot = hash(edge.parent, segment) as usize & mask;
        while slots[slot] != NONE {
            slot = (slot + 1) & mask;
        }
        slots[slot] = at as u32;
    }
    slots.into()
}

enum Part {
    Literal(Box<str>),
    Variable { greedy: bool },
}

impl Part {
    fn read(path: &str, part: &str) -> Result<Part, TrieError> {
        if part.is_empty() {
            return Err(TrieError::EmptyPart(clip(path)));
        }
        let refused = || TrieError::Part {
            path: clip(path),
            part: clip(part),
        };
        if let Some(inner) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let name = inner.strip_suffix('+').unwrap_or(inner);
            if name.is_empty() || name.contains(['{', '}', '+']) {
                return Err(refused());
            }
            return Ok(Part::Variable {
                greedy: name.len() != inner.len(),
            });
        }
        if part.contains(['{', '}']) {
            return Err(refused());
        }
        let literal = path::normalize_segment(part);
        let literal = literal.map_err(|error| TrieError::Literal {
            path: clip(path),
            part: clip(part),
            error,
        })?;
        Ok(Part::Literal(literal.into()))
    }
}

/// What an error message quotes of a refused text.
fn clip(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests;
