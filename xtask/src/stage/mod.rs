//! What a command that runs lb puts on the machine, and how it goes away again. Everything carries
//! one name, such as `lb-demo-<process id>`, so that the next run can sweep up after one that was
//! killed.
//!
//! The pods' network is a bridge in a namespace of its own: nothing is added to the machine's
//! own namespace, and no route leads out.

pub(crate) mod agent;
pub(crate) mod narration;
pub(crate) mod pod;
pub(crate) mod process;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::{preflight, workspace};
use pod::Pod;

const NAMESPACES: &str = "/run/netns";

/// The node's device towards a host elsewhere.
pub(crate) const UPLINK: &str = "uplink";
/// The network that they share (RFC 5737).
const HOSTS: &str = "192.0.2.0/24";
/// The node's address there.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The other host's.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// A network, a cgroup and a folder of their own; dropping it removes them.
pub(crate) struct Stage {
    name: String,
    /// The folder of everything that is written.
    pub(crate) folder: PathBuf,
    /// The cgroup above all pods.
    pub(crate) cgroup: PathBuf,
}

impl Stage {
    /// Removes what an earlier stage of this name left behind, and sets up this one.
    pub(crate) fn set_up(name: &str) -> Result<Self> {
        let cgroups = preflight::cgroup2_root()?;
        for old in abandoned(&format!("{name}-"), &cgroups) {
            println!("removing what is left of {old}, whose process is gone");
            remove(&old, &cgroups);
        }
        let name = format!("{name}-{}", std::process::id());
        let stage = Self { folder: folder(&name), cgroup: cgroups.join(&name), name };
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&stage.folder)
            .with_context(|| format!("cannot create {}", stage.folder.display()))?;
        fs::create_dir(&stage.cgroup)
            .with_context(|| format!("cannot create {}", stage.cgroup.display()))?;
        let network = stage.network();
        ip(&["netns", "add", &network])?;
        ip(&["-n", &network, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &network, "link", "set", "bridge", "up"])?;
        Ok(stage)
    }

    /// Adds a pod to the network. `id` tells it from another pod of the same name.
    pub(crate) fn add_pod(&self, name: &str, id: u8) -> Result<Pod> {
        let address = Ipv4Addr::new(10, 244, 0, id);
        let (network, port) = (self.network(), format!("pod-{id}"));
        let mut pod = self.add_namespace(&port, address)?;
        pod.name = name.to_owned();
        let namespace = pod.netns();
        ip(&[
            "-n", &network, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns",
            &namespace,
        ])?;
        ip(&["-n", &network, "link", "set", &port, "master", "bridge", "up"])?;
        pod.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        pod.ip(&["link", "set", "eth0", "up"])?;
        pod.cgroup = Some(self.add_cgroup(&port)?);
        Ok(pod)
    }

    /// Adds a host elsewhere, on a network that it shares with `node` only.
    pub(crate) fn add_host(&self, name: &str, node: &Pod) -> Result<Pod> {
        let host = self.add_namespace(name, HOST)?;
        connect([(node, UPLINK, NODE), (&host, "eth0", HOST)])?;
        node.set("net/ipv4/ip_forward", "1")
            .context("the node cannot be made to forward packets")?;
        Ok(host)
    }

    /// Adds a network namespace that is connected to nothing, without a cgroup. `address` is the one by which
    /// it will be known.
    pub(crate) fn add_namespace(&self, name: &str, address: Ipv4Addr) -> Result<Pod> {
        let namespace = format!("{}-{name}", self.name);
        ip(&["netns", "add", &namespace])?;
        let namespace = Path::new(NAMESPACES).join(namespace);
        let pod = Pod { name: name.to_owned(), address, namespace, cgroup: None };
        pod.ip(&["link", "set", "lo", "up"])?;
        Ok(pod)
    }

    /// Adds a cgroup below that of the stage.
    pub(crate) fn add_cgroup(&self, name: &str) -> Result<PathBuf> {
        let cgroup = self.cgroup.join(name);
        fs::create_dir(&cgroup).with_context(|| format!("cannot create {}", cgroup.display()))?;
        Ok(cgroup)
    }

    /// Gives a pod a way to hosts elsewhere, through the node, and to the node's address there.
    pub(crate) fn route_to_hosts(&self, pod: &Pod, node: &Pod) -> Result<()> {
        pod.ip(&["route", "add", HOSTS, "via", &node.address.to_string()])
    }

    fn network(&self) -> String {
        format!("{}-net", self.name)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(cgroups) = self.cgroup.parent() {
            remove(&self.name, cgroups);
        }
    }
}

