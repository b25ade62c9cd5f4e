//! Selects the compiler: it must be able to build `core` for BPF, and its LLVM needs a linker.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{setup, workspace};

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CLIPPY: &str = "/usr/bin/clippy-driver";

/// Where a compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// rustup's nightly, with `rust-src`.
    Nightly,
    /// Debian's `rustc-web` with `rust-web-src`, called with rustup's cargo.
    Debian,
}

/// A compiler for the kernel programs.
pub(super) struct Toolchain {
    /// Where it comes from.
    pub(super) kind: Kind,
    /// The major version of its LLVM.
    pub(super) llvm: u32,
}

/// Selects a toolchain, and installs Debian's if that is the one and it is missing.
/// `is_linkable` says whether a linker for a version of LLVM is here or can be had.
pub(super) fn select(is_linkable: impl Fn(u32) -> bool) -> Result<Toolchain> {
    let nightly = nightly_llvm();
    match choose(nightly, nightly.is_some_and(is_linkable), setup::has_apt())? {
        Kind::Nightly => Ok(Toolchain { kind: Kind::Nightly, llvm: nightly.context("nightly")? }),
        Kind::Debian => {
            setup::install(&setup::for_debian_rust())?;
            let version = workspace::output(Command::new(DEBIAN_RUSTC).arg("-vV"))
                .with_context(|| format!("{DEBIAN_RUSTC} of package rustc-web does not run"))?;
            let llvm = llvm_major(&version)
                .with_context(|| format!("{DEBIAN_RUSTC} -vV names no LLVM version"))?;
            Ok(Toolchain { kind: Kind::Debian, llvm })
        }
    }
}

/// The decision: nightly where it is complete and can be linked, else Debian's packages.
fn choose(nightly: Option<u32>, nightly_is_linkable: bool, has_apt: bool) -> Result<Kind> {
    match nightly {
        Some(_) if nightly_is_linkable => Ok(Kind::Nightly),
        Some(_) | None if has_apt => Ok(Kind::Debian),
        Some(llvm) => bail!(
            "nightly uses LLVM {llvm}, and no bpf-linker can be built for it here: install \
             LLVM {llvm}'s development files, or set BPF_LINKER to a bpf-linker of that LLVM"
        ),
        None => bail!(
            "no compiler for BPF here: run `rustup toolchain install nightly --component rust-src`"
        ),
    }
}

impl Toolchain {
    /// A cargo that compiles with this toolchain.
    pub(super) fn cargo(&self) -> Command {
        let mut cargo = match self.kind {
            Kind::Nightly => {
                let mut rustup = Command::new("rustup");
                rustup.current_dir(workspace::root()).args(["run", "nightly", "cargo"]);
                rustup
            }
            Kind::Debian => workspace::cargo(),
        };
        // What the user set for the host's compiler is not meant for this one.
        for variable in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
            cargo.env_remove(variable);
        }
        if self.kind == Kind::Debian {
            cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        }
        cargo
    }

    /// The same with clippy. rustup's `cargo clippy` cannot drive Debian's compiler, whose own
    /// clippy is called in the way `cargo clippy` does it.
    pub(super) fn clippy(&self) -> Command {
        let mut cargo = self.cargo();
        match self.kind {
            Kind::Nightly => cargo.arg("clippy"),
            Kind::Debian => cargo.arg("check").env("RUSTC_WORKSPACE_WRAPPER", DEBIAN_CLIPPY),
        };
        cargo
    }
}

/// The LLVM of rustup's nightly, if that is installed with the source of `core`.
fn nightly_llvm() -> Option<u32> {
    let rustc = |argument: &[&str]| {
        let mut rustup = Command::new("rustup");
        workspace::output(rustup.args(["run", "nightly", "rustc"]).args(argument))
    };
    let sysroot = rustc(&["--print", "sysroot"])?;
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock");
    core.is_file().then(|| rustc(&["-vV"]))?.as_deref().and_then(llvm_major)
}

/// Reads the line `LLVM version: 22.1.8` of `rustc -vV`.
fn llvm_major(version: &str) -> Option<u32> {
    let number = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    number.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nightly_comes_first_where_it_can_be_linked_and_debian_fills_in() {
        let cases = [
            // (nightly's LLVM, linkable, apt) → chosen
            (Some(22), true, true, Some(Kind::Nightly)),
            (Some(22), true, false, Some(Kind::Nightly)),
            (Some(99), false, true, Some(Kind::Debian)),
            (Some(99), false, false, None),
            (None, false, true, Some(Kind::Debian)),
            (None, false, false, None),
        ];
        for (nightly, linkable, apt, expected) in cases {
            let chosen = choose(nightly, linkable, apt).ok();
            assert_eq!(chosen, expected, "nightly {nightly:?}, linkable {linkable}, apt {apt}");
        }
    }

    #[test]
    fn the_refusal_names_the_remedy() {
        let without = choose(None, false, false).expect_err("no compiler").to_string();
        assert!(without.contains("rust-src"), "{without}");
        let unlinkable = choose(Some(99), false, false).expect_err("no linker").to_string();
        assert!(unlinkable.contains("LLVM 99"), "{unlinkable}");
    }

    #[test]
    fn the_llvm_version_is_read_from_rustc() {
        let version = "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8";
        assert_eq!(llvm_major(version), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0"), None);
    }
}
