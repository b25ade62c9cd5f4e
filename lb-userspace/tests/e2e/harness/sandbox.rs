//! The test process's own mount namespace: a scratch directory and a BPF file system that no other
//! process sees, and that the kernel removes with the last process of the tests, however it ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{cgroup, janitor};

/// The binary under test.
pub(crate) const LB: &str = env!("CARGO_BIN_EXE_lb");

/// An lb whose maps have another layout and whose programs are others.
#[track_caller]
pub(crate) fn next_lb() -> PathBuf {
    let path = std::env::var_os("LB_NEXT").map(PathBuf::from).filter(|path| path.is_file());
    path.unwrap_or_else(|| {
        panic!("LB_NEXT must name an lb of another layout; `cargo xtask test` builds one")
    })
}

/// Directories that every Linux has and the tests do not need: the first one that hides nothing
/// they use becomes the mount point of the scratch directory. (A short path: a Unix socket's
/// may have 108 bytes.)
const MOUNT_POINTS: [&str; 4] = ["/mnt", "/media", "/srv", "/opt"];

pub(crate) struct Sandbox {
    scratch: PathBuf,
    pub(crate) cgroup_root: PathBuf,
    counter: AtomicU32,
    /// Notices the end of this process by the closing of its standard input.
    _janitor: Child,
}

static SANDBOX: OnceLock<Sandbox> = OnceLock::new();

/// Prepares the process. Called once, before there is a second thread.
pub(crate) fn enter() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("the end-to-end tests load BPF programs and make network namespaces, which \
             needs root. Run them as root, or set LB_E2E=skip to leave them out."
            .to_owned());
    }
    let cgroup_root = cgroup::find_root()?;
    cgroup::sweep(&cgroup_root);
    let scratch =
        private_scratch().map_err(|error| format!("no private mount namespace: {error}"))?;
    let janitor = janitor::start(&cgroup_root)
        .map_err(|error| format!("cannot start the cleaning process: {error}"))?;
    let sandbox = Sandbox { scratch, cgroup_root, counter: AtomicU32::new(0), _janitor: janitor };
    assert!(SANDBOX.set(sandbox).is_ok(), "the sandbox is entered once");
    Ok(())
}

/// The sandbox of this process.
pub(crate) fn get() -> &'static Sandbox {
    SANDBOX.get().expect("main enters the sandbox before any test")
}

impl Sandbox {
    /// A number that no other stage of this process has.
    pub(crate) fn next_number(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// A new directory for one stage.
    pub(crate) fn directory(&self, number: u32) -> PathBuf {
        let path = self.scratch.join(number.to_string());
        fs::create_dir(&path).expect("a directory on the scratch file system");
        path
    }

    /// The directory of all these.
    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// A place on the private BPF file system; the agent makes the directory.
    pub(crate) fn bpffs(&self, number: u32) -> PathBuf {
        self.scratch.join("bpf").join(number.to_string())
    }
}

fn private_scratch() -> io::Result<PathBuf> {
    // SAFETY: without `UnshareFlags::FILES` no file descriptor changes hands; the process has one
    // thread, so all later ones share the new mount namespace.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let scratch = mount_point()?;
    mount("lb-e2e", &scratch, "tmpfs", MountFlags::empty(), None)?;
    let bpffs = scratch.join("bpf");
    fs::create_dir(&bpffs)?;
    mount("lb-e2e", &bpffs, "bpf", MountFlags::empty(), None)?;
    Ok(scratch)
}

fn mount_point() -> io::Result<PathBuf> {
    let needed = [std::env::current_exe()?, PathBuf::from(LB), std::env::current_dir()?];
    let hides_nothing =
        |place: &Path| place.is_dir() && !needed.iter().any(|path| path.starts_with(place));
    MOUNT_POINTS
        .iter()
        .map(PathBuf::from)
        .find(|place| hides_nothing(place))
        .ok_or_else(|| io::Error::other(format!("none of {MOUNT_POINTS:?} is free to mount on")))
}
