//! Where cloud names lead on this installation (decision C9), as nodes need to know it.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::integration::{IntegrationError, Target};

/// What cloud names lead to, by name: a name itself, or how it begins (`*` behind it).
#[derive(Debug, Clone)]
pub struct Table<T> {
    names: HashMap<Box<str>, Arc<T>, ahash::RandomState>,
    /// By what stands before the `*`.
    beginnings: HashMap<Box<str>, Arc<T>, ahash::RandomState>,
    /// The lengths of beginnings, each once, the longest first.
    lengths: Vec<usize>,
}

impl<T> Table<T> {
    /// The target of a name: its own, else that of the longest beginning that fits.
    pub fn find(&self, name: &str) -> Option<&Arc<T>> {
        self.exact(name).or_else(|| {
            let fitting = self.lengths.iter().filter_map(|&length| name.get(..length));
            fitting
                .into_iter()
                .find_map(|beginning| self.beginnings.get(beginning))
        })
    }

    /// The target that is bound to a name itself.
    pub fn exact(&self, name: &str) -> Option<&Arc<T>> {
        self.names.get(name)
    }

    /// Binds a name, or a beginning followed by `*`.
    pub fn bind(&mut self, pattern: &str, target: Arc<T>) {
        let Some(beginning) = pattern.strip_suffix('*') else {
            self.names.insert(pattern.into(), target);
            return;
        };
        self.beginnings.insert(beginning.into(), target);
        if let Err(at) = self
            .lengths
            .binary_search_by(|length| beginning.len().cmp(length))
        {
            self.lengths.insert(at, beginning.len());
        }
    }

    /// All targets, in no order.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<T>> {
        self.names.values().chain(self.beginnings.values())
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            names: HashMap::default(),
            beginnings: HashMap::default(),
            lengths: Vec::new(),
        }
    }
}

/// Where requests of a bound name are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What is connected to.
    pub target: Target,
    /// What comes before the path of each request; without a slash at its end.
    pub path: Box<str>,
}

impl Endpoint {
    /// Checks an endpoint. `path` is empty or begins with a slash.
    ///
    /// # Errors
    /// When it cannot be connected to or asked for.
    pub fn new(target: Target, path: &str) -> Result<Self, IntegrationError> {
        let is_sendable = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\');
        if !path.is_empty() && !path.starts_with('/') {
            return Err(IntegrationError::PathStart(path.chars().take(60).collect()));
        }
        if !path.bytes().all(is_sendable) {
            return Err(IntegrationError::UriLiteral(path.chars().take(60).collect()));
        }
        Ok(Self {
            target,
            path: path.trim_end_matches('/').into(),
        })
    }
}

/// A function as this installation has it (RES-102).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The binding's id.
    pub binding: Box<str>,
    /// The name that is bound: an ARN, or its beginning and `*`.
    pub pattern: Box<str>,
    /// How it is invoked.
    pub kind: FunctionKind,
    /// The name of the credentials that sign invocations where the integration names none.
    pub credentials: Option<Box<str>>,
    /// Which methods may invoke it without credentials of their own, as ARNs with `*` and `?`; empty: all.
    pub allowed: Box<[Box<str>]>,
    /// How long an invocation runs at most.
    pub timeout: Option<Duration>,
}

/// How a function is invoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FunctionKind {
    /// By the Lambda Invoke API.
    Invoke(Endpoint),
    /// By a POST of the event, which is answered with the result.
    Url(Endpoint),
    /// By workers that ask for invocations at this address (the Lambda Runtime API).
    Runtime(RuntimeApi),
}

/// A function's own listener for its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuntimeApi {
    /// Where it listens.
    pub address: SocketAddr,
    /// Workers open a connection for every call, so that the end of one says nothing about the worker.
    pub separate_connections: bool,
}

