//! Admission of every kind but Services, and what all kinds share.

use serde_json::{Value, json};

use super::{Admitted, Invalid, admit};
use crate::object::Object;
use crate::store::allocate::Pools;

pub(super) fn pools(ranges: &str) -> Pools {
    let ranges: Vec<_> = ranges.split(',').map(|range| range.parse().expect(range)).collect();
    Pools::with_random(&ranges, fastrand::Rng::with_seed(7)).expect("ranges")
}

#[track_caller]
pub(super) fn object(value: &Value) -> Object {
    Object::from_value(value.clone()).expect("decodes").0
}

fn admitted(value: &Value) -> Result<Admitted, Invalid> {
    admit(object(value), None, &mut pools("10.96.0.0/12"))
}

/// The causes as shown, or nothing.
#[track_caller]
pub(super) fn causes(result: Result<Admitted, Invalid>) -> Vec<String> {
    let causes = result.map_or_else(|invalid| invalid.causes, |_| Vec::new());
    causes.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(description: &str, value: &Value, expected: &[&str]) {
    let causes = causes(admitted(value));
    assert_eq!(causes.len(), expected.len(), "{description}: {causes:#?}");
    for (cause, expected) in causes.iter().zip(expected) {
        assert!(cause.starts_with(expected), "{description}:\n{cause}\n{expected}");
    }
}

fn pod(metadata: &Value, rest: &Value) -> Value {
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata });
    let fields = rest.as_object().cloned().unwrap_or_default();
    pod.as_object_mut().expect("an object").extend(fields);
    pod
}

#[test]
fn metadata_follows_kubernetes_rules() {
    let long = "x".repeat(64);
    let name = |name: &str| pod(&json!({ "name": name }), &json!({}));
    let with = |field: &str, value: Value| pod(&json!({ "name": "p", field: value }), &json!({}));
    check("subdomain", &name("a.b-1"), &[]);
    check(
        "upper case",
        &name("A"),
        &["metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must"],
    );
    check("too long", &name(&"a".repeat(254)), &["metadata.name: Invalid value: \"aaa"]);
    check(
        "empty label",
        &name("a..b"),
        &["metadata.name: Invalid value: \"a..b\": a lowercase RFC 1123"],
    );
    check(
        "namespace",
        &with("namespace", json!("a.b")),
        &["metadata.namespace: Invalid value: \"a.b\": a lowercase RFC 1123 label must"],
    );
    check("labels", &with("labels", json!({"x.y/z": "a_b.c", "empty": ""})), &[]);
    check(
        "label value",
        &with("labels", json!({"tier": "a b"})),
        &[
            "metadata.labels[tier]: Invalid value: \"a b\": a valid label must be an empty string or",
        ],
    );
    check(
        "label value's length",
        &with("labels", json!({ "tier": long })),
        &["metadata.labels[tier]: Invalid value: \"xxx"],
    );
    check(
        "label key",
        &with("labels", json!({"-a": ""})),
        &["metadata.labels: Invalid value: \"-a\": name part must consist of"],
    );
    check(
        "label prefix",
        &with("labels", json!({"X/a": ""})),
        &["metadata.labels: Invalid value: \"X/a\": prefix part a lowercase RFC 1123 subdomain"],
    );
    check("annotation key in upper case", &with("annotations", json!({"X.Y/a": "any thing"})), &[]);
    check(
        "annotations' size",
        &with("annotations", json!({"a": "x".repeat(262_144)})),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
    let node =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "namespace": "x"}});
    check(
        "a node has no namespace",
        &node,
        &["metadata.namespace: Forbidden: not allowed on this type"],
    );
}

