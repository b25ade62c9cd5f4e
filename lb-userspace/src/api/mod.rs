//! The agent's API: HTTP and JSON over a Unix socket that only root can open.

pub mod types;
