//! The command line, as a user of kubectl knows it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use libtest_mimic::Trial;

use crate::harness::{Listen, PATIENCE, Stage, cases, service};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        get_prints_the_table,
        get_prints_yaml_json_and_names,
        get_of_an_unknown_object_fails,
        get_watches_changes,
        describe_names_the_endpoints,
        apply_reports_each_object,
        apply_with_dry_run_changes_nothing,
        apply_skips_other_kinds_unless_strict,
        apply_takes_a_list_and_json,
        delete_takes_a_kind_and_name_or_a_file,
        without_an_agent_every_command_says_how_to_start_it,
        check_names_what_the_node_needs,
        status_shows_where_objects_come_from,
    ]
}

const WEB: &str = "selector: {app: web}, ports: [{port: 80}]";

fn get_prints_the_table() {
    let stage = Stage::start();
    let ports = "ports: [{name: sql, port: 3306}, {name: dns, port: 53, protocol: UDP}]";
    stage.apply(&[&service("mysql", &format!("selector: {{app: mysql}}, {ports}"))]);
    let output = stage.agent.lb(&["get", "svc"]).ok();
    let rows: Vec<Vec<_>> =
        output.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let heading = ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"];
    assert_eq!(rows.first().map(Vec::as_slice), Some(heading.as_slice()), "{output}");
    let row = rows.iter().find(|row| row.first() == Some(&"mysql"));
    let row = row.unwrap_or_else(|| panic!("no row for mysql: {output}"));
    let vip = stage.vip("mysql").to_string();
    assert_eq!(row[..5], ["mysql", "ClusterIP", &vip, "<none>", "3306/TCP,53/UDP"], "{output}");
    let output = stage.agent.lb(&["get", "svc", "-A"]).ok();
    assert!(output.stdout.starts_with("NAMESPACE"), "-A has the namespaces: {output}");
}

fn get_prints_yaml_json_and_names() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    let vip = stage.vip("web");
    let yaml = stage.agent.lb(&["get", "svc", "web", "-o", "yaml"]).ok();
    for text in ["kind: Service", "name: web", &format!("clusterIP: {vip}")] {
        assert!(yaml.stdout.contains(text), "the object has {text:?}: {yaml}");
    }
    stage.agent.lb(&["get", "svc", "web", "-o", "name"]).ok().says("service/web");
    stage.agent.lb(&["get", "pods", "-o", "name"]).ok().says("pod/pod-a");
    let slices = stage.agent.lb(&["get", "endpointslices", "-o", "json"]).ok();
    let address = pod.v4.to_string();
    assert!(slices.stdout.contains(&address), "a slice has the pod's address: {slices}");
    // What was printed can be applied again.
    stage.agent.try_apply(&[&yaml.stdout]).ok().says("service/web unchanged");
}

fn get_of_an_unknown_object_fails() {
    let stage = Stage::start();
    let output = stage.agent.lb(&["get", "svc", "nosuch"]).refused();
    output.complains(&["nosuch", "not found"]);
    let output = stage.agent.lb(&["delete", "svc", "nosuch"]).refused();
    output.complains(&["nosuch", "not found"]);
}

fn get_watches_changes() {
    let stage = Stage::start();
    let mut command = stage.agent.client(&["get", "svc", "-w"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("lb runs");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
    let mut seen = Vec::new();
    for name in ["first", "second"] {
        stage.apply(&[&service(name, WEB)]);
        while !seen.iter().any(|line: &String| line.starts_with(name)) {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => seen.push(line),
                Err(error) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("no line for {name} ({error}); seen: {seen:?}");
                }
            }
        }
    }
    child.kill().expect("still watching");
    child.wait().expect("a child of ours");
}

fn describe_names_the_endpoints() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(8080)]);
    let spec = "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]";
    stage.apply(&[&pod.manifest(), &service("web", spec)]);
    let output = stage.agent.lb(&["describe", "svc", "web"]).ok();
    let endpoint = format!("{}:8080", pod.v4);
    for text in ["web", "app=web", &stage.vip("web").to_string(), "80/TCP", &endpoint] {
        assert!(output.stdout.contains(text), "the description has {text:?}: {output}");
    }
}

