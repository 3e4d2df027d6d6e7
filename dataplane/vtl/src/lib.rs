//! The mapping-template language of REST APIs: templates, the JSON they read, the JSONPath they find it by.
//!
//! No I/O, and nothing of the gateway: a caller gives a [`Scope`] and a [`Document`], and takes a text and
//! [`Overrides`]. Requirements are the `VTL-…` lines of the spec, and the AWS guide's topics "Mapping template
//! reference" and "Override your API's request and response parameters"; what the language is, and where it differs
//! from Velocity 1.7, is told in `docs/templates.md`.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`template`] | a template: parsed once, rendered by every shard |
//! | [`scope`] | the seam to the caller: parameters, stage variables, `$context` |
//! | [`overrides`] | what templates set beside the body |
//! | [`budget`] | what a render may cost |
//! | [`json`] | documents as spans of their text |
//! | [`path`] | JSONPath as the service's Java library has it |
//! | [`error`] | why a template is refused, why a render fails |

pub mod budget;
pub mod error;
pub mod fuzz_bodies;
pub mod json;
mod number;
pub mod overrides;
pub mod path;
mod regexp;
mod render;
pub mod scope;
mod syntax;
pub mod template;

pub use budget::Budget;
pub use error::{ErrorKind, ParseError, RenderError, Warning};
pub use json::{Document, Json};
pub use overrides::{OverrideValue, Overrides, Phase};
pub use path::{JsonPath, Selection};
pub use scope::{Each, Scope, Source};
pub use template::{Render, Rendered, Template};
