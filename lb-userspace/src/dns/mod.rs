//! Names: every Service answers by its DNS name.

pub mod forward;
