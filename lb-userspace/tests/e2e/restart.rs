//! An agent that ends and starts again: traffic goes on, nothing changes that need not.

use std::collections::BTreeSet;
use std::sync::Mutex;

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::manifest::documents;
use crate::harness::{Listen, Stage, cases, command, eventually, service};
use crate::probe::{Errno, Kind, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        traffic_goes_on_over_a_restart_after_sigterm,
        traffic_goes_on_over_a_restart_after_sigkill,
        repeated_kills_under_load_fail_no_connection,
        udp_sockets_are_answered_by_their_vip_over_a_restart,
        slots_taken_before_a_restart_are_given_back_after_it,
        an_object_deleted_before_a_kill_stays_deleted,
        sigterm_in_a_burst_of_changes_loses_nothing_acknowledged,
        sigint_in_a_burst_of_changes_loses_nothing_acknowledged,
        sigkill_in_a_burst_of_changes_loses_nothing_acknowledged,
    ]
}

const WEB: &str = "ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [
    {name: tcp, port: 80}, {name: udp, port: 53, protocol: UDP}]";

/// A stage with the Service `web`, served by two pods.
fn stage_with_web() -> Stage {
    let mut stage = Stage::start();
    let listen = [Listen::Tcp(80), Listen::Udp(53)];
    let pods = ["pod-a", "pod-b"].map(|name| stage.pod(name, "web", &listen).manifest());
    stage.apply(&[&pods[0], &pods[1], &service("web", WEB)]);
    stage
}

/// Ends the running agent; one that is asked to does so with exit code 0.
fn end(stage: &mut Stage, signal: Signal) {
    if signal == Signal::KILL {
        stage.agent.kill_nine();
    } else {
        assert_eq!(stage.agent.stop(signal), 0, "exit code after {signal:?}");
    }
}

fn assert_traffic_goes_on(signal: Signal) {
    let mut stage = stage_with_web();
    let (web, before) = (stage.frontend("web", 80), stage.agent.get("svc", "web"));
    let (load, probe) = (stage.probe(), stage.probe());
    let held = probe.open(Kind::Tcp4);
    held.connect(web).expect("connect before the restart");
    held.greeting().expect("a greeting");
    load.load_start(Kind::Tcp4, web);

    end(&mut stage, signal);
    load.load_mark();
    let dead = probe.burst(Kind::Tcp4, web, 200);
    dead.assert_all_answered("200 connections with no agent running");
    assert_eq!(dead.answers.len(), 2, "both pods, with no agent running: {dead:?}");
    assert_eq!(held.peer(), Ok(web), "getpeername with no agent running");
    load.load_mark();
    stage.agent.start();
    assert_eq!(held.peer(), Ok(web), "getpeername after the restart");
    assert_eq!(held.echo("still there?").as_deref(), Ok("still there?"), "after the restart");
    probe.burst(Kind::Tcp4, web, 200).assert_all_answered("200 connections after the restart");

    let tallies = load.load_stop();
    for (when, tally) in ["while it ended", "while dead", "while it started"].iter().zip(&tallies) {
        tally.assert_all_answered(&format!("connections {when}"));
    }
    assert_eq!(stage.agent.get("svc", "web"), before, "the Service after the restart");
    assert_eq!(stage.agent.status().objects("pods"), 2, "pods after the restart");
    stage.agent.try_apply(&[&service("web", WEB)]).ok().says("service/web unchanged");
}

fn traffic_goes_on_over_a_restart_after_sigterm() {
    assert_traffic_goes_on(Signal::TERM);
}

fn traffic_goes_on_over_a_restart_after_sigkill() {
    assert_traffic_goes_on(Signal::KILL);
}

fn repeated_kills_under_load_fail_no_connection() {
    let mut stage = stage_with_web();
    let web = stage.frontend("web", 80);
    let load = stage.probe();
    load.load_start(Kind::Tcp4, web);
    for round in 0..5 {
        stage.agent.kill_nine();
        stage.agent.start();
        // Something to do for each new agent, so that its tables are put to the test.
        let name = format!("round-{round}");
        stage.apply(&[&service(&name, "selector: {app: web}, ports: [{port: 80}]")]);
        let to = stage.frontend(&name, 80);
        let tally = stage.probe().burst(Kind::Tcp4, to, 20);
        tally.assert_all_answered(&format!("a Service made after {} kills", round + 1));
    }
    load.load_stop()[0].assert_all_answered("connections over five kills and restarts");
    assert_eq!(stage.frontend("web", 80), web, "the ClusterIP after five kills");
}

