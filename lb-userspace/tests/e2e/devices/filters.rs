//! Filters, where there are no TCX links: they stay, are found again, and go without a trace.

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use super::facts::{await_devices, pinned, programs};
use crate::harness::netns::Namespace;
use crate::harness::{Stage, cases};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        filters_outlive_the_agent_and_are_replaced_in_place,
        filters_of_two_agents_and_of_others_live_side_by_side,
        cleanup_leaves_no_filter_and_no_discipline,
        a_discipline_of_others_stays,
        filters_follow_devices,
        an_agent_that_attaches_otherwise_leaves_one_of_each,
    ]
}

const FILTERS: [&str; 2] = ["--tc-attach", "netlink"];

fn stage_with_a_way_out() -> Stage {
    let mut stage = Stage::without_agent();
    stage.node.ip("route add default dev eth0");
    stage.agent.set_options(&FILTERS);
    stage
}

/// The filters of kind bpf: priority, handle, id of the program, and the name of both.
#[track_caller]
fn filters(node: &Namespace, device: &str, way: &str) -> Vec<(u64, String, u64, String)> {
    let listed = node.tc(&format!("filter show dev {device} {way}"));
    let filters = listed.as_array().into_iter().flatten();
    filters
        .filter(|filter| filter["kind"] == "bpf" && filter["options"]["handle"].is_string())
        .map(|filter| {
            let options = &filter["options"];
            let name = options["prog"]["name"].as_str().unwrap_or_default();
            (
                filter["pref"].as_u64().unwrap_or_default(),
                options["handle"].as_str().unwrap_or_default().to_owned(),
                options["prog"]["id"].as_u64().unwrap_or_default(),
                format!("{} {name}", options["bpf_name"].as_str().unwrap_or_default()),
            )
        })
        .collect()
}

#[track_caller]
fn disciplines(node: &Namespace, device: &str) -> Vec<String> {
    let listed = node.tc(&format!("qdisc show dev {device}"));
    let kinds = listed.as_array().into_iter().flatten().filter_map(|qdisc| qdisc["kind"].as_str());
    kinds.filter(|kind| *kind == "clsact").map(str::to_owned).collect()
}

fn filters_outlive_the_agent_and_are_replaced_in_place() {
    let mut stage = stage_with_a_way_out();
    stage.agent.start();
    await_devices(&stage.agent, &["eth0 filter"]);
    stage.agent.lb(&["status"]).ok().mentions(&["eth0 (filter)"]);
    assert!(programs(&stage.node, "eth0").is_empty(), "no TCX link");
    let name = format!("lb:{}", stage.agent.paths.bpffs.display());
    for (way, program) in [("ingress", "tc_ingress"), ("egress", "tc_egress")] {
        let found = filters(&stage.node, "eth0", way);
        let [(_, _, _, named)] = &found[..] else { panic!("one filter: {found:?}") };
        assert_eq!(*named, format!("{name} {program}"));
    }
    for signal in [Signal::TERM, Signal::KILL] {
        for way in ["ingress", "egress"] {
            let before = filters(&stage.node, "eth0", way);
            if signal == Signal::KILL {
                stage.agent.kill_nine();
            } else {
                assert_eq!(stage.agent.stop(signal), 0);
            }
            assert_eq!(filters(&stage.node, "eth0", way), before, "with no agent running");
            stage.agent.start();
            await_devices(&stage.agent, &["eth0 filter"]);
            let after = filters(&stage.node, "eth0", way);
            let [(priority, handle, id, _)] = &after[..] else { panic!("one: {after:?}") };
            assert_eq!((*priority, handle), (before[0].0, &before[0].1), "{way}: the same place");
            assert_ne!(*id, before[0].2, "{way}: another program");
        }
    }
}

