//! External IPs, addresses of load balancers, and Services that are left to others.

use std::net::{IpAddr, SocketAddr};

use libtest_mimic::Trial;

use crate::harness::{Listen, Stage, cases, service};
use crate::probe::{Errno, Probe, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        external_ips_are_served_on_the_services_ports_only,
        an_external_ip_of_this_node_leaves_its_other_ports_alone,
        addresses_of_load_balancers_are_served_unless_it_is_a_proxy,
        of_two_services_with_one_external_ip_the_first_has_it_until_it_goes,
        a_cluster_ip_is_the_services_that_it_was_given_to,
        a_service_of_another_proxy_is_left_alone,
        a_service_of_our_name_is_served,
        a_change_of_type_brings_and_takes_frontends,
        a_service_does_not_become_headless,
    ]
}

const WEB: &str = "selector: {app: web}, ports: [{port: 80}]";
const EXTERNAL: &str = "198.51.100.7";

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}

/// A stage with `pod-a` of the app `web`.
fn stage() -> Stage {
    stage_with(&[])
}

/// The agent has these options.
fn stage_with(options: &[&str]) -> Stage {
    let mut stage = Stage::without_agent();
    stage.agent.set_options(options);
    stage.agent.start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80), Listen::Udp(80)]);
    stage.apply(&[&pod.manifest()]);
    stage
}

#[track_caller]
fn assert_reaches(probe: &Probe, to: SocketAddr, pod: &str) {
    assert_eq!(probe.tcp(to), Ok(Visit { pod: pod.to_owned(), peer: to }), "{to}");
}

/// No route leads there: the connect was not translated.
#[track_caller]
fn assert_untouched(probe: &Probe, to: SocketAddr) {
    assert_refused(&format!("{to}"), probe.tcp(to), Errno::NET_UNREACHABLE);
}

fn external_ips_are_served_on_the_services_ports_only() {
    let stage = stage();
    let v6 = "2001:db8::7";
    let both = format!(
        "ipFamilyPolicy: RequireDualStack, externalIPs: [{EXTERNAL}, \"{v6}\"],
         selector: {{app: web}}, ports: [{{name: a, port: 80}}, {{name: b, port: 80, protocol: UDP}}]"
    );
    stage.apply(&[&service("web", &both)]);
    for probe in [stage.probe(), stage.probe_among_pods()] {
        for address in [EXTERNAL, v6] {
            let to = at(address, 80);
            assert_reaches(&probe, to, "pod-a");
            let seen = Ok(Visit { pod: "pod-a".to_owned(), peer: to });
            assert_eq!(probe.udp_unconnected(to), seen, "UDP to {to}");
            assert_untouched(&probe, at(address, 81));
        }
    }
    let none = both.replace(&format!("externalIPs: [{EXTERNAL}, \"{v6}\"],"), "");
    stage.apply(&[&service("web", &none)]);
    assert_untouched(&stage.probe(), at(EXTERNAL, 80));
}

fn an_external_ip_of_this_node_leaves_its_other_ports_alone() {
    let stage = stage();
    let (own, ssh) = (at("10.244.0.1", 80), at("10.244.0.1", 22));
    stage.apply(&[&service("web", &format!("externalIPs: [{}], {WEB}", own.ip()))]);
    let _server = stage.server_on_node("sshd", ssh.ip(), Listen::Tcp(22));
    for probe in [stage.probe(), stage.probe_among_pods()] {
        assert_reaches(&probe, own, "pod-a");
        assert_reaches(&probe, ssh, "sshd");
    }
}

