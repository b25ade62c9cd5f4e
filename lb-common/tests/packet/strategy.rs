//! Arbitrary packets.

use lb_common::abi::Address;
use lb_common::sim::packet::{Frame, Ip, Part, Payload};
use proptest::collection::vec;
use proptest::prelude::*;

/// Two ends that a packet is given instead of its own.
pub(crate) type Ends = [(Address, u16); 2];

/// A frame and new ends of the same family. With `fragments`, some are.
pub(crate) fn frame(fragments: bool) -> impl Strategy<Value = (Frame, Ends)> {
    let tags = vec(prop_oneof![Just(0x8100), Just(0x88a8)], 0..=2);
    (any::<bool>().prop_flat_map(move |v4| (ip(v4, fragments), ends(v4))), tags, 0..9_usize)
        .prop_map(|((packet, ends), tags, padding)| (Frame { tags, packet, padding }, ends))
}

/// TCP or UDP.
pub(crate) fn ip(v4: bool, fragments: bool) -> impl Strategy<Value = Ip> {
    let extensions = vec((prop::sample::select(vec![0, 43, 60]), 0..3_u8), 0..=7);
    // A later one does not begin before TCP's checksum, which the first must have.
    let part = (any::<u32>(), prop_oneof![Just(0), 3..6_u16], 1..9_usize)
        .prop_map(|(id, offset, units)| Part { id: id & 0xffff, offset, length: units * 8 });
    let part = prop::option::weighted(0.3, part).prop_map(move |part| part.filter(|_| fragments));
    (ends(v4), payload(), 0..=10_u8, extensions, part).prop_map(
        move |([source, destination], payload, options, extensions, fragment)| Ip {
            source: source.0,
            destination: destination.0,
            options: if v4 { options } else { 0 },
            extensions: if v4 { Vec::new() } else { extensions },
            fragment,
            payload,
        },
    )
}

pub(crate) fn ends(v4: bool) -> impl Strategy<Value = Ends> {
    let end = move || {
        (any::<[u32; 4]>(), any::<u16>()).prop_map(move |([a, b, c, d], port)| match v4 {
            true => (Address::from_v4_word(d), port),
            // Never IPv4-mapped.
            false => (Address::from_words([a | 1, b, c, d]), port),
        })
    };
    [end(), end()]
}

fn payload() -> impl Strategy<Value = Payload> {
    // Odd lengths and few different bytes, so that sums of 0 and 0xffff come up.
    let data = || vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 0..70);
    prop_oneof![
        (any::<[u16; 2]>(), any::<u8>(), 0..=10_u8, data())
            .prop_map(|(ports, flags, options, data)| Payload::Tcp { ports, flags, options, data }),
        (any::<[u16; 2]>(), any::<bool>(), data())
            .prop_map(|(ports, checksum, data)| Payload::Udp { ports, checksum, data }),
    ]
}
