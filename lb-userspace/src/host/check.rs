//! What the node has, what it lacks, and what lb cannot do without it.

mod capabilities;

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::thread::CapabilitySet;
use serde::Serialize;

use super::forwarding::forwarding;
use super::kernel::{self, Probe, Version};
use super::lock::{LockError, lock_file};
use super::{bpffs, cgroup, mounts, reserved_ports as ports};
use crate::sockets;

/// The folders an agent would use.
#[derive(Clone, Debug)]
pub struct Places {
    /// `--state-dir`
    pub state_dir: PathBuf,
    /// `--run-dir`
    pub run_dir: PathBuf,
    /// `--bpffs`
    pub bpffs: PathBuf,
    /// `--cgroup`
    pub cgroup: Option<PathBuf>,
}

/// How a finding bears on lb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// lb works, with something lost; or it could not be tested.
    Warn,
    /// lb cannot work.
    Fail,
}

/// One thing that the node needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How it bears on lb.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What is lost and what helps, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequence: Option<String>,
}

/// Looks at everything, in the order in which a person would mend it. Changes nothing.
pub fn check(places: &Places) -> Vec<Finding> {
    let mut findings = capabilities::findings();
    findings.extend([
        kernel_version(),
        probe(
            "bpf system call",
            kernel::bpf_call(),
            Level::Fail,
            "lb cannot work; the kernel needs CONFIG_BPF_SYSCALL",
        ),
        probe(
            "socket hooks",
            kernel::socket_hooks(),
            Level::Fail,
            "lb cannot work; the kernel needs CONFIG_CGROUP_BPF",
        ),
        probe(
            "socket release hook",
            kernel::release_hook(),
            Level::Fail,
            "lb cannot work; the kernel needs CONFIG_CGROUP_BPF",
        ),
        probe(
            "socket storage",
            kernel::socket_storage(),
            Level::Fail,
            "lb cannot remember where a socket meant to go; the kernel needs Linux 5.2 with CONFIG_NET",
        ),
        memory_mapped_arrays(),
        atomics(),
        probe(
            "honest errors",
            kernel::honest_errors(),
            Level::Warn,
            "a refused connection sees EPERM instead of ECONNREFUSED or EHOSTUNREACH; Linux 5.18 has bpf_set_retval",
        ),
        probe(
            "TCX links",
            kernel::tcx(),
            Level::Warn,
            "packet programs are attached as filters of a clsact queueing discipline: packets that filters of a \
             smaller priority number decide on are not translated; Linux 6.6 has TCX",
        ),
        forwarding(),
        closing_sockets(),
        jit(),
        btf(),
        cgroup(places.cgroup.as_deref()),
        net_cls(),
        bpffs(&places.bpffs),
        reserved_ports(),
        locked_memory(),
        run_dir(&places.run_dir),
        state_dir(&places.state_dir),
    ]);
    findings
}

pub(super) fn finding(
    subject: &'static str,
    level: Level,
    found: impl Into<String>,
    consequence: &str,
) -> Finding {
    Finding { subject, level, found: found.into(), consequence: Some(consequence.to_owned()) }
}

pub(super) fn ok(subject: &'static str, found: impl Into<String>) -> Finding {
    Finding { subject, level: Level::Ok, found: found.into(), consequence: None }
}

fn probe(subject: &'static str, probe: Probe, absent: Level, consequence: &str) -> Finding {
    match probe {
        Probe::Present => ok(subject, "present"),
        Probe::Absent => finding(subject, absent, "missing", consequence),
        Probe::Untested(why) => finding(
            subject,
            Level::Warn,
            format!("not tested: {why}"),
            "run `lb check` as root to know",
        ),
    }
}

fn kernel_version() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if Version::running() >= Version::OLDEST {
        return ok("kernel", format!("Linux {release}"));
    }
    let consequence = format!(
        "older than Linux {}, the first with everything lb needs; a distribution's kernel may have it all the same",
        Version::OLDEST
    );
    finding("kernel", Level::Warn, format!("Linux {release}"), &consequence)
}

fn memory_mapped_arrays() -> Finding {
    by_version(
        "memory-mapped arrays",
        Version(5, 5),
        Level::Fail,
        "lb cannot change endpoints in place; it needs Linux 5.5",
    )
}