fn addresses_of_load_balancers_are_served_unless_it_is_a_proxy() {
    let stage = stage();
    let status = "status: {loadBalancer: {ingress: [{ip: 198.51.100.1},
        {ip: 198.51.100.2, ipMode: VIP}, {ip: 198.51.100.3, ipMode: Proxy}]}}\n";
    let balancer = service("web", &format!("type: LoadBalancer, {WEB}")) + status;
    stage.apply(&[&balancer]);
    let probe = stage.probe();
    assert_reaches(&probe, at("198.51.100.1", 80), "pod-a");
    assert_reaches(&probe, at("198.51.100.2", 80), "pod-a");
    assert_untouched(&probe, at("198.51.100.3", 80));
    let number = stage.agent.get("svc", "web")["spec"]["ports"][0]["nodePort"].as_u64();
    let number = number.and_then(|number| u16::try_from(number).ok()).expect("a NodePort");
    assert_reaches(&probe, at("10.244.0.1", number), "pod-a");
    let table = stage.agent.lb(&["get", "svc", "web"]).ok();
    let columns = ["LoadBalancer", "198.51.100.1,...", &format!("80:{number}/TCP")];
    assert!(columns.iter().all(|column| table.stdout.contains(column)), "as in kubectl: {table}");
}

fn of_two_services_with_one_external_ip_the_first_has_it_until_it_goes() {
    let mut stage = stage();
    let pod = stage.pod("pod-b", "other", &[Listen::Tcp(80)]);
    let first = service("first", &format!("externalIPs: [{EXTERNAL}], {WEB}"));
    let second = format!("externalIPs: [{EXTERNAL}, 198.51.100.8], {WEB}");
    let second = service("second", &second.replace("app: web", "app: other"));
    stage.apply(&[&pod.manifest(), &first]);
    let (shared, its_own) = (at(EXTERNAL, 80), at("198.51.100.8", 80));
    let holder = "198.51.100.7:80/TCP belongs to Service default/first";
    stage.agent.apply(&[&second]).complains(&[holder]);
    let probe = stage.probe();
    assert_reaches(&probe, shared, "pod-a");
    assert_reaches(&probe, its_own, "pod-b");
    assert_reaches(&probe, stage.frontend("second", 80), "pod-b");
    stage.agent.status().refusal_with(&["service/second", holder]).expect("the status names it");

    stage.agent.delete("svc", "first");
    assert_reaches(&probe, shared, "pod-b");
    assert_eq!(stage.agent.status().refused(), [] as [serde_json::Value; 0]);
    stage.agent.apply(&[&first]).complains(&["belongs to Service default/second"]);
    assert_reaches(&probe, shared, "pod-b");
}

fn a_cluster_ip_is_the_services_that_it_was_given_to() {
    let mut stage = stage();
    let pod = stage.pod("pod-b", "other", &[Listen::Tcp(80)]);
    let owner = service("owner", &format!("clusterIP: 10.96.0.50, {WEB}"));
    let thief = format!("externalIPs: [10.96.0.50], {WEB}").replace("app: web", "app: other");
    let thief = service("thief", &thief);
    let contested = at("10.96.0.50", 80);
    let probe = stage.probe();
    stage.apply(&[&pod.manifest(), &thief]);
    assert_reaches(&probe, contested, "pod-b");
    stage.apply(&[&owner]);
    assert_reaches(&probe, contested, "pod-a");
    let belongs = "10.96.0.50:80/TCP belongs to Service default/owner";
    stage.agent.status().refusal_with(&["service/thief", belongs]).expect("the status names it");
    assert_reaches(&probe, stage.frontend("thief", 80), "pod-b");
}

fn labelled(manifest: &str, name: &str) -> String {
    let label = format!("labels: {{service.kubernetes.io/service-proxy-name: {name}}}");
    manifest.replace("metadata: {", &format!("metadata: {{{label}, "))
}