fn apply_reports_each_object() {
    let stage = Stage::start();
    let (one, two) = (service("one", WEB), service("two", WEB));
    stage.agent.apply(&[&one, &two]).says("service/one created").says("service/two created");
    let changed = service("two", "selector: {app: web}, ports: [{port: 81}]");
    let output = stage.agent.apply(&[&one, &changed]);
    output.says("service/one unchanged").says("service/two configured");
}

fn apply_with_dry_run_changes_nothing() {
    let stage = Stage::start();
    let path = stage.agent.paths.manifests.with_file_name("dry.yaml");
    std::fs::write(&path, service("web", WEB)).expect("the scratch file system is writable");
    let file = path.to_str().expect("a text path");
    let output = stage.agent.lb(&["apply", "-f", file, "--dry-run"]).ok();
    assert!(output.stdout.contains("service/web created"), "what would be done: {output}");
    stage.agent.lb(&["get", "svc", "web"]).refused();
    let bad = service("web", "selector: {app: web}, ports: [{port: 0}]");
    std::fs::write(&path, bad).expect("the scratch file system is writable");
    let output = stage.agent.lb(&["apply", "-f", file, "--dry-run"]).refused();
    output.complains(&["spec.ports[0].port"]);
}

fn apply_skips_other_kinds_unless_strict() {
    let stage = Stage::start();
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n";
    let path = stage.agent.paths.manifests.with_file_name("kinds.yaml");
    let text = format!("{config}---\n{}", service("web", WEB));
    std::fs::write(&path, text).expect("the scratch file system is writable");
    let file = path.to_str().expect("a text path");
    let output = stage.agent.lb(&["apply", "-f", file]).ok().says("service/web created");
    assert!(output.stderr.contains("ConfigMap"), "the skipped kind is named: {output}");
    let output = stage.agent.lb(&["apply", "-f", file, "--strict"]).refused();
    output.complains(&["kinds.yaml:1", "ConfigMap"]);
}

fn apply_takes_a_list_and_json() {
    let stage = Stage::start();
    let list = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one"}, "spec": {"ports": [{"port": 80}]}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "two"}, "spec": {"ports": [{"port": 80}]}}]}"#;
    stage.agent.apply(&[list]).says("service/one created").says("service/two created");
}

fn delete_takes_a_kind_and_name_or_a_file() {
    let stage = Stage::start();
    let text = format!("{}---\n{}", service("one", WEB), service("two", WEB));
    let path = stage.agent.paths.manifests.with_file_name("both.yaml");
    std::fs::write(&path, &text).expect("the scratch file system is writable");
    stage.apply(&[&text, &service("three", WEB)]);
    let output = stage.agent.lb(&["delete", "-f", path.to_str().expect("a text path")]).ok();
    for name in ["one", "two"] {
        let told =
            output.stdout.lines().any(|line| line.contains(name) && line.contains("deleted"));
        assert!(told, "{name} is reported as deleted: {output}");
    }
    let output = stage.agent.delete("service", "three");
    assert!(output.stdout.contains("three") && output.stdout.contains("deleted"), "{output}");
    assert_eq!(stage.agent.status().objects("services"), 0, "no Service is left");
}

fn without_an_agent_every_command_says_how_to_start_it() {
    let stage = Stage::without_agent();
    for command in
        [&["get", "svc"][..], &["describe", "svc", "web"], &["delete", "svc", "web"], &["status"]]
    {
        stage.agent.lb(command).refused().complains(&["lb agent"]);
    }
    stage.agent.try_apply(&[&service("web", WEB)]).refused().complains(&["lb agent"]);
}

fn check_names_what_the_node_needs() {
    let stage = Stage::without_agent();
    let output = stage.agent.lb(&["check"]).ok();
    let text = output.stdout.to_lowercase();
    for need in ["kernel", "bpf", "cgroup", "capabilities"] {
        assert!(text.contains(need), "the check names {need:?}: {output}");
    }
}

fn status_shows_where_objects_come_from() {
    let stage = Stage::start();
    let output = stage.agent.lb(&["status"]).ok();
    let folder = stage.agent.paths.manifests.display().to_string();
    assert!(output.stdout.contains(&folder), "the manifests folder is named: {output}");
    stage.apply(&[&service("web", WEB)]);
    let status = stage.agent.status();
    assert_eq!(status.objects("services"), 1, "Services kept");
    assert!(!status.program_ids().is_empty(), "the loaded programs are listed");
}
