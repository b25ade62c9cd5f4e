//! Everything of lb that can be decided without a kernel.
#![no_std]
