//! The running kernel: its version, its limits, and which parts of BPF it has.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use aya::maps::MapType;
use aya::programs::{ProgramError, ProgramType, SchedClassifier, TcAttachType};
use aya::sys::{
    BpfHelper, SyscallError, is_helper_supported, is_map_supported, is_program_supported,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A kernel version, as far as features depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The first kernel on which lb can work at all: cgroup links (5.7) and memory-mapped arrays (5.5).
    pub const OLDEST: Self = Self(5, 7);
    /// Memory of maps is charged to the cgroup and no longer limited by `RLIMIT_MEMLOCK`.
    pub const CHARGES_CGROUP: Self = Self(5, 11);
    /// Programs may use atomic operations that return a value (kernel commit 5ffa25502b5a).
    pub const ATOMICS: Self = Self(5, 12);
    /// net_cls and net_prio no longer turn cgroup v2 hooks off (kernel commit 8520e224f547).
    pub const NET_CLS_HARMLESS: Self = Self(5, 15);

    /// Version of the running kernel.
    pub fn running() -> Self {
        Self::parse(&rustix::system::uname().release().to_string_lossy())
    }

    /// `6.18.44-fc-v657` → 6.18. What cannot be read counts as oldest.
    fn parse(release: &str) -> Self {
        let mut numbers =
            release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        Self(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The node's host name in lower case, as Kubernetes names nodes.
pub fn hostname() -> String {
    let uname = rustix::system::uname();
    OsStr::from_bytes(uname.nodename().to_bytes()).to_string_lossy().to_lowercase()
}

/// Lifts `RLIMIT_MEMLOCK` where the kernel still counts maps against it.
pub fn allow_locked_memory() -> anyhow::Result<()> {
    if Version::running() >= Version::CHARGES_CGROUP {
        return Ok(());
    }
    setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).map_err(|errno| {
        anyhow::anyhow!(
            "the limit of locked memory cannot be lifted ({errno}); run `ulimit -l unlimited` first"
        )
    })
}

/// Raises the number of files that this process may have open to the most that it may raise it to: a
/// socket is one, and names are asked for elsewhere by hundreds of them.
pub fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(errno) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!("the limit of open files stays at {:?}: {errno}", limit.current);
    }
}

/// Bytes of memory that may be locked; `None` is no limit.
pub(super) fn locked_memory() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

/// What asking the kernel for one of its parts gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    Present,
    Absent,
    /// The kernel did not let us ask.
    Untested(String),
}

/// Whether programs at connect, sendmsg, recvmsg and getpeername can be loaded.
pub(super) fn socket_hooks() -> Probe {
    from_program(is_program_supported(ProgramType::CgroupSockAddr))
}

/// Whether a program at the release of a socket can be loaded.
pub(super) fn release_hook() -> Probe {
    from_program(is_program_supported(ProgramType::CgroupSock))
}

/// Whether the `bpf` system call makes plain maps at all.
pub(super) fn bpf_call() -> Probe {
    from_map(is_map_supported(MapType::Array))
}

/// Whether storage can be bound to a socket.
pub(super) fn socket_storage() -> Probe {
    from_map(is_map_supported(MapType::SkStorage))
}

/// Whether a program can choose the error number that `connect` returns.
pub(super) fn honest_errors() -> Probe {
    from_program(is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval))
}

/// Whether programs can be attached to a network device by links (TCX): the kernel lists none at
/// loopback, whose index is 1 everywhere, instead of not knowing the kind.
pub(super) fn tcx() -> Probe {
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Err(ProgramError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::EINVAL) =>
        {
            Probe::Absent
        }
        result => from_program(result.map(|_| true)),
    }
}

/// As [`tcx`]. What could not be asked counts as no.
pub fn has_tcx() -> bool {
    tcx() == Probe::Present
}

fn from_program(result: Result<bool, ProgramError>) -> Probe {
    match result {
        Ok(present) => present.into(),
        Err(ProgramError::SyscallError(error)) => from_call(&error),
        Err(error) => Probe::Untested(error.to_string()),
    }
}

fn from_map(result: Result<bool, SyscallError>) -> Probe {
    match result {
        Ok(present) => present.into(),
        Err(error) => from_call(&error),
    }
}

fn from_call(error: &SyscallError) -> Probe {
    match error.io_error.raw_os_error() {
        Some(libc::ENOSYS) => Probe::Absent,
        Some(libc::EPERM | libc::EACCES) => Probe::Untested("needs root".to_owned()),
        _ => Probe::Untested(format!("{}: {}", error.call, error.io_error)),
    }
}

impl From<bool> for Probe {
    fn from(present: bool) -> Self {
        if present { Self::Present } else { Self::Absent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(Version::parse("6.18.44-fc-v657"), Version(6, 18));
        assert_eq!(Version::parse("5.10.0-28-amd64"), Version(5, 10));
        assert_eq!(Version::parse("6.1-rc3"), Version(6, 1));
        assert_eq!(Version::parse("strange"), Version(0, 0));
        assert!(Version(5, 9) < Version(5, 10));
    }

    #[test]
    fn the_running_kernel_has_a_version() {
        assert!(Version::running() > Version(2, 6));
    }
}
