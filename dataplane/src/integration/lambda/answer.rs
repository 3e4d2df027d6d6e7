//! What a function answers to the Lambda proxy integration (RES-133 to RES-142; OBV-211 to OBV-213).

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate_plan::header::is_value;
use tidegate_plan::{HeaderName, Status};

/// An answer, as the client is to get it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// In the function's order, without those that both maps hold.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// The function's result is not of the form that the integration knows: 502 (RES-139).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The form. OBV-213: a member that it does not know spoils it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Form {
    status_code: Option<Value>,
    headers: Option<Map<String, Value>>,
    multi_value_headers: Option<Map<String, Value>>,
    body: Option<String>,
    is_base64_encoded: Option<bool>,
}

/// Reads a function's result. `binary`: the client asked for a media type that the API calls binary (GWR-107), by which
/// alone a body in base64 is decoded (RES-138).
pub(super) fn read(result: &[u8], binary: bool) -> Result<Answer, Malformed> {
    // Only an object: serde would take a list for the members in order.
    let object: Map<String, Value> = serde_json::from_slice(result).map_err(|_| Malformed)?;
    let empty = object.is_empty();
    let form: Form = serde_json::from_value(Value::Object(object)).map_err(|_| Malformed)?;
    let status = match form.status_code {
        // OBV-211.
        None if empty => 200,
        Some(Value::Number(number)) => number.as_u64().ok_or(Malformed)?,
        Some(Value::String(digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map_err(|_| Malformed)?
        }
        _ => return Err(Malformed),
    };
    let status = u32::try_from(status)
        .ok()
        .and_then(|status| Status::new(status).ok());
    let status = status
        .map(Status::code)
        .filter(|status| *status >= 200)
        .ok_or(Malformed)?;
    let text = form.body.unwrap_or_default();
    let body = match form.is_base64_encoded.unwrap_or(false) && binary {
        false => text.into_bytes(),
        true => decode(text)?,
    };
    Ok(Answer {
        status,
        headers: merge(
            form.headers.unwrap_or_default(),
            form.multi_value_headers.unwrap_or_default(),
        )?,
        body,
    })
}

/// RES-136: one list of both; what is in both is there once.
fn merge(
    single: Map<String, Value>,
    multiple: Map<String, Value>,
) -> Result<Vec<(String, String)>, Malformed> {
    let mut all = Vec::with_capacity(multiple.len());
    for (name, values) in multiple {
        match values {
            Value::Null => {}
            Value::Array(values) => {
                for value in values {
                    all.extend(header(&name, value)?);
                }
            }
            _ => return Err(Malformed),
        }
    }
    let mut merged = Vec::with_capacity(single.len() + all.len());
    for (name, value) in single {
        if let Some((name, value)) = header(&name, value)? {
            let same = |(known, its): &(String, String)| known.eq_ignore_ascii_case(&name) && *its == value;
            if !all.iter().any(same) {
                merged.push((name, value));
            }
        }
    }
    merged.extend(all);
    Ok(merged)
}

/// A header's value is text, or what has a plain text; nothing where it is null.
fn header(name: &str, value: Value) -> Result<Option<(String, String)>, Malformed> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Array(_) | Value::Object(_) => return Err(Malformed),
    };
    let text = text.trim_ascii();
    if HeaderName::parse(name).is_err() || !is_value(text.as_bytes()) {
        return Err(Malformed);
    }
    Ok(Some((name.to_owned(), text.to_owned())))
}

/// The standard alphabet, padding at will, white space passed over.
fn decode(text: String) -> Result<Vec<u8>, Malformed> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let mut bytes = text.into_bytes();
    bytes.retain(|byte| !byte.is_ascii_whitespace());
    LENIENT.decode(bytes).map_err(|_| Malformed)
}

