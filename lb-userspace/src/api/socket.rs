//! The run folder and the agent's socket in it: one agent each, closed to others, gone with its agent.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use tokio::net::UnixListener;

use crate::host::{Lock, LockError, lock_file};

/// The socket's name in the run folder.
pub const SOCKET_FILE: &str = "lb.sock";

/// The lock's name in the run folder. It is held for as long as an agent lives.
pub const LOCK_FILE: &str = "lb.lock";

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A run folder that belongs to this process until dropped; then the socket is removed.
#[derive(Debug)]
pub struct RunDir {
    socket: PathBuf,
    _lock: Lock,
}

impl RunDir {
    /// Takes the folder for this process, making it if needed. Refused while another agent has it.
    pub fn claim(folder: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("the run folder {} cannot be created", folder.display()))?;
        let socket = folder.join(SOCKET_FILE);
        let lock = match lock_file(&folder.join(LOCK_FILE)) {
            Ok(lock) => lock,
            Err(LockError::Held { pid }) => bail!(in_use(&socket, pid)),
            Err(LockError::Io(error)) => Err(error)
                .with_context(|| format!("the run folder {} cannot be used", folder.display()))?,
        };
        // Somebody may have removed the lock's file under a running agent.
        if let Ok(stream) = UnixStream::connect(&socket) {
            let peer = rustix::net::sockopt::socket_peercred(&stream).ok();
            let pid = peer.and_then(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()).ok());
            bail!(in_use(&socket, pid));
        }
        Ok(Self { socket, _lock: lock })
    }

    /// Where clients connect.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Opens the socket. Call it when requests can be answered. Needs a tokio runtime.
    pub fn listen(&self) -> Result<UnixListener> {
        match fs::remove_file(&self.socket) {
            Ok(()) => tracing::debug!("replaced the socket that an earlier agent left"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("{} is in the way", self.socket.display()));
            }
        }
        bind_private(&self.socket)
            .with_context(|| format!("the socket {} cannot be opened", self.socket.display()))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_file(&self.socket);
    }
}

/// The mode is set between `bind` and `listen`: before `listen` every connection is refused, so there is
/// no moment at which others could come in, whatever the umask.
fn bind_private(path: &Path) -> Result<UnixListener> {
    let address = SocketAddrUnix::new(path);
    ensure!(
        address.is_ok(),
        "its path is longer than the 107 bytes of a socket's address; choose a shorter --run-dir"
    );
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &address?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen(&socket, BACKLOG)?;
    Ok(UnixListener::from_std(StdListener::from(socket))?)
}

fn in_use(socket: &Path, pid: Option<u32>) -> String {
    let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    format!(
        "another agent is running{pid} on {}; stop it or choose another --run-dir",
        socket.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn folder_and_socket_are_closed_to_others_and_the_socket_leaves() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("run");
        let run_dir = RunDir::claim(&folder).expect("free");
        let _listener = run_dir.listen().expect("opened");
        assert_eq!((mode(&folder), mode(run_dir.socket())), (0o700, 0o600));
        drop(run_dir);
        assert!(!folder.join(SOCKET_FILE).exists());
    }

    #[tokio::test]
    async fn a_second_agent_is_told_who_has_the_folder() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let first = RunDir::claim(root.path()).expect("free");
        let _listener = first.listen().expect("opened");
        let message = RunDir::claim(root.path()).expect_err("taken").to_string();
        assert!(message.contains("another agent is running"), "{message}");
        assert!(message.contains("--run-dir"), "{message}");
        // The lock's file is gone, the agent is not.
        fs::remove_file(root.path().join(LOCK_FILE)).expect("removed");
        let message = RunDir::claim(root.path()).expect_err("taken").to_string();
        assert!(message.contains(&format!("(pid {})", std::process::id())), "{message}");
        assert!(first.socket().exists(), "the running agent's socket must stay");
    }

    #[tokio::test]
    async fn a_socket_left_by_a_crash_is_replaced() {
        let root = tempfile::tempdir().expect("a temporary folder");
        drop(StdListener::bind(root.path().join(SOCKET_FILE)).expect("bound"));
        assert!(root.path().join(SOCKET_FILE).exists());
        let run_dir = RunDir::claim(root.path()).expect("nobody answers");
        let _listener = run_dir.listen().expect("replaced");
        UnixStream::connect(run_dir.socket()).expect("answers");
    }

    #[tokio::test]
    async fn a_path_too_long_for_a_socket_is_named() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let run_dir = RunDir::claim(&root.path().join("x".repeat(120))).expect("free");
        let message = format!("{:#}", run_dir.listen().expect_err("too long"));
        assert!(message.contains("shorter --run-dir"), "{message}");
    }
}
