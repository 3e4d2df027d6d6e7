//! Whole definitions: what an import brings, and what a deployment freezes.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use aws_lc_rs::digest;
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};

use super::{
    ApiResource, Authorizer, DocumentationPart, GatewayResponse, Method, Model, Refusal, RequestValidator,
    RestApi,
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

/// How a draft's models refer to each other: by address, with this in place of the API's id (VTL-024).
pub const OWN_MODELS: &str = "https://apigateway.amazonaws.com/restapis/{restApiId}/models/";

impl Draft {
    /// Puts the API's id into references between models.
    pub fn address_models(&mut self, api: &str) {
        let address = OWN_MODELS.replace("{restApiId}", api);
        for schema in self.models.values_mut().filter_map(|model| model.schema.as_mut()) {
            if schema.contains(OWN_MODELS) {
                *schema = schema.replace(OWN_MODELS, &address);
            }
        }
    }
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

/// Most bytes that a definition may have when unpacked: bounds what a broken store can make us allocate.
const MAX_DEFINITION: u64 = 256 << 20;

impl Definition {
    /// Its canonical form, packed, and the SHA-256 of the canonical form in hexadecimal: the same definition gives the
    /// same bytes and the same name.
    pub fn pack(&self) -> Result<(String, Vec<u8>), Refusal> {
        // Maps are sorted and members have a fixed order, so that serde's form is canonical.
        let json = serde_json::to_vec(self).map_err(Refusal::internal)?;
        let hash = digest::digest(&digest::SHA256, &json);
        let name = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut packer = DeflateEncoder::new(Vec::new(), Compression::default());
        packer.write_all(&json).map_err(Refusal::internal)?;
        Ok((name, packer.finish().map_err(Refusal::internal)?))
    }

    /// Reads what [`Definition::pack`] wrote.
    pub fn unpack(packed: &[u8]) -> Result<Self, Refusal> {
        let mut json = Vec::new();
        DeflateDecoder::new(packed)
            .take(MAX_DEFINITION)
            .read_to_end(&mut json)
            .map_err(Refusal::internal)?;
        let definition: Self = serde_json::from_slice(&json).map_err(Refusal::internal)?;
        if definition.version > DEFINITION_VERSION {
            return Err(Refusal::internal(format!(
                "a deployment was made by a newer Tidegate (definition version {}): run that version",
                definition.version
            )));
        }
        Ok(definition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DEP-040: a definition reads back as it was frozen, under a name that is its content's.
    #[test]
    fn packs_canonically() {
        let mut definition = Definition {
            version: DEFINITION_VERSION,
            ..Definition::default()
        };
        definition.rest_api.name = Some("pets".into());
        definition.resources.insert(
            "r1".into(),
            DefinedResource {
                resource: ApiResource::root("r1".into()),
                methods: BTreeMap::from([("GET".into(), Method::default())]),
            },
        );
        let (name, packed) = definition.pack().expect("packs");
        assert_eq!(name.len(), 64);
        assert_eq!(
            definition.clone().pack().expect("packs"),
            (name.clone(), packed.clone())
        );
        assert_eq!(Definition::unpack(&packed).expect("unpacks"), definition);
        definition.rest_api.name = Some("cats".into());
        assert_ne!(definition.pack().expect("packs").0, name);
        assert!(Definition::unpack(b"garbage").is_err());
    }

    /// VTL-024: references between the models of one document name the API that they come to belong to.
    #[test]
    fn models_refer_to_their_own_api() {
        let schema = format!("{{\"$ref\": \"{OWN_MODELS}Tag\"}}");
        let mut draft = Draft::default();
        draft.models.insert(
            "Pet".into(),
            Model {
                schema: Some(schema),
                ..Model::default()
            },
        );
        draft.address_models("a1b2c3d4e5");
        assert_eq!(
            draft.models["Pet"].schema.as_deref(),
            Some("{\"$ref\": \"https://apigateway.amazonaws.com/restapis/a1b2c3d4e5/models/Tag\"}")
        );
    }
}
