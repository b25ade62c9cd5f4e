//! Other people's programs: iperf3, and filters that count.

use std::net::SocketAddr;

use libtest_mimic::Trial;
use serde_json::Value;

use super::{LISTEN, NODE_PORT, node_port, node_ports};
use crate::harness::{Lan, cases, process, service};

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
    let output = crate::harness::eventually("the iperf3 server listens", || {
        let output = lan.client.command("iperf3", &arguments);
        if output.code == Some(0) { Ok(output) } else { Err(output.to_string()) }
    });
    let report: Value = serde_json::from_str(&output.stdout).expect("it was asked for JSON");
    let end = &report["end"];
    let sum = if end["sum_received"].is_object() { &end["sum_received"] } else { &end["sum"] };
    let rate = sum["bits_per_second"].as_f64().unwrap_or_default();
    println!("iperf3 {more} to {to}: {:.0} Mbit/s", rate / 1e6);
    // Undisturbed it is thousands; other tests may run beside this one.
    assert!(rate > 20e6, "iperf3 {more} to {to}: {sum}");
}

fn other_peoples_filters_see_translated_packets() {
    let mut lan = Lan::start();
    let near = lan.near_pod("near", "near", &LISTEN);
    let spec = "type: NodePort, selector: {app: near}, ports: [{port: 80, nodePort: 30080}]";
    lan.apply(&[&near.manifest(), &service("near", spec)]);
    lan.node.tc("qdisc add dev eth0 clsact");
    for (way, address) in [("ingress", near.v4), ("egress", [192, 0, 2, 1].into())] {
        let side = if way == "ingress" { "dst_ip" } else { "src_ip" };
        let filter = format!("protocol ip flower ip_proto tcp {side} {address} action ok");
        lan.node.tc(&format!("filter add dev eth0 {way} {filter}"));
    }
    lan.probe().tcp(node_ports()[0]).expect("a connection");
    for way in ["ingress", "egress"] {
        let shown = lan.node.tc(&format!("filter show dev eth0 {way}")).to_string();
        let unseen = shown.contains("\"packets\":0");
        assert!(shown.contains("\"packets\"") && !unseen, "{way}: {shown}");
    }
}
