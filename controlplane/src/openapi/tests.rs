//! The import as a whole, over documents in memory and the samples that the project ships.

use serde_json::{Value, json};

use super::*;

const PETSTORE: &str = include_str!("../../../examples/petstore.yaml");
const PETSTORE_SWAGGER: &str = include_str!("../../../examples/petstore-swagger.json");

fn options() -> ImportOptions {
    ImportOptions {
        account_id: "123456789012".into(),
        region: "us-east-2".into(),
        ..ImportOptions::default()
    }
}

fn read(document: Value) -> Result<Imported, ImportError> {
    import(document.to_string().as_bytes(), &options())
}

fn document(paths: Value) -> Value {
    json!({"openapi": "3.0.1", "info": {"title": "T", "version": "1"}, "paths": paths})
}

/// One GET with this integration on `path`.
fn with_integration(path: &str, integration: Value) -> Value {
    document(
        json!({path: {"get": {"responses": {"200": {"description": ""}}, "x-amazon-apigateway-integration": integration}}}),
    )
}

fn proxy() -> Value {
    json!({"type": "http_proxy", "httpMethod": "GET", "uri": "http://example.com/"})
}

fn integration(imported: &Imported, path: &str, verb: &str) -> crate::model::Integration {
    imported.draft.paths[path][verb]
        .method_integration
        .clone()
        .expect("an integration")
}

