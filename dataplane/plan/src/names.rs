//! Ids, stage names, HTTP methods and status codes.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// Why a text is not the name it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{value}` is not a valid {what}: {rule}")]
pub struct NameError {
    what: &'static str,
    rule: &'static str,
    value: String,
}

impl NameError {
    pub(crate) fn new(what: &'static str, rule: &'static str, value: &str) -> Self {
        // A refused value may be anything; an error message stays short.
        NameError {
            what,
            rule,
            value: value.chars().take(120).collect(),
        }
    }
}

/// The id of an API: lower-case letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiId(Arc<str>);

/// The id of a resource within an API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId(Arc<str>);

/// The id of a deployment within an API.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeploymentId(Arc<str>);

/// A stage's name: letters, digits, hyphen and underscore, at most 128 (QUO-106).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageName(Arc<str>);

/// The account an API belongs to, as it stands in ARNs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Arc<str>);

/// The region an API belongs to, as it stands in host names and ARNs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(Arc<str>);

impl ApiId {
    /// Takes 1 to 63 lower-case letters, digits or hyphens: the id is a host label.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let rule = "1 to 63 lower-case letters, digits or hyphens";
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        check("API id", rule, text, 63, fits).map(ApiId)
    }
}

impl ResourceId {
    /// Takes 1 to 64 letters, digits, hyphens or underscores.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check("resource id", ID_RULE, text, 64, is_id_byte).map(ResourceId)
    }
}

impl DeploymentId {
    /// Takes 1 to 64 letters, digits, hyphens or underscores.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check("deployment id", ID_RULE, text, 64, is_id_byte).map(DeploymentId)
    }
}

impl StageName {
    /// Takes 1 to 128 letters, digits, hyphens or underscores, or `$default`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "$default" {
            return Ok(StageName(text.into()));
        }
        let rule = "1 to 128 letters, digits, hyphens or underscores";
        check("stage name", rule, text, 128, is_id_byte).map(StageName)
    }
}

impl AccountId {
    /// Takes exactly 12 digits.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let rule = "exactly 12 digits";
        if text.len() != 12 {
            return Err(NameError::new("account id", rule, text));
        }
        check("account id", rule, text, 12, |b| b.is_ascii_digit()).map(AccountId)
    }
}

impl Region {
    /// Takes 1 to 63 lower-case letters, digits or hyphens: the region is a host label.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let rule = "1 to 63 lower-case letters, digits or hyphens";
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        check("region", rule, text, 63, fits).map(Region)
    }
}

const ID_RULE: &str = "1 to 64 letters, digits, hyphens or underscores";

fn is_id_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

fn check(
    what: &'static str,
    rule: &'static str,
    text: &str,
    longest: usize,
    fits: impl Fn(u8) -> bool,
) -> Result<Arc<str>, NameError> {
    if text.is_empty() || text.len() > longest || !text.bytes().all(fits) {
        return Err(NameError::new(what, rule, text));
    }
    Ok(text.into())
}

macro_rules! text_form {
    ($($name:ident),*) => {$(
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name as shared text, for records that outlive the plan.
            pub fn shared(&self) -> Arc<str> {
                self.0.clone()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                $name::parse(text)
            }
        }
    )*};
}

text_form!(ApiId, ResourceId, DeploymentId, StageName, AccountId, Region);

/// An HTTP method that an API can answer (RES-049). Any other is refused like an unknown path (RES-050).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Verb {
    /// `DELETE`
    Delete,
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `OPTIONS`
    Options,
    /// `PATCH`
    Patch,
    /// `POST`
    Post,
    /// `PUT`
    Put,
}

impl Verb {
    /// Every method, in alphabetical order.
    pub const ALL: [Verb; 7] = [
        Verb::Delete,
        Verb::Get,
        Verb::Head,
        Verb::Options,
        Verb::Patch,
        Verb::Post,
        Verb::Put,
    ];

