//! Every network namespace of this node, and being inside one.
//!
//! A namespace is found by what keeps it: a thread inside, a mount of it, or an open descriptor. Not
//! found is one that nothing keeps but its sockets, whose process has moved elsewhere; or nothing but
//! a mount or descriptor of a process that must not be looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::host;

/// The inode of the first PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// A network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace {
    device: u64,
    inode: u64,
}

impl fmt::Display for Namespace {
    /// As `/proc/PID/ns/net` and `lsns` show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}

/// Runs `inside` in every network namespace, on a thread that ends afterwards: it would keep the
/// last one alive. Returns what could not be looked at; if that is nothing, all were visited.
pub fn visit(inside: impl FnMut(Namespace) -> Result<()> + Send) -> Vec<String> {
    let mut walk = Walk {
        inside,
        seen: BTreeSet::new(),
        visited: BTreeSet::new(),
        closed: BTreeMap::new(),
        problems: Vec::new(),
    };
    let walk = thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespaces".into());
        let walking = thread.spawn_scoped(scope, move || {
            walk.all();
            walk.problems
        });
        walking.map(thread::ScopedJoinHandle::join)
    });
    match walk {
        Ok(Ok(problems)) => problems,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => vec![format!("no thread can be started: {error}")],
    }
}

struct Walk<F> {
    inside: F,
    /// Network namespaces.
    seen: BTreeSet<(u64, u64)>,
    /// The [`mark`]s of those that were visited.
    visited: BTreeSet<u64>,
    /// The marks of namespaces that must not be entered by way of the thread that is in them.
    closed: BTreeMap<u64, PathBuf>,
    problems: Vec<String>,
}

impl<F: FnMut(Namespace) -> Result<()>> Walk<F> {
    fn all(&mut self) {
        if fs::metadata("/proc/self/ns/pid").is_ok_and(|own| own.ino() != FIRST_PID_NAMESPACE) {
            self.problems.push(
                "the agent has a PID namespace of its own, so that it cannot see all processes; \
                 give it the host's (hostPID: true, --pid=host)"
                    .to_owned(),
            );
        }
        let mut mount_tables = BTreeSet::new();
        for process in self.entries(Path::new("/proc")) {
            for thread in self.entries(&process.join("task")) {
                self.look_into(&thread);
            }
            self.descriptors(&process);
            if identity(&process.join("ns/mnt")).is_ok_and(|table| mount_tables.insert(table)) {
                self.mounts(&process);
            }
        }
        let unseen = self.closed.iter().filter(|(mark, _)| !self.visited.contains(*mark));
        self.problems.extend(unseen.map(|(_, namespace)| {
            format!("{}: this network namespace must not be entered", namespace.display())
        }));
    }

    fn entries(&mut self, folder: &Path) -> Vec<PathBuf> {
        host::numbered(folder).unwrap_or_else(|error| {
            self.problems.push(format!("{}: {error}", folder.display()));
            Vec::new()
        })
    }

