//! What the kernel holds for clients outside, as its own maps say.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, Map, MapData};
use lb_common::abi::{Address, RangeKey};
use libtest_mimic::Trial;

use crate::harness::{Listen, Stage, cases, service};

pub(crate) fn tests() -> Vec<Trial> {
    cases![ranges_and_tables_are_in_the_kernel_and_outlive_the_agent]
}

const BALANCER: &str = "type: LoadBalancer, allocateLoadBalancerNodePorts: false, \
    loadBalancerSourceRanges: [192.0.2.0/24, 198.51.100.7/32], \
    selector: {app: web}, ports: [{port: 80}]";
const STATUS: &str = "status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}";

fn ranges_and_tables_are_in_the_kernel_and_outlive_the_agent() {
    let mut stage = Stage::without_agent();
    stage.agent.set_options(&["--maglev-table-size", "251", "--map-size", "MAGLEV=16"]);
    stage.agent.start();
    for name in ["pod-a", "pod-b"] {
        let pod = stage.pod(name, "web", &[Listen::Tcp(80)]);
        stage.apply(&[&pod.manifest()]);
    }
    stage.apply(&[&format!("{}\n{STATUS}\n", service("web", BALANCER))]);
    let entered = |stage: &Stage, address: &str| {
        let trie = LpmTrie::<_, [u8; 20], u32>::try_from(pinned(stage, "SOURCE_RANGES"));
        let trie = trie.expect("a trie");
        let index = trie.keys().next()?.expect("a key").data()[..4].to_vec();
        let address = Address::from(address.parse::<IpAddr>().expect("an address")).bytes();
        let key = [&index[..], &address].concat().try_into().expect("20 bytes");
        trie.get(&Key::new(RangeKey::BITS, key), 0).ok()
    };
    let before = table(&stage);
    assert_eq!(shares(&before), [125, 126], "two backends share 251 slots");
    for restarted in [false, true] {
        if restarted {
            stage.agent.kill_nine();
            stage.agent.start();
        }
        assert_eq!(entered(&stage, "192.0.2.77"), Some(1), "restarted: {restarted}");
        assert_eq!(entered(&stage, "198.51.100.7"), Some(1), "restarted: {restarted}");
        assert_eq!(entered(&stage, "198.51.100.8"), None, "restarted: {restarted}");
        assert_eq!(table(&stage), before, "restarted: {restarted}");
        let status = stage.agent.status();
        assert_eq!((status.used("SOURCE_RANGES"), status.used("MAGLEV")), (2, 1));
        assert_eq!(status.capacity("MAGLEV"), 16, "tables");
        assert!(status.refused().is_empty(), "{:?}", status.refused());
    }
    stage.agent.delete("svc", "web");
    assert_eq!(entered(&stage, "192.0.2.77"), None, "its ranges went with it");
    let status = stage.agent.status();
    assert_eq!((status.used("SOURCE_RANGES"), status.used("MAGLEV")), (0, 0));
}

/// The first table of `MAGLEV`.
fn table(stage: &Stage) -> Vec<u32> {
    let maglev = Array::<_, u32>::try_from(pinned(stage, "MAGLEV")).expect("an array");
    assert_eq!(maglev.len(), 16 * 251);
    (0..251).map(|slot| maglev.get(&slot, 0).expect("a slot")).collect()
}

/// How many slots name each backend, the smallest share first.
fn shares(table: &[u32]) -> Vec<usize> {
    let ids: BTreeSet<u32> = table.iter().copied().collect();
    let share = |id: &u32| table.iter().filter(|slot| *slot == id).count();
    let mut shares: Vec<usize> = ids.iter().map(share).collect();
    shares.sort_unstable();
    shares
}

/// A map by its pin.
fn pinned(stage: &Stage, map: &str) -> Map {
    let folders = fs::read_dir(&stage.agent.paths.bpffs).expect("the folder of pins");
    let mut pins = folders.flatten().map(|folder| folder.path().join(map));
    let pin = pins.find(|pin| pin.exists()).unwrap_or_else(|| panic!("{map} is pinned"));
    Map::from_map_data(MapData::from_pin(pin).expect("a map")).expect("a map of a known type")
}
