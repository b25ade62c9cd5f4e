//! A process that outlives the tests for a moment and removes their cgroups, the only thing the
//! kernel does not remove by itself when the test process is killed.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use super::cgroup;

/// The first argument that makes this binary the janitor.
pub(crate) const MODE: &str = "__janitor";

/// Starts the janitor. It lives until its standard input, held by this process alone, closes.
pub(crate) fn start(cgroup_root: &Path) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg(MODE)
        .arg(cgroup_root)
        .arg(std::process::id().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A Ctrl-C at the terminal goes to the tests' process group; the janitor cleans after it.
        .process_group(0)
        .spawn()
}

/// The janitor's main.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let (Some(root), Some(Ok(pid))) =
        (arguments.next().map(PathBuf::from), arguments.next().map(|pid| pid.parse()))
    else {
        return ExitCode::FAILURE;
    };
    // Returns when the test process has ended, whatever ended it.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    cgroup::remove_all_of(&root, pid);
    ExitCode::SUCCESS
}
