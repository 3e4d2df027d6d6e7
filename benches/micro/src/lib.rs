//! Micro-benchmarks of the request path's parts; `cargo bench -p tidegate-micro` runs them all, one file a part.
