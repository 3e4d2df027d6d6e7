//! What the two planes say to each other, and what operators say to the control plane.
//!
//! The sources are the `.proto` files under `proto/`; everything here is generated from them. Every message also has
//! the canonical protobuf JSON form through `serde`.

#![allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all)]

/// The Admin API.
pub mod admin {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("tidegate.admin.v1");
        include!(concat!(env!("OUT_DIR"), "/tidegate.admin.v1.serde.rs"));
    }
}

/// The configuration stream from the control plane to the nodes.
pub mod config {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("tidegate.config.v1");
        include!(concat!(env!("OUT_DIR"), "/tidegate.config.v1.serde.rs"));

        impl std::fmt::Debug for CredentialsTarget {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("CredentialsTarget")
                    .field("access_key_id", &self.access_key_id)
                    .finish_non_exhaustive()
            }
        }

        impl std::fmt::Debug for TicketKey {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("TicketKey")
                    .field("seals_from_ms", &self.seals_from_ms)
                    .field("seals_until_ms", &self.seals_until_ms)
                    .field("opens_until_ms", &self.opens_until_ms)
                    .finish_non_exhaustive()
            }
        }
    }
}

/// What nodes report.
pub mod telemetry {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("tidegate.telemetry.v1");
        include!(concat!(env!("OUT_DIR"), "/tidegate.telemetry.v1.serde.rs"));
    }
}

/// The compiled descriptors of every file, for reflection and tools.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
