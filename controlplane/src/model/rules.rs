//! Rules that several entities share.

use std::collections::BTreeMap;

use super::Refusal;

/// Most tags on one thing (DEP-086).
const MAX_TAGS: usize = 50;

/// An absent member, or one of the set (OBV-014).
pub(super) fn one_of(location: &str, value: Option<&str>, set: &[&str]) -> Result<(), Refusal> {
    match value {
        Some(value) if !set.contains(&value) => Err(Refusal::outside_set(value, location, set)),
        _ => Ok(()),
    }
}

/// A status code is three digits, the first from 1 to 5 (OBV-015, OBV-090).
pub(super) fn status_code(value: &str) -> Result<(), Refusal> {
    let valid = matches!(value.as_bytes(), [b'1'..=b'5', a, b] if a.is_ascii_digit() && b.is_ascii_digit());
    if valid {
        return Ok(());
    }
    Err(Refusal::constraint(
        value,
        "statusCode",
        r"Member must satisfy regular expression pattern: [1-5]\d\d",
    ))
}

/// A media type as a key of templates and models (OBV-118); `$default` stands for any (RES-069).
pub(super) fn media_type(value: &str) -> Result<(), Refusal> {
    let token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    let valid = value == "$default"
        || essence
            .split_once('/')
            .is_some_and(|(kind, subtype)| token(kind) && token(subtype));
    if valid {
        return Ok(());
    }
    Err(Refusal::bad_request(format!(
        "Validation Result: warnings : [], errors : [Invalid content type specified: {value}]"
    )))
}

/// At most 50 tags (DEP-086).
pub(super) fn tags(tags: Option<&BTreeMap<String, String>>) -> Result<(), Refusal> {
    match tags {
        Some(tags) if tags.len() > MAX_TAGS => Err(Refusal::bad_request(format!(
            "The number of tags exceeds the limit of {MAX_TAGS}"
        ))),
        _ => Ok(()),
    }
}

/// A mapping expression that an error names as the service does (OBV-075).
pub(super) fn invalid_mapping(expression: &str) -> Refusal {
    Refusal::bad_request(format!(
        "Invalid mapping expression specified: Validation Result: warnings : [], errors : [Invalid mapping expression \
         specified: {expression}]"
    ))
}

/// Checks `{prefix}.{location}.{name}` with a location of the set and a name that is not empty.
pub(super) fn mapping_name(expression: &str, prefix: &str, locations: &[&str]) -> Result<(), Refusal> {
    let valid = expression
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('.'))
        .and_then(|rest| rest.split_once('.'))
        .is_some_and(|(location, name)| locations.contains(&location) && !name.is_empty());
    if valid {
        Ok(())
    } else {
        Err(invalid_mapping(expression))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OBV-090: the text for a status that is none.
    #[test]
    fn status_codes() {
        assert_eq!(status_code("200"), Ok(()));
        for wrong in ["wrong", "600", "20", "2000", "099"] {
            assert_eq!(
                status_code(wrong).expect_err("refused").message,
                format!(
                    "1 validation error detected: Value '{wrong}' at 'statusCode' failed to satisfy constraint: Member \
                     must satisfy regular expression pattern: [1-5]\\d\\d"
                )
            );
        }
    }

    /// OBV-118: the text for a key that is no media type.
    #[test]
    fn media_types() {
        for right in [
            "application/json",
            "text/plain; charset=utf-8",
            "*/*",
            "$default",
            "application/vnd.x+json",
        ] {
            assert_eq!(media_type(right), Ok(()), "{right}");
        }
        assert_eq!(
            media_type("123").expect_err("refused").message,
            "Validation Result: warnings : [], errors : [Invalid content type specified: 123]"
        );
    }
}
