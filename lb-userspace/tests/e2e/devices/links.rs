//! TCX links: replaced in place, beside other people's.

use std::path::PathBuf;

use libtest_mimic::Trial;
use rustix::process::Signal;

use super::facts::{await_devices, pinned, program_ids, programs};
use crate::harness::sandbox::{self, LB};
use crate::harness::{Agent, Stage, cases, eventually};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_restart_replaces_programs_in_place_beside_others,
        a_takeover_replaces_them_when_it_is_complete,
        cleanup_detaches_ours_and_leaves_others,
        packets_go_on_to_other_peoples_filters,
    ]
}

fn stage_with_a_way_out() -> Stage {
    let mut stage = Stage::without_agent();
    stage.node.ip("route add default dev eth0");
    stage.agent.start();
    await_devices(&stage.agent, &["eth0 tcx"]);
    stage
}

/// Another agent on this node, whose programs are others' to the first.
fn another(stage: &Stage) -> Agent {
    let inside = stage.cgroup.child("another");
    let mut other = stage.another_agent(&inside.path);
    other.start();
    await_devices(&other, &["eth0 tcx"]);
    // It lives no longer than the stage.
    std::mem::forget(inside);
    other
}

fn a_restart_replaces_programs_in_place_beside_others() {
    let mut stage = stage_with_a_way_out();
    let ours = program_ids(&stage.node, "eth0");
    let other = another(&stage);
    let both = program_ids(&stage.node, "eth0");
    assert_eq!(both.len(), 4, "two each way: {both:?}");
    let links = pinned(&stage.agent);
    assert_eq!(links.len(), 2, "{links:?}");
    for signal in [Signal::TERM, Signal::KILL, Signal::TERM] {
        let before = program_ids(&stage.node, "eth0");
        if signal == Signal::KILL {
            stage.agent.kill_nine();
        } else {
            assert_eq!(stage.agent.stop(signal), 0);
        }
        assert_eq!(program_ids(&stage.node, "eth0"), before, "with no agent running");
        stage.agent.start();
        await_devices(&stage.agent, &["eth0 tcx"]);
        assert_eq!(pinned(&stage.agent), links, "the same links after {signal:?}");
        let after = program_ids(&stage.node, "eth0");
        for (place, (before, after)) in before.iter().zip(&after).enumerate() {
            // The other agent came later, so that its programs are first.
            let is_ours = place % 2 == 1;
            assert_eq!(before != after, is_ours, "{place}: {before} became {after}");
        }
        assert_eq!(after.len(), 4, "as many as before: {after:?}");
    }
    drop(other);
    eventually("the other's are gone", || match program_ids(&stage.node, "eth0").len() {
        2 => Ok(()),
        count => Err(format!("{count} programs")),
    });
    assert_ne!(program_ids(&stage.node, "eth0"), ours, "they were replaced");
}

fn a_takeover_replaces_them_when_it_is_complete() {
    let mut stage = stage_with_a_way_out();
    let links = pinned(&stage.agent);
    let folder = stage.agent.paths.manifests.clone();
    let away = folder.with_extension("away");
    for binary in [sandbox::next_lb(), PathBuf::from(LB)] {
        let before = program_ids(&stage.node, "eth0");
        std::fs::rename(&folder, &away).expect("the manifests directory is the test's own");
        stage.agent.kill_nine();
        stage.agent.binary = binary;
        stage.agent.start();
        assert!(stage.agent.status().taking_over().is_some(), "it waits for its source");
        assert_eq!(program_ids(&stage.node, "eth0"), before, "the former programs decide");
        stage.node.ip("link add br0 type bridge");
        let waits = "br0 waits until every source has been read inside";
        await_devices(&stage.agent, &[waits, "eth0 tcx"]);

        std::fs::rename(&away, &folder).expect("the manifests directory is the test's own");
        await_devices(&stage.agent, &["br0 tcx inside", "eth0 tcx"]);
        let after = program_ids(&stage.node, "eth0");
        assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{after:?}");
        assert_eq!(after.len(), 2, "one each way");
        stage.node.ip("link del br0");
        await_devices(&stage.agent, &["eth0 tcx"]);
        assert_eq!(pinned(&stage.agent), links, "the same links");
    }
}

fn cleanup_detaches_ours_and_leaves_others() {
    let mut stage = stage_with_a_way_out();
    let other = another(&stage);
    stage.agent.kill_nine();
    stage.agent.cleanup(&[]).ok();
    assert_eq!(programs(&stage.node, "eth0"), ["tc_ingress", "tc_egress"], "the other's");
    assert!(pinned(&stage.agent).is_empty(), "{:?}", pinned(&stage.agent));
    await_devices(&other, &["eth0 tcx"]);
}

fn packets_go_on_to_other_peoples_filters() {
    let stage = stage_with_a_way_out();
    stage.node.tc("qdisc add dev eth0 clsact");
    stage
        .node
        .tc("filter add dev eth0 egress u32 match u32 0 0 action mirred egress mirror dev lo");
    let socket = stage.node.run(|| std::net::UdpSocket::bind("10.244.0.1:0")).expect("a socket");
    let seen = || {
        let listed = stage.node.tc("filter show dev eth0 egress");
        let actions = listed.as_array().into_iter().flatten();
        let counts = actions
            .filter_map(|filter| filter["options"]["actions"][0]["stats"]["packets"].as_u64());
        counts.sum::<u64>()
    };
    let before = seen();
    for _ in 0..10 {
        socket.send_to(b"?", "10.244.1.77:9").expect("sent");
    }
    eventually("they see packets that ours leave alone", || match seen() - before {
        0 => Err("none so far".to_owned()),
        _ => Ok(()),
    });
}