/// Whether a media type is one of the API's binary ones: its own entry, `type/*` or `*/*`, without regard to case and
/// parameters (GWR-075, GWR-076, GWR-082).
pub(super) fn is_binary(types: &[Box<str>], media_type: &[u8]) -> bool {
    let media_type = String::from_utf8_lossy(media_type);
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    types.iter().any(|entry| {
        let entry = entry.trim();
        match entry.strip_suffix("/*") {
            Some("*") => true,
            Some(main) => essence
                .split_once('/')
                .is_some_and(|(own, _)| own.eq_ignore_ascii_case(main)),
            None => entry.eq_ignore_ascii_case(essence),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(result: &str) -> Result<Answer, Malformed> {
        read(result.as_bytes(), false)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    /// OBV-211, OBV-212, RES-133, RES-134, RES-141.
    #[test]
    fn what_is_an_answer() {
        for (result, status, headers, body) in [
            ("{}", 200, &[][..], ""),
            (r#"{"statusCode":204}"#, 204, &[], ""),
            (
                r#"{"statusCode":"201","headers":null,"multiValueHeaders":null,"body":null}"#,
                201,
                &[],
                "",
            ),
            (r#"{"statusCode":400,"body":"Missing"}"#, 400, &[], "Missing"),
            (
                r#"{"statusCode":200,"headers":{"a":"1","b":2,"c":true,"d":null}}"#,
                200,
                &[("a", "1"), ("b", "2"), ("c", "true")],
                "",
            ),
            // RES-136, and its scenario.
            (
                r#"{"statusCode":200,"headers":{"a":"1","b":"x"},"multiValueHeaders":{"A":["1","2"]}}"#,
                200,
                &[("b", "x"), ("A", "1"), ("A", "2")],
                "",
            ),
            (
                r#"{"statusCode":200,"headers":{"a":"3"},"multiValueHeaders":{"a":["1"]},"isBase64Encoded":false}"#,
                200,
                &[("a", "3"), ("a", "1")],
                "",
            ),
            // GWR-110 and the decision after GWR-111: base64 without a binary match stays as it is.
            (
                r#"{"statusCode":200,"body":"aGk=","isBase64Encoded":true}"#,
                200,
                &[],
                "aGk=",
            ),
        ] {
            let expected = Answer {
                status,
                headers: pairs(headers),
                body: body.into(),
            };
            assert_eq!(answer(result), Ok(expected), "{result}");
        }
    }

    /// RES-139, OBV-213: each is 502.
    #[test]
    fn what_is_malformed() {
        for result in [
            "",
            "null",
            "\"text\"",
            "[200,null,null,\"x\",false]",
            "{",
            r#"{"body":"x"}"#,
            r#"{"statusCode":null}"#,
            r#"{"statusCode":"2xx"}"#,
            r#"{"statusCode":""}"#,
            r#"{"statusCode":200.5}"#,
            r#"{"statusCode":-1}"#,
            r#"{"statusCode":99}"#,
            r#"{"statusCode":101}"#,
            r#"{"statusCode":1000}"#,
            r#"{"statusCode":200,"wrongValue":"value"}"#,
            r#"{"statusCode":200,"body":{"a":1}}"#,
            r#"{"statusCode":200,"body":7}"#,
            r#"{"statusCode":200,"headers":["a"]}"#,
            r#"{"statusCode":200,"headers":{"a":["1"]}}"#,
            r#"{"statusCode":200,"headers":{"a b":"1"}}"#,
            r#"{"statusCode":200,"headers":{"a":"1\r\nb: 2"}}"#,
            r#"{"statusCode":200,"multiValueHeaders":{"a":"1"}}"#,
            r#"{"statusCode":200,"isBase64Encoded":"true"}"#,
            r#"{"errorMessage":"x","errorType":"E"}"#,
        ] {
            assert_eq!(answer(result), Err(Malformed), "{result}");
        }
    }

    /// RES-138, GWR-106, GWR-108, GWR-110.
    #[test]
    fn binary_bodies() {
        for (body, decoded) in [
            ("/wA=", &[0xff, 0][..]),
            ("/wA", &[0xff, 0]),
            ("/w\\nA=", &[0xff, 0]),
            ("", &[]),
        ] {
            let result = format!(r#"{{"statusCode":200,"body":"{body}","isBase64Encoded":true}}"#);
            assert_eq!(read(result.as_bytes(), true).unwrap().body, decoded, "{body}");
        }
        let plain = read(br#"{"statusCode":200,"body":"/wA="}"#, true);
        assert_eq!(plain.unwrap().body, b"/wA=");
        let wrong = read(br#"{"statusCode":200,"body":"***","isBase64Encoded":true}"#, true);
        assert_eq!(wrong, Err(Malformed));
    }

    /// GWR-076, GWR-082.
    #[test]
    fn binary_media_types() {
        let types: [Box<str>; 2] = ["image/PNG".into(), "audio/*".into()];
        for (media_type, binary) in [
            ("image/png", true),
            ("IMAGE/png ; q=1", true),
            ("audio/ogg", true),
            ("image/jpeg", false),
            ("audio", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(is_binary(&types, media_type.as_bytes()), binary, "{media_type}");
        }
        assert!(is_binary(&["*/*".into()], b"") && !is_binary(&[], b"image/png"));
    }
}
