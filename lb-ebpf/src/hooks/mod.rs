//! One function for each place where the kernel calls us.

mod bind;
mod context;
mod packet;
mod skb;
mod socket;
