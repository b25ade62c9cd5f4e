//! Leaves the node as it was before lb.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::bpffs;
use super::check::Places;
use super::lock::{Lock, LockError, lock_file, lock_folder};

/// What the store keeps in the state folder.
const STATE_FILES: &[&str] = &["lb.redb"];

/// What was removed and what was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Pinned links, programs and maps that were let go.
    pub pins: usize,
    /// Files and folders that are gone.
    pub removed: Vec<PathBuf>,
    /// The mount point of the BPF file system that lb had mounted and that is unmounted now.
    pub unmounted: Option<PathBuf>,
    /// The state folder, if it exists and was left alone.
    pub kept_state: Option<PathBuf>,
}

/// Detaches the programs, removes every pin and the run folder's files; with `state` also the stored
/// objects and addresses. Refuses while an agent is running.
pub fn cleanup(places: &Places, state: bool) -> Result<Report> {
    let mut report = Report::default();
    let run_lock = lock_run_dir(places)?;
    remove_pins(&places.bpffs, &mut report)?;
    report.unmounted = bpffs::unmount_own(&places.run_dir)?;
    if state {
        remove_folder(&places.state_dir, STATE_FILES, &mut report)?;
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
    let mut pins = Vec::new();
    let mut folders = Vec::new();
    collect(folder, &mut pins, &mut folders)?;
    pins.sort_by_key(|pin| (!is_link(pin), pin.clone()));
    for pin in &pins {
        fs::remove_file(pin).with_context(|| format!("{} cannot be removed", pin.display()))?;
    }
    report.pins = pins.len();
    drop(lock);
    // A mount point stays busy until it is unmounted; so does the folder of a bpffs that others use.
    for folder in folders.iter().rev() {
        match fs::remove_dir(folder) {
            Ok(()) => report.removed.push(folder.clone()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("{} cannot be removed", folder.display()));
            }
        }
    }
    Ok(())
}

/// Pins below `folder`, and the folders themselves, outer ones first.
fn collect(folder: &Path, pins: &mut Vec<PathBuf>, folders: &mut Vec<PathBuf>) -> Result<()> {
    folders.push(folder.to_owned());
    let entries =
        fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), pins, folders)?;
        } else {
            pins.push(entry.path());
        }
    }
    Ok(())
}

/// Links go first: a program without pinned maps still works and is found by nobody, so an interrupted
/// cleanup must leave maps without programs, never the other way round.
fn is_link(pin: &Path) -> bool {
    pin.components().any(|part| part.as_os_str().to_string_lossy().contains("link"))
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
    match fs::remove_dir(folder) {
        Ok(()) => report.removed.push(folder.to_owned()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::ResourceBusy
            ) => {}
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be removed", folder.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for name in STATE_FILES {
            fs::write(places.state_dir.join(name), "").expect("written");
        }
        fs::write(places.state_dir.join("not-lbs"), "").expect("written");

        let report = cleanup(&places, false).expect("no agent runs");
        assert_eq!(report.kept_state, Some(places.state_dir.clone()));
        assert!(!places.run_dir.exists());

        cleanup(&places, true).expect("no agent runs");
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
        let error = cleanup(&places, true).expect_err("an agent runs");
        assert!(error.to_string().contains("stop it first"), "{error}");
        assert!(socket.exists());
    }

    #[test]
    fn a_second_cleanup_finds_nothing_to_do() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let places = places(root.path());
        assert_eq!(cleanup(&places, true).expect("nothing there"), Report::default());
    }
}