fn invalid(document: Value) -> String {
    match read(document) {
        Err(error @ ImportError::Invalid(_)) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

/// The extension becomes the integration's setting; a version that there is none of, or another type, is an error.
#[test]
fn proxy_protocol() {
    let with = |kind: &str, version: &str| {
        let uri = "http://example.com/";
        let integration =
            json!({"type": kind, "httpMethod": "GET", "uri": uri, "x-tidegate-proxy-protocol": version});
        with_integration("/a", integration)
    };
    for kind in ["http", "http_proxy"] {
        for version in ["v1", "v2"] {
            let imported = read(with(kind, version)).expect("imports");
            assert_eq!(imported.warnings, Vec::<String>::new());
            let known = integration(&imported, "/a", "GET").proxy_protocol;
            assert_eq!(known.as_deref(), Some(version));
        }
    }
    let both = json!({"type": "http_proxy", "httpMethod": "GET", "uri": "https://example.com/",
        "x-tidegate-proxy-protocol": "v1", "x-tidegate-pass-through": {"http2": "alpn"}});
    let text = invalid(with_integration("/a", both));
    assert!(text.contains("exclude each other"), "{text}");
    for (kind, version, said) in [("http", "v3", "v1 or v2"), ("mock", "v1", "HTTP and HTTP_PROXY")] {
        let text = invalid(with(kind, version));
        assert!(text.contains(said), "{text}");
    }
}

/// D13: the extension becomes the integration's setting; one that cannot be is an error.
#[test]
fn pass_through() {
    let with = |kind: &str, uri: &str, pass: Value| {
        with_integration(
            "/a",
            json!({"type": kind, "httpMethod": "GET", "uri": uri, "x-tidegate-pass-through": pass}),
        )
    };
    let all = json!({"upgrade": true, "trailers": "true", "http2": "alpn", "forwarded": true, "via": false});
    let imported = read(with("http_proxy", "https://example.com/", all)).expect("imports");
    assert_eq!(imported.warnings, Vec::<String>::new());
    assert_eq!(
        integration(&imported, "/a", "GET").pass_through,
        Some(crate::model::PassThrough {
            upgrade: Some(true),
            trailers: Some(true),
            http2: Some("alpn".into()),
            forwarded: Some(true),
            via: Some(false),
        })
    );
    let imported = read(with("http_proxy", "http://example.com/", json!({"tunnel": true}))).expect("imports");
    assert!(
        imported.warnings[0].contains("`tunnel` is not supported"),
        "{:?}",
        imported.warnings
    );
    for (kind, http2, said) in [
        ("http", "prior-knowledge", "HTTP_PROXY"),
        ("http_proxy", "alpn", "https://"),
        ("http_proxy", "h2c", "prior-knowledge, alpn"),
    ] {
        let text = invalid(with(kind, "http://example.com/", json!({"http2": http2})));
        assert!(text.contains(said), "{text}");
    }
}

/// SCN-072, OAP-001: the sample is imported in one step, without a warning.
#[test]
fn pet_store() {
    let imported = import(PETSTORE.as_bytes(), &options()).expect("the sample");
    assert_eq!(imported.warnings, Vec::<String>::new());
    let draft = &imported.draft;
    assert_eq!(draft.rest_api.name.as_deref(), Some("Tidegate Pet Store"));
    assert_eq!(draft.rest_api.version.as_deref(), Some("1.0"));
    let paths: Vec<_> = draft.paths.keys().map(String::as_str).collect();
    assert_eq!(paths, ["/", "/pets", "/pets/{petId}", "/petstore/{proxy+}"]);
    assert_eq!(
        draft.paths["/pets"].keys().collect::<Vec<_>>(),
        ["GET", "OPTIONS", "POST"]
    );
    let list = &draft.paths["/pets"]["GET"];
    assert!(!list.request_parameters.as_ref().expect("parameters")["method.request.querystring.type"]);
    let responses = list.method_responses.as_ref().expect("responses");
    assert_eq!(
        responses["200"].response_models.as_ref().expect("models")["application/json"],
        "Pets"
    );
    assert_eq!(draft.models.len(), 4);
    assert_eq!(draft.gateway_responses.len(), 1);
}

/// OAP-001, OAP-029, OAP-055, OAP-057: the same API in Swagger 2.0.
#[test]
fn pet_store_in_swagger() {
    let imported = import(PETSTORE_SWAGGER.as_bytes(), &options()).expect("the sample");
    assert_eq!(imported.warnings, Vec::<String>::new());
    let get = &imported.draft.paths["/pets/{petId}"]["GET"];
    assert!(get.request_parameters.as_ref().expect("parameters")["method.request.path.petId"]);
    let integration = get.method_integration.as_ref().expect("an integration");
    assert_eq!(
        integration.request_parameters.as_ref().expect("mapped")["integration.request.path.id"],
        "method.request.path.petId"
    );
    let post = &imported.draft.paths["/pets"]["POST"];
    assert_eq!(
        post.request_models.as_ref().expect("models")["application/json"],
        "NewPet"
    );
}

/// OAP-007, OAP-029 to OAP-039: what each value of `basepath` makes of paths, in both specifications.
#[test]
fn base_path_modes() {
    let three = json!({
        "openapi": "3.0.1", "info": {"title": "T"},
        "servers": [{"url": "https://example.com/{basePath}", "variables": {"basePath": {"default": "/a/b/c"}}}],
        "paths": {"/e": {}, "/f": {}},
    });
    let two = json!({"swagger": "2.0", "info": {"title": "T"}, "basePath": "a/b/c/", "paths": {"/e": {}, "/f": {}}});
    for document in [three, two] {
        for (mode, expected) in [
            (BasePath::Ignore, &["/e", "/f"][..]),
            (BasePath::Prepend, &["/a/b/c", "/a/b/c/e", "/a/b/c/f"]),
            (BasePath::Split, &["/b/c", "/b/c/e", "/b/c/f"]),
        ] {
            let options = ImportOptions {
                base_path: mode,
                ..options()
            };
            let imported = import(document.to_string().as_bytes(), &options).expect("imported");
            assert_eq!(
                imported.draft.paths.keys().collect::<Vec<_>>(),
                expected,
                "{mode:?}"
            );
        }
    }
}

/// OAP-030 to OAP-033: where OpenAPI 3.0 keeps the base path.
#[test]
fn base_path_places() {
    for (servers, expected) in [
        (
            json!([{"url": "/{basePath}", "variables": {"basePath": {"default": "/test"}}}]),
            "/test/x",
        ),
        (
            json!([{"variables": {"basePath": {"default": "one"}}}, {"variables": {"basePath": {"default": "two"}}}]),
            "/one/x",
        ),
        (json!([{"url": "https://api.example.com/a/b"}]), "/a/b/x"),
        (
            json!([{"url": "https://api.example.com/{stage}/v1", "variables": {"stage": {"default": "live"}}}]),
            "/live/v1/x",
        ),
        (json!([{"url": "https://api.example.com"}]), "/x"),
        (json!([]), "/x"),
    ] {
        let document =
            json!({"openapi": "3.0.1", "info": {"title": "T"}, "servers": servers, "paths": {"/x": {}}});
        let options = ImportOptions {
            base_path: BasePath::Prepend,
            ..options()
        };
        let imported = import(document.to_string().as_bytes(), &options).expect("imported");
        assert!(
            imported.draft.paths.contains_key(expected),
            "{expected}: {:?}",
            imported.draft.paths.keys()
        );
    }
}

/// OAP-035: the names of the modes, in any case.
#[test]
fn base_path_names() {
    assert_eq!(BasePath::parse(""), Some(BasePath::Ignore));
    assert_eq!(BasePath::parse("PREPEND"), Some(BasePath::Prepend));
    assert_eq!(BasePath::parse("cut"), None);
}

/// OAP-042, OAP-043, OAP-052, OAP-055: variables are resolved, types taken in any case.
#[test]
fn variables_of_the_cloud() {
    let uri = "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:F/invocations";
    let imported = read(with_integration(
        "/f",
        json!({"type": "aws_proxy", "httpMethod": "post", "uri": uri, "contentHandling": "CONVERT_TO_TEXT"}),
    ))
    .expect("imported");
    let integration = integration(&imported, "/f", "GET");
    assert_eq!(
        integration.uri.as_deref(),
        Some(
            "arn:aws:apigateway:us-east-2:lambda:path/2015-03-31/functions/arn:aws:lambda:us-east-2:123456789012:function:F/invocations"
        )
    );
    assert_eq!(integration.kind.as_deref(), Some("AWS_PROXY"));
    assert_eq!(integration.http_method.as_deref(), Some("POST"));
}

/// OAP-053, OAP-054, OAX-023, OAX-120, OBV-233: a mock under any-method with patterns.
#[test]
fn mock_with_responses() {
    let imported = read(document(json!({"/m": {"x-amazon-apigateway-any-method": {
        "responses": {"200": {"description": ""}, "400": {"description": "", "headers": {"X-A": {"schema": {"type": "string"}}}}},
        "x-amazon-apigateway-integration": {
            "type": "mock", "passthroughBehavior": "when_no_templates",
            "requestTemplates": {"application/json": "{\"statusCode\": 200}"},
            "responses": {
                "default": {"statusCode": "200"},
                "4\\d{2}": {"statusCode": 400, "responseParameters": {"method.response.header.X-A": "'a'"}},
            },
        },
    }}})))
    .expect("imported");
    assert_eq!(imported.warnings, Vec::<String>::new());
    let integration = integration(&imported, "/m", "ANY");
    assert_eq!(
        integration.passthrough_behavior.as_deref(),
        Some("WHEN_NO_TEMPLATES")
    );
    let responses = integration.integration_responses.expect("responses");
    assert_eq!(responses["200"].selection_pattern, None);
    assert_eq!(responses["400"].selection_pattern.as_deref(), Some("4\\d{2}"));
}

/// SCN-081: the greedy variable in the backend's URL needs no mapping.
#[test]
fn greedy_variable_is_mapped() {
    let imported = read(with_integration(
        "/{proxy+}",
        json!({"type": "http_proxy", "httpMethod": "ANY", "uri": "http://example.com/{proxy}"}),
    ))
    .expect("imported");
    let method = &imported.draft.paths["/{proxy+}"]["GET"];
    assert!(method.request_parameters.as_ref().expect("declared")["method.request.path.proxy"]);
    assert_eq!(
        integration(&imported, "/{proxy+}", "GET")
            .request_parameters
            .expect("mapped")["integration.request.path.proxy"],
        "method.request.path.proxy"
    );
}

/// OAX-116: a mapping's source is declared, if need be by us, with a warning.
#[test]
fn undeclared_sources_are_told() {
    let mut with_mapping = proxy();
    with_mapping["requestParameters"] =
        json!({"integration.request.header.x": "method.request.querystring.q"});
    let imported = read(with_integration("/x", with_mapping)).expect("imported");
    assert!(
        imported.warnings[0].contains("method.request.querystring.q"),
        "{:?}",
        imported.warnings
    );
}

/// OAP-048, OAP-049, OAP-050: a missing model is a warning, or the refusal's text.
#[test]
fn missing_models_warn() {
    let document = document(json!({"/x": {"post": {
        "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Nope"}}}},
        "responses": {"200": {"description": ""}},
        "x-amazon-apigateway-integration": {"type": "http_proxy", "httpMethod": "POST", "uri": "http://example.com/"},
    }}}));
    let imported = read(document.clone()).expect("imported");
    assert_eq!(imported.warnings.len(), 1);
    assert!(imported.warnings[0].contains("Nope"), "{:?}", imported.warnings);
    let strict = ImportOptions {
        fail_on_warnings: true,
        ..options()
    };
    let error = import(document.to_string().as_bytes(), &strict)
        .expect_err("refused")
        .to_string();
    assert!(
        error.starts_with("Warnings found during import:\n\t") && error.contains("Nope"),
        "{error}"
    );
}