impl Function {
    /// Whether a method may invoke it by the function's own permission (RES-098, RES-102). `source`: the method's ARN,
    /// made only where it matters.
    pub fn allows(&self, source: impl FnOnce() -> String) -> bool {
        if self.allowed.is_empty() {
            return true;
        }
        let source = source();
        self.allowed.iter().any(|pattern| matches(pattern, &source))
    }

    /// What connections are made to, where it is not the function that connects.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &self.kind {
            FunctionKind::Invoke(endpoint) | FunctionKind::Url(endpoint) => Some(endpoint),
            FunctionKind::Runtime(_) => None,
        }
    }
}

/// Whether a text is of a pattern in which `*` stands for any characters and `?` for one, as in resource ARNs of
/// policies.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star stands, and how much it took.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    p = *at + 1;
                    t = *taken;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// A function's name as given to the service: `arn:{partition}:lambda:{region}:{account}:function:{name}` with or
/// without `:{qualifier}`, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FunctionArn {
    text: Box<str>,
    /// Where the unqualified ARN ends.
    end: usize,
}

/// A text names no function.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no function's name or ARN")]
pub struct NoFunction(String);

impl FunctionArn {
    /// Takes an ARN, `{account}:function:{name}` or a name, each with or without a qualifier; what is left out is this
    /// region's and this account's.
    ///
    /// # Errors
    /// [`NoFunction`].
    pub fn parse(text: &str, region: &str, account: &str) -> Result<Self, NoFunction> {
        let no = || NoFunction(text.chars().take(120).collect());
        let parts: Vec<&str> = text.split(':').collect();
        let (partition, region, account, rest) = match parts.as_slice() {
            ["arn", partition, "lambda", region, account, "function", rest @ ..] => {
                (*partition, *region, *account, rest)
            }
            [account, "function", rest @ ..] => ("aws", region, *account, rest),
            rest => ("aws", region, account, rest),
        };
        let is_word = |word: &str, most: usize, more: &str| {
            (1..=most).contains(&word.len())
                && word
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c) || more.contains(c))
        };
        let (name, qualifier) = match rest {
            [name] => (*name, None),
            [name, qualifier] if is_word(qualifier, 128, "$") => (*name, Some(*qualifier)),
            _ => return Err(no()),
        };
        let is_known = is_word(partition, 32, "")
            && is_word(region, 32, "")
            && account.len() == 12
            && account.bytes().all(|b| b.is_ascii_digit())
            && is_word(name, 140, "");
        if !is_known {
            return Err(no());
        }
        let mut text = format!("arn:{partition}:lambda:{region}:{account}:function:{name}");
        let end = text.len();
        if let Some(qualifier) = qualifier {
            text.push(':');
            text.push_str(qualifier);
        }
        Ok(Self {
            text: text.into(),
            end,
        })
    }

    /// The ARN, with its qualifier if there is one.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The ARN without its qualifier.
    pub fn unqualified(&self) -> &str {
        &self.text[..self.end]
    }

    /// The version or alias.
    pub fn qualifier(&self) -> Option<&str> {
        self.text.get(self.end + 1..)
    }

    /// The function's name.
    pub fn name(&self) -> &str {
        self.part(6)
    }

    /// The region it is in.
    pub fn region(&self) -> &str {
        self.part(3)
    }

    fn part(&self, at: usize) -> &str {
        self.unqualified().split(':').nth(at).unwrap_or_default()
    }
}

