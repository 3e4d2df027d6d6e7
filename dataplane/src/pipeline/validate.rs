//! A request against its method's validator: required parameters, then the body against its model.

use std::fmt::Write as _;

use tidegate_plan::Checks;
use tidegate_plan::checks::{Location, Required};
use tidegate_plan::path;

use super::exchange::{Detail, Exchange};
use super::failure::Failure;
use super::{body, probe};
use crate::http::Known;
use crate::integration::query;
use crate::shard::{Client, Gone};

/// Why a request goes no further.
pub(super) enum Refused {
    /// It does not pass.
    Failure(Failure),
    /// The client went while its body was waited for.
    Gone(Gone),
}

/// Makes the checks of the request's method (INT-144 to INT-152); what fails them never reaches the integration
/// (INT-148).
pub(super) async fn validate(x: &mut Exchange<'_>, client: &mut Client) -> Result<(), Refused> {
    let Some(stage) = x.stage.clone() else {
        return Ok(());
    };
    let method = x.place.and_then(|place| {
        let route = stage.plan(x.canary).routes().get(place.route as usize)?;
        route.methods().get(place.method as usize)
    });
    let Some(checks) = method.and_then(|method| method.checks.as_deref()) else {
        return Ok(());
    };
    if let Some(detail) = missing(x, checks) {
        x.detail = Some(detail);
        return Err(Refused::Failure(Failure::MISSING_PARAMETERS));
    }
    if checks.any_model() {
        body(x, client, checks).await?;
    }
    probe("validate", x, client);
    Ok(())
}

/// What is told of required parameters that are missing or blank: all of them in one message (INT-149, INT-O22).
fn missing(x: &Exchange<'_>, checks: &Checks) -> Option<Box<Detail>> {
    let mut absent = checks.required().iter().filter(|one| !is_there(x, one));
    let mut message = format!(
        "{}: [{}",
        Failure::MISSING_PARAMETERS.message,
        absent.next()?.name
    );
    for one in absent {
        // Writing to a String cannot fail.
        let _ = write!(message, ", {}", one.name);
    }
    message.push(']');
    let validation = message.clone();
    Some(Box::new(Detail { message, validation }))
}

/// Whether a parameter has a value, at least one of several, that is more than blanks (INT-144, INT-O24, INT-O29).
fn is_there(x: &Exchange<'_>, required: &Required) -> bool {
    let name = required.name.as_bytes();
    match required.location {
        Location::Path(capture) => capture
            .and_then(|at| x.capture(usize::from(at)))
            .is_some_and(|value| !is_blank(&path::decode(value.as_bytes(), false))),
        Location::Query => {
            query::all(x.query.unwrap_or_default(), name).any(|value| !is_blank(&path::decode(value, true)))
        }
        Location::Header => x
            .head
            .fields()
            .iter()
            .any(|field| field.name.eq_ignore_ascii_case(name) && !is_blank(field.value)),
    }
}

fn is_blank(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b' ' | b'\t'))
}

async fn body(x: &mut Exchange<'_>, client: &mut Client, checks: &Checks) -> Result<(), Refused> {
    // INT-O25: what names no type is JSON.
    let content_type = x.head.fields().get(Known::ContentType);
    let media_type = content_type.map_or("application/json".to_owned(), media_type);
    let Some(schema) = checks.model(&media_type) else {
        return Ok(());
    };
    body::take(x, client).await.map_err(Refused::Gone)?;
    // INT-O26: no body counts as an empty object.
    let text = match x.body.as_deref() {
        Some(body) if !body.is_empty() => body,
        _ => b"{}",
    };
    let (fits, why) = match serde_json::from_slice(text) {
        // INT-O27: what is no JSON fits no model.
        Err(error) => (false, format!("[the body is not JSON: {error}]")),
        Ok(value) if schema.accepts(&value) => (true, String::new()),
        Ok(value) => (false, schema.violations(&value)),
    };
    if fits {
        return Ok(());
    }
    x.detail = Some(Box::new(Detail {
        message: String::new(),
        validation: format!("Request body does not match model schema for content type {media_type}: {why}"),
    }));
    Err(Refused::Failure(Failure::INVALID_BODY))
}

/// The media type alone, in lower case, without its parameters (VTL-062, VTL-O09).
fn media_type(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
    String::from_utf8_lossy(value[..end].trim_ascii()).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INT-O24, INT-O25.
    #[test]
    fn blanks_and_media_types() {
        assert!(is_blank(b"") && is_blank(b" \t ") && !is_blank(b" x"));
        assert_eq!(
            media_type(b" Application/JSON ; charset=UTF-8"),
            "application/json"
        );
        assert_eq!(media_type(b"text/plain"), "text/plain");
        assert_eq!(media_type(b"\xff"), "\u{fffd}");
    }
}
