//! The words that cross the kernel boundary.

use std::net::IpAddr;

use lb_common::abi::{
    Address, Affinity, Cidr, FrontendEntry, FrontendKey, FrontendKind, Life, Policy, Port, Run,
    protocol,
};
use proptest::prelude::*;

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}

#[test]
fn addresses_lie_in_memory_in_network_order() {
    let v4 = address("10.96.0.1");
    assert_eq!(v4.bytes(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 96, 0, 1]);
    assert_eq!(v4.v4_word().to_ne_bytes(), [10, 96, 0, 1]);
    assert!(v4.is_v4() && !address("::1").is_v4() && !address("::").is_v4());
    assert_eq!(Port::new(3306).word().to_ne_bytes(), [0x0c, 0xea]);
    assert!(address("10.0.0.2") > address("9.0.0.3"), "ordered as bytes, not as words");
}

#[test]
fn cidrs_contain_what_their_prefix_says() {
    let rows = [
        ("10.96.0.0", 96 + 12, "10.96.0.1", true),
        ("10.96.0.0", 96 + 12, "10.111.255.255", true),
        ("10.96.0.0", 96 + 12, "10.112.0.0", false),
        ("10.96.0.0", 96 + 12, "10.95.255.255", false),
        ("10.96.0.0", 96 + 12, "::a60:1", false),
        ("fd00:10:96::", 112, "fd00:10:96::ffff", true),
        ("fd00:10:96::", 112, "fd00:10:96::1:0", false),
        ("10.96.0.1", 128, "10.96.0.1", true),
        ("10.96.0.1", 128, "10.96.0.0", false),
    ];
    for (network, prefix, candidate, expected) in rows {
        let cidr = Cidr::new(address(network), prefix);
        assert_eq!(
            cidr.contains(address(candidate)),
            expected,
            "{candidate} in {network}/{prefix}"
        );
    }
    for any in ["::", "0.0.0.0", "10.96.0.1", "fd00::1"] {
        assert!(!Cidr::NONE.contains(address(any)), "nothing contains {any}");
    }
}

#[test]
fn a_pick_reaches_every_slot_and_no_other() {
    let run = Run { first: 100, count: 3, generation: 0 };
    let picks = [0, 0x5555_5555, 0x5555_5556, 0xaaaa_aaaa, 0xaaaa_aaab, u32::MAX];
    assert_eq!(picks.map(|random| run.pick(random)), [100, 100, 101, 101, 102, 102]);
}

const KINDS: [FrontendKind; 7] = [
    FrontendKind::ClusterIp,
    FrontendKind::External,
    FrontendKind::NodePort,
    FrontendKind::Address,
    FrontendKind::Foreign,
    FrontendKind::LoadBalancer,
    FrontendKind::ExternalAddress,
];

#[test]
fn addresses_that_lead_to_the_node_itself_are_known() {
    let rows = [
        ("127.0.0.1", Some("127.0.0.1")),
        ("127.255.255.254", Some("127.0.0.1")),
        ("0.0.0.0", Some("127.0.0.1")),
        ("128.0.0.1", None),
        ("0.0.0.1", None),
        ("::1", Some("::1")),
        ("::", Some("::1")),
        ("::2", None),
        ("::127.0.0.1", None),
    ];
    for (text, expected) in rows {
        assert_eq!(address(text).loopback(), expected.map(address), "{text}");
        assert_eq!(address(text).is_unspecified(), ["::", "0.0.0.0"].contains(&text), "{text}");
    }
}

#[test]
fn affinity_lasts_its_seconds_from_the_last_use() {
    let known = Affinity { backend: Affinity::word(7, 9), last_used: 5_000_000_000 };
    assert_eq!((known.id(), known.generation()), (7, 9));
    assert!(!known.expired(15_000_000_000, 10) && known.expired(15_000_000_001, 10));
    assert!(!known.expired(4_000_000_000, 10), "another processor's clock may be behind");
}

proptest! {
    #[test]
    fn policies_keep_their_parts(affinity_seconds: u32, internal_local: bool, external_local: bool, restricted: bool, maglev in 0..=Policy::MAX_MAGLEV) {
        let policy =
            Policy { affinity_seconds, internal_local, external_local, restricted, maglev };
        prop_assert_eq!(Policy::from_word(policy.to_word()), policy);
    }

    #[test]
    fn words_keep_their_parts(
        first in 0..Run::MAX_SLOTS, count in 0..=Run::MAX_COUNT,
        generation in 0..=Run::MAX_GENERATION, life: (u32, bool, bool, bool),
    ) {
        let run = Run { first, count, generation };
        prop_assert_eq!(Run::from_word(run.to_word()), run);
        let (generation, cluster, local, present) = life;
        let life = Life { generation, cluster, local, present };
        prop_assert_eq!(Life::from_word(life.to_word()), life);
    }

    #[test]
    fn entries_know_their_key(bytes: [u8; 16], port: u16, other: u16, service: u32) {
        let address = Address::from_bytes(bytes);
        let key = FrontendKey::new(address, Port::new(port), protocol::TCP);
        prop_assert_eq!(FrontendKey::from_bytes(key.to_bytes()), key);
        for kind in KINDS {
            let entry = FrontendEntry::new(&key, kind, service);
            prop_assert!(entry.belongs_to(&key));
            prop_assert_eq!((entry.service(), entry.kind()), (service, kind));
        }
        let sibling = FrontendKey { port: Port::new(other), ..key };
        // One in 65,536 pairs shares its check; see `checks_differ` for how many really do.
        prop_assert!(key == sibling || key.check() != sibling.check() || port != other);
    }
}

#[test]
fn checks_differ() {
    let base = FrontendKey::new(address("10.96.0.1"), Port::new(80), protocol::TCP);
    let same = (0..=u16::MAX)
        .filter(|&port| FrontendKey { port: Port::new(port), ..base }.check() == base.check())
        .count();
    assert!(same < 8, "{same} of 65,536 ports share the check of port 80");
    assert_ne!(base.check(), FrontendKey { protocol: protocol::UDP, ..base }.check());
}
