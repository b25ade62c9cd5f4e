//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Byte order: sums are of words as they lie in memory, in network order, and are never swapped: the
//! one's complement sum is the same in any byte order as long as it is stored as it was summed
//! (RFC 1071, section 2 (B)). All words must start at an even distance from where the checksum's
//! range starts, which every field of an IP, TCP, UDP or ICMP header does.

/// What a change adds to the sum of a checksum's range: Σ(~m + m') over the words changed. The same
/// number as `bpf_csum_diff` returns for the same change, so that it can be handed to
/// `bpf_l3_csum_replace` and `bpf_l4_csum_replace` (with `from` and size 0).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta(u32);

impl Delta {
    /// No change.
    pub const NONE: Self = Self(0);

    /// As `bpf_csum_diff` returns it.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// With four bytes replaced. Words are bytes in network order in memory.
    #[inline(always)]
    #[must_use]
    pub const fn replace(self, old: u32, new: u32) -> Self {
        Self(add(add(self.0, !old), new))
    }

    /// With two bytes replaced.
    #[inline(always)]
    #[must_use]
    pub const fn replace_half(self, old: u16, new: u16) -> Self {
        self.replace(old as u32, new as u32)
    }

    /// With an IPv6 address replaced, or an IPv4 address, whose constant words add nothing.
    #[inline(always)]
    #[must_use]
    pub const fn replace_words(self, old: [u32; 4], new: [u32; 4]) -> Self {
        self.replace(old[0], new[0])
            .replace(old[1], new[1])
            .replace(old[2], new[2])
            .replace(old[3], new[3])
    }

    /// Both changes.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The checksum after the change: `HC' = ~(~HC + ~m + m')`, equation 3 of RFC 1624. Equation 2
    /// (RFC 1141) can turn a checksum of 0 into 0xffff, which a receiver rejects. Computed as the
    /// kernel does (`csum_replace_by_diff`), so that both agree in every bit.
    #[inline(always)]
    pub const fn update(self, checksum: u16) -> u16 {
        !fold(add(self.0, !(checksum as u32)))
    }

    /// The same for UDP, where 0 says that there is no checksum, and 0xffff stands for 0 (RFC 768).
    /// This is what `BPF_F_MARK_MANGLED_0` does.
    #[inline(always)]
    pub const fn update_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.update(checksum) {
            0 => 0xffff,
            updated => updated,
        }
    }
}

/// The checksum of a whole range that contains zeros in the checksum's place. `pseudo` is what
/// [`pseudo_header`] returned, or 0. For a range with its checksum in place, the result is 0 if the
/// checksum is right.
pub fn full(pseudo: u32, bytes: &[u8]) -> u16 {
    !fold(sum(pseudo, bytes))
}

/// The one's complement sum of these bytes, added to another one.
pub fn sum(start: u32, bytes: &[u8]) -> u32 {
    let (halves, rest) = bytes.as_chunks();
    let sum = halves.iter().fold(start, |sum, half| add(sum, u32::from(u16::from_ne_bytes(*half))));
    // An odd last byte is followed by a zero (RFC 1071, section 1).
    let last = rest.first().map_or(0, |byte| u16::from_ne_bytes([*byte, 0]));
    add(sum, u32::from(last))
}

/// The checksum of a range whose sum this is.
#[inline(always)]
pub const fn of_sum(sum: u32) -> u16 {
    !fold(sum)
}

/// The sum, as a transport's checksum holds it that of its range only the pseudo-header is summed up yet
/// (`CHECKSUM_PARTIAL`, include/linux/skbuff.h).
#[inline(always)]
pub const fn partial(pseudo: u32) -> u16 {
    fold(pseudo)
}

/// The sum of the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1). The constant words of
/// IPv4 addresses do not count; length and protocol lie in either family so that they add the same.
#[inline(always)]
pub fn pseudo_header(
    source: crate::abi::Address,
    destination: crate::abi::Address,
    protocol: u8,
    length: u32,
) -> u32 {
    let words = |address: crate::abi::Address| match address.is_v4() {
        true => address.v4_word(),
        false => sum_words(&address.words()),
    };
    let sum = add(words(source), words(destination));
    add(add(sum, length.to_be()), u32::from(protocol).to_be())
}

/// The one's complement sum of words as they lie in a packet.
#[inline(always)]
pub fn sum_words<const N: usize>(words: &[u32; N]) -> u32 {
    words.iter().fold(0, |sum, word| add(sum, *word))
}

/// The one's complement sum of 32 bits: a carry is added at the lower end.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    let sum = a as u64 + b as u64;
    low(sum) + (sum >> 32) as u32
}

/// The one's complement sum of both halves. Twice: the first sum can carry.
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (((sum & 0xffff) + (sum >> 16)) & 0xffff) as u16
}

#[inline(always)]
const fn low(sum: u64) -> u32 {
    (sum & 0xffff_ffff) as u32
}
