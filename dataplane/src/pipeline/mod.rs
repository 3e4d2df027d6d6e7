//! The life of a request.

pub mod failure;
pub mod ids;
pub mod response;
