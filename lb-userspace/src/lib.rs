//! The node agent and the command line of lb.
//!
//! A Service's road through this crate, in one direction:
//! [`source`] → [`store`] → [`plan`] → [`datapath`] → kernel. [`engine`] drives it.

pub mod api;
pub mod cli;
pub mod datapath;
pub mod dns;
pub mod engine;
pub mod flows;
pub mod health;
pub mod host;
pub mod object;
pub mod observe;
pub mod plan;
mod serving;
pub mod sockets;
pub mod source;
pub mod store;
