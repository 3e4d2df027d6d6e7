//! The `tidegate` binary: both planes and the command line.

fn main() {}
