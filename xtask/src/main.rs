//! Everything a person runs to develop lb.
fn main() {}
