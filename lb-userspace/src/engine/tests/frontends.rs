//! Frontends besides ClusterIPs, which follow the node, the type and the labels.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::*;

const NODE_PORT: &str = "type: NodePort, ports: [{port: 80, nodePort: 30080}]";

/// A Service with the ClusterIP 10.96.0.`number`; `rest` follows its spec.
fn web(name: &str, number: u8, spec: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{clusterIP: 10.96.0.{number}, {spec}}}\n{rest}"
    )
}

fn addresses(words: &str) -> BTreeSet<IpAddr> {
    words.split_whitespace().map(|word| word.parse().expect("an address")).collect()
}

impl Rig {
    /// All frontends of a Service but those of its ClusterIP: `NodePort 0.0.0.0:30080`.
    fn frontends(&self, name: &str) -> Vec<String> {
        let held = self.held();
        let of_service = held.table.iter().filter(|(id, _)| *id.service.name == *name);
        let frontends = of_service.flat_map(|(_, wanted)| &wanted.frontends);
        let others = frontends.filter(|f| !f.address.to_string().starts_with("10.96."));
        others.map(|f| format!("{:?} {}:{}", f.kind, f.address, f.port)).collect()
    }
}

#[tokio::test]
async fn node_ports_follow_the_nodes_addresses() {
    let rig = Rig::new();
    rig.apply(&web("plain", 9, "ports: [{port: 80}]", "")).await;
    rig.apply(&web("web", 10, NODE_PORT, "")).await;
    let first = ["0.0.0.0", "127.0.0.1", "192.0.2.1"].map(|ip| format!("NodePort {ip}:30080"));
    assert_eq!(rig.frontends("web"), first);

    rig.engine.node_addresses(addresses("192.0.2.2 192.0.2.3")).await;
    let second = ["0.0.0.0", "127.0.0.1", "192.0.2.2", "192.0.2.3"];
    assert_eq!(rig.frontends("web"), second.map(|ip| format!("NodePort {ip}:30080")));
    assert!(rig.held().changed.iter().all(|id| *id.service.name == *"web"), "the plain one stays");
    let shown = rig.engine.status().await.agent.node_port_addresses;
    assert_eq!(
        shown,
        addresses("::1 127.0.0.1 192.0.2.2 192.0.2.3").into_iter().collect::<Vec<_>>()
    );

    let applied = rig.held().applied;
    rig.engine.node_addresses(addresses("192.0.2.3 192.0.2.2 fe80::1")).await;
    assert_eq!(rig.held().applied, applied, "nothing to do is nothing done");
}

#[tokio::test]
async fn frontends_come_and_go_with_the_type() {
    let rig = Rig::new();
    let cluster_ip = web("web", 10, "ports: [{port: 80}]", "");
    rig.apply(&web("web", 10, NODE_PORT, "")).await;
    assert_eq!(rig.frontends("web").len(), 3);
    rig.apply(&cluster_ip).await;
    assert_eq!(rig.frontends("web"), Vec::<String>::new());
    let applied = rig.held().applied;
    rig.engine.node_addresses(addresses("192.0.2.2")).await;
    assert_eq!(rig.held().applied, applied, "it has no NodePort any more");

    let balancer = "type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{port: 80}]";
    let status = "status: {loadBalancer: {ingress: [{ip: 198.51.100.1}, \
        {ip: 198.51.100.2, ipMode: VIP}, {ip: 198.51.100.3, ipMode: Proxy}, \
        {ip: 127.0.0.1}, {hostname: lb.example.com}]}}\n";
    rig.apply(&web("web", 10, balancer, status)).await;
    let served = ["LoadBalancer 198.51.100.1:80", "LoadBalancer 198.51.100.2:80"];
    let addresses = ["ExternalAddress 198.51.100.1:0", "ExternalAddress 198.51.100.2:0"];
    assert_eq!(rig.frontends("web"), [served, addresses].concat());
    rig.apply(&web("web", 10, "ports: [{port: 80}]", status)).await;
    assert_eq!(rig.frontends("web"), Vec::<String>::new(), "the status of another type");
}

#[tokio::test]
async fn a_service_of_another_proxy_is_left_alone_until_it_is_ours() {
    let rig = Rig::new();
    let label = "{name: web, labels: {service.kubernetes.io/service-proxy-name: other}}";
    let web = web("web", 10, NODE_PORT, "");
    rig.apply(&web.replace("{name: web}", label)).await;
    assert_eq!(rig.dump(), Vec::<String>::new());
    let held: Vec<_> = rig.held().table.values().flat_map(|w| w.frontends.clone()).collect();
    assert_eq!(held.len(), 1, "its address: {held:?}");
    rig.apply(&web).await;
    assert_eq!(rig.frontends("web").len(), 3);
}
