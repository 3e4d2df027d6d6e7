//! Security schemes: authorizers, API keys, IAM (OAX-040 to OAX-070, QUO-157).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    context::{Context, Version},
    error::ImportError,
    reference::resolve_object,
};
use crate::model::{Authorizer, JwtConfiguration, JwtIssuer, Method};

/// What a scheme of the document stands for.
#[derive(Clone, Debug, PartialEq)]
enum Scheme {
    /// Signed requests.
    Iam,
    /// The authorizer of the same name.
    Authorizer,
    /// A key in `x-api-key`.
    ApiKey,
    /// None of these.
    Unknown(String),
}

/// The security of a document.
#[derive(Default)]
pub(super) struct Security {
    /// Authorizers by name.
    pub(super) authorizers: BTreeMap<String, Authorizer>,
    schemes: BTreeMap<String, Scheme>,
}

impl Security {
    /// Reads the schemes.
    pub(super) fn declare(context: &mut Context<'_>) -> Result<Self, ImportError> {
        let mut security = Self::default();
        let root = context.root;
        let schemes = match context.version {
            Version::Swagger2 => context.object("document", root, "securityDefinitions"),
            Version::OpenApi3 => match context.object("document", root, "components") {
                Some(components) => context.object("components", components, "securitySchemes"),
                None => None,
            },
        };
        for (name, value) in schemes.into_iter().flatten() {
            let place = format!("security scheme `{name}`");
            if let Some(members) = resolve_object(context, &place, value)? {
                let scheme = security.scheme(context, &place, name, members);
                security.schemes.insert(name.clone(), scheme);
            }
        }
        Ok(security)
    }

    fn scheme(
        &mut self,
        context: &mut Context<'_>,
        place: &str,
        name: &str,
        members: &Map<String, Value>,
    ) -> Scheme {
        let kind = context.text(place, members, "type").unwrap_or_default();
        let auth_type = context.text(place, members, "x-amazon-apigateway-authtype");
        let extension = context.object(place, members, "x-amazon-apigateway-authorizer");
        context.leftovers(place, members, &SCHEME_KNOWN);
        if auth_type
            .as_deref()
            .is_some_and(|text| text.eq_ignore_ascii_case("awsSigv4"))
        {
            return Scheme::Iam;
        }
        if let Some(reserved) = auth_type.as_deref().filter(|text| text.starts_with("aws")) {
            // OAX-070.
            context.error(format!(
                "{place}: the authorization type `{reserved}` is reserved"
            ));
        }
        match extension {
            Some(extension) => {
                if let Some(authorizer) = authorizer(context, place, name, members, extension, auth_type) {
                    self.authorizers.insert(name.to_owned(), authorizer);
                    return Scheme::Authorizer;
                }
                Scheme::Unknown("its authorizer was refused".to_owned())
            }
            None if kind == "apiKey" => {
                let header = members.get("name").and_then(Value::as_str).unwrap_or_default();
                let location = members.get("in").and_then(Value::as_str).unwrap_or_default();
                if header.eq_ignore_ascii_case("x-api-key") && location == "header" {
                    Scheme::ApiKey
                } else {
                    Scheme::Unknown(format!(
                        "keys come in the header x-api-key, not in {location} `{header}`"
                    ))
                }
            }
            None => Scheme::Unknown(format!("type `{kind}` needs x-amazon-apigateway-authorizer")),
        }
    }

    /// Applies an operation's `security` and `x-amazon-apigateway-auth` to its method.
    pub(super) fn apply(
        &self,
        context: &mut Context<'_>,
        place: &str,
        operation: &Map<String, Value>,
        method: &mut Method,
    ) {
        method.authorization_type = Some("NONE".to_owned());
        method.api_key_required = Some(false);
        let requirements = operation.get("security").and_then(Value::as_array);
        if requirements.is_some_and(|all| all.iter().filter(|one| is_requirement(one)).count() > 1)
            && !self.only_keys_differ(requirements.into_iter().flatten())
        {
            context.warn(format!(
                "{place}: a method has one way to authorize; the last of the alternatives was taken"
            ));
        }
        for requirement in requirements.into_iter().flatten() {
            for (name, scopes) in requirement.as_object().into_iter().flatten() {
                self.require(context, place, name, scopes, method);
            }
        }
        let Some(auth) = context.object(place, operation, "x-amazon-apigateway-auth") else {
            return;
        };
        let kind = context
            .text(place, auth, "type")
            .unwrap_or_default()
            .to_ascii_uppercase();
        match kind.as_str() {
            "AWS_IAM" => {
                method.authorization_type = Some(kind);
                method.authorizer_id = None;
                method.authorization_scopes = None;
            }
            "NONE" if method.authorization_type.as_deref() != Some("NONE") => {
                context.warn(format!(
                    "{place}: x-amazon-apigateway-auth says NONE, but `security` still applies"
                ));
            }
            "NONE" => {}
            other => context.warn(format!(
                "{place}: x-amazon-apigateway-auth does not know `{other}`; not imported"
            )),
        }
    }

