//! Services: what an update keeps, and who holds what after it.

mod rules;

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