/// Connects two namespaces by a device in each, whose addresses share a /24.
pub(crate) fn connect(ends: [(&Pod, &str, Ipv4Addr); 2]) -> Result<()> {
    let [(one, device, _), (other, peer, _)] = ends;
    let other = other.netns();
    one.ip(&["link", "add", device, "type", "veth", "peer", "name", peer, "netns", &other])?;
    for (pod, device, address) in ends {
        pod.ip(&["address", "add", &format!("{address}/24"), "dev", device])?;
        pod.ip(&["link", "set", device, "up"])?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let program = workspace::which("ip").context("the program ip is missing")?;
    process::capture(Command::new(program).args(arguments))
        .with_context(|| format!("ip {}", arguments.join(" ")))?;
    Ok(())
}

fn folder(name: &str) -> PathBuf {
    env::temp_dir().join(name)
}

/// Stages of which something is left, and whose process does not run.
fn abandoned(prefix: &str, cgroups: &Path) -> BTreeSet<String> {
    [Path::new(NAMESPACES), cgroups, &env::temp_dir()]
        .into_iter()
        .flat_map(names_in)
        .filter_map(|name| {
            let digits = name.strip_prefix(prefix)?.split('-').next()?.to_owned();
            let pid: u32 = digits.parse().ok()?;
            // A process id comes round again: only the same program counts.
            let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let runs = pid != std::process::id() && program.trim() == "xtask";
            (!runs).then(|| format!("{prefix}{digits}"))
        })
        .collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Removes everything that carries a stage's name. What cannot be removed is named, and does not
/// keep the rest from being removed.
fn remove(name: &str, cgroups: &Path) {
    remove_cgroup(&cgroups.join(name));
    let of_this = format!("{name}-");
    for namespace in names_in(Path::new(NAMESPACES)) {
        if namespace.starts_with(&of_this) {
            remove_namespace(&Path::new(NAMESPACES).join(&namespace));
            // What `lb resolv-conf --netns` wrote, if `lb cleanup` was not reached.
            let files = Path::new("/etc/netns").join(namespace);
            complain(&files, fs::remove_dir_all(&files));
        }
    }
    let folder = folder(name);
    // The agent mounts a BPF file system of its own here; without one the call just fails.
    let _ = unmount(folder.join("bpf"), UnmountFlags::DETACH);
    complain(&folder, fs::remove_dir_all(&folder));
}

/// What `ip netns delete` does, without a process: this runs after an interruption too.
fn remove_namespace(file: &Path) {
    let _ = unmount(file, UnmountFlags::DETACH);
    complain(file, fs::remove_file(file));
}

/// Ends every process in a stage's cgroup and below, and removes it, innermost first.
fn remove_cgroup(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        let _ = kill_process(pid, Signal::KILL);
    }
    // The kernel needs a moment until a killed process has left its cgroup.
    let mut removed = fs::remove_dir(cgroup);
    for _ in 0..100 {
        match &removed {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                thread::sleep(Duration::from_millis(20));
                removed = fs::remove_dir(cgroup);
            }
            Ok(()) | Err(_) => break,
        }
    }
    complain(cgroup, removed);
}

fn complain(path: &Path, removed: io::Result<()>) {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("cannot remove {}: {error}", path.display());
        }
        Ok(()) | Err(_) => {}
    }
}
