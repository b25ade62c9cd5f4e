//! Tables: a rewritten packet is the one that would have been built with the new addresses.

use lb_common::abi::{Address, Port};
use lb_common::packet::edit::Rewrite;
use lb_common::packet::{Parsed, Tuple};
use lb_common::sim::packet::{Frame, Ip, Part, Payload};

use crate::strategy::Ends;
use crate::{V4, V6, address, parse, tcp, udp};

/// What `parsed` is, or quotes, with other ends.
pub(crate) fn tuple(parsed: &Parsed, [source, destination]: Ends) -> Tuple {
    let old = if parsed.is_error() { parsed.inner.tuple } else { parsed.outer.tuple };
    old.from(source.0, Port::new(source.1)).to(destination.0, Port::new(destination.1))
}

/// The frame with these edits made.
pub(crate) fn rewritten(bytes: &[u8], to: &Tuple) -> Vec<u8> {
    let mut edits = Rewrite::NONE;
    assert!(edits.set(&parse(bytes).expect("a packet"), to), "the same family");
    let mut bytes = bytes.to_vec();
    edits.apply(&mut bytes).expect("the packet that it was made for");
    bytes
}

fn ends(addresses: [&str; 2]) -> Ends {
    [(address(addresses[0]), 1024), (address(addresses[1]), 8080)]
}

fn check(name: &str, packet: Ip, wanted: Ip, to: Ends) {
    let bytes = Frame::new(packet).bytes();
    let to = tuple(&parse(&bytes).expect(name), to);
    assert_eq!(rewritten(&bytes, &to), Frame::new(wanted).bytes(), "{name}");
}

const OTHER4: [&str; 2] = ["10.9.8.7", "10.244.1.5"];
const OTHER6: [&str; 2] = ["2001:db8:f::7", "fd00::5"];

#[test]
fn every_fragment_gets_the_addresses_and_the_first_the_ports() {
    for (packet, others) in [(udp(V4), OTHER4), (udp(V6), OTHER6), (tcp(V6), OTHER6)] {
        for (offset, length) in [(0, 32), (4, 8), (5, 99)] {
            let part = Some(Part { id: 7, offset, length });
            let [source, destination] = ends(others);
            let wanted = Ip { fragment: part, ..packet.with(source, destination) };
            check("fragment", Ip { fragment: part, ..packet.clone() }, wanted, ends(others));
        }
    }
}

#[test]
fn udp_without_a_checksum_stays_without_and_says_that_the_sum_changes() {
    for (addresses, others) in [(V4, OTHER4), (V6, OTHER6)] {
        let mut packet = udp(addresses);
        packet.payload = Payload::Udp { ports: [1, 2], checksum: false, data: vec![1, 2, 3] };
        let [source, destination] = ends(others);
        check("no checksum", packet.clone(), packet.with(source, destination), ends(others));
        let parsed = parse(&Frame::new(packet).bytes()).expect("a packet");
        let mut edits = Rewrite::NONE;
        assert!(edits.set(&parsed, &tuple(&parsed, ends(others))));
        assert_eq!(edits.stores[2].recompute, 1, "the ports");
    }
}

#[test]
fn an_error_from_the_peer_itself_is_shown_as_from_its_other_address() {
    for (quoted, others) in [(tcp(V4), OTHER4), (udp(V6), OTHER6)] {
        let [source, destination] = ends(others);
        let kind = if quoted.source.is_v4() { (3, 3) } else { (1, 4) };
        let error = Ip::error(quoted.destination, quoted.source, kind, &quoted, 999);
        let shown = quoted.with(source, destination);
        let wanted = Ip::error(destination.0, source.0, kind, &shown, 999);
        check("from the peer", error, wanted, ends(others));
    }
}

#[test]
fn a_router_keeps_its_address_in_an_error() {
    let router = address("198.51.100.1");
    let quoted = tcp(V4);
    let [source, destination] = ends(OTHER4);
    let error = Ip::error(router, quoted.source, (3, 4), &quoted, 28);
    let wanted = Ip::error(router, source.0, (3, 4), &quoted.with(source, destination), 28);
    check("from a router", error, wanted, ends(OTHER4));
}

#[test]
fn what_does_not_change_is_not_written() {
    for packet in [tcp(V4), udp(V6)] {
        let parsed = parse(&Frame::new(packet).bytes()).expect("a packet");
        let mut edits = Rewrite::NONE;
        assert!(edits.set(&parsed, &parsed.outer.tuple));
        assert!(edits.sums.iter().all(|sum| sum.offset == 0), "{edits:?}");
        assert!(edits.stores.iter().all(|store| store.length == 0), "{edits:?}");
        let to = parsed.outer.tuple.to(parsed.outer.tuple.destination, Port::new(8080));
        assert!(edits.set(&parsed, &to));
        assert_eq!(edits.stores.iter().filter(|store| store.length != 0).count(), 1, "the ports");
    }
}

#[test]
fn another_family_is_refused() {
    let parsed = parse(&Frame::new(tcp(V4)).bytes()).expect("a packet");
    let mut edits = Rewrite::NONE;
    assert!(!edits.set(&parsed, &parsed.outer.tuple.to(address(V6[0]), Port::new(1))));
    assert_eq!(edits, Rewrite::NONE);
    assert!(!edits.set(&parsed, &parsed.outer.tuple.from(Address::V6_LOOPBACK, Port::new(1))));
}

#[test]
fn edits_for_a_longer_packet_do_not_reach_past_the_end() {
    let bytes = Frame::new(tcp(V6)).bytes();
    let parsed = parse(&bytes).expect("a packet");
    let mut edits = Rewrite::NONE;
    assert!(edits.set(&parsed, &tuple(&parsed, ends(OTHER6))));
    for length in 0..parsed.outer.l4_checksum_at {
        assert_eq!(edits.apply(&mut bytes.clone()[..usize::from(length)]), None);
    }
}

#[test]
fn what_was_to_be_done_before_leaves_nothing_behind() {
    let quoted = tcp(V4);
    let error = Ip::error(address("198.51.100.1"), quoted.source, (3, 4), &quoted, 99);
    let parsed = parse(&Frame::new(error).bytes()).expect("an error");
    let mut edits = Rewrite::NONE;
    assert!(edits.set(&parsed, &tuple(&parsed, ends(OTHER4))));
    for (packet, others) in [(udp(V6), OTHER6), (Ip { options: 1, ..tcp(V4) }, OTHER4)] {
        let mut bytes = Frame::new(packet.clone()).bytes();
        let parsed = parse(&bytes).expect("a packet");
        assert!(edits.set(&parsed, &tuple(&parsed, ends(others))));
        edits.apply(&mut bytes).expect("the packet that it was made for");
        let [source, destination] = ends(others);
        assert_eq!(bytes, Frame::new(packet.with(source, destination)).bytes());
    }
}