fn a_service_of_another_proxy_is_left_alone() {
    let stage = stage();
    let spec = format!("type: NodePort, externalIPs: [{EXTERNAL}], {WEB}");
    let web = service("web", &spec.replace("port: 80", "port: 80, nodePort: 30080"));
    stage.apply(&[&web]);
    let frontends = [stage.frontend("web", 80), at(EXTERNAL, 80), at("10.244.0.1", 30080)];
    let probe = stage.probe();
    frontends.iter().for_each(|to| assert_reaches(&probe, *to, "pod-a"));

    stage.apply(&[&labelled(&web, "other")]);
    let [cluster_ip, external, node_port] = frontends;
    assert_untouched(&probe, cluster_ip);
    assert_untouched(&probe, SocketAddr::new(cluster_ip.ip(), 81));
    assert_untouched(&probe, external);
    let _other = stage.server_on_node("another proxy", node_port.ip(), Listen::Tcp(30080));
    assert_reaches(&probe, node_port, "another proxy");

    stage.apply(&[&web]);
    frontends.iter().for_each(|to| assert_reaches(&probe, *to, "pod-a"));
}

fn a_service_of_our_name_is_served() {
    let stage = stage_with(&["--service-proxy-name", "ours"]);
    stage.apply(&[&labelled(&service("web", WEB), "ours"), &service("plain", WEB)]);
    let probe = stage.probe();
    assert_reaches(&probe, stage.frontend("web", 80), "pod-a");
    assert_reaches(&probe, stage.frontend("plain", 80), "pod-a");
    stage.apply(&[&labelled(&service("web", WEB), "other")]);
    assert_untouched(&probe, stage.frontend("web", 80));
}

fn a_change_of_type_brings_and_takes_frontends() {
    let stage = stage();
    let before = stage.agent.status().used("FRONTENDS");
    let cluster_ip = service("web", WEB);
    let ported = WEB.replace("port: 80", "port: 80, nodePort: 30080");
    let node_port = service("web", &format!("type: NodePort, {ported}"));
    let name = service("web", "type: ExternalName, externalName: db.example.com");
    stage.apply(&[&cluster_ip]);
    let (vip, on_node) = (stage.frontend("web", 80), at("10.244.0.1", 30080));
    let probe = stage.probe();

    stage.apply(&[&node_port]);
    assert_eq!(stage.frontend("web", 80), vip, "the ClusterIP stays");
    assert_reaches(&probe, vip, "pod-a");
    assert_reaches(&probe, on_node, "pod-a");
    stage.apply(&[&cluster_ip]);
    assert_reaches(&probe, vip, "pod-a");
    assert_refused("the NodePort", probe.tcp(on_node), Errno::REFUSED);
    assert!(stage.agent.get("svc", "web")["spec"]["ports"][0]["nodePort"].is_null());

    stage.apply(&[&node_port]);
    stage.apply(&[&name]);
    assert_refused("the released ClusterIP", probe.tcp(vip), Errno::HOST_UNREACHABLE);
    assert_refused("the released NodePort", probe.tcp(on_node), Errno::REFUSED);
    assert_eq!(stage.agent.status().used("FRONTENDS"), before, "a CNAME owns no frontend");
    stage.apply(&[&service("another", &format!("type: NodePort, {ported}"))]);
    assert_reaches(&probe, on_node, "pod-a");
    stage.agent.try_apply(&[&node_port]).refused().complains(&[
        "Service \"web\" is invalid: spec.ports[0].nodePort: Invalid value: 30080",
        "provided port is already allocated",
    ]);
    stage.apply(&[&cluster_ip]);
    assert_reaches(&probe, stage.frontend("web", 80), "pod-a");
}

fn a_service_does_not_become_headless() {
    let stage = stage();
    stage.apply(&[&service("web", WEB)]);
    let vip = stage.frontend("web", 80);
    let headless = service("web", &format!("clusterIP: None, {WEB}"));
    let output = stage.agent.try_apply(&[&headless]).refused();
    output
        .complains(&["Service \"web\" is invalid: spec.clusterIPs[0]", "may not change once set"]);
    assert_reaches(&stage.probe(), vip, "pod-a");
    stage.agent.delete("svc", "web");
    stage.apply(&[&headless]);
    assert_refused("the released address", stage.probe().tcp(vip), Errno::HOST_UNREACHABLE);
    stage.agent.try_apply(&[&service("web", &format!("type: NodePort, {WEB}"))]).refused();
}
