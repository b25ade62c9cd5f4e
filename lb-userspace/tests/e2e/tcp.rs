//! TCP through a ClusterIP.

use libtest_mimic::Trial;

use crate::harness::cgroup::Cgroup;
use crate::harness::statistics::assert_even_thirds;
use crate::harness::{Listen, Pod, Stage, cases, sandbox, service};
use crate::probe::{Errno, Kind, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_connection_reaches_the_pod_and_getpeername_shows_the_vip,
        the_bytes_of_a_connection_arrive_both_ways,
        the_target_port_may_differ_from_the_port,
        a_named_target_port_is_looked_up_per_pod,
        every_port_of_a_service_leads_to_its_own_target,
        connections_spread_evenly_over_the_endpoints,
        two_vips_of_one_backend_each_show_their_own,
        tcp_and_udp_on_one_port_of_one_service_lead_to_their_own_targets,
        tcp_and_udp_on_one_backend_port_keep_their_own_vips,
        a_process_in_another_network_namespace_is_served,
        a_process_outside_the_agents_cgroup_is_left_alone,
    ]
}

const WEB: &str = "selector: {app: web}, ports: [{port: 80}]";

fn a_connection_reaches_the_pod_and_getpeername_shows_the_vip() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    let web = stage.frontend("web", 80);
    assert_eq!(stage.probe().tcp(web), Ok(Visit { pod: "pod-a".to_owned(), peer: web }));
}

fn the_bytes_of_a_connection_arrive_both_ways() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    let probe = stage.probe();
    let socket = probe.open(Kind::Tcp4);
    socket.connect(stage.frontend("web", 80)).expect("connect to the ClusterIP");
    assert_eq!(socket.greeting().as_deref(), Ok("pod-a"));
    let payload = "payload ".repeat(400);
    assert_eq!(socket.echo(&payload), Ok(payload));
}

fn the_target_port_may_differ_from_the_port() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(8080)]);
    let spec = "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]";
    stage.apply(&[&pod.manifest(), &service("web", spec)]);
    let web = stage.frontend("web", 80);
    assert_eq!(stage.probe().tcp(web), Ok(Visit { pod: "pod-a".to_owned(), peer: web }));
}

fn a_named_target_port_is_looked_up_per_pod() {
    let mut stage = Stage::start();
    let mut old = stage.pod("pod-old", "web", &[Listen::Tcp(8080)]);
    let mut new = stage.pod("pod-new", "web", &[Listen::Tcp(9090)]);
    let nameless = stage.pod("pod-nameless", "web", &[Listen::Tcp(80)]);
    old.named_ports = vec![("http", 8080)];
    new.named_ports = vec![("http", 9090)];
    let spec = "selector: {app: web}, ports: [{port: 80, targetPort: http}]";
    let pods = [&old, &new, &nameless].map(Pod::manifest);
    stage.apply(&[&pods[0], &pods[1], &pods[2], &service("web", spec)]);

    let tally = stage.probe().burst(Kind::Tcp4, stage.frontend("web", 80), 200);
    tally.assert_all_answered("a named target port that two of three pods have");
    assert!(tally.by("pod-old") > 0 && tally.by("pod-new") > 0, "both ports are used: {tally:?}");
    assert_eq!(tally.by("pod-nameless"), 0, "a pod without that port is no endpoint: {tally:?}");
}

fn every_port_of_a_service_leads_to_its_own_target() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(8080), Listen::Udp(9100)]);
    let spec = "selector: {app: web}, ports: [
        {name: http, port: 80, targetPort: 8080},
        {name: https, port: 443, targetPort: 8080},
        {name: metrics, port: 9100, protocol: UDP}]";
    stage.apply(&[&pod.manifest(), &service("web", spec)]);
    let probe = stage.probe();
    for port in [80, 443] {
        let web = stage.frontend("web", port);
        assert_eq!(probe.tcp(web), Ok(Visit { pod: "pod-a".to_owned(), peer: web }));
    }
    let metrics = stage.frontend("web", 9100);
    assert_eq!(probe.udp(metrics), Ok(Visit { pod: "pod-a".to_owned(), peer: metrics }));
}

