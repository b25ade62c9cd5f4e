//! The binary `lb`: building, running and testing it, with the kernel programs inside.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
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

/// Runs every test of the workspace, those that chance decides more often if `soak`; `arguments` go
/// to `cargo test`.
pub(crate) fn test(arguments: &[OsString], soak: bool) -> Result<()> {
    let next = build_next()?;
    let mut cargo = cargo("test")?;
    cargo.arg("--workspace").args(arguments).env("LB_NEXT", next);
    if soak {
        cargo.env("LB_SOAK", "1");
    }
    workspace::run(&mut cargo, "cargo test")
}

/// Compiles an lb whose programs are others and whose maps have another layout: what tests upgrade
/// to. Only the crates of the workspace are compiled once more.
pub(crate) fn build_next() -> Result<PathBuf> {
    let mut cargo = cargo_with("build", &ebpf::build_next()?);
    cargo.args(["-p", "lb-userspace", "--bin", "lb", "--features", "next-layout"]);
    workspace::run(&mut cargo, "building lb with another layout of its maps")?;
    // The next build puts the usual lb in its place again.
    let built = workspace::target_dir().join("debug").join("lb");
    let next = workspace::target_dir().join("next").join("lb");
    let copy = || {
        fs::create_dir_all(workspace::target_dir().join("next"))?;
        // Another file of that name, so that one that is running can be replaced.
        let draft = next.with_extension("draft");
        fs::copy(&built, &draft)?;
        fs::rename(&draft, &next)
    };
    copy().with_context(|| format!("copying {} to {}", built.display(), next.display()))?;
    Ok(next)
}

/// A cargo command over crates that embed the kernel programs, which are compiled first.
pub(crate) fn cargo(verb: &str) -> Result<Command> {
    Ok(cargo_with(verb, &ebpf::build(false)?))
}

fn cargo_with(verb: &str, object: &Path) -> Command {
    let mut cargo = workspace::cargo();
    cargo.arg(verb).arg("--target-dir").arg(workspace::target_dir()).env("LB_EBPF_OBJECT", object);
    cargo
}