/// OAP-046: what no API can have is refused, each with its place.
#[test]
fn errors_name_their_place() {
    let error = invalid(with_integration(
        "/x",
        json!({"type": "http_proxy", "httpMethod": "GET", "uri": "ftp://x"}),
    ));
    assert!(error.starts_with("Errors found during import:\n\t"), "{error}");
    assert!(
        error.contains("Unable to put integration on 'GET' for resource at path '/x': Invalid HTTP endpoint"),
        "{error}"
    );
    // QUO-154: a parameter is a whole segment.
    let error = invalid(document(json!({"/resource{id}": {}})));
    assert!(
        error.contains("Unable to create resource at path '/resource{id}'"),
        "{error}"
    );
    let error = invalid(document(json!({"/a/{x}": {}, "/a/{y}/z": {}})));
    assert!(error.contains("only one is allowed"), "{error}");
    let error = invalid(document(json!({"/{all+}/z": {}})));
    assert!(error.contains("greedy"), "{error}");
}

/// OAP-046: other documents are told apart from broken ones.
#[test]
fn other_documents_are_refused() {
    for (document, word) in [
        (json!({"a": 1}), "neither"),
        (json!({"openapi": "3.1.0", "paths": {}}), "3.1.0"),
        (json!({"swagger": "1.2", "paths": {}}), "1.2"),
        (json!([1]), "not an object"),
        (json!({"openapi": "3.0.1", "paths": 7}), "`paths`"),
    ] {
        let error = read(document).expect_err("refused");
        assert!(
            matches!(error, ImportError::NotADefinition { .. }) && error.to_string().contains(word),
            "{error}"
        );
    }
}

