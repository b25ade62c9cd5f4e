//! What works with few capabilities, and what is lost without each: what `lb check` says is true.

use std::net::SocketAddr;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::harness::cgroup::Cgroup;
use crate::harness::command::run;
use crate::harness::lan::NODE;
use crate::harness::manifest::endpoint_slice;
use crate::harness::sandbox::{LB, get as sandbox, next_lb};
use crate::harness::{Lan, Listen, Stage, cases, container, eventually, service};
use crate::packets::{LISTEN, NODE_PORT, node_port, visits};
use crate::probe::{Errno, Kind, Visit};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        check_names_each_capability_that_is_missing,
        an_agent_that_can_load_nothing_says_which_capability_it_lacks,
        what_is_only_degraded_does_not_keep_an_agent_from_starting,
        without_sys_admin_no_other_layout_is_taken_over_from,
        the_daemon_sets_container_serves_and_closes_sockets_in_every_namespace,
        the_daemon_sets_container_has_the_packet_path,
        the_daemon_sets_container_has_all_that_it_needs,
    ]
}

/// What the agent uses, and whether it can do without.
const NEEDED: [(&str, bool); 6] = [
    ("BPF", false),
    ("NET_ADMIN", false),
    ("PERFMON", false),
    ("SYS_ADMIN", true),
    ("SYS_PTRACE", true),
    ("DAC_READ_SEARCH", true),
];
const ABORTED: Errno = Errno(libc::ECONNABORTED);

/// The capabilities of the container in the manifest.
fn of_the_daemon_set() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubernetes/daemon-set.yaml");
    let text = std::fs::read_to_string(path).expect("the manifest");
    let manifest: Value = serde_saphyr::from_str(&text).expect("YAML");
    let container = &manifest["spec"]["template"]["spec"]["containers"][0];
    let added = container["securityContext"]["capabilities"]["add"].as_array().cloned();
    let added = added.expect("the manifest adds capabilities");
    added.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

/// The words that start a program with these capabilities, as far as this process has them.
fn with(capabilities: &[&str]) -> Vec<String> {
    let names: String =
        capabilities.iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
    ["setpriv", "--inh-caps=-all", &format!("--bounding-set=-all{names}")]
        .map(str::to_owned)
        .to_vec()
}

/// All that are needed but these.
fn without(missing: &[&str]) -> Vec<String> {
    let names = NEEDED.map(|(name, _)| name).into_iter().filter(|name| !missing.contains(name));
    with(&names.collect::<Vec<_>>())
}

/// What `lb check` finds: subject and level.
#[track_caller]
fn check(launcher: &[String], more: &[&str]) -> (Option<i32>, Vec<(String, String)>) {
    let mut command = Command::new(&launcher[0]);
    command.args(&launcher[1..]).args([LB, "check", "-o", "json"]).args(more);
    let output = run(command, "");
    let found: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("not JSON ({error}): {output}"));
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    let found = found.as_array().into_iter().flatten();
    (output.code, found.map(|one| (text(one, "subject"), text(one, "level"))).collect())
}

fn check_names_each_capability_that_is_missing() {
    let stage = Stage::without_agent();
    let cgroup = stage.cgroup.path.display().to_string();
    for (name, is_optional) in NEEDED {
        // SYS_ADMIN would stand in for these two.
        let missing = match name {
            "BPF" | "PERFMON" => vec![name, "SYS_ADMIN"],
            _ => vec![name],
        };
        let (code, found) = check(&without(&missing), &["--cgroup", &cgroup]);
        let level = if is_optional { "warn" } else { "fail" };
        let wanted = (format!("CAP_{name}"), level.to_owned());
        assert!(found.contains(&wanted), "without {missing:?}: {found:?}");
        assert_eq!(code, Some(i32::from(!is_optional)), "without {missing:?}: {found:?}");
        let named = found.iter().filter(|(subject, _)| subject.starts_with("CAP_")).count();
        assert_eq!(named, missing.len(), "without {missing:?}, and no others: {found:?}");
    }
}

fn an_agent_that_can_load_nothing_says_which_capability_it_lacks() {
    for (name, _) in NEEDED.iter().filter(|(_, is_optional)| !is_optional) {
        let mut stage = Stage::without_agent();
        stage.agent.launcher = without(&[name, "SYS_ADMIN"]);
        stage.agent.spawn();
        assert_eq!(stage.agent.gives_up(), 1, "without {name}");
        let log = stage.agent.log();
        assert!(log.contains(&format!("CAP_{name}: missing")), "without {name}: {log}");
    }
}

const WEB: &str = "ports: [{name: tcp, port: 80}, {name: udp, port: 80, protocol: UDP}]";

/// The Service `web` with one endpoint, by a slice.
fn serve_web(stage: &mut Stage) -> String {
    let pod = stage.pod("pod-a", "other", &[Listen::Tcp(80), Listen::Udp(80)]);
    let port = "name: udp, port: 80, protocol: UDP}, {name: tcp, port: 80";
    let slice = |pods: &[_]| endpoint_slice("web-1", "web", port, pods);
    stage.apply(&[&service("web", WEB), &slice(&[&pod])]);
    slice(&[])
}

