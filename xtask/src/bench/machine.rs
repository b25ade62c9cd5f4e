//! On what the numbers were measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::workspace;

/// What a reader needs to judge or to repeat a measurement: names and values, in order.
pub(super) fn describe(lb: Option<&Path>) -> Vec<(&'static str, String)> {
    let uname = rustix::system::uname();
    let mut facts = vec![
        ("machine", processor()),
        ("processors", std::thread::available_parallelism().map_or(0, usize::from).to_string()),
        ("kernel", uname.release().to_string_lossy().into_owned()),
        ("load at the start", field("/proc/loadavg", 0)),
    ];
    if let Some(lb) = lb {
        facts.push(("lb", first_line(Command::new(lb).arg("--version"))));
    }
    let mut git = Command::new("git");
    git.current_dir(workspace::root()).args(["describe", "--always", "--dirty"]);
    facts.push(("commit", first_line(&mut git)));
    facts
}

/// The first line of what a command prints about its version.
pub(super) fn first_line(command: &mut Command) -> String {
    let text = workspace::output(command).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.to_owned())
}

fn field(file: &str, index: usize) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().nth(index).unwrap_or("unknown").to_owned()
}
