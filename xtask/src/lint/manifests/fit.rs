//! What the objects of `deploy/kubernetes` say of each other.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::{Object, list, of_kind, texts, yaml_files};

/// What does not fit.
pub(super) fn problems(root: &Path, objects: &[&Object]) -> Vec<String> {
    let mut problems = Vec::new();
    for set in of_kind(objects, "DaemonSet") {
        problems.extend(daemon_set(&set.value, objects));
    }
    for binding in of_kind(objects, "ClusterRoleBinding") {
        let role = &binding.value["roleRef"];
        problems.extend(missing(objects, "ClusterRole", &role["name"]));
        for subject in list(&binding.value["subjects"]) {
            problems.extend(missing(objects, "ServiceAccount", &subject["name"]));
        }
    }
    for kustomization in of_kind(objects, "Kustomization") {
        problems.extend(unlisted(root, kustomization));
    }
    problems
}

fn daemon_set(set: &Value, objects: &[&Object]) -> Vec<String> {
    let mut problems = Vec::new();
    let template = &set["spec"]["template"];
    let labels = &template["metadata"]["labels"];
    let selector = set["spec"]["selector"]["matchLabels"].as_object();
    if selector
        .is_none_or(|wanted| wanted.is_empty() || wanted.iter().any(|(k, v)| labels[k] != *v))
    {
        problems.push(format!("DaemonSet: its selector {selector:?} does not match {labels}"));
    }
    let pod = &template["spec"];
    problems.extend(missing(objects, "ServiceAccount", &pod["serviceAccountName"]));
    let volumes = names(&pod["volumes"]);
    let mut mounted = BTreeSet::new();
    for container in list(&pod["containers"]) {
        let ports = names(&container["ports"]);
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let port = container[probe]["httpGet"]["port"].as_str().unwrap_or_default();
            if !ports.contains(port) {
                problems.push(format!("DaemonSet: {probe}: no port {port:?}"));
            }
        }
        let mounts = names(&container["volumeMounts"]);
        let unknown = mounts.difference(&volumes);
        problems.extend(unknown.map(|name| format!("DaemonSet: no volume {name:?}")));
        mounted.extend(mounts);
        for source in list(&container["envFrom"]) {
            problems.extend(ungenerated(objects, &source["configMapRef"]["name"]));
        }
        let dropped = texts(&container["securityContext"]["capabilities"]["drop"]);
        if dropped != ["ALL"] {
            problems.push(format!(
                "DaemonSet: drops {dropped:?}, not all, before it adds capabilities"
            ));
        }
    }
    let idle = volumes.difference(&mounted);
    problems.extend(idle.map(|name| format!("DaemonSet: volume {name:?} is mounted nowhere")));
    problems
}

fn names(value: &Value) -> BTreeSet<&str> {
    list(value).filter_map(|item| item["name"].as_str()).collect()
}

/// A name that no object of the kind has.
fn missing(objects: &[&Object], kind: &str, name: &Value) -> Option<String> {
    let found = of_kind(objects, kind);
    let found = found.iter().any(|object| object.value["metadata"]["name"] == *name);
    (!found).then(|| format!("no {kind} {name} is there to be named"))
}

/// The name of a ConfigMap that no kustomization makes.
fn ungenerated(objects: &[&Object], name: &Value) -> Option<String> {
    let kustomizations = of_kind(objects, "Kustomization");
    let mut made = kustomizations.iter().flat_map(|one| list(&one.value["configMapGenerator"]));
    (!made.any(|map| map["name"] == *name)).then(|| format!("no ConfigMap {name} is made"))
}

/// Manifests beside a kustomization that are not among its resources, and the reverse.
fn unlisted(root: &Path, kustomization: &Object) -> Vec<String> {
    let folder = kustomization.file.parent().unwrap_or(Path::new(""));
    let listed: BTreeSet<_> = texts(&kustomization.value["resources"]).into_iter().collect();
    let files = yaml_files(&root.join(folder)).unwrap_or_default();
    let beside: BTreeSet<_> = files
        .iter()
        .filter(|file| file.parent() == Some(&root.join(folder)))
        .filter_map(|file| file.file_name()?.to_str())
        .filter(|name| *name != "kustomization.yaml")
        .collect();
    let shown = kustomization.file.display();
    let forgotten = beside.difference(&listed);
    let gone = listed.difference(&beside);
    forgotten
        .map(|name| format!("{shown}: {name} is not among its resources"))
        .chain(gone.map(|name| format!("{shown}: {name} does not exist")))
        .collect()
}
