//! `lb apply`: manifests to the agent.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use super::Done;
use super::args::RunDirArg;
use super::input::{self, Input};
use super::output::Out;
use crate::api::types::{ApplyRequest, Outcome, Submitted, Verdict};

#[derive(Args, Debug)]
pub(super) struct ApplyArgs {
    /// A manifest, a folder of manifests, or - for standard input; may be repeated
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Namespace of objects that name none [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArg,
    /// Make kinds that lb does not serve, and unknown fields, errors
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    run_dir: RunDirArg,
}

/// `--dry-run`, also with kubectl's values.
#[derive(Args, Clone, Debug)]
pub(super) struct DryRunArg {
    /// Ask the agent what would happen, and change nothing
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_value = "none",
        default_missing_value = "server",
        hide_possible_values = true,
        hide_default_value = true
    )]
    dry_run: DryRun,
}

/// There is one dry run: the agent's, which knows all there is to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DryRun {
    None,
    Client,
    Server,
}

impl DryRunArg {
    pub(super) fn wanted(&self) -> bool {
        self.dry_run != DryRun::None
    }

    /// What kubectl adds to a line that is about no real change.
    pub(super) fn suffix(&self) -> &'static str {
        if self.wanted() { " (dry run)" } else { "" }
    }
}

pub(super) async fn run(args: ApplyArgs, out: &mut Out) -> Done {
    let input = input::read(&args.filename, args.namespace.as_deref(), args.strict)?;
    let Input { items, errors, warnings } = input;
    ensure!(
        !(items.is_empty() && errors.is_empty() && warnings.is_empty()),
        "no objects passed to apply: {} holds none",
        input::names(&args.filename)
    );
    warn(&warnings);
    let outcomes = if items.is_empty() {
        Vec::new()
    } else {
        let count = items.len();
        let request = ApplyRequest {
            objects: items
                .into_iter()
                .map(|item| Submitted { object: item.object, position: item.position })
                .collect(),
            dry_run: args.dry_run.wanted(),
        };
        let client = args.run_dir.client();
        patiently(&format!("applying {count} objects …"), client.apply(&request)).await?
    };
    let done = report(&outcomes, args.dry_run.suffix(), out)?;
    out.flush()?;
    for error in &errors {
        writeln!(io::stderr(), "{error}")?;
    }
    Ok(done && errors.is_empty())
}

/// Prints one line per object. True if none was refused.
fn report(outcomes: &[Outcome], suffix: &str, out: &mut Out) -> Result<bool> {
    let mut done = true;
    for outcome in outcomes {
        warn(&outcome.warnings);
        let name = outcome.key.as_ref().map(ToString::to_string).unwrap_or_default();
        let verb = match &outcome.result {
            Verdict::Created => "created",
            Verdict::Configured => "configured",
            Verdict::Unchanged => "unchanged",
            Verdict::Deleted => "deleted",
            Verdict::NotFound => "not found",
            Verdict::Refused(message) => {
                // Keeps the order of both streams where they meet on one terminal.
                out.flush()?;
                writeln!(io::stderr(), "{message}")?;
                done = false;
                continue;
            }
        };
        writeln!(out, "{name} {verb}{suffix}")?;
    }
    Ok(done)
}

pub(super) fn warn(warnings: &[String]) {
    for warning in warnings {
        // A closed standard error is no reason to leave the work undone.
        let _ = writeln!(io::stderr(), "Warning: {warning}");
    }
}

/// Waits, and after two seconds tells a person what for.
pub(super) async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        result = &mut work => return result,
        () = tokio::time::sleep(Duration::from_secs(2)) => {}
    }
    if io::stderr().is_terminal() {
        let _ = writeln!(io::stderr(), "{what}");
    }
    work.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::Captured;
    use crate::object::{Key, Kind};

    fn outcome(name: &str, result: Verdict) -> Outcome {
        let key = Some(Key::new(Kind::Service, "default", name));
        Outcome { key, result, warnings: Vec::new() }
    }

    #[test]
    fn each_object_gets_its_line_and_a_refusal_fails_the_command() {
        let captured = Captured::default();
        let outcomes = [
            outcome("a", Verdict::Created),
            outcome("b", Verdict::Refused("f.yaml:3: Service \"b\" is invalid: …".into())),
            outcome("c", Verdict::Unchanged),
        ];
        assert!(!report(&outcomes, "", &mut captured.out()).expect("printed"));
        assert_eq!(captured.text(), "service/a created\nservice/c unchanged\n");
    }

    #[test]
    fn a_dry_run_says_that_it_is_one() {
        let captured = Captured::default();
        let arg = DryRunArg { dry_run: DryRun::Server };
        report(&[outcome("a", Verdict::Configured)], arg.suffix(), &mut captured.out())
            .expect("printed");
        assert_eq!(captured.text(), "service/a configured (dry run)\n");
    }
}
