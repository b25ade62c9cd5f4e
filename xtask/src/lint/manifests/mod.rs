//! The manifests of `deploy/` and `examples/`: each is what the Kubernetes API takes, without a field that it
//! does not know, and those of `deploy/kubernetes` fit each other and what is written about them.

mod documented;
mod fit;
mod schema;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// An object of a manifest.
struct Object {
    /// Below the top of the tree.
    file: PathBuf,
    kind: String,
    value: Value,
}

/// Checks every manifest, and names all that is wrong.
pub(super) fn check(root: &Path) -> Result<()> {
    let mut objects = Vec::new();
    for folder in ["deploy", "examples"] {
        for file in yaml_files(&root.join(folder))? {
            objects.extend(read(root, &file)?);
        }
    }
    let mut problems = Vec::new();
    for object in &objects {
        let found = schema::problems(object).into_iter();
        problems.extend(found.map(|problem| format!("{}: {problem}", object.file.display())));
    }
    let ours = Path::new("deploy/kubernetes");
    let deployed: Vec<_> = objects.iter().filter(|object| object.file.starts_with(ours)).collect();
    problems.extend(fit::problems(root, &deployed));
    problems.extend(documented::problems(root, &deployed)?);
    if problems.is_empty() {
        return Ok(());
    }
    bail!("manifests:\n  {}", problems.join("\n  "))
}

fn read(root: &Path, file: &Path) -> Result<Vec<Object>> {
    let shown = file.strip_prefix(root).unwrap_or(file);
    let text = fs::read_to_string(file).with_context(|| shown.display().to_string())?;
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| shown.display().to_string())?;
    let documents = documents.into_iter().filter(|value| !value.is_null());
    let object = |value: Value| Object {
        file: shown.to_owned(),
        kind: value["kind"].as_str().unwrap_or_default().to_owned(),
        value,
    };
    Ok(documents.map(object).collect())
}

/// The YAML files below a folder, in order.
fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(yaml_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The objects of a kind.
fn of_kind<'o>(objects: &[&'o Object], kind: &str) -> Vec<&'o Object> {
    objects.iter().filter(|object| object.kind == kind).copied().collect()
}

/// The elements of a list; none of what is none.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The texts in a list.
fn texts(value: &Value) -> Vec<&str> {
    list(value).filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    /// A copy of what the check reads, with a text in a file replaced by another.
    fn complaint_about(file: &str, from: &str, to: &str) -> String {
        let tree = tempfile::tempdir().expect("a temporary folder");
        for part in ["deploy", "examples", "docs", documented::SOURCE] {
            copy(&workspace::root().join(part), &tree.path().join(part));
        }
        check(tree.path()).expect("as it is in the tree, all is well");
        let path = tree.path().join(file);
        let text = fs::read_to_string(&path).expect("a manifest");
        assert!(text.contains(from), "{file} has no {from:?} to break");
        fs::write(&path, text.replacen(from, to, 1)).expect("written");
        check(tree.path()).map_or_else(|error| error.to_string(), |()| "nothing".to_owned())
    }

    fn copy(from: &Path, to: &Path) {
        if from.is_dir() {
            fs::create_dir_all(to).expect("a folder");
            for entry in fs::read_dir(from).expect("a folder").flatten() {
                copy(&entry.path(), &to.join(entry.file_name()));
            }
        } else {
            fs::create_dir_all(to.parent().expect("in a folder")).expect("a folder");
            fs::copy(from, to).expect("a file");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file() {
        const DAEMON_SET: &str = "deploy/kubernetes/daemon-set.yaml";
        const KUSTOMIZATION: &str = "deploy/kubernetes/kustomization.yaml";
        const ROLE: &str = "deploy/kubernetes/cluster-role.yaml";
        const BINDING: &str = "deploy/kubernetes/cluster-role-binding.yaml";
        const UNIT: &str = "deploy/systemd/lb-agent.service";
        let cases = [
            (DAEMON_SET, "hostPID:", "hostPid:", "unknown field spec.template.spec.hostPid"),
            (DAEMON_SET, "periodSeconds: 2", "periodSeconds: two", "periodSeconds: invalid type"),
            (DAEMON_SET, "operator: Exists", "operator: Exist", "operator: \"Exist\" is none of"),
            (DAEMON_SET, "matchLabels:\n      app.", "matchLabels:\n      app2.", "its selector"),
            (DAEMON_SET, "port: health", "port: heath", "no port \"heath\""),
            (DAEMON_SET, "- name: state\n", "- name: stat\n", "no volume \"stat\""),
            (DAEMON_SET, "serviceAccountName: lb", "serviceAccountName: bl", "no ServiceAccount"),
            (
                DAEMON_SET,
                "configMapRef:\n                name: lb",
                "configMapRef:\n                name: bl",
                "no ConfigMap \"bl\"",
            ),
            (DAEMON_SET, "drop: [ALL]", "drop: []", "drops [], not all"),
            (DAEMON_SET, "add: [BPF, ", "add: [", "capabilities"),
            (UNIT, "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "capabilities"),
            ("docs/kubernetes.md", "| `SYS_PTRACE` |", "| `SYS_MODULE` |", "capabilities"),
            (documented::SOURCE, "\"CAP_BPF\"", "\"CAP_BFP\"", "capabilities"),
            (ROLE, "verbs: [create]", "verbs: [create, delete]", "delete events"),
            (ROLE, "services, nodes", "services, nodes, secrets", "get secrets"),
            (
                BINDING,
                "kind: ClusterRole\n  name: lb",
                "kind: ClusterRole\n  name: bl",
                "no ClusterRole \"bl\"",
            ),
            (KUSTOMIZATION, "  - cluster-role.yaml\n", "", "cluster-role.yaml is not among"),
            (KUSTOMIZATION, "newTag:", "tag:", "unknown field"),
            ("examples/mysql.yaml", "selector:", "selectors:", "unknown field spec.selectors"),
            ("examples/mysql.yaml", "kind: Service", "kind: Ingress", "no type for v1 Ingress"),
        ];
        for (file, from, to, expected) in cases {
            let complaint = complaint_about(file, from, to);
            assert!(complaint.contains(expected), "{file}, {from:?} → {to:?}: {complaint}");
        }
    }
}
