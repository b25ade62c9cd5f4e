//! `SERVICES`: what changes in place when endpoints or policies change.

/// Value of `SERVICES`, indexed by service index: one port of one Service in one family.
#[repr(C)]
#[cfg_attr(feature = "next-layout", repr(align(32)))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// [`Run`] of the cluster list.
    pub cluster: u64,
    /// [`Run`] of the local list; the same run where no policy asks for another.
    pub local: u64,
    /// [`Policy`].
    pub policy: u64,
}

/// The two lists of endpoints that Kubernetes chooses from (`CategorizeEndpoints`,
/// pkg/proxy/topology.go).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// Endpoints anywhere, as far as topology allows.
    Cluster,
    /// Endpoints on this node.
    Local,
}

/// How a service treats its clients, in one word. A reader that finds the policy of a moment ago
/// and the run of this one has a list that was in force during its call: the local list is there
/// before a policy asks for it, and as long as one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Policy {
    /// `ClientIP` affinity in seconds since last use; 0 is none.
    pub affinity_seconds: u32,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`. For traffic from outside: what comes from this node takes
    /// the cluster list to external addresses (pkg/proxy/iptables, `externalTrafficChain`).
    pub external_local: bool,
    /// `loadBalancerSourceRanges`: who may come by a load balancer's address, `SOURCE_RANGES` says.
    pub restricted: bool,
    /// The table of `MAGLEV` that new flows on the packet path are spread by, counted from 1; 0 is at random.
    pub maglev: u32,
}

impl Policy {
    const INTERNAL_LOCAL: u64 = 1 << 32;
    const EXTERNAL_LOCAL: u64 = 1 << 33;
    const RESTRICTED: u64 = 1 << 34;
    const MAGLEV_SHIFT: u32 = 40;

    /// Largest [`Self::maglev`].
    pub const MAX_MAGLEV: u32 = (1 << 24) - 1;

    /// The policy as it stands in [`Service`].
    pub const fn to_word(self) -> u64 {
        self.affinity_seconds as u64
            | if self.internal_local { Self::INTERNAL_LOCAL } else { 0 }
            | if self.external_local { Self::EXTERNAL_LOCAL } else { 0 }
            | if self.restricted { Self::RESTRICTED } else { 0 }
            | (self.maglev as u64) << Self::MAGLEV_SHIFT
    }

    /// The inverse of [`Self::to_word`].
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the parts of the word fit by construction"
    )]
    pub const fn from_word(word: u64) -> Self {
        Self {
            affinity_seconds: word as u32,
            internal_local: word & Self::INTERNAL_LOCAL != 0,
            external_local: word & Self::EXTERNAL_LOCAL != 0,
            restricted: word & Self::RESTRICTED != 0,
            maglev: (word >> Self::MAGLEV_SHIFT) as u32,
        }
    }
}

/// The backends of one list of a service: `count` slots of `RUNS` from `first` on. The generation changes
/// with every change of the set. All in one word: a reader loads it once, and has the whole old
/// set or the whole new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// First slot.
    pub first: u32,
    /// Number of slots.
    pub count: u32,
    /// Changes with every change, modulo 2^20.
    pub generation: u32,
}

impl Run {
    /// `RUNS` can have 2^24 slots.
    pub const MAX_SLOTS: u32 = 1 << Self::FIRST_BITS;
    /// A service can have 2^20 - 1 endpoints.
    pub const MAX_COUNT: u32 = (1 << Self::COUNT_BITS) - 1;
    /// Largest generation.
    pub const MAX_GENERATION: u32 = (1 << (64 - Self::FIRST_BITS - Self::COUNT_BITS)) - 1;

    const FIRST_BITS: u32 = 24;
    const COUNT_BITS: u32 = 20;

    /// The run as it stands in [`Service`].
    pub const fn to_word(self) -> u64 {
        self.first as u64
            | (self.count as u64) << Self::FIRST_BITS
            | (self.generation as u64) << (Self::FIRST_BITS + Self::COUNT_BITS)
    }

    /// The inverse of [`Self::to_word`].
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the parts of the word fit by construction"
    )]
    pub const fn from_word(word: u64) -> Self {
        Self {
            first: (word & (Self::MAX_SLOTS as u64 - 1)) as u32,
            count: (word >> Self::FIRST_BITS & Self::MAX_COUNT as u64) as u32,
            generation: (word >> (Self::FIRST_BITS + Self::COUNT_BITS)) as u32,
        }
    }

    /// The slots that it consists of.
    pub const fn slots(self) -> core::ops::Range<u32> {
        self.first..self.first + self.count
    }

    /// The slot that `random`, uniform over 32 bits, selects. Needs `count > 0` to mean anything.
    /// Multiplication instead of division: Lemire, "Fast Random Integer Generation in an
    /// Interval", 2019; the bias is below count / 2^32.
    #[inline(always)]
    pub const fn pick(self, random: u32) -> u32 {
        self.first + ((random as u64 * self.count as u64) >> 32) as u32
    }
}
