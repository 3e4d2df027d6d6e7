//! What runs behind a method.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{IntegrationResponse, PassThrough, Refusal, rules};

/// Templates by media type, in the order of their definition: where none is for what a client accepts, the first is taken
/// (VTL-065, VTL-069).
pub type Templates = IndexMap<String, String>;

/// An integration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Integration {
    /// `HTTP`, `AWS`, `MOCK`, `HTTP_PROXY` or `AWS_PROXY`.
    #[serde(rename = "type")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The verb towards the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_method: Option<String>,
    /// The backend: a URL, or an ARN for AWS integrations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// `INTERNET` or `VPC_LINK`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_type: Option<String>,
    /// The link of a private integration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<String>,
    /// The role the backend is called with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// `integration.request.{location}.{name}` from a mapping expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_parameters: Option<BTreeMap<String, String>>,
    /// Media type to template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_templates: Option<Templates>,
    /// `WHEN_NO_MATCH`, `WHEN_NO_TEMPLATES` or `NEVER`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passthrough_behavior: Option<String>,
    /// `CONVERT_TO_BINARY` or `CONVERT_TO_TEXT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_handling: Option<String>,
    /// From 50 to 29,000 (RES-104).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_in_millis: Option<i32>,
    /// The group of cached answers; the resource's id unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_namespace: Option<String>,
    /// What tells cached answers apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_key_parameters: Option<Vec<String>>,
    /// Status code to response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration_responses: Option<BTreeMap<String, IntegrationResponse>>,
    /// How the backend's certificate is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<TlsConfig>,
    /// `BUFFERED` or `STREAM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_transfer_mode: Option<String>,
    /// The load balancer of a private integration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration_target: Option<String>,
    /// Connections to the backend begin with a header of the PROXY protocol that names the client: `v1` or `v2`;
    /// `HTTP` and `HTTP_PROXY` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<String>,
    /// What passes besides whole messages of HTTP/1.1; `HTTP_PROXY` only (decision D13).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_through: Option<PassThrough>,
}

/// How a backend's certificate is checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsConfig {
    /// Accept any certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verification: Option<bool>,
}

/// The integration types (RES-089).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegrationType {
    /// An HTTP backend behind mappings and templates.
    Http,
    /// An AWS service or function behind mappings and templates.
    Aws,
    /// No backend: the gateway answers.
    Mock,
    /// An HTTP backend, requests and responses passed through.
    HttpProxy,
    /// A function that takes the proxy event.
    AwsProxy,
}

impl IntegrationType {
    const NAMES: [&str; 5] = ["HTTP", "MOCK", "AWS_PROXY", "HTTP_PROXY", "AWS"];

    /// Reads the name on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "HTTP" => Some(Self::Http),
            "AWS" => Some(Self::Aws),
            "MOCK" => Some(Self::Mock),
            "HTTP_PROXY" => Some(Self::HttpProxy),
            "AWS_PROXY" => Some(Self::AwsProxy),
            _ => None,
        }
    }

    /// Whether the backend is named by an ARN.
    pub fn is_aws(self) -> bool {
        matches!(self, Self::Aws | Self::AwsProxy)
    }
}

/// Time-out unless set, and the largest (RES-104).
const DEFAULT_TIMEOUT: i32 = 29_000;
const TIMEOUTS: std::ops::RangeInclusive<i32> = 50..=29_000;

impl Integration {
    /// Members that only the service sets.
    pub const READ_ONLY: &[&str] = &[];

    /// The type, where it is a known one.
    pub fn integration_type(&self) -> Option<IntegrationType> {
        IntegrationType::parse(self.kind.as_deref()?)
    }

    /// What an integration has although nobody said so (OBV-094, OBV-095, RES-008).
    pub fn fill_defaults(&mut self, resource: &str) {
        self.passthrough_behavior
            .get_or_insert_with(|| "WHEN_NO_MATCH".into());
        self.timeout_in_millis.get_or_insert(DEFAULT_TIMEOUT);
        self.cache_namespace.get_or_insert_with(|| resource.into());
        self.cache_key_parameters.get_or_insert_default();
        match self.integration_type() {
            Some(IntegrationType::Mock) => {
                self.http_method = None;
                self.uri = None;
                self.connection_type = None;
            }
            Some(IntegrationType::Http | IntegrationType::HttpProxy) => {
                self.connection_type.get_or_insert_with(|| "INTERNET".into());
            }
            Some(IntegrationType::Aws | IntegrationType::AwsProxy) | None => {}
        }
        for (code, response) in self.integration_responses.iter_mut().flatten() {
            response.status_code = Some(code.clone());
        }
    }