    fn require(
        &self,
        context: &mut Context<'_>,
        place: &str,
        name: &str,
        scopes: &Value,
        method: &mut Method,
    ) {
        match self.schemes.get(name) {
            Some(Scheme::Iam) => {
                method.authorization_type = Some("AWS_IAM".to_owned());
                method.authorizer_id = None;
            }
            Some(Scheme::ApiKey) => method.api_key_required = Some(true),
            Some(Scheme::Authorizer) => {
                let pools = self
                    .authorizers
                    .get(name)
                    .and_then(|authorizer| authorizer.kind.as_deref())
                    == Some("COGNITO_USER_POOLS");
                let kind = if pools { "COGNITO_USER_POOLS" } else { "CUSTOM" };
                method.authorization_type = Some(kind.to_owned());
                method.authorizer_id = Some(name.to_owned());
                let scopes: Vec<String> = scopes
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|scope| scope.as_str().map(str::to_owned))
                    .collect();
                method.authorization_scopes = (!scopes.is_empty()).then_some(scopes);
            }
            Some(Scheme::Unknown(reason)) => {
                context.warn(format!(
                    "{place}: security scheme `{name}` is not supported ({reason}); imported without it"
                ));
            }
            None => context.warn(format!(
                "{place}: security scheme `{name}` is not in the document; imported without it"
            )),
        }
    }

    /// Whether at most one of the alternatives says anything but "with a key".
    fn only_keys_differ<'a>(&self, requirements: impl Iterator<Item = &'a Value>) -> bool {
        requirements
            .flat_map(|one| one.as_object().into_iter().flat_map(Map::keys))
            .filter(|name| self.schemes.get(*name) != Some(&Scheme::ApiKey))
            .count()
            <= 1
    }
}

fn is_requirement(value: &Value) -> bool {
    value.as_object().is_some_and(|members| !members.is_empty())
}

fn authorizer(
    context: &mut Context<'_>,
    place: &str,
    name: &str,
    scheme: &Map<String, Value>,
    members: &Map<String, Value>,
    auth_type: Option<String>,
) -> Option<Authorizer> {
    context.leftovers(place, members, &AUTHORIZER_KNOWN);
    for other in HTTP_API_ONLY.iter().filter(|name| members.contains_key(**name)) {
        context.warn(format!(
            "{place}: `{other}` is for HTTP APIs and was not imported"
        ));
    }
    let Some(kind) = context
        .text(place, members, "type")
        .map(|kind| kind.to_ascii_uppercase())
    else {
        // OAX-064.
        context.error(format!("{place}: the authorizer's `type` is missing"));
        return None;
    };
    let parameter = scheme
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or("Authorization");
    let derived = match scheme.get("in").and_then(Value::as_str) {
        Some("query") => format!("method.request.querystring.{parameter}"),
        _ => format!("method.request.header.{parameter}"),
    };
    let stated = context.text(place, members, "identitySource").map(|text| {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(",")
    });
    let authorizer = Authorizer {
        id: None,
        name: Some(name.to_owned()),
        identity_source: match kind.as_str() {
            // OAX-054, OAX-065: these read one header, that of the scheme.
            "TOKEN" | "COGNITO_USER_POOLS" => Some(derived),
            // OAX-055, OAX-056.
            "REQUEST" if stated.is_none() && parameter != "Unused" => Some(derived),
            _ => stated,
        },
        kind: Some(kind),
        provider_arns: context.texts(place, members, "providerARNs"),
        auth_type,
        authorizer_uri: context.text(place, members, "authorizerUri"),
        authorizer_credentials: context.text(place, members, "authorizerCredentials"),
        identity_validation_expression: context.text(place, members, "identityValidationExpression"),
        authorizer_result_ttl_in_seconds: context.number(place, members, "authorizerResultTtlInSeconds"),
        jwt_configuration: jwt(context, place, members),
    };
    if let Err(refusal) = authorizer.check() {
        context.error(format!("{place}: {}", refusal.message));
        return None;
    }
    Some(authorizer)
}

fn jwt(context: &mut Context<'_>, place: &str, members: &Map<String, Value>) -> Option<JwtConfiguration> {
    let configuration = context.object(place, members, "jwtConfiguration")?;
    context.leftovers(place, configuration, &["issuer", "audience"]);
    let issuer = JwtIssuer {
        issuer: context.text(place, configuration, "issuer"),
        audiences: context.texts(place, configuration, "audience"),
        ..JwtIssuer::default()
    };
    Some(JwtConfiguration {
        issuers: Some(vec![issuer]),
        default_algorithms: None,
    })
}

const SCHEME_KNOWN: [&str; 12] = [
    "type",
    "name",
    "in",
    "description",
    "scheme",
    "bearerFormat",
    "flow",
    "flows",
    "authorizationUrl",
    "openIdConnectUrl",
    "x-amazon-apigateway-authtype",
    "x-amazon-apigateway-authorizer",
];

const AUTHORIZER_KNOWN: [&str; 10] = [
    "type",
    "authorizerUri",
    "authorizerCredentials",
    "identitySource",
    "identityValidationExpression",
    "authorizerResultTtlInSeconds",
    "providerARNs",
    "jwtConfiguration",
    "authorizerPayloadFormatVersion",
    "enableSimpleResponses",
];

/// OAX-062, OAX-065.
const HTTP_API_ONLY: [&str; 1] = ["authorizerPayloadFormatVersion"];
