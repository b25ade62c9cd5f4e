//! Maglev tables, and the hash that leads into them. The expected values were computed by another
//! program, over the reference implementation of xxHash.

use std::net::{IpAddr, Ipv4Addr};

use lb_common::abi::{Address, Port, protocol};
use lb_common::hash::xxh64;
use lb_common::maglev::{
    Candidate, DEFAULT_SIZE, EMPTY, SIZES, UnusableSize, fill, flow_hash, is_usable, next_size,
    slot,
};
use proptest::prelude::*;

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}

/// `count` backends at addresses from 10.0.0.0 + `first` on; their ids are the offsets from there.
fn backends(first: u32, count: u32) -> Vec<Candidate> {
    let at = |id| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + first + id)).into();
    (0..count).map(|id| Candidate::new(at(id), Port::new(3306), id)).collect()
}

fn table(size: u32, mut candidates: Vec<Candidate>) -> Vec<u32> {
    let mut table = vec![7; size as usize];
    fill(&mut table, &mut candidates).expect("a usable size");
    table
}

/// How many slots each of `count` ids has.
fn shares(table: &[u32], count: u32) -> Vec<usize> {
    let mut shares = vec![0; count as usize];
    for id in table {
        shares[*id as usize] += 1;
    }
    shares
}

/// The first bytes of the buffer that xxHash tests itself with, as little-endian words.
fn sanity_buffer<const N: usize>() -> [u64; N] {
    let mut generator = 2_654_435_761_u64;
    [(); N].map(|()| {
        u64::from_le_bytes([(); 8].map(|()| {
            let byte = generator.to_be_bytes()[0];
            generator = generator.wrapping_mul(11_400_714_785_074_694_797);
            byte
        }))
    })
}

#[test]
fn xxh64_agrees_with_the_reference_implementation() {
    assert_eq!(xxh64(sanity_buffer::<0>()), 0xef46_db37_51d8_e999);
    assert_eq!(xxh64(sanity_buffer::<1>()), 0xcdbc_f538_e71d_1348);
    assert_eq!(xxh64(sanity_buffer::<3>()), 0xf75a_6dea_42dc_5bf4);
    assert_eq!(xxh64(sanity_buffer::<4>()), 0x18b2_1649_2bb4_4b70);
    assert_eq!(xxh64(sanity_buffer::<5>()), 0x23b3_810d_7d8b_1731);
    assert_eq!(xxh64(sanity_buffer::<8>()), 0xef55_8f8a_cac2_b5cd);
    assert_eq!(xxh64(sanity_buffer::<13>()), 0x23ed_252f_132d_fa0f);
}

#[test]
fn a_flow_leads_to_the_same_slot_on_every_node_and_in_every_version() {
    let rows = [
        ("192.0.2.7", 40000, "10.96.0.1", 3306, protocol::TCP, 0xc696_9750_f24a_9508, 12707),
        ("192.0.2.7", 40000, "10.96.0.1", 3306, protocol::UDP, 0x20d6_a8db_1b49_367d, 2101),
        ("10.96.0.1", 3306, "192.0.2.7", 40000, protocol::TCP, 0x232b_02fa_f52e_8c3c, 2250),
        ("2001:db8::7", 40000, "fd00:10:96::1", 443, protocol::TCP, 0x2b59_ce2f_ceb2_884e, 2773),
    ];
    for (source, source_port, destination, destination_port, protocol, hash, at) in rows {
        let from = (address(source), Port::new(source_port));
        let to = (address(destination), Port::new(destination_port));
        let found = flow_hash(from, to, protocol);
        assert_eq!(found, hash, "{source}:{source_port} to {destination}:{destination_port}");
        assert_eq!(slot(found, DEFAULT_SIZE), at, "the slot of {hash:#x}");
    }
}