/// A reference that is itself is refused by its path, wherever it stands.
#[test]
fn cycles_are_refused() {
    let document = json!({
        "openapi": "3.0.1", "info": {"title": "T"},
        "paths": {"/x": {"get": {"parameters": [{"$ref": "#/components/parameters/A"}], "responses": {}}}},
        "components": {"parameters": {"A": {"$ref": "#/components/parameters/B"}, "B": {"$ref": "#/components/parameters/A"}}},
    });
    let error = read(document).expect_err("refused").to_string();
    assert_eq!(
        error,
        "a reference leads back to itself: #/components/parameters/A -> #/components/parameters/B -> #/components/parameters/A"
    );
}

/// A small document does not become a huge API by naming a large part often.
#[test]
fn references_unfold_within_a_bound() {
    let large: Value = (0..2_000)
        .map(|at| (format!("X-Header-{at}"), json!({"schema": {"type": "string"}})))
        .collect();
    let paths: Value = (0..2_000)
        .map(|at| {
            (
                format!("/p{at}"),
                json!({"get": {"responses": {"200": {"$ref": "#/components/responses/Large"}}}}),
            )
        })
        .collect();
    let document = json!({
        "openapi": "3.0.1", "info": {"title": "T"}, "paths": paths,
        "components": {"responses": {"Large": {"description": "", "headers": large}}},
    });
    let error = invalid(document);
    assert!(error.contains("unfold into more than"), "{error}");
}

