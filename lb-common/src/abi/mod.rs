//! The types that cross the kernel boundary.
//!
//! Rules: `repr(C)`, no padding, no bool, enum or `Option`, sizes asserted here. Addresses and
//! ports are bytes in network order; everything else is in the byte order of the machine. What one
//! side changes while the other may read is one aligned word. What the maps hold is known by a hash of
//! all this, [`layout`].

mod address;
mod affinity;
mod backend;
pub mod entries;
mod flow;
mod fragment;
mod frontend;
pub mod layout;
mod node;
mod origin;
mod ranges;
mod service;

pub use address::{Address, Port};
pub use affinity::{Affinity, AffinityKey};
pub use backend::{Backend, Life};
pub use flow::{Flow, FlowKey, Hook, Role};
pub use fragment::{FragmentKey, FragmentPorts};
pub use frontend::{FrontendEntry, FrontendKey, FrontendKind};
pub use node::{Cidr, Node};
pub use origin::{MAX_FURTHER_PEERS, OriginSlot, Peer, Peers};
pub use ranges::RangeKey;
pub use service::{List, Policy, Run, Service};

/// Protocol numbers as IANA assigns them and as `bpf_sock_addr.protocol` holds them.
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// [`crate::abi`]'s flags of a device, the values of `DEVICES` by its index.
pub mod device {
    /// What arrives by it comes from this node: a tap, or a bridge of workloads.
    pub const INSIDE: u32 = 1;
    /// Both its programs are there: what leaves by it gets the source that it should.
    pub const ATTACHED: u32 = 2;
}

/// `SO_PRIORITY` of the agent's own sockets, which are never translated (docs/decisions/0015).
///
/// "lb" as the major number of a queueing discipline, which nobody has, and no minor number: every
/// discipline treats it as the default priority.
pub const OWN_SOCKET_PRIORITY: u32 = 0x6c62_0000;

const _: () = {
    assert!(size_of::<Address>() == 16 && align_of::<Address>() == 4);
    assert!(size_of::<Port>() == 2);
    assert!(size_of::<FrontendKey>() == 20 && align_of::<FrontendKey>() == 4);
    assert!(size_of::<FrontendEntry>() == 8);
    assert!(size_of::<Service>() == if cfg!(feature = "next-layout") { 32 } else { 24 });
    assert!(size_of::<Backend>() == 32);
    assert!(size_of::<Peer>() == 56);
    // One cache line a socket.
    assert!(size_of::<OriginSlot>() == 64 && core::mem::offset_of!(OriginSlot, cookie) == 0);
    assert!(size_of::<Peers>() == 8 + MAX_FURTHER_PEERS * 56);
    assert!(size_of::<Cidr>() == 32);
    assert!(size_of::<Node>() == 192);
    assert!(size_of::<AffinityKey>() == 24 && align_of::<AffinityKey>() == 8);
    assert!(size_of::<Affinity>() == 16);
    assert!(size_of::<FlowKey>() == 40 && align_of::<FlowKey>() == 4);
    assert!(size_of::<Flow>() == 96);
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<FragmentPorts>() == 4);
    assert!(size_of::<RangeKey>() == 20);
};
