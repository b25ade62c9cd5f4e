//! Tables after kube-proxy's own (`pkg/proxy/topology_test.go`).

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::object::Kind;
use crate::store::model::{Conditions, Distribution, Hints, ServiceType, Target};

/// One endpoint in a line: `1 node=us zone-hints=a,b node-hints=us not-ready serving terminating`.
fn endpoint(text: &str) -> Endpoint {
    let mut words = text.split_whitespace();
    let last: u8 = words.next().expect("an address").parse().expect("a number");
    let mut endpoint = Endpoint {
        address: Ipv4Addr::new(10, 0, 0, last).into(),
        conditions: Conditions { ready: true, serving: true, terminating: false },
        node: "other".into(),
        hints: None,
        hostname: None,
        pod: None,
    };
    let mut hints = Hints::default();
    for word in words {
        let list = |names: &str| names.split(',').map(Arc::from).collect();
        match word.split_once('=').unwrap_or((word, "")) {
            ("node", name) => endpoint.node = name.into(),
            ("zone-hints", names) => hints.zones = list(names),
            ("node-hints", names) => hints.nodes = list(names),
            ("not-ready", _) => {
                endpoint.conditions =
                    Conditions { ready: false, serving: false, terminating: false };
            }
            ("serving", _) => endpoint.conditions.serving = true,
            ("terminating", _) => endpoint.conditions.terminating = true,
            (other, _) => panic!("unknown word {other}"),
        }
    }
    endpoint.hints = (hints != Hints::default()).then(|| Arc::new(hints));
    endpoint
}

fn slice(port: u16, endpoints: Vec<Endpoint>) -> Slice {
    Slice {
        service: Some("web".into()),
        family: Some(Family::V4),
        ports: [SlicePort { name: "http".into(), protocol: Protocol::Tcp, port }].into(),
        endpoints: endpoints.into(),
    }
}

pub(super) fn service() -> Service {
    Service {
        created: None,
        key: Key::new(Kind::Service, "default", "web"),
        service_type: ServiceType::Virtual,
        cluster_ips: ["10.96.0.10".parse().expect("an address")].into(),
        external_ips: Box::default(),
        balancer_ips: Box::default(),
        source_ranges: Box::default(),
        algorithm: None,
        proxy_name: None,
        families: [Family::V4].into(),
        selector: None,
        ports: [port("http", Protocol::Tcp, 80)].into(),
        internal_local: false,
        external_local: false,
        health_check_port: None,
        affinity_seconds: 0,
        publish_not_ready: false,
        distribution: None::<Distribution>,
        external_name: None,
    }
}

pub(super) fn port(name: &str, protocol: Protocol, port: u16) -> ServicePort {
    ServicePort { name: name.into(), protocol, port, node_port: None, target: Target::Number(port) }
}

pub(super) fn node() -> NodeView {
    NodeView { name: "us".into(), zone: Some("a".into()), ..NodeView::default() }
}

/// The last byte of each backend chosen for traffic from the node, and of each for outside traffic.
fn chosen(service: &Service, endpoints: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let slice = slice(8080, endpoints.iter().map(|text| endpoint(text)).collect());
    let planned = plan(service, &[&slice], &node());
    let Wanted { backends, policy, .. } = &planned[0].1;
    assert_eq!(backends.len(), endpoints.len(), "every endpoint stays a backend");
    let last = |backend: &Backend| match backend.address {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    };
    let list = |local: bool| {
        let selected = backends.iter().filter(|b| if local { b.local } else { b.cluster });
        selected.map(last).collect()
    };
    (list(policy.internal_local), list(policy.external_local))
}

