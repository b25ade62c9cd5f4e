//! Objects that nobody should write, and somebody does: the others are served.

use std::net::Ipv4Addr;

use libtest_mimic::Trial;
use serde_json::json;

use super::{assert_served, frontend};
use crate::apiserver::Resource;
use crate::apiserver::objects::{endpoint, patched, service, slice, slice_of};
use crate::harness::{Cluster, Listen, NODE, Pod, cases};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_slice_without_its_service_waits_for_it,
        an_endpoint_in_two_slices_is_served_once,
        thousands_of_endpoints_in_forty_slices_are_served,
        addresses_of_the_wrong_family_are_not_served,
        slices_without_ports_have_no_endpoints,
        endpoints_without_a_node_are_served,
        slices_without_a_service_name_are_nobodys,
        a_service_that_is_renumbered_moves,
    ]
}

/// A cluster that serves `good` at 10.96.0.10, and its pod.
fn cluster() -> (Cluster, Pod) {
    let mut cluster = Cluster::start();
    let pod = cluster.stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    cluster.api.set_all([service("good", &["10.96.0.10"]), slice_of("good", NODE, &[&pod])]);
    cluster.converges("what is good");
    (cluster, pod)
}

/// The good Service is served, and whatever else the model says.
#[track_caller]
fn assert_others_served(cluster: &Cluster, what: &str) {
    cluster.converges(what);
    assert_served(&cluster.stage.probe(), frontend(10), &["pod-a"]);
}

fn a_slice_without_its_service_waits_for_it() {
    let (cluster, pod) = cluster();
    cluster.api.set(slice_of("late", NODE, &[&pod]));
    assert_others_served(&cluster, "a slice of nobody");
    cluster.api.set(service("late", &["10.96.0.11"]));
    assert_others_served(&cluster, "the Service has come");
    assert_served(&cluster.stage.probe(), frontend(11), &["pod-a"]);
}

fn an_endpoint_in_two_slices_is_served_once() {
    let (cluster, pod) = cluster();
    let end = || endpoint(pod.v4, "pod-a", NODE);
    cluster.api.set_all([
        service("twice", &["10.96.0.11"]),
        slice("twice", "a", &[end(), end()]),
        slice("twice", "b", &[end()]),
    ]);
    assert_others_served(&cluster, "twice in one slice, and in another");
    // Endpoints move from slice to slice; the one that remains goes on.
    cluster.api.delete(Resource::EndpointSlices, "default", "twice-a");
    assert_others_served(&cluster, "one of the slices is gone");
    assert_served(&cluster.stage.probe(), frontend(11), &["pod-a"]);
}

fn thousands_of_endpoints_in_forty_slices_are_served() {
    let (cluster, _) = cluster();
    cluster.api.set(service("many", &["10.96.0.11"]));
    cluster.api.set_all((0..40_u8).map(|n| {
        let address = |end: u8| Ipv4Addr::new(10, 200, n, end);
        let all: Vec<_> = (0..90).map(|end| endpoint(address(end), "pod", "other")).collect();
        slice("many", &format!("{n:02}"), &all)
    }));
    assert_others_served(&cluster, "3,600 endpoints");
    cluster.api.delete(Resource::EndpointSlices, "default", "many-07");
    assert_others_served(&cluster, "3,510 endpoints");
}

fn addresses_of_the_wrong_family_are_not_served() {
    let (cluster, pod) = cluster();
    let mixed =
        slice("mixed", "a", &[endpoint(pod.v4, "pod-a", NODE), endpoint(pod.v6, "x", NODE)]);
    let lying = slice("lying", "a", &[endpoint(pod.v4, "pod-a", NODE)]);
    let names = slice("names", "a", &[endpoint(pod.v4, "pod-a", NODE)]);
    cluster.api.set_all([
        service("mixed", &["10.96.0.11"]),
        service("lying", &["10.96.0.12"]),
        service("names", &["10.96.0.13"]),
        mixed,
        patched(lying, &json!({"addressType": "IPv6"})),
        patched(names, &json!({"addressType": "FQDN"})),
    ]);
    assert_others_served(&cluster, "wrong families");
    assert_served(&cluster.stage.probe(), frontend(11), &["pod-a"]);
}

fn slices_without_ports_have_no_endpoints() {
    let (cluster, pod) = cluster();
    let its = |name: &str| slice_of(name, NODE, &[&pod]);
    let unnumbered = json!({"ports": [{"name": "http", "port": null, "protocol": "TCP"}]});
    let mut portless = its("null");
    portless["ports"] = json!(null);
    cluster.api.set_all([
        service("null", &["10.96.0.11"]),
        service("empty", &["10.96.0.12"]),
        service("unnumbered", &["10.96.0.13"]),
        portless,
        patched(its("empty"), &json!({"ports": []})),
        patched(its("unnumbered"), &unnumbered),
        slice("good", "nothing", &[]),
    ]);
    assert_others_served(&cluster, "no ports, no endpoints");
}

fn endpoints_without_a_node_are_served() {
    let (cluster, pod) = cluster();
    let absent = patched(endpoint(pod.v4, "pod-a", NODE), &json!({"nodeName": null}));
    let empty = endpoint(pod.v4, "pod-a", "");
    cluster.api.set_all([
        service("absent", &["10.96.0.11"]),
        service("empty", &["10.96.0.12"]),
        slice("absent", "a", &[absent]),
        slice("empty", "a", &[empty]),
    ]);
    let probe = cluster.stage.probe();
    assert_served(&probe, frontend(11), &["pod-a"]);
    assert_served(&probe, frontend(12), &["pod-a"]);
}

fn slices_without_a_service_name_are_nobodys() {
    let (cluster, pod) = cluster();
    let name = |name| json!({"metadata": {"labels": {"kubernetes.io/service-name": name}}});
    let its = |suffix| slice("other", suffix, &[endpoint(pod.v4, "pod-a", NODE)]);
    cluster.api.set_all([
        service("other", &["10.96.0.11"]),
        patched(its("a"), &name(json!(null))),
        patched(its("b"), &name(json!(""))),
    ]);
    assert_others_served(&cluster, "slices of nobody");
    // A slice may be given to another Service.
    cluster.api.set(patched(its("a"), &name(json!("other"))));
    assert_others_served(&cluster, "a slice of somebody");
    cluster.api.set(patched(its("a"), &name(json!("good"))));
    assert_others_served(&cluster, "a slice of somebody else");
}

/// By deleting and creating, as a ClusterIP cannot be changed: the agent may see only the end.
fn a_service_that_is_renumbered_moves() {
    let (cluster, pod) = cluster();
    cluster.api.set_all([service("moving", &["10.96.0.11"]), slice_of("moving", NODE, &[&pod])]);
    assert_served(&cluster.stage.probe(), frontend(11), &["pod-a"]);
    cluster.api.set(service("moving", &["10.96.0.12"]));
    assert_others_served(&cluster, "another address");
    // Somebody else gets the address.
    cluster.api.set_all([service("heir", &["10.96.0.11"]), slice_of("heir", NODE, &[&pod])]);
    assert_others_served(&cluster, "an heir");
    assert_served(&cluster.stage.probe(), frontend(11), &["pod-a"]);
}