#[test]
fn the_server_owns_identity_and_age() {
    let written = json!({
        "name": "p", "uid": "theirs", "resourceVersion": "7", "generation": 3, "selfLink": "/x",
        "creationTimestamp": null, "managedFields": [{"manager": "kubectl"}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    });
    let first = admitted(&pod(&written, &json!({}))).expect("valid").object;
    let metadata = first.metadata();
    assert_ne!(metadata.uid.as_deref(), Some("theirs"));
    assert_eq!(metadata.uid.as_ref().map(String::len), Some(36), "a UUID");
    assert!(metadata.creation_timestamp.is_some());
    assert_eq!(metadata.namespace.as_deref(), Some("default"));
    assert_eq!(
        (&metadata.resource_version, metadata.generation, &metadata.managed_fields),
        (&None, None, &None)
    );
    assert_eq!(metadata.annotations.as_ref().map(std::collections::BTreeMap::len), Some(1));

    let again = object(&pod(&json!({"name": "p", "labels": {"a": "b"}}), &json!({})));
    let second = admit(again, Some(&first), &mut pools("10.96.0.0/12")).expect("valid").object;
    assert_eq!(second.metadata().uid, metadata.uid);
    assert_eq!(second.metadata().creation_timestamp, metadata.creation_timestamp);
    let json = second.to_value();
    let time = json["metadata"]["creationTimestamp"].as_str().expect("a time");
    assert!(time.len() == 20 && time.ends_with('Z'), "whole seconds: {time}");
}

#[test]
fn a_refusal_reads_as_kubectl_prints_it() {
    let one = admitted(&pod(&json!({"name": "p"}), &json!({"status": {"podIP": "1.2.3"}})));
    assert_eq!(
        one.expect_err("invalid").to_string(),
        "Pod \"p\" is invalid: status.podIPs[0]: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
    );
    let two = json!({"containers": [{"name": "c", "ports": [{"containerPort": 0}, {"containerPort": 1, "protocol": "tcp"}]}]});
    assert_eq!(
        admitted(&pod(&json!({"name": "p"}), &json!({ "spec": two })))
            .expect_err("invalid")
            .to_string(),
        "Pod \"p\" is invalid: \n* spec.containers[0].ports[0].containerPort: Invalid value: 0: must be between 1 and 65535, inclusive\n* spec.containers[0].ports[1].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\""
    );
}

#[test]
fn pods() {
    let status = |status: Value| pod(&json!({"name": "p"}), &json!({ "status": status }));
    let ports = |ports: Value| {
        pod(
            &json!({"name": "p"}),
            &json!({"spec": {"containers": [{"name": "c", "ports": ports}]}}),
        )
    };
    check("nothing but a name", &pod(&json!({"name": "p"}), &json!({})), &[]);
    check("two families", &status(json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]})), &[]);
    check(
        "one family twice",
        &status(json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]})),
        &[
            "status.podIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family",
        ],
    );
    check(
        "fields differ",
        &status(json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}]})),
        &["status.podIP: Invalid value: \"10.0.0.1\": must be the first of `podIPs`"],
    );
    check(
        "mapped",
        &status(json!({"podIP": "::ffff:10.0.0.1"})),
        &[
            "status.podIPs[0]: Invalid value: \"::ffff:10.0.0.1\": must not be an IPv4-mapped IPv6 address",
        ],
    );
    check(
        "leading zeros",
        &status(json!({"podIP": "10.0.0.01"})),
        &["status.podIPs[0]: Invalid value: \"10.0.0.01\": must be a valid IP address"],
    );
    check(
        "port names",
        &ports(
            json!([{"name": "http-1", "containerPort": 1}, {"name": "HTTP", "containerPort": 2}]),
        ),
        &[
            "spec.containers[0].ports[1].name: Invalid value: \"HTTP\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "spec.containers[0].ports[1].name: Invalid value: \"HTTP\": must contain at least one letter (a-z)",
        ],
    );
    check(
        "port name twice",
        &ports(json!([{"name": "a", "containerPort": 1}, {"name": "a", "containerPort": 2}])),
        &["spec.containers[0].ports[1].name: Duplicate value: \"a\""],
    );

    let filled = admitted(&status(json!({"podIP": "10.0.0.1"}))).expect("valid");
    assert_eq!(filled.object.to_value()["status"]["podIPs"], json!([{"ip": "10.0.0.1"}]));
    let filled = admitted(&status(json!({"podIPs": [{"ip": "fd00::1"}, {"ip": "10.0.0.1"}]})));
    assert_eq!(filled.expect("valid").object.to_value()["status"]["podIP"], json!("fd00::1"));
    let loopback =
        admitted(&status(json!({"podIP": "127.0.0.1"}))).expect("valid, as in Kubernetes");
    assert_eq!(
        loopback.warnings,
        ["status.podIPs[0]: \"127.0.0.1\" may not be in the loopback range (127.0.0.0/8, ::1/128)"]
    );
}

fn slice(address_type: &str, rest: &Value) -> Value {
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "s"}, "addressType": address_type,
    });
    let fields = rest.as_object().cloned().unwrap_or_default();
    slice.as_object_mut().expect("an object").extend(fields);
    slice
}