#[test]
fn cluster_list_is_as_kube_proxy_chooses() {
    let table: &[(&str, &[&str], &[u8])] = &[
        ("no endpoints", &[], &[]),
        ("ready ones", &["1", "2 not-ready", "3"], &[1, 3]),
        (
            "terminating ones get nothing while one is ready",
            &["1", "2 not-ready serving terminating"],
            &[1],
        ),
        (
            "none ready: serving and terminating ones",
            &["1 not-ready", "2 not-ready serving terminating"],
            &[2],
        ),
        ("terminating and not serving is never chosen", &["1 not-ready terminating"], &[]),
        ("serving without terminating is not a fallback", &["1 not-ready serving"], &[]),
        ("zone hints for us", &["1 zone-hints=a", "2 zone-hints=b", "3 zone-hints=b,a"], &[1, 3]),
        (
            "one ready endpoint without a hint: hints do not count",
            &["1 zone-hints=a", "2"],
            &[1, 2],
        ),
        (
            "one without a hint that is not ready does not matter",
            &["1 zone-hints=a", "2 zone-hints=b", "3 not-ready"],
            &[1],
        ),
        ("no hint for our zone", &["1 zone-hints=b", "2 zone-hints=c"], &[1, 2]),
        (
            "our zone only by one that is not ready",
            &["1 zone-hints=b", "2 not-ready zone-hints=a"],
            &[1],
        ),
        (
            "node hints go before zone hints",
            &["1 node-hints=us zone-hints=a", "2 node-hints=other zone-hints=a"],
            &[1],
        ),
        (
            "node hints for others only: zone hints",
            &["1 node-hints=x zone-hints=a", "2 node-hints=y zone-hints=b"],
            &[1],
        ),
        (
            "one without node hint: zone hints",
            &["1 node-hints=us zone-hints=a", "2 zone-hints=a", "3 zone-hints=b"],
            &[1, 2],
        ),
        (
            "the fallback ignores topology",
            &[
                "1 not-ready serving terminating zone-hints=b",
                "2 not-ready serving terminating zone-hints=a",
            ],
            &[1, 2],
        ),
    ];
    for (description, endpoints, expected) in table {
        let (internal, external) = chosen(&service(), endpoints);
        assert_eq!(internal, *expected, "{description}: internal");
        assert_eq!(external, *expected, "{description}: external");
    }
}

#[test]
fn local_list_is_as_kube_proxy_chooses() {
    let table: &[(&str, &[&str], &[u8])] = &[
        ("only this node's", &["1 node=us", "2"], &[1]),
        ("none local: none, though others are ready", &["1", "2"], &[]),
        (
            "its own fallback, though others are ready",
            &["1 node=us not-ready serving terminating", "2"],
            &[1],
        ),
        (
            "no fallback while one here is ready",
            &["1 node=us", "2 node=us not-ready serving terminating"],
            &[1],
        ),
        ("hints do not count", &["1 node=us zone-hints=b", "2 zone-hints=a"], &[1]),
        ("not ready is not chosen", &["1 node=us not-ready"], &[]),
    ];
    for (description, endpoints, expected) in table {
        let internal = Service { internal_local: true, ..service() };
        assert_eq!(chosen(&internal, endpoints).0, *expected, "{description}: internal");
        let external = Service { external_local: true, ..service() };
        assert_eq!(chosen(&external, endpoints).1, *expected, "{description}: external");
    }
}

#[test]
fn each_policy_decides_on_its_own_traffic_only() {
    let endpoints = ["1 node=us", "2"];
    let internal = Service { internal_local: true, ..service() };
    assert_eq!(chosen(&internal, &endpoints), (vec![1], vec![1, 2]));
    let external = Service { external_local: true, ..service() };
    assert_eq!(chosen(&external, &endpoints), (vec![1, 2], vec![1]));
}

#[test]
fn ports_are_found_by_name_and_protocol_and_each_is_a_service_of_its_own() {
    let mut service = service();
    service.ports = [
        port("dns", Protocol::Udp, 53),
        port("dns-tcp", Protocol::Tcp, 53),
        port("missing", Protocol::Tcp, 99),
    ]
    .into();
    let mut slice = slice(0, vec![endpoint("1")]);
    slice.ports = [
        SlicePort { name: "dns-tcp".into(), protocol: Protocol::Tcp, port: 5354 },
        SlicePort { name: "dns".into(), protocol: Protocol::Tcp, port: 1 },
        SlicePort { name: "dns".into(), protocol: Protocol::Udp, port: 5353 },
    ]
    .into();
    let planned = plan(&service, &[&slice], &node());
    let targets: Vec<_> = planned
        .iter()
        .map(|(id, wanted)| (id.part, wanted.backends.first().map(|b| b.port)))
        .collect();
    assert_eq!(
        targets,
        [
            (Part::Port(Protocol::Udp, 53), Some(5353)),
            (Part::Port(Protocol::Tcp, 53), Some(5354)),
            (Part::Port(Protocol::Tcp, 99), None),
            (Part::Addresses, None),
        ]
    );
    assert_eq!(
        planned[2].1.frontends.len(),
        1,
        "a port without endpoints refuses, so it is a frontend"
    );
}

#[test]
fn each_family_gets_its_own_addresses_and_endpoints() {
    let mut service = service();
    service.cluster_ips =
        ["10.96.0.10", "fd00::10"].map(|ip| ip.parse().expect("an address")).into();
    let v4 = slice(8080, vec![endpoint("1")]);
    let mut v6 = slice(8081, vec![endpoint("2")]);
    v6.family = Some(Family::V6);
    v6.endpoints[0].address = "fd01::2".parse().expect("an address");
    let planned = plan(&service, &[&v4, &v6], &node());
    let seen: Vec<_> = planned
        .iter()
        .filter(|(id, _)| id.part != Part::Addresses)
        .map(|(id, w)| {
            (id.family, w.frontends[0].address.to_string(), w.backends[0].address.to_string())
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Family::V4, "10.96.0.10".to_owned(), "10.0.0.1".to_owned()),
            (Family::V6, "fd00::10".to_owned(), "fd01::2".to_owned())
        ]
    );
}

