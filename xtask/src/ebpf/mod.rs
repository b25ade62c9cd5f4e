//! Compiles the kernel programs: a toolchain that can build `core` for BPF, a linker of the same
//! LLVM, and a target folder of their own, so that host and BPF builds do not disturb each other.

mod linker;
mod toolchain;

use std::env::consts::ARCH;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{setup, workspace};
use toolchain::{Kind, Toolchain};

const TARGET: &str =
    if cfg!(target_endian = "little") { "bpfel-unknown-none" } else { "bpfeb-unknown-none" };

/// Joins flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";

/// Compiles the kernel programs and returns the finished object's path; from nothing if `force`.
pub(crate) fn build(force: bool) -> Result<PathBuf> {
    if force {
        remove_folder(&target_dir())?;
    }
    compile(&[], &target_dir().join("lb-ebpf"))
}

/// Compiles the programs whose maps have another layout, for tests of upgrades.
pub(crate) fn build_next() -> Result<PathBuf> {
    compile(&["--features", "next-layout"], &target_dir().join("lb-ebpf-next"))
}

fn compile(arguments: &[&str], object: &Path) -> Result<PathBuf> {
    let (toolchain, linker) = prepare()?;
    let mut cargo = toolchain.cargo();
    cargo.arg("build").args(arguments);
    workspace::run(&mut for_bpf(cargo, &linker), "compiling the kernel programs")?;

    let built = target_dir().join(TARGET).join("release").join("lb-ebpf");
    publish(&built, object)?;
    Ok(object.to_owned())
}

/// Checks the kernel programs with clippy, as compiled for BPF.
pub(crate) fn lint() -> Result<()> {
    let (toolchain, linker) = prepare()?;
    if toolchain.kind == Kind::Debian {
        setup::install(&setup::for_debian_clippy())?;
    }
    // `-Zwarnings` denies the warnings of this workspace only: those of `core` are not ours.
    let mut cargo = toolchain.clippy();
    cargo.args(["-Zwarnings", "--config", "build.warnings=\"deny\""]);
    workspace::run(&mut for_bpf(cargo, &linker), "clippy of the kernel programs")
}

/// The toolchain and its linker, both installed if missing.
fn prepare() -> Result<(Toolchain, PathBuf)> {
    let toolchain = toolchain::select(linker::is_obtainable)?;
    let linker = linker::ensure(toolchain.llvm)?;
    if linker.is_new {
        // Cargo does not see that the linker behind the same path has changed.
        remove_folder(&target_dir())?;
    }
    Ok((toolchain, linker.path))
}

fn target_dir() -> PathBuf {
    workspace::target_dir().join("ebpf")
}

/// Adds what every cargo command over the kernel programs has in common.
fn for_bpf(mut cargo: Command, linker: &Path) -> Command {
    let flags = [
        // aya-ebpf reads registers by the layout of the machine that runs the programs.
        format!("--cfg=bpf_target_arch=\"{ARCH}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Atomics that return a value, such as compare-and-swap, came with this instruction set.
        "-Ctarget-cpu=v3".to_owned(),
        format!("-Clinker={}", linker.display()),
    ];
    cargo
        .args(["-p", "lb-ebpf", "--bins", "--release", "-Z", "build-std=core"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target_dir())
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR));
    cargo
}

/// Copies the object to its stable path, and only if it differs: whoever embeds it goes by the
/// time of its last change.
fn publish(built: &Path, object: &Path) -> Result<()> {
    let new = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(object, new).with_context(|| format!("cannot write {}", object.display()))
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
