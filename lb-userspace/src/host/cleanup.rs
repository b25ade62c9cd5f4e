//! Leaves the node as it was before lb.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aya::programs::links::{FdLink, LinkType, PinnedLink};
use aya::programs::loaded_programs;

use super::check::Places;
use super::leaf::sweep_leaves;
use super::lock::{Lock, LockError, lock_file, lock_folder};
use super::reserved_ports::ReservedPorts;
use super::resolv_conf::{ETC_NETNS, ResolvConfs};
use super::{Ports, bpffs, cgroup};
use crate::datapath::{DEVICE_FOLDERS, PIN_FOLDERS, remove_all_filters};
use crate::source::kubernetes::RANGES_FILE;
use crate::store::{CLUSTER_FILE, OWN_FILE};

/// What was removed and what was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Pinned links, programs and maps that were let go.
    pub pins: usize,
    /// Network devices from which filters were removed.
    pub devices: usize,
    /// Files and folders that are gone.
    pub removed: Vec<PathBuf>,
    /// The mount point of the BPF file system that lb had mounted and that is unmounted now.
    pub unmounted: Option<PathBuf>,
    /// Ports that lb had reserved and that local sockets may get again.
    pub released: Option<Ports>,
    /// The state folder, if it exists and was left alone.
    pub kept_state: Option<PathBuf>,
}

/// Detaches the programs, removes every pin, gives back reserved ports, and removes what `lb resolv-conf`
/// installed for this agent and the run folder's files; with `state` also the stored objects and addresses. Refuses while an agent is
/// running.
pub fn cleanup(places: &Places, state: bool) -> Result<Report> {
    cleanup_below(Path::new(ETC_NETNS), places, state)
}

/// As [`cleanup`], with another folder of the network namespaces' files.
fn cleanup_below(etc_netns: &Path, places: &Places, state: bool) -> Result<Report> {
    bpffs::refuse_shared(&places.bpffs)?;
    let mut report = Report::default();
    let run_lock = lock_run_dir(places)?;
    remove_pins(&places.bpffs, &mut report)?;
    report.released = ReservedPorts::new(&places.state_dir).release()?;
    report.unmounted = bpffs::unmount_own(&places.run_dir)?;
    report.removed.extend(ResolvConfs::new(etc_netns, &places.run_dir).remove_all()?);
    let cgroup = places.cgroup.clone().or_else(|| Some(cgroup::find().ok()?.path));
    report.removed.extend(cgroup.iter().flat_map(|cgroup| sweep_leaves(cgroup)));
    if state {
        let files = [OWN_FILE, CLUSTER_FILE, RANGES_FILE];
        remove_folder(&places.state_dir, &files, &mut report)?;
    } else if places.state_dir.exists() {
        report.kept_state = Some(places.state_dir.clone());
    }
    remove_folder(&places.run_dir, &[crate::api::SOCKET_FILE, crate::api::LOCK_FILE], &mut report)?;
    drop(run_lock);
    Ok(report)
}

/// Keeps an agent from starting in the middle.
fn lock_run_dir(places: &Places) -> Result<Option<Lock>> {
    if !places.run_dir.is_dir() {
        return Ok(None);
    }
    match lock_file(&places.run_dir.join(crate::api::LOCK_FILE)) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Held { pid }) => bail!(running(&places.run_dir, pid)),
        Err(LockError::Io(error)) => Err(error).with_context(|| {
            format!("{} cannot be locked; lb cleanup needs root", places.run_dir.display())
        }),
    }
}

fn running(place: &Path, pid: Option<u32>) -> String {
    let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    format!(
        "an agent is running on {}{pid}; stop it first, then run lb cleanup again",
        place.display()
    )
}

fn remove_pins(folder: &Path, report: &mut Report) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    if !bpffs::is_bpffs(folder) {
        // An unmounted mount point of ours, or a folder that was never lb's: nothing is pinned there.
        return Ok(());
    }
    let lock = match lock_folder(folder) {
        Ok(lock) => lock,
        Err(LockError::Held { pid }) => bail!(running(folder, pid)),
        Err(LockError::Io(error)) => Err(error).with_context(|| {
            format!("{} cannot be opened; lb cleanup needs root", folder.display())
        })?,
    };
    report.devices = remove_all_filters(folder)?;
    let mut programs = BTreeSet::new();
    // Links first: an interrupted cleanup must leave maps without programs, never programs whose
    // maps nobody finds again.
    for kind in PIN_FOLDERS {
        remove_pins_of(folder, kind, &mut programs, report)?;
    }
    wait_until_detached(&programs);
    drop(lock);
    remove_empty(folder, report)
}

/// Removes what lies in the folders whose names begin so. Anything else in the folder of pins is a
/// stranger's.
fn remove_pins_of(
    folder: &Path,
    prefix: &str,
    programs: &mut BTreeSet<u32>,
    report: &mut Report,
) -> Result<()> {
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default();
        if !name.as_encoded_bytes().starts_with(prefix.as_bytes()) || !path.is_dir() {
            continue;
        }
        for pin in entries(&path)? {
            programs.extend(attached_program(&pin, prefix));
            fs::remove_file(&pin)
                .with_context(|| format!("{} cannot be removed", pin.display()))?;
            report.pins += 1;
        }
        remove_empty(&path, report)?;
    }
    Ok(())
}

