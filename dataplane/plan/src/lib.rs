//! Paths, route tries, plans and limits: what both planes agree on, without I/O.
//!
//! The control plane compiles definitions with these types to learn what it must refuse; the data plane builds
//! the same types from a stage's bundle and serves from them. Every value is checked when it is made, so that a
//! shard never meets a state that cannot be served.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`names`] | ids, stage names, HTTP methods, status codes |
//! | [`binding`] | where cloud names lead: functions, endpoints of services |
//! | [`header`] | header names and values that are safe to write on the wire |
//! | [`limits`] | the one table of limits and time-outs |
//! | [`integration`] | what answers a method: a backend, a fixed answer, a known failure |
//! | [`custom`] | integrations behind mappings and templates |
//! | [`pattern`] | the regular expressions that choose integration responses |
//! | [`gateway_response`] | the answers the gateway gives by itself, and their overrides |
//! | [`checks`] | what a request validator asks of a request |
//! | [`schema`] | models, against which bodies are checked |
//! | [`path`] | the canonical form of a request's path |
//! | [`trie`] | finding the resource that a path addresses |
//! | [`stage`] | a stage as served: its plans, settings and variables |

pub mod binding;
pub mod checks;
pub mod custom;
pub mod gateway_response;
pub mod header;
pub mod integration;
pub mod limits;
pub mod names;
pub mod pass_through;
pub mod path;
pub mod pattern;
pub mod schema;
pub mod stage;
pub mod trie;

pub use checks::Checks;
pub use custom::Custom;
pub use gateway_response::{GatewayResponse, GatewayResponses, ResponseType};
pub use header::{HeaderName, HeaderValue};
pub use integration::{HttpBackend, Integration, ProxyProtocol, Target, TargetIndex};
pub use limits::{Limit, Limits};
pub use names::{AccountId, ApiId, DeploymentId, MethodKey, Region, ResourceId, StageName, Status, Verb};
pub use pass_through::{BackendHttp2, PassThrough};
pub use path::{NormalPath, PathError, PathRef};
pub use stage::{AccessLog, Canary, Method, Plan, PlanBuilder, PlanError, Route, StagePlan, Throttle};
pub use trie::{Captures, RouteIndex, Trie, TrieError};
