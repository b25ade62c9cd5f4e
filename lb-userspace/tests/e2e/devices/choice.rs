//! Which devices get the programs, as they come and go.

use std::mem::offset_of;
use std::net::IpAddr;

use lb_common::abi::{Address, Node, device};
use libtest_mimic::Trial;

use super::facts::{await_devices, flags, node_entry, pinned, programs};
use crate::harness::{Agent, Stage, cases, eventually};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        by_default_ways_out_bridges_and_taps_are_chosen,
        names_and_patterns_choose_others,
        without_a_packet_path_nothing_is_attached,
        devices_are_followed_as_they_come_and_go,
        a_device_with_the_index_of_one_that_is_gone_is_attached_anew,
        the_address_towards_the_world_is_known_as_it_changes,
    ]
}

const ETHERNET: [&str; 2] = ["tc_ingress", "tc_egress"];
const BARE: [&str; 2] = ["tc_ingress_ip", "tc_egress_ip"];
const NONE: [&str; 0] = [];

/// Of every sort one; `eth0` has the default route.
fn stage_with_devices() -> Stage {
    let stage = Stage::without_agent();
    stage.node.ip("route add default dev eth0
        link add br0 type bridge
        link add pod1 type veth peer name eth1
        link set pod1 up
        link set eth1 up
        addr add 10.1.0.1/24 dev pod1
        tuntap add mode tap name tap0
        tuntap add mode tun name vpn
        link set vpn up
        addr add 10.4.0.1/24 dev vpn
        link add nothing type ifb
        link set nothing up
        addr add 10.5.0.1/24 dev nothing");
    stage
}

fn by_default_ways_out_bridges_and_taps_are_chosen() {
    let mut stage = stage_with_devices();
    stage.agent.start();
    await_devices(&stage.agent, &["br0 tcx inside", "eth0 tcx", "tap0 tcx inside"]);
    for chosen in ["eth0", "br0", "tap0"] {
        assert_eq!(programs(&stage.node, chosen), ETHERNET, "{chosen}");
    }
    for other in ["lo", "pod1", "vpn", "nothing"] {
        assert_eq!(programs(&stage.node, other), NONE, "{other}");
    }
    assert_eq!(stage.agent.status().unseen_devices(), ["vpn"]);
    let mut flags: Vec<u32> = flags(&stage.agent).into_values().collect();
    flags.sort_unstable();
    let inside = device::ATTACHED | device::INSIDE;
    assert_eq!(flags, [device::ATTACHED, inside, inside], "DEVICES of eth0, br0 and tap0");
    stage.agent.lb(&["status"]).ok().mentions(&[
        "Devices:        eth0, br0, tap0",
        "not translated: packets for Services by vpn (--device adds them)",
    ]);

    stage.node.ip("route add ::/0 dev vpn");
    let all = ["br0 tcx inside", "eth0 tcx", "tap0 tcx inside", "vpn tcx"];
    await_devices(&stage.agent, &all);
    assert_eq!(programs(&stage.node, "vpn"), BARE, "no Ethernet header");
}

fn names_and_patterns_choose_others() {
    let mut stage = stage_with_devices();
    stage.agent.set_options(&["--device", "pod?", "--device", "*pn"]);
    stage.agent.start();
    await_devices(&stage.agent, &["pod1 tcx inside", "vpn tcx"]);
    assert_eq!(programs(&stage.node, "pod1"), ETHERNET);
    assert_eq!(programs(&stage.node, "vpn"), BARE);
    assert_eq!(programs(&stage.node, "eth0"), NONE, "nobody chose it");
    assert_eq!(stage.agent.status().unseen_devices(), ["eth0"]);

    stage.agent.kill_nine();
    stage.agent.set_options(&["--device", "eth0"]);
    stage.agent.start();
    await_devices(&stage.agent, &["eth0 tcx"]);
    assert_eq!(programs(&stage.node, "pod1"), NONE, "the next agent chooses others");
    assert_eq!(pinned(&stage.agent).len(), 2, "eth0's links: {:?}", pinned(&stage.agent));
}

fn without_a_packet_path_nothing_is_attached() {
    let mut stage = stage_with_devices();
    stage.agent.start();
    await_devices(&stage.agent, &["br0 tcx inside", "eth0 tcx", "tap0 tcx inside"]);
    stage.agent.kill_nine();
    stage.agent.set_options(&["--no-packet-path"]);
    stage.agent.start();
    assert_eq!(stage.agent.status().devices(), None);
    stage.agent.lb(&["status"]).ok().mentions(&["none (--no-packet-path)"]);
    assert_eq!(programs(&stage.node, "eth0"), NONE, "the earlier agent's are gone");
    assert!(flags(&stage.agent).is_empty() && pinned(&stage.agent).is_empty());
}

fn devices_are_followed_as_they_come_and_go() {
    let mut stage = Stage::start();
    let node = stage.node.clone();
    await_devices(&stage.agent, &[]);
    node.ip("link add br0 type bridge");
    await_devices(&stage.agent, &["br0 tcx inside"]);
    node.ip("link add eth7 type veth peer name eth8
        link set eth7 master br0
        link add tunnel master br0 type vxlan id 5 dstport 4789 dev eth0");
    await_devices(&stage.agent, &["br0 tcx"]);
    node.ip("link set tunnel nomaster\nroute add default dev eth0");
    await_devices(&stage.agent, &["br0 tcx inside", "eth0 tcx"]);
    assert_eq!(programs(&node, "eth0"), ETHERNET);

    node.ip("route del default\nlink set br0 name bridge0");
    await_devices(&stage.agent, &["bridge0 tcx inside"]);
    assert_eq!(programs(&node, "eth0"), NONE, "no way out any more");
    assert_eq!(programs(&node, "bridge0"), ETHERNET);
    node.ip("link del bridge0");
    await_devices(&stage.agent, &[]);
    assert!(pinned(&stage.agent).is_empty(), "pins are left: {:?}", pinned(&stage.agent));
    assert!(flags(&stage.agent).is_empty(), "DEVICES is empty");

    // What happens while no agent is there.
    node.ip("link add br1 type bridge");
    await_devices(&stage.agent, &["br1 tcx inside"]);
    stage.agent.kill_nine();
    node.ip("link del br1\nlink add br2 type bridge");
    stage.agent.start();
    await_devices(&stage.agent, &["br2 tcx inside"]);
    assert_eq!(pinned(&stage.agent).len(), 2, "those of br2: {:?}", pinned(&stage.agent));
}

#[track_caller]
fn assert_attached_again(agent: &Agent, node: &crate::harness::netns::Namespace, when: &str) {
    eventually(&format!("br0 has the programs, {when}"), || match &programs(node, "br0")[..] {
        names if names == ETHERNET => Ok(()),
        names => Err(format!("{names:?}")),
    });
    await_devices(agent, &["br0 tcx inside"]);
    assert_eq!(pinned(agent).len(), 2, "{when}: {:?}", pinned(agent));
}

fn a_device_with_the_index_of_one_that_is_gone_is_attached_anew() {
    let mut stage = Stage::start();
    let node = stage.node.clone();
    let again = "link del br0\nlink add br0 index 77 type bridge";
    node.ip("link add br0 index 77 type bridge");
    assert_attached_again(&stage.agent, &node, "new");
    for round in 0..5 {
        node.ip(again);
        assert_attached_again(&stage.agent, &node, &format!("made again, round {round}"));
    }
    stage.agent.kill_nine();
    node.ip(again);
    assert_eq!(programs(&node, "br0"), NONE, "nobody is there");
    stage.agent.start();
    assert_attached_again(&stage.agent, &node, "made again with no agent running");
}

fn the_address_towards_the_world_is_known_as_it_changes() {
    let mut stage = Stage::start();
    let source = |agent: &Agent, offset: usize| {
        let entry = node_entry(agent);
        let bytes: [u8; 16] = entry[offset..offset + 16].try_into().expect("sixteen bytes");
        Address::from_bytes(bytes)
    };
    let expect = |agent: &Agent, v4: &str, v6: &str| {
        let of = |text: &str| match text {
            "" => Address::UNSPECIFIED,
            text => Address::from(text.parse::<IpAddr>().expect("an address")),
        };
        eventually(&format!("the node's addresses are {v4} and {v6}"), || {
            let found = [offset_of!(Node, snat_v4), offset_of!(Node, snat_v6)]
                .map(|offset| source(agent, offset));
            if found == [of(v4), of(v6)] { Ok(()) } else { Err(format!("{found:?}")) }
        });
    };
    expect(&stage.agent, "", "");
    stage.node.ip("route add default dev eth0\nroute add ::/0 dev eth0");
    expect(&stage.agent, "10.244.0.1", "fd00:10:244::1");
    stage.node.ip("addr add 10.9.0.1/32 dev eth0\nroute replace default dev eth0 src 10.9.0.1");
    expect(&stage.agent, "10.9.0.1", "fd00:10:244::1");
    stage.node.ip("route del default\nroute del ::/0");
    expect(&stage.agent, "", "");
    stage.node.ip("route add default dev eth0 src 10.9.0.1");
    stage.agent.kill_nine();
    stage.agent.start();
    expect(&stage.agent, "10.9.0.1", "");
}
