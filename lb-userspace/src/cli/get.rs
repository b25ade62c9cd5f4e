//! `lb get`: objects as a table, as JSON or YAML, or as names.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::args::{RunDirArg, Target, not_found, parse_targets};
use super::columns::{heading, row};
use super::output::{self, Out};
use super::table::Table;
use super::{Done, watch};
use crate::object::{Key, Kind};

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// KIND [NAME…], KIND,KIND, or KIND/NAME…; kinds are svc, endpointslices, pods, endpoints, nodes
    #[arg(required = true, value_name = "KIND")]
    objects: Vec<String>,
    #[command(flatten)]
    pub(super) scope: Scope,
    /// Another form than the table
    #[arg(short, long, value_enum)]
    pub(super) output: Option<Format>,
    /// Go on printing changes until interrupted
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    pub(super) run_dir: RunDirArg,
}

type Found = (Kind, Arc<Value>);

/// Which namespaces are asked for.
#[derive(Args, Clone, Debug)]
pub(super) struct Scope {
    /// Namespace of the objects [default: default]
    #[arg(short, long, conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Objects of every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// The table with more columns
    Wide,
    Json,
    Yaml,
    /// kind/name
    Name,
}

impl Scope {
    /// The namespace to ask for; `None` is all of them.
    pub(super) fn namespace(&self, kind: Kind) -> Option<&str> {
        (kind.namespaced() && !self.all_namespaces)
            .then(|| self.namespace.as_deref().unwrap_or("default"))
    }

    fn nothing_found(&self, kind: Kind) -> String {
        self.namespace(kind).map_or_else(
            || "No resources found".to_owned(),
            |namespace| format!("No resources found in {namespace} namespace."),
        )
    }
}

pub(super) async fn run(args: GetArgs, out: &mut Out) -> Done {
    let targets = parse_targets(&args.objects)?;
    let named = targets.iter().any(|target| target.name.is_some());
    ensure!(
        !(named && args.scope.all_namespaces),
        "a resource cannot be retrieved by name across all namespaces"
    );
    if args.watch {
        ensure!(targets.len() == 1, "only one kind, or one object, can be watched at a time");
        return watch::run(&args, &targets[0], out).await;
    }
    let (found, missing) = fetch(&args, &targets).await?;
    if found.is_empty() && !named && args.output.is_none_or(|format| format == Format::Wide) {
        writeln!(io::stderr(), "{}", args.scope.nothing_found(targets[0].kind))?;
    } else {
        // As kubectl: what is missing from a list is no part of it.
        print(&args, &targets, found, out)?;
    }
    out.flush()?;
    for error in &missing {
        writeln!(io::stderr(), "{error}")?;
    }
    Ok(missing.is_empty())
}

/// Everything asked for that exists, and a message for each named object that does not.
async fn fetch(args: &GetArgs, targets: &[Target]) -> Result<(Vec<Found>, Vec<String>)> {
    let client = args.run_dir.client();
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for Target { kind, name } in targets {
        let namespace = args.scope.namespace(*kind);
        let objects = client.list(*kind, namespace, name.as_deref()).await?;
        if let (Some(name), true) = (name, objects.is_empty()) {
            missing.push(not_found(*kind, name));
        }
        found.extend(objects.into_iter().map(|object| (*kind, object)));
    }
    Ok((found, missing))
}

fn print(args: &GetArgs, targets: &[Target], found: Vec<Found>, out: &mut Out) -> Result<()> {
    let one_object = matches!(targets, [Target { name: Some(_), .. }]);
    match args.output {
        Some(format @ (Format::Json | Format::Yaml)) => {
            if found.is_empty() && one_object {
                return Ok(());
            }
            let mut items: Vec<_> = found.into_iter().map(|(_, object)| object).collect();
            if one_object {
                print_value(&items.remove(0), format, out)
            } else {
                print_value(&output::List::new(items), format, out)
            }
        }
        Some(Format::Name) => {
            for (kind, object) in &found {
                writeln!(out, "{}", key(*kind, object))?;
            }
            Ok(())
        }
        None | Some(Format::Wide) => print_tables(args, targets, &found, out),
    }
}

fn print_value(value: &impl Serialize, format: Format, out: &mut Out) -> Result<()> {
    if format == Format::Json {
        output::print_json(out, value)
    } else {
        output::print_yaml(out, value)
    }
}