/// OAX-040 to OAX-069, QUO-157, QUO-163: the ways to authorize.
#[test]
fn security() {
    let operation = |extra: Value| {
        let mut operation =
            json!({"responses": {"200": {"description": ""}}, "x-amazon-apigateway-integration": proxy()});
        for (name, value) in extra.as_object().expect("members") {
            operation[name] = value.clone();
        }
        json!({"get": operation})
    };
    let imported = read(json!({
        "openapi": "3.0.1", "info": {"title": "T"}, "security": [{"token": []}],
        "paths": {
            "/open": operation(json!({})),
            "/token": operation(json!({"security": [{"token": []}]})),
            "/pool": operation(json!({"security": [{"pool": ["read"]}]})),
            "/iam": operation(json!({"security": [{"sigv4": []}]})),
            "/iam2": operation(json!({"x-amazon-apigateway-auth": {"type": "aws_iam"}})),
            "/key": operation(json!({"security": [{"key": []}, {"token": []}]})),
            "/basic": operation(json!({"security": [{"basic": []}]})),
        },
        "components": {"securitySchemes": {
            "token": {"type": "apiKey", "name": "Auth", "in": "header", "x-amazon-apigateway-authtype": "oauth2",
                "x-amazon-apigateway-authorizer": {"type": "token", "authorizerUri": "arn:aws:apigateway:r:lambda:path/f", "authorizerResultTtlInSeconds": "60", "identityValidationExpression": "^x-[a-z]+"}},
            "request": {"type": "apiKey", "name": "Unused", "in": "header",
                "x-amazon-apigateway-authorizer": {"type": "request", "authorizerUri": "arn:aws:apigateway:r:lambda:path/f", "identitySource": "method.request.header.A, context.b"}},
            "pool": {"type": "apiKey", "name": "Authorization", "in": "header",
                "x-amazon-apigateway-authorizer": {"type": "cognito_user_pools", "providerARNs": ["arn:aws:cognito-idp:us-east-1:1:userpool/p"]}},
            "sigv4": {"type": "apiKey", "name": "Authorization", "in": "header", "x-amazon-apigateway-authtype": "awsSigv4"},
            "key": {"type": "apiKey", "name": "x-api-key", "in": "header"},
            "basic": {"type": "http", "scheme": "basic"},
        }},
    }))
    .expect("imported");
    let get = |path: &str| imported.draft.paths[path]["GET"].clone();
    let kind = |path: &str| get(path).authorization_type.expect("a type");
    assert_eq!(kind("/open"), "NONE");
    assert_eq!(
        (kind("/token").as_str(), get("/token").authorizer_id.as_deref()),
        ("CUSTOM", Some("token"))
    );
    assert_eq!(kind("/pool"), "COGNITO_USER_POOLS");
    assert_eq!(get("/pool").authorization_scopes, Some(vec!["read".to_owned()]));
    assert_eq!(kind("/iam"), "AWS_IAM");
    assert_eq!(kind("/iam2"), "AWS_IAM");
    assert_eq!(
        (kind("/key").as_str(), get("/key").api_key_required),
        ("CUSTOM", Some(true))
    );
    let token = &imported.draft.authorizers["token"];
    assert_eq!(
        token.identity_source.as_deref(),
        Some("method.request.header.Auth")
    );
    assert_eq!(token.authorizer_result_ttl_in_seconds, Some(60));
    assert_eq!(
        imported.draft.authorizers["request"].identity_source.as_deref(),
        Some("method.request.header.A,context.b")
    );
    let warnings = imported.warnings.join("\n");
    assert!(
        warnings.contains("`security` at the root") && warnings.contains("`basic`"),
        "{warnings}"
    );
}

/// OAX-064, OAX-070: authorizers without a type and reserved names are refused.
#[test]
fn broken_authorizers() {
    for (scheme, word) in [
        (
            json!({"type": "apiKey", "in": "header", "name": "A", "x-amazon-apigateway-authorizer": {"authorizerUri": "x"}}),
            "`type`",
        ),
        (
            json!({"type": "apiKey", "in": "header", "name": "A", "x-amazon-apigateway-authtype": "awsOther"}),
            "reserved",
        ),
    ] {
        let mut document = document(json!({}));
        document["components"] = json!({"securitySchemes": {"s": scheme}});
        let error = invalid(document);
        assert!(error.contains(word), "{error}");
    }
}