#[test]
fn a_table_is_the_same_on_every_node_and_in_every_version() {
    let text: String =
        table(251, backends(1, 7)).into_iter().map(|id| char::from_digit(id, 7).unwrap()).collect();
    assert_eq!(
        text,
        "666020562303124400105215143362606651410453253324112504226646533506025610411135055406\
         606126650343251120544403423636664264524110343345042111465626330411154054254253322542\
         66656641253350502401120530564561120602245243310305441026612333254120151233043330511",
    );
    let default = table(DEFAULT_SIZE, backends(1, 7));
    assert_eq!(default[..16], [5, 6, 5, 1, 4, 4, 4, 3, 3, 1, 0, 6, 2, 2, 2, 1]);
    assert_eq!(default[16_365..], LAST_OF_DEFAULT);
}

/// The last 16 of 16,381 slots.
const LAST_OF_DEFAULT: [u32; 16] = [6, 0, 3, 1, 1, 0, 6, 6, 0, 3, 6, 4, 0, 6, 1, 1];

#[test]
fn sizes_are_primes_in_order_and_the_default_is_one() {
    for size in SIZES {
        let divisor = (2..).take_while(|n| n * n <= size).find(|n| size % n == 0);
        assert_eq!(divisor, None, "a divisor of {size}");
    }
    assert!(SIZES.is_sorted());
    assert!(is_usable(DEFAULT_SIZE) && !is_usable(DEFAULT_SIZE + 1) && !is_usable(0));
    assert_eq!([0, 251, 252, 131_071].map(next_size), [251, 251, 509, 131_071].map(Some));
    assert_eq!(next_size(131_072), None);
}

#[test]
fn a_table_of_another_size_is_refused_by_name_and_stays_as_it_is() {
    for size in [0, 1, 2, 16_380, 65_537] {
        let mut table = vec![7; size];
        let refused = fill(&mut table, &mut backends(1, 3));
        assert_eq!(refused, Err(UnusableSize(size)));
        assert!(table.iter().all(|id| *id == 7), "a table of {size} slots was changed");
    }
    let message = UnusableSize(1000).to_string();
    assert!(message.contains("1000 slots") && message.contains("1021, 2039"), "{message}");
}

#[test]
fn without_backends_every_slot_is_empty() {
    assert!(table(251, Vec::new()).iter().all(|id| *id == EMPTY));
}

#[test]
fn a_single_backend_has_every_slot() {
    for size in SIZES {
        assert!(table(size, backends(1, 1)).iter().all(|id| *id == 0), "of {size}");
    }
}

#[test]
fn of_more_backends_than_slots_each_has_one_or_none_the_same_on_every_node() {
    let here = table(251, backends(1, 400));
    assert_eq!(shares(&here, 400).into_iter().max(), Some(1));
    let mut there = backends(1, 400);
    there.reverse();
    assert_eq!(here, table(251, there));
}

#[test]
fn backends_with_the_same_address_and_port_are_one_with_the_smallest_id() {
    let twice = [backends(1, 5), backends(1, 5), backends(5, 1)].concat();
    // The last one is the fifth, whose id is 4, under the id 0.
    let expected: Vec<u32> =
        table(251, backends(1, 5)).into_iter().map(|id| if id == 4 { 0 } else { id }).collect();
    assert_eq!(table(251, twice), expected);
}

#[test]
fn ports_and_families_make_backends_different() {
    let pairs = [("10.0.0.1", 80), ("10.0.0.1", 81), ("::a00:1", 80), ("fd00::a00:1", 80)];
    let candidates = pairs.iter().zip(0..).map(|((at, port), id)| {
        let port = Port::new(*port);
        Candidate::new(address(at), port, id)
    });
    let table = table(DEFAULT_SIZE, candidates.collect());
    assert!(shares(&table, 4).iter().all(|share| [4095, 4096].contains(share)));
}

/// Backends take turns, so the paper's bound (1 % where there are 100 times as many slots) holds
/// without exception.
#[test]
fn shares_differ_by_one_slot_at_most() {
    for size in [DEFAULT_SIZE, 65_521] {
        for count in [1, 2, 3, 7, 10, 50, 100, 163, 655, 1000] {
            let shares = shares(&table(size, backends(1, count)), count);
            let least = (size / count) as usize;
            for (id, share) in shares.into_iter().enumerate() {
                assert!(
                    share == least || share == least + 1,
                    "of {size} slots, backend {id} of {count} has {share}"
                );
            }
        }
    }
}

