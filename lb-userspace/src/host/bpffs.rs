//! The folder of pins, and the BPF file system under it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::mounts;

/// Where pins lie if nothing else is said.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/lb";

/// Where a node's BPF file system is usually mounted.
const USUAL: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: i64 = 0xcafe_4a11;

/// File in the run folder that names the mount point lb mounted itself. Like the mount, it does not
/// survive a restart of the node.
const MARKER: &str = "bpffs.mounted";

/// The kernel's own entries in the root of a BPF file system (bpf_preload).
const KERNELS_OWN: [&str; 2] = ["maps.debug", "progs.debug"];

/// What is lost if the agent mounts one in a container.
pub(super) const ENDS_WITH_CONTAINER: &str = "the BPF file system is mounted in a container and ends with it, and \
     translation with it; mount one on the node (`mount -t bpf bpf /sys/fs/bpf`) and hand it in";

/// Whether the path lies on a BPF file system.
pub fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == BPF_FS)
}

/// Makes sure that `folder` exists and lies on a BPF file system, mounting one if there is none.
pub fn ensure(folder: &Path, run_dir: &Path) -> Result<()> {
    refuse_shared(folder)?;
    if !is_bpffs(nearest_existing(folder)) {
        mount_for(folder, run_dir)?;
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("{} cannot be created", folder.display()))?;
    ensure!(
        is_bpffs(folder),
        "{} does not lie on a BPF file system, although one was mounted; is something mounted over it?",
        folder.display()
    );
    Ok(())
}

/// What lies directly on the node's BPF file system is not lb's alone, and could not be cleaned up.
pub(super) fn refuse_shared(folder: &Path) -> Result<()> {
    ensure!(
        folder != Path::new(USUAL),
        "{USUAL} is shared with other programs; choose a folder in it with --bpffs, such as {DEFAULT_BPFFS}"
    );
    Ok(())
}

fn mount_for(folder: &Path, run_dir: &Path) -> Result<()> {
    let point = if folder.starts_with(USUAL) { Path::new(USUAL) } else { folder };
    if point != Path::new(USUAL) {
        fs::create_dir_all(point)
            .with_context(|| format!("{} cannot be created", point.display()))?;
        if fs::read_dir(point)?.next().is_some() {
            bail!(
                "{} holds files and does not lie on a BPF file system; choose an empty or new folder with --bpffs",
                point.display()
            );
        }
    }
    // Before the mount, so that nothing is ever mounted that lb cleanup would not find.
    let marker = run_dir.join(MARKER);
    fs::write(&marker, point.as_os_str().as_encoded_bytes())
        .with_context(|| format!("{} cannot be written", marker.display()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
    mount("bpf", point, "bpf", flags, c"mode=0700").with_context(|| {
        format!(
            "no BPF file system could be mounted on {0}; mount one with `mount -t bpf bpf {0}` (a container needs it from its host)",
            point.display()
        )
    })?;
    tracing::info!("mounted a BPF file system on {}", point.display());
    if mounts::are_own() {
        tracing::warn!("{}", ENDS_WITH_CONTAINER);
    }
    Ok(())
}

/// The path itself or the closest folder above it that exists.
pub(super) fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// Unmounts what [`ensure()`] mounted, if nothing is left on it. Returns the mount point.
pub(super) fn unmount_own(run_dir: &Path) -> Result<Option<PathBuf>> {
    let marker = run_dir.join(MARKER);
    let Ok(point) = fs::read_to_string(&marker) else { return Ok(None) };
    let point = PathBuf::from(point);
    if is_bpffs(&point) {
        if !is_unused(&point)? {
            return Ok(None);
        }
        unmount(&point, UnmountFlags::empty())
            .with_context(|| format!("{} cannot be unmounted", point.display()))?;
        if point != Path::new(USUAL) {
            // Made for the mount; if somebody has put something there since, it stays.
            let _ = fs::remove_dir(&point);
        }
    }
    fs::remove_file(&marker)?;
    Ok(Some(point))
}

fn is_unused(point: &Path) -> Result<bool> {
    for entry in fs::read_dir(point)? {
        let name = entry?.file_name();
        if !KERNELS_OWN.iter().any(|own| name == *own) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_existing_folder_is_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(nearest_existing(&folder.path().join("a/b")), folder.path());
        assert_eq!(nearest_existing(folder.path()), folder.path());
    }

    #[test]
    fn files_are_never_hidden_under_a_mount() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("precious"), "").expect("written");
        let error = ensure(folder.path(), folder.path()).expect_err("must refuse");
        assert!(format!("{error:#}").contains("holds files"), "{error:#}");
    }
}
