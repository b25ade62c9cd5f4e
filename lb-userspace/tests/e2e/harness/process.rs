//! Child processes that die with the test process.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The first argument that makes this binary run another one, bound to the tests' life.
pub(crate) const MODE: &str = "__exec";

/// A command for `program` that the kernel kills when the thread that spawns it ends.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = starter();
    command.arg(program);
    command
}

/// The same for the program that its first argument will name.
pub(crate) fn starter() -> Command {
    let mut command = myself();
    command.arg(MODE).arg(std::process::id().to_string());
    command
}

/// A command for this test binary.
pub(crate) fn myself() -> Command {
    Command::new(std::env::current_exe().expect("the test binary knows its path"))
}

/// Asks the kernel to kill this process with its parent, which is the process `parent`.
pub(crate) fn die_with(parent: u32) -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
    // The parent may have died before the request was made.
    let now = getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == parent { Ok(()) } else { Err("the test process is gone".to_owned()) }
}

/// Replaces this process by the program named in the arguments.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let parent = arguments.next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
    if let Err(problem) = die_with(parent) {
        eprintln!("e2e: {problem}");
        return ExitCode::FAILURE;
    }
    let Some(program) = arguments.next() else { return ExitCode::FAILURE };
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("e2e: cannot run {program}: {error}");
    ExitCode::FAILURE
}
