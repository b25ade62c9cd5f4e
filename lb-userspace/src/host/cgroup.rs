//! The cgroup v2 folder whose processes lb serves.
//!
//! Attaching to a cgroup that holds no process does nothing, silently. So the folder is looked for where
//! this very process is found again, not where a distribution usually mounts it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::mounts::{Mount, mounts};

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2: i64 = 0x6367_7270;

/// Inode of the first cgroup namespace: `PROC_CGROUP_INIT_INO` of linux/proc_ns.h.
const INITIAL_NAMESPACE: &str = "cgroup:[4026531835]";

/// The found root of the cgroup v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupRoot {
    /// Its folder.
    pub path: PathBuf,
    /// What a person should know about it.
    pub warning: Option<String>,
}

/// Finds the cgroup v2 root that the node's processes are really in.
pub fn find() -> Result<CgroupRoot> {
    let mounts = mounts().context("/proc/self/mountinfo cannot be read")?;
    let own =
        fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup cannot be read")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).context(
        "this kernel has no cgroup v2 hierarchy; lb needs one (CONFIG_CGROUPS, CONFIG_CGROUP_BPF)",
    )?;
    let candidates = candidates(&mounts);
    ensure!(
        !candidates.is_empty(),
        "no cgroup v2 hierarchy is mounted; mount one, for instance with \
         `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`"
    );
    let highest = candidates.iter().map(|place| place.above).max().unwrap_or_default();
    let mut highest = candidates.iter().filter(|place| place.above == highest).peekable();
    let first = *highest.peek().context("there is one candidate at the least")?;
    let path = &highest.find(|place| holds_this_process(place, own)).unwrap_or(first).point;
    Ok(CgroupRoot { path: path.clone(), warning: warning(first.above, path, own) })
}

/// Moves this thread into the cgroup namespace of the node's first process, if it can. From a container's own,
/// nobody may be moved to a cgroup outside (`nsdelegate`, Documentation/admin-guide/cgroup-v2.rst).
pub fn enter_nodes_namespace() {
    const NODES: &str = "/proc/1/ns/cgroup";
    let enter = || -> io::Result<()> {
        if fs::metadata(NODES)?.ino() != fs::metadata("/proc/thread-self/ns/cgroup")?.ino() {
            let namespace = File::open(NODES)?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ControlGroup))?;
        }
        Ok(())
    };
    if let Err(error) = enter() {
        tracing::debug!("entering the node's cgroup namespace: {error}");
    }
}

/// So many cgroups can be left alone: entries of map `EXEMPT`.
pub const MAX_EXEMPT: usize = lb_common::abi::entries::EXEMPT as usize;

/// A cgroup whose processes are left alone, at any depth below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExemptCgroup {
    /// Its folder.
    pub path: PathBuf,
    /// The kernel's number of it; `None` while it does not exist.
    pub id: Option<u64>,
}

/// The kernel's number of a cgroup, which is the inode number of its folder.
///
/// # Errors
///
/// If there is no such folder, or it is none of the cgroup v2 hierarchy.
pub fn id(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path).with_context(|| format!("cgroup {}", path.display()))?;
    ensure!(is_cgroup2(path), "{} is not a folder of the cgroup v2 hierarchy", path.display());
    Ok(metadata.ino())
}

/// The folder that `--exempt-cgroup` means: below the hierarchy's root, unless it is absolute. It need
/// not exist yet, but what exists must be a cgroup.
pub fn exempt(path: &Path) -> Result<PathBuf> {
    ensure!(
        path.components().all(|part| part != Component::ParentDir),
        "--exempt-cgroup {}: write it without `..`",
        path.display()
    );
    let path = find()?.path.join(path);
    if path.exists() {
        id(&path).context("--exempt-cgroup")?;
    }
    Ok(path)
}

/// Checks a folder given by `--cgroup`.
pub fn validate(path: &Path) -> Result<PathBuf> {
    let path = path
        .canonicalize()
        .with_context(|| format!("--cgroup {} cannot be opened", path.display()))?;
    if !is_cgroup2(&path) {
        let found = find().map(|root| format!("; on this node it is {}", root.path.display()));
        bail!(
            "--cgroup {} is not a folder of the cgroup v2 hierarchy{}",
            path.display(),
            found.unwrap_or_default()
        );
    }
    Ok(path)
}

/// Where the node's first process and this one are, for a person who has to choose.
pub fn where_processes_are() -> String {
    let root =
        find().map_or_else(|error| format!("{error:#}: "), |root| root.path.display().to_string());
    let place = |process: &str| {
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
        let path = groups.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned);
        path.map_or_else(|| "an unknown cgroup".to_owned(), |path| format!("{root}{path}"))
    };
    format!("process 1 is in {}, this agent in {}", place("1"), place("self"))
}

/// A mount point that shows the hierarchy from a root on.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    point: PathBuf,
    /// How far this root is above that of our cgroup namespace: a container sees the node's hierarchy so, if it was
    /// handed in.
    above: usize,
}

