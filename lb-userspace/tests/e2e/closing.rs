//! Sockets whose backend is gone are closed, and no others.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::harness::manifest::endpoint_slice;
use crate::harness::{Listen, Output, Pod, Stage, cases, eventually, service};
use crate::probe::{Errno, Kind, Probe, ProbeSocket, Visit};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_waiting_udp_socket_is_closed_when_its_endpoint_vanishes,
        udp_sockets_of_other_network_namespaces_are_closed,
        udp_sockets_of_both_families_are_closed_when_their_pod_is_relabelled,
        an_endpoint_that_returns_within_a_second_keeps_its_sockets,
        an_endpoint_that_is_only_unselected_keeps_its_sockets,
        an_unconnected_udp_socket_is_left_alone,
        a_udp_socket_connected_to_the_pod_itself_is_left_alone,
        a_deleted_service_closes_nothing,
        tcp_connections_outlive_their_endpoint_and_end_with_its_pod,
        tcp_connections_end_with_their_endpoint_if_the_agent_was_asked_to,
        a_pod_made_again_with_its_address_keeps_its_connections,
        sockets_remembered_in_their_own_storage_are_closed,
        mptcp_connections_end_with_their_pod,
        an_endpoint_removed_while_no_agent_ran_is_noticed,
        an_agent_killed_before_it_had_closed_a_socket_closes_it_later,
        a_dry_run_lists_what_would_be_closed_and_closes_nothing,
    ]
}

const WEB: &str = "ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [
    {name: tcp, port: 80}, {name: udp, port: 80, protocol: UDP}]";
const ABORTED: Errno = Errno(libc::ECONNABORTED);
/// An endpoint that has been away for longer than this is gone.
const GONE: Duration = Duration::from_millis(1100);

/// A stage with the Service `web` on port 80 of both protocols and families, and its one pod.
fn stage_with_web() -> (Stage, Pod) {
    stage_with_flags(&[])
}

fn stage_with_flags(flags: &[&str]) -> (Stage, Pod) {
    let mut stage = Stage::without_agent();
    stage.agent.set_options(flags);
    stage.agent.start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80), Listen::Udp(80)]);
    stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    (stage, pod)
}

/// The same without selector, so that a slice says what the endpoints are.
fn stage_with_slice() -> (Stage, Pod) {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "other", &[Listen::Tcp(80), Listen::Udp(80)]);
    let spec = "ports: [{name: tcp, port: 80}, {name: udp, port: 80, protocol: UDP}]";
    stage.apply(&[&service("web", spec), &slice(&[&pod])]);
    (stage, pod)
}

fn slice(pods: &[&Pod]) -> String {
    let port = "name: udp, port: 80, protocol: UDP}, {name: tcp, port: 80";
    endpoint_slice("web-1", "web", port, pods)
}

/// The pod with another label: no endpoint of the Service any more.
fn relabelled(pod: &Pod) -> String {
    Pod { app: "other".to_owned(), ..pod.clone() }.manifest()
}

/// A socket that has talked with the pod through the frontend.
fn connected(probe: &Probe, kind: Kind, to: SocketAddr) -> ProbeSocket<'_> {
    let socket = probe.open(kind);
    socket.connect(to).unwrap_or_else(|errno| panic!("{kind:?} to {to}: {errno:?}"));
    if matches!(kind, Kind::Udp4 | Kind::Udp6) {
        assert_answered(&socket, to);
    } else {
        assert_eq!(socket.greeting().as_deref(), Ok("pod-a"), "{kind:?} to {to}");
    }
    socket
}

#[track_caller]
fn assert_answered(socket: &ProbeSocket<'_>, peer: SocketAddr) {
    socket.send("?").expect("send");
    assert_eq!(socket.receive(), Ok(Visit { pod: "pod-a".to_owned(), peer }));
}

/// What `lb close` says, and does.
#[track_caller]
fn close(stage: &Stage, flags: &[&str]) -> Vec<Value> {
    let command: Vec<_> = ["close", "-o", "json"].iter().chain(flags).copied().collect();
    let output: Output = stage.agent.lb(&command).ok();
    let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
    report["sockets"].as_array().cloned().unwrap_or_else(|| panic!("a list: {output}"))
}

