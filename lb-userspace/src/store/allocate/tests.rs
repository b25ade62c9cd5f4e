//! The rules of KEP-3070 and KEP-3668, by table and by property.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use proptest::prelude::*;

use super::{AllocateError, BandedPool, Pools, RangeError, Refusal, Resource, band_offset};
use crate::object::{Key, Kind};
use crate::plan::Family;

fn owner(name: &str) -> Key {
    Key::new(Kind::Service, "default", name)
}

fn pools(ranges: &str) -> Result<Pools, RangeError> {
    let ranges: Vec<IpNet> = ranges.split(',').map(|range| range.parse().expect(range)).collect();
    Pools::with_random(&ranges, fastrand::Rng::with_seed(1))
}

fn address(text: &str) -> Resource {
    Resource::Address(text.parse().expect(text))
}

#[test]
fn bands_are_those_of_the_keps() {
    // The table of KEP-3070.
    for (bits, offset) in [(4, 0), (5, 16), (8, 16), (9, 32), (11, 128), (12, 256), (20, 256)] {
        assert_eq!(band_offset(1 << bits, 16, 256), offset, "a range of 2^{bits} addresses");
    }
    assert_eq!(band_offset(2768, 32, 128), 86, "NodePorts");
}

#[test]
fn automatic_choices_come_from_the_upper_band_until_it_is_full() {
    let mut pools = pools("10.0.0.0/24").expect("a range");
    let mut take = || pools.take_any_address(Family::V4, &owner("a"));
    let upper: BTreeSet<IpAddr> = (0..238).map(|_| take().expect("the upper band")).collect();
    assert_eq!(upper.first(), Some(&"10.0.0.17".parse().expect("an address")));
    assert_eq!(upper.last(), Some(&"10.0.0.254".parse().expect("an address")));
    assert_eq!(upper.len(), 238, "each once");
    let lower: Vec<String> = (0..15).map(|_| take().expect("the lower band").to_string()).collect();
    assert_eq!((&*lower[0], &*lower[14]), ("10.0.0.2", "10.0.0.16"), ".1 is default/kubernetes'");
    let full = take().expect_err("nothing is left").to_string();
    assert!(full.starts_with("range is full: 10.0.0.0/24"), "{full}");
    let kubernetes = pools.take_any_address(Family::V4, &owner("kubernetes"));
    assert_eq!(kubernetes.map(|ip| ip.to_string()), Ok("10.0.0.1".to_owned()));
}

#[test]
fn static_addresses_are_anywhere_but_at_the_edges() {
    let mut pools = pools("10.96.0.0/12,fd00::/112").expect("ranges");
    let a = owner("a");
    let range = "provided IP is not in the valid range. The range of valid IPs is";
    let cases = [
        ("10.96.0.0", Err(format!("{range} 10.96.0.0/12")), "the network address"),
        ("10.111.255.255", Err(format!("{range} 10.96.0.0/12")), "the broadcast address"),
        ("10.112.0.1", Err(format!("{range} 10.96.0.0/12")), "outside"),
        (
            "10.96.0.1",
            Err("provided IP is already allocated (by default/kubernetes)".into()),
            "the first",
        ),
        ("10.96.0.10", Ok(()), "the lower band"),
        ("10.96.0.10", Err("provided IP is already allocated (by default/a)".into()), "again"),
        ("10.111.255.254", Ok(()), "the last"),
        ("fd00::", Err(format!("{range} fd00::/112")), "the subnet-router address"),
        ("fd00::ffff", Ok(()), "IPv6 has no broadcast"),
        ("fd01::1", Err(format!("{range} fd00::/112")), "outside"),
    ];
    for (text, expected, description) in cases {
        let result = pools.take(address(text), &a).map_err(|error| error.to_string());
        assert_eq!(result, expected, "{text}: {description}");
    }
    assert_eq!(pools.take(address("10.96.0.1"), &owner("kubernetes")), Ok(()), "its own");
}

#[test]
fn node_ports_are_banded() {
    let mut pools = pools("10.96.0.0/12").expect("a range");
    let a = owner("a");
    for _ in 0..2768 - 86 {
        assert!(pools.take_any_port(&a).expect("a port") >= 30086);
    }
    assert_eq!(pools.take_any_port(&a), Ok(30000), "the lower band when the upper is full");
    for (port, error) in [
        (29999, AllocateError::PortOutOfRange),
        (32768, AllocateError::PortOutOfRange),
        (30000, AllocateError::PortTaken(a.clone())),
    ] {
        assert_eq!(pools.take(Resource::Port(port), &a), Err(error), "{port}");
    }
    assert_eq!(
        AllocateError::PortOutOfRange.to_string(),
        "provided port is not in the valid range. The range of valid ports is 30000-32767"
    );
}

