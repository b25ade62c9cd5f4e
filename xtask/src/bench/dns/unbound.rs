//! unbound, answering the same records as local data.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::questions::Services;
use crate::bench::machine;
use crate::stage::process::{self, Process};
use crate::workspace;

/// A running server, which ends with this.
pub(super) struct Unbound {
    process: Process,
}

impl Unbound {
    /// Starts a server. `folder` takes its configuration and its log; `adapt` says where it runs.
    pub(super) fn start(
        folder: &Path,
        listen: SocketAddr,
        services: &Services,
        adapt: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let file = folder.join(format!("unbound-{}.conf", listen.port()));
        fs::write(&file, configuration(listen, services))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let log = file.with_extension("log");
        let log =
            fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = Command::new(program()?);
        // In the foreground.
        command.arg("-d").arg("-c").arg(&file);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share unbound's log")?)
            .stderr(log);
        adapt(&mut command)?;
        Ok(Self { process: Process::spawn(&mut command, "unbound")? })
    }

    /// Its process id; an error if it has ended.
    pub(super) fn id(&mut self) -> Result<u32> {
        self.process.check_running()?;
        Ok(self.process.id())
    }
}

/// Its name and version.
pub(super) fn version() -> Result<String> {
    let line = machine::first_line(Command::new(program()?).arg("-V"));
    Ok(line.replace("Version", "unbound"))
}

fn program() -> Result<std::path::PathBuf> {
    workspace::which("unbound").context("the program unbound is missing")
}

/// One thread, no log, no user or folder of its own, and nothing but the records.
fn configuration(listen: SocketAddr, services: &Services) -> String {
    format!(
        "server:\n\
         \x20 num-threads: 1\n\
         \x20 interface: {}@{}\n\
         \x20 access-control: 0.0.0.0/0 allow\n\
         \x20 module-config: iterator\n\
         \x20 username: \"\"\n\
         \x20 chroot: \"\"\n\
         \x20 pidfile: \"\"\n\
         \x20 use-syslog: no\n\
         \x20 verbosity: 0\n\
         {}\
         remote-control:\n\
         \x20 control-enable: no\n",
        listen.ip(),
        listen.port(),
        services.unbound_zones()
    )
}

/// What unbound wrote, to be shown with a failure.
pub(super) fn log(folder: &Path, listen: SocketAddr) -> String {
    process::tail(&folder.join(format!("unbound-{}.log", listen.port())), 10)
}
