//! Cgroups of the tests: `lb-e2e-<pid of the test process>-<stage>`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PREFIX: &str = "lb-e2e-";

/// A cgroup that is removed with its children when dropped.
pub(crate) struct Cgroup {
    pub(crate) path: PathBuf,
}

impl Cgroup {
    /// A cgroup for one stage, at the root: a real agent's programs there still apply to it.
    pub(crate) fn new(root: &Path, number: u32) -> Self {
        Self::at(root.join(format!("{PREFIX}{}-{number}", std::process::id())))
    }

    /// A cgroup inside this one.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self::at(self.path.join(name))
    }

    fn at(path: PathBuf) -> Self {
        fs::create_dir(&path)
            .unwrap_or_else(|error| panic!("cannot create the cgroup {}: {error}", path.display()));
        Self { path }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path, Duration::from_secs(10));
    }
}

/// Where cgroup v2 is mounted: the one hierarchy, or beside v1 on hybrid hosts.
pub(crate) fn find_root() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    mounts
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .find(|(_, file_system)| file_system.starts_with("cgroup2 "))
        .and_then(|(mount, _)| mount.split(' ').nth(4))
        .map(PathBuf::from)
        .ok_or_else(|| "cgroup v2 is not mounted; mount it at /sys/fs/cgroup".to_owned())
}

/// Removes what test processes left that were killed together with their janitor.
pub(crate) fn sweep(root: &Path) {
    for path in matching(root, PREFIX) {
        let owner = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.split('-').next())
            .map(|pid| Path::new("/proc").join(pid));
        if owner.is_some_and(|process| !process.exists()) {
            remove(&path, Duration::ZERO);
        }
    }
}

/// Removes every cgroup of the test process `pid`.
pub(crate) fn remove_all_of(root: &Path, pid: u32) {
    for path in matching(root, &format!("{PREFIX}{pid}-")) {
        remove(&path, Duration::from_secs(10));
    }
}

fn matching(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)))
        .map(|entry| entry.path())
        .collect()
}

/// Removes a cgroup and those inside it. One whose process has just died is busy for a moment.
fn remove(path: &Path, patience: Duration) {
    let start = Instant::now();
    while let Err(error) = try_remove(path) {
        if error.kind() == io::ErrorKind::NotFound || start.elapsed() > patience {
            return;
        }
        sleep(Duration::from_millis(5));
    }
}

fn try_remove(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            try_remove(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
