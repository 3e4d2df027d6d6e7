//! Import of OpenAPI 3.0 and Swagger 2.0 documents.
//!
//! [`import`] turns bytes into a [`Draft`]: paths into resources and methods, schemas into models, the
//! `x-amazon-apigateway-*` extensions into integrations, authorizers, validators, gateway responses and settings. What
//! it does not understand is a warning that names it (OAP-048); what no API can have is an error that says where
//! (OAP-046). It does no I/O, and what a document can make it hold is bounded.

mod context;
mod document;
mod error;
mod integration;
mod operation;
mod reference;
mod root;
mod schema;
mod security;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use context::{Context, Version};
pub use document::MAX_DOCUMENT_BYTES;
pub use error::{ImportError, Position};
use operation::Shared;
use reference::resolve_object;
use schema::Schemas;
use security::Security;

use crate::model::{Draft, Imported, Method, PathPart, check_place};

/// What the caller wishes of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// What becomes of the document's base path.
    pub base_path: BasePath,
    /// Refuse documents with warnings (OAP-050).
    pub fail_on_warnings: bool,
    /// The value of `${AWS::AccountId}`.
    pub account_id: String,
    /// The value of `${AWS::Region}`.
    pub region: String,
    /// The value of `${AWS::Partition}`.
    pub partition: String,
    /// The largest document that is taken.
    pub max_bytes: usize,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            base_path: BasePath::Ignore,
            fail_on_warnings: false,
            account_id: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            partition: "aws".to_owned(),
            max_bytes: MAX_DOCUMENT_BYTES,
        }
    }
}

/// What becomes of a document's base path (OAP-034 to OAP-039).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BasePath {
    /// It is not looked at.
    #[default]
    Ignore,
    /// It goes in front of every path.
    Prepend,
    /// Its first segment is dropped, the rest goes in front of every path.
    Split,
}

impl BasePath {
    /// Reads the name on the wire, in any case; empty is the default.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "" | "ignore" => Some(Self::Ignore),
            "prepend" => Some(Self::Prepend),
            "split" => Some(Self::Split),
            _ => None,
        }
    }
}

/// Reads a document.
pub fn import(bytes: &[u8], options: &ImportOptions) -> Result<Imported, ImportError> {
    let document = document::parse(bytes, options.max_bytes)?;
    let (root, remarks) = template::unfold(document, options)?;
    let version = version(&root)?;
    let mut context = Context::new(&root, version, options);
    for remark in remarks {
        context.warn(remark);
    }
    let mut draft = Draft {
        rest_api: root::rest_api(&mut context),
        ..Draft::default()
    };
    draft.request_validators = root::validators(&mut context);
    draft.gateway_responses = root::gateway_responses(&mut context);
    draft.documentation_parts = root::documentation(&mut context);
    let place = "document";
    let mut shared = Shared {
        schemas: Schemas::declare(&mut context)?,
        security: Security::declare(&mut context)?,
        validators: draft.request_validators.keys().cloned().collect(),
        validator: context.text(place, &root, "x-amazon-apigateway-request-validator"),
        consumes: context.texts(place, &root, "consumes").unwrap_or_default(),
        produces: context.texts(place, &root, "produces").unwrap_or_default(),
        parameters: Vec::new(),
    };
    draft.paths = paths(&mut context, &mut shared)?;
    draft.models = shared.schemas.models;
    draft.authorizers = shared.security.authorizers;
    let warnings = context.finish()?;
    Ok(Imported { draft, warnings })
}

/// Which specification the document follows (OAP-001).
fn version(root: &Map<String, Value>) -> Result<Version, ImportError> {
    let text = |name: &str| root.get(name).and_then(context::scalar);
    let reason = match (text("swagger"), text("openapi")) {
        (Some(version), _) if version == "2.0" || version == "2" => return Ok(Version::Swagger2),
        (_, Some(version)) if version == "3" || version == "3.0" || version.starts_with("3.0.") => {
            return Ok(Version::OpenApi3);
        }
        (Some(version), _) => format!("`swagger: {version}` is not supported; 2.0 is"),
        (_, Some(version)) => format!("`openapi: {version}` is not supported; 3.0 and Swagger 2.0 are"),
        (None, None) => "it has neither `openapi` nor `swagger` at its root".to_owned(),
    };
    Err(ImportError::NotADefinition { reason })
}

type Methods = BTreeMap<String, Method>;

