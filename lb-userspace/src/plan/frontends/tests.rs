//! Which frontends a Service has: a table.

use crate::plan::tests::{node, port, service};
use crate::plan::{NodePortAddresses, NodeView, Part, Protocol, plan};
use crate::store::model::{Service, ServicePort, ServiceType};

fn addresses<T: FromIterator<std::net::IpAddr>>(words: &str) -> T {
    words.split_whitespace().map(|word| word.parse().expect("an address")).collect()
}

/// The node `us` with an address of each family.
fn with_addresses() -> NodeView {
    let own = addresses("192.0.2.1 2001:db8::1");
    NodeView { node_ports: NodePortAddresses::select(&own, &[]), ..node() }
}

/// The Service's ports from 80 on, with these NodePorts (0: none).
fn ports(node_ports: &[u16]) -> Box<[ServicePort]> {
    let port = |(number, node_port): (u16, &u16)| ServicePort {
        node_port: Some(*node_port).filter(|number| *number != 0),
        ..port("p", Protocol::Tcp, number)
    };
    (80..).zip(node_ports).map(port).collect()
}

/// A line for each part of the Service: `80: ClusterIp 10.96.0.10:80, …`.
fn frontends(service: &Service, node: &NodeView) -> Vec<String> {
    let planned = plan(service, &[], node);
    let lines = planned.iter().map(|(id, wanted)| {
        let part = match id.part {
            Part::Port(_, number) => number.to_string(),
            Part::Addresses => "addresses".to_owned(),
        };
        let frontends = wanted.frontends.iter().map(|f| {
            let place = std::net::SocketAddr::new(f.address, f.port);
            if f.port == 0 {
                format!("{:?} {}", f.kind, f.address)
            } else {
                format!("{:?} {place}", f.kind)
            }
        });
        format!("{part}: {}", frontends.collect::<Vec<_>>().join(", "))
    });
    lines.collect()
}

#[test]
fn frontends_are_those_of_kube_proxy() {
    let dual = || Service { cluster_ips: addresses("10.96.0.10 fd00::10"), ..service() };
    let other = Some("other".into());
    let table: [(&str, Service, &[&str]); 12] = [
        (
            "a NodePort: on every address, and on the unspecified one for the bind guard",
            Service { ports: ports(&[30080]), ..service() },
            &[
                "80: NodePort 0.0.0.0:30080, ClusterIp 10.96.0.10:80, NodePort 127.0.0.1:30080, \
                 NodePort 192.0.2.1:30080",
                "addresses: Address 10.96.0.10",
            ],
        ),
        (
            "of both families",
            Service { ports: ports(&[30080]), ..dual() },
            &[
                "80: NodePort 0.0.0.0:30080, ClusterIp 10.96.0.10:80, NodePort 127.0.0.1:30080, \
                 NodePort 192.0.2.1:30080",
                "addresses: Address 10.96.0.10",
                "80: NodePort [::]:30080, NodePort [::1]:30080, NodePort [2001:db8::1]:30080, \
                 ClusterIp [fd00::10]:80",
                "addresses: Address fd00::10",
            ],
        ),
        (
            "only ports that have one",
            Service { ports: ports(&[0, 30081]), ..service() },
            &[
                "80: ClusterIp 10.96.0.10:80",
                "81: NodePort 0.0.0.0:30081, ClusterIp 10.96.0.10:81, NodePort 127.0.0.1:30081, \
                 NodePort 192.0.2.1:30081",
                "addresses: Address 10.96.0.10",
            ],
        ),
        (
            "external IPs of the Service's families, on its ports",
            Service {
                external_ips: addresses("198.51.100.9 2001:db8::9 198.51.100.8"),
                ports: ports(&[0, 0]),
                ..service()
            },
            &[
                "80: ClusterIp 10.96.0.10:80, External 198.51.100.8:80, External 198.51.100.9:80",
                "81: ClusterIp 10.96.0.10:81, External 198.51.100.8:81, External 198.51.100.9:81",
                "addresses: Address 10.96.0.10, ExternalAddress 198.51.100.8, \
                 ExternalAddress 198.51.100.9",
            ],
        ),
        (
            "what is named twice is one, by the better right",
            Service {
                external_ips: addresses("10.96.0.10 198.51.100.9 198.51.100.9"),
                ..service()
            },
            &[
                "80: ClusterIp 10.96.0.10:80, External 198.51.100.9:80",
                "addresses: Address 10.96.0.10, ExternalAddress 198.51.100.9",
            ],
        ),
        (
            "load balancers' addresses",
            Service { balancer_ips: addresses("2001:db8::9 198.51.100.9"), ..dual() },
            &[
                "80: ClusterIp 10.96.0.10:80, LoadBalancer 198.51.100.9:80",
                "addresses: Address 10.96.0.10, ExternalAddress 198.51.100.9",
                "80: LoadBalancer [2001:db8::9]:80, ClusterIp [fd00::10]:80",
                "addresses: ExternalAddress 2001:db8::9, Address fd00::10",
            ],
        ),
        (
            "a load balancer's that is an external IP, too, is not narrowed; a ClusterIP stays one",
            Service {
                external_ips: addresses("198.51.100.9"),
                balancer_ips: addresses("198.51.100.9 10.96.0.10"),
                ..service()
            },
            &[
                "80: ClusterIp 10.96.0.10:80, External 198.51.100.9:80",
                "addresses: Address 10.96.0.10, ExternalAddress 198.51.100.9",
            ],
        ),
        (
            "a NodePort that is also a port of an external IP on this node",
            Service {
                external_ips: addresses("192.0.2.1"),
                ports: [ServicePort { node_port: Some(30080), ..port("p", Protocol::Tcp, 30080) }]
                    .into(),
                ..service()
            },
            &[
                "30080: NodePort 0.0.0.0:30080, ClusterIp 10.96.0.10:30080, \
                 NodePort 127.0.0.1:30080, NodePort 192.0.2.1:30080",
                "addresses: Address 10.96.0.10, ExternalAddress 192.0.2.1",
            ],
        ),
        (
            "no port of a protocol that is served: the address still refuses",
            Service { ports: Box::default(), ..service() },
            &["addresses: Address 10.96.0.10"],
        ),
        (
            "another proxy's",
            Service {
                proxy_name: other.clone(),
                external_ips: addresses("198.51.100.9"),
                ports: ports(&[30080]),
                ..dual()
            },
            &["addresses: Foreign 10.96.0.10", "addresses: Foreign fd00::10"],
        ),
        (
            "headless",
            Service {
                service_type: ServiceType::Headless,
                cluster_ips: Box::default(),
                external_ips: addresses("198.51.100.9"),
                ..service()
            },
            &[],
        ),
        (
            "an ExternalName",
            Service {
                service_type: ServiceType::ExternalName,
                cluster_ips: Box::default(),
                ports: ports(&[30080]),
                ..service()
            },
            &[],
        ),
    ];
    for (description, service, expected) in table {
        assert_eq!(frontends(&service, &with_addresses()), expected, "{description}");
    }
    let ours = NodeView { proxy_name: other.clone(), ..with_addresses() };
    for proxy_name in [None, other] {
        let served = frontends(&Service { proxy_name, ..service() }, &ours);
        assert_eq!(served[0], "80: ClusterIp 10.96.0.10:80", "ours by name, or nobody's");
    }
}