    /// The rules that an integration obeys by itself. What can fail only at run time is accepted (OBV-097, OBV-100).
    pub fn check(&self) -> Result<(), Refusal> {
        let kind = self.kind.as_deref().unwrap_or_default();
        rules::one_of("putIntegrationInput.type", Some(kind), &IntegrationType::NAMES)?;
        rules::one_of(
            "putIntegrationInput.connectionType",
            self.connection_type.as_deref(),
            &["INTERNET", "VPC_LINK"],
        )?;
        rules::one_of(
            "putIntegrationInput.contentHandling",
            self.content_handling.as_deref(),
            &["CONVERT_TO_BINARY", "CONVERT_TO_TEXT"],
        )?;
        rules::one_of(
            "putIntegrationInput.responseTransferMode",
            self.response_transfer_mode.as_deref(),
            &["BUFFERED", "STREAM"],
        )?;
        let passthrough = self.passthrough_behavior.as_deref().unwrap_or("WHEN_NO_MATCH");
        if !["WHEN_NO_MATCH", "WHEN_NO_TEMPLATES", "NEVER"].contains(&passthrough) {
            return Err(Refusal::bad_request(
                "Invalid passthrough behavior specified. Valid options are WHEN_NO_MATCH, WHEN_NO_TEMPLATES, NEVER",
            ));
        }
        if let Some(timeout) = self.timeout_in_millis
            && !TIMEOUTS.contains(&timeout)
        {
            return Err(Refusal::bad_request(
                "Timeout should be between 50 ms and 29000 ms",
            ));
        }
        self.check_target()?;
        self.check_proxy_protocol()?;
        if let Some(pass) = &self.pass_through {
            pass.check(self.integration_type(), self.uri.as_deref().unwrap_or_default())?;
        }
        for (name, value) in self.request_parameters.iter().flatten() {
            rules::mapping_name(name, "integration.request", &["path", "querystring", "header"])?;
            if value.is_empty() {
                return Err(rules::invalid_mapping(value));
            }
        }
        for media in self.request_templates.iter().flatten().map(|(media, _)| media) {
            rules::media_type(media)?;
        }
        for (code, response) in self.integration_responses.iter().flatten() {
            rules::status_code(code)?;
            response.check()?;
        }
        Ok(())
    }

    fn check_proxy_protocol(&self) -> Result<(), Refusal> {
        let Some(version) = self.proxy_protocol.as_deref() else {
            return Ok(());
        };
        if !matches!(version, "v1" | "v2") {
            return Err(Refusal::bad_request(format!(
                "proxyProtocol is `{version}`; it takes v1 or v2"
            )));
        }
        let kind = self.integration_type();
        if !matches!(kind, Some(IntegrationType::Http | IntegrationType::HttpProxy)) {
            return Err(Refusal::bad_request(
                "proxyProtocol is for integrations of type HTTP and HTTP_PROXY",
            ));
        }
        if self
            .pass_through
            .as_ref()
            .is_some_and(|pass| pass.http2.is_some())
        {
            return Err(Refusal::bad_request(
                "proxyProtocol and passThrough.http2 exclude each other: clients share the connections of HTTP/2, and \
                 the PROXY protocol names one client a connection",
            ));
        }
        Ok(())
    }

    fn check_target(&self) -> Result<(), Refusal> {
        let Some(kind) = self.integration_type() else {
            return Ok(());
        };
        if kind == IntegrationType::Mock {
            return Ok(());
        }
        // RES-090: all types but MOCK have a backend and a verb.
        let uri = self.uri.as_deref().unwrap_or_default();
        if kind.is_aws() {
            check_aws_uri(kind, uri)?;
        } else if !is_http_url(uri) {
            return Err(Refusal::bad_request("Invalid HTTP endpoint specified for URI"));
        }
        if self.http_method.as_deref().unwrap_or_default().is_empty() {
            return Err(Refusal::bad_request(
                "Enumeration value for HttpMethod must be non-empty",
            ));
        }
        Ok(())
    }
}

/// `http://` or `https://` and something after it; the rest may be filled by stage variables at run time.
fn is_http_url(uri: &str) -> bool {
    let lower = uri.get(..8).unwrap_or(uri).to_ascii_lowercase();
    let rest = if lower.starts_with("https://") {
        &uri[8..]
    } else if lower.starts_with("http://") {
        &uri[7..]
    } else {
        return false;
    };
    !rest.is_empty() && !rest.starts_with('/') && !rest.bytes().any(|b| b.is_ascii_control() || b == b' ')
}

