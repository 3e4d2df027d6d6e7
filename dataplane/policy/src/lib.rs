//! Who may do what, and how requests prove who sends them: what both planes agree on, without I/O.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`sigv4`] | AWS Signature Version 4: canonical requests, signing keys, signed headers, pre-signed queries |

pub mod sigv4;
