//! What CI refuses, checked the same way here: format, lints, documentation, manifests, and the rules of
//! the source tree.

mod manifests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{ebpf, userspace, workspace};

/// No source file is longer: one that is holds more than one thing.
const LONGEST_FILE: usize = 600;

/// Runs every check; the first that fails ends it.
pub(crate) fn run() -> Result<()> {
    check_lengths(workspace::root())?;
    manifests::check(workspace::root())?;
    workspace::run(
        workspace::cargo().args(["fmt", "--all", "--check"]),
        "the format check (remedy: cargo fmt --all)",
    )?;
    ebpf::lint()?;
    workspace::run(
        userspace::cargo("clippy")?.args([
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]),
        "clippy",
    )?;
    workspace::run(
        userspace::cargo("doc")?
            .args(["--workspace", "--no-deps", "--document-private-items"])
            // Private items are documented, so links to them work.
            .env("RUSTDOCFLAGS", "--deny warnings --allow rustdoc::private-intra-doc-links"),
        "rustdoc",
    )?;
    println!("lint: clean");
    Ok(())
}

fn check_lengths(root: &Path) -> Result<()> {
    for file in rust_files(root)? {
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            let shown = file.strip_prefix(root).unwrap_or(&file).display();
            bail!("{shown} has {lines} lines: split it, {LONGEST_FILE} are the limit");
        }
    }
    Ok(())
}

/// The Rust files below a folder, without what is built and what is hidden.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let context = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        let name = entry.file_name();
        let is_source = !name.to_string_lossy().starts_with('.') && name != "target";
        if is_source && entry.file_type().with_context(context)?.is_dir() {
            files.extend(rust_files(&entry.path())?);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            files.push(entry.path());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_above_the_limit_is_refused_by_name() {
        let tree = tempfile::tempdir().expect("a temporary folder");
        let crate_folder = tree.path().join("crate/src");
        fs::create_dir_all(&crate_folder).expect("a folder");
        fs::write(crate_folder.join("good.rs"), "\n".repeat(LONGEST_FILE)).expect("a file");
        check_lengths(tree.path()).expect("a file at the limit");

        fs::write(crate_folder.join("long.rs"), "\n".repeat(LONGEST_FILE + 1)).expect("a file");
        let error = check_lengths(tree.path()).expect_err("a file above the limit").to_string();
        assert!(error.contains("crate/src/long.rs has 601 lines"), "{error}");
    }
}