#[test]
fn ranges_that_cannot_serve_are_refused() {
    for (ranges, part) in [
        ("127.0.0.0/16", "overlaps 127.0.0.0/8"),
        ("0.0.0.0/0", "overlaps 0.0.0.0/8"),
        ("169.254.4.0/24", "overlaps 169.254.0.0/16"),
        ("fe80:1::/64", "overlaps fe80::/10"),
        ("fd00::/63", "shortest allowed prefix"),
        ("10.0.0.0/31", "too small"),
        ("10.0.0.1/32", "too small"),
        ("fd00::1/128", "too small"),
        ("10.0.0.0/24,10.0.1.0/24", "one family"),
    ] {
        let error = pools(ranges).expect_err(ranges).to_string();
        assert!(error.contains(part), "{ranges}: {error}");
    }
    assert!(matches!(Pools::new(&[]), Err(RangeError::None)));
    for ranges in ["10.0.0.0/8", "10.0.0.0/30", "fd00::/64", "fd00::/127"] {
        let mut pools = pools(ranges).expect(ranges);
        let family = pools.default_family();
        // A /127 has one address, which is reserved.
        let any = pools.take_any_address(family, &owner("kubernetes")).expect(ranges);
        assert!(ranges.parse::<IpNet>().expect("a range").contains(&any), "{ranges}: {any}");
    }
}

#[test]
fn undo_restores_what_was_taken_and_given_back() {
    let mut pools = pools("10.0.0.0/24").expect("a range");
    let (a, b) = (owner("a"), owner("b"));
    pools.take(address("10.0.0.9"), &a).expect("free");
    pools.commit();
    let mark = pools.mark();
    pools.give_back(address("10.0.0.9"), &a);
    pools.take(address("10.0.0.9"), &b).expect("free now");
    pools.take_any_port(&b).expect("a port");
    pools.give_back(address("10.0.0.9"), &a);
    assert_eq!(pools.owner(address("10.0.0.9")), Some(&b), "not a's any more");
    pools.undo(mark);
    assert_eq!(pools.owner(address("10.0.0.9")), Some(&a));
    assert!(pools.ports().is_empty());
}

#[test]
fn fifty_thousand_addresses_are_quick() {
    let mut pools = pools("10.96.0.0/16").expect("a range");
    let a = owner("a");
    let start = Instant::now();
    for _ in 0..50_000 {
        pools.take_any_address(Family::V4, &a).expect("65,000 addresses");
    }
    let elapsed = start.elapsed();
    // The bound is for an unoptimized build on a busy machine.
    assert!(elapsed.as_secs() < 5, "50,000 allocations took {elapsed:?}");
    println!("50,000 allocations: {elapsed:?}");
}

/// What a test does to a pool.
#[derive(Clone, Debug)]
enum Step {
    Take(u128),
    TakeAny,
    GiveBack(u128),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_u128..40).prop_map(Step::Take),
        Just(Step::TakeAny),
        (0_u128..40).prop_map(Step::GiveBack),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    /// Against a set: no number twice, none outside, upper band first, full only when it is.
    #[test]
    fn the_pool_agrees_with_a_set(size in 1_u128..40, offset in 0_u128..20, seed: u64, steps in steps()) {
        let mut pool = BandedPool::new(size, offset, fastrand::Rng::with_seed(seed));
        let offset = if offset < size { offset } else { 0 };
        let (mut model, a) = (BTreeSet::new(), owner("a"));
        for step in steps {
            match step {
                Step::Take(number) if number >= size => {
                    prop_assert_eq!(pool.take(number, &a), Err(Refusal::OutOfRange));
                }
                Step::Take(number) => {
                    prop_assert_eq!(pool.take(number, &a).is_ok(), model.insert(number));
                }
                Step::TakeAny => match pool.take_any(&a) {
                    Ok(number) => {
                        let upper_is_full = (offset..size).all(|number| model.contains(&number));
                        prop_assert!(number < size);
                        prop_assert!(number >= offset || upper_is_full, "{number} is in the lower band");
                        prop_assert!(model.insert(number), "{number} twice");
                    }
                    Err(refusal) => {
                        prop_assert_eq!(refusal, Refusal::Full);
                        prop_assert_eq!(model.len(), usize::try_from(size).expect("small"));
                    }
                },
                Step::GiveBack(number) => {
                    prop_assert!(!pool.give_back(number, &owner("other")));
                    prop_assert_eq!(pool.give_back(number, &a), model.remove(&number));
                }
            }
            prop_assert_eq!(pool.len(), model.len());
        }
    }
}
