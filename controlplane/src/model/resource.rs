//! A resource: one segment of a path, and where it hangs.

use serde::{Deserialize, Serialize};

use super::Refusal;

/// A resource, without its methods (they are entities of their own).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiResource {
    /// Six characters; ten for the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The resource above; absent for the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// One path segment: `pets`, `{petId}` or `{proxy+}`; absent for the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_part: Option<String>,
    /// The full path: `/pets/{petId}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl ApiResource {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &["id", "path", "resourceMethods"];

    /// The root of an API (OBV-054).
    pub fn root(id: String) -> Self {
        Self {
            id: Some(id),
            path: Some("/".into()),
            ..Self::default()
        }
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.parent_id.is_none()
    }

    /// The path of a child below `parent` (RES-036).
    pub fn child_path(parent: &str, part: &str) -> String {
        if parent == "/" {
            format!("/{part}")
        } else {
            format!("{parent}/{part}")
        }
    }
}

/// One path segment of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathPart<'a> {
    /// Matches itself.
    Literal(&'a str),
    /// `{name}`: matches one segment.
    Variable(&'a str),
    /// `{name+}`: matches the rest of the path.
    Greedy(&'a str),
}

impl<'a> PathPart<'a> {
    /// Reads a path part; refuses what can be no segment.
    pub fn parse(part: &'a str) -> Result<Self, Refusal> {
        let refuse = || {
            Refusal::bad_request(
                "Resource's path part only allow a-zA-Z0-9._-: or a valid greedy path variable and curly braces at the \
                 beginning and the end.",
            )
        };
        let named = |name: &'a str| {
            let valid = !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b));
            if valid { Ok(name) } else { Err(refuse()) }
        };
        match part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(inner) => match inner.strip_suffix('+') {
                Some(name) => Ok(Self::Greedy(named(name)?)),
                None => Ok(Self::Variable(named(inner)?)),
            },
            None => {
                // `~`, `%` and the sub-delimiters stand in paths of imported definitions as they are.
                let valid = !part.is_empty()
                    && part != "."
                    && part != ".."
                    && part
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"._-:~%$!'()*,;=@&+".contains(&b));
                if valid {
                    Ok(Self::Literal(part))
                } else {
                    Err(refuse())
                }
            }
        }
    }

    /// Whether it stands for more than itself.
    pub fn is_variable(self) -> bool {
        !matches!(self, Self::Literal(_))
    }
}

/// Refuses a part that cannot stand under this parent beside these siblings (OBV-061, OBV-062, OBV-063, RES-044).
pub fn check_place<'a>(
    part: &str,
    parent_part: Option<&str>,
    siblings: impl IntoIterator<Item = &'a str>,
) -> Result<(), Refusal> {
    let parsed = PathPart::parse(part)?;
    if let Some(parent) = parent_part
        && matches!(PathPart::parse(parent), Ok(PathPart::Greedy(_)))
    {
        return Err(Refusal::bad_request(format!(
            "Cannot create a child of a resource with a greedy path variable: {parent}"
        )));
    }
    for sibling in siblings {
        if sibling == part {
            return Err(Refusal::conflict(
                "Another resource with the same parent already has this name: ".to_owned() + part,
            ));
        }
        if parsed.is_variable() && PathPart::parse(sibling).is_ok_and(PathPart::is_variable) {
            return Err(Refusal::bad_request(format!(
                "A sibling ({sibling}) of this resource already has a variable path part -- only one is allowed"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-061: one variable part among siblings.
    #[test]
    fn one_variable_sibling() {
        let refusal = check_place("{dynamic}", None, ["{proxy+}"]).expect_err("refused");
        assert_eq!(
            refusal.message,
            "A sibling ({proxy+}) of this resource already has a variable path part -- only one is allowed"
        );
    }

    /// OBV-062, RES-044: nothing grows under a greedy part.
    #[test]
    fn no_child_of_greedy() {
        let refusal = check_place("child", Some("{proxy+}"), []).expect_err("refused");
        assert_eq!(
            refusal.message,
            "Cannot create a child of a resource with a greedy path variable: {proxy+}"
        );
    }

    /// OBV-063, RES-043: a literal beside a greedy part may hold its own.
    #[test]
    fn literal_beside_greedy() {
        assert_eq!(check_place("parent", None, ["{proxy+}"]), Ok(()));
        assert_eq!(check_place("{child+}", Some("parent"), []), Ok(()));
    }

    /// RES-036, RES-037, RES-040: forms and full paths.
    #[test]
    fn parts() {
        assert_eq!(PathPart::parse("{petId}"), Ok(PathPart::Variable("petId")));
        assert_eq!(PathPart::parse("{proxy+}"), Ok(PathPart::Greedy("proxy")));
        for wrong in ["", "a/b", "{a", "a}", "{}", "{+}", "..", "a b", "{a b}"] {
            assert!(PathPart::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(ApiResource::child_path("/", "pets"), "/pets");
        assert_eq!(ApiResource::child_path("/pets", "{petId}"), "/pets/{petId}");
    }
}