/// Mount points that show the hierarchy from its root on, or from a root above ours, usual places first.
fn candidates(mounts: &[Mount]) -> Vec<Place> {
    const USUAL: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let places = mounts.iter().filter(|mount| mount.kind == "cgroup2");
    let mut places: Vec<_> = places
        .filter_map(|mount| Some(Place { point: mount.point.clone(), above: above(&mount.root)? }))
        .collect();
    places.sort_by_key(|place| {
        USUAL.iter().position(|usual| place.point == Path::new(usual)).unwrap_or(USUAL.len())
    });
    places
}

/// `/` is the root of our namespace, `/../..` is two above; anything else is only a part.
fn above(root: &str) -> Option<usize> {
    let mut parts = root.split('/').filter(|part| !part.is_empty());
    parts.clone().all(|part| part == "..").then(|| parts.by_ref().count())
}

fn is_cgroup2(path: &Path) -> bool {
    path.is_dir() && rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == CGROUP2)
}

/// Whether the mount shows the cgroup that the kernel names for this process, with this process in it.
/// What is above our namespace's root cannot be told so.
fn holds_this_process(place: &Place, own: &str) -> bool {
    let pid = std::process::id().to_string();
    let members = place.point.join(own.trim_start_matches('/')).join("cgroup.procs");
    place.above == 0
        && fs::read_to_string(members)
            .is_ok_and(|members| members.lines().any(|member| member == pid))
}

fn warning(above: usize, root: &Path, own: &str) -> Option<String> {
    if above > 0 {
        let first = fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
        return (!is_below(above, &first)).then(|| {
            format!(
                "the node's first process is not found below {}, which may be a part of the node's hierarchy only; a \
                 container needs all of it from the node, and the node's PID namespace (hostPID: true, --pid=host)",
                root.display()
            )
        });
    }
    let namespace = fs::read_link("/proc/self/ns/cgroup").unwrap_or_default();
    if namespace != Path::new(INITIAL_NAMESPACE) {
        return Some(format!(
            "this process is in a cgroup namespace of its own, so {} is only a part of the node's hierarchy and only \
             the processes below it are served; run lb in the node's cgroup namespace to serve them all",
            root.display()
        ));
    }
    let place = Place { point: root.to_owned(), above };
    (!holds_this_process(&place, own)).then(|| {
        format!(
            "this process is not found below {}; if connections are not translated, choose the right folder with --cgroup",
            root.display()
        )
    })
}

/// Whether a process whose file `cgroup` is this one is below the root that is so far above ours.
fn is_below(above: usize, cgroup: &str) -> bool {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    let ups = path.split('/').filter(|part| *part == "..").count();
    !path.is_empty() && ups <= above
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, point: &str, kind: &str) -> Mount {
        Mount { root: root.into(), point: point.into(), kind: kind.into(), options: String::new() }
    }

    #[test]
    fn usual_places_come_before_others_and_partial_mounts_do_not_count() {
        let found = candidates(&[
            mount("/", "/run/cilium/cgroupv2", "cgroup2"),
            mount("/kubepods", "/mnt/part", "cgroup2"),
            mount("/", "/sys/fs/cgroup", "tmpfs"),
            mount("/", "/sys/fs/cgroup/unified", "cgroup2"),
        ]);
        let place = |point: &str| Place { point: point.into(), above: 0 };
        assert_eq!(found, [place("/sys/fs/cgroup/unified"), place("/run/cilium/cgroupv2")]);
    }

    #[test]
    fn a_container_sees_how_far_the_nodes_root_is_above_its_own() {
        let found = candidates(&[
            mount("/", "/sys/fs/cgroup", "cgroup2"),
            mount("/../../..", "/host/cgroup", "cgroup2"),
            mount("/../../kubepods", "/mnt/part", "cgroup2"),
        ]);
        let heights: Vec<_> = found.iter().map(|place| place.above).collect();
        assert_eq!(heights, [0, 3], "{found:?}");
        for (cgroup, below) in [
            ("0::/../../../init.scope\n", true),
            ("12:cpu:/\n0::/../../..\n", true),
            ("0::/../../../../init.scope\n", false),
            ("", false),
        ] {
            assert_eq!(is_below(3, cgroup), below, "{cgroup:?}");
        }
    }

    #[test]
    fn the_found_root_holds_this_test() {
        // A build machine without cgroup v2 is told so; anything else must be a real cgroup folder.
        match find() {
            Ok(root) => assert!(is_cgroup2(&root.path), "{root:?}"),
            Err(error) => assert!(format!("{error:#}").contains("cgroup v2"), "{error:#}"),
        }
    }

    #[test]
    fn a_folder_of_another_file_system_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let message = format!("{:#}", validate(folder.path()).expect_err("not a cgroup"));
        assert!(message.contains("is not a folder of the cgroup v2 hierarchy"), "{message}");
    }
}
