//! `lb delete`: objects by manifest or by name.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::Done;
use super::apply::{DryRunArg, patiently, warn};
use super::args::{RunDirArg, not_found, parse_targets};
use super::input;
use super::output::Out;
use crate::api::types::{Outcome, Verdict};
use crate::object::Key;

#[derive(Args, Debug)]
pub(super) struct DeleteArgs {
    /// KIND NAME…, or KIND/NAME…
    #[arg(
        required_unless_present = "filename",
        conflicts_with = "filename",
        value_name = "KIND NAME"
    )]
    objects: Vec<String>,
    /// A manifest, a folder of manifests, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Namespace of the objects [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArg,
    /// Succeed if an object does not exist
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    run_dir: RunDirArg,
}

pub(super) async fn run(args: DeleteArgs, out: &mut Out) -> Done {
    let (keys, errors) = keys(&args)?;
    let count = keys.len();
    let client = args.run_dir.client();
    let deletion = client.delete(keys.clone(), args.dry_run.wanted());
    let outcomes = if count == 0 {
        Vec::new()
    } else {
        patiently(&format!("deleting {count} objects …"), deletion).await?
    };
    let done = report(&keys, &outcomes, &args, out)?;
    out.flush()?;
    for error in &errors {
        writeln!(io::stderr(), "{error}")?;
    }
    Ok(done && errors.is_empty())
}

/// What is to be deleted, and what of the manifests could not be understood.
fn keys(args: &DeleteArgs) -> Result<(Vec<Key>, Vec<String>)> {
    if !args.filename.is_empty() {
        let input = input::read(&args.filename, args.namespace.as_deref(), false)?;
        ensure!(
            !(input.items.is_empty() && input.errors.is_empty() && input.warnings.is_empty()),
            "no objects passed to delete: {} holds none",
            input::names(&args.filename)
        );
        warn(&input.warnings);
        return Ok((input.items.into_iter().map(|item| item.key).collect(), input.errors));
    }
    let namespace = args.namespace.as_deref().unwrap_or("default");
    let keys = parse_targets(&args.objects)?
        .into_iter()
        .map(|target| {
            let name = target.name.context(
                "a kind was given but no name; say lb delete KIND NAME, such as lb delete svc mysql",
            )?;
            let namespace = if target.kind.namespaced() { namespace } else { "" };
            Ok(Key::new(target.kind, namespace, &name))
        })
        .collect::<Result<_>>()?;
    Ok((keys, Vec::new()))
}

/// Prints one line per object. True if none was missing or refused.
fn report(keys: &[Key], outcomes: &[Outcome], args: &DeleteArgs, out: &mut Out) -> Result<bool> {
    let suffix = args.dry_run.suffix();
    let mut done = true;
    for (key, outcome) in keys.iter().zip(outcomes) {
        warn(&outcome.warnings);
        let error = match &outcome.result {
            Verdict::NotFound if args.ignore_not_found => continue,
            Verdict::NotFound => not_found(key.kind, &key.name),
            Verdict::Refused(message) => message.clone(),
            Verdict::Deleted | Verdict::Created | Verdict::Configured | Verdict::Unchanged => {
                writeln!(out, "{} \"{}\" deleted{suffix}", key.kind.resource(), key.name)?;
                continue;
            }
        };
        out.flush()?;
        writeln!(io::stderr(), "{error}")?;
        done = false;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::output::tests::Captured;
    use crate::object::Kind;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DeleteArgs,
    }

    fn args(line: &str) -> DeleteArgs {
        Line::parse_from(["delete"].into_iter().chain(line.split(' '))).args
    }

    #[test]
    fn names_are_deleted_in_the_given_namespace() {
        let (keys, _) = keys(&args("svc a b -n x")).expect("understood");
        assert_eq!(keys, [Key::new(Kind::Service, "x", "a"), Key::new(Kind::Service, "x", "b")]);
        assert!(super::keys(&args("svc")).is_err(), "everything of a kind is never meant");
    }

    #[test]
    fn a_missing_object_fails_unless_that_is_allowed() {
        let outcome = |result| Outcome { key: None, result, warnings: Vec::new() };
        for (line, expected) in [("svc a b", false), ("svc a b --ignore-not-found", true)] {
            let args = args(line);
            let (keys, _) = keys(&args).expect("understood");
            let outcomes = [outcome(Verdict::Deleted), outcome(Verdict::NotFound)];
            let captured = Captured::default();
            let done = report(&keys, &outcomes, &args, &mut captured.out()).expect("printed");
            assert_eq!(done, expected, "{line}");
            assert_eq!(captured.text(), "service \"a\" deleted\n");
        }
    }
}
