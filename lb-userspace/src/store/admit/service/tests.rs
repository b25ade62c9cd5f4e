//! Services: what is filled in, what is refused, what an update keeps, and who holds what after it.

use serde_json::{Value, json};

use crate::object::{Key, Kind, Object};
use crate::store::admit::tests::{causes, object, pools};
use crate::store::admit::{Admitted, Invalid, admit, reclaim, release};
use crate::store::allocate::{Pools, Resource};

const V4: &str = "10.96.0.0/12";
const DUAL: &str = "10.96.0.0/12,fd00::/112";

fn service(spec: &Value) -> Object {
    named("a", spec)
}

fn named(name: &str, spec: &Value) -> Object {
    object(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}),
    )
}

/// A spec with one port and `fields`.
fn web(fields: &Value) -> Value {
    let mut spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
    spec.as_object_mut().expect("an object").extend(fields.as_object().cloned().expect("fields"));
    spec
}

/// A store of one Service.
struct Store {
    pools: Pools,
    stored: Option<Object>,
}

impl Store {
    fn new(ranges: &str) -> Self {
        Self { pools: pools(ranges), stored: None }
    }

    fn apply(&mut self, spec: &Value) -> Result<Admitted, Invalid> {
        let result = admit(service(spec), self.stored.as_ref(), &mut self.pools);
        if let Ok(admitted) = &result {
            self.stored = Some(admitted.object.clone());
        }
        self.check_holdings();
        result
    }

    #[track_caller]
    fn must(&mut self, spec: &Value) -> Value {
        self.apply(spec).unwrap_or_else(|invalid| panic!("{invalid}")).object.to_value()["spec"]
            .clone()
    }

