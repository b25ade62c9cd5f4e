//! One function for each place where the kernel calls us.

mod context;
mod socket;
