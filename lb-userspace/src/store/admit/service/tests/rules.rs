//! What is filled in, and what is refused.

use serde_json::{Value, json};

use super::{DUAL, Store, V4, named, refused, web};
use crate::store::admit::admit;
use crate::store::admit::tests::{object as object_of, pools};

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
fn the_status_of_a_load_balancer_is_validated_and_of_others_dropped() {
    let apply = |service_type: &str, ingress: Value| {
        let mut object = named("a", &web(&json!({"type": service_type}))).to_value();
        object["status"] = json!({"loadBalancer": {"ingress": ingress}});
        admit(object_of(&object), None, &mut pools(V4))
    };
    let ingress = json!([{"ip": "192.0.2.1"}, {"hostname": "lb.example.com"}, {"ip": "127.0.0.1"}]);
    let admitted = apply("LoadBalancer", ingress.clone()).expect("a valid status");
    let status = &admitted.object.to_value()["status"]["loadBalancer"]["ingress"];
    assert_eq!(status[0], json!({"ip": "192.0.2.1", "ipMode": "VIP"}));
    assert_eq!(status[1], json!({"hostname": "lb.example.com"}));
    let warning = "status.loadBalancer.ingress[2].ip: 127.0.0.1 is not served: may not be in the \
                   loopback range (127.0.0.0/8, ::1/128)";
    assert!(admitted.warnings.iter().any(|text| text == warning), "{:?}", admitted.warnings);

    let admitted = apply("NodePort", ingress).expect("a status that does not count");
    assert_eq!(admitted.object.to_value()["status"], json!({"loadBalancer": {}}));

    for (ingress, cause) in [
        (json!({"ip": "x"}), "ip: Invalid value: \"x\": must be a valid IP address"),
        (
            json!({"ip": "192.0.2.1", "ipMode": "vip"}),
            "ipMode: Unsupported value: \"vip\": supported values: \"Proxy\", \"VIP\"",
        ),
        (
            json!({"hostname": "a.b", "ipMode": "VIP"}),
            "ipMode: Forbidden: may not be specified when `ip` is not set",
        ),
        (
            json!({"hostname": "192.0.2.1"}),
            "hostname: Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address",
        ),
    ] {
        let text = apply("LoadBalancer", json!([ingress])).expect_err(cause).to_string();
        assert!(text.contains(&format!("status.loadBalancer.ingress[0].{cause}")), "{text}");
    }
}

#[test]
fn what_is_served_for_some_clients_only_is_said() {
    let table = [
        (json!({}), vec![]),
        (json!({"sessionAffinity": "ClientIP"}), vec![]),
        (json!({"type": "NodePort"}), vec![]),
        (json!({"externalIPs": ["192.0.2.1"]}), vec![]),
        (
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"]}),
            vec!["spec.loadBalancerSourceRanges is not applied to clients on this node"],
        ),
        (
            json!({"clusterIP": "None", "externalIPs": ["192.0.2.1"]}),
            vec!["spec.externalIPs is ignored when spec.clusterIP is \"None\""],
        ),
    ];
    for (fields, expected) in table {
        let admitted = admit(named("a", &web(&fields)), None, &mut pools(V4)).expect("valid");
        assert_eq!(admitted.warnings, expected, "{fields}");
    }
}

#[test]
fn annotations_that_decide_how_a_service_is_served_are_validated() {
    const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let balancer = || web(&json!({"type": "LoadBalancer"}));
    let narrowed =
        web(&json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"]}));
    let rule = "must be a list of IP ranges. For example, 10.240.0.0/24,10.250.0.0/24 ";
    let algorithm = "Unsupported value: \"Maglev\": supported values: \"maglev\", \"random\"";
    let cases = [
        ("lb.algorithm", "maglev", web(&json!({})), None),
        ("lb.algorithm", "random", web(&json!({})), None),
        ("lb.algorithm", "Maglev", web(&json!({})), Some(algorithm.to_owned())),
        (RANGES, " 192.0.2.0/24, 2001:db8::/32 ", balancer(), None),
        (RANGES, "", balancer(), None),
        (RANGES, "no range", narrowed, None),
        (
            RANGES,
            "192.0.2.0/24,",
            balancer(),
            Some(format!("Invalid value: \"192.0.2.0/24,\": {rule}")),
        ),
        (
            RANGES,
            "192.0.2.0/24",
            web(&json!({})),
            Some("Forbidden: may only be used when `type` is 'LoadBalancer'".to_owned()),
        ),
    ];
    for (name, value, spec, problem) in cases {
        let mut annotated = named("a", &spec).to_value();
        annotated["metadata"]["annotations"] = json!({ name: value });
        let found = match admit(object_of(&annotated), None, &mut pools(V4)) {
            Ok(_) => Vec::new(),
            Err(invalid) => invalid.causes.iter().map(ToString::to_string).collect(),
        };
        let expected: Vec<_> =
            problem.into_iter().map(|it| format!("metadata.annotations[{name}]: {it}")).collect();
        assert_eq!(found, expected, "{name}: {value}");
    }
}
