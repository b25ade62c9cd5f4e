//! store
pub mod admit;
pub mod allocate;
