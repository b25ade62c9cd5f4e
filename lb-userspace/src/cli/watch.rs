//! `lb get -w`: what exists, and then every change.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Result, bail};
use serde_json::Value;

use super::Done;
use super::args::{Target, not_found};
use super::get::{Format, GetArgs, Rows, key};
use super::output::{self, Out};
use super::table::Table;

/// Runs until the person or the agent ends it.
pub(super) async fn run(args: &GetArgs, target: &Target, out: &mut Out) -> Done {
    let namespace = args.scope.namespace(target.kind);
    let client = args.run_dir.client();
    let (existing, mut changes) =
        client.watch(target.kind, namespace, target.name.as_deref()).await?;
    if let (Some(name), true) = (&target.name, existing.is_empty()) {
        writeln!(std::io::stderr(), "{}", not_found(target.kind, name))?;
        return Ok(false);
    }
    let mut printer = Printer {
        args,
        target,
        rows: Rows::new(args, target.kind, false),
        table: Table::default(),
        begun: false,
    };
    printer.print(&existing, out)?;
    drop(existing);
    while let Some(object) = changes.next().await? {
        printer.print(&[object], out)?;
    }
    bail!("the agent has stopped, and with it the watch")
}

struct Printer<'a> {
    args: &'a GetArgs,
    target: &'a Target,
    rows: Rows,
    table: Table,
    begun: bool,
}

impl Printer<'_> {
    fn print(&mut self, objects: &[Arc<Value>], out: &mut Out) -> Result<()> {
        if objects.is_empty() {
            return Ok(());
        }
        match self.args.output {
            None | Some(Format::Wide) => self.print_rows(objects, out)?,
            Some(Format::Json) => {
                for object in objects {
                    output::print_json(out, object)?;
                }
            }
            Some(Format::Yaml) => {
                for object in objects {
                    if std::mem::replace(&mut self.begun, true) {
                        writeln!(out, "---")?;
                    }
                    output::print_yaml(out, object)?;
                }
            }
            Some(Format::Name) => {
                for object in objects {
                    writeln!(out, "{}", key(self.target.kind, object))?;
                }
            }
        }
        Ok(out.flush()?)
    }

    fn print_rows(&mut self, objects: &[Arc<Value>], out: &mut Out) -> Result<()> {
        let mut lines = Vec::with_capacity(objects.len() + 1);
        if !std::mem::replace(&mut self.begun, true) {
            lines.push(self.rows.heading());
        }
        for object in objects {
            lines.push(self.rows.row(object)?);
        }
        self.table.print(out, &lines)
    }
}