/// The program that a pin keeps attached. Of a map, the kernel tells its own in the place of a link's
/// numbers; no map of ours has the type that stands where cgroup links have theirs, and where TCX links
/// have theirs there are no maps.
fn attached_program(pin: &Path, folder: &str) -> Option<u32> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?).info().ok()?;
    let kind = if folder == DEVICE_FOLDERS { LinkType::Tcx } else { LinkType::Cgroup };
    (link.link_type().ok()? == kind).then(|| link.program_id())
}

/// The kernel takes programs away in its own time after the last pin is gone. A person who is told that
/// they are detached finds it so: a link's number is free before its program is detached, the program's
/// only afterwards (`bpf_link_free`, kernel/bpf/syscall.c).
fn wait_until_detached(programs: &BTreeSet<u32>) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let deadline = Instant::now() + PATIENCE;
    while loaded_programs().flatten().any(|program| programs.contains(&program.id())) {
        if Instant::now() > deadline {
            tracing::warn!("the programs' pins are gone, but the kernel still holds some of them");
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("{} cannot be read", folder.display()))
}

/// Removes the folder unless something is in it, or it is a mount point, which stays busy until then.
fn remove_empty(folder: &Path, report: &mut Report) -> Result<()> {
    const FINE: [io::ErrorKind; 3] =
        [io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::ResourceBusy];
    match fs::remove_dir(folder) {
        Ok(()) => report.removed.push(folder.to_owned()),
        Err(error) if FINE.contains(&error.kind()) => {}
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be removed", folder.display()));
        }
    }
    Ok(())
}

/// Removes lb's own files from a folder, and the folder if nothing else is in it.
fn remove_folder(folder: &Path, files: &[&str], report: &mut Report) -> Result<()> {
    for name in files {
        let file = folder.join(name);
        match fs::remove_file(&file) {
            Ok(()) => report.removed.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("{} cannot be removed", file.display()));
            }
        }
    }
    remove_empty(folder, report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleanup(root: &Path, places: &Places, state: bool) -> Result<Report> {
        cleanup_below(&root.join("netns"), places, state)
    }

    fn places(root: &Path) -> Places {
        Places {
            state_dir: root.join("state"),
            run_dir: root.join("run"),
            bpffs: root.join("bpf"),
            cgroup: None,
        }
    }

    #[test]
    fn only_own_files_go_and_the_state_stays_unless_asked_for() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let places = places(root.path());
        fs::create_dir_all(&places.run_dir).expect("made");
        fs::create_dir_all(&places.state_dir).expect("made");
        fs::write(places.run_dir.join(crate::api::SOCKET_FILE), "").expect("written");
        fs::write(places.state_dir.join(OWN_FILE), "").expect("written");
        fs::write(places.state_dir.join("not-lbs"), "").expect("written");

        let report = cleanup(root.path(), &places, false).expect("no agent runs");
        assert_eq!(report.kept_state, Some(places.state_dir.clone()));
        assert!(!places.run_dir.exists());

        cleanup(root.path(), &places, true).expect("no agent runs");
        let left: Vec<_> = fs::read_dir(&places.state_dir)
            .expect("still there")
            .map(|entry| entry.expect("readable").file_name())
            .collect();
        assert_eq!(left, ["not-lbs"]);
    }

    #[test]
    fn nothing_is_touched_while_an_agent_holds_the_run_folder() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let places = places(root.path());
        fs::create_dir_all(&places.run_dir).expect("made");
        let socket = places.run_dir.join(crate::api::SOCKET_FILE);
        fs::write(&socket, "").expect("written");
        let _agent = lock_file(&places.run_dir.join(crate::api::LOCK_FILE)).expect("free");
        let error = cleanup(root.path(), &places, true).expect_err("an agent runs");
        assert!(error.to_string().contains("stop it first"), "{error}");
        assert!(socket.exists());
    }

    #[test]
    fn what_was_installed_for_network_namespaces_goes_with_its_agent() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (places, netns) = (places(root.path()), root.path().join("netns"));
        let [ours, theirs] = ["run", "another-run"].map(|run_dir| {
            let confs = ResolvConfs::new(&netns, &root.path().join(run_dir));
            confs.install(&run_dir.parse().expect("a name"), "").expect("installed")
        });
        let report = cleanup(root.path(), &places, false).expect("no agent runs");
        assert_eq!(report.removed, [ours, netns.join("run")]);
        assert!(theirs.exists(), "another agent's");
    }

    #[test]
    fn a_second_cleanup_finds_nothing_to_do() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let places = places(root.path());
        assert_eq!(cleanup(root.path(), &places, true).expect("nothing there"), Report::default());
    }
}
