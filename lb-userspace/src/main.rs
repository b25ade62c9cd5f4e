//! The binary `lb`.
fn main() {}