impl fmt::Display for FunctionArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C9: the name itself, then the longest beginning.
    #[test]
    fn the_longest_fit_wins() {
        let mut table = Table::default();
        assert_eq!(table.find("a"), None);
        for (pattern, target) in [("ab*", 1), ("*", 0), ("abc", 3), ("abcd*", 4)] {
            table.bind(pattern, Arc::new(target));
        }
        let found = |name| **table.find(name).unwrap();
        assert_eq!(
            ["", "b", "ab", "abc", "abcx", "abcd", "abcde"].map(found),
            [0, 0, 1, 3, 1, 4, 4]
        );
        // A beginning that would end within a character fits nothing.
        assert_eq!(found("a\u{e9}"), 0);
        assert_eq!(table.targets().count(), 4);
        table.bind("ab*", Arc::new(7));
        assert_eq!(**table.find("abx").unwrap(), 7);
    }

    /// RES-095, RES-099: what is left out is the installation's; OBV-220: qualifiers.
    #[test]
    fn names_of_functions() {
        let arn = |text| FunctionArn::parse(text, "eu-west-1", "000000000000");
        for (text, full, qualifier) in [
            (
                "hello",
                "arn:aws:lambda:eu-west-1:000000000000:function:hello",
                None,
            ),
            (
                "hello:prod",
                "arn:aws:lambda:eu-west-1:000000000000:function:hello:prod",
                Some("prod"),
            ),
            (
                "111122223333:function:hello",
                "arn:aws:lambda:eu-west-1:111122223333:function:hello",
                None,
            ),
            (
                "arn:aws-cn:lambda:cn-north-1:111122223333:function:hello:$LATEST",
                "arn:aws-cn:lambda:cn-north-1:111122223333:function:hello:$LATEST",
                Some("$LATEST"),
            ),
        ] {
            let parsed = arn(text).unwrap();
            assert_eq!((parsed.as_str(), parsed.qualifier()), (full, qualifier), "{text}");
            assert_eq!(parsed.name(), "hello");
            assert!(full.starts_with(parsed.unqualified()));
        }
        for wrong in [
            "",
            "a b",
            "hello:",
            "hello:a:b",
            "arn:aws:lambda:eu-west-1:0:function:hello",
            "arn:aws:sqs:eu-west-1:000000000000:hello",
            "arn:aws:lambda:eu-west-1:000000000000:function:",
            "${stageVariables.f}",
        ] {
            assert!(arn(wrong).is_err(), "{wrong}");
        }
    }

    /// RES-102: an allow list of the ARNs of methods.
    #[test]
    fn whom_a_function_lets_invoke_it() {
        let method = "arn:aws:execute-api:us-east-1:000000000000:a1/prod/GET/pets/*";
        for (pattern, fits) in [
            ("*", true),
            ("arn:aws:execute-api:us-east-1:000000000000:a1/*/GET/pets/*", true),
            ("arn:aws:execute-api:*:a?/*", true),
            ("arn:aws:execute-api:*:a1/prod/POST/*", false),
            ("arn:aws:execute-api:*:a1", false),
            ("", false),
        ] {
            assert_eq!(matches(pattern, method), fits, "{pattern}");
        }
        assert!(matches("a*b*c", "aXbYbZc") && !matches("a*b*c", "aXbYbZ"));
        let mut function = Function {
            binding: "b".into(),
            pattern: "x".into(),
            kind: FunctionKind::Runtime(RuntimeApi {
                address: ([127, 0, 0, 1], 1).into(),
                separate_connections: false,
            }),
            credentials: None,
            allowed: Box::default(),
            timeout: None,
        };
        assert!(function.allows(|| unreachable!("nothing to compare with")));
        function.allowed = ["arn:aws:execute-api:*:a1/*".into()].into();
        assert!(function.allows(|| method.to_owned()));
        assert!(!function.allows(|| method.replace(":a1/", ":b2/")));
    }

    #[test]
    fn endpoints() {
        let target = Target::new("https", "lambda.example", 0, false).unwrap();
        let path = |path| Endpoint::new(target.clone(), path).map(|endpoint| endpoint.path.to_string());
        assert_eq!(path("").as_deref(), Ok(""));
        assert_eq!(path("/").as_deref(), Ok(""));
        assert_eq!(path("/base/?x=1").as_deref(), Ok("/base/?x=1"));
        assert!(path("base").is_err() && path("/a b").is_err() && path("/a#b").is_err());
    }
}
