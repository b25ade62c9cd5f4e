//! What an agent needs of its node before it changes anything.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};

use crate::host::{self, Level, Lock, LockError, Places};

/// The folders that `--exempt-cgroup` means.
pub(super) fn exempt(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    ensure!(
        paths.len() <= host::MAX_EXEMPT,
        "--exempt-cgroup: {} are given, {} are possible; name a cgroup above several of them",
        paths.len(),
        host::MAX_EXEMPT
    );
    paths.iter().map(|path| host::exempt_cgroup(path)).collect()
}

/// Stops before anything is changed if lb cannot work here.
pub(super) fn preflight(places: &Places) -> Result<()> {
    let mut missing = Vec::new();
    for finding in host::check(places) {
        let consequence = finding.consequence.unwrap_or_default();
        match finding.level {
            Level::Ok => tracing::debug!("{}: {}", finding.subject, finding.found),
            Level::Warn => tracing::warn!("{}: {}: {consequence}", finding.subject, finding.found),
            Level::Fail => {
                missing.push(format!("{}: {}: {consequence}", finding.subject, finding.found));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("{} (`lb check` tells more)", missing.join("; "))
}

/// The cgroup to serve, and the folder of pins for this process alone.
pub(super) fn take_node(places: &Places) -> Result<(PathBuf, Lock)> {
    let cgroup = match &places.cgroup {
        Some(path) => host::validate_cgroup(path)?,
        None => host::find_cgroup()?.path,
    };
    host::ensure_bpffs(&places.bpffs, &places.run_dir)?;
    let lock = match host::lock_folder(&places.bpffs) {
        Ok(lock) => lock,
        Err(error @ LockError::Held { .. }) => bail!(
            "the pins in {} are {error}; stop that agent or choose another --bpffs",
            places.bpffs.display()
        ),
        Err(LockError::Io(error)) => {
            Err(error).with_context(|| format!("{} cannot be opened", places.bpffs.display()))?
        }
    };
    Ok((cgroup, lock))
}