/// One table for each kind; with several kinds the names say theirs.
fn print_tables(args: &GetArgs, targets: &[Target], found: &[Found], out: &mut Out) -> Result<()> {
    let mut kinds: Vec<_> = targets.iter().map(|target| target.kind).collect();
    kinds.dedup();
    let mut first = true;
    for kind in &kinds {
        let objects: Vec<_> =
            found.iter().filter(|(k, _)| k == kind).map(|(_, object)| object).collect();
        if objects.is_empty() {
            continue;
        }
        if !std::mem::take(&mut first) {
            writeln!(out)?;
        }
        let rows = Rows::new(args, *kind, kinds.len() > 1);
        let mut lines = vec![rows.heading()];
        for object in objects {
            lines.push(rows.row(object)?);
        }
        Table::default().print(out, &lines)?;
    }
    Ok(())
}

/// How objects of one kind become rows.
pub(super) struct Rows {
    kind: Kind,
    wide: bool,
    with_namespace: bool,
    with_kind: bool,
}

impl Rows {
    pub(super) fn new(args: &GetArgs, kind: Kind, with_kind: bool) -> Self {
        Self {
            kind,
            wide: args.output == Some(Format::Wide),
            with_namespace: args.scope.all_namespaces && kind.namespaced(),
            with_kind,
        }
    }

    pub(super) fn heading(&self) -> Vec<String> {
        let mut cells = heading(self.kind, self.wide);
        if self.with_namespace {
            cells.insert(0, "NAMESPACE".to_owned());
        }
        cells
    }

    pub(super) fn row(&self, object: &Value) -> Result<Vec<String>> {
        let mut cells = row(self.kind, object, self.wide, Timestamp::now())?;
        if self.with_kind {
            cells[0] = format!("{}/{}", self.kind.resource(), cells[0]);
        }
        if self.with_namespace {
            cells.insert(0, key(self.kind, object).namespace.to_string());
        }
        Ok(cells)
    }
}

/// The identity of an object of the agent's.
pub(super) fn key(kind: Kind, object: &Value) -> Key {
    let word = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    Key::new(kind, word("namespace"), word("name"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::cli::output::tests::Captured;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: GetArgs,
    }

    fn object(kind: Kind, name: &str) -> Found {
        let object = json!({
            "apiVersion": kind.api_version(), "kind": kind.name(),
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}], "containers": []},
        });
        (kind, Arc::new(object))
    }

    fn printed(line: &str, found: Vec<Found>) -> String {
        let args = Line::parse_from(["get"].into_iter().chain(line.split(' '))).args;
        let targets = parse_targets(&args.objects).expect("understood");
        let captured = Captured::default();
        print(&args, &targets, found, &mut captured.out()).expect("printed");
        captured.text()
    }

    #[test]
    fn services_are_a_table() {
        assert_eq!(
            printed("svc", vec![object(Kind::Service, "mysql")]),
            "NAME    TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE\n\
             mysql   ClusterIP   10.96.0.9    <none>        80/TCP    <unknown>\n"
        );
    }

    #[test]
    fn all_namespaces_come_first() {
        let text = printed("svc -A", vec![object(Kind::Service, "a")]);
        assert!(text.starts_with("NAMESPACE   NAME"), "{text}");
        assert!(text.contains("\ndefault     a "), "{text}");
    }

    #[test]
    fn several_kinds_are_several_tables_whose_names_say_the_kind() {
        let text = printed("svc,pods", vec![object(Kind::Service, "a"), object(Kind::Pod, "b")]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("service/a "), "{text}");
        assert_eq!(lines[2], "");
        assert!(lines[4].starts_with("pod/b "), "{text}");
    }

    #[test]
    fn one_named_object_stands_alone_and_several_are_a_list() {
        let one: Value =
            serde_json::from_str(&printed("svc a -o json", vec![object(Kind::Service, "a")]))
                .expect("JSON");
        assert_eq!(one["kind"], "Service");
        let all: Value =
            serde_json::from_str(&printed("svc -o json", vec![object(Kind::Service, "a")]))
                .expect("JSON");
        assert_eq!(
            (&all["kind"], &all["items"][0]["metadata"]["name"]),
            (&json!("List"), &json!("a"))
        );
        assert!(printed("svc -o json", vec![]).contains("\"items\": []"));
    }

    #[test]
    fn names_are_kind_and_name() {
        let text = printed("endpointslices -o name", vec![object(Kind::EndpointSlice, "a")]);
        assert_eq!(text, "endpointslice.discovery.k8s.io/a\n");
    }
}
