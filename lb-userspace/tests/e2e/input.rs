//! What a person may get wrong in a manifest: told which object, where and why, in kubectl's form;
//! nothing else is affected.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::Trial;

use crate::harness::manifest::documents;
use crate::harness::{Listen, Output, Stage, cases, service};
use crate::probe::{Errno, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        malformed_yaml_is_named_by_file_line_and_column,
        a_value_of_the_wrong_type_is_named_by_file_line_and_column,
        an_invalid_service_among_good_ones_is_the_only_one_refused,
        a_port_out_of_range_is_refused,
        ports_of_a_multi_port_service_need_names,
        a_cluster_ip_in_use_is_refused,
        a_cluster_ip_out_of_range_is_refused,
        a_refused_change_leaves_the_service_as_it_was,
        a_selector_that_matches_nothing_is_accepted_and_refuses_connections,
        a_service_without_ports_is_refused,
        an_empty_file_is_named,
        a_missing_file_is_named,
        a_binary_file_is_named,
    ]
}

const WEB: &str = "selector: {app: web}, ports: [{port: 80}]";

/// Writes a file outside the watched directory.
fn file(stage: &Stage, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = stage.agent.paths.manifests.with_file_name(name);
    fs::write(&path, content).expect("the scratch file system is writable");
    path
}

#[track_caller]
fn apply_file(stage: &Stage, name: &str, content: impl AsRef<[u8]>) -> Output {
    let path = file(stage, name, content);
    stage.agent.lb(&["apply", "-f", path.to_str().expect("a text path")])
}

/// The error output names the place as `file:line:column:`.
#[track_caller]
fn assert_named_place(output: &Output, file: &str, line: usize) {
    let place = format!("{file}:{line}:");
    let column = output.stderr.split_once(&place).map(|(_, rest)| rest.split(':').next());
    let is_number = column.flatten().is_some_and(|text| text.parse::<u32>().is_ok());
    assert!(is_number, "stderr must have {place}COLUMN: {output}");
}

fn malformed_yaml_is_named_by_file_line_and_column() {
    let stage = Stage::start();
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: [}\nspec: {}\n";
    let output = apply_file(&stage, "malformed.yaml", text).refused();
    assert_named_place(&output, "malformed.yaml", 4);
    assert_eq!(stage.agent.status().objects("services"), 0, "nothing was changed");
}

fn a_value_of_the_wrong_type_is_named_by_file_line_and_column() {
    let stage = Stage::start();
    let text =
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - port: http\n";
    let output = apply_file(&stage, "typed.yaml", text).refused();
    assert_named_place(&output, "typed.yaml", 6);
}

fn an_invalid_service_among_good_ones_is_the_only_one_refused() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    let invalid = service("bad", "selector: {app: web}, ports: [{port: 0}]");
    let text = documents([service("one", WEB), invalid, service("two", WEB), pod.manifest()]);
    let output = apply_file(&stage, "mixed.yaml", text)
        .refused()
        .says("service/one created")
        .says("service/two created")
        .says("pod/pod-a created")
        .complains(&["Service \"bad\" is invalid: spec.ports[0].port: Invalid value: 0"]);
    assert!(output.stderr.contains("mixed.yaml:"), "the file is named: {output}");
    assert!(
        !output.stdout.contains("service/bad"),
        "the bad one is not reported as done: {output}"
    );
    let probe = stage.probe();
    for name in ["one", "two"] {
        let to = stage.frontend(name, 80);
        assert_eq!(probe.tcp(to), Ok(Visit { pod: "pod-a".to_owned(), peer: to }), "{name}");
    }
    stage.agent.lb(&["get", "svc", "bad"]).refused();
}

