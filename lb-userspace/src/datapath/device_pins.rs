//! The folder of what is attached to the devices of one network namespace.
//!
//! ```text
//! <bpffs>/devices-<namespace>/<index>-ingress    the links of a device, whose programs are replaced
//! <bpffs>/devices-<namespace>/<index>-egress     in place
//! <bpffs>/devices-<namespace>/<index>-filter     a mark, that it has filters of ours instead
//! <bpffs>/devices-<namespace>/<index>-qdisc      a mark, that their queueing discipline is ours
//! ```
//!
//! A filter cannot be pinned; a mark is a symbolic link to the device's name, which leads nowhere. Both
//! go with the node's restart, as do filters.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use lb_common::abi::Hook;

use super::pins::{Link, entries, file_name, folders, remove, remove_folder};
use crate::host;

/// What the names of these folders begin with.
pub(crate) const FOLDERS: &str = "devices-";

/// What can lie there of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pin {
    Link(Hook),
    Filter,
    Qdisc,
}

impl Pin {
    const ALL: [Self; 4] =
        [Self::Link(Hook::Ingress), Self::Link(Hook::Egress), Self::Filter, Self::Qdisc];

    fn name(self) -> &'static str {
        match self {
            Self::Link(Hook::Ingress) => "ingress",
            Self::Link(Hook::Egress) => "egress",
            Self::Filter => "filter",
            Self::Qdisc => "qdisc",
        }
    }

    /// Of which device it is, and what, by a file's name.
    fn parse(name: &str) -> Option<(u32, Self)> {
        let (index, what) = name.split_once('-')?;
        let pin = Self::ALL.into_iter().find(|pin| pin.name() == what)?;
        Some((index.parse().ok()?, pin))
    }
}

/// The folder of this network namespace.
#[derive(Clone, Debug)]
pub(super) struct DevicePins(PathBuf);

impl DevicePins {
    /// Makes the folder. What belongs to another namespace, where an earlier agent ran, goes.
    pub(super) fn new(bpffs: &Path) -> Result<Self> {
        let pins = Self::of_this_namespace(bpffs)?;
        fs::create_dir_all(&pins.0).with_context(|| format!("creating {}", pins.0.display()))?;
        for folder in pins.warn_of_others(bpffs)? {
            remove_folder(&folder)?;
        }
        Ok(pins)
    }

    /// The folder, if there is one.
    pub(super) fn of_this_namespace(bpffs: &Path) -> Result<Self> {
        let namespace = host::netns_number().context("this network namespace has no number")?;
        Ok(Self(bpffs.join(format!("{FOLDERS}{namespace}"))))
    }

    /// The folders of other namespaces. Filters that an agent left there are out of reach.
    pub(super) fn warn_of_others(&self, bpffs: &Path) -> Result<Vec<PathBuf>> {
        let mut others = folders(bpffs, FOLDERS)?;
        others.retain(|folder| *folder != self.0);
        for folder in &others {
            if Self(folder.clone()).read()?.values().any(|pins| pins.contains(&Pin::Filter)) {
                tracing::warn!(
                    "an agent has left filters in another network namespace ({}); they end with it, \
                     or by `tc filter del` in it",
                    folder.display()
                );
            }
        }
        Ok(others)
    }

    /// Where something of a device lies.
    pub(super) fn path(&self, index: u32, pin: Pin) -> PathBuf {
        self.0.join(format!("{index}-{}", pin.name()))
    }

    /// What there is, by device.
    pub(super) fn read(&self) -> Result<BTreeMap<u32, BTreeSet<Pin>>> {
        let mut all: BTreeMap<u32, BTreeSet<Pin>> = BTreeMap::new();
        if self.0.is_dir() {
            for (index, pin) in
                entries(&self.0)?.iter().filter_map(|path| Pin::parse(&file_name(path)))
            {
                all.entry(index).or_default().insert(pin);
            }
        }
        Ok(all)
    }

    /// The link of a device's hook. One whose device is gone is removed: another device may have its
    /// index.
    pub(super) fn link(&self, index: u32, hook: Hook) -> Result<Option<Link>> {
        let pin = self.path(index, Pin::Link(hook));
        if !self.has(index, Pin::Link(hook)) {
            return Ok(None);
        }
        let link = Link::open(file_name(&pin), pin)?;
        if link.info.device() == index {
            return Ok(Some(link));
        }
        remove(&link.pin)?;
        Ok(None)
    }

    /// Whether there is such a thing of a device.
    pub(super) fn has(&self, index: u32, pin: Pin) -> bool {
        self.path(index, pin).symlink_metadata().is_ok()
    }

    /// Marks a device.
    pub(super) fn mark(&self, index: u32, pin: Pin, name: &str) -> Result<()> {
        let path = self.path(index, pin);
        match symlink(name, &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("creating {}", path.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_say_what_they_are() {
        for pin in Pin::ALL {
            let path = DevicePins("/folder".into()).path(7, pin);
            assert_eq!(Pin::parse(&file_name(&path)), Some((7, pin)));
        }
        for stranger in ["7", "7-", "x-ingress", "7-ingress-2", "-1-egress"] {
            assert_eq!(Pin::parse(stranger), None, "{stranger}");
        }
    }
}
