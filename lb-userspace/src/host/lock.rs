//! Locks that end with their process, so that a crashed agent never stands in the way.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Held until dropped or until the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a lock was not obtained.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("held by another process{}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Held {
        /// Its process id, where `/proc/locks` shows it.
        pid: Option<u32>,
    },
    /// The file could not be opened or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Locks `path`, making an empty file if there is none.
pub fn lock_file(path: &Path) -> Result<Lock, LockError> {
    loop {
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        let lock = lock(file)?;
        // `lb cleanup` may have removed the file between opening and locking it: the lock would then be
        // on a file that nobody else can find.
        let own = lock._file.metadata()?;
        match std::fs::metadata(path) {
            Ok(now) if now.ino() == own.ino() && now.dev() == own.dev() => return Ok(lock),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Locks an existing folder.
pub fn lock_folder(path: &Path) -> Result<Lock, LockError> {
    lock(File::open(path)?)
}

fn lock(file: File) -> Result<Lock, LockError> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { _file: file }),
        Err(Errno::WOULDBLOCK) => Err(LockError::Held { pid: holder(&file) }),
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    find_holder(&locks, rustix::fs::major(device), rustix::fs::minor(device), metadata.ino())
}

/// `1: FLOCK  ADVISORY  WRITE 6112 00:19:1234 0 EOF`; the device is hexadecimal.
fn find_holder(locks: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    let wanted = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = words[..] else { return None };
        // A holder outside this pid namespace is shown as 0 or -1.
        (place == wanted).then(|| pid.parse().ok().filter(|&pid| pid > 0)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_holder_and_a_dropped_one_is_free() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lb.lock");
        let first = lock_file(&path).expect("free");
        let Err(LockError::Held { pid }) = lock_file(&path) else { panic!("locked twice") };
        // Some file systems show another device number in /proc/locks; then no pid is claimed.
        assert!(pid.is_none_or(|pid| pid == std::process::id()), "{pid:?}");
        drop(first);
        lock_file(&path).expect("free again");
    }

    #[test]
    fn folders_can_be_locked() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let _first = lock_folder(folder.path()).expect("free");
        assert!(matches!(lock_folder(folder.path()), Err(LockError::Held { .. })));
    }

    #[test]
    fn the_holder_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:19:1234 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 00:1a:1234 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 00:19:1234 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 0 00:19:99 0 EOF\n";
        assert_eq!(find_holder(locks, 0, 0x19, 1234), Some(9));
        assert_eq!(find_holder(locks, 0, 0x19, 99), None);
    }
}