/// Paths to resources, operations to methods. Resources that only stand between have no entry (OAP-007).
fn paths<'a>(
    context: &mut Context<'a>,
    shared: &mut Shared<'a>,
) -> Result<BTreeMap<String, Methods>, ImportError> {
    let root = context.root;
    let base = root::base_path(context);
    let mut draft: BTreeMap<String, Methods> = BTreeMap::new();
    let mut tree = Tree::default();
    if !base.is_empty() {
        // OAP-037: the segments of the base path are resources even if nothing is below them.
        match tree.insert(&base) {
            Ok(()) => {
                draft.insert(base.clone(), Methods::new());
            }
            Err(reason) => context.error(format!("Unable to create resource at path '{base}': {reason}")),
        }
    }
    let paths = match root.get("paths") {
        None | Some(Value::Null) => return Ok(draft),
        Some(Value::Object(paths)) => paths,
        Some(_) => {
            return Err(ImportError::NotADefinition {
                reason: "`paths` is not an object".to_owned(),
            });
        }
    };
    if paths.len() > MAX_PATHS {
        return Err(ImportError::Invalid(vec![format!(
            "the document has {} paths; an API has at most {MAX_PATHS}",
            paths.len()
        )]));
    }
    for (stated, value) in paths {
        if stated.starts_with("x-") {
            continue;
        }
        let Some(item) = resolve_object(context, &format!("path '{stated}'"), value)? else {
            continue;
        };
        if !stated.starts_with('/') {
            context.error(format!(
                "Unable to create resource at path '{stated}': a path begins with a slash"
            ));
            continue;
        }
        let path = join(&base, stated);
        if let Err(reason) = tree.insert(&path) {
            context.error(format!("Unable to create resource at path '{path}': {reason}"));
            continue;
        }
        shared.parameters = operation::path_parameters(context, &path, item)?;
        let place = format!("path '{path}'");
        context.leftovers(&place, item, &PATH_ITEM);
        if item.contains_key("servers") {
            context.warn(format!(
                "{place}: `servers` of a path is not supported and was not imported"
            ));
        }
        let mut methods = draft.remove(&path).unwrap_or_default();
        for (name, verb) in VERBS {
            let Some(value) = item.get(name) else { continue };
            let Some(members) = resolve_object(context, &format!("{place} {name}"), value)? else {
                continue;
            };
            let method = operation::read(context, shared, verb, &path, members)?;
            if methods.insert(verb.to_owned(), method).is_some() {
                context.warn(format!(
                    "{place}: `{stated}` is the same resource as an earlier path; its {verb} stays"
                ));
            }
        }
        draft.insert(path, methods);
    }
    Ok(draft)
}

/// The resource's path: no slash at its end, none doubled.
fn join(base: &str, path: &str) -> String {
    let mut joined = String::from(base);
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        joined.push('/');
        joined.push_str(segment);
    }
    if joined.is_empty() {
        joined.push('/');
    }
    joined
}

/// The resources so far, to refuse paths that cannot stand beside each other.
#[derive(Default)]
struct Tree {
    /// A resource's path to its variable child's part; an API has one at most there.
    variables: BTreeMap<String, String>,
}

impl Tree {
    fn insert(&mut self, path: &str) -> Result<(), String> {
        let mut above = String::new();
        let mut parent: Option<&str> = None;
        if path.len() > MAX_PATH_BYTES {
            return Err(format!("a path has at most {MAX_PATH_BYTES} bytes"));
        }
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let sibling = self
                .variables
                .get(&above)
                .map(String::as_str)
                .filter(|sibling| *sibling != part);
            check_place(part, parent, sibling).map_err(|refusal| refusal.message)?;
            if PathPart::parse(part).is_ok_and(PathPart::is_variable) {
                self.variables
                    .entry(above.clone())
                    .or_insert_with(|| part.to_owned());
            }
            above.push('/');
            above.push_str(part);
            parent = Some(part);
        }
        Ok(())
    }
}

/// Members of a path item that are operations, and their verbs.
const VERBS: [(&str, &str); 8] = [
    ("get", "GET"),
    ("put", "PUT"),
    ("post", "POST"),
    ("delete", "DELETE"),
    ("options", "OPTIONS"),
    ("head", "HEAD"),
    ("patch", "PATCH"),
    ("x-amazon-apigateway-any-method", "ANY"),
];

const PATH_ITEM: [&str; 13] = [
    "get",
    "put",
    "post",
    "delete",
    "options",
    "head",
    "patch",
    "x-amazon-apigateway-any-method",
    "parameters",
    "servers",
    "summary",
    "description",
    "$ref",
];

/// Routes an API may have (the design load; the service allows 300 resources).
const MAX_PATHS: usize = 10_000;
/// Longer ones could not be asked for: a request line is shorter by default.
const MAX_PATH_BYTES: usize = 8_192;