fn filters_of_two_agents_and_of_others_live_side_by_side() {
    let mut stage = stage_with_a_way_out();
    stage.node.tc("qdisc add dev eth0 clsact");
    stage.node.tc("filter add dev eth0 ingress prio 5 u32 match u32 0 0 flowid :1");
    let theirs = |stage: &Stage| {
        let listed = stage.node.tc("filter show dev eth0 ingress");
        let all = listed.as_array().into_iter().flatten();
        all.filter(|filter| filter["kind"] == "u32").count()
    };
    let before = theirs(&stage);
    stage.agent.start();
    await_devices(&stage.agent, &["eth0 filter"]);
    let inside = stage.cgroup.child("another");
    let mut other = stage.another_agent(&inside.path);
    other.set_options(&FILTERS);
    other.start();
    await_devices(&other, &["eth0 filter"]);
    let both = filters(&stage.node, "eth0", "ingress");
    assert_eq!(both.len(), 2, "one of each agent: {both:?}");
    assert_eq!(both[0].0, both[1].0, "of one priority");

    stage.agent.kill_nine();
    stage.agent.cleanup(&[]).ok();
    let left = filters(&stage.node, "eth0", "ingress");
    assert!(left.len() == 1 && both.contains(&left[0]), "the other agent's: {left:?}");
    assert_eq!(theirs(&stage), before, "other people's");
    other.kill_nine();
    other.cleanup(&[]).ok();
    assert_eq!(filters(&stage.node, "eth0", "ingress"), []);
    assert_eq!(theirs(&stage), before, "other people's");
    assert_eq!(disciplines(&stage.node, "eth0"), ["clsact"], "it was there before");
}

fn cleanup_leaves_no_filter_and_no_discipline() {
    let mut stage = stage_with_a_way_out();
    for restarts in 0..2 {
        for _ in 0..=restarts {
            stage.agent.start();
            await_devices(&stage.agent, &["eth0 filter"]);
            assert_eq!(disciplines(&stage.node, "eth0"), ["clsact"]);
            stage.agent.kill_nine();
        }
        let said = stage.agent.cleanup(&[]).ok();
        said.mentions(&["removed the filters from 1 network devices"]);
        assert_eq!(disciplines(&stage.node, "eth0"), [""; 0], "after {restarts} restarts");
        let left: Vec<_> =
            std::fs::read_dir(&stage.agent.paths.bpffs).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "pins are left: {left:?}");
    }
}

/// Ours, but in use by somebody else; theirs, and empty.
fn a_discipline_of_others_stays() {
    let mut stage = stage_with_a_way_out();
    stage.agent.start();
    await_devices(&stage.agent, &["eth0 filter"]);
    stage.node.tc("filter add dev eth0 egress prio 5 u32 match u32 0 0 flowid :1");
    stage.agent.kill_nine();
    stage.agent.cleanup(&[]).ok();
    assert_eq!(disciplines(&stage.node, "eth0"), ["clsact"], "somebody has a filter there");

    stage.node.tc("filter del dev eth0 egress prio 5");
    stage.agent.start();
    await_devices(&stage.agent, &["eth0 filter"]);
    stage.agent.kill_nine();
    stage.agent.cleanup(&[]).ok();
    assert_eq!(disciplines(&stage.node, "eth0"), ["clsact"], "it was there before the agent");
    assert_eq!(filters(&stage.node, "eth0", "egress"), []);
}

fn filters_follow_devices() {
    let mut stage = stage_with_a_way_out();
    stage.agent.start();
    let again = "link del br0\nlink add br0 index 77 type bridge";
    stage.node.ip("link add br0 index 77 type bridge");
    await_devices(&stage.agent, &["br0 filter inside", "eth0 filter"]);
    for round in 0..3 {
        stage.node.ip(again);
        crate::harness::eventually(&format!("br0 has a filter, round {round}"), || match filters(
            &stage.node,
            "br0",
            "ingress",
        )
        .len()
        {
            1 => Ok(()),
            count => Err(format!("{count} filters")),
        });
    }
    stage.node.ip("link del br0\nroute del default");
    await_devices(&stage.agent, &[]);
    assert_eq!(disciplines(&stage.node, "eth0"), [""; 0], "it was ours");
    assert!(pinned(&stage.agent).is_empty(), "{:?}", pinned(&stage.agent));
}

fn an_agent_that_attaches_otherwise_leaves_one_of_each() {
    let mut stage = stage_with_a_way_out();
    stage.agent.start();
    await_devices(&stage.agent, &["eth0 filter"]);
    for (options, attached, by_link, by_filter) in
        [(&[][..], "eth0 tcx", 2, 0), (&FILTERS[..], "eth0 filter", 0, 1)]
    {
        stage.agent.kill_nine();
        stage.agent.set_options(options);
        stage.agent.start();
        await_devices(&stage.agent, &[attached]);
        assert_eq!(programs(&stage.node, "eth0").len(), by_link, "{attached}");
        assert_eq!(filters(&stage.node, "eth0", "ingress").len(), by_filter, "{attached}");
        let kept = stage.node.tc("qdisc show dev eth0") != Value::Null;
        assert!(kept, "the device is there");
        assert_eq!(disciplines(&stage.node, "eth0").len(), by_filter, "{attached}");
    }
}
