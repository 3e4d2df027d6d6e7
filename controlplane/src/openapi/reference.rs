//! `$ref` within the document.

use serde_json::{Map, Value};

use super::{context::Context, error::ImportError};

/// Follows `$ref` from `value` until something else stands there. `None`: it leads out of the document or nowhere,
/// which is a warning (OAP-048). A reference that comes back to itself is refused with its path.
pub(super) fn resolve<'a>(
    context: &mut Context<'a>,
    place: &str,
    value: &'a Value,
) -> Result<Option<&'a Value>, ImportError> {
    let mut current = value;
    let mut path: Vec<String> = Vec::new();
    while let Some(reference) = target(current) {
        if let Some(start) = path.iter().position(|seen| seen == reference) {
            let mut cycle = path.split_off(start);
            cycle.push(reference.to_owned());
            return Err(ImportError::Cycle { path: cycle });
        }
        if path.len() >= MAX_HOPS {
            context.warn(format!(
                "{place}: more than {MAX_HOPS} references in a row from `{reference}`; not followed"
            ));
            return Ok(None);
        }
        path.push(reference.to_owned());
        match lookup(context.root, reference) {
            Some(found) => current = found,
            None if reference.starts_with('#') => {
                context.warn(format!("{place}: `{reference}` is not in the document"));
                return Ok(None);
            }
            None => {
                context.warn(format!(
                    "{place}: `{reference}` is outside the document; such references are not followed"
                ));
                return Ok(None);
            }
        }
    }
    if !path.is_empty() {
        context.unfold(current)?;
    }
    Ok(Some(current))
}

/// As [`resolve`], for places where an object must stand.
pub(super) fn resolve_object<'a>(
    context: &mut Context<'a>,
    place: &str,
    value: &'a Value,
) -> Result<Option<&'a Map<String, Value>>, ImportError> {
    match resolve(context, place, value)? {
        Some(Value::Object(members)) => Ok(Some(members)),
        Some(Value::Null) | None => Ok(None),
        Some(_) => {
            context.warn(format!("{place}: an object is expected here; not imported"));
            Ok(None)
        }
    }
}

/// Where a value refers to, if it is a reference.
pub(super) fn target(value: &Value) -> Option<&str> {
    value.as_object()?.get("$ref")?.as_str()
}

/// The value at a local reference (RFC 6901 in a URI fragment).
fn lookup<'a>(root: &'a Map<String, Value>, reference: &str) -> Option<&'a Value> {
    let pointer = reference.strip_prefix("#/")?;
    let mut parts = pointer.split('/').map(unescape);
    let mut current = root.get(&parts.next()?)?;
    for part in parts {
        current = match current {
            Value::Object(members) => members.get(&part)?,
            Value::Array(list) => list.get(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(current)
}

/// Undoes percent-encoding and then `~1` and `~0`.
fn unescape(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |byte: u8| char::from(byte).to_digit(16);
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                let value = hex(*high).unwrap_or(0) * 16 + hex(*low).unwrap_or(0);
                bytes.push(u8::try_from(value).unwrap_or(b'?'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes)
        .replace("~1", "/")
        .replace("~0", "~")
}

/// References in a row that are followed; real documents have one or two.
const MAX_HOPS: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{ImportOptions, context::Version},
        *,
    };

    fn run(root: Value) -> Result<Option<Value>, ImportError> {
        let options = ImportOptions::default();
        let members = root.as_object().expect("an object");
        let mut context = Context::new(members, Version::OpenApi3, &options);
        resolve(&mut context, "start", &members["start"]).map(|found| found.cloned())
    }

    #[test]
    fn references_are_followed() {
        let root = json!({"start": {"$ref": "#/a~1b/c%20d"}, "a/b": {"c d": {"$ref": "#/end/1"}}, "end": [0, {"x": 1}]});
        assert_eq!(run(root), Ok(Some(json!({"x": 1}))));
        assert_eq!(run(json!({"start": {"$ref": "#/missing"}})), Ok(None));
        assert_eq!(run(json!({"start": {"$ref": "other.yaml#/a"}})), Ok(None));
    }

    #[test]
    fn a_cycle_is_refused_with_its_path() {
        let root = json!({"start": {"$ref": "#/a"}, "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}});
        let error = run(root).expect_err("a cycle");
        assert_eq!(
            error.to_string(),
            "a reference leads back to itself: #/a -> #/b -> #/a"
        );
    }
}