/// OBV-102 to OBV-105: `arn:aws:apigateway:{region}:{service}:path|action/...`.
fn check_aws_uri(kind: IntegrationType, uri: &str) -> Result<(), Refusal> {
    let fields: Vec<&str> = uri.splitn(6, ':').collect();
    if fields.len() < 2 || fields[0] != "arn" {
        return Err(Refusal::bad_request("Invalid ARN specified in the request"));
    }
    let action = fields.get(5).copied().unwrap_or_default();
    let variable = action.starts_with("${stageVariables.");
    if fields.get(2) != Some(&"apigateway")
        || !(action.starts_with("path/") || action.starts_with("action/") || variable)
    {
        return Err(Refusal::bad_request(
            "AWS ARN for integration must contain path or action",
        ));
    }
    let service = fields[4];
    let invocable = match service {
        "lambda" => {
            action.starts_with("path/2015-03-31/functions/")
                || action.starts_with("path/2021-11-15/functions/")
        }
        "firehose" => matches!(action, "action/PutRecord" | "action/PutRecordBatch"),
        _ => false,
    };
    if kind == IntegrationType::AwsProxy && !variable && !invocable {
        return Err(Refusal::bad_request(
            "Integrations of type 'AWS_PROXY' currently only supports Lambda function and Firehose stream invocations.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integration(kind: &str, uri: &str) -> Integration {
        let mut integration = Integration {
            kind: Some(kind.into()),
            uri: Some(uri.into()),
            http_method: Some("POST".into()),
            ..Integration::default()
        };
        integration.fill_defaults("res123");
        integration
    }

    /// OBV-094: the exact members of an HTTP integration.
    #[test]
    fn http_defaults() {
        assert_eq!(
            serde_json::to_value(integration("HTTP", "http://example.com/a")).expect("serializes"),
            serde_json::json!({
                "type": "HTTP", "httpMethod": "POST", "uri": "http://example.com/a", "connectionType": "INTERNET",
                "passthroughBehavior": "WHEN_NO_MATCH", "timeoutInMillis": 29000, "cacheNamespace": "res123",
                "cacheKeyParameters": [],
            })
        );
    }

    /// OBV-095, OBV-096: a mock drops verb and address and keeps its templates.
    #[test]
    fn mock_defaults() {
        let mut mock = integration("MOCK", "ignored");
        mock.request_templates = Some(Templates::from([(
            "application/json".into(),
            "{statusCode: 200}".into(),
        )]));
        assert_eq!(mock.check(), Ok(()));
        let value = serde_json::to_value(mock).expect("serializes");
        assert_eq!(value.get("httpMethod"), None);
        assert_eq!(value.get("uri"), None);
        assert_eq!(value.get("connectionType"), None);
        assert!(value.get("requestTemplates").is_some());
    }

    /// OBV-102, OBV-103, OBV-104, OBV-105: ARNs and their texts.
    #[test]
    fn arns() {
        let text = |kind: &str, uri: &str| integration(kind, uri).check().expect_err("refused").message;
        let path = "AWS ARN for integration must contain path or action";
        assert_eq!(
            text("AWS_PROXY", "arn:aws:lambda:us-east-1:000000000000:function:f"),
            path
        );
        assert_eq!(
            text(
                "AWS_PROXY",
                "arn:aws:apigateway:us-east-1:lambda:test/2015-03-31/functions/f"
            ),
            path
        );
        assert_eq!(
            text("AWS_PROXY", "bad-arn:lambda:path/2015-03-31/functions/f"),
            "Invalid ARN specified in the request"
        );
        let only = "Integrations of type 'AWS_PROXY' currently only supports Lambda function and Firehose stream \
                    invocations.";
        assert_eq!(
            text("AWS_PROXY", "arn:aws:apigateway:us-east-1:dynamodb:action/Query"),
            only
        );
        assert_eq!(
            text(
                "AWS_PROXY",
                "arn:aws:apigateway:us-east-1:lambda:path/random/value/x"
            ),
            only
        );
        let lambda = "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/arn:aws:lambda:us-east-1:000000000000:\
                      function:f/invocations";
        assert_eq!(integration("AWS_PROXY", lambda).check(), Ok(()));
        assert_eq!(
            integration("AWS", "arn:aws:apigateway:us-east-1:dynamodb:action/Query").check(),
            Ok(())
        );
    }

    /// RES-104: 50 to 29,000 ms. RES-090: a backend and a verb. OBV-100: broken header mappings are accepted.
    #[test]
    fn bounds() {
        let mut http = integration("HTTP_PROXY", "http://${stageVariables.url}");
        http.request_parameters = Some(BTreeMap::from([(
            "integration.request.header.Content-Length".into(),
            "'1'".into(),
        )]));
        assert_eq!(http.check(), Ok(()));
        http.timeout_in_millis = Some(49);
        assert!(http.check().is_err());
        assert!(integration("HTTP", "ftp://example.com").check().is_err());
        assert!(integration("HTTP", "http:///x").check().is_err());
    }
}