    /// The pools hold exactly what the stored Service says: nothing leaks, nothing is lost.
    #[track_caller]
    fn check_holdings(&self) {
        let key = Key::new(Kind::Service, "default", "a");
        let spec = self.stored.as_ref().map_or(Value::Null, |it| it.to_value()["spec"].clone());
        let mut held = 0;
        for ip in spec["clusterIPs"].as_array().into_iter().flatten() {
            let Ok(address) = ip.as_str().unwrap_or_default().parse() else { continue };
            assert_eq!(self.pools.owner(Resource::Address(address)), Some(&key), "{spec:#}");
            held += 1;
        }
        let mut ports: Vec<u64> = spec["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|port| port["nodePort"].as_u64())
            .collect();
        ports.extend(spec["healthCheckNodePort"].as_u64());
        ports.sort_unstable();
        ports.dedup();
        for port in &ports {
            let port = Resource::Port(u16::try_from(*port).expect("a port"));
            assert_eq!(self.pools.owner(port), Some(&key), "{spec:#}");
        }
        assert_eq!(self.pools.ports().len(), ports.len(), "{spec:#}");
        assert_eq!(addresses(&self.pools), held, "{spec:#}");
    }
}

fn addresses(pools: &Pools) -> usize {
    use crate::plan::Family;
    [Family::V4, Family::V6]
        .into_iter()
        .filter_map(|it| pools.addresses(it))
        .map(|it| it.pool().len())
        .sum()
}

#[track_caller]
fn refused(description: &str, ranges: &str, spec: &Value, expected: &[&str]) {
    let mut store = Store::new(ranges);
    assert_eq!(causes(store.apply(spec)), expected, "{description}");
}

#[test]
fn defaults_are_those_of_the_api_server() {
    let mut spec = Store::new(V4).must(&web(&json!({})));
    let ip = spec["clusterIP"].take();
    assert!(ip.as_str().is_some_and(|ip| ip.starts_with("10.")), "{ip}");
    assert_eq!(
        spec,
        json!({
            "clusterIP": null, "clusterIPs": [ip], "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "selector": {"app": "web"}, "sessionAffinity": "None", "type": "ClusterIP",
        })
    );

    let spec = Store::new(V4).must(&web(&json!({
        "type": "LoadBalancer", "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local",
    })));
    assert_eq!(spec["allocateLoadBalancerNodePorts"], json!(true));
    assert_eq!(spec["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
    assert!(spec["healthCheckNodePort"].as_i64() >= Some(30086), "{spec:#}");
    assert!(spec["ports"][0]["nodePort"].as_i64() >= Some(30086), "{spec:#}");

    let spec = Store::new(V4).must(&web(&json!({"type": "NodePort"})));
    assert_eq!(spec["externalTrafficPolicy"], json!("Cluster"));
    let spec = Store::new(V4).must(&web(&json!({"externalIPs": ["192.0.2.1"]})));
    assert_eq!(spec["externalTrafficPolicy"], json!("Cluster"), "reached from outside too");
    let spec =
        Store::new(V4).must(&json!({"type": "ExternalName", "externalName": "db.example.com."}));
    assert_eq!(
        spec,
        json!({"type": "ExternalName", "externalName": "db.example.com.", "sessionAffinity": "None"})
    );
}

#[test]
fn ports_are_validated() {
    let ports = |ports: Value| json!({ "ports": ports });
    let range = "must be between 1 and 65535, inclusive";
    refused("none", V4, &json!({}), &["spec.ports: Required value"]);
    refused("empty", V4, &ports(json!([])), &["spec.ports: Required value"]);
    refused(
        "70000",
        V4,
        &ports(json!([{"port": 70000}])),
        &[&format!("spec.ports[0].port: Invalid value: 70000: {range}")],
    );
    refused(
        "0",
        V4,
        &ports(json!([{"port": 0}])),
        &[&format!("spec.ports[0].port: Invalid value: 0: {range}")],
    );
    refused(
        "target",
        V4,
        &ports(json!([{"port": 1, "targetPort": -1}])),
        &[&format!("spec.ports[0].targetPort: Invalid value: -1: {range}")],
    );
    refused(
        "target name",
        V4,
        &ports(json!([{"port": 1, "targetPort": "a-name-too-long-"}])),
        &[
            "spec.ports[0].targetPort: Invalid value: \"a-name-too-long-\": must be no more than 15 characters",
            "spec.ports[0].targetPort: Invalid value: \"a-name-too-long-\": must not begin or end with a hyphen",
        ],
    );
    refused(
        "names",
        V4,
        &ports(json!([{"port": 1}, {"port": 2}])),
        &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    );
    refused(
        "name twice",
        V4,
        &ports(json!([{"port": 1, "name": "a"}, {"port": 2, "name": "a"}])),
        &["spec.ports[1].name: Duplicate value: \"a\""],
    );
    refused(
        "protocol",
        V4,
        &ports(json!([{"port": 1, "protocol": "tcp"}])),
        &[
            "spec.ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    refused(
        "port twice",
        V4,
        &ports(json!([{"port": 1, "name": "a"}, {"port": 1, "name": "b"}])),
        &["spec.ports[1]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\"}"],
    );
    refused(
        "nodePort",
        V4,
        &ports(json!([{"port": 1, "nodePort": 30000}])),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );

    let mut store = Store::new(V4);
    let dns = json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}, {"name": "sctp", "port": 53, "protocol": "SCTP"}]);
    let admitted = store.apply(&ports(dns)).expect("protocol is part of a port's identity");
    assert_eq!(
        admitted.warnings,
        [
            "spec.ports[2] (sctp): lb does not serve SCTP; the other ports of this Service are served"
        ]
    );
}

#[test]
fn fields_are_validated() {
    let cases = [
        (
            json!({"type": "Cluster"}),
            "spec.type: Unsupported value: \"Cluster\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        (
            json!({"type": "NodePort", "clusterIP": "None"}),
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        (
            json!({"clusterIP": "10.96.0"}),
            "spec.clusterIP: Invalid value: \"10.96.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.8"]}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: first value must match `clusterIP`",
        ),
        (
            json!({"clusterIPs": ["10.96.0.8"]}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: must be empty when `clusterIP` is not specified",
        ),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None", "10.96.0.8"]}),
            "spec.clusterIPs: Invalid value: [\"None\",\"10.96.0.8\"]: 'None' must be the first and only value",
        ),
        (
            json!({"clusterIP": "10.1.2.3"}),
            "spec.clusterIP: Invalid value: \"10.1.2.3\": failed to allocate IP 10.1.2.3: provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/12",
        ),
        (
            json!({"clusterIP": "10.96.0.1"}),
            "spec.clusterIP: Invalid value: \"10.96.0.1\": failed to allocate IP 10.96.0.1: provided IP is already allocated (by default/kubernetes)",
        ),
        (
            json!({"clusterIP": "fd00::5"}),
            "spec.clusterIPs[0]: Invalid value: [\"fd00::5\"]: IPv6 is not configured on this cluster",
        ),
        (
            json!({"ipFamilies": ["IPv6"]}),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
        (
            json!({"ipFamilies": ["IPv5"]}),
            "spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"",
        ),
        (
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        ),
        (
            json!({"ipFamilyPolicy": "Dual"}),
            "spec.ipFamilyPolicy: Unsupported value: \"Dual\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"",
        ),
        (
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
        ),
        (
            json!({"sessionAffinity": "Cookie"}),
            "spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\"",
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than or equal to 86400",
        ),
        (
            json!({"internalTrafficPolicy": "Node"}),
            "spec.internalTrafficPolicy: Unsupported value: \"Node\": supported values: \"Cluster\", \"Local\"",
        ),
        (
            json!({"externalTrafficPolicy": "Local"}),
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ),
        (
            json!({"type": "NodePort", "externalTrafficPolicy": "x"}),
            "spec.externalTrafficPolicy: Unsupported value: \"x\": supported values: \"Cluster\", \"Local\"",
        ),
        (
            json!({"trafficDistribution": "x"}),
            "spec.trafficDistribution: Unsupported value: \"x\": supported values: \"PreferClose\", \"PreferSameNode\", \"PreferSameZone\"",
        ),
        (
            json!({"externalIPs": ["127.0.0.1"]}),
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            json!({"healthCheckNodePort": 30000}),
            "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
        (
            json!({"allocateLoadBalancerNodePorts": true}),
            "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            json!({"loadBalancerClass": "x"}),
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": [" 10.0.0.0/8 ", "10.0.0.0"]}),
            "spec.loadBalancerSourceRanges[1]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ),
        (json!({"type": "ExternalName"}), "spec.externalName: Required value"),
        (
            json!({"type": "ExternalName", "externalName": "x", "clusterIP": "10.96.0.9"}),
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 70000}]}),
            "spec.ports[0].nodePort: Invalid value: 70000: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
    ];
    for (fields, expected) in cases {
        refused(&fields.to_string(), V4, &web(&fields), &[expected]);
    }
}

