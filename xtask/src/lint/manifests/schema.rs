//! Each object alone: its type, as the API has it.

use std::fmt::Display;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ContainerPort, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Object, list};

/// Words that the API knows, where its types say only that it is a text.
const WORDS: [(&str, &[&str]); 7] = [
    ("operator", &["Exists", "Equal"]),
    ("dnsPolicy", &["Default", "ClusterFirst", "ClusterFirstWithHostNet", "None"]),
    ("imagePullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("mountPropagation", &["None", "HostToContainer", "Bidirectional"]),
    ("protocol", &["TCP", "UDP", "SCTP"]),
    ("addressType", &["IPv4", "IPv6", "FQDN"]),
    ("ipFamilyPolicy", &["SingleStack", "PreferDualStack", "RequireDualStack"]),
];

/// `kustomization.yaml`, as far as ours need it. Its types are in no crate.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "only the fields' names and types are checked")]
struct Kustomization {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    #[serde(default)]
    resources: Vec<String>,
    /// Nothing while all are commented out.
    components: Option<Vec<String>>,
    #[serde(default)]
    images: Vec<Image>,
    #[serde(default)]
    config_map_generator: Vec<ConfigMap>,
    #[serde(default)]
    patches: Vec<Patch>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "only the fields' names and types are checked")]
struct Image {
    name: String,
    new_name: Option<String>,
    new_tag: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the fields' names and types are checked")]
struct ConfigMap {
    name: String,
    behavior: Option<String>,
    literals: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    target: Target,
    /// Operations of JSON Patch, as YAML.
    patch: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    kind: String,
    #[serde(rename = "name")]
    _name: String,
}

/// What the API would not take.
pub(super) fn problems(object: &Object) -> Vec<String> {
    let Object { kind, value, .. } = object;
    let version = value["apiVersion"].as_str().unwrap_or_default();
    let mut problems = match (version, kind.as_str()) {
        ("v1", "Pod") => strictly::<Pod>(value),
        ("v1", "Service") => strictly::<Service>(value),
        ("v1", "ServiceAccount") => strictly::<ServiceAccount>(value),
        ("discovery.k8s.io/v1", "EndpointSlice") => strictly::<EndpointSlice>(value),
        ("apps/v1", "DaemonSet") => strictly::<DaemonSet>(value),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => strictly::<ClusterRole>(value),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
            strictly::<ClusterRoleBinding>(value)
        }
        ("kustomize.config.k8s.io/v1beta1", "Kustomization")
        | ("kustomize.config.k8s.io/v1alpha1", "Component") => kustomization(value),
        _ => vec![format!("no type for {version} {kind}: name it in {}", file!())],
    };
    words(value, "", &mut problems);
    problems
}

fn strictly<T: DeserializeOwned>(value: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| problems.push(path.to_string());
    let deserializer = serde_ignored::Deserializer::new(value, &mut note);
    let result: Result<T, _> = serde_path_to_error::deserialize(deserializer);
    // An optional part is a `?` in the path.
    let plain =
        |path: &String| format!("unknown field {}", path.replace("?.", "").replace(".?", ""));
    let mut problems: Vec<_> = problems.iter().map(plain).collect();
    problems.extend(result.err().map(|error| error.to_string()));
    problems
}

fn kustomization(value: &Value) -> Vec<String> {
    let parsed: Kustomization = match serde_path_to_error::deserialize(value) {
        Ok(parsed) => parsed,
        Err(error) => return vec![error.to_string()],
    };
    parsed.patches.iter().flat_map(values_of).collect()
}

/// Our patches add rules to a role, or replace a port, and those must be such.
fn values_of(patch: &Patch) -> Vec<String> {
    let operations: Value = match serde_saphyr::from_str(&patch.patch) {
        Ok(operations) => operations,
        Err(error) => return vec![wrong("patch", error)],
    };
    let values = list(&operations).map(|operation| &operation["value"]);
    match patch.target.kind.as_str() {
        "ClusterRole" => values.flat_map(strictly::<PolicyRule>).collect(),
        "DaemonSet" => values.flat_map(strictly::<ContainerPort>).collect(),
        kind => vec![format!("no type for a patch of {kind}: name it in {}", file!())],
    }
}

fn wrong(what: &str, why: impl Display) -> String {
    format!("{what}: {why}")
}

/// Looks for [`WORDS`] at any depth.
fn words(value: &Value, path: &str, problems: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let known = WORDS.iter().find(|(field, _)| field == name);
                if let (Some((_, known)), Some(word)) = (known, value.as_str())
                    && !known.contains(&word)
                {
                    problems.push(wrong(
                        &format!("{path}{name}"),
                        format!("{word:?} is none of {}", known.join(", ")),
                    ));
                }
                words(value, &format!("{path}{name}."), problems);
            }
        }
        Value::Array(values) => {
            values.iter().for_each(|value| words(value, path, problems));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
