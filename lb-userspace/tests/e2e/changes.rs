//! Services applied, changed and deleted.

use std::net::SocketAddr;

use libtest_mimic::Trial;

use crate::harness::{Listen, Stage, cases, service};
use crate::probe::{Errno, Kind, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_change_is_in_force_when_the_command_returns,
        applying_the_same_again_changes_nothing,
        a_cluster_ip_asked_for_is_given_and_reached,
        a_cluster_ip_is_immutable,
        a_changed_port_replaces_the_old_one,
        ports_swapped_between_two_services_lead_to_the_other,
        an_address_passes_from_a_deleted_service_to_another,
        a_changed_target_port_keeps_the_vip_and_leads_to_the_new_one,
        headless_and_external_name_services_own_no_address,
        deleting_one_of_two_services_leaves_the_other,
        two_namespaces_may_have_services_of_one_name,
    ]
}

const WEB: &str = "selector: {app: web}, ports: [{port: 80}]";

/// A stage with the pod `pod-a` of the app `web`, listening on 80 and 8080.
fn stage_with_pod() -> Stage {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80), Listen::Tcp(8080)]);
    stage.apply(&[&pod.manifest()]);
    stage
}

fn seen(pod: &str, peer: SocketAddr) -> Result<Visit, Errno> {
    Ok(Visit { pod: pod.to_owned(), peer })
}

/// The other tests rely on this: none waits between a command and the connection that shows it.
fn a_change_is_in_force_when_the_command_returns() {
    let stage = stage_with_pod();
    let probe = stage.probe();
    for round in 0..20 {
        let name = format!("web-{round}");
        stage.apply(&[&service(&name, WEB)]);
        let web = stage.frontend(&name, 80);
        assert_eq!(probe.tcp(web), seen("pod-a", web), "applied, round {round}");
        stage.agent.delete("svc", &name);
        assert_refused("deleted", probe.tcp(web), Errno::HOST_UNREACHABLE);
    }
}

fn applying_the_same_again_changes_nothing() {
    let stage = stage_with_pod();
    let web = service("web", WEB);
    stage.agent.apply(&[&web]).says("service/web created");
    let first = stage.agent.get("svc", "web");
    let load = stage.probe();
    load.load_start(Kind::Tcp4, stage.frontend("web", 80));
    for _ in 0..5 {
        stage.agent.apply(&[&web]).says("service/web unchanged");
    }
    let tallies = load.load_stop();
    tallies[0].assert_all_answered("connections while the same was applied again");
    assert_eq!(stage.agent.get("svc", "web"), first, "the object, after it was applied again");
}

fn a_cluster_ip_asked_for_is_given_and_reached() {
    let stage = stage_with_pod();
    let wanted: SocketAddr = "10.96.0.200:80".parse().expect("an address");
    stage.apply(&[&service("web", &format!("clusterIP: {}, {WEB}", wanted.ip()))]);
    assert_eq!(stage.frontend("web", 80), wanted);
    assert_eq!(stage.probe().tcp(wanted), seen("pod-a", wanted));
}

fn a_cluster_ip_is_immutable() {
    let stage = stage_with_pod();
    stage.apply(&[&service("web", WEB)]);
    let web = stage.frontend("web", 80);
    let moved = service("web", &format!("clusterIP: 10.96.0.201, {WEB}"));
    let output = stage.agent.try_apply(&[&moved]).refused();
    output.complains(&["Service \"web\" is invalid: spec.clusterIP", "10.96.0.201"]);
    assert_eq!(stage.frontend("web", 80), web, "the address, after the refused change");
    assert_eq!(stage.probe().tcp(web), seen("pod-a", web));
}

fn a_changed_port_replaces_the_old_one() {
    let stage = stage_with_pod();
    stage.apply(&[&service("web", WEB)]);
    let old = stage.frontend("web", 80);
    let changed = service("web", "selector: {app: web}, ports: [{port: 81, targetPort: 80}]");
    stage.agent.apply(&[&changed]).says("service/web configured");
    let new = stage.frontend("web", 81);
    assert_eq!(new.ip(), old.ip(), "the address stays");
    let probe = stage.probe();
    assert_eq!(probe.tcp(new), seen("pod-a", new), "the new port");
    assert_refused("the old port", probe.tcp(old), Errno::REFUSED);
}