#[test]
fn a_name_is_an_rfc_1035_label() {
    let result = admit(named("1a", &web(&json!({}))), None, &mut pools(V4));
    let text = result.expect_err("starts with a digit").to_string();
    assert!(
        text.starts_with(
            "Service \"1a\" is invalid: metadata.name: Invalid value: \"1a\": a DNS-1035 label must"
        ),
        "{text}"
    );
}

#[test]
fn families_follow_policy_and_ranges() {
    let cases = [
        ("default", DUAL, json!({}), json!(["IPv4"]), "SingleStack"),
        (
            "first range decides",
            "fd00::/112,10.96.0.0/12",
            json!({}),
            json!(["IPv6"]),
            "SingleStack",
        ),
        ("asked for", DUAL, json!({"ipFamilies": ["IPv6"]}), json!(["IPv6"]), "SingleStack"),
        (
            "preferred, both",
            DUAL,
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            json!(["IPv4", "IPv6"]),
            "PreferDualStack",
        ),
        (
            "preferred, one",
            V4,
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            json!(["IPv4"]),
            "PreferDualStack",
        ),
        (
            "required",
            DUAL,
            json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
            json!(["IPv6", "IPv4"]),
            "RequireDualStack",
        ),
        ("from the address", DUAL, json!({"clusterIP": "fd00::9"}), json!(["IPv6"]), "SingleStack"),
        ("headless", V4, json!({"clusterIP": "None"}), json!(["IPv4"]), "SingleStack"),
        (
            "headless without selector",
            V4,
            json!({"clusterIP": "None", "selector": null}),
            json!(["IPv4", "IPv6"]),
            "RequireDualStack",
        ),
    ];
    for (description, ranges, fields, families, policy) in cases {
        let spec = Store::new(ranges).must(&web(&fields));
        assert_eq!(spec["ipFamilies"], families, "{description}");
        assert_eq!(spec["ipFamilyPolicy"], json!(policy), "{description}");
        let headless = spec["clusterIP"] == json!("None");
        let ips = spec["clusterIPs"].as_array().expect("addresses");
        assert!(
            headless || ips.len() == families.as_array().map_or(0, Vec::len),
            "{description}: {spec:#}"
        );
        assert_eq!(spec["clusterIP"], ips[0], "{description}");
    }
}

