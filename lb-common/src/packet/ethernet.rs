//! Ethernet, with the VLAN tags that are in the frame. (The kernel takes the outermost tag out of what it
//! receives, and keeps it beside the packet.)

use super::{Packet, Unparsed, Version, View};

/// Behind the two addresses.
const TYPE_AT: u16 = 12;
const TAG_LENGTH: u16 = 4;
/// A customer's in a provider's (802.1ad).
const MAX_TAGS: usize = 2;

/// The version of IP that follows, and where.
#[inline(always)]
pub(super) fn read(view: &View<'_, impl Packet + ?Sized>) -> Result<(Version, u16), Unparsed> {
    let mut at = TYPE_AT;
    for _ in 0..=MAX_TAGS {
        // With two bytes of what follows: the tag, or the start of a header that is longer.
        let [word] = view.words(at)?;
        match u32::from_be(word) >> 16 {
            0x0800 => return Ok((Version::V4, at + 2)),
            0x86dd => return Ok((Version::V6, at + 2)),
            // 802.1Q and 802.1ad.
            0x8100 | 0x88a8 => at += TAG_LENGTH,
            _ => return Err(Unparsed::NotIp),
        }
    }
    Err(Unparsed::NotIp)
}