/// OAX-003, OAX-007, OAX-008, OAX-010, OAX-014 to OAX-017, OAX-074, OAX-078, OAX-134, OBV-145: settings at the root.
#[test]
fn root_extensions() {
    let mut document = with_integration("/x", proxy());
    for (name, value) in [
        ("api-key-source", json!("header")),
        ("binary-media-types", json!(["image/png", "*/*"])),
        ("minimum-compression-size", json!(1024)),
        (
            "policy",
            json!({"Statement": [{"Effect": "Allow", "Resource": ["execute-api:/*"]}]}),
        ),
        (
            "request-validators",
            json!({"basic": {"validateRequestBody": true}}),
        ),
        ("request-validator", json!("basic")),
        (
            "gateway-responses",
            json!({"DEFAULT_4XX": {"statusCode": 456, "responseParameters": {
            "gatewayresponse.header.A": "'a'", "gatewayresponse.path.B": "'b'"}}}),
        ),
        (
            "documentation",
            json!({"version": "1", "documentationParts": [
            {"location": {"type": "API"}, "properties": {"description": "d"}},
            {"location": {"type": "METHOD", "method": "GET"}, "properties": {"summary": "s"}}]}),
        ),
        ("importexport-version", json!("1.0")),
        (
            "endpoint-configuration",
            json!({"disableExecuteApiEndpoint": true}),
        ),
    ] {
        document[format!("x-amazon-apigateway-{name}")] = value;
    }
    let imported = read(document).expect("imported");
    let api = &imported.draft.rest_api;
    assert_eq!(api.api_key_source.as_deref(), Some("HEADER"));
    assert_eq!(
        api.binary_media_types,
        Some(vec!["image/png".to_owned(), "*/*".to_owned()])
    );
    assert_eq!(api.minimum_compression_size, Some(1024));
    assert_eq!(api.disable_execute_api_endpoint, Some(true));
    assert!(
        api.policy
            .as_deref()
            .expect("a policy")
            .contains("execute-api:/*")
    );
    assert_eq!(
        imported.draft.paths["/x"]["GET"].request_validator_id.as_deref(),
        Some("basic")
    );
    let validator = &imported.draft.request_validators["basic"];
    assert_eq!(
        (
            validator.validate_request_body,
            validator.validate_request_parameters
        ),
        (Some(true), Some(false))
    );
    let response = &imported.draft.gateway_responses["DEFAULT_4XX"];
    assert_eq!(response.status_code.as_deref(), Some("456"));
    assert_eq!(imported.draft.documentation_parts.len(), 2);
    let location = imported.draft.documentation_parts[1]
        .location
        .clone()
        .expect("a location");
    assert_eq!(
        (location.path.as_deref(), location.method.as_deref()),
        (Some("/"), Some("GET"))
    );
    assert_eq!(imported.warnings.len(), 1, "{:?}", imported.warnings);
    assert!(imported.warnings[0].contains("gatewayresponse.path.B"));
}

/// OAX-081, OAX-133, OAX-137: values that no API can have.
#[test]
fn refused_root_extensions() {
    for (name, value, word) in [
        ("minimum-compression-size", json!(10_485_761), "compression"),
        ("request-validator", json!("nope"), "nope"),
        ("gateway-responses", json!({"NO_SUCH": {}}), "NO_SUCH"),
    ] {
        let mut document = with_integration("/x", proxy());
        document[format!("x-amazon-apigateway-{name}")] = value;
        let error = invalid(document);
        assert!(error.contains(word), "{error}");
    }
}

