//! Connections: TLS, names, upstream pools. Knows bytes and peers, no APIs.

pub mod dns;
pub mod health;
pub mod io;
pub mod names;
pub mod permits;
pub mod proxy_protocol;
pub mod race;
mod retry_budget;
pub mod tls;
pub mod upstream;
