//! Backend URLs: stage variables put in, parts taken apart, placeholders found.

use std::collections::BTreeMap;

use tidegate_proto::config::v1::{UriPart, uri_part};

/// A backend URL taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Backend {
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// Without port; IPv6 literals without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: Vec<UriPart>,
    /// The names of the placeholders.
    pub(super) placeholders: Vec<String>,
}

/// Puts the values of stage variables in the place of `${stageVariables.name}`. A variable that is not there leaves
/// nothing; what is no well-formed reference stays as it is (OBV-286, OBV-287). Values go in verbatim: they may hold
/// host, path and query.
pub(super) fn substitute(uri: &str, variables: &BTreeMap<String, String>) -> String {
    const START: &str = "${stageVariables.";
    let mut out = String::with_capacity(uri.len());
    let mut rest = uri;
    while let Some(at) = rest.find(START) {
        let (before, reference) = rest.split_at(at);
        out.push_str(before);
        let inner = &reference[START.len()..];
        let name = inner
            .split_once('}')
            .map(|(name, _)| name)
            .filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        match name {
            Some(name) => {
                out.push_str(variables.get(name).map_or("", String::as_str));
                rest = &inner[name.len() + 1..];
            }
            None => {
                out.push_str(START);
                rest = inner;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Whether the URI refers to a stage variable.
pub(super) fn has_variables(uri: &str) -> bool {
    uri.contains("${stageVariables.")
}

/// Takes a URL apart; the error says why it leads nowhere.
pub(super) fn parse(uri: &str) -> Result<Backend, String> {
    let (scheme, rest) = uri.split_once("://").ok_or("the URI is no URL")?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => "http",
        "https" => "https",
        _ => return Err(format!("the scheme {scheme} is neither http nor https")),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = authority_parts(authority)?;
    let port = match port {
        None => {
            if scheme == "http" {
                80
            } else {
                443
            }
        }
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or(format!("{port} is no port"))?,
    };
    let path = path.split('#').next().unwrap_or_default();
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    if let Some(bad) = path
        .chars()
        .find(|c| c.is_ascii_control() || *c == ' ' || *c == '\\' || !c.is_ascii())
    {
        return Err(format!("the URI holds {bad:?}, which must be percent-encoded"));
    }
    let (path, placeholders) = parts(&path);
    Ok(Backend {
        scheme,
        host,
        port,
        path,
        placeholders,
    })
}

fn authority_parts(authority: &str) -> Result<(String, Option<&str>), String> {
    if authority.contains('@') {
        return Err("the URI holds user information, which backends do not get".into());
    }
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or("the IPv6 address is not closed")?;
        address
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| format!("{address} is no IPv6 address"))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((address.into(), Some(port))),
            None if after.is_empty() => Ok((address.into(), None)),
            None => Err(format!("{authority} is no host")),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let named = !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if named {
        Ok((host.to_ascii_lowercase(), port))
    } else {
        Err(format!("{authority:?} is no host"))
    }
}

/// Cuts a path at its placeholders; `{name+}` means `{name}`. Braces that hold no name are text, percent-encoded.
fn parts(path: &str) -> (Vec<UriPart>, Vec<String>) {
    let (mut parts, mut names) = (Vec::new(), Vec::new());
    let mut literal = String::new();
    let mut rest = path;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        literal.push_str(before);
        let inner = &brace[1..];
        let name = brace
            .starts_with('{')
            .then(|| inner.split_once('}'))
            .flatten()
            .map(|(name, _)| name)
            .filter(|name| {
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"._-:+".contains(&b))
            });
        match name {
            Some(name) => {
                if !literal.is_empty() {
                    parts.push(part(uri_part::Part::Literal(std::mem::take(&mut literal))));
                }
                let plain = name.strip_suffix('+').unwrap_or(name);
                parts.push(part(uri_part::Part::PathParameter(plain.into())));
                names.push(plain.to_owned());
                rest = &inner[name.len() + 1..];
            }
            None => {
                literal.push_str(if brace.starts_with('{') { "%7B" } else { "%7D" });
                rest = inner;
            }
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(part(uri_part::Part::Literal(literal)));
    }
    (parts, names)
}

fn part(part: uri_part::Part) -> UriPart {
    UriPart { part: Some(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [("url", "httpbin.org/get"), ("stageName", "beta"), ("sub", "api")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    /// DEP-094, DEP-095, OBV-286, OBV-287: every place of a URL, several in one, none, and malformed ones.
    #[test]
    fn stage_variables() {
        for (uri, expected) in [
            ("http://${stageVariables.url}", "http://httpbin.org/get"),
            (
                "http://${stageVariables.url}?stageName=${stageVariables.stageName}",
                "http://httpbin.org/get?stageName=beta",
            ),
            (
                "http://${stageVariables.sub}.example.com/${stageVariables.none}/x",
                "http://api.example.com//x",
            ),
            (
                "http://example.com/${stageVariables.path\\}",
                "http://example.com/${stageVariables.path\\}",
            ),
            (
                "http://example.com/${stageVariables.",
                "http://example.com/${stageVariables.",
            ),
        ] {
            assert_eq!(substitute(uri, &variables()), expected, "{uri}");
        }
    }

    /// OBV-234, OBV-288: the configured URI with its placeholders.
    #[test]
    fn backends() {
        let backend = parse("https://Example.com:8443/pets/{petId}/x?limit=1").expect("parses");
        assert_eq!(
            (backend.scheme, backend.host.as_str(), backend.port),
            ("https", "example.com", 8443)
        );
        assert_eq!(backend.placeholders, ["petId"]);
        assert_eq!(
            backend.path,
            [
                part(uri_part::Part::Literal("/pets/".into())),
                part(uri_part::Part::PathParameter("petId".into())),
                part(uri_part::Part::Literal("/x?limit=1".into())),
            ]
        );
        assert_eq!(parse("http://[::1]:80/").expect("parses").host, "::1");
        assert_eq!(
            parse("http://a?x=1").expect("parses").path,
            [part(uri_part::Part::Literal("/?x=1".into()))]
        );
        assert_eq!(
            parse("http://a/{proxy+}").expect("parses").placeholders,
            ["proxy"]
        );
        for wrong in [
            "http:///x",
            "http://",
            "ftp://a/",
            "http://a b/",
            "http://u:p@a/",
            "http://a:0/",
            "http://a:99999/",
            "http://{host}/",
            "http://[::1/",
            "http://a/\u{e9}",
            "http://a/x y",
            "a/b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
