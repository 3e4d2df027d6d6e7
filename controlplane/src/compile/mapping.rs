//! Parameter mappings of integration requests and responses.

use std::collections::BTreeMap;

use tidegate_plan::integration::BodyPath;
use tidegate_proto::config::v1::{HeaderMapping, ParameterLocation, ParameterMapping};

/// Headers that fail every call when they are mapped (OBV-255).
const FATAL: [&str; 2] = ["content-length", "transfer-encoding"];

/// Reads the request parameters of an integration; the error says which one cannot work.
pub(super) fn request(parameters: &BTreeMap<String, String>) -> Result<Vec<ParameterMapping>, String> {
    parameters
        .iter()
        .map(|(target, source)| one(target, source))
        .collect()
}

fn one(target: &str, source: &str) -> Result<ParameterMapping, String> {
    let unknown = || format!("request parameter {target} = {source} is not supported");
    let (location, name) = target
        .strip_prefix("integration.request.")
        .and_then(|rest| rest.split_once('.'))
        .ok_or_else(unknown)?;
    let target_location = match location {
        "path" => ParameterLocation::Path,
        "querystring" => ParameterLocation::Query,
        "header" if FATAL.contains(&name.to_ascii_lowercase().as_str()) => {
            return Err(format!("request parameter {target} fails every call"));
        }
        "header" => ParameterLocation::Header,
        _ => return Err(unknown()),
    };
    let (source_location, source_name) = source_of(source).ok_or_else(unknown)?;
    Ok(ParameterMapping {
        target: target_location.into(),
        target_name: name.into(),
        source: source_location.into(),
        source_name: source_name.into(),
    })
}

fn source_of(source: &str) -> Option<(ParameterLocation, &str)> {
    if let Some(literal) = literal(source) {
        return Some((ParameterLocation::Literal, literal));
    }
    if let Some(name) = source.strip_prefix("stageVariables.") {
        return Some((ParameterLocation::StageVariable, name));
    }
    if let Some(name) = source.strip_prefix("context.") {
        return Some((ParameterLocation::Context, name));
    }
    let rest = source.strip_prefix("method.request.")?;
    if let Some(place) = body(rest) {
        return place;
    }
    let (location, name) = rest.split_once('.')?;
    let location = match location {
        "path" => ParameterLocation::Path,
        "querystring" => ParameterLocation::Query,
        "multivaluequerystring" => ParameterLocation::Queries,
        "header" => ParameterLocation::Header,
        "multivalueheader" => ParameterLocation::Headers,
        _ => return None,
    };
    (!name.is_empty()).then_some((location, name))
}

/// `body` or `body.{JSONPath}`; the inner `None`: it is no path.
fn body(rest: &str) -> Option<Option<(ParameterLocation, &str)>> {
    if rest == "body" {
        return Some(Some((ParameterLocation::Body, "")));
    }
    let path = rest.strip_prefix("body.").or_else(|| {
        // A path may begin with an index: `body[0].name`.
        rest.strip_prefix("body").filter(|rest| rest.starts_with('['))
    })?;
    let place = BodyPath::parse(path).is_ok();
    Some(place.then_some((ParameterLocation::BodyPath, path)))
}

/// Whether a gateway response may take a header's value from there (GWR-011 to GWR-013).
pub(super) fn is_gateway_source(source: &str) -> bool {
    let of_request = |rest: &str| {
        let name = rest.split_once('.').filter(|(location, _)| {
            matches!(
                *location,
                "header" | "path" | "querystring" | "multivalueheader" | "multivaluequerystring"
            )
        });
        name.is_some_and(|(_, name)| !name.is_empty())
    };
    let named = |prefix: &str| source.strip_prefix(prefix).is_some_and(|name| !name.is_empty());
    source.strip_prefix("method.request.").is_some_and(of_request)
        || named("method.input.params.")
        || named("context.")
        || named("stageVariables.")
}

/// Whether a mapping needs more of a request than its head.
pub(super) fn is_rich(mapping: &ParameterMapping) -> bool {
    use ParameterLocation::{Body, BodyPath, Headers, Queries};
    matches!(mapping.source(), Queries | Headers | Body | BodyPath)
}

/// Reads one response parameter (VTL-120 to VTL-124, OBV-285); the error says that it cannot work.
pub(super) fn response(target: &str, source: &str) -> Result<HeaderMapping, String> {
    let unknown = || format!("response parameter {target} = {source} is not supported");
    let name = target
        .strip_prefix("method.response.header.")
        .ok_or_else(unknown)?;
    let of_response = |source: &'_ str| {
        let rest = source.strip_prefix("integration.response.")?;
        if let Some(place) = body(rest) {
            return place.map(|(location, path)| (location, path.to_owned()));
        }
        let (location, name) = rest.split_once('.')?;
        let location = match location {
            "header" => ParameterLocation::Header,
            // VTL-O26: written both ways.
            "multivalueheader" | "multivalueheaders" => ParameterLocation::Headers,
            _ => return None,
        };
        (!name.is_empty()).then_some((location, name.to_owned()))
    };
    let common = match source_of(source) {
        Some((
            location @ (ParameterLocation::Literal
            | ParameterLocation::StageVariable
            | ParameterLocation::Context),
            name,
        )) => Some((location, name.to_owned())),
        _ => None,
    };
    let (source, source_name) = common.or_else(|| of_response(source)).ok_or_else(unknown)?;
    Ok(HeaderMapping {
        name: name.into(),
        source: source.into(),
        source_name,
    })
}

/// A value in single quotes (GWR-010).
pub(super) fn literal(expression: &str) -> Option<&str> {
    expression.strip_prefix('\'')?.strip_suffix('\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-285, RES-149, RES-150: the sources; DEP-097: no mixing; OBV-255: headers that fail every call.
    #[test]
    fn sources() {
        let map = |target: &str, source: &str| {
            request(&BTreeMap::from([(target.to_owned(), source.to_owned())])).map(|mut all| all.remove(0))
        };
        let mapping = map("integration.request.path.id", "method.request.path.petId").expect("maps");
        assert_eq!(
            (mapping.target(), mapping.source()),
            (ParameterLocation::Path, ParameterLocation::Path)
        );
        assert_eq!(
            (mapping.target_name.as_str(), mapping.source_name.as_str()),
            ("id", "petId")
        );
        let mapping = map("integration.request.header.X-Amz-Invocation-Type", "'Event'").expect("maps");
        assert_eq!(
            (mapping.source(), mapping.source_name.as_str()),
            (ParameterLocation::Literal, "Event")
        );
        let mapping = map("integration.request.querystring.v", "stageVariables.version").expect("maps");
        assert_eq!(mapping.source(), ParameterLocation::StageVariable);
        let mapping = map("integration.request.header.ip", "context.identity.sourceIp").expect("maps");
        assert_eq!(
            (mapping.source(), mapping.source_name.as_str()),
            (ParameterLocation::Context, "identity.sourceIp")
        );
        for (target, source) in [
            ("integration.request.header.content-length", "'1'"),
            ("integration.request.header.Transfer-Encoding", "'chunked'"),
            ("integration.request.header.a", "prefix stageVariables.version"),
            ("integration.request.header.a", "method.request.body.[?("),
            ("integration.request.header.a", "method.request.cookie.a"),
        ] {
            assert!(map(target, source).is_err(), "{target} {source}");
        }
    }
}
