//! A pod, as far as a stage needs one: a network namespace with one address, a cgroup and a host
//! name. A host elsewhere is the same without a cgroup of the stage.

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::process;

/// Where a process runs.
#[derive(Clone)]
pub(crate) struct Pod {
    /// Its name, which is its host name too.
    pub(crate) name: String,
    /// Its address.
    pub(crate) address: Ipv4Addr,
    /// The file that stands for its network namespace.
    pub(crate) namespace: PathBuf,
    /// Its cgroup; none if it is no pod of the stage's node.
    pub(crate) cgroup: Option<PathBuf>,
}

impl Pod {
    /// The name of its network namespace, as ip-netns(8) knows it.
    pub(crate) fn netns(&self) -> String {
        self.namespace.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Lets a command start inside this pod.
    pub(crate) fn place(&self, command: &mut Command) -> Result<()> {
        let namespace = File::open(&self.namespace)
            .with_context(|| format!("cannot open {}", self.namespace.display()))?;
        let members = self.members()?;
        let hostname = self.name.clone();
        let enter = move || {
            if let Some(members) = &members {
                // 0 stands for the process that writes.
                rustix::io::write(members, b"0")?;
            }
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            // SAFETY: a UTS namespace holds the host name; no file or thread depends on it.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUTS)? };
            Ok(rustix::system::sethostname(hostname.as_bytes())?)
        };
        // SAFETY: between fork and exec, `enter` makes async-signal-safe system calls on what was
        // opened and allocated before.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }

    /// Runs ip(8) for this namespace.
    pub(crate) fn ip(&self, arguments: &[&str]) -> Result<()> {
        super::ip(&[&["-n", &self.netns()], arguments].concat())
    }

    /// Changes a setting of the network, such as `net/ipv4/ip_forward`.
    pub(crate) fn set(&self, setting: &str, value: &str) -> Result<()> {
        // Whose setting it is follows from who opens the file.
        let mut echo = Command::new("sh");
        echo.args(["-c", "echo \"$0\" > \"/proc/sys/$1\"", value, setting]);
        self.place(&mut echo)?;
        process::capture(&mut echo).with_context(|| format!("cannot set {setting}"))?;
        Ok(())
    }

    /// Reads a setting of the network.
    pub(crate) fn get(&self, setting: &str) -> Result<String> {
        let mut cat = Command::new("cat");
        cat.arg(format!("/proc/sys/{setting}"));
        self.place(&mut cat)?;
        let value = process::capture(&mut cat).with_context(|| format!("cannot read {setting}"))?;
        Ok(value.trim().to_owned())
    }

    /// The file by which processes join the cgroup.
    fn members(&self) -> Result<Option<File>> {
        let Some(cgroup) = &self.cgroup else { return Ok(None) };
        let members = cgroup.join("cgroup.procs");
        let opened = OpenOptions::new().write(true).open(&members);
        opened.map(Some).with_context(|| format!("cannot open {}", members.display()))
    }
}