fn atomics() -> Finding {
    by_version(
        "atomic operations",
        Version::ATOMICS,
        Level::Fail,
        "the kernel refuses lb's programs (BPF_CMPXCHG); they need Linux 5.12",
    )
}

fn by_version(subject: &'static str, since: Version, absent: Level, consequence: &str) -> Finding {
    if Version::running() >= since {
        ok(subject, format!("present since Linux {since}"))
    } else {
        finding(subject, absent, "missing", consequence)
    }
}

fn closing_sockets() -> Finding {
    const SUBJECT: &str = "closing of sockets";
    match sockets::limits().as_deref() {
        Ok([]) => ok(SUBJECT, "present"),
        Ok(limits) => finding(SUBJECT, Level::Warn, "missing", &limits.join("; ")),
        Err(error) => finding(
            SUBJECT,
            Level::Warn,
            format!("not tested: {error}"),
            "run `lb check` as root to know",
        ),
    }
}

fn jit() -> Finding {
    const SUBJECT: &str = "just-in-time compiler";
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(value) if value.trim() != "0" => ok(SUBJECT, "on"),
        Ok(_) => finding(
            SUBJECT,
            Level::Warn,
            "off",
            "programs are interpreted, several times slower; `sysctl net.core.bpf_jit_enable=1` turns it on",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => finding(
            SUBJECT,
            Level::Warn,
            "not tested: needs root",
            "run `lb check` as root to know",
        ),
        // The setting belongs to the whole node and is shown in its first network namespace only.
        Err(_) if !in_the_nodes_network() => ok(SUBJECT, "not shown in this network namespace"),
        Err(_) => finding(
            SUBJECT,
            Level::Warn,
            "missing",
            "programs are interpreted, several times slower; the kernel needs CONFIG_BPF_JIT",
        ),
    }
}

fn in_the_nodes_network() -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    namespace("self") == namespace("1")
}

fn btf() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        return ok("kernel types (BTF)", "present");
    }
    finding(
        "kernel types (BTF)",
        Level::Warn,
        "missing",
        "lb itself does not need them; bpftool and tracers show its maps and programs without types",
    )
}

fn cgroup(chosen: Option<&Path>) -> Finding {
    const SUBJECT: &str = "cgroup v2";
    let root = match chosen {
        Some(path) => cgroup::validate(path).map(|path| cgroup::CgroupRoot { path, warning: None }),
        None => cgroup::find(),
    };
    match root {
        Ok(cgroup::CgroupRoot { path, warning: None }) => ok(SUBJECT, path.display().to_string()),
        Ok(cgroup::CgroupRoot { path, warning: Some(warning) }) => {
            finding(SUBJECT, Level::Warn, path.display().to_string(), &warning)
        }
        Err(error) => finding(SUBJECT, Level::Fail, "not usable", &format!("{error:#}")),
    }
}

/// Before Linux 5.15 a socket had one field for a net_cls class or its v2 cgroup, not for both.
fn net_cls() -> Finding {
    const SUBJECT: &str = "net_cls and net_prio";
    let mounted = mounts::mounts().unwrap_or_default().into_iter().any(|mount| {
        let mut options = mount.options.split(',');
        mount.kind == "cgroup" && options.any(|o| o == "net_cls" || o == "net_prio")
    });
    if !mounted || Version::running() >= Version::NET_CLS_HARMLESS {
        return ok(
            SUBJECT,
            if mounted { "mounted, harmless on this kernel" } else { "not mounted" },
        );
    }
    finding(
        SUBJECT,
        Level::Warn,
        "mounted",
        "once a class or priority is set, new sockets lose their v2 cgroup and are served by the root cgroup's programs \
         only; Linux 5.15 mends it",
    )
}

fn bpffs(folder: &Path) -> Finding {
    const SUBJECT: &str = "BPF file system";
    let nearest = bpffs::nearest_existing(folder);
    if bpffs::is_bpffs(nearest) {
        return ok(SUBJECT, format!("mounted, for {}", folder.display()));
    }
    if access(nearest, Access::EXISTS | Access::READ_OK | Access::EXEC_OK).is_err() {
        return finding(
            SUBJECT,
            Level::Warn,
            format!("not tested: {} cannot be read", nearest.display()),
            "run `lb check` as root to know",
        );
    }
    let found = format!("not mounted; lb agent mounts one for {}", folder.display());
    if mounts::are_own() {
        return finding(SUBJECT, Level::Warn, found, bpffs::ENDS_WITH_CONTAINER);
    }
    ok(SUBJECT, found)
}

