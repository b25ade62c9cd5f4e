//! Names elsewhere: who is asked, who may ask, and what happens when nobody answers.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::harness::names::{Manner, Upstream};
use crate::harness::{Stage, cases, service};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_name_elsewhere_is_asked_for_upstream_and_remembered,
        an_alias_of_a_name_elsewhere_is_followed,
        a_dead_upstream_is_passed_over_and_delays_no_name_of_the_cluster,
        a_stranger_is_refused_unless_allowed,
        a_workload_in_another_namespace_of_this_node_is_no_stranger,
        an_upstream_that_leads_back_here_is_not_asked,
    ]
}

const EXAMPLE: &str = "www.example.com A";

fn with_upstreams(upstreams: &[Manner], options: &[&str]) -> (Stage, Vec<Upstream>) {
    let mut stage = Stage::without_agent();
    let upstreams: Vec<Upstream> =
        upstreams.iter().map(|manner| Upstream::start(&stage.node, *manner)).collect();
    let list: Vec<String> = upstreams.iter().map(|upstream| upstream.at.to_string()).collect();
    let list = list.join(",");
    stage.agent.names = true;
    stage.agent.set_options(&[&["--dns-upstream", &list], options].concat());
    stage.agent.start();
    (stage, upstreams)
}

const SOMEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn a_name_elsewhere_is_asked_for_upstream_and_remembered() {
    let (stage, upstreams) = with_upstreams(&[Manner::Answers(SOMEWHERE)], &[]);
    for _ in 0..5 {
        assert_eq!(stage.dig(EXAMPLE), [SOMEWHERE.to_string()]);
    }
    assert_eq!(stage.dig("WWW.Example.Com A +tcp"), [SOMEWHERE.to_string()]);
    assert_eq!(upstreams[0].asked(), 1, "the rest came from memory");
    assert_eq!(stage.dig_status(&stage.node, "www.example.com +norecurse"), "REFUSED");
}

fn an_alias_of_a_name_elsewhere_is_followed() {
    let (stage, _upstreams) = with_upstreams(&[Manner::Answers(SOMEWHERE)], &[]);
    stage.apply(&[&service("out", "type: ExternalName, externalName: db.example.com")]);
    let found = stage.dig("out.default.svc.cluster.local A");
    assert_eq!(found, [SOMEWHERE.to_string(), "db.example.com.".to_owned()]);
}

fn a_dead_upstream_is_passed_over_and_delays_no_name_of_the_cluster() {
    for (upstreams, status) in [
        (&[Manner::Silent, Manner::Answers(SOMEWHERE)][..], "NOERROR"),
        (&[Manner::Refuses, Manner::Answers(SOMEWHERE)], "NOERROR"),
        (&[Manner::Silent, Manner::Silent], "SERVFAIL"),
    ] {
        let (stage, _upstreams) = with_upstreams(upstreams, &[]);
        stage.apply(&[&service("web", "clusterIP: 10.96.7.7, ports: [{port: 80}]")]);
        let patient = "+time=15 +tries=1 www.example.com";
        assert_eq!(stage.dig_status(&stage.node, patient), status, "{upstreams:?}");
        std::thread::scope(|scope| {
            let other = "+time=15 +tries=1 other.example.com";
            let waiting = scope.spawn(|| stage.dig_status(&stage.node, other));
            assert_eq!(stage.dig("web.default.svc.cluster.local A"), ["10.96.7.7"]);
            if status == "SERVFAIL" {
                assert!(!waiting.is_finished(), "it waits for its upstreams, and nobody else does");
            }
            assert_eq!(waiting.join().expect("no panic"), status, "{upstreams:?}");
        });
    }
}

fn a_stranger_is_refused_unless_allowed() {
    for (options, expected) in
        [(&[][..], "REFUSED"), (&["--dns-allow", "203.0.113.0/24"], "NOERROR")]
    {
        let (mut stage, _upstreams) = with_upstreams(&[Manner::Answers(SOMEWHERE)], options);
        stage.strangers(1);
        stage.apply(&[&service("web", "clusterIP: 10.96.7.7, ports: [{port: 80}]")]);
        let server = stage.names_listener();
        for name in ["www.example.com", "web.default.svc.cluster.local"] {
            let question = format!("@{} -p {} -b 203.0.113.1 {name}", server.ip(), server.port());
            assert_eq!(stage.dig_status(stage.pods(), &question), expected, "{name}");
        }
    }
}

fn a_workload_in_another_namespace_of_this_node_is_no_stranger() {
    let (mut stage, _upstreams) = with_upstreams(&[Manner::Answers(SOMEWHERE)], &[]);
    let pod = stage.pod("client", "client", &[]);
    stage.apply(&[&service("web", "clusterIP: 10.96.7.7, ports: [{port: 80}]")]);
    for name in ["www.example.com", "web.default.svc.cluster.local"] {
        for transport in ["+notcp", "+tcp"] {
            let question = format!("-b {} {transport} {name}", pod.v4);
            assert_eq!(stage.dig_status(stage.pods(), &question), "NOERROR", "{question}");
        }
    }
}

/// Its own ClusterIP, as on a node whose own resolver was pointed at the cluster's.
fn an_upstream_that_leads_back_here_is_not_asked() {
    let mut stage = Stage::without_agent();
    stage.agent.names = true;
    stage.agent.set_options(&["--dns-upstream", "10.96.0.10"]);
    stage.agent.start();
    stage.apply(&[&service("web", "clusterIP: 10.96.7.7, ports: [{port: 80}]")]);
    let start = Instant::now();
    assert_eq!(stage.dig_status(&stage.node, EXAMPLE), "SERVFAIL");
    assert!(start.elapsed() < Duration::from_secs(30), "at once: {:?}", start.elapsed());
    assert_eq!(stage.dig("web.default.svc.cluster.local A"), ["10.96.7.7"]);
    let status = stage.agent.lb(&["status", "-o", "json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(status["dns"]["elsewhere"]["upstreams"][0]["state"], "own", "{status}");
    stage.agent.lb(&["status"]).ok().mentions(&["not used: it is this server"]);
}
