//! Names of entities: `restApis/{id}/resources/{id}/methods/{verb}` and the like.

use std::fmt;

use super::{Kind, Refusal};

/// What an entity is called within the store: its kind, what it lies in, and its own id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// The API, plan or domain it lies in; empty at the top.
    pub parent: String,
    /// Its id, unique within kind and parent. For a method `{resource id}/{verb}`.
    pub id: String,
}

/// A collection: entities of one kind in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// What it holds.
    pub kind: Kind,
    /// The API, plan or domain it lies in; empty at the top.
    pub parent: String,
    /// For methods: the resource.
    pub resource: Option<String>,
}

impl Key {
    /// A key at the top.
    pub fn top(kind: Kind, id: impl Into<String>) -> Self {
        Self {
            kind,
            parent: String::new(),
            id: id.into(),
        }
    }

    /// A key in an API, plan or domain.
    pub fn within(kind: Kind, parent: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            kind,
            parent: parent.into(),
            id: id.into(),
        }
    }

    /// The key of a method.
    pub fn method(api: &str, resource: &str, verb: &str) -> Self {
        Self::within(Kind::Method, api, format!("{resource}/{verb}"))
    }

    /// Reads a name as the Admin API has it. Ids are percent-decoded nowhere: they hold no slash, but for base paths,
    /// which take the rest of the name.
    pub fn parse(name: &str) -> Result<Self, Refusal> {
        let unknown = || {
            Refusal::bad_request(format!(
                "Invalid name: {name}. Names look like restApis/{{id}}/stages/{{name}}"
            ))
        };
        if name == "account" {
            return Ok(Self::top(Kind::Account, "account"));
        }
        let mut parts = name.splitn(4, '/');
        let (collection, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if id.is_empty() {
            return Err(unknown());
        }
        let (Some(below), Some(rest)) = (parts.next(), parts.next()) else {
            let kind = Kind::top_level(collection)
                .filter(|_| name.split('/').count() == 2)
                .ok_or_else(unknown)?;
            return Ok(Self::top(kind, id));
        };
        if collection == "restApis" && below == "resources" {
            let mut parts = rest.split('/');
            return match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(resource), None, None, None) if !resource.is_empty() => {
                    Ok(Self::within(Kind::ApiResource, id, resource))
                }
                (Some(resource), Some("methods"), Some(verb), None)
                    if !resource.is_empty() && !verb.is_empty() =>
                {
                    Ok(Self::method(id, resource, verb))
                }
                _ => Err(unknown()),
            };
        }
        let kind = Kind::below(collection, below).ok_or_else(unknown)?;
        if rest.is_empty() || (rest.contains('/') && kind != Kind::BasePathMapping) {
            return Err(unknown());
        }
        Ok(Self::within(kind, id, rest))
    }

    /// For a method: the resource it is on, and its verb.
    pub fn method_parts(&self) -> Option<(&str, &str)> {
        (self.kind == Kind::Method)
            .then(|| self.id.split_once('/'))
            .flatten()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, parent, id } = self;
        match (kind, self.method_parts(), kind.place()) {
            (Kind::Account, ..) => f.write_str("account"),
            (_, Some((resource, verb)), _) => {
                write!(f, "restApis/{parent}/resources/{resource}/methods/{verb}")
            }
            (_, None, (Some(above), own)) => write!(f, "{above}/{parent}/{own}/{id}"),
            (_, None, (None, own)) => write!(f, "{own}/{id}"),
        }
    }
}

impl Collection {
    /// Reads the name of a collection: `restApis`, `restApis/{id}/stages`.
    pub fn parse(name: &str) -> Result<Self, Refusal> {
        let unknown = || {
            Refusal::bad_request(format!(
                "Invalid collection: {name}. Collections look like restApis or restApis/{{id}}/stages"
            ))
        };
        let parts: Vec<&str> = name.split('/').collect();
        match parts.as_slice() {
            [top] => Ok(Self {
                kind: Kind::top_level(top).ok_or_else(unknown)?,
                parent: String::new(),
                resource: None,
            }),
            ["restApis", api, "resources", resource, "methods"]
                if !api.is_empty() && !resource.is_empty() =>
            {
                Ok(Self {
                    kind: Kind::Method,
                    parent: (*api).into(),
                    resource: Some((*resource).into()),
                })
            }
            [above, parent, below] if !parent.is_empty() => Ok(Self {
                kind: Kind::below(above, below).ok_or_else(unknown)?,
                parent: (*parent).into(),
                resource: None,
            }),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every name reads back as it was written.
    #[test]
    fn names_read_back() {
        for name in [
            "account",
            "restApis/a1",
            "restApis/a1/resources/r1",
            "restApis/a1/resources/r1/methods/GET",
            "restApis/a1/models/Pet",
            "restApis/a1/requestValidators/v1",
            "restApis/a1/authorizers/x",
            "restApis/a1/gatewayResponses/THROTTLED",
            "restApis/a1/documentationParts/p",
            "restApis/a1/documentationVersions/1",
            "restApis/a1/deployments/d",
            "restApis/a1/stages/prod",
            "apiKeys/k",
            "usagePlans/u",
            "usagePlans/u/keys/k",
            "domainNames/api.example.com",
            "domainNames/api.example.com/basePathMappings/v1/pets",
            "domainNameAccessAssociations/d",
            "clientCertificates/c",
            "vpcLinks/l",
            "bindings/b",
            "certificates/c",
            "principals/p",
        ] {
            assert_eq!(Key::parse(name).expect(name).to_string(), name);
        }
    }

    /// What is no name is refused with what names look like.
    #[test]
    fn wrong_names() {
        for name in [
            "",
            "restApis",
            "restApis/",
            "nosuch/a",
            "restApis/a/stages",
            "restApis/a/stages/",
            "restApis/a/stages/b/c",
            "restApis/a/resources/r/methods",
            "nodes/x",
        ] {
            assert!(Key::parse(name).is_err(), "{name}");
        }
        assert_eq!(
            Collection::parse("restApis/a/resources/r/methods")
                .expect("parses")
                .resource
                .as_deref(),
            Some("r")
        );
        assert!(Collection::parse("restApis/a").is_err());
    }
}
