//! Connections: TLS, names, upstream pools. Knows bytes and peers, no APIs.

pub mod dns;
pub mod io;
pub mod permits;
pub mod tls;
pub mod upstream;
