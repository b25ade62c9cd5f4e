//! `AFFINITY`: which backend a client was given, for Services with `sessionAffinity: ClientIP`.

use super::Address;

/// Key of `AFFINITY`. On the socket path a client is a network namespace: a socket that connects
/// has no source address yet, and a pod is its namespace. On the packet path it is a source address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AffinityKey {
    /// Cookie of the client's network namespace; or its address, words as in [`Address`].
    pub client: [u64; 2],
    /// Index into `SERVICES`.
    pub service: u32,
    /// What `client` is.
    pub kind: u32,
}

impl AffinityKey {
    /// [`Self::kind`]: a network namespace.
    pub const NETNS: u32 = 1;

    /// [`Self::kind`]: an address.
    pub const ADDRESS: u32 = 2;

    /// The key of a client on the socket path.
    #[inline(always)]
    pub const fn of_netns(cookie: u64, service: u32) -> Self {
        Self { client: [cookie, 0], service, kind: Self::NETNS }
    }

    /// The key of a client on the packet path.
    #[inline(always)]
    pub const fn of_address(address: Address, service: u32) -> Self {
        let [a, b, c, d] = address.words();
        let client = [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32];
        Self { client, service, kind: Self::ADDRESS }
    }
}

/// Value of `AFFINITY`. Both words change in place; a backend of another use of its id, or of
/// another service, does not count, so nothing needs to be deleted when backends go.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Backend id (low half) and its generation (high half). One word, replaced by
    /// compare-and-swap: of callers that choose at once, the first one counts.
    pub backend: u64,
    /// `CLOCK_BOOTTIME` in nanoseconds, when it was used last.
    pub last_used: u64,
}

impl Affinity {
    /// The word for a backend.
    #[inline(always)]
    pub const fn word(id: u32, generation: u32) -> u64 {
        id as u64 | (generation as u64) << 32
    }

    /// Backend id.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low half of the word")]
    pub const fn id(self) -> u32 {
        self.backend as u32
    }

    /// [`super::Life::generation`] of the id at the time.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.backend >> 32) as u32
    }

    /// Whether more than `seconds` have passed at `now` since it was used.
    #[inline(always)]
    pub const fn expired(self, now: u64, seconds: u32) -> bool {
        now.saturating_sub(self.last_used) > seconds as u64 * 1_000_000_000
    }
}
