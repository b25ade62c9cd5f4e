//! `BACKENDS`: one endpoint of one service port.

use super::{Address, List, Port};

/// Value of `BACKENDS`, indexed by backend id. The id is stable while the endpoint lives.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Address of the endpoint. Written only while no run names this id.
    pub address: Address,
    /// Port. Written only while no run names this id.
    pub port: Port,
    /// 1 if the endpoint is on this node. Written like the address.
    pub here: u8,
    /// Zero.
    pub reserved: u8,
    /// The service index that it belongs to.
    pub service: u32,
    /// [`Life`] of this id. One word, which a reader loads once.
    pub life: u64,
}

impl Backend {
    /// An id that nothing uses yet.
    pub const NONE: Self = Self {
        address: Address::UNSPECIFIED,
        port: Port::NONE,
        here: 0,
        reserved: 0,
        service: 0,
        life: 0,
    };

    /// Whether the backend may be used, and which use of its id this is.
    #[inline(always)]
    pub const fn life(&self) -> Life {
        Life::from_word(self.life)
    }
}

/// Whether a backend may be used, and which use of its id this is, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Counts the uses of this id, so that what remembers an earlier use can tell.
    pub generation: u32,
    /// In the cluster list.
    pub cluster: bool,
    /// In the local list.
    pub local: bool,
    /// The endpoint exists. If not, the id is free or about to be.
    pub present: bool,
}

impl Life {
    const CLUSTER: u64 = 1;
    const LOCAL: u64 = 1 << 1;
    const PRESENT: u64 = 1 << 2;

    /// As it stands in [`Backend`]: generation in the high half, state in the low one.
    pub const fn to_word(self) -> u64 {
        (self.generation as u64) << 32
            | if self.cluster { Self::CLUSTER } else { 0 }
            | if self.local { Self::LOCAL } else { 0 }
            | if self.present { Self::PRESENT } else { 0 }
    }

    /// The inverse of [`Self::to_word`].
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self {
            generation: (word >> 32) as u32,
            cluster: word & Self::CLUSTER != 0,
            local: word & Self::LOCAL != 0,
            present: word & Self::PRESENT != 0,
        }
    }

    /// Whether the backend is in any list.
    #[inline(always)]
    pub const fn is_in_any(self) -> bool {
        self.cluster || self.local
    }

    /// Whether the backend is in the list.
    #[inline(always)]
    pub const fn is_in(self, list: List) -> bool {
        match list {
            List::Cluster => self.cluster,
            List::Local => self.local,
        }
    }
}