#[test]
fn applying_a_manifest_again_changes_nothing() {
    for fields in [
        json!({}),
        json!({"clusterIP": "10.96.0.10"}),
        json!({"clusterIP": "None"}),
        json!({"clusterIP": "None", "selector": null}),
        json!({"ipFamilyPolicy": "PreferDualStack"}),
        json!({"type": "NodePort", "ports": [{"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53}]}),
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}),
        json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false}),
        json!({"type": "ExternalName", "externalName": "x.y"}),
    ] {
        let mut store = Store::new(DUAL);
        let first = store.must(&web(&fields));
        assert_eq!(store.must(&web(&fields)), first, "{fields}");
        assert_eq!(store.must(&first), first, "{fields}: as `lb get -o yaml` printed it");
    }
}

#[test]
fn two_protocols_on_one_port_share_a_node_port() {
    let spec = Store::new(V4).must(&json!({"type": "NodePort", "ports": [
        {"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53, "nodePort": 30053}, {"name": "x", "port": 54},
    ]}));
    assert_eq!(spec["ports"][0]["nodePort"], json!(30053));
    assert_ne!(spec["ports"][2]["nodePort"], json!(30053));
    let spec = Store::new(V4)
        .must(&web(&json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false})));
    assert_eq!(spec["ports"][0]["nodePort"], Value::Null);
}

#[test]
fn addresses_do_not_change_while_the_service_exists() {
    let mut store = Store::new(DUAL);
    store.must(&web(&json!({"clusterIP": "10.96.0.10"})));
    for (fields, expected) in [
        (
            json!({"clusterIP": "10.96.0.11"}),
            vec!["spec.clusterIPs[0]: Invalid value: [\"10.96.0.11\"]: may not change once set"],
        ),
        (
            json!({"clusterIP": "None"}),
            vec!["spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set"],
        ),
        (
            json!({"ipFamilies": ["IPv6"]}),
            vec![
                "spec.clusterIP: Invalid value: \"10.96.0.10\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            ],
        ),
    ] {
        assert_eq!(causes(store.apply(&web(&fields))), expected, "{fields}");
    }
    let spec = store.must(&web(&json!({"ports": [{"port": 81}]})));
    assert_eq!(spec["clusterIP"], json!("10.96.0.10"));

    let mut headless = Store::new(V4);
    headless.must(&web(&json!({"clusterIP": "None"})));
    assert_eq!(
        causes(headless.apply(&web(&json!({"clusterIP": "10.96.0.10"})))),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.10\"]: may not change once set"]
    );
}

#[test]
fn a_second_family_comes_and_goes_by_policy() {
    let mut store = Store::new(DUAL);
    let first = store.must(&web(&json!({})))["clusterIP"].clone();
    let dual = store.must(&web(&json!({"ipFamilyPolicy": "PreferDualStack"})));
    assert_eq!(dual["clusterIPs"].as_array().map(Vec::len), Some(2));
    assert_eq!(dual["clusterIP"], first);
    assert_eq!(
        store.must(&web(&json!({})))["clusterIPs"],
        dual["clusterIPs"],
        "no policy: as it is"
    );
    assert_eq!(
        causes(store.apply(&web(&json!({"clusterIP": first, "clusterIPs": [first]})))),
        [
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary cluster IP"
        ]
    );
    let single = store.must(&web(&json!({"ipFamilyPolicy": "SingleStack"})));
    assert_eq!(single["clusterIPs"], json!([first]));
    assert_eq!(single["ipFamilies"], json!(["IPv4"]));
}

#[test]
fn type_changes_release_and_allocate() {
    let types = [
        json!({}),
        json!({"type": "NodePort"}),
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}),
        json!({"type": "ExternalName", "externalName": "x.y"}),
    ];
    for from in &types {
        for to in &types {
            let mut store = Store::new(DUAL);
            let before = store.must(&web(from));
            // The holdings are checked after every step.
            let after = store.must(&web(to));
            let kept = before["clusterIP"] != Value::Null && after["clusterIP"] != Value::Null;
            assert!(!kept || before["clusterIP"] == after["clusterIP"], "{from} to {to}");
        }
    }
    let mut store = Store::new(DUAL);
    store.must(&web(&json!({"clusterIP": "None"})));
    store.must(&web(&json!({"type": "ExternalName", "externalName": "x.y"})));
    assert!(store.must(&web(&json!({})))["clusterIP"].as_str() != Some("None"));
}