    /// Reads a method token; methods are case-sensitive (RFC 9110 section 9.1).
    pub fn from_token(token: &[u8]) -> Option<Verb> {
        Some(match token {
            b"GET" => Verb::Get,
            b"POST" => Verb::Post,
            b"PUT" => Verb::Put,
            b"DELETE" => Verb::Delete,
            b"PATCH" => Verb::Patch,
            b"HEAD" => Verb::Head,
            b"OPTIONS" => Verb::Options,
            _ => return None,
        })
    }

    /// The method as written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Delete => "DELETE",
            Verb::Get => "GET",
            Verb::Head => "HEAD",
            Verb::Options => "OPTIONS",
            Verb::Patch => "PATCH",
            Verb::Post => "POST",
            Verb::Put => "PUT",
        }
    }

    /// Whether repeating the request has the effect of sending it once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Verb::Post | Verb::Patch)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which requests a method of a resource takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MethodKey {
    /// Requests with this HTTP method.
    Verb(Verb),
    /// Every supported HTTP method that no other method of the resource takes (RES-049).
    Any,
}

impl MethodKey {
    /// Reads an API method's `httpMethod`: one of the verbs or `ANY`, in upper case (RES-053).
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "ANY" {
            return Ok(MethodKey::Any);
        }
        Verb::from_token(text.as_bytes())
            .map(MethodKey::Verb)
            .ok_or_else(|| {
                NameError::new(
                    "HTTP method",
                    "one of GET,PUT,POST,DELETE,PATCH,OPTIONS,HEAD,ANY",
                    text,
                )
            })
    }

    /// The key as it stands in definitions, logs and ARNs.
    pub fn as_str(self) -> &'static str {
        match self {
            MethodKey::Verb(verb) => verb.as_str(),
            MethodKey::Any => "ANY",
        }
    }
}

impl fmt::Display for MethodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status of a final response: 200 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status(u16);

impl Status {
    /// 200.
    pub const OK: Status = Status(200);

    /// 500.
    pub const INTERNAL_SERVER_ERROR: Status = Status(500);

    /// Takes 200 to 599. Informational responses are never an answer of their own.
    pub fn new(code: u32) -> Result<Self, NameError> {
        match u16::try_from(code) {
            Ok(code @ 200..=599) => Ok(Status(code)),
            _ => Err(NameError::new("status", "200 to 599", &code.to_string())),
        }
    }

    /// The code as a number.
    pub fn code(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QUO-106
    #[test]
    fn stage_names_hold_letters_digits_hyphens_and_underscores() {
        for good in ["prod", "v1", "a-b_c", "$default", &"s".repeat(128)] {
            assert_eq!(StageName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "a b", "a.b", "é", "$other", &"s".repeat(129)] {
            assert!(StageName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_api_id_is_a_host_label() {
        assert!(ApiId::parse("a1b2c3d4e5").is_ok());
        for bad in ["", "A1", "a.b", "a/b", &"a".repeat(64)] {
            assert!(ApiId::parse(bad).is_err(), "{bad}");
        }
    }

    /// RES-049, RES-050, RES-053
    #[test]
    fn verbs_are_the_seven_of_the_service_and_case_sensitive() {
        for verb in Verb::ALL {
            assert_eq!(Verb::from_token(verb.as_str().as_bytes()), Some(verb));
        }
        for bad in ["get", "TRACE", "CONNECT", "", "GETT"] {
            assert_eq!(Verb::from_token(bad.as_bytes()), None);
        }
        assert_eq!(MethodKey::parse("ANY"), Ok(MethodKey::Any));
        assert!(MethodKey::parse("any").is_err());
    }

    #[test]
    fn a_status_is_a_final_one() {
        assert!(Status::new(199).is_err() && Status::new(600).is_err() && Status::new(70_000).is_err());
        assert_eq!(Status::new(204).unwrap().code(), 204);
    }

    #[test]
    fn an_error_quotes_no_more_than_a_line_of_what_it_refuses() {
        let error = StageName::parse(&"/".repeat(10_000)).unwrap_err();
        assert!(error.to_string().len() < 300);
    }
}