#[test]
fn endpoint_slices() {
    let address =
        |kind: &str, address: &str| slice(kind, &json!({"endpoints": [{"addresses": [address]}]}));
    let field = "endpoints[0].addresses[0]: Invalid value:";
    check("IPv4", &address("IPv4", "10.0.0.1"), &[]);
    check("IPv6", &address("IPv6", "fd00::1"), &[]);
    check("FQDN", &address("FQDN", "db.example.com"), &[]);
    check(
        "no type",
        &address("", "10.0.0.1"),
        &["addressType: Required value: write addressType: IPv4 or IPv6"],
    );
    check(
        "unknown type",
        &address("IP", "10.0.0.1"),
        &["addressType: Unsupported value: \"IP\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""],
    );
    check(
        "other family",
        &address("IPv4", "fd00::1"),
        &[&format!("{field} \"fd00::1\": must be a valid IPv4 address")],
    );
    for (kind, special, range) in [
        ("IPv4", "0.0.0.0", "unspecified"),
        ("IPv4", "127.0.0.1", "in the loopback range"),
        ("IPv4", "169.254.169.254", "in the link-local range"),
        ("IPv4", "224.0.0.9", "in the link-local multicast range"),
        ("IPv6", "::", "unspecified"),
        ("IPv6", "::1", "in the loopback range"),
        ("IPv6", "fe80::1", "in the link-local range"),
        ("IPv6", "ff02::1", "in the link-local multicast range"),
    ] {
        check(
            special,
            &address(kind, special),
            &[&format!("{field} \"{special}\": may not be {range}")],
        );
    }
    check(
        "no address",
        &slice("IPv4", &json!({"endpoints": [{"addresses": []}]})),
        &["endpoints[0].addresses: Required value: must contain at least 1 address"],
    );
    check(
        "101 addresses",
        &slice("IPv4", &json!({"endpoints": [{"addresses": vec!["10.0.0.1"; 101]}]})),
        &["endpoints[0].addresses: Too many: 101: must have at most 100 items"],
    );
    check(
        "1001 endpoints",
        &slice("IPv4", &json!({"endpoints": vec![json!({"addresses": ["10.0.0.1"]}); 1001]})),
        &["endpoints: Too many: 1001: must have at most 1000 items"],
    );
    check(
        "ports",
        &slice("IPv4", &json!({"ports": [{"port": 0}, {"port": 1, "protocol": "X"}]})),
        &[
            "ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "ports[1].name: Duplicate value: \"\"",
            "ports[1].protocol: Unsupported value: \"X\"",
        ],
    );
    let filled = admitted(&slice("IPv4", &json!({"ports": [{"port": 80}]}))).expect("valid").object;
    assert_eq!(filled.to_value()["ports"], json!([{"name": "", "port": 80, "protocol": "TCP"}]));
    let changed =
        admit(object(&slice("IPv6", &json!({}))), Some(&filled), &mut pools("10.96.0.0/12"));
    assert_eq!(causes(changed), ["addressType: Invalid value: \"IPv6\": field is immutable"]);
}

#[test]
fn endpoints_and_nodes() {
    let endpoints = |subset: Value| json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e"}, "subsets": [subset]});
    let good = endpoints(json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}));
    check("good", &good, &[]);
    assert_eq!(
        admitted(&good).expect("valid").object.to_value()["subsets"][0]["ports"][0]["protocol"],
        json!("TCP")
    );
    check(
        "bad",
        &endpoints(
            json!({"addresses": [{"ip": "127.0.0.1"}], "notReadyAddresses": [{"ip": "x", "hostname": "A"}], "ports": [{"port": 80}, {"port": 0, "name": "b"}]}),
        ),
        &[
            "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range",
            "subsets[0].notReadyAddresses[0].ip: Invalid value: \"x\": must be a valid IP address",
            "subsets[0].notReadyAddresses[0].hostname: Invalid value: \"A\": a lowercase RFC 1123 label",
            "subsets[0].ports[0].name: Required value",
            "subsets[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        "empty subset",
        &endpoints(json!({"ports": []})),
        &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
    );
    let node = |addresses: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"addresses": addresses}});
    check(
        "node",
        &node(
            json!([{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}]),
        ),
        &[],
    );
    check(
        "node's address",
        &node(json!([{"type": "InternalIP", "address": "n"}])),
        &["status.addresses[0].address: Invalid value: \"n\": must be a valid IP address"],
    );
}
