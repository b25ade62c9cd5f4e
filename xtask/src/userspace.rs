//! The binary `lb`: building, running and testing it, with the kernel programs inside.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{ebpf, workspace};

/// Compiles the kernel programs and the binary `lb`, and returns the binary's path.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    let mut cargo = cargo("build")?;
    cargo.args(["-p", "lb-userspace", "--bin", "lb"]);
    if release {
        cargo.arg("--release");
    }
    workspace::run(&mut cargo, "building lb")?;
    let profile = if release { "release" } else { "debug" };
    Ok(workspace::target_dir().join(profile).join("lb"))
}

/// Builds lb and becomes it: signals and the exit code are lb's own. Returns only on failure.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let lb = build(false)?;
    Err(Command::new(&lb).args(arguments).exec())
        .with_context(|| format!("cannot start {}", lb.display()))
}

/// Runs every test of the workspace; `arguments` go to `cargo test`.
pub(crate) fn test(arguments: &[OsString]) -> Result<()> {
    workspace::run(cargo("test")?.arg("--workspace").args(arguments), "cargo test")
}

/// A cargo command over crates that embed the kernel programs, which are compiled first.
pub(crate) fn cargo(verb: &str) -> Result<Command> {
    let object = ebpf::build(false)?;
    let mut cargo = workspace::cargo();
    cargo.arg(verb).arg("--target-dir").arg(workspace::target_dir()).env("LB_EBPF_OBJECT", object);
    Ok(cargo)
}
