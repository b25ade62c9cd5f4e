//! The sockets of this node.

pub mod diag;
pub mod netns;
