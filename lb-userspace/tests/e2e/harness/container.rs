//! `lb` as in a container: the image's root file system, a cgroup namespace of its own, a read-only /proc/sys, few
//! capabilities, and of the node what a manifest hands in.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount,
};
use rustix::process::{chdir, chroot};
use rustix::thread::{
    CapabilitySet, UnshareFlags, remove_capability_from_bounding_set, unshare_unsafe,
};

use super::process::myself;
use super::sandbox::{self, LB};

/// The first argument that makes this binary become a container's first process.
pub(crate) const MODE: &str = "__container";

/// What is handed in: of the node, and where. The tests name cgroups by their path on the node.
const HANDED_IN: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "sys/fs/cgroup"), ("/proc/sys/net", "host/proc/sys/net")];

/// Where the container's own cgroup is mounted, as runtimes do.
const OWN_CGROUP: &str = "own/cgroup";

/// The words that run the program behind them with these capabilities in a container, which is the cgroup. Its
/// folders of state are where they are outside.
pub(crate) fn launcher(capabilities: &[String], cgroup: &Path) -> Vec<String> {
    let sandbox = sandbox::get();
    let root = sandbox.directory(sandbox.next_number());
    lay_out(&root).unwrap_or_else(|error| panic!("a root file system: {error}"));
    let this = myself().get_program().to_string_lossy().into_owned();
    let [root, cgroup] = [&root, cgroup].map(|path| path.display().to_string());
    vec![this, MODE.to_owned(), root, cgroup, capabilities.join(",")]
}

/// The folders of the container, and the files of the image: `lb` and the libraries that it names.
fn lay_out(root: &Path) -> io::Result<()> {
    for folder in ["proc", "sys/fs/cgroup", "host/proc/sys/net", OWN_CGROUP] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::create_dir_all(inside(root, sandbox::get().scratch()))?;
    let output = Command::new("ldd").arg(LB).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let copy = inside(root, Path::new(library));
        fs::create_dir_all(copy.parent().unwrap_or(root))?;
        fs::copy(library, copy)?;
    }
    let program = inside(root, Path::new(LB));
    fs::create_dir_all(program.parent().unwrap_or(root))?;
    // A place to mount the binary on, which is large.
    fs::write(program, "")
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Becomes the container's first process; its arguments are the root, the cgroup, the capabilities and the
/// program.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let words: [_; 4] = std::array::from_fn(|_| arguments.next().unwrap_or_default());
    let [root, cgroup, capabilities, program] = words;
    if let Err(error) = enter(&root, &cgroup, &capabilities, &program) {
        eprintln!("e2e: no container: {error}");
        return ExitCode::FAILURE;
    }
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("e2e: cannot run {program}: {error}");
    ExitCode::FAILURE
}

fn enter(root: &str, cgroup: &str, capabilities: &str, program: &str) -> io::Result<()> {
    let (root, program) = (Path::new(root), Path::new(program));
    // "0" is the writer itself.
    fs::write(Path::new(cgroup).join("cgroup.procs"), "0")?;
    // SAFETY: without `UnshareFlags::FILES` no file descriptor changes hands; there is one thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP) }?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    mount_bind(program, inside(root, program))?;
    // The folders of state, and the node's BPF file system.
    let scratch = scratch_of(root);
    mount_bind_recursive(&scratch, inside(root, &scratch))?;
    mount_bind_recursive("/proc", root.join("proc"))?;
    for (from, to) in HANDED_IN {
        mount_bind_recursive(from, root.join(to))?;
    }
    mount("cgroup", root.join(OWN_CGROUP), "cgroup2", MountFlags::empty(), None)?;
    let settings = root.join("proc/sys");
    mount_bind(&settings, &settings)?;
    mount_remount(&settings, MountFlags::BIND | MountFlags::RDONLY, c"")?;
    chroot(root)?;
    chdir("/")?;
    for name in capabilities_except(capabilities)? {
        remove_capability_from_bounding_set(name)?;
    }
    Ok(())
}

/// The scratch directory, in which the container's root lies.
fn scratch_of(root: &Path) -> PathBuf {
    root.parent().unwrap_or(root).to_owned()
}

/// Every capability of this process that is not among `names`, as manifests spell them.
fn capabilities_except(names: &str) -> io::Result<Vec<CapabilitySet>> {
    let mut kept = CapabilitySet::empty();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        let known = CapabilitySet::from_name(name);
        kept |= known.ok_or_else(|| io::Error::other(format!("no capability {name}")))?;
    }
    let held = rustix::thread::capabilities(None)?.permitted;
    Ok((held - kept).iter().collect())
}
