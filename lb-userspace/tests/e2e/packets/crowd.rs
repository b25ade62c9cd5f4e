//! Many connections at once, and more than there is room for.

use aya::maps::{HashMap, Map, MapData};
use lb_common::abi::{Flow, FlowKey};
use libtest_mimic::Trial;

use super::{LISTEN, NODE_PORT, node_port, node_ports};
use crate::devices::folders;
use crate::harness::status::Op;
use crate::harness::{Lan, cases, eventually};
use crate::probe::{Errno, Kind};

pub(crate) fn tests() -> Vec<Trial> {
    cases![ten_thousand_at_once_are_each_answered, a_full_table_refuses_new_ones_only]
}

fn lan(options: &[&str]) -> Lan {
    let mut lan = Lan::start_with(options);
    let near = lan.near_pod("near", "near", &LISTEN).manifest();
    let far = lan.far_pod("far", "far", &LISTEN).manifest();
    let here = node_port("near", "near", NODE_PORT, "");
    let elsewhere = node_port("far", "far", NODE_PORT + 1, "");
    lan.apply(&[&near, &far, &here, &elsewhere]);
    lan
}

fn ten_thousand_at_once_are_each_answered() {
    // More than the usual ones, as an operator of so busy an endpoint has them.
    let lan = lan(&["--snat-ports", "49152-65535"]);
    let [v4, v6] = node_ports();
    let sources: Vec<_> = (100..108).map(|n| format!("203.0.113.{n}")).collect();
    let script = sources.iter().map(|ip| format!("addr add {ip}/24 dev eth0\n"));
    lan.client.ip(&script.collect::<String>());
    let sources: Vec<_> = sources.iter().map(|ip| ip.parse().expect("an address")).collect();
    let probe = lan.probe();
    let mut elsewhere = v4;
    elsewhere.set_port(NODE_PORT + 1);
    probe.hold_from(Kind::Udp4, &sources, v4, 5_600);
    probe.hold_from(Kind::Udp4, &sources, elsewhere, 4_000);
    probe.hold(Kind::Tcp4, v4, 200);
    probe.hold(Kind::Tcp6, v6, 200);
    for _ in 0..2 {
        assert_eq!(probe.hold_ask(), Ok(()), "each gets its own answer");
    }
    let expected = 2 * 6_000 + 4 * 4_000;
    assert_eq!(entries(&lan), expected, "two entries of each flow, four if stood in for");
    assert_eq!(lan.agent.status().counter(Op::Ingress, "translated"), 10_000);
}

fn a_full_table_refuses_new_ones_only() {
    let lan = lan(&["--map-size", "FLOWS=1024", "--flow-closed", "1"]);
    let [v4, v6] = node_ports();
    let [leaving, staying, stranger] = std::array::from_fn(|_| lan.probe());
    // Two entries each.
    leaving.hold(Kind::Tcp4, v4, 412);
    staying.hold(Kind::Udp6, v6, 100);
    for probe in [&leaving, &staying] {
        assert_eq!(probe.hold_ask(), Ok(()), "there is room for all of them");
    }
    assert_eq!(entries(&lan), 1024);
    assert_eq!(lan.agent.status().counter(Op::Ingress, "flowsFull"), 0);
    assert_eq!(stranger.udp(v4), Err(Errno(libc::EAGAIN)), "one more");
    assert_eq!(lan.agent.status().counter(Op::Ingress, "flowsFull"), 1);
    for probe in [&leaving, &staying] {
        assert_eq!(probe.hold_ask(), Ok(()), "the others go on");
    }
    leaving.hold_end();
    // Whoever finds no room has the agent look for some.
    eventually("what was closed is collected", || {
        stranger.open(Kind::udp(v4)).send_to(v4, "?").expect("sent");
        match entries(&lan) {
            used if used < 512 => Ok(()),
            used => Err(format!("{used} entries")),
        }
    });
    stranger.udp(v4).expect("there is room again");
    assert_eq!(staying.hold_ask(), Ok(()), "those that stayed");
}

/// How many entries of `FLOWS` there are now, whenever the agent has looked.
#[track_caller]
fn entries(lan: &Lan) -> usize {
    let [layout] = &folders(&lan.agent, "maps-")[..] else { panic!("one layout") };
    let map = Map::HashMap(MapData::from_pin(layout.join("FLOWS")).expect("a map"));
    let map: HashMap<_, [u8; size_of::<FlowKey>()], [u8; size_of::<Flow>()]> =
        map.try_into().expect("a hash");
    map.keys().count()
}
