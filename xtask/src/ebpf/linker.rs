//! Provides bpf-linker. It reads the bitcode that rustc writes, so both must use one major
//! version of LLVM; otherwise it fails with "Invalid record". The binary does not say which LLVM
//! it was built on, so a stamp beside it does; for the same reason no bpf-linker is taken from
//! the search path. `BPF_LINKER` names one explicitly.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{progress, setup, workspace};

const VERSION: &str = "0.13.0";
/// The versions of LLVM which that version can be built on.
const LLVM_VERSIONS: std::ops::RangeInclusive<u32> = 21..=23;

/// A linker to use.
pub(super) struct Linker {
    /// Its path.
    pub(super) path: PathBuf,
    /// Whether it was built just now.
    pub(super) is_new: bool,
}

/// Whether a linker for this LLVM is here or can be built.
pub(super) fn is_obtainable(llvm: u32) -> bool {
    named().is_some()
        || is_usable(llvm)
        || (LLVM_VERSIONS.contains(&llvm)
            && (llvm_prefix(llvm).is_some() || setup::is_available(&format!("llvm-{llvm}-dev"))))
}

/// Returns the linker for this LLVM, built into the tool folder if it is missing there or
/// belongs to another LLVM.
pub(super) fn ensure(llvm: u32) -> Result<Linker> {
    if let Some(path) = named() {
        return Ok(Linker { path, is_new: false });
    }
    let is_new = !is_usable(llvm);
    if is_new {
        build(llvm)?;
    }
    Ok(Linker { path: binary(), is_new })
}

fn named() -> Option<PathBuf> {
    env::var_os("BPF_LINKER").map(PathBuf::from)
}

fn binary() -> PathBuf {
    workspace::tools_dir().join("bin").join("bpf-linker")
}

fn stamp_file() -> PathBuf {
    workspace::tools_dir().join("bpf-linker.stamp")
}

fn stamp(llvm: u32) -> String {
    format!("bpf-linker {VERSION} llvm-{llvm}\n")
}

/// Built for this LLVM, and able to start: its shared library may have been removed since.
fn is_usable(llvm: u32) -> bool {
    fs::read_to_string(stamp_file()).is_ok_and(|found| found == stamp(llvm))
        && workspace::output(Command::new(binary()).arg("--version")).is_some()
}

fn build(llvm: u32) -> Result<()> {
    if !LLVM_VERSIONS.contains(&llvm) {
        bail!(
            "the compiler uses LLVM {llvm}, and bpf-linker {VERSION} is made for LLVM {} to {}: \
             set BPF_LINKER to a bpf-linker of LLVM {llvm}",
            LLVM_VERSIONS.start(),
            LLVM_VERSIONS.end()
        );
    }
    if setup::has_apt() {
        setup::install(&setup::for_linker(llvm))?;
    }
    let prefix = llvm_prefix(llvm).with_context(|| {
        format!(
            "LLVM {llvm}'s development files are missing: install them (llvm-config included), \
             or set BPF_LINKER to a bpf-linker of that LLVM"
        )
    })?;
    progress::run(
        &mut install_command(llvm, &prefix),
        &format!("building bpf-linker {VERSION} for LLVM {llvm}, which links the kernel programs"),
        "90 s",
    )?;
    fs::write(stamp_file(), stamp(llvm))
        .with_context(|| format!("cannot write {}", stamp_file().display()))
}

fn install_command(llvm: u32, prefix: &Path) -> Command {
    let mut cargo = workspace::cargo();
    cargo
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
        .arg("--root")
        .arg(workspace::tools_dir())
        // Without it the build finds LLVM, and the linker does not find -lLLVM.
        .env("LLVM_PREFIX", prefix);
    cargo
}

/// Where this LLVM is installed: Debian's place first, then what a `llvm-config` says.
fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    let programs = [
        format!("/usr/lib/llvm-{llvm}/bin/llvm-config"),
        format!("llvm-config-{llvm}"),
        "llvm-config".to_owned(),
    ];
    programs.iter().find_map(|program| {
        let ask = |what| workspace::output(Command::new(program).arg(what));
        let version = ask("--version")?;
        let prefix = PathBuf::from(ask("--prefix")?.trim());
        let is_this = version.split('.').next() == Some(&llvm.to_string());
        // `llvm-config` is there without what one links against.
        let can_link = prefix.join("include/llvm-c/Core.h").is_file();
        (is_this && can_link).then_some(prefix)
    })
}
