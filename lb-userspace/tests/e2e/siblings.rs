//! Several agents on one machine, each with its own cgroup, side by side or one inside the other.

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::cgroup::Cgroup;
use crate::harness::{Listen, Stage, cases, sandbox, service};
use crate::probe::{Errno, Kind, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        two_agents_serve_the_same_address_differently_and_undisturbed,
        cleanup_of_one_agent_leaves_the_other,
        an_agent_inside_anothers_cgroup_adds_its_services_to_the_others,
    ]
}

/// The Service `web` at an address both agents give out.
const WEB: &str = "clusterIP: 10.96.0.220, selector: {app: web}, ports: [{port: 80}]";

fn two_agents_serve_the_same_address_differently_and_undisturbed() {
    let (mut left, mut right) = (Stage::start(), Stage::start());
    for (stage, pod) in [(&mut left, "pod-left"), (&mut right, "pod-right")] {
        let pod = stage.pod(pod, "web", &[Listen::Tcp(80)]);
        stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    }
    let web = left.frontend("web", 80);
    assert_eq!(right.frontend("web", 80), web, "both gave the address asked for");
    let load = left.probe();
    load.load_start(Kind::Tcp4, web);
    assert_eq!(right.probe().burst(Kind::Tcp4, web, 50).by("pod-right"), 50, "the right one's");
    right.agent.delete("svc", "web");
    assert_refused("the right one's", right.probe().tcp(web), Errno::HOST_UNREACHABLE);
    right.agent.kill_nine();
    right.agent.start();
    assert_eq!(right.agent.stop(Signal::TERM), 0);
    let tallies = load.load_stop();
    tallies[0].assert_all_answered("the left one's connections, whatever the right one does");
    assert_eq!(tallies[0].by("pod-left"), tallies[0].answered(), "its own pod: {:?}", tallies[0]);
}

fn cleanup_of_one_agent_leaves_the_other() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    let web = stage.frontend("web", 80);
    let load = stage.probe();
    load.load_start(Kind::Tcp4, web);
    let sandbox = sandbox::get();
    let beside = Cgroup::new(&sandbox.cgroup_root, sandbox.next_number());
    let mut other = stage.another_agent(&beside.path);
    other.start();
    other.kill_nine();
    other.cleanup(&[]).ok();
    load.load_stop()[0].assert_all_answered("connections beside another agent's whole life");
    let seen = stage.probe().tcp(web);
    assert_eq!(seen, Ok(Visit { pod: "pod-a".to_owned(), peer: web }));
    stage.apply(&[&service("more", "ports: [{port: 80}]")]);
}

/// The inner agent's programs run first; the outer one finds an address that is translated, or a
/// call that is refused, and leaves both alone.
fn an_agent_inside_anothers_cgroup_adds_its_services_to_the_others() {
    let mut stage = Stage::start();
    let outer_pod = stage.pod("pod-outer", "web", &[Listen::Tcp(80), Listen::Udp(80)]);
    let inner_pod = stage.pod("pod-inner", "web", &[Listen::Tcp(80), Listen::Udp(80)]);
    let both = "selector: {app: web}, ports: [
        {name: tcp, port: 80}, {name: udp, port: 80, protocol: UDP}]";
    stage.apply(&[&outer_pod.manifest(), &service("outer", both)]);
    let inside = stage.cgroup.child("inner");
    let mut inner = stage.another_agent(&inside.path);
    "10.200.0.0/16".clone_into(&mut inner.service_cidrs);
    inner.start();
    let at = format!("clusterIP: 10.200.0.20, {both}");
    inner.apply(&[&inner_pod.manifest(), &service("inner", &at)]);

    let outer = stage.frontend("outer", 80);
    let inner_vip = "10.200.0.20:80".parse().expect("an address");
    let probe = stage.probe_in(&inside.path);
    for (to, pod) in [(outer, "pod-outer"), (inner_vip, "pod-inner")] {
        let seen = Ok(Visit { pod: pod.to_owned(), peer: to });
        assert_eq!(probe.tcp(to), seen, "TCP to {to}");
        assert_eq!(probe.udp(to), seen, "connected UDP to {to}");
        assert_eq!(probe.udp_unconnected(to), seen, "unconnected UDP to {to}");
    }
    for nobody in ["10.200.9.9:80", "10.96.9.9:80"] {
        let to = nobody.parse().expect("an address");
        assert_refused(nobody, probe.tcp(to), Errno::HOST_UNREACHABLE);
    }
    let only_outer = stage.probe();
    assert_refused("outside the inner cgroup", only_outer.tcp(inner_vip), Errno::NET_UNREACHABLE);
    drop(inner);
}
