//! Ranges of ClusterIPs: what is unallocated there is refused, as far as the cluster says what they are.

use libtest_mimic::Trial;

use super::{assert_fails, assert_served, frontend};
use crate::apiserver::objects::{service, service_cidr, slice_of};
use crate::apiserver::{Resource, Verb};
use crate::harness::{Cluster, Listen, NODE, cases};
use crate::probe::Errno;

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        ranges_come_and_go_with_their_objects,
        without_ranges_unallocated_addresses_pass,
        ranges_that_are_given_are_not_asked_for,
        ranges_are_known_after_a_restart_without_the_server,
    ]
}

fn ranges_come_and_go_with_their_objects() {
    let cluster = Cluster::start();
    let probe = cluster.stage.probe();
    let elsewhere = ([10, 40, 0, 7], 80).into();
    assert_fails(&probe, frontend(77), Errno::HOST_UNREACHABLE);
    // Nothing leads there.
    assert_fails(&probe, elsewhere, Errno::NET_UNREACHABLE);
    cluster.api.set(service_cidr("more", &["10.40.0.0/24"]));
    assert_fails(&probe, elsewhere, Errno::HOST_UNREACHABLE);
    cluster.converges("two objects");
    cluster.api.set(service_cidr("more", &["10.40.0.0/30"]));
    assert_fails(&probe, elsewhere, Errno::NET_UNREACHABLE);
    cluster.api.delete(Resource::ServiceCidrs, "", "more");
    cluster.converges("one object");
    assert_fails(&probe, frontend(77), Errno::HOST_UNREACHABLE);
}

fn without_ranges_unallocated_addresses_pass() {
    let mut cluster = Cluster::without_agent();
    cluster.api.behave(|it| it.no_service_cidrs = true);
    cluster.stage.agent.start();
    let pod = cluster.stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    cluster.api.set_all([service("web", &["10.96.0.10"]), slice_of("web", NODE, &[&pod])]);
    let probe = cluster.stage.probe();
    assert_served(&probe, frontend(10), &["pod-a"]);
    assert_fails(&probe, frontend(77), Errno::NET_UNREACHABLE);
    // So does another port of a Service's own address: only ranges tell whose it would be.
    assert_fails(&probe, ([10, 96, 0, 10], 81).into(), Errno::NET_UNREACHABLE);
}

fn ranges_that_are_given_are_not_asked_for() {
    let mut cluster = Cluster::without_agent();
    cluster.stage.agent.set_options(&["--service-cidr", "10.96.0.0/16"]);
    cluster.stage.agent.start();
    let probe = cluster.stage.probe();
    assert_fails(&probe, frontend(77), Errno::HOST_UNREACHABLE);
    assert_fails(&probe, ([10, 97, 0, 7], 80).into(), Errno::NET_UNREACHABLE);
    for verb in [Verb::List, Verb::Watch] {
        let asked = cluster.api.requests_to(verb, Resource::ServiceCidrs);
        assert!(asked.is_empty(), "{asked:?}");
    }
}

fn ranges_are_known_after_a_restart_without_the_server() {
    let mut cluster = Cluster::start();
    let probe = cluster.stage.probe();
    assert_fails(&probe, frontend(77), Errno::HOST_UNREACHABLE);
    cluster.stage.agent.kill_nine();
    cluster.api.leave();
    cluster.stage.agent.start();
    assert_fails(&probe, frontend(77), Errno::HOST_UNREACHABLE);
}
