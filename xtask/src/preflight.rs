//! What the machine must be able to do, asked before anything is changed on it.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The oldest kernel the project supports.
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// Fails with one sentence if kernel programs cannot be loaded and attached here.
pub(crate) fn kernel_and_privileges() -> Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    check_kernel(&release)?;
    root()?;
    cgroup2_root()?;
    bpf()
}

/// Fails unless run by root.
pub(crate) fn root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "this command needs root (for network namespaces, BPF and packages): \
             run it as root, or with sudo -E env \"PATH=$PATH\" before it"
        );
    }
    Ok(())
}

/// The root of the cgroup v2 hierarchy, wherever it is mounted (hybrid hosts mount it below
/// the v1 hierarchies).
pub(crate) fn cgroup2_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read mountinfo")?;
    find_cgroup2(&mounts).context(
        "no cgroup v2 hierarchy is mounted, and lb attaches to one: \
         mount it with `mount -t cgroup2 none /sys/fs/cgroup`, or boot a system that does",
    )
}

fn check_kernel(release: &str) -> Result<()> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        bail!("cannot read the kernel's version from {release:?}");
    };
    let (oldest_major, oldest_minor) = OLDEST_KERNEL;
    if (major, minor) < OLDEST_KERNEL {
        bail!(
            "the kernel is {release}, and lb needs {oldest_major}.{oldest_minor} or newer: \
             boot a newer kernel"
        );
    }
    Ok(())
}

fn find_cgroup2(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let is_cgroup2 = filesystem.split(' ').next() == Some("cgroup2");
        is_cgroup2.then(|| mount.split(' ').nth(4).map(PathBuf::from)).flatten()
    })
}

/// Asks the kernel for the smallest of BPF maps, which goes away with its descriptor.
fn bpf() -> Result<()> {
    #[repr(C)]
    struct MapCreate {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    }
    const BPF_MAP_CREATE: libc::c_long = 0;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    let request =
        MapCreate { map_type: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: 8, max_entries: 1 };
    // SAFETY: the kernel reads `size_of::<MapCreate>()` bytes of `request`, which lives through
    // the call, and writes nothing.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, &raw const request, size_of::<MapCreate>())
    };
    if fd < 0 {
        let error = io::Error::last_os_error();
        bail!(
            "the kernel refuses BPF ({error}): use a kernel with CONFIG_BPF_SYSCALL, and a \
             container with the capabilities BPF and SYS_ADMIN"
        );
    }
    let fd = i32::try_from(fd).context("the kernel returned no file descriptor")?;
    // SAFETY: the kernel just returned this descriptor, and nothing else owns it.
    drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_older_than_the_oldest_is_refused_with_both_versions() {
        for accepted in ["5.12.0-28-amd64", "6.1.0", "6.18.44-fc-v657", "10.0"] {
            check_kernel(accepted).unwrap_or_else(|error| panic!("{accepted}: {error}"));
        }
        for refused in ["5.9.16", "4.19.0-26-amd64"] {
            let error = check_kernel(refused).expect_err(refused).to_string();
            assert!(error.contains(refused) && error.contains("5.12"), "{error}");
        }
        check_kernel("unknown").expect_err("a release without numbers");
    }

    #[test]
    fn cgroup2_is_found_on_unified_and_hybrid_hosts() {
        let unified = "34 27 0:29 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(find_cgroup2(unified), Some("/sys/fs/cgroup".into()));

        let hybrid = "27 20 0:24 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      28 27 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      38 27 0:35 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find_cgroup2(hybrid), Some("/sys/fs/cgroup/unified".into()));

        assert_eq!(find_cgroup2("27 20 0:24 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"), None);
    }
}
