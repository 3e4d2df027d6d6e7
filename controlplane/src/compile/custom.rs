//! Integrations behind mappings and templates: types `HTTP` and `MOCK`.

use tidegate_plan::pattern::Pattern;
use tidegate_proto::config::v1 as config;
use tidegate_vtl::Template;

use super::{Warnings, mapping};
use crate::model::{Integration, IntegrationResponse, Method, Templates};

/// Whether an `HTTP` integration reshapes something: without that it is relayed as it comes, under the selected status.
pub(super) fn reshapes(integration: &Integration, parameters: &[config::ParameterMapping]) -> bool {
    let responses = integration.integration_responses.iter().flatten();
    has_any(integration.request_templates.as_ref())
        || integration.content_handling.is_some()
        || integration.passthrough_behavior.as_deref() == Some("NEVER")
        || parameters.iter().any(mapping::is_rich)
        || responses.into_iter().any(|(_, response)| {
            has_any(response.response_templates.as_ref())
                || response.content_handling.is_some()
                || dynamic_headers(response)
        })
}

/// Whether a mock says the same to everybody: its one request template is plain text, and so is what it answers.
pub(super) fn is_fixed_mock(integration: &Integration) -> bool {
    let templates = integration.request_templates.as_ref();
    let one_for_json = templates.is_some_and(|templates| {
        templates.len() == 1
            && templates.iter().all(|(media_type, text)| {
                media_type == "application/json" && !is_dynamic(text) && !text.is_empty()
            })
    });
    let passes = matches!(
        integration.passthrough_behavior.as_deref(),
        None | Some("WHEN_NO_MATCH")
    );
    let responses = integration.integration_responses.iter().flatten();
    let fixed = |response: &IntegrationResponse| {
        let templates = response.response_templates.iter().flatten();
        templates.clone().count() <= 1
            && templates.clone().all(|(_, text)| !is_dynamic(text))
            && response.content_handling.is_none()
            && !dynamic_headers(response)
    };
    one_for_json
        && passes
        && integration.content_handling.is_none()
        // What is no JSON has no template, and so the default response.
        && responses.clone().count() == 1
        && responses.into_iter().all(|(_, response)| response.is_default() && fixed(response))
}

/// Compiles what stands around a backend.
pub(super) fn custom(
    at: &str,
    method: &Method,
    integration: &Integration,
    backend: config::custom::Backend,
    parameters: Vec<config::ParameterMapping>,
    warnings: &mut Warnings,
) -> Result<config::Custom, String> {
    let passthrough = match integration.passthrough_behavior.as_deref() {
        Some("WHEN_NO_TEMPLATES") => config::Passthrough::WhenNoTemplates,
        Some("NEVER") => config::Passthrough::Never,
        _ => config::Passthrough::Unspecified,
    };
    if passthrough == config::Passthrough::Never && !has_any(integration.request_templates.as_ref()) {
        // VTL-083.
        warnings.add(format!(
            "{at}: passthroughBehavior NEVER without templates: every request is refused with 415"
        ));
    }
    let mut responses = Vec::new();
    for response in ordered(integration) {
        responses.push(self::response(at, method, response, warnings)?);
    }
    if responses.is_empty() {
        // RES-116: nothing to select is a configuration error.
        return Err("no integration response is defined".into());
    }
    Ok(config::Custom {
        backend: Some(backend),
        parameters,
        request_templates: templates(at, integration.request_templates.as_ref(), warnings)?,
        passthrough: passthrough.into(),
        content_handling: handling(integration.content_handling.as_deref()).into(),
        responses,
    })
}

fn response(
    at: &str,
    method: &Method,
    response: &IntegrationResponse,
    warnings: &mut Warnings,
) -> Result<config::IntegrationResponse, String> {
    let pattern = response.selection_pattern.clone().unwrap_or_default();
    if !pattern.is_empty() {
        Pattern::parse(&pattern).map_err(|error| format!("the selection pattern {error}"))?;
    }
    let code = response.status_code.as_deref().unwrap_or_default();
    let declared = method
        .method_responses
        .as_ref()
        .is_some_and(|responses| responses.contains_key(code));
    if !declared {
        // RES-118: only a request that selects it fails.
        warnings.add(format!(
            "{at}: the integration response {code} has no method response: what selects it answers 500"
        ));
    }
    let mut headers = Vec::new();
    for (target, source) in response.response_parameters.iter().flatten() {
        headers.push(mapping::response(target, source)?);
    }
    Ok(config::IntegrationResponse {
        pattern,
        status: if declared { code.parse().unwrap_or(0) } else { 0 },
        headers,
        templates: templates(at, response.response_templates.as_ref(), warnings)?,
        content_handling: handling(response.content_handling.as_deref()).into(),
    })
}

fn templates(
    at: &str,
    templates: Option<&Templates>,
    warnings: &mut Warnings,
) -> Result<Vec<config::Template>, String> {
    let mut compiled = Vec::new();
    for (media_type, text) in templates.into_iter().flatten() {
        let template = Template::parse(text)
            .map_err(|error| format!("the template for {media_type} cannot be read: {error}"))?;
        for warning in template.warnings() {
            warnings.add(format!(
                "{at}: the template for {media_type}, line {}: {}",
                warning.line, warning.message
            ));
        }
        compiled.push(config::Template {
            media_type: media_type.clone(),
            text: text.clone(),
        });
    }
    Ok(compiled)
}

