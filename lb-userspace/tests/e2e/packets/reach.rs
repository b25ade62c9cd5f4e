//! Every way in, to pods here and elsewhere.

use libtest_mimic::Trial;

use super::{LISTEN, assert_itself, assert_stood_in, visits, ways, web};
use crate::harness::{Lan, Pod, cases};
use crate::probe::Visit;

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_pod_here_sees_its_client_by_every_way_in,
        a_pod_elsewhere_sees_the_node_by_every_way_in,
    ]
}

fn a_pod_here_sees_its_client_by_every_way_in() {
    let mut lan = Lan::start();
    let pod = lan.near_pod("near", "web", &LISTEN);
    reach(&lan, &pod, assert_itself);
}

fn a_pod_elsewhere_sees_the_node_by_every_way_in() {
    let mut lan = Lan::start();
    let pod = lan.far_pod("far", "web", &LISTEN);
    reach(&lan, &pod, assert_stood_in);
}

#[track_caller]
fn reach(lan: &Lan, pod: &Pod, guest: impl Fn(std::net::SocketAddr, std::net::SocketAddr, &str)) {
    lan.apply(&[&pod.manifest(), &web("web", "web", "")]);
    let probe = lan.probe();
    let ways = ways(lan, "web");
    assert_eq!(ways.len(), 8, "four ways in each family: {ways:?}");
    for to in ways {
        let expected = Ok(Visit { pod: pod.name.clone(), peer: to });
        for (how, visit) in visits(&probe, to) {
            assert_eq!(visit, expected, "{how} to {to}");
            guest(lan.guest_of(&pod.name), to, how);
        }
    }
}