fn connections_spread_evenly_over_the_endpoints() {
    let mut stage = Stage::start();
    let pods = ["pod-a", "pod-b", "pod-c"].map(|name| stage.pod(name, "web", &[Listen::Tcp(80)]));
    let pods = pods.map(|pod| pod.manifest());
    stage.apply(&[&pods[0], &pods[1], &pods[2], &service("web", WEB)]);
    let tally = stage.probe().burst(Kind::Tcp4, stage.frontend("web", 80), 3000);
    tally.assert_all_answered("3,000 connections");
    let counts = ["pod-a", "pod-b", "pod-c"].map(|pod| tally.by(pod));
    assert_even_thirds("TCP connections to three pods", counts);
}

fn two_vips_of_one_backend_each_show_their_own() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.apply(&[&pod.manifest(), &service("one", WEB), &service("two", WEB)]);
    let (one, two) = (stage.frontend("one", 80), stage.frontend("two", 80));
    let probe = stage.probe();
    let (first, second) = (probe.open(Kind::Tcp4), probe.open(Kind::Tcp4));
    first.connect(one).expect("connect to one");
    second.connect(two).expect("connect to two");
    assert_eq!(first.peer(), Ok(one), "the first Service's connection");
    assert_eq!(second.peer(), Ok(two), "the second Service's connection");
    assert_eq!(first.peer(), Ok(one), "the first again, after the second was made");
    assert_eq!((first.greeting(), second.greeting()), (Ok("pod-a".into()), Ok("pod-a".into())));
}

fn tcp_and_udp_on_one_port_of_one_service_lead_to_their_own_targets() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "dns", &[Listen::Tcp(5301), Listen::Udp(5302)]);
    let spec = "selector: {app: dns}, ports: [
        {name: tcp, port: 53, protocol: TCP, targetPort: 5301},
        {name: udp, port: 53, protocol: UDP, targetPort: 5302}]";
    stage.apply(&[&pod.manifest(), &service("dns", spec)]);
    let dns = stage.frontend("dns", 53);
    let probe = stage.probe();
    let answer = Ok(Visit { pod: "pod-a".to_owned(), peer: dns });
    assert_eq!(probe.tcp(dns), answer, "53/TCP");
    assert_eq!(probe.udp(dns), answer, "53/UDP, connected");
    assert_eq!(probe.udp_unconnected(dns), answer, "53/UDP, unconnected");
}

fn tcp_and_udp_on_one_backend_port_keep_their_own_vips() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "dns", &[Listen::Tcp(53), Listen::Udp(53)]);
    let over =
        |protocol| format!("selector: {{app: dns}}, ports: [{{port: 53, protocol: {protocol}}}]");
    let services = [service("tcp", &over("TCP")), service("udp", &over("UDP"))];
    stage.apply(&[&pod.manifest(), &services[0], &services[1]]);
    let (tcp, udp) = (stage.frontend("tcp", 53), stage.frontend("udp", 53));
    let probe = stage.probe();
    for _ in 0..3 {
        assert_eq!(probe.tcp(tcp), Ok(Visit { pod: "pod-a".to_owned(), peer: tcp }));
        assert_eq!(probe.udp(udp), Ok(Visit { pod: "pod-a".to_owned(), peer: udp }));
    }
    assert_refused("53/UDP of the TCP Service", probe.udp(tcp), Errno::REFUSED);
    assert_refused("53/TCP of the UDP Service", probe.tcp(udp), Errno::REFUSED);
}

fn a_process_in_another_network_namespace_is_served() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    let web = stage.frontend("web", 80);
    let probe = stage.probe_among_pods();
    assert_eq!(probe.tcp(web), Ok(Visit { pod: "pod-a".to_owned(), peer: web }));
}

fn a_process_outside_the_agents_cgroup_is_left_alone() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    let web = stage.frontend("web", 80);
    let sandbox = sandbox::get();
    let elsewhere = Cgroup::new(&sandbox.cgroup_root, sandbox.next_number());
    let probe = stage.probe_in(&elsewhere.path);
    assert_refused("a ClusterIP, from outside", probe.tcp(web), Errno::NET_UNREACHABLE);
    let inside = stage.cgroup.child("inside");
    let probe = stage.probe_in(&inside.path);
    assert_eq!(probe.tcp(web), Ok(Visit { pod: "pod-a".to_owned(), peer: web }));
}