/// Looks for sockets to close once whatever has gone counts as gone; there must be none, then or
/// before.
#[track_caller]
fn assert_nothing_is_closed(stage: &Stage, why: &str) {
    sleep(GONE);
    assert_eq!(close(stage, &[]), Vec::<Value>::new(), "{why}");
    let status = stage.agent.status();
    let counts = ["closedTcp", "closedUdp", "failed"].map(|count| status.sockets(count));
    assert_eq!(counts, [0; 3], "TCP and UDP sockets closed, and failures: {why}");
}

/// Waits until these are closed, and no others are.
#[track_caller]
fn assert_each_closed(stage: &Stage, sockets: &[ProbeSocket<'_>]) {
    for socket in sockets {
        assert_eq!(socket.receive(), Err(ABORTED), "connected through the frontend");
    }
    let status = stage.agent.status();
    let counts = ["closedTcp", "closedUdp", "failed"].map(|count| status.sockets(count));
    assert_eq!(counts, [0, sockets.len() as u64, 0], "TCP and UDP sockets closed, and failures");
}

fn a_waiting_udp_socket_is_closed_when_its_endpoint_vanishes() {
    let (stage, _) = stage_with_slice();
    let probe = stage.probe();
    let socket = connected(&probe, Kind::Udp4, stage.frontend("web", 80));
    stage.apply(&[&slice(&[])]);
    assert_eq!(socket.receive(), Err(ABORTED), "a receive that waits");
    let status = stage.agent.status();
    assert_eq!((status.sockets("closedUdp"), status.sockets("failed")), (1, 0));
}

fn udp_sockets_of_other_network_namespaces_are_closed() {
    let (stage, _) = stage_with_slice();
    let web = stage.frontend("web", 80);
    let (here, there) = (stage.probe(), stage.probe_among_pods());
    let sockets = [connected(&here, Kind::Udp4, web), connected(&there, Kind::Udp4, web)];
    stage.agent.delete("endpointslice", "web-1");
    for (socket, place) in sockets.iter().zip(["the agent's namespace", "another one"]) {
        assert_eq!(socket.receive(), Err(ABORTED), "in {place}");
    }
}

fn udp_sockets_of_both_families_are_closed_when_their_pod_is_relabelled() {
    let (stage, pod) = stage_with_web();
    let probe = stage.probe();
    let kinds = [Kind::Udp4, Kind::Udp6];
    let vips = stage.vips("web").into_iter().map(|vip| SocketAddr::new(vip, 80));
    let sockets: Vec<_> =
        kinds.into_iter().zip(vips).map(|(kind, to)| connected(&probe, kind, to)).collect();
    stage.apply(&[&relabelled(&pod)]);
    for (socket, kind) in sockets.iter().zip(kinds) {
        assert_eq!(socket.receive(), Err(ABORTED), "{kind:?}");
    }
}

fn an_endpoint_that_returns_within_a_second_keeps_its_sockets() {
    let (stage, pod) = stage_with_slice();
    let probe = stage.probe();
    let web = stage.frontend("web", 80);
    let socket = connected(&probe, Kind::Udp4, web);
    // On a busy machine the two commands may take too long: then the rule promises nothing.
    eventually("an endpoint removed and brought back within a second", || {
        let removed = Instant::now();
        stage.apply(&[&slice(&[])]);
        stage.apply(&[&slice(&[&pod])]);
        let away = removed.elapsed();
        if away < Duration::from_secs(1) { Ok(()) } else { Err(format!("{away:?}")) }
    });
    assert_nothing_is_closed(&stage, "the endpoint has returned");
    assert_answered(&socket, web);
}

fn an_endpoint_that_is_only_unselected_keeps_its_sockets() {
    let (stage, pod) = stage_with_web();
    let probe = stage.probe();
    let web = stage.frontend("web", 80);
    let (udp, tcp) = (connected(&probe, Kind::Udp4, web), connected(&probe, Kind::Tcp4, web));
    let unready = Pod { ready: false, ..pod.clone() }.manifest();
    let terminating = pod.manifest().replace(
        "metadata: {",
        "metadata: {deletionTimestamp: \"2026-01-01T00:00:00Z\", deletionGracePeriodSeconds: 30, ",
    );
    let local = service("web", &format!("internalTrafficPolicy: Local, {WEB}"));
    let elsewhere = pod.manifest().replace("spec: {", "spec: {nodeName: elsewhere, ");
    for (what, manifest) in [
        ("not ready", &unready),
        ("terminating", &terminating),
        ("on another node", &elsewhere),
        ("on another node, and traffic local", &local),
    ] {
        stage.apply(&[manifest]);
        assert_nothing_is_closed(&stage, what);
        assert_answered(&udp, web);
        assert_eq!(tcp.echo("still there?").as_deref(), Ok("still there?"), "{what}");
    }
}

fn an_unconnected_udp_socket_is_left_alone() {
    let (stage, pod) = stage_with_slice();
    let probe = stage.probe();
    let web = stage.frontend("web", 80);
    let (never, no_longer) = (probe.open(Kind::Udp4), connected(&probe, Kind::Udp4, web));
    let through = [connected(&probe, Kind::Udp4, web)];
    never.send_to(web, "?").expect("sendto");
    never.receive().expect("an answer");
    no_longer.disconnect().expect("connect with AF_UNSPEC");
    stage.apply(&[&slice(&[])]);
    assert_each_closed(&stage, &through);
    let direct = pod.address(web.ip(), 80);
    for (socket, what) in [(never, "never connected"), (no_longer, "no longer connected")] {
        socket.send_to(direct, "?").expect("sendto");
        let wanted = Ok(Visit { pod: "pod-a".to_owned(), peer: direct });
        assert_eq!(socket.receive(), wanted, "{what}");
    }
}

fn a_udp_socket_connected_to_the_pod_itself_is_left_alone() {
    let (stage, pod) = stage_with_web();
    let probe = stage.probe();
    let web = stage.frontend("web", 80);
    let direct = pod.address(web.ip(), 80);
    let (always, by_now) =
        (connected(&probe, Kind::Udp4, direct), connected(&probe, Kind::Udp4, web));
    by_now.connect(direct).expect("connect again");
    let tcp = connected(&probe, Kind::Tcp4, direct);
    let through = [connected(&probe, Kind::Udp4, web), connected(&probe, Kind::Udp4, web)];
    stage.agent.delete("pod", "pod-a");
    assert_each_closed(&stage, &through);
    assert_answered(&always, direct);
    assert_answered(&by_now, direct);
    assert_eq!(tcp.echo("still there?").as_deref(), Ok("still there?"));
}

fn a_deleted_service_closes_nothing() {
    let (stage, _) = stage_with_web();
    let probe = stage.probe();
    let web = stage.frontend("web", 80);
    let (udp, tcp) = (connected(&probe, Kind::Udp4, web), connected(&probe, Kind::Tcp4, web));
    stage.agent.delete("svc", "web");
    assert_nothing_is_closed(&stage, "the pod is there, only its Service is not");
    assert_answered(&udp, web);
    assert_eq!(tcp.echo("still there?").as_deref(), Ok("still there?"));
}

fn tcp_connections_outlive_their_endpoint_and_end_with_its_pod() {
    let (stage, pod) = stage_with_web();
    let probe = stage.probe();
    let socket = connected(&probe, Kind::Tcp4, stage.frontend("web", 80));
    stage.apply(&[&relabelled(&pod)]);
    assert_nothing_is_closed(&stage, "the pod was relabelled");
    assert_eq!(socket.echo("still there?").as_deref(), Ok("still there?"));
    stage.agent.delete("pod", "pod-a");
    assert_eq!(socket.greeting(), Err(ABORTED), "a read that waits");
    let status = stage.agent.status();
    assert_eq!((status.sockets("closedTcp"), status.sockets("failed")), (1, 0));
}

fn tcp_connections_end_with_their_endpoint_if_the_agent_was_asked_to() {
    let (stage, pod) = stage_with_flags(&["--close-tcp"]);
    let probe = stage.probe();
    let socket = connected(&probe, Kind::Tcp4, stage.frontend("web", 80));
    stage.apply(&[&relabelled(&pod)]);
    assert_eq!(socket.greeting(), Err(ABORTED), "a read that waits");
}

fn a_pod_made_again_with_its_address_keeps_its_connections() {
    let (stage, pod) = stage_with_web();
    let probe = stage.probe();
    let socket = connected(&probe, Kind::Tcp4, stage.frontend("web", 80));
    stage.apply(&[&relabelled(&pod)]);
    stage.agent.delete("pod", "pod-a");
    stage.apply(&[&relabelled(&pod)]);
    assert_nothing_is_closed(&stage, "a Pod has the address");
    assert_eq!(socket.echo("still there?").as_deref(), Ok("still there?"));
}

fn sockets_remembered_in_their_own_storage_are_closed() {
    let (stage, pod) = stage_with_web();
    let probe = stage.probe();
    let web = stage.frontend("web", 80);
    let slots = stage.agent.status().capacity("ORIGIN");
    let holder = connected(&probe, Kind::Udp4, web);
    let udp = probe.open_colliding(Kind::Udp4, &holder, slots);
    udp.connect(web).expect("connect");
    assert_eq!(stage.agent.status().used("ORIGIN"), 1, "one slot for two sockets");
    stage.apply(&[&relabelled(&pod)]);
    assert_eq!(udp.receive(), Err(ABORTED), "the socket without slot");
    assert_eq!(holder.receive(), Err(ABORTED), "the socket with the slot");
}

/// The kernel's subflow sockets have no slot.
fn mptcp_connections_end_with_their_pod() {
    let (stage, _) = stage_with_web();
    let probe = stage.probe();
    let socket = connected(&probe, Kind::Mptcp4, stage.frontend("web", 80));
    stage.agent.delete("pod", "pod-a");
    assert!(socket.greeting().is_err(), "a read that waits ends");
    assert_eq!(stage.agent.status().sockets("closedTcp"), 1);
}

fn an_endpoint_removed_while_no_agent_ran_is_noticed() {
    let (mut stage, pod) = stage_with_slice();
    let other =
        slice(&[&pod]).replace("web-1", "web-2").replace("service-name: web", "service-name: dns");
    stage.write_manifest("slice.yaml", &other);
    stage.apply(&[&service("dns", "ports: [{name: udp, port: 53, protocol: UDP}]")]);
    eventually("the manifest is read", || match stage.agent.status().objects("endpointSlices") {
        2 => Ok(()),
        count => Err(format!("{count} slices")),
    });
    let probe = stage.probe();
    let (gone, there) = (
        connected(&probe, Kind::Udp4, stage.frontend("dns", 53)),
        connected(&probe, Kind::Udp4, stage.frontend("web", 80)),
    );
    stage.agent.kill_nine();
    stage.write_manifest("slice.yaml", "");
    stage.agent.start();
    assert_eq!(gone.receive(), Err(ABORTED), "the endpoint went with its manifest");
    assert_answered(&there, stage.frontend("web", 80));
}

fn an_agent_killed_before_it_had_closed_a_socket_closes_it_later() {
    let (mut stage, _) = stage_with_slice();
    let probe = stage.probe();
    let socket = connected(&probe, Kind::Udp4, stage.frontend("web", 80));
    stage.apply(&[&slice(&[])]);
    stage.agent.kill_nine();
    stage.agent.start();
    assert_eq!(socket.receive(), Err(ABORTED), "closed by the next agent");
}

fn a_dry_run_lists_what_would_be_closed_and_closes_nothing() {
    let (stage, pod) = stage_with_web();
    let (probe, among_pods) = (stage.probe(), stage.probe_among_pods());
    let web = stage.frontend("web", 80);
    let sockets = [connected(&probe, Kind::Tcp4, web), connected(&among_pods, Kind::Tcp4, web)];
    stage.apply(&[&relabelled(&pod)]);
    sleep(GONE);
    assert_eq!(close(&stage, &["--dry-run"]), Vec::<Value>::new(), "TCP is not asked for");

    let listed = close(&stage, &["--dry-run", "--tcp"]);
    let [one, two] = &listed[..] else { panic!("two sockets: {listed:?}") };
    assert_ne!(one["namespace"], two["namespace"], "each in its own namespace");
    for socket in &listed {
        let field = |name: &str| socket[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(field("protocol"), "TCP");
        assert_eq!(field("frontend"), web.to_string());
        assert_eq!(field("backend"), pod.address(web.ip(), 80).to_string());
        assert_eq!(field("cause"), "endpointGone");
        assert!(field("local").starts_with("10.244."), "{socket}");
    }
    for socket in &sockets {
        assert_eq!(socket.echo("still there?").as_deref(), Ok("still there?"));
    }
    assert_eq!(stage.agent.status().sockets("closedTcp"), 0, "nothing was closed");

    close(&stage, &["--tcp"]);
    for socket in &sockets {
        assert_eq!(socket.greeting(), Err(ABORTED));
    }
    assert_eq!(stage.agent.status().sockets("closedTcp"), 2);
}
