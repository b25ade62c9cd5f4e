//! What holds for every packet.

use lb_common::packet::edit::Rewrite;
use lb_common::packet::{Fragment, Parsed, Unparsed};
use lb_common::sim::packet::{Frame, Ip};
use proptest::prelude::*;

use crate::edit::{rewritten, tuple};
use crate::parse;
use crate::strategy::{ends, frame, ip};

/// Everything that is named lies within the packet.
fn check_bounds(parsed: &Parsed, bytes: &[u8]) {
    let outer = parsed.outer;
    assert!(outer.end as usize <= bytes.len(), "{parsed:?}");
    assert!(outer.l3 > 0 && u32::from(outer.l3) < outer.end, "{parsed:?}");
    for layer in [outer, parsed.inner] {
        assert!(layer.end <= outer.end, "{parsed:?}");
        assert!(u32::from(layer.l4) <= layer.end, "{parsed:?}");
        assert!(layer.l4_checksum_at == 0 || u32::from(layer.l4_checksum_at) + 2 <= layer.end);
    }
}

fn check_parse(bytes: &[u8]) -> Result<Parsed, Unparsed> {
    let parsed = parse(bytes)?;
    check_bounds(&parsed, bytes);
    // Whatever was read can be rewritten, and back.
    let old = if parsed.is_error() { parsed.inner.tuple } else { parsed.outer.tuple };
    let mut edits = Rewrite::NONE;
    assert!(edits.set(&parsed, &old.reversed()));
    edits.apply(&mut bytes.to_vec()).expect("its own packet");
    Ok(parsed)
}

/// An error about `quoted`, from one of its ends or a router.
fn error(quoted: &Ip, router: Option<lb_common::abi::Address>, length: usize) -> Ip {
    let kind = if quoted.source.is_v4() { (3, 4) } else { (2, 0) };
    Ip::error(router.unwrap_or(quoted.destination), quoted.source, kind, quoted, length)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..3) {
        let mut bytes = bytes;
        if let Some(at) = bytes.get_mut(12..15) {
            match kind {
                0 => at.copy_from_slice(&[0x08, 0x00, 0x45]),
                1 => at.copy_from_slice(&[0x86, 0xdd, 0x60]),
                _ => {}
            }
        }
        let _may_fail = check_parse(&bytes);
    }

    #[test]
    fn a_packet_with_wrong_bytes_does_no_harm(
        (frame, _) in frame(true),
        length in 0..150_usize,
        quoting: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let packet = if quoting { error(&frame.packet, None, length) } else { frame.packet.clone() };
        let mut bytes = Frame { packet, ..frame }.bytes();
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        let _may_fail = check_parse(&bytes);
    }

    #[test]
    fn what_was_built_is_read((frame, _) in frame(false)) {
        let bytes = frame.bytes();
        let parsed = check_parse(&bytes).expect("a whole packet");
        let packet = &frame.packet;
        prop_assert_eq!(parsed.outer.tuple.source, packet.source);
        prop_assert_eq!(parsed.outer.tuple.destination, packet.destination);
        let ports = [parsed.outer.tuple.source_port, parsed.outer.tuple.destination_port];
        prop_assert_eq!(ports, packet.ports());
        prop_assert_eq!(parsed.outer.tuple.protocol, packet.protocol());
        prop_assert_eq!(parsed.outer.fragment, Fragment::Whole);
        prop_assert_eq!(parsed.outer.end as usize, bytes.len() - frame.padding);
    }

    #[test]
    fn a_packet_that_was_cut_off_is_short_wherever((frame, _) in frame(false)) {
        let bytes = Frame { padding: 0, ..frame }.bytes();
        for length in 0..bytes.len() {
            prop_assert_eq!(check_parse(&bytes[..length]), Err(Unparsed::Short), "{} bytes", length);
        }
    }

    #[test]
    fn a_quotation_that_was_cut_off_has_the_same_tuple_or_none((frame, _) in frame(false)) {
        let quoted = &frame.packet;
        let whole = parse(&Frame::new(error(quoted, None, 999)).bytes()).expect("an error");
        for length in 0..quoted.bytes().len() {
            match check_parse(&Frame::new(error(quoted, None, length)).bytes()) {
                Ok(parsed) => prop_assert_eq!(parsed.inner.tuple, whole.inner.tuple),
                Err(reason) => prop_assert_eq!(reason, Unparsed::Short),
            }
        }
    }

    #[test]
    fn a_rewritten_packet_is_the_one_that_would_have_been_built((frame, to) in frame(true)) {
        let bytes = frame.bytes();
        let Ok(parsed) = check_parse(&bytes) else {
            prop_assume!(false);
            return Ok(());
        };
        let packet = Ip { fragment: frame.packet.fragment, ..frame.packet.with(to[0], to[1]) };
        let wanted = Frame { packet, ..frame };
        prop_assert_eq!(rewritten(&bytes, &tuple(&parsed, to)), wanted.bytes());
    }

    #[test]
    fn a_rewritten_error_is_the_one_that_would_have_been_built(
        (quoted, to, router) in any::<bool>().prop_flat_map(|v4| (
            ip(v4, false),
            ends(v4),
            prop::option::of(ends(v4).prop_map(|ends| ends[0].0)),
        )),
        length in 0..400_usize,
    ) {
        let bytes = Frame::new(error(&quoted, router, length)).bytes();
        let Ok(parsed) = check_parse(&bytes) else {
            prop_assume!(false);
            return Ok(());
        };
        // Half a checksum cannot be updated.
        prop_assume!(parsed.inner.end != u32::from(parsed.inner.l4) + 17);
        let shown = quoted.with(to[0], to[1]);
        let wanted = Frame::new(error(&shown, router, length)).bytes();
        let got = rewritten(&bytes, &tuple(&parsed, to));
        prop_assert_eq!(got, wanted);
    }
}