/// What is not supported is named, never dropped in silence.
#[test]
fn unknown_parts_are_named() {
    let imported = read(json!({
        "openapi": "3.0.1", "info": {"title": "T"}, "webhooks": {}, "x-other-tool": 1,
        "x-amazon-apigateway-cors": {},
        "paths": {"/x": {
            "trace": {},
            "get": {
                "callbacks": {}, "x-tidegate-new": true,
                "parameters": [{"name": "c", "in": "cookie"}],
                "responses": {"default": {"description": ""}, "2XX": {"description": ""}},
                "x-amazon-apigateway-integration": {"type": "http_proxy", "httpMethod": "GET", "uri": "http://e/", "payloadFormatVersion": "1.0", "later": 1},
            },
        }},
    }))
    .expect("imported");
    let text = imported.warnings.join("\n");
    for name in [
        "`webhooks`",
        "x-other-tool",
        "cors",
        "`trace`",
        "`callbacks`",
        "`x-tidegate-new`",
        "`c`",
        "default",
        "2XX",
        "payloadFormatVersion",
        "`later`",
    ] {
        assert!(text.contains(name), "{name} in:\n{text}");
    }
}

/// QUO-162: a primitive in place is refused by Swagger 2.0; a reference to one is accepted.
#[test]
fn primitive_responses() {
    let swagger = |schema: Value| {
        json!({"swagger": "2.0", "info": {"title": "T"}, "definitions": {"S": {"type": "string"}},
            "paths": {"/x": {"get": {"responses": {"200": {"description": "", "schema": schema}}, "x-amazon-apigateway-integration": proxy()}}}})
    };
    assert!(invalid(swagger(json!({"type": "string"}))).contains("primitive"));
    read(swagger(json!({"$ref": "#/definitions/S"}))).expect("imported");
}

/// OAP-058: schemas written in place become models with names of their own.
#[test]
fn inline_schemas() {
    let imported = read(document(json!({"/pets/{id}": {"get": {
        "responses": {"200": {"description": "", "content": {"application/json": {"schema": {"type": "array", "items": {"type": "string"}}}}}},
        "x-amazon-apigateway-integration": proxy(),
    }}})))
    .expect("imported");
    assert!(
        imported.draft.models.contains_key("GetPetsIdResponse200"),
        "{:?}",
        imported.draft.models.keys()
    );
}

/// What a fuzzer feeds: any bytes give an answer, and what is accepted obeys the entities' own rules.
pub(crate) fn fuzz(bytes: &[u8]) {
    for base_path in [BasePath::Ignore, BasePath::Split] {
        let options = ImportOptions {
            base_path,
            max_bytes: 1 << 20,
            ..options()
        };
        match import(bytes, &options) {
            Ok(imported) => {
                for method in imported.draft.paths.values().flat_map(Methods::values) {
                    assert_eq!(method.check(), Ok(()));
                }
                for model in imported.draft.models.values() {
                    assert_eq!(model.check(), Ok(()));
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// The fuzz body over the samples, each cut and bent in many places: seeded, so that a failure comes again.
#[test]
fn corpus_replay() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % (below.max(1) as u64)).unwrap_or(0)
    };
    for sample in [PETSTORE, PETSTORE_SWAGGER] {
        fuzz(sample.as_bytes());
        for _ in 0..400 {
            let mut bytes = sample.as_bytes().to_vec();
            match random(4) {
                0 => bytes.truncate(random(bytes.len())),
                1 => {
                    let at = random(bytes.len());
                    bytes[at] = u8::try_from(random(256)).unwrap_or(0);
                }
                2 => {
                    let (from, length) = (random(bytes.len()), random(64));
                    let end = (from + length).min(bytes.len());
                    bytes.drain(from..end);
                }
                _ => {
                    let (from, to) = (random(bytes.len()), random(bytes.len()));
                    let end = (from + 40).min(bytes.len());
                    let piece = bytes[from..end].to_vec();
                    bytes.splice(to..to, piece);
                }
            }
            fuzz(&bytes);
        }
    }
    for text in [
        "",
        "{",
        "[]",
        "null",
        "openapi: 3.0.1",
        "openapi: 3.0.1\npaths: 7",
        "swagger: '2.0'\npaths: {x: 1}",
        "&a [*a]",
        "Resources: {A: {Properties: {Body: {swagger: '2.0', paths: {/: {get: 1}}}}}}",
    ] {
        fuzz(text.as_bytes());
    }
}