fn ports_swapped_between_two_services_lead_to_the_other() {
    let mut stage = Stage::start();
    let pods = ["one", "two"]
        .map(|name| stage.pod(&format!("pod-{name}"), name, &[Listen::Tcp(80)]).manifest());
    let with = |name, port| {
        let ports = format!("ports: [{{port: {port}, targetPort: 80}}]");
        service(name, &format!("selector: {{app: {name}}}, {ports}"))
    };
    stage.apply(&[&pods[0], &pods[1], &with("one", 1000), &with("two", 2000)]);
    let (one, two) = (stage.vip("one"), stage.vip("two"));
    stage.apply(&[&with("one", 2000), &with("two", 1000)]);
    let probe = stage.probe();
    for (vip, port, pod) in [(one, 2000, "pod-one"), (two, 1000, "pod-two")] {
        let to = SocketAddr::new(vip, port);
        assert_eq!(probe.tcp(to), seen(pod, to), "{pod} after the swap");
    }
    for (vip, port) in [(one, 1000), (two, 2000)] {
        assert_refused("the former port", probe.tcp((vip, port).into()), Errno::REFUSED);
    }
}

fn an_address_passes_from_a_deleted_service_to_another() {
    let mut stage = Stage::start();
    let pods = ["one", "two"]
        .map(|name| stage.pod(&format!("pod-{name}"), name, &[Listen::Tcp(80)]).manifest());
    let with = |name| {
        let spec =
            format!("clusterIP: 10.96.0.202, selector: {{app: {name}}}, ports: [{{port: 80}}]");
        service(name, &spec)
    };
    stage.apply(&[&pods[0], &pods[1], &with("one")]);
    let vip = stage.frontend("one", 80);
    let probe = stage.probe();
    assert_eq!(probe.tcp(vip), seen("pod-one", vip));
    stage.agent.try_apply(&[&with("two")]).refused();
    for (old, new) in [("one", "two"), ("two", "one")] {
        stage.agent.delete("svc", old);
        stage.apply(&[&with(new)]);
        assert_eq!(probe.tcp(vip), seen(&format!("pod-{new}"), vip), "from {old} to {new}");
    }
}

fn a_changed_target_port_keeps_the_vip_and_leads_to_the_new_one() {
    let mut stage = Stage::start();
    // The same pods, seen through another target port, are other endpoints.
    let a = stage.pod("pod-a", "web", &[Listen::Tcp(8080)]);
    stage.apply(&[&a.manifest(), &service("web", WEB)]);
    let web = stage.frontend("web", 80);
    let probe = stage.probe();
    assert_refused("nobody listens on the target port", probe.tcp(web), Errno::REFUSED);
    let spec = "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]";
    stage.apply(&[&service("web", spec)]);
    assert_eq!(probe.tcp(web), seen("pod-a", web));
}

fn headless_and_external_name_services_own_no_address() {
    let stage = stage_with_pod();
    let before = stage.agent.status().used("FRONTENDS");
    stage.apply(&[
        &service("headless", &format!("clusterIP: None, {WEB}")),
        &service("external", "type: ExternalName, externalName: db.example.com"),
    ]);
    assert_eq!(stage.agent.get("svc", "headless")["spec"]["clusterIP"], "None");
    assert!(stage.agent.get("svc", "external")["spec"]["clusterIP"].is_null());
    assert_eq!(stage.agent.status().used("FRONTENDS"), before, "neither owns a frontend");
}

fn deleting_one_of_two_services_leaves_the_other() {
    let stage = stage_with_pod();
    stage.apply(&[&service("one", WEB), &service("two", WEB)]);
    let (one, two) = (stage.frontend("one", 80), stage.frontend("two", 80));
    let probe = stage.probe();
    let held = probe.open(Kind::Tcp4);
    held.connect(two).expect("connect to the Service that stays");
    stage.agent.delete("svc", "one");
    assert_refused("the deleted Service", probe.tcp(one), Errno::HOST_UNREACHABLE);
    assert_eq!(probe.tcp(two), seen("pod-a", two), "the Service that stays");
    assert_eq!(held.peer(), Ok(two), "its established connection");
}

fn two_namespaces_may_have_services_of_one_name() {
    let mut stage = Stage::start();
    let here = stage.pod("pod-here", "web", &[Listen::Tcp(80)]);
    let there = stage.pod("pod-there", "web", &[Listen::Tcp(80)]);
    let into = |manifest: String| manifest.replace("metadata: {", "metadata: {namespace: other, ");
    let web = service("web", WEB);
    stage.apply(&[&here.manifest(), &into(there.manifest()), &web, &into(web.clone())]);
    let output = stage.agent.lb(&["get", "svc", "web", "-n", "other", "-o", "json"]).ok();
    let object: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    let other = object["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse().ok());
    let other = SocketAddr::new(other.expect("a ClusterIP"), 80);
    let web = stage.frontend("web", 80);
    let probe = stage.probe();
    assert_eq!(probe.burst(Kind::Tcp4, web, 30).by("pod-here"), 30, "default/web: {web}");
    assert_eq!(probe.burst(Kind::Tcp4, other, 30).by("pod-there"), 30, "other/web: {other}");
}
