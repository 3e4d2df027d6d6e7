//! Whole definitions: what an import brings, and what a deployment freezes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ApiResource, Authorizer, DocumentationPart, GatewayResponse, Method, Model, RequestValidator, RestApi,
};

/// What a document describes, with the reader's remarks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// The API it describes.
    pub draft: Draft,
    /// What was not understood, by name.
    pub warnings: Vec<String>,
}

/// A whole API without ids. Within it entities are referred to by name: a method's `request_validator_id` holds a key
/// of `request_validators`, its `authorizer_id` the name of one of `authorizers`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// The API itself: name, description, version, media types, policy and the like; no id.
    pub rest_api: RestApi,
    /// Full path (`/pets/{petId}`) to the methods on it, by verb. The resources between are made as needed; a path
    /// without methods makes its resource all the same.
    pub paths: BTreeMap<String, BTreeMap<String, Method>>,
    /// Models, by name.
    pub models: BTreeMap<String, Model>,
    /// Request validators, by name.
    pub request_validators: BTreeMap<String, RequestValidator>,
    /// Authorizers, by name.
    pub authorizers: BTreeMap<String, Authorizer>,
    /// Gateway responses, by type.
    pub gateway_responses: BTreeMap<String, GatewayResponse>,
    /// Documentation, in the document's order.
    pub documentation_parts: Vec<DocumentationPart>,
}

/// How an import meets what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImportMode {
    /// The draft becomes what the document says.
    #[default]
    Overwrite,
    /// What the document does not mention stays.
    Merge,
}

/// The version of [`Definition`] that this program writes.
pub const DEFINITION_VERSION: u32 = 1;

/// What a deployment freezes (C4): the draft as it was, ids included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// [`DEFINITION_VERSION`] of the program that wrote it.
    pub version: u32,
    /// The API's settings and policy.
    pub rest_api: RestApi,
    /// Resources by id, with their methods by verb.
    pub resources: BTreeMap<String, DefinedResource>,
    /// Models by name.
    pub models: BTreeMap<String, Model>,
    /// Request validators by id.
    pub request_validators: BTreeMap<String, RequestValidator>,
    /// Authorizers by id.
    pub authorizers: BTreeMap<String, Authorizer>,
    /// Gateway responses by type.
    pub gateway_responses: BTreeMap<String, GatewayResponse>,
}

/// A resource of a definition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DefinedResource {
    /// The resource.
    #[serde(flatten)]
    pub resource: ApiResource,
    /// Its methods by verb.
    pub methods: BTreeMap<String, Method>,
}