/// Of the packet path, which needs ports that no local socket gets.
fn reserved_ports() -> Finding {
    const SUBJECT: &str = "reserving of ports";
    match ports::why_unwritable() {
        None => ok(SUBJECT, "possible"),
        Some(error) => finding(
            SUBJECT,
            Level::Warn,
            format!("not possible: {error}"),
            "packets of clients elsewhere to endpoints on other nodes are dropped; lb agent needs root, and in a \
             container whose /proc/sys is read-only the node's /proc/sys/net at /host/proc/sys/net",
        ),
    }
}

fn locked_memory() -> Finding {
    const SUBJECT: &str = "locked memory";
    if Version::running() >= Version::CHARGES_CGROUP {
        return ok(SUBJECT, "maps are not limited by RLIMIT_MEMLOCK");
    }
    match kernel::locked_memory() {
        None => ok(SUBJECT, "unlimited"),
        Some(bytes) if capabilities::has(CapabilitySet::SYS_RESOURCE) => {
            ok(SUBJECT, format!("limited to {bytes} bytes; lb agent lifts the limit"))
        }
        Some(bytes) => finding(
            SUBJECT,
            Level::Fail,
            format!("limited to {bytes} bytes"),
            "lb agent cannot start; run `ulimit -l unlimited` first, or give it CAP_SYS_RESOURCE",
        ),
    }
}

fn run_dir(folder: &Path) -> Finding {
    const SUBJECT: &str = "run folder";
    let lock = folder.join(crate::api::LOCK_FILE);
    if lock.exists() {
        match lock_file(&lock) {
            Err(LockError::Held { pid }) => {
                let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                return ok(
                    SUBJECT,
                    format!("{}, in use by a running agent{pid}", folder.display()),
                );
            }
            Ok(_) | Err(LockError::Io(_)) => {}
        }
    }
    writable(SUBJECT, folder, "--run-dir")
}

fn state_dir(folder: &Path) -> Finding {
    writable("state folder", folder, "--state-dir")
}

fn writable(subject: &'static str, folder: &Path, flag: &str) -> Finding {
    const ROOM: u64 = 16 << 20;
    let nearest = bpffs::nearest_existing(folder);
    if !nearest.is_dir() {
        let consequence =
            format!("lb agent cannot make {}; choose another {flag}", folder.display());
        return finding(
            subject,
            Level::Fail,
            format!("{} is not a folder", nearest.display()),
            &consequence,
        );
    }
    if access(nearest, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let consequence = format!(
            "lb agent cannot write there as this user; run it as root or choose another {flag}"
        );
        return finding(
            subject,
            Level::Fail,
            format!("{} is not writable", nearest.display()),
            &consequence,
        );
    }
    let room = rustix::fs::statvfs(nearest)
        .map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    if room < ROOM {
        let consequence = format!("changes may not be kept; make room or choose another {flag}");
        let found = format!("{}: {} KiB free", folder.display(), room / 1024);
        return finding(subject, Level::Warn, found, &consequence);
    }
    ok(subject, folder.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_is_not_well_says_what_is_lost() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("file"), "").expect("written");
        let places = Places {
            state_dir: folder.path().join("file/state"),
            run_dir: folder.path().join("run"),
            bpffs: DEFAULT.into(),
            cgroup: Some(folder.path().into()),
        };
        const DEFAULT: &str = bpffs::DEFAULT_BPFFS;
        let findings = check(&places);
        for finding in &findings {
            assert_eq!(finding.level == Level::Ok, finding.consequence.is_none(), "{finding:?}");
        }
        let level = |subject| findings.iter().find(|f| f.subject == subject).map(|f| f.level);
        assert_eq!(level("state folder"), Some(Level::Fail));
        assert_eq!(level("run folder"), Some(Level::Ok));
        assert_eq!(level("cgroup v2"), Some(Level::Fail));
    }

    #[test]
    fn what_could_not_be_asked_is_no_failure() {
        let found = probe("x", Probe::Untested("needs root".into()), Level::Fail, "all is lost");
        assert_eq!(found.level, Level::Warn);
        assert!(found.found.contains("not tested"));
    }
}
