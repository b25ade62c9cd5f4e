//! A hash of everything that must be equal for one agent to go on with another's maps.

use core::mem::offset_of;

use super::{
    Affinity, AffinityKey, Backend, Cidr, Flow, FlowKey, FragmentKey, FragmentPorts, FrontendEntry,
    FrontendKey, Node, OriginSlot, Peer, Peers, RangeKey, Service,
};

/// To be counted up when the meaning of an entry changes and no field does: a bit of a word, what a
/// key is made of, when an entry is written.
pub const VERSION: u32 = 3;

/// Hash of [`VERSION`] and of the size, the fields and their offsets of every type in the maps.
pub const TYPES: Hash = {
    let mut hash = Hash::new().number(VERSION as u64);
    let mut at = 0;
    while at < ALL.len() {
        hash = ALL[at].hash(hash);
        at += 1;
    }
    hash
};

/// How one type lies in memory.
struct Type {
    name: &'static str,
    size: usize,
    fields: &'static [(&'static str, usize)],
}

impl Type {
    const fn hash(&self, hash: Hash) -> Hash {
        let mut hash = hash.text(self.name).number(self.size as u64);
        let mut at = 0;
        while at < self.fields.len() {
            let (name, offset) = self.fields[at];
            hash = hash.text(name).number(offset as u64);
            at += 1;
        }
        hash
    }
}

/// Describes types. A field that is left out does not compile.
macro_rules! types {
    ($($name:ident { $($field:tt),+ })+) => {
        &[$({
            const _: fn(&$name) = |$name { $($field: _),+ }| ();
            let fields = &[$((stringify!($field), offset_of!($name, $field))),+];
            Type { name: stringify!($name), size: size_of::<$name>(), fields }
        }),+]
    };
}

const ALL: &[Type] = types! {
    FrontendKey { address, port, protocol, reserved }
    FrontendEntry { 0 }
    Service { cluster, local, policy }
    Backend { address, port, here, reserved, service, life }
    Cidr { network, mask }
    Node {
        service_cidrs, netns_cookie, exempt, snat_v4, snat_v6, snat_first, snat_count, flows_asleep,
        revision
    }
    AffinityKey { client, service, kind }
    Affinity { backend, last_used }
    Peer {
        frontend, backend, frontend_port, backend_port, protocol, connected, reserved, backend_id,
        backend_generation, service, reserved2
    }
    OriginSlot { cookie, peer }
    Peers { count, found, list }
    FlowKey { source, destination, source_port, destination_port, protocol, hook, reserved }
    Flow {
        source, destination, node, source_port, destination_port, backend_id, backend_generation,
        service, role, seen, reserved, revision, last_seen, packets, bytes
    }
    FragmentKey { source, destination, id, protocol, hook, reserved }
    FragmentPorts { source, destination }
    RangeKey { service, address }
};

/// 64-bit FNV-1a (Fowler, Noll, Vo), which a constant can be computed by. Not cryptographic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(u64);

impl Hash {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// With a number added.
    pub const fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// With a text added, and where it ends.
    pub const fn text(self, text: &str) -> Self {
        self.number(text.len() as u64).bytes(text.as_bytes())
    }

    /// What all that was added comes to.
    pub const fn value(self) -> u64 {
        self.0
    }

    const fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut at = 0;
        while at < bytes.len() {
            self.0 = (self.0 ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            at += 1;
        }
        self
    }
}
