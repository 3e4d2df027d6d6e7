//! What must hold for any bytes: one function a parser, called by cargo-fuzz with what it invents and by a test
//! with the corpus that is committed. A broken rule is a panic.
