//! Generates the contract's types and services from `proto/`, with a compiler that is a crate, not a program.

use std::{env, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "proto";
    let files = [
        "tidegate/admin/v1/admin.proto",
        "tidegate/config/v1/config.proto",
        "tidegate/telemetry/v1/telemetry.proto",
    ];
    println!("cargo:rerun-if-changed={root}");
    let descriptors = protox::compile(files, [root])?;
    let encoded = prost::Message::encode_to_vec(&descriptors);
    std::fs::write(
        PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"),
        &encoded,
    )?;
    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .bytes(".tidegate.config.v1.Bundle.content")
        .btree_map(".tidegate")
        // What holds it can be shown without showing it.
        .skip_debug([
            "tidegate.config.v1.TicketKey",
            "tidegate.config.v1.CredentialsTarget",
        ])
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .btree_map([".tidegate"])
        .ignore_unknown_fields()
        .build(&[".tidegate"])?;
    Ok(())
}