#[test]
fn services_without_cluster_ip_own_no_frontend() {
    for service_type in [ServiceType::Headless, ServiceType::ExternalName] {
        let service = Service { service_type, cluster_ips: Box::default(), ..service() };
        let slice = slice(8080, vec![endpoint("1")]);
        assert_eq!(plan(&service, &[&slice], &node()), [], "{service_type:?}");
    }
}

#[test]
fn an_endpoint_in_two_slices_counts_once_and_as_the_better_of_both() {
    let leaving = slice(8080, vec![endpoint("1 not-ready")]);
    let arriving = slice(8080, vec![endpoint("1")]);
    let other_port = slice(8081, vec![endpoint("1")]);
    for order in [[&leaving, &arriving, &other_port], [&other_port, &arriving, &leaving]] {
        let backends = plan(&service(), &order, &node()).remove(0).1.backends;
        let seen: Vec<_> = backends.iter().map(|b| (b.port, b.cluster)).collect();
        assert_eq!(seen, [(8080, true), (8081, true)]);
    }
}

#[test]
fn source_ranges_narrow_their_own_family_as_in_kube_proxy() {
    let range = |word: &str| word.parse::<IpNet>().expect("a range");
    let cluster_ips = ["10.96.0.10", "fd00::10"].map(|ip| ip.parse().expect("an address"));
    let table: [(&[&str], &[&str], &[&str]); 4] = [
        (&[], &[], &[]),
        (&["192.0.2.0/24"], &["192.0.2.0/24"], &[]),
        (&["2001:db8::/32"], &[], &["2001:db8::/32"]),
        (
            &["203.0.113.0/24", "2001:db8::/32", "192.0.2.0/24", "203.0.113.0/24"],
            &["192.0.2.0/24", "203.0.113.0/24"],
            &["2001:db8::/32"],
        ),
    ];
    for (ranges, v4, v6) in table {
        let source_ranges = ranges.iter().map(|word| range(word)).collect();
        let service = Service { cluster_ips: cluster_ips.into(), source_ranges, ..service() };
        for (id, wanted) in plan(&service, &[], &node()) {
            let expected = match (id.part, id.family) {
                (Part::Addresses, _) => &[],
                (Part::Port(..), Family::V4) => v4,
                (Part::Port(..), Family::V6) => v6,
            };
            let expected: Vec<_> = expected.iter().map(|word| range(word)).collect();
            assert_eq!(wanted.source_ranges, expected, "{ranges:?}: {id:?}");
            assert_eq!(wanted.policy.restricted, !expected.is_empty(), "{ranges:?}: {id:?}");
        }
    }
}

#[test]
fn a_table_is_for_addresses_that_nodes_share_or_by_annotation() {
    use Algorithm::{Maglev, Random};
    let external = || ["198.51.100.9".parse().expect("an address")].into();
    let inside = service();
    let balanced = Service { balancer_ips: external(), ..service() };
    let shared = Service { external_ips: external(), ..service() };
    let node_port = ServicePort { node_port: Some(30080), ..port("p", Protocol::Tcp, 80) };
    let node_port = Service { ports: [node_port].into(), ..service() };
    let local = Service { external_local: true, ..shared.clone() };
    let other = ["2001:db8::9".parse().expect("an address")].into();
    let other_family = Service { external_ips: other, ..service() };
    // The flag maglev, the flag random.
    for (description, service, expected) in [
        ("inside", inside, [false, false]),
        ("a load balancer's address", balanced, [true, false]),
        ("an external IP", shared, [true, false]),
        ("a NodePort", node_port, [false, false]),
        ("Local", local, [false, false]),
        ("an external IP of the other family", other_family, [false, false]),
    ] {
        for (annotation, expected) in
            [(None, expected), (Some(Maglev), [true; 2]), (Some(Random), [false; 2])]
        {
            let service = Service { algorithm: annotation, ..service.clone() };
            let planned = [Maglev, Random].map(|algorithm| {
                plan(&service, &[], &NodeView { algorithm, ..node() }).remove(0).1.maglev
            });
            assert_eq!(planned, expected, "{description}, {annotation:?}");
        }
    }
}

