//! The integration request: payload, mappings, template, overrides (VTL-001).

use tidegate_plan::custom::{Choice, Custom, Passthrough};
use tidegate_rt::Chunk;
use tidegate_vtl::{Document, ErrorKind, Overrides, Phase, Render, Template};

use super::super::content::{self, Conversion, JSON};
use super::super::prepared::Prepared;
use super::scope::RequestScope;
use crate::http::Known;
use crate::pipeline::exchange::{Detail, Exchange};
use crate::pipeline::failure::Failure;
use crate::shard::Client;

/// What goes to the backend.
pub(super) struct Request {
    /// Its body.
    pub(super) body: Chunk,
    /// Its parameters.
    pub(super) prepared: Prepared,
    /// What the template has set, which the response's can read (OBV-231).
    pub(super) overrides: Overrides,
}

/// Makes the integration request of a method request whose body is there.
///
/// # Errors
/// Where the payload may not pass, or cannot be made into what the backend is to get.
pub(super) fn make(x: &mut Exchange<'_>, client: &Client, custom: &Custom) -> Result<Request, Failure> {
    let received = x.body.take().unwrap_or_default();
    let content_type = x.head.fields().get(Known::ContentType);
    let media_type = content_type.map_or(JSON.to_owned(), content::media_type);
    let binary_types = x.plan().map(|plan| plan.binary_media_types());
    let is_binary = content::is_binary(binary_types.unwrap_or_default(), &media_type);
    let conversion = content::of_request(is_binary, custom.content_handling);
    let payload = match conversion {
        Conversion::Encode => Chunk::from(content::encode(&received)),
        Conversion::Text | Conversion::Bytes | Conversion::Decode => received,
    };
    let chosen = choose(custom, &media_type)?;
    if chosen.is_some() && conversion == Conversion::Bytes {
        // Bytes are never fed to a template.
        return Err(Failure::CONFIGURATION);
    }
    let document = Document::from_bytes(&payload).with_depth(client.shard.bounds.json_depth);
    let mut prepared = Prepared::new(x, client, &custom.mappings, &document)?;
    let mut overrides = Overrides::new();
    let mut rendered = None;
    if let Some((media_type, template)) = chosen {
        let scope = RequestScope { x, client };
        let render = Render {
            phase: Phase::Request,
            scope: &scope,
            body: &document,
            budget: &client.shard.bounds.template,
        };
        match template.render(render, &mut overrides) {
            Ok(made) => rendered = Some(Chunk::from(made.text)),
            Err(error) => {
                tracing::debug!(%error, "a request template failed");
                let (failure, message) = match &error.kind {
                    ErrorKind::Body(_) => (Failure::UNREADABLE_BODY, error.kind.to_string()),
                    _ => (Failure::CONFIGURATION, String::new()),
                };
                x.detail = Some(Box::new(Detail {
                    message,
                    validation: format!("Unable to transform request: {error}"),
                }));
                return Err(failure);
            }
        }
        prepared.media_type = Some(media_type.to_owned());
        prepared.override_by(&overrides)?;
    }
    drop(document);
    let body = rendered.unwrap_or(payload);
    let body = match conversion {
        Conversion::Decode if !body.is_empty() => Chunk::from(content::decode(&body)?),
        _ => body,
    };
    Ok(Request {
        body,
        prepared,
        overrides,
    })
}

/// The template for a media type; `None` where the payload passes as it is. The table of VTL-080, row by row.
///
/// # Errors
/// Where it may not pass (VTL-082 to VTL-084, GWR-092).
fn choose<'c>(custom: &'c Custom, media_type: &str) -> Result<Option<(&'c str, &'c Template)>, Failure> {
    match custom.templates.get(media_type) {
        Some((media_type, Choice::Template(template))) => Ok(Some((media_type, template))),
        Some((_, Choice::Unmapped)) => Ok(None),
        None => match custom.passthrough {
            Passthrough::WhenNoMatch => Ok(None),
            Passthrough::WhenNoTemplates if custom.templates.is_empty() => Ok(None),
            Passthrough::WhenNoTemplates | Passthrough::Never => Err(Failure::UNSUPPORTED_MEDIA_TYPE),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidegate_plan::custom::{Backend, Templates};

    use super::*;

    /// VTL-060, VTL-068, VTL-080, VTL-081, VTL-082, VTL-083, VTL-085: the table's rows by its three columns. What names
    /// no type counts as JSON, so that two of the seven rows are two of these.
    #[test]
    fn the_passthrough_table() {
        use Passthrough::{Never, WhenNoMatch, WhenNoTemplates};
        let templates = |media_type: &str| {
            let template = Choice::Template(Arc::new(Template::parse("T").unwrap()));
            Templates::new([(media_type.into(), template)])
        };
        let outcome = |templates: &Templates, passthrough, media_type: &str| {
            let custom = Custom {
                backend: Backend::Mock,
                mappings: Box::default(),
                templates: templates.clone(),
                passthrough,
                content_handling: None,
                responses: Box::default(),
            };
            match choose(&custom, media_type) {
                Ok(Some(_)) => "T",
                Ok(None) => "P",
                Err(failure) => {
                    assert_eq!(failure, Failure::UNSUPPORTED_MEDIA_TYPE);
                    "415"
                }
            }
        };
        let (json, xml) = ("application/json", "application/xml");
        for (templates, media_type, expected) in [
            (templates(json), json, ["T", "T", "T"]),
            (templates(json), xml, ["P", "415", "415"]),
            (templates(xml), json, ["P", "415", "415"]),
            (templates(xml), xml, ["T", "T", "T"]),
            (Templates::default(), json, ["P", "P", "415"]),
            (Templates::default(), xml, ["P", "P", "415"]),
        ] {
            let columns = [WhenNoMatch, WhenNoTemplates, Never];
            for (passthrough, expected) in columns.into_iter().zip(expected) {
                let outcome = outcome(&templates, passthrough, media_type);
                assert_eq!(outcome, expected, "{media_type} {passthrough:?}");
            }
        }
        let empty = Templates::new([(json.into(), Choice::Unmapped)]);
        assert_eq!(outcome(&empty, Never, json), "P");
    }
}
