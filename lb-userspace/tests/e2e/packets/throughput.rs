//! Other people's programs: iperf3, and filters that count.

use std::net::SocketAddr;

use libtest_mimic::Trial;
use serde_json::Value;

use super::{LISTEN, NODE_PORT, node_port, node_ports};
use crate::harness::{Lan, cases, eventually, process, service};

pub(crate) fn tests() -> Vec<Trial> {
    cases![iperf3_measures_a_service, other_peoples_filters_see_translated_packets,]
}

fn iperf3_measures_a_service() {
    let mut lan = Lan::start();
    let near = lan.near_pod("near", "near", &[]);
    let far = lan.far_pod("far", "far", &[]);
    lan.apply(&[&near.manifest(), &far.manifest()]);
    let mut servers = Vec::new();
    for (offset, pod, place) in [(0, &near, &lan.near), (1, &far, &lan.far)] {
        let port = NODE_PORT + offset;
        let spec = node_port(&pod.name, &pod.app, port, "").replace("port: 80", "port: 5201");
        lan.apply(&[&spec]);
        let mut command = process::command("iperf3");
        command.args(["-s", "-B", &pod.v4.to_string()]).stdout(std::process::Stdio::null());
        let server = place.run(move || command.spawn()).expect("iperf3 is installed");
        servers.push(Server(server));
    }
    for offset in [0, 1] {
        let [to, _] = node_ports();
        let to = SocketAddr::new(to.ip(), NODE_PORT + offset);
        for more in ["", "-R", "-u -b 100M"] {
            assert_gets_through(&lan, to, more);
        }
    }
}

/// Ends with the test.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn assert_gets_through(lan: &Lan, to: SocketAddr, more: &str) {
    let arguments = format!("-c {} -p {} -t 1 -J {more}", to.ip(), to.port());
    let rate = eventually("the iperf3 server listens", || {
        let output = lan.client.command("iperf3", &arguments);
        let report: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let end = &report["end"];
        let sums = [&end["sum_received"]["bits_per_second"], &end["sum"]["bits_per_second"]];
        sums.iter().find_map(|rate| rate.as_f64()).ok_or_else(|| output.to_string())
    });
    println!("iperf3 {more} to {to}: {:.0} Mbit/s", rate / 1e6);
    // Undisturbed it is thousands; other tests may run beside this one.
    assert!(rate > 20e6, "iperf3 {more} to {to}: {rate} bit/s");
}

fn other_peoples_filters_see_translated_packets() {
    let mut lan = Lan::start();
    let near = lan.near_pod("near", "near", &LISTEN);
    let spec = "type: NodePort, selector: {app: near}, ports: [{port: 80, nodePort: 30080}]";
    lan.apply(&[&near.manifest(), &service("near", spec)]);
    lan.node.tc("qdisc add dev eth0 clsact");
    // What has been translated: to the pod on its way in, from the NodePort on its way out.
    let to_pod = format!("match ip dst {}/32", near.v4);
    for (way, translated) in [("ingress", &*to_pod), ("egress", "match ip src 192.0.2.1/32")] {
        let action = "action mirred egress mirror dev lo";
        lan.node.tc(&format!("filter add dev eth0 {way} protocol ip u32 {translated} {action}"));
    }
    let before = ["ingress", "egress"].map(|way| packets(&lan, way));
    assert_eq!(lan.probe().transfer(node_ports()[0], 1 << 20), Ok(()));
    for (way, before) in ["ingress", "egress"].into_iter().zip(before) {
        let seen = packets(&lan, way) - before;
        assert!(seen > 20, "{way}: {seen} packets are seen");
    }
}

/// How many packets the filter has counted.
#[track_caller]
fn packets(lan: &Lan, way: &str) -> u64 {
    let filters = lan.node.tc(&format!("filter show dev eth0 {way}"));
    let all = filters.as_array().into_iter().flatten();
    let mut counts = all.filter_map(|f| f["options"]["actions"][0]["stats"]["packets"].as_u64());
    counts.next().unwrap_or_else(|| panic!("no count: {filters}"))
}