#[test]
fn endpoints_are_here_by_their_node() {
    let slice =
        slice(8080, vec![endpoint("1 node=us"), endpoint("2"), endpoint("3 node=us not-ready")]);
    let backends = plan(&service(), &[&slice], &node()).remove(0).1.backends;
    assert_eq!(backends.iter().map(|b| b.here).collect::<Vec<_>>(), [true, false, true]);
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let hint =
        || proptest::option::of(prop_oneof![Just("us"), Just("other"), Just("a"), Just("b")]);
    (0u8..12, any::<[bool; 4]>(), hint(), hint()).prop_map(|(last, flags, node_hint, zone_hint)| {
        let mut endpoint =
            endpoint(&format!("{last} node={}", if flags[3] { "us" } else { "other" }));
        endpoint.conditions =
            Conditions { ready: flags[0], serving: flags[1], terminating: flags[2] };
        endpoint.hints = Some(Arc::new(Hints {
            nodes: node_hint.into_iter().map(Arc::from).collect(),
            zones: zone_hint.into_iter().map(Arc::from).collect(),
        }));
        endpoint
    })
}

proptest! {
    /// Neither the order of slices nor that of endpoints in them shows in the plan.
    #[test]
    fn the_plan_does_not_depend_on_order(endpoints in proptest::collection::vec(any_endpoint(), 0..20)) {
        let mut unique = endpoints;
        unique.sort_by_key(|e| e.address);
        unique.dedup_by_key(|e| e.address);
        let (first, second) = unique.split_at(unique.len() / 2);
        let forward = [slice(1, first.to_vec()), slice(1, second.to_vec())];
        let backward = slice(1, unique.iter().rev().cloned().collect());
        let one = plan(&service(), &[&forward[0], &forward[1]], &node());
        let other = plan(&service(), &[&backward], &node());
        prop_assert_eq!(one, other);
    }

    /// While anything is ready, someone is chosen and nobody who is not ready; and topology never
    /// chooses an endpoint that the untopological rule would not.
    #[test]
    fn ready_endpoints_are_never_passed_over_for_others(endpoints in proptest::collection::vec(any_endpoint(), 1..20)) {
        let mut unique = endpoints;
        unique.sort_by_key(|e| e.address);
        unique.dedup_by_key(|e| e.address);
        let slice = slice(1, unique.clone());
        let backends = plan(&service(), &[&slice], &node()).remove(0).1.backends;
        let any_ready = unique.iter().any(|e| e.conditions.ready);
        prop_assert!(!any_ready || backends.iter().any(|b| b.cluster));
        for (backend, endpoint) in backends.iter().zip(&unique) {
            let conditions = endpoint.conditions;
            let allowed = if any_ready { conditions.ready } else { conditions.serving && conditions.terminating };
            prop_assert!(!backend.cluster || allowed, "{:?} chosen", endpoint);
        }
    }
}

#[test]
fn a_health_check_counts_local_ready_endpoints_once() {
    let ports = [port("http", Protocol::Tcp, 80), port("more", Protocol::Tcp, 81)].into();
    let balanced = Service { health_check_port: Some(30_150), ports, ..service() };
    let counted = |service: &Service, endpoints: &[&str]| {
        let mut slice = slice(8080, endpoints.iter().map(|text| endpoint(text)).collect());
        let more = SlicePort { name: "more".into(), protocol: Protocol::Tcp, port: 8081 };
        slice.ports = slice.ports.iter().cloned().chain([more]).collect();
        let check = health_check(service, &[&slice, &slice.clone()], &node())?;
        assert_eq!(check.port, 30_150);
        let (v4, v6) = (check.endpoints(Family::V4), check.endpoints(Family::V6));
        assert_eq!(v4, v6, "a family without ClusterIP hears of the other");
        Some(v4)
    };
    for (endpoints, expected) in [
        (&[][..], 0),
        (&["1 node=us", "2 node=us", "3"], 2),
        (&["1 node=us not-ready", "2"], 0),
        (&["1 node=us not-ready serving terminating"], 0),
        (&["1 node=us zone-hints=b"], 1),
    ] {
        assert_eq!(counted(&balanced, endpoints), Some(expected), "{endpoints:?}");
    }
    let foreign = Service { proxy_name: Some("other".into()), ..balanced.clone() };
    assert_eq!(counted(&foreign, &["1 node=us"]), None, "another proxy answers");
    assert_eq!(counted(&service(), &["1 node=us"]), None, "nobody asks");
    let both = ["10.96.0.10", "fd00::a"].map(|ip| ip.parse().expect("an address")).into();
    let both = Service { cluster_ips: both, ..balanced };
    let slice = slice(8080, vec![endpoint("1 node=us")]);
    let check = health_check(&both, &[&slice], &node()).expect("a check");
    assert_eq!((check.endpoints(Family::V4), check.endpoints(Family::V6)), (1, 0));
}
