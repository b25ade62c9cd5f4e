//! Fuzz targets: what must hold for every input. Each is a module here with a function `check`, which
//! panics if it does not, and a program in `targets/` that hands it libFuzzer's inputs.
//!
//! `corpus/<target>/` holds the inputs to begin with: those of `seeds`, and each that once broke
//! something, under a name that says what. `cargo test` runs all of them.

pub mod dns_request;
pub mod seeds;
