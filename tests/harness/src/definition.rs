//! OpenAPI documents for tests, made rather than kept, because a backend's port is known only when it runs.

use serde_json::{Map, Value, json};

/// An OpenAPI 3.0 document under construction.
#[derive(Debug, Clone)]
pub struct Definition {
    title: String,
    paths: Map<String, Value>,
    members: Map<String, Value>,
}

impl Definition {
    /// An API without methods.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            paths: Map::new(),
            members: Map::new(),
        }
    }

    /// A method that proxies to `uri` (`HTTP_PROXY`). `{name}` in both path and URI is mapped; `ANY` matches every verb.
    #[must_use]
    pub fn proxy(self, method: &str, path: &str, uri: &str) -> Self {
        self.proxy_within(method, path, uri, 29_000)
    }

    /// As [`Definition::proxy`], with an integration time-out in milliseconds.
    #[must_use]
    pub fn proxy_within(self, method: &str, path: &str, uri: &str, timeout: u32) -> Self {
        let names = names(path);
        let mapped: Map<String, Value> = names
            .iter()
            .map(|name| {
                (
                    format!("integration.request.path.{name}"),
                    json!(format!("method.request.path.{name}")),
                )
            })
            .collect();
        let integration = json!({
            "type": "http_proxy", "httpMethod": method, "uri": uri, "timeoutInMillis": timeout,
            "passthroughBehavior": "when_no_match", "requestParameters": mapped,
        });
        self.method(method, path, 200, integration)
    }

    /// A method that answers by itself with a status (`MOCK`).
    #[must_use]
    pub fn mock(self, method: &str, path: &str, status: u16) -> Self {
        let mut responses = Map::new();
        responses.insert("default".to_owned(), json!({ "statusCode": status.to_string() }));
        let integration = json!({
            "type": "mock", "requestTemplates": { "application/json": format!("{{\"statusCode\": {status}}}") },
            "responses": responses,
        });
        self.method(method, path, status, integration)
    }

    /// A method with an integration as the extension has it, and one method response.
    #[must_use]
    pub fn method(self, method: &str, path: &str, status: u16, integration: Value) -> Self {
        let parameters: Vec<Value> = names(path)
            .into_iter()
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        let mut operation = json!({
            "responses": { status.to_string(): { "description": "as declared" } },
            "x-amazon-apigateway-integration": integration,
        });
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        self.operation(method, path, operation)
    }

    /// An operation as it stands in a document.
    #[must_use]
    pub fn operation(mut self, method: &str, path: &str, operation: Value) -> Self {
        let verb = match method {
            "ANY" => "x-amazon-apigateway-any-method".to_owned(),
            other => other.to_ascii_lowercase(),
        };
        self.paths.entry(path).or_insert_with(|| json!({}))[verb] = operation;
        self
    }

    /// A member of the document beside its paths.
    #[must_use]
    pub fn member(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// The document.
    pub fn to_json(&self) -> String {
        let mut document = json!({
            "openapi": "3.0.1",
            "info": { "title": self.title, "version": "2026-01-01T00:00:00Z" },
            "paths": self.paths,
        });
        for (name, value) in &self.members {
            document[name] = value.clone();
        }
        format!("{document:#}")
    }
}

/// The parameters of a path, without `+`.
fn names(path: &str) -> Vec<String> {
    path.split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| name.trim_end_matches('+').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_parameters_are_declared_and_mapped() {
        let text = Definition::new("t")
            .proxy("ANY", "/files/{proxy+}", "http://127.0.0.1:1/{proxy}")
            .to_json();
        let document: Value = serde_json::from_str(&text).unwrap();
        let operation = &document["paths"]["/files/{proxy+}"]["x-amazon-apigateway-any-method"];
        assert_eq!(operation["parameters"][0]["name"], "proxy");
        let mapped = &operation["x-amazon-apigateway-integration"]["requestParameters"];
        assert_eq!(
            mapped["integration.request.path.proxy"],
            "method.request.path.proxy"
        );
    }
}
