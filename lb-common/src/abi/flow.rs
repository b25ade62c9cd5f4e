//! `FLOWS`: what becomes of the packets of one connection, where no socket of the node translates it.
//!
//! At ingress a packet gets another destination, at egress another source, as in netfilter (docs/decisions/0019): between
//! the two the node routes and filters what it really forwards. A client `c` that reaches the backend `B` by
//! the frontend `V` has
//!
//! | role | hook | packets | become |
//! |---|---|---|---|
//! | request | ingress | `c → V` | `c' → B` |
//! | reply | egress | `B → c'` | `V → c` |
//! | masqueraded request | egress | `c' → B` | `s → B` |
//! | masqueraded reply | ingress | `B → s` | `B → c'` |
//!
//! `c'` is `c`, with another port if the node stands in for the client by an address `s` of its own. The last two are
//! there only then.

use super::{Address, Port};

/// Where a packet is met.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// On its way into the node.
    Ingress = 1,
    /// On its way out.
    Egress = 2,
}

/// Key of `FLOWS`: the packets of one direction at one hook.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port.
    pub source_port: Port,
    /// Destination port.
    pub destination_port: Port,
    /// Protocol number; see [`super::protocol`].
    pub protocol: u8,
    /// The [`Hook`].
    pub hook: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

impl FlowKey {
    /// No packets.
    pub const NONE: Self = Self {
        source: Address::UNSPECIFIED,
        destination: Address::UNSPECIFIED,
        source_port: Port::NONE,
        destination_port: Port::NONE,
        protocol: 0,
        hook: 0,
        reserved: [0; 2],
    };

    /// The packets of the other direction at the same hook.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }

    /// The same packets at this hook.
    #[inline(always)]
    #[must_use]
    pub const fn at(self, hook: Hook) -> Self {
        Self { hook: hook as u8, ..self }
    }
}

/// Which packets of a connection an entry is for; see the module.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `c → V`
    Request = 1,
    /// `B → c'`
    Reply = 2,
    /// `c' → B`
    MasqueradedRequest = 3,
    /// `B → s`
    MasqueradedReply = 4,
}

/// Value of `FLOWS`. Addresses, ports, role and backend stay as they were inserted; the rest programs change in place.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source address that packets get.
    pub source: Address,
    /// Destination address that they get.
    pub destination: Address,
    /// `s`, the node's address that stands in for the client's; unspecified if none does.
    pub node: Address,
    /// Source port that packets get.
    pub source_port: Port,
    /// Destination port that they get.
    pub destination_port: Port,
    /// Index into `BACKENDS`.
    pub backend_id: u32,
    /// [`super::Life::generation`] of that id at the time.
    pub backend_generation: u32,
    /// Index into `SERVICES` at the time.
    pub service: u32,
    /// The [`Role`].
    pub role: u8,
    /// TCP's flags of all packets so far, ORed.
    pub seen: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// [`super::Node::revision`] when the frontend was last looked up.
    pub revision: u32,
    /// `CLOCK_BOOTTIME` in nanoseconds, of the last packet.
    pub last_seen: u64,
    /// Number of packets.
    pub packets: u64,
    /// Their bytes, from the link header on.
    pub bytes: u64,
}

impl Flow {
    /// No connection.
    pub const NONE: Self = Self {
        source: Address::UNSPECIFIED,
        destination: Address::UNSPECIFIED,
        node: Address::UNSPECIFIED,
        source_port: Port::NONE,
        destination_port: Port::NONE,
        backend_id: 0,
        backend_generation: 0,
        service: 0,
        role: 0,
        seen: 0,
        reserved: [0; 2],
        revision: 0,
        last_seen: 0,
        packets: 0,
        bytes: 0,
    };

    /// Whether the node stands in for the client by an address of its own.
    #[inline(always)]
    pub fn is_masqueraded(&self) -> bool {
        self.node != Address::UNSPECIFIED
    }

    /// The packets that these become, as they are met at this hook.
    #[inline(always)]
    pub const fn translated(&self, protocol: u8, hook: Hook) -> FlowKey {
        FlowKey {
            source: self.source,
            destination: self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol,
            hook: hook as u8,
            reserved: [0; 2],
        }
    }

    /// The key of the connection's reply (`B → c'`), of the entry that has this key.
    #[inline(always)]
    pub fn reply_key(&self, key: &FlowKey) -> FlowKey {
        match self.role {
            role if role == Role::Request as u8 => {
                self.translated(key.protocol, Hook::Egress).reversed()
            }
            role if role == Role::MasqueradedRequest as u8 => key.reversed(),
            role if role == Role::MasqueradedReply as u8 => {
                self.translated(key.protocol, Hook::Egress)
            }
            _ => *key,
        }
    }

    /// The key of the connection's request (`c → V`), of the reply's entry, which has this key.
    #[inline(always)]
    pub const fn request_key(&self, reply: &FlowKey) -> FlowKey {
        self.translated(reply.protocol, Hook::Ingress).reversed()
    }

    /// The keys of the masqueraded request (`c' → B`) and reply (`B → s`), of the reply's entry, which has this key.
    #[inline(always)]
    pub const fn masqueraded_keys(&self, reply: &FlowKey) -> [FlowKey; 2] {
        let inbound = FlowKey { destination: self.node, hook: Hook::Ingress as u8, ..*reply };
        [reply.reversed(), inbound]
    }
}
