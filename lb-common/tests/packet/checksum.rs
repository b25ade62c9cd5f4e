//! The arithmetic, against the RFCs' own examples and against sums made anew.

use lb_common::checksum::{Delta, full};
use proptest::prelude::*;

#[test]
fn the_example_of_rfc_1071_has_its_sum() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(full(0, &bytes), u16::from_ne_bytes((!0xddf2_u16).to_be_bytes()));
}

#[test]
fn a_header_with_its_checksum_in_place_sums_to_zero() {
    // IPv4, captured: 172.16.10.99 to 172.16.10.12, TCP.
    let header = [
        0x45, 0x00, 0x00, 0x3c, 0x1c, 0x46, 0x40, 0x00, 0x40, 0x06, 0xb1, 0xe6, 0xac, 0x10, 0x0a,
        0x63, 0xac, 0x10, 0x0a, 0x0c,
    ];
    assert_eq!(full(0, &header), 0);
}

#[test]
fn the_example_of_rfc_1624_becomes_0_not_minus_0() {
    // Section 4: HC 0xdd2f, m 0x5555, m' 0x3285. RFC 1141 computes 0xffff.
    let delta = Delta::NONE.replace_half(0x5555, 0x3285);
    assert_eq!(delta.update(0xdd2f), 0x0000);
    assert_eq!(delta.update_udp(0xdd2f), 0xffff, "UDP: 0 would say that there is none");
}

#[test]
fn udp_without_a_checksum_stays_without() {
    assert_eq!(Delta::NONE.replace(1, 2).update_udp(0), 0);
}

proptest! {
    #[test]
    fn an_update_is_the_sum_made_anew(
        mut bytes in prop::collection::vec(any::<u8>(), 8..200),
        at in any::<prop::sample::Index>(),
        new in any::<[u8; 4]>(),
    ) {
        // The range holds something that is not zero, as every header does.
        bytes[0] = 0x45;
        let at = 2 + at.index(bytes.len() - 5) / 2 * 2;
        let before = full(0, &bytes);
        let old: [u8; 4] = bytes[at..at + 4].try_into().expect("four");
        bytes[at..at + 4].copy_from_slice(&new);
        let delta = Delta::NONE.replace(u32::from_ne_bytes(old), u32::from_ne_bytes(new));
        prop_assert_eq!(delta.update(before), full(0, &bytes));
        let [a, b, c, d] = old;
        let [e, f, g, h] = new;
        let halves = Delta::NONE
            .replace_half(u16::from_ne_bytes([a, b]), u16::from_ne_bytes([e, f]))
            .and(Delta::NONE.replace_half(u16::from_ne_bytes([c, d]), u16::from_ne_bytes([g, h])));
        prop_assert_eq!(halves.update(before), full(0, &bytes));
    }
}
