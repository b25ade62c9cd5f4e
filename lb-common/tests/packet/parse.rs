//! Tables: what is read of which packet.

use lb_common::abi::Port;
use lb_common::packet::{Fragment, Layer, Parsed, Unparsed, parse_ethernet, parse_ip};
use lb_common::sim::packet::{Frame, Ip, Part, Payload};

use crate::{V4, V6, address, parse, tcp, udp};

/// A frame of a person's making, not the builder's: 10.0.0.1:1 to 10.0.0.2:2, UDP, "hi".
const UDP_BY_HAND: [u8; 44] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x08, 0x00, // Ethernet
    0x45, 0, 0, 30, 0, 1, 0, 0, 64, 17, 0x66, 0xcc, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
    0, 1, 0, 2, 0, 10, 0x83, 0x6b, b'h', b'i', // UDP
];

#[test]
fn a_frame_written_by_hand_is_read_and_built_alike() {
    let parsed = parse(&UDP_BY_HAND).expect("a packet");
    assert_eq!(parsed.outer.tuple.source, address("10.0.0.1"));
    assert_eq!(parsed.outer.tuple.destination, address("10.0.0.2"));
    assert_eq!(parsed.outer.tuple.source_port, Port::new(1));
    assert_eq!(parsed.outer.tuple.destination_port, Port::new(2));
    assert_eq!((parsed.outer.l3, parsed.outer.l4, parsed.outer.end), (14, 34, 44));
    assert_eq!(parsed.outer.l4_checksum_at, 40);
    let payload = Payload::Udp { ports: [1, 2], checksum: true, data: b"hi".to_vec() };
    let built = Frame::new(Ip::new(address("10.0.0.1"), address("10.0.0.2"), payload)).bytes();
    assert_eq!(built[34..], UDP_BY_HAND[34..], "the builder's UDP");
}