    /// The namespace that a thread is in.
    fn look_into(&mut self, thread: &Path) {
        let namespace = thread.join("ns/net");
        match identity(&namespace) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => match mark(thread) {
                Ok(mark) => {
                    self.closed.entry(mark).or_insert(namespace);
                }
                Err(error) if host::has_ended(&error) => {}
                Err(error) => self.problems.push(format!("{}: {error}", thread.display())),
            },
            _ => self.look_at(&namespace),
        }
    }

    /// Namespaces that a process holds open.
    fn descriptors(&mut self, process: &Path) {
        for descriptor in host::numbered(&process.join("fd")).unwrap_or_default() {
            let target = fs::read_link(&descriptor).unwrap_or_default();
            if target.as_os_str().as_encoded_bytes().starts_with(b"net:[") {
                self.look_at(&descriptor);
            }
        }
    }

    /// Namespaces that are mounted where a process sees them, as `ip netns` and container runtimes
    /// do.
    fn mounts(&mut self, process: &Path) {
        let mounts = match host::mounts_of(process) {
            Ok(mounts) => mounts,
            Err(error) if host::has_ended(&error) => return,
            Err(error) => return self.problems.push(format!("{}: {error}", process.display())),
        };
        for mount in mounts.into_iter().filter(|mount| mount.kind == "nsfs") {
            let Ok(point) = mount.point.strip_prefix("/") else { continue };
            let path = process.join("root").join(point);
            // Another mount may lie on top of it, and not all namespaces are of the network.
            if identity(&path).is_ok_and(|(_, inode)| mount.root == format!("net:[{inode}]")) {
                self.look_at(&path);
            }
        }
    }

    /// Goes into the namespace at `path`, unless it has been there.
    fn look_at(&mut self, path: &Path) {
        let result = match identity(path) {
            Ok(id) if self.seen.contains(&id) => return,
            Ok(_) => self.enter(path),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = result
            && !error.downcast_ref().is_some_and(host::has_ended)
        {
            self.problems.push(format!("{}: {error:#}", path.display()));
        }
    }

    fn enter(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path)?;
        let found = file.metadata()?;
        // What was at the path a moment ago may be another one.
        if !self.seen.insert((found.dev(), found.ino())) {
            return Ok(());
        }
        // The agent's own is open to it without any capability.
        if identity(Path::new("/proc/thread-self/ns/net"))? != (found.dev(), found.ino()) {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("entering the network namespace")?;
        }
        self.visited.insert(mark(Path::new("/proc/thread-self"))?);
        let namespace = Namespace { device: found.dev(), inode: found.ino() };
        (self.inside)(namespace).with_context(|| namespace.to_string())
    }
}

/// What tells the namespace at `path` from others.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// A number that tells network namespaces apart, of a thread that must not be looked into: the
/// kernel makes the files below `net` for each namespace, and shows them to everybody.
fn mark(thread: &Path) -> io::Result<u64> {
    Ok(fs::metadata(thread.join("net/dev"))?.ino())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    /// The inodes of all namespaces; `None` if the test may not look.
    fn visited() -> Option<Vec<u64>> {
        let mut visited = Vec::new();
        let problems = visit(|namespace| {
            visited.push(namespace.inode);
            assert_eq!(
                inode_of("/proc/thread-self/ns/net"),
                namespace.inode,
                "the thread is inside"
            );
            Ok(())
        });
        rustix::process::geteuid().is_root().then(|| {
            assert_eq!(problems, Vec::<String>::new());
            visited
        })
    }

    fn inode_of(path: &str) -> u64 {
        fs::metadata(path).expect("a thread has a namespace").ino()
    }

    #[test]
    fn the_own_namespace_is_visited_once_and_not_left() {
        let own = inode_of("/proc/thread-self/ns/net");
        let Some(visited) = visited() else { return };
        assert_eq!(visited.iter().filter(|&&inode| inode == own).count(), 1, "{visited:?}");
        assert_eq!(inode_of("/proc/thread-self/ns/net"), own, "the calling thread has not moved");
    }

    #[test]
    fn a_namespace_that_only_a_descriptor_keeps_is_visited() {
        let thread = thread::spawn(|| {
            // SAFETY: without `UnshareFlags::FILES` no file descriptor changes hands.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.ok()?;
            File::open("/proc/thread-self/ns/net").ok()
        });
        let Some(kept) = thread.join().expect("no panic") else { return };
        let Some(visited) = visited() else { return };
        let inode = kept.metadata().expect("it is open").ino();
        assert!(visited.contains(&inode), "{inode} in {visited:?}");
    }

    /// As `ip netns add` does, in a mount table that the test does not share.
    #[test]
    fn a_namespace_that_only_a_mount_keeps_is_visited() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let script = "touch net && unshare --net=net true && stat -Lc %i net && read _";
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare, of util-linux");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let visited = visited().expect("root may look");
        drop(child.stdin.take());
        child.wait().expect("a child of ours");
        let inode: u64 = line.trim().parse().expect("an inode");
        assert!(visited.contains(&inode), "{inode} in {visited:?}");
    }
}