fn handling(name: Option<&str>) -> config::ContentHandling {
    match name {
        Some("CONVERT_TO_BINARY") => config::ContentHandling::ConvertToBinary,
        Some("CONVERT_TO_TEXT") => config::ContentHandling::ConvertToText,
        _ => config::ContentHandling::Unspecified,
    }
}

fn has_any(templates: Option<&Templates>) -> bool {
    templates.is_some_and(|templates| !templates.is_empty())
}

fn dynamic_headers(response: &IntegrationResponse) -> bool {
    let parameters = response.response_parameters.iter().flatten();
    parameters
        .into_iter()
        .any(|(_, source)| mapping::literal(source).is_none())
}

/// Whether a template is more than its text.
fn is_dynamic(template: &str) -> bool {
    template.contains(['$', '#'])
}

/// In the order in which they are tried: by status, the default last (INT-O17).
pub(super) fn ordered(integration: &Integration) -> Vec<&IntegrationResponse> {
    let mut all: Vec<_> = integration
        .integration_responses
        .iter()
        .flatten()
        .map(|(_, response)| response)
        .collect();
    all.sort_by_key(|response| response.is_default());
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn templates(pairs: &[(&str, &str)]) -> Templates {
        pairs
            .iter()
            .map(|(media_type, text)| ((*media_type).to_owned(), (*text).to_owned()))
            .collect()
    }

    fn integration(request: &[(&str, &str)], response: IntegrationResponse) -> Integration {
        Integration {
            request_templates: Some(templates(request)),
            integration_responses: Some(BTreeMap::from([("200".to_owned(), response)])),
            ..Integration::default()
        }
    }

    fn compile(integration: &Integration) -> Result<(config::Custom, Vec<String>), String> {
        let mut warnings = Warnings::default();
        let method = Method {
            method_responses: Some(BTreeMap::from([("200".to_owned(), Default::default())])),
            ..Method::default()
        };
        let backend = config::custom::Backend::Mock(config::PlayedBackend {});
        let custom = custom("GET /", &method, integration, backend, vec![], &mut warnings)?;
        Ok((custom, warnings.list))
    }

    fn response(status: &str) -> IntegrationResponse {
        IntegrationResponse {
            status_code: Some(status.into()),
            ..IntegrationResponse::default()
        }
    }

    /// VTL-065, VTL-069: the order of definition is kept, also where the alphabet has another.
    #[test]
    fn templates_keep_their_order() {
        let in_order = [
            ("text/html", "h"),
            ("application/xml", "x"),
            ("application/json", ""),
        ];
        let mut told = response("200");
        told.response_templates = Some(templates(&in_order));
        let (custom, warnings) = compile(&integration(&in_order, told)).expect("compiles");
        let names = |templates: &[config::Template]| -> Vec<String> {
            templates.iter().map(|one| one.media_type.clone()).collect()
        };
        let expected = ["text/html", "application/xml", "application/json"];
        assert_eq!(names(&custom.request_templates), expected);
        assert_eq!(names(&custom.responses[0].templates), expected);
        assert_eq!(warnings, Vec::<String>::new());
    }

    /// INT-O21, RES-116, RES-118, VTL-083: what cannot work is told by name.
    #[test]
    fn what_cannot_work_is_told() {
        let mut wrong = response("200");
        wrong.selection_pattern = Some("(".into());
        let error = compile(&integration(&[], wrong)).expect_err("refused");
        assert!(error.contains("selection pattern `(`"), "{error}");
        let unreadable = integration(&[("application/json", "#if(")], response("200"));
        let error = compile(&unreadable).expect_err("refused");
        assert!(error.contains("the template for application/json"), "{error}");
        let none = Integration::default();
        assert!(compile(&none).is_err());
        let (custom, warnings) = compile(&integration(&[], response("404"))).expect("compiles");
        assert_eq!(custom.responses[0].status, 0);
        assert!(warnings[0].contains("has no method response"), "{warnings:?}");
        let mut never = integration(&[], response("200"));
        never.passthrough_behavior = Some("NEVER".into());
        let (_, warnings) = compile(&never).expect("compiles");
        assert!(warnings[0].contains("415"), "{warnings:?}");
    }

    /// A mock that says the same to everybody needs nothing of a request.
    #[test]
    fn fixed_mocks_are_told_from_others() {
        let ok = [("application/json", "{\"statusCode\": 200}")];
        assert!(is_fixed_mock(&integration(&ok, response("200"))));
        let mut mapped = response("200");
        mapped.response_parameters = Some(BTreeMap::from([(
            "method.response.header.a".into(),
            "'1'".into(),
        )]));
        assert!(is_fixed_mock(&integration(&ok, mapped.clone())));
        mapped.response_parameters = Some(BTreeMap::from([(
            "method.response.header.a".into(),
            "context.stage".into(),
        )]));
        assert!(!is_fixed_mock(&integration(&ok, mapped)));
        let mut patterned = response("200");
        patterned.selection_pattern = Some("200".into());
        assert!(!is_fixed_mock(&integration(&ok, patterned)));
        let mut never = integration(&ok, response("200"));
        never.passthrough_behavior = Some("NEVER".into());
        assert!(!is_fixed_mock(&never));
        for request in [
            &[][..],
            &[("application/xml", "{\"statusCode\": 200}")],
            &[("application/json", "$x")],
        ] {
            assert!(
                !is_fixed_mock(&integration(request, response("200"))),
                "{request:?}"
            );
        }
    }
}
