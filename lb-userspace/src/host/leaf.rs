//! A cgroup for a moment, below the one that is served.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What its name begins with; then comes the agent's process id.
const PREFIX: &str = "lb-self-test-";

/// How long the kernel may take to see that a cgroup's last process is gone.
const PATIENCE: Duration = Duration::from_secs(1);

/// The cgroup; removed when dropped.
#[derive(Debug)]
pub struct Leaf {
    path: PathBuf,
}

impl Leaf {
    /// Makes one below `cgroup`, and removes those of agents that were killed.
    pub fn new(cgroup: &Path) -> Result<Self> {
        sweep_leaves(cgroup);
        let path = cgroup.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path)
            .with_context(|| format!("the cgroup {} cannot be made", path.display()))?;
        Ok(Self { path })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = fs::remove_dir(&self.path) {
            if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() > deadline {
                tracing::warn!("the cgroup {} cannot be removed: {error}", self.path.display());
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Removes what agents below `cgroup` left that are gone, and returns it. A leaf that is in use
/// cannot be removed.
pub fn sweep_leaves(cgroup: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let stale = entries.map(|entry| entry.path()).filter(|path| is_stale(path));
    stale.filter(|path| fs::remove_dir(path).is_ok()).collect()
}

/// Whether the leaf's agent is gone. In a container each may have the number that this one has.
fn is_stale(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let pid = name.and_then(|name| name.strip_prefix(PREFIX)).and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid: u32| {
        pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_of_agents_that_are_gone_are_removed_and_others_stay() {
        let cgroup = tempfile::tempdir().expect("a temporary folder");
        let folder = |name: &str| {
            let path = cgroup.path().join(name);
            fs::create_dir(&path).expect("made");
            path
        };
        // Process ids end at 2^22.
        let stale =
            [folder("lb-self-test-4194999"), folder(&format!("{PREFIX}{}", std::process::id()))];
        let init = folder("lb-self-test-1");
        let other = folder("kubepods");
        let mut removed = sweep_leaves(cgroup.path());
        removed.sort();
        let mut expected = stale.to_vec();
        expected.sort();
        assert_eq!(removed, expected);
        assert!(init.exists() && other.exists());
    }

    #[test]
    fn a_leaf_is_there_until_it_is_dropped() {
        let cgroup = tempfile::tempdir().expect("a temporary folder");
        let leaf = Leaf::new(cgroup.path()).expect("made");
        assert!(leaf.path().is_dir());
        drop(leaf);
        assert_eq!(fs::read_dir(cgroup.path()).expect("readable").count(), 0);
    }
}
