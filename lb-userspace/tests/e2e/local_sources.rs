//! Which DNS clients are this node's, in network namespaces with devices of each kind.

use std::net::SocketAddr;

use lb_userspace::source::LocalSources;
use libtest_mimic::Trial;

use crate::harness::cases;
use crate::harness::netns::Namespace;

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        pods_behind_veth_and_bridge_are_this_nodes,
        what_leaves_the_node_is_elsewhere,
        a_bridge_is_judged_by_its_ports,
        the_way_to_the_world_leads_out_even_if_it_is_a_veth,
    ]
}

#[track_caller]
fn assert_local(node: &Namespace, expected: bool, sources: &[&str]) {
    let sources: Vec<SocketAddr> =
        sources.iter().map(|source| source.parse().expect("an address with a port")).collect();
    let wrong = node.run(move || {
        // Each judged on its own: nothing is remembered from the stage before.
        let judge = |source: &SocketAddr| LocalSources::new().contains(*source) != expected;
        sources.into_iter().filter(judge).collect::<Vec<_>>()
    });
    assert!(wrong.is_empty(), "must be on this node: {expected}; is not so: {wrong:?}");
}

/// The index of a device, which is the scope of its link-local addresses.
#[track_caller]
fn index(node: &Namespace, device: &str) -> u32 {
    let device = device.to_owned();
    let index = node.run(move || rustix::net::netdevice::name_to_index(open(), &device));
    index.expect("the device exists")
}

fn open() -> std::net::UdpSocket {
    std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port on loopback")
}

fn pods_behind_veth_and_bridge_are_this_nodes() {
    let node = Namespace::new();
    node.ip("link add pod1 type veth peer name eth1
        link set pod1 up
        link set eth1 up
        addr add 10.1.0.1/32 dev pod1
        addr add fd00:1::1/64 dev pod1 nodad
        route add 10.1.0.7/32 dev pod1
        link add br0 type bridge
        link add pod2 master br0 type veth peer name eth2
        link set br0 up
        link set pod2 up
        link set eth2 up
        addr add 10.2.0.1/24 dev br0
        link add docker0 type bridge
        link set docker0 up
        addr add 172.17.0.1/16 dev docker0
        tuntap add mode tap name tap0
        link set tap0 up
        addr add 10.3.0.1/24 dev tap0");
    assert_local(&node, true, &["10.1.0.1:53", "[fd00:1::1]:53", "127.0.0.1:53", "[::1]:53"]);
    assert_local(&node, true, &["10.1.0.7:53", "[::ffff:10.1.0.7]:53", "[fd00:1::7]:53"]);
    assert_local(&node, true, &["10.2.0.7:53", "172.17.0.2:53", "10.3.0.7:53"]);
    assert_local(&node, false, &["10.1.0.8:53", "10.2.0.255:53", "0.0.0.0:53", "[::]:53"]);

    let scope = index(&node, "pod1");
    let link_local = format!("[fe80::7%{scope}]:53");
    assert_local(&node, true, &[&link_local]);
    assert_local(&node, false, &["[fe80::7]:53"]);
}

fn what_leaves_the_node_is_elsewhere() {
    let node = Namespace::new();
    node.ip("link add pod1 type veth peer name eth1
        link set pod1 up
        link set eth1 up
        addr add 10.1.0.1/24 dev pod1
        addr add fd00:1::1/64 dev pod1 nodad
        route add 10.9.0.0/16 via 10.1.0.2
        route add fd00:9::/64 via fd00:1::2
        route add 10.8.0.0/24 nexthop dev pod1 nexthop dev eth1
        route add unreachable 10.7.0.0/24
        route add blackhole 10.6.0.0/24
        link add tunnel type vxlan id 5 dstport 4789 dev pod1
        link set tunnel up
        addr add 10.2.0.1/24 dev tunnel
        link add lan link pod1 type macvlan
        link set lan up
        addr add 10.3.0.1/24 dev lan
        tuntap add mode tun name vpn
        link set vpn up
        addr add 10.4.0.1/24 dev vpn");
    assert_local(&node, true, &["10.1.0.7:53", "[fd00:1::7]:53", "10.4.0.1:53"]);
    assert_local(&node, false, &["10.9.0.7:53", "[fd00:9::7]:53", "10.8.0.7:53"]);
    assert_local(&node, false, &["10.7.0.7:53", "10.6.0.7:53", "198.51.100.7:53"]);
    assert_local(&node, false, &["10.2.0.7:53", "10.3.0.7:53", "10.4.0.7:53"]);
}

fn a_bridge_is_judged_by_its_ports() {
    let node = Namespace::new();
    node.ip("link add br0 type bridge
        link add pod1 master br0 type veth peer name eth1
        link add br1 type bridge
        link add tunnel master br1 type vxlan id 5 dstport 4789 dev lo
        link set br0 up
        link set pod1 up
        link set eth1 up
        addr add 10.1.0.1/24 dev br0");
    assert_local(&node, true, &["10.1.0.7:53"]);
    node.ip("link set tunnel master br0");
    assert_local(&node, false, &["10.1.0.7:53"]);
    node.ip("link set tunnel nomaster");
    assert_local(&node, true, &["10.1.0.7:53"]);
}

fn the_way_to_the_world_leads_out_even_if_it_is_a_veth() {
    let node = Namespace::new();
    node.ip("link add eth0 type veth peer name out0
        link set eth0 up
        link set out0 up
        addr add 172.18.0.2/16 dev eth0
        addr add fd00:18::2/64 dev eth0 nodad
        link add pod1 type veth peer name eth1
        link set pod1 up
        link set eth1 up
        addr add 10.1.0.1/24 dev pod1");
    let neighbours = ["172.18.0.3:53", "[fd00:18::3]:53"];
    assert_local(&node, true, &neighbours);
    for default in [
        "default via 172.18.0.1",
        "default via fd00:18::1",
        "default dev eth0",
        "default nexthop via 172.18.0.1 nexthop via 172.18.0.9",
        "2000::/3 via fd00:18::1",
    ] {
        node.ip(&format!("route add {default}"));
        assert_local(&node, false, &neighbours);
        assert_local(&node, false, &["198.51.100.7:53", "[2001:db8:1::7]:53"]);
        assert_local(&node, true, &["10.1.0.7:53", "172.18.0.2:53"]);
        node.ip(&format!("route del {default}"));
    }
    assert_local(&node, true, &neighbours);
}
