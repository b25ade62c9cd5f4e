//! Services and their endpoints are served as they come and go.

use libtest_mimic::Trial;
use serde_json::json;

use super::{assert_fails, assert_served, frontend};
use crate::apiserver::Resource;
use crate::apiserver::objects::{endpoint, patched, service, slice, slice_of};
use crate::harness::{Cluster, Listen, NODE, cases};
use crate::probe::Errno;

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_service_with_slices_is_served_until_it_is_deleted,
        both_families_are_served_by_slices_of_their_own,
        a_port_is_found_by_its_name_in_every_slice,
        an_endpoint_that_is_not_ready_is_not_served,
        a_service_of_another_proxy_is_left_alone,
        what_an_agent_missed_is_served_after_its_restart,
    ]
}

fn a_service_with_slices_is_served_until_it_is_deleted() {
    let mut cluster = Cluster::start();
    let a = cluster.stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    let b = cluster.stage.pod("pod-b", "web", &[Listen::Tcp(80)]);
    let probe = cluster.stage.probe();
    assert_fails(&probe, frontend(10), Errno::HOST_UNREACHABLE);
    cluster.api.set(service("web", &["10.96.0.10"]));
    assert_fails(&probe, frontend(10), Errno::REFUSED);
    cluster.api.set(slice_of("web", NODE, &[&a]));
    assert_served(&probe, frontend(10), &["pod-a"]);
    cluster.api.set(slice_of("web", NODE, &[&b]));
    cluster.converges("another endpoint");
    assert_served(&probe, frontend(10), &["pod-b"]);
    cluster.api.set(slice_of("web", NODE, &[]));
    assert_fails(&probe, frontend(10), Errno::REFUSED);
    cluster.api.delete(Resource::EndpointSlices, "default", "web-abcde");
    cluster.api.delete(Resource::Services, "default", "web");
    assert_fails(&probe, frontend(10), Errno::HOST_UNREACHABLE);
    cluster.converges("all is gone");
}

fn both_families_are_served_by_slices_of_their_own() {
    let mut cluster = Cluster::start();
    let pod = cluster.stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    let addresses = ["10.96.0.10", "fd00:10:96::10"];
    cluster.api.set_all([
        service("web", &addresses),
        slice("web", "four", &[endpoint(pod.v4, "pod-a", NODE)]),
        slice("web", "six", &[endpoint(pod.v6, "pod-a", NODE)]),
    ]);
    cluster.converges("both families");
    for address in addresses {
        let to = std::net::SocketAddr::new(address.parse().expect("an address"), 80);
        assert_served(&cluster.stage.probe(), to, &["pod-a"]);
    }
}

/// Pods may have different numbers for a named port; each number has slices of its own.
fn a_port_is_found_by_its_name_in_every_slice() {
    let mut cluster = Cluster::start();
    let pods = [80, 81].map(|port| {
        let name = format!("pod-{port}");
        (cluster.stage.pod(&name, "web", &[Listen::Tcp(port)]), port)
    });
    cluster.api.set(service("web", &["10.96.0.10"]));
    for (pod, port) in &pods {
        let slice = slice("web", &pod.name, &[endpoint(pod.v4, &pod.name, NODE)]);
        let ports = json!([{"name": "other", "port": 9, "protocol": "TCP"},
            {"name": "http", "port": port, "protocol": "TCP"}]);
        cluster.api.set(patched(slice, &json!({"ports": ports})));
    }
    cluster.converges("two slices");
    let tally = cluster.stage.probe().burst(crate::probe::Kind::Tcp4, frontend(10), 200);
    tally.assert_all_answered("200 visits");
    assert!(tally.by("pod-80") > 0 && tally.by("pod-81") > 0, "{tally:?}");
}

fn an_endpoint_that_is_not_ready_is_not_served() {
    let mut cluster = Cluster::start();
    let [a, b] = ["pod-a", "pod-b"].map(|name| cluster.stage.pod(name, "web", &[Listen::Tcp(80)]));
    let gone = patched(
        endpoint(b.v4, "pod-b", NODE),
        &json!({"conditions": {"ready": false, "serving": true, "terminating": true}}),
    );
    let unknown = patched(
        endpoint(a.v4, "pod-a", NODE),
        &json!({"conditions": {"ready": null, "serving": null, "terminating": null}}),
    );
    cluster.api.set_all([service("web", &["10.96.0.10"]), slice("web", "x", &[unknown, gone])]);
    cluster.converges("unknown is ready");
    assert_served(&cluster.stage.probe(), frontend(10), &["pod-a"]);
}

fn a_service_of_another_proxy_is_left_alone() {
    let mut cluster = Cluster::start();
    let pod = cluster.stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    let label = json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "x"}}});
    cluster.api.set_all([
        patched(service("web", &["10.96.0.10"]), &label),
        patched(slice_of("web", NODE, &[&pod]), &label),
        patched(
            slice_of("none", NODE, &[&pod]),
            &json!({"metadata": {"labels": {
            "service.kubernetes.io/headless": ""}}}),
        ),
        service("none", &[]),
    ]);
    cluster.converges("its address is not refused");
    assert_fails(&cluster.stage.probe(), frontend(10), Errno::NET_UNREACHABLE);
    let unlabelled = json!({"metadata": {"labels": {
        "service.kubernetes.io/service-proxy-name": null}}});
    let object = |resource, name| cluster.api.get(resource, "default", name).expect("it is there");
    cluster.api.set(patched(object(Resource::Services, "web"), &unlabelled));
    cluster.api.set(patched(object(Resource::EndpointSlices, "web-abcde"), &unlabelled));
    cluster.converges("it is ours now");
    assert_served(&cluster.stage.probe(), frontend(10), &["pod-a"]);
}

fn what_an_agent_missed_is_served_after_its_restart() {
    let mut cluster = Cluster::start();
    let [a, b] = ["pod-a", "pod-b"].map(|name| cluster.stage.pod(name, "web", &[Listen::Tcp(80)]));
    let web = |name: &str, number: u8| service(name, &[&format!("10.96.0.{number}")]);
    cluster.api.set_all([web("web", 10), slice_of("web", NODE, &[&a]), web("old", 11)]);
    cluster.converges("before");
    cluster.stage.agent.kill_nine();
    let probe = cluster.stage.probe();
    assert_served(&probe, frontend(10), &["pod-a"]);
    cluster.api.delete(Resource::Services, "default", "old");
    cluster.api.set_all([slice_of("web", NODE, &[&b]), web("new", 12)]);
    cluster.stage.agent.start();
    cluster.converges("after");
    assert_served(&probe, frontend(10), &["pod-b"]);
    assert_fails(&probe, frontend(11), Errno::HOST_UNREACHABLE);
}