fn udp_sockets_are_answered_by_their_vip_over_a_restart() {
    let mut stage = stage_with_web();
    let dns = stage.frontend("web", 53);
    let probe = stage.probe();
    let (connected, unconnected) = (probe.open(Kind::Udp4), probe.open(Kind::Udp4));
    connected.connect(dns).expect("connect");
    unconnected.send_to(dns, "?").expect("sendto");
    let kept = unconnected.receive().expect("an answer");
    for when in ["dead", "restarted"] {
        if when == "dead" {
            stage.agent.kill_nine();
        } else {
            stage.agent.start();
        }
        connected.send("?").expect("send");
        assert_eq!(connected.receive().map(|visit| visit.peer), Ok(dns), "connected, {when}");
        unconnected.send_to(dns, "?").expect("sendto");
        assert_eq!(unconnected.receive().as_ref(), Ok(&kept), "the same backend, {when}");
    }
}

fn slots_taken_before_a_restart_are_given_back_after_it() {
    let mut stage = stage_with_web();
    let web = stage.frontend("web", 80);
    let probe = stage.probe();
    let before = stage.agent.status().used("ORIGIN");
    let sockets: Vec<_> = (0..50).map(|_| probe.open(Kind::Tcp4)).collect();
    sockets.iter().for_each(|socket| socket.connect(web).expect("connect"));
    stage.agent.kill_nine();
    stage.agent.start();
    assert_eq!(stage.agent.status().used("ORIGIN") - before, 50, "after the restart");
    drop(sockets);
    eventually("the slots are given back", || match stage.agent.status().used("ORIGIN") {
        now if now == before => Ok(()),
        now => Err(format!("ORIGIN used {now}, {before} before")),
    });
}

fn an_object_deleted_before_a_kill_stays_deleted() {
    let mut stage = stage_with_web();
    let web = stage.frontend("web", 80);
    stage.agent.delete("svc", "web");
    stage.agent.kill_nine();
    stage.agent.start();
    stage.agent.lb(&["get", "svc", "web"]).refused();
    let refused = stage.probe().tcp(web);
    assert_refused("deleted", refused, Errno::HOST_UNREACHABLE);
}

const BATCH: usize = 10;
const BATCHES: usize = 60;

/// What `lb apply` has acknowledged exists after the restart, each Service with an address of its
/// own, and is served.
fn assert_acknowledged_survives(signal: Signal) {
    let mut stage = stage_with_web();
    let acknowledged = Mutex::new(BTreeSet::new());
    let commands: Vec<_> =
        (0..BATCHES).map(|_| stage.agent.client(&["apply", "-f", "-"])).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| apply_batches(commands, &acknowledged));
        eventually("some changes are acknowledged", || {
            let count = acknowledged.lock().expect("no panic holds it").len();
            if count >= 5 * BATCH { Ok(()) } else { Err(format!("{count} so far")) }
        });
        end(&mut stage, signal);
    });
    let acknowledged = acknowledged.into_inner().expect("no panic holds it");
    assert!(acknowledged.len() < BATCH * BATCHES, "the signal came in the middle of the burst");

    stage.agent.start();
    let list = stage.agent.get_all("svc");
    let address = |name: &str| {
        let item = list.iter().find(|item| item["metadata"]["name"] == name);
        item.and_then(|item| item["spec"]["clusterIP"].as_str().map(str::to_owned))
    };
    let lost: Vec<_> = acknowledged.iter().filter(|name| address(name).is_none()).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let addresses: BTreeSet<_> =
        list.iter().map(|item| item["spec"]["clusterIP"].to_string()).collect();
    assert_eq!(addresses.len(), list.len(), "every Service has an address of its own: {list:?}");
    let probe = stage.probe();
    for name in &acknowledged {
        let to = on_port_80(&address(name).expect("not lost"));
        let peer = probe.tcp(to).map(|Visit { peer, .. }| peer);
        assert_eq!(peer, Ok(to), "{name}, acknowledged before {signal:?}");
    }
}

fn on_port_80(vip: &str) -> std::net::SocketAddr {
    std::net::SocketAddr::new(vip.parse().expect("a ClusterIP"), 80)
}

fn apply_batches(commands: Vec<std::process::Command>, acknowledged: &Mutex<BTreeSet<String>>) {
    for (batch, command) in commands.into_iter().enumerate() {
        let names: Vec<_> = (0..BATCH).map(|number| format!("burst-{batch}-{number}")).collect();
        let spec = "selector: {app: web}, ports: [{port: 80}]";
        let text = documents(names.iter().map(|name| service(name, spec)));
        let output = command::run(command, &text);
        let created = |name: &String| {
            let line = format!("service/{name} created");
            output.stdout.lines().any(|said| said == line)
        };
        let created = names.iter().filter(|name| created(name)).cloned();
        acknowledged.lock().expect("no panic holds it").extend(created);
        if output.code != Some(0) {
            return;
        }
    }
}

fn sigterm_in_a_burst_of_changes_loses_nothing_acknowledged() {
    assert_acknowledged_survives(Signal::TERM);
}

fn sigint_in_a_burst_of_changes_loses_nothing_acknowledged() {
    assert_acknowledged_survives(Signal::INT);
}

fn sigkill_in_a_burst_of_changes_loses_nothing_acknowledged() {
    assert_acknowledged_survives(Signal::KILL);
}
