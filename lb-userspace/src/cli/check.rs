//! `lb check`: what this node has, and what is lost without what it lacks.

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use clap::Args;

use super::Done;
use super::args::PlacesArgs;
use super::output::Out;
use super::status::{Machine, print_machine};
use crate::host::{self, Finding, Level};

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Another form than the list
    #[arg(short, long, value_enum)]
    output: Option<Machine>,
    #[command(flatten)]
    places: PlacesArgs,
}

pub(super) fn run(args: &CheckArgs, out: &mut Out) -> Done {
    let findings = host::check(&args.places.places()?);
    match args.output {
        Some(form) => print_machine(&findings, form, out)?,
        None => print(&findings, io::stdout().is_terminal(), out)?,
    }
    Ok(findings.iter().all(|finding| finding.level != Level::Fail))
}

fn print(findings: &[Finding], colour: bool, out: &mut Out) -> Result<()> {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or_default();
    for finding in findings {
        let word = level(finding.level, colour);
        writeln!(out, "{word} {:<width$}  {}", finding.subject, finding.found)?;
        if let Some(consequence) = &finding.consequence {
            writeln!(out, "{:4} {:width$}  → {consequence}", "", "")?;
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let verdict = match (count(Level::Fail), count(Level::Warn)) {
        (0, 0) => "lb works on this node.".to_owned(),
        (0, 1) => "lb works on this node, with one limit.".to_owned(),
        (0, limits) => format!("lb works on this node, with {limits} limits."),
        (1, _) => "lb cannot work here: one thing is missing.".to_owned(),
        (missing, _) => format!("lb cannot work here: {missing} things are missing."),
    };
    Ok(writeln!(out, "\n{verdict}")?)
}

fn level(level: Level, colour: bool) -> String {
    let (word, code) = match level {
        Level::Ok => ("ok", 32),
        Level::Warn => ("warn", 33),
        Level::Fail => ("FAIL", 31),
    };
    if colour { format!("\x1b[{code}m{word:<4}\x1b[0m") } else { format!("{word:<4}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::Captured;

    #[test]
    fn findings_line_up_and_say_what_is_lost() {
        let findings = [
            Finding {
                subject: "kernel",
                level: Level::Ok,
                found: "Linux 6.18".into(),
                consequence: None,
            },
            Finding {
                subject: "privileges",
                level: Level::Fail,
                found: "not root".into(),
                consequence: Some("run it as root".into()),
            },
        ];
        let captured = Captured::default();
        print(&findings, false, &mut captured.out()).expect("printed");
        assert_eq!(
            captured.text(),
            "ok   kernel      Linux 6.18\n\
             FAIL privileges  not root\n\
             \u{20}                → run it as root\n\
             \n\
             lb cannot work here: one thing is missing.\n"
        );
    }
}