#[test]
fn node_ports_move_with_the_ports_that_have_them() {
    let mut store = Store::new(V4);
    let two = |a: Value, b: Value| {
        json!({"type": "NodePort", "ports": [
            {"name": "a", "port": 1, "nodePort": a}, {"name": "b", "port": 2, "nodePort": b},
        ]})
    };
    store.must(&two(json!(30001), json!(30002)));
    let swapped = store.must(&two(json!(30002), json!(30001)));
    assert_eq!(swapped["ports"][0]["nodePort"], json!(30002));
    let kept = store.must(&two(Value::Null, Value::Null));
    assert_eq!(
        (&kept["ports"][0]["nodePort"], &kept["ports"][1]["nodePort"]),
        (&json!(30002), &json!(30001))
    );
    let moved = store.must(&two(json!(30001), Value::Null));
    assert_eq!(moved["ports"][0]["nodePort"], json!(30001));
    assert_ne!(moved["ports"][1]["nodePort"], json!(30001), "asked for elsewhere");
    store.must(&json!({"type": "NodePort", "ports": [{"name": "a", "port": 1}]}));

    let mut health = Store::new(V4);
    let local = |port: Value| {
        web(
            &json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": port}),
        )
    };
    health.must(&local(json!(30005)));
    assert_eq!(
        causes(health.apply(&local(json!(30006)))),
        [
            "spec.healthCheckNodePort: Invalid value: 30006: cannot change healthCheckNodePort on loadBalancer service with externaltrafficPolicy=Local during update"
        ]
    );
}

#[test]
fn two_services_cannot_have_one_address_or_port() {
    let mut pools = pools(V4);
    let spec = web(
        &json!({"type": "NodePort", "clusterIP": "10.96.0.10", "ports": [{"port": 1, "nodePort": 30001}]}),
    );
    let first = admit(named("other", &spec), None, &mut pools).expect("free").object;
    let mark = pools.mark();
    assert_eq!(
        causes(admit(service(&spec), None, &mut pools)),
        [
            "spec.clusterIP: Invalid value: \"10.96.0.10\": failed to allocate IP 10.96.0.10: provided IP is already allocated (by default/other)",
            "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated (by default/other)",
        ]
    );
    let both = web(&json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"]}));
    assert_eq!(
        causes(admit(service(&both), None, &mut pools)),
        [
            "spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is already allocated (by default/other)",
        ]
    );
    assert_eq!(pools.mark(), mark, "a refusal leaves nothing allocated");

    // A dry run is an admission that is undone.
    let dry = admit(service(&web(&json!({"clusterIP": "10.96.0.11"}))), None, &mut pools);
    assert!(dry.is_ok());
    pools.undo(mark);
    assert_eq!(addresses(&pools), 1);

    release(&first, &mut pools);
    assert_eq!((addresses(&pools), pools.ports().len()), (0, 0));
    assert!(admit(service(&spec), None, &mut pools).is_ok(), "free again");
}

#[test]
fn stored_allocations_are_reclaimed() {
    let mut before = pools(DUAL);
    let spec = web(
        &json!({"type": "NodePort", "ipFamilyPolicy": "PreferDualStack", "clusterIP": "10.96.0.10", "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 1, "protocol": "UDP"}]}),
    );
    let stored = admit(service(&spec), None, &mut before).expect("valid").object;

    let mut after = pools(DUAL);
    assert_eq!(reclaim(&stored, &mut after), Vec::<String>::new());
    assert_eq!((addresses(&after), after.ports().len()), (2, 1));

    // `--service-cidr` was changed: the Service keeps its addresses, and can be applied again.
    let mut moved = pools("10.0.0.0/16");
    let warnings = reclaim(&stored, &mut moved);
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(
        warnings[0].starts_with("service default/a keeps its ClusterIP 10.96.0.10"),
        "{warnings:#?}"
    );
    assert!(warnings[0].contains("The range of valid IPs is 10.0.0.0/16"), "{warnings:#?}");
    let again = admit(service(&spec), Some(&stored), &mut moved).expect("still valid").object;
    assert_eq!(again.to_value(), stored.to_value());
    release(&again, &mut moved);
    assert_eq!((addresses(&moved), moved.ports().len()), (0, 0));
}

#[test]
fn the_first_address_is_kubernetes() {
    let mut pools = pools(V4);
    let admitted = admit(named("kubernetes", &web(&json!({}))), None, &mut pools).expect("valid");
    assert_eq!(admitted.object.to_value()["spec"]["clusterIP"], json!("10.96.0.1"));
}
