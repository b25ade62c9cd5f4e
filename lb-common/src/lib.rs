//! Everything of lb that can be decided without a kernel.
//!
//! [`abi`] holds the only types that cross the kernel boundary; [`packet`] reads and rewrites headers;
//! [`path`] holds the decisions, as plain functions over small traits. The kernel programs implement
//! those traits with BPF maps, the simulator (feature `sim`) with ordinary collections: one code path,
//! compiled for both.

#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "sim")]
extern crate alloc;

pub mod abi;
pub mod checksum;
pub mod hash;
pub mod maglev;
pub mod packet;
pub mod path;
#[cfg(feature = "sim")]
pub mod sim;
