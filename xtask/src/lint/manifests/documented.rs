//! What is written in several places, and the same in each: the capabilities (in the source, the DaemonSet, the
//! systemd unit and the manual), and what the agent may ask of the API (in the role and the manual).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Object, list, of_kind, texts};

/// Where the agent's own list of capabilities is.
pub(super) const SOURCE: &str = "lb-userspace/src/host/check/capabilities.rs";
const MANUAL: &str = "docs/kubernetes.md";
const UNIT: &str = "deploy/systemd/lb-agent.service";

/// What is written differently.
pub(super) fn problems(root: &Path, objects: &[&Object]) -> Result<Vec<String>> {
    let read = |file: &str| fs::read_to_string(root.join(file)).context(file.to_owned());
    let manual = read(MANUAL)?;
    let source = capabilities_of_source(&read(SOURCE)?);
    let mut problems = Vec::new();
    let written = [
        (MANUAL, column(&manual, "## Capabilities", 0)),
        (UNIT, capabilities_of_unit(&read(UNIT)?)),
        ("the DaemonSet", capabilities_of(objects)),
    ];
    for (place, written) in written {
        if written != source {
            problems.push(format!(
                "capabilities: {place} has {}, {SOURCE} {}",
                together(&written),
                together(&source)
            ));
        }
    }
    let (allowed, told) = (allowed(objects), told(&manual));
    let more = allowed
        .difference(&told)
        .map(|what| format!("the ClusterRole allows to {what}, {MANUAL} does not say so"));
    let less = told
        .difference(&allowed)
        .map(|what| format!("{MANUAL} says {what}, the ClusterRole does not allow it"));
    problems.extend(more.chain(less));
    Ok(problems)
}

fn together(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// The lines `name: "CAP_…",`.
fn capabilities_of_source(text: &str) -> BTreeSet<String> {
    let names = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("name: \"CAP_")?.strip_suffix("\","));
    names.map(str::to_owned).collect()
}

fn capabilities_of_unit(text: &str) -> BTreeSet<String> {
    let words = text.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let words = words.flat_map(str::split_whitespace);
    words.map(|word| word.trim_start_matches("CAP_").to_owned()).collect()
}

fn capabilities_of(objects: &[&Object]) -> BTreeSet<String> {
    let sets = of_kind(objects, "DaemonSet");
    let containers =
        sets.iter().flat_map(|set| list(&set.value["spec"]["template"]["spec"]["containers"]));
    let added = containers.flat_map(|one| texts(&one["securityContext"]["capabilities"]["add"]));
    added.map(str::to_owned).collect()
}

/// `get services`, `create events.k8s.io events`, …: what the role of every agent allows.
fn allowed(objects: &[&Object]) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for rule in of_kind(objects, "ClusterRole").iter().flat_map(|role| list(&role.value["rules"])) {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                let verbs = texts(&rule["verbs"]).into_iter();
                allowed.extend(verbs.map(|verb| phrase(verb, group, resource)));
            }
        }
    }
    allowed
}

/// The same of the table under `## Permissions`: group, resource, verbs. What is optional is said in the last
/// column, and is in no role but by the component for it.
fn told(manual: &str) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for row in rows(manual, "## Permissions").filter(|row| !row[3].starts_with("optional")) {
        let group = if row[0] == "core" { "" } else { row[0] };
        let verbs = row[2].split(',');
        told.extend(verbs.map(|verb| phrase(verb.trim(), group, row[1])));
    }
    told
}

fn phrase(verb: &str, group: &str, resource: &str) -> String {
    let group = if group.is_empty() { String::new() } else { format!(" of {group}") };
    format!("{verb} {resource}{group}")
}

/// A column of the first table under a heading.
fn column(manual: &str, heading: &str, number: usize) -> BTreeSet<String> {
    rows(manual, heading).map(|row| row[number].to_owned()).collect()
}

/// The rows of the first table under a heading, each cell without its marks of code.
fn rows<'t>(manual: &'t str, heading: &str) -> impl Iterator<Item = Vec<&'t str>> {
    let section = manual.lines().skip_while(move |line| *line != heading).skip(1);
    let table =
        section.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    // The heading and the line below it.
    table.skip(2).map(|line| {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect()
    })
}