/// Of the slots of backends that stay, few change hands: fewer the larger the table. The bounds
/// are measured ones, with a little room; the paper has no formula.
#[test]
fn a_backend_that_goes_or_comes_moves_few_slots_of_others() {
    for (size, most) in [(DEFAULT_SIZE, 0.02), (65_521, 0.01)] {
        for count in [2, 3, 5, 10, 30, 100, 163, 300, 1000] {
            let with = table(size, backends(1, count));
            for gone in [0, count / 2, count - 1] {
                let mut rest = backends(1, count);
                rest.remove(gone as usize);
                let without = table(size, rest);
                // Read the other way round, this is what a backend that comes moves.
                let moved =
                    with.iter().zip(&without).filter(|(a, b)| a != b && **a != gone).count();
                let part = f64::from(u32::try_from(moved).unwrap()) / f64::from(size);
                assert!(
                    part <= most,
                    "without backend {gone} of {count}, {:.2} % of {size} slots move needlessly",
                    part * 100.0
                );
            }
        }
    }
}

#[test]
fn flows_spread_evenly_over_slots() {
    let destination = (address("10.96.0.1"), Port::new(443));
    let flows = (0..250_000_u32).map(|n| {
        let client = IpAddr::from(Ipv4Addr::from(0xc000_0200 + n / 50_000)).into();
        let port = Port::new(u16::try_from(10_000 + n % 50_000).unwrap());
        slot(flow_hash((client, port), destination, protocol::TCP), 251)
    });
    let shares = shares(&flows.collect::<Vec<_>>(), 251);
    // 996 on average, with a standard deviation of 32: five of them.
    assert!(shares.iter().all(|share| (838..1154).contains(share)), "{shares:?}");
}

proptest! {
    #[test]
    fn ids_and_order_make_no_difference(
        identities in prop::collection::btree_set((any::<[u8; 16]>(), any::<u16>()), 1..60),
        order in any::<u64>(),
        size in prop::sample::select(&SIZES[..5]),
    ) {
        let identities: Vec<_> = identities.into_iter().collect();
        let build = |indices: &[usize]| {
            let candidates = indices.iter().zip(0..).map(|(index, id)| {
                let (address, port) = identities[*index];
                Candidate::new(Address::from_bytes(address), Port::new(port), id)
            });
            let table = table(size, candidates.collect());
            table.into_iter().map(|id| indices[id as usize]).collect::<Vec<_>>()
        };
        let straight: Vec<usize> = (0..identities.len()).collect();
        let mut shuffled = straight.clone();
        shuffled.sort_by_key(|index| xxh64([order, *index as u64]));
        prop_assert_eq!(build(&straight), build(&shuffled));
        prop_assert_eq!(build(&straight), build(&straight), "repeated");
    }

    #[test]
    fn every_slot_names_a_given_backend(
        ids in prop::collection::btree_set(0..EMPTY, 1..300),
        first in 0..1_000_000_u32,
        size in prop::sample::select(&SIZES[..3]),
    ) {
        let at = |offset| IpAddr::from(Ipv4Addr::from(first + offset)).into();
        let candidates = ids.iter().zip(0..)
            .map(|(id, offset)| Candidate::new(at(offset), Port::new(53), *id));
        let table = table(size, candidates.collect());
        prop_assert!(table.iter().all(|id| ids.contains(id)));
    }

    #[test]
    fn a_slot_is_within_the_table(hash: u64, size in 1..=u32::MAX) {
        prop_assert!(slot(hash, size) < size);
        prop_assert_eq!(slot(u64::MAX, size), size - 1);
        prop_assert_eq!(slot(0, size), 0);
        prop_assert_eq!(slot(hash, 0), 0);
    }
}