/// It serves, starts again over its own pins, and closes sockets of its own namespace.
fn what_is_only_degraded_does_not_keep_an_agent_from_starting() {
    let mut stage = Stage::without_agent();
    stage.agent.launcher = with(&["BPF", "NET_ADMIN", "PERFMON"]);
    stage.agent.start();
    let no_endpoints = serve_web(&mut stage);
    let web = stage.frontend("web", 80);
    let (here, there) = (stage.probe(), stage.probe_among_pods());
    let seen = Ok(Visit { pod: "pod-a".to_owned(), peer: web });
    for round in ["started", "killed and started again"] {
        assert_eq!(here.tcp(web), seen, "{round}");
        assert_eq!(stage.agent.status().self_test(), Some(Ok(())), "{round}");
        stage.agent.kill_nine();
        stage.agent.start();
    }
    let sockets = [&here, &there].map(|probe| probe.open(Kind::Udp4));
    for socket in &sockets {
        socket.connect(web).expect("connect");
    }
    stage.apply(&[&no_endpoints]);
    assert_eq!(sockets[0].receive(), Err(ABORTED), "a socket of the agent's namespace");
    sockets[1].peer().expect("a socket elsewhere is still connected");
}

/// And the version before goes on.
fn without_sys_admin_no_other_layout_is_taken_over_from() {
    let mut stage = Stage::start();
    serve_web(&mut stage);
    let web = stage.frontend("web", 80);
    let probe = stage.probe();
    let seen = Ok(Visit { pod: "pod-a".to_owned(), peer: web });
    let usual = std::mem::replace(&mut stage.agent.binary, next_lb());
    stage.agent.kill_nine();
    stage.agent.launcher = without(&["SYS_ADMIN"]);
    stage.agent.spawn();
    assert_eq!(stage.agent.gives_up(), 1, "it cannot know whose maps the programs use");
    let log = stage.agent.log();
    assert!(log.contains("another layout, needs CAP_SYS_ADMIN"), "{log}");
    assert_eq!(probe.tcp(web), seen, "with no agent");
    stage.agent.binary = usual;
    stage.agent.start();
    assert_eq!(probe.tcp(web), seen, "with the former version again");
}

fn the_daemon_sets_container_serves_and_closes_sockets_in_every_namespace() {
    let mut stage = Stage::without_agent();
    let place = stage.cgroup.child("container");
    stage.agent.launcher = container::launcher(&of_the_daemon_set(), &place.path);
    stage.agent.start();
    let no_endpoints = serve_web(&mut stage);
    let web = stage.frontend("web", 80);
    let (here, there) = (stage.probe(), stage.probe_among_pods());
    let seen = Ok(Visit { pod: "pod-a".to_owned(), peer: web });
    for probe in [&here, &there] {
        assert_eq!(probe.tcp(web), seen);
        assert_eq!(probe.udp(web), seen);
    }
    stage.agent.kill_nine();
    assert_eq!(here.tcp(web), seen, "with the container gone");
    stage.agent.start();
    assert_eq!(stage.agent.status().self_test(), Some(Ok(())));

    let sockets = [&here, &there].map(|probe| probe.open(Kind::Udp4));
    for socket in &sockets {
        socket.connect(web).expect("connect");
    }
    stage.apply(&[&no_endpoints]);
    for (socket, place) in sockets.iter().zip(["the agent's namespace", "another one"]) {
        assert_eq!(socket.receive(), Err(ABORTED), "in {place}");
    }
    assert_eq!(stage.agent.status().sockets("failed"), 0);
}

fn the_daemon_sets_container_has_the_packet_path() {
    let mut lan = Lan::without_agent();
    let place = Cgroup::new(&sandbox().cgroup_root, sandbox().next_number());
    lan.agent.launcher = container::launcher(&of_the_daemon_set(), &place.path);
    lan.agent.set_options(&["--node-name", "node"]);
    lan.agent.start();
    let near = lan.near_pod("near", "near", &LISTEN).manifest();
    let far = lan.far_pod("far", "far", &LISTEN).manifest();
    let [here, elsewhere] =
        [("near", 0), ("far", 1)].map(|(app, offset)| node_port(app, app, NODE_PORT + offset, ""));
    lan.apply(&[&near, &far, &here, &elsewhere]);
    eventually("the devices have the programs", || match lan.agent.status().devices() {
        Some(devices) if devices.iter().any(|d| d.contains("eth0 tcx")) => Ok(()),
        devices => Err(format!("{devices:?}")),
    });
    // Ports for what goes on to another node can be reserved, by the node's /proc/sys/net.
    assert_eq!(lan.agent.status().snat_ports(), Some("61000-65535"));
    let probe = lan.probe();
    for (offset, pod) in [(0, "near"), (1, "far")] {
        for ip in NODE {
            let to = SocketAddr::new(ip, NODE_PORT + offset);
            for (how, visit) in visits(&probe, to) {
                assert_eq!(visit, Ok(Visit { pod: pod.to_owned(), peer: to }), "{how} to {to}");
            }
        }
    }
}

/// Without `--cgroup`: it finds the node's hierarchy above its own cgroup.
fn the_daemon_sets_container_has_all_that_it_needs() {
    let stage = Stage::without_agent();
    let place = stage.cgroup.child("container");
    let launcher = container::launcher(&of_the_daemon_set(), &place.path);
    let scratch = sandbox().scratch().display().to_string();
    let places = [("--state-dir", "state"), ("--run-dir", "run"), ("--bpffs", "bpf/none")];
    let places: Vec<_> = places
        .iter()
        .flat_map(|(flag, name)| [(*flag).to_owned(), format!("{scratch}/{name}")])
        .collect();
    let places: Vec<_> = places.iter().map(String::as_str).collect();
    let (code, found) = check(&launcher, &places);
    assert_eq!(code, Some(0), "{found:?}");
    // The kernel's types are no need of lb's, and shown in /sys, of which the tests hand in the cgroups only. A
    // namespace of the tests forwards where a test asks for it.
    let is_known = |subject: &str| subject.contains("BTF") || subject == "forwarding";
    let limits = found.iter().filter(|(subject, level)| level != "ok" && !is_known(subject));
    let limits: Vec<_> = limits.collect();
    assert!(limits.is_empty(), "nothing is lost: {limits:?}");
}