fn a_port_out_of_range_is_refused() {
    let stage = Stage::start();
    for port in [0, 70000] {
        let text = service("web", &format!("selector: {{app: web}}, ports: [{{port: {port}}}]"));
        let rule = format!(
            "Service \"web\" is invalid: spec.ports[0].port: Invalid value: {port}: \
             must be between 1 and 65535, inclusive"
        );
        apply_file(&stage, "port.yaml", text).refused().complains(&["port.yaml:", &rule]);
    }
    let text = service("web", "selector: {app: web}, ports: [{port: 80, targetPort: 70000}]");
    apply_file(&stage, "port.yaml", text)
        .refused()
        .complains(&["spec.ports[0].targetPort: Invalid"]);
}

fn ports_of_a_multi_port_service_need_names() {
    let stage = Stage::start();
    let text = service("web", "selector: {app: web}, ports: [{port: 80}, {port: 443}]");
    apply_file(&stage, "names.yaml", text).refused().complains(&[
        "Service \"web\" is invalid: ",
        "spec.ports[0].name: Required value",
        "spec.ports[1].name: Required value",
    ]);
}

fn a_cluster_ip_in_use_is_refused() {
    let stage = Stage::start();
    let taking = |name| service(name, &format!("clusterIP: 10.96.0.210, {WEB}"));
    stage.apply(&[&taking("first")]);
    apply_file(&stage, "taken.yaml", taking("second"))
        .refused()
        .complains(&["taken.yaml:", "Service \"second\" is invalid: spec.clusterIP"])
        .complains(&["10.96.0.210", "already allocated"]);
    stage.agent.lb(&["get", "svc", "second"]).refused();
}

fn a_cluster_ip_out_of_range_is_refused() {
    let stage = Stage::start();
    for address in ["10.1.2.3", "10.112.0.0", "10.96.0.0", "10.111.255.255"] {
        let text = service("web", &format!("clusterIP: {address}, {WEB}"));
        apply_file(&stage, "range.yaml", text)
            .refused()
            .complains(&["range.yaml:", "Service \"web\" is invalid: spec.clusterIP", address])
            .complains(&["10.96.0.0/12"]);
    }
    let text = service("web", &format!("clusterIP: not-an-address, {WEB}"));
    apply_file(&stage, "range.yaml", text)
        .refused()
        .complains(&["spec.clusterIP", "not-an-address"]);
}

fn a_refused_change_leaves_the_service_as_it_was() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    let before = stage.agent.get("svc", "web");
    let bad =
        service("web", "selector: {app: web}, ports: [{name: a, port: 81}, {name: a, port: 82}]");
    apply_file(&stage, "bad.yaml", bad)
        .refused()
        .complains(&["spec.ports[1].name: Duplicate value"]);
    assert_eq!(stage.agent.get("svc", "web"), before, "the object");
    let web = stage.frontend("web", 80);
    assert_eq!(stage.probe().tcp(web), Ok(Visit { pod: "pod-a".to_owned(), peer: web }));
}

fn a_selector_that_matches_nothing_is_accepted_and_refuses_connections() {
    let stage = Stage::start();
    let text = service("web", "selector: {app: no-such-app}, ports: [{port: 80}]");
    apply_file(&stage, "nothing.yaml", text).ok().says("service/web created");
    let probe = stage.probe();
    assert_refused("no endpoints", probe.tcp(stage.frontend("web", 80)), Errno::REFUSED);
}

fn a_service_without_ports_is_refused() {
    let stage = Stage::start();
    let text = service("web", "selector: {app: web}");
    apply_file(&stage, "ports.yaml", text)
        .refused()
        .complains(&["Service \"web\" is invalid: spec.ports: Required value"]);
}

fn an_empty_file_is_named() {
    let stage = Stage::start();
    apply_file(&stage, "empty.yaml", "").refused().complains(&["empty.yaml"]);
}

fn a_missing_file_is_named() {
    let stage = Stage::start();
    let output = stage.agent.lb(&["apply", "-f", "/nonexistent/web.yaml"]).refused();
    output.complains(&["/nonexistent/web.yaml"]);
}

fn a_binary_file_is_named() {
    let stage = Stage::start();
    let binary: Vec<u8> = (0..=255).cycle().take(4096).collect();
    apply_file(&stage, "binary.yaml", binary).refused().complains(&["binary.yaml"]);
}