#[test]
fn headers_are_found_behind_tags_options_and_extensions() {
    let tagged = |packet: Ip, tags: &[u16]| Frame { tags: tags.to_vec(), packet, padding: 9 };
    let extended = |extensions: &[(u8, u8)]| Ip { extensions: extensions.to_vec(), ..tcp(V6) };
    let cases = [
        ("plain", tagged(tcp(V4), &[]), 14, 34),
        ("802.1Q", tagged(udp(V4), &[0x8100]), 18, 38),
        ("802.1ad", tagged(udp(V6), &[0x88a8, 0x8100]), 22, 62),
        ("IPv4 options", tagged(Ip { options: 10, ..tcp(V4) }, &[]), 14, 74),
        ("hop-by-hop", tagged(extended(&[(0, 0)]), &[]), 14, 62),
        ("destination, routing", tagged(extended(&[(60, 1), (43, 2)]), &[]), 14, 94),
        ("eight extensions", tagged(extended(&[(60, 0); 8]), &[]), 14, 118),
    ];
    for (name, frame, l3, l4) in cases {
        let bytes = frame.bytes();
        let parsed = parse(&bytes).expect(name);
        assert_eq!((parsed.outer.l3, parsed.outer.l4), (l3, l4), "{name}");
        assert_eq!(parsed.outer.end as usize, bytes.len() - 9, "{name}: padding is not counted");
        assert_eq!(parsed.outer.tuple.source_port, Port::new(40000), "{name}");
        assert_eq!(parsed.inner, Layer::NONE, "{name}");
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    use Unparsed::{Malformed, MappedAddress, NotIp, Short, SourceRouted, TooManyExtensions};
    let v4 = Frame::new(tcp(V4)).bytes();
    let v6 = Frame::new(tcp(V6)).bytes();
    let with = |bytes: &[u8], changes: &[(usize, u8)]| {
        let mut bytes = bytes.to_vec();
        for (at, byte) in changes {
            bytes[*at] = *byte;
        }
        bytes
    };
    let routed = Frame::new(Ip { extensions: vec![(43, 0)], ..tcp(V6) }).bytes();
    let nine = Frame::new(Ip { extensions: vec![(60, 0); 9], ..tcp(V6) }).bytes();
    let three = Frame { tags: vec![0x8100; 3], packet: tcp(V4), padding: 0 }.bytes();
    let mut mapped = v6.clone();
    mapped[22..38].copy_from_slice(&address("192.0.2.1").bytes());
    let udp4 = Frame::new(udp(V4)).bytes();
    let payload = Payload::Other { protocol: 50, data: vec![0; 40] };
    let esp = Frame::new(Ip { payload, ..tcp(V4) }).bytes();
    let cases = [
        ("nothing", vec![], Short),
        ("ARP", with(&v4, &[(12, 8), (13, 6)]), NotIp),
        ("three tags", three, NotIp),
        ("EtherType IPv4, version 6", with(&v4, &[(14, 0x65)]), Malformed),
        ("EtherType IPv6, version 4", with(&v6, &[(14, 0x40)]), Malformed),
        ("IPv4 header of 16 bytes", with(&esp, &[(14, 0x44)]), Malformed),
        ("IPv4 ends in its header", with(&v4, &[(16, 0), (17, 19)]), Malformed),
        ("IPv4 longer than its frame", with(&v4, &[(16, 9)]), Short),
        ("IPv6 longer than its frame", with(&v6, &[(18, 9)]), Short),
        ("IPv4 of length 0", with(&v4, &[(16, 0), (17, 0)]), Malformed),
        ("TCP header of 16 bytes", with(&v4, &[(46, 0x40)]), Malformed),
        ("TCP header longer than its packet", with(&v4[..54], &[(17, 40)]), Short),
        ("TCP header in the padding", with(&v4, &[(16, 0), (17, 36)]), Short),
        ("UDP of length 7", with(&udp4, &[(39, 7)]), Malformed),
        ("UDP longer than its packet", with(&udp4, &[(39, 42)]), Malformed),
        ("segments left", with(&routed, &[(57, 1)]), SourceRouted),
        ("extension longer than its packet", with(&routed, &[(55, 200)]), Short),
        ("nine extensions", nine, TooManyExtensions),
        ("IPv4-mapped source", mapped, MappedAddress),
    ];
    for (name, bytes, error) in cases {
        assert_eq!(parse(&bytes), Err(error), "{name}");
    }
}

#[test]
fn fragments_have_an_id_and_only_the_first_has_ports() {
    let part = |id, offset, length| Some(Part { id, offset, length });
    let cases = [
        ("first", part(0xbeef, 0, 64), Fragment::First, 0xbeef, 40000),
        ("middle", part(0xbeef, 2, 16), Fragment::Later, 0xbeef, 0),
        ("last", part(0xbeef, 2, 999), Fragment::Later, 0xbeef, 0),
        ("atomic", part(0xbeef, 0, 999), Fragment::Whole, 0, 40000),
    ];
    for addresses in [V4, V6] {
        for (name, fragment, kind, id, port) in cases {
            let parsed = parse(&Frame::new(Ip { fragment, ..tcp(addresses) }).bytes()).expect(name);
            let outer = parsed.outer;
            assert_eq!((outer.fragment, outer.fragment_id), (kind, id), "{name} {addresses:?}");
            assert_eq!(outer.tuple.source_port, Port::new(port), "{name} {addresses:?}");
            assert_eq!(outer.l4 == 0, kind == Fragment::Later, "{name} {addresses:?}");
        }
    }
}

#[test]
fn an_icmp_error_has_the_tuple_of_the_packet_it_quotes() {
    let router = ["198.51.100.1", "2001:db8:1::1"];
    let cases = [
        // (quoted, type, header length, bytes quoted behind it, whether its checksum is among them)
        (tcp(V4), 3, 20, 8, false),
        (tcp(V4), 11, 20, 17, false),
        (tcp(V4), 12, 20, 18, true),
        (udp(V4), 3, 20, 8, true),
        (tcp(V6), 1, 40, 8, false),
        (tcp(V6), 2, 40, 18, true),
        (udp(V6), 4, 40, 8, true),
    ];
    for (n, (quoted, kind, header, more, has_checksum)) in cases.into_iter().enumerate() {
        let from = address(router[usize::from(header == 40)]);
        let error = Ip::error(from, quoted.source, (kind, 0), &quoted, header + more);
        let parsed = parse(&Frame::new(error).bytes()).expect("an error");
        let inner = parsed.inner;
        assert!(parsed.is_error(), "case {n}");
        assert_eq!(parsed.outer.tuple.source, from, "case {n}");
        assert_eq!(inner.tuple.destination, quoted.destination, "case {n}");
        assert_eq!([inner.tuple.source_port, inner.tuple.destination_port], quoted.ports());
        assert_eq!(inner.l4_checksum_at != 0, has_checksum, "case {n}");
        let short = Ip::error(from, quoted.source, (kind, 0), &quoted, header + 7);
        assert_eq!(parse(&Frame::new(short).bytes()), Err(Unparsed::Short), "case {n}: no ports");
    }
}

#[test]
fn pings_and_redirects_quote_nothing() {
    for (addresses, kind) in [(V4, 8), (V4, 0), (V4, 5), (V6, 128), (V6, 137)] {
        let payload = Payload::Icmp { kind, code: 0, data: vec![0; 40] };
        let packet = Ip::new(address(addresses[0]), address(addresses[1]), payload);
        let parsed = parse(&Frame::new(packet).bytes()).expect("a message");
        assert!(!parsed.is_error(), "type {kind}");
        assert_eq!(parsed.icmp_type, kind);
    }
}

#[test]
fn a_segment_longer_than_the_length_field_ends_with_its_frame() {
    for addresses in [V4, V6] {
        let mut bytes = Frame::new(tcp(addresses)).bytes();
        // "BIG TCP": both families then have length 0, in different places.
        let at = if addresses == V4 { 16 } else { 18 };
        bytes[at..at + 2].fill(0);
        bytes.resize(100_000, 0);
        let parsed = parse(&bytes).expect("a segment");
        assert_eq!(parsed.outer.end, 100_000, "{addresses:?}");
    }
}

#[test]
fn a_packet_without_a_link_header_is_read_from_its_first_byte() {
    for packet in [tcp(V4), tcp(V6)] {
        let mut parsed = Parsed::NONE;
        assert_eq!(parse_ip(&packet.bytes()[..], &mut parsed), Ok(()));
        assert_eq!((parsed.outer.l3, parsed.outer.tuple.source), (0, packet.source));
    }
    let mut parsed = Parsed::NONE;
    assert_eq!(parse_ip(&[0x50, 0, 0, 0][..], &mut parsed), Err(Unparsed::NotIp));
}

#[test]
fn what_was_read_before_leaves_nothing_behind() {
    let part =
        |packet: Ip, offset| Ip { fragment: Some(Part { id: 7, offset, length: 32 }), ..packet };
    let ping = Payload::Icmp { kind: 8, code: 0, data: vec![0; 8] };
    let bare = Payload::Udp { ports: [1, 2], checksum: false, data: vec![1] };
    let other = Payload::Other { protocol: 99, data: vec![1; 40] };
    let ends = |[a, b]: [&str; 2], payload| Ip::new(address(a), address(b), payload);
    let mut frames = vec![ends(V4, ping), ends(V4, bare), ends(V6, other)];
    for (addresses, kind) in [(V4, (3, 4)), (V6, (2, 0))] {
        let [from, to] = addresses.map(address);
        frames.extend([tcp(addresses), udp(addresses)]);
        frames.extend([part(udp(addresses), 0), part(udp(addresses), 4)]);
        for quoted in [tcp(addresses), part(tcp(addresses), 4)] {
            frames.push(Ip::error(from, to, kind, &quoted, 99));
        }
    }
    let frames: Vec<Vec<u8>> =
        frames.into_iter().map(|packet| Frame::new(packet).bytes()).collect();
    for before in &frames {
        for bytes in &frames {
            let mut parsed = parse(before).expect("a packet");
            parse_ethernet(bytes.as_slice(), &mut parsed).expect("a packet");
            if !parsed.is_error() {
                parsed.inner = Layer::NONE;
            }
            assert_eq!(parsed, parse(bytes).expect("a packet"), "{bytes:?} after {before:?}");
        }
    }
}
