//! The folders of pins, and what the kernel says of the programs in them.
//!
//! ```text
//! <bpffs>/links-<cgroup>/<hook>         the link of each hook, whose program is replaced in place
//! <bpffs>/devices-<namespace>/…         see `device_pins`
//! <bpffs>/maps-<layout>/<MAP>           the maps of a layout
//! <bpffs>/maps-<layout>/reader-<cgroup>-<hook>
//!                                       a link that keeps the layout's reader for its old sockets
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::maps::MapInfo;
use aya::programs::{ProgramError, ProgramInfo, loaded_programs};

use super::device_pins::FOLDERS as DEVICES;
use super::syscall::{self, LinkInfo};
use super::{Config, layout};

/// What the names of our folders of pins begin with.
pub(crate) const PIN_FOLDERS: [&str; 3] = [LINKS, DEVICES, MAPS];
const LINKS: &str = "links-";
const MAPS: &str = "maps-";

/// What the names of links in a folder of maps begin with; every other pin there is a map.
const READER: &str = "reader-";

/// Where pins lie below the directory of the agent.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    /// The maps of our layout.
    pub(super) maps: PathBuf,
    /// The links of our cgroup.
    pub(super) links: PathBuf,
    directory: PathBuf,
}

/// A pinned link and what the kernel says of it.
#[derive(Debug)]
pub(super) struct Link {
    /// Name of the hook.
    pub(super) hook: String,
    pub(super) pin: PathBuf,
    pub(super) fd: OwnedFd,
    pub(super) info: LinkInfo,
}

impl Pins {
    /// Maps are found by the hash of their layout, so that another one is never misread; links by
    /// the cgroup that they are attached to (its inode number is its id).
    pub(super) fn new(config: &Config) -> Result<Self> {
        let cgroup = fs::metadata(&config.cgroup)
            .with_context(|| format!("cgroup {}", config.cgroup.display()))?;
        let pins = Self {
            maps: config.bpffs.join(format!("{MAPS}{}", layout::name(&config.sizes))),
            links: config.bpffs.join(format!("{LINKS}{}", cgroup.ino())),
            directory: config.bpffs.clone(),
        };
        for directory in [&pins.maps, &pins.links] {
            fs::create_dir_all(directory)
                .with_context(|| format!("creating {}", directory.display()))?;
        }
        Ok(pins)
    }

    /// Every link of a hook, at our cgroup or at one that an earlier agent served.
    pub(super) fn links(&self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        for folder in folders(&self.directory, LINKS)? {
            for pin in entries(&folder)? {
                links.push(Link::open(file_name(&pin), pin)?);
            }
        }
        Ok(links)
    }

    /// The folders of maps of other layouts.
    pub(super) fn other_layouts(&self) -> Result<Vec<PathBuf>> {
        let mut all = folders(&self.directory, MAPS)?;
        all.retain(|folder| *folder != self.maps);
        Ok(all)
    }

    /// Whether no other layout has a map. A folder without is of an agent that could not take over.
    fn is_only_layout(&self) -> Result<bool> {
        for folder in self.other_layouts()? {
            if !entries(&folder)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where the link lies that keeps the reader which `link` holds.
    pub(super) fn reader(&self, layout: &Path, link: &Link) -> PathBuf {
        let folder = link.pin.parent().map(file_name).unwrap_or_default();
        let cgroup = folder.strip_prefix(LINKS).unwrap_or_default();
        layout.join(format!("{READER}{cgroup}-{}", link.hook))
    }

    /// Removes the folders of links of other cgroups, whose links were let go.
    pub(super) fn remove_other_cgroups(&self) -> Result<()> {
        for folder in folders(&self.directory, LINKS)? {
            if folder != self.links {
                remove_folder(&folder)?;
            }
        }
        Ok(())
    }
}

impl Link {
    pub(super) fn open(hook: String, pin: PathBuf) -> Result<Self> {
        let opened = syscall::open_pinned(&pin).and_then(|fd| {
            let info = syscall::link_info(fd.as_fd())?;
            Ok((fd, info))
        });
        let (fd, info) =
            opened.with_context(|| format!("opening the link pinned at {}", pin.display()))?;
        Ok(Self { hook, pin, fd, info })
    }

    /// Whether it lies in this folder.
    pub(super) fn is_in(&self, folder: &Path) -> bool {
        self.pin.parent() == Some(folder)
    }
}

/// The links in a folder of maps.
pub(super) fn readers(layout: &Path) -> Result<Vec<Link>> {
    let pins = entries(layout)?.into_iter().filter(|pin| file_name(pin).starts_with(READER));
    pins.map(|pin| Link::open(file_name(&pin), pin)).collect()
}

/// The maps in a folder of maps: pin and id.
pub(super) fn maps(layout: &Path) -> Result<Vec<(PathBuf, u32)>> {
    let pins = entries(layout)?.into_iter().filter(|pin| !file_name(pin).starts_with(READER));
    pins.map(|pin| {
        let info = MapInfo::from_pin(&pin).with_context(|| format!("map {}", pin.display()))?;
        Ok((pin, info.id()))
    })
    .collect()
}

/// Which layout each of some programs works on: the kernel's own word, not the pins'.
#[derive(Debug)]
pub(super) enum Owners {
    /// By the program's number.
    Known(BTreeMap<u32, Known>),
    /// The kernel tells only those with `CAP_SYS_ADMIN`; but there is one layout, and it is ours.
    Ours(PathBuf),
}

/// A program that somebody may have pinned the maps of.
#[derive(Debug)]
pub(super) struct Known {
    info: ProgramInfo,
    layout: Option<PathBuf>,
}

impl Owners {
    /// Of the programs that these links hold.
    pub(super) fn of(pins: &Pins, links: &[Link]) -> Result<Self> {
        let held = match programs_of(links) {
            Err(error) if is_refused(&error) && pins.is_only_layout()? => {
                return Ok(Self::Ours(pins.maps.clone()));
            }
            held => held?,
        };
        let mut layouts = BTreeMap::new();
        for folder in folders(&pins.directory, MAPS)? {
            for (_, map) in maps(&folder)? {
                layouts.insert(map, folder.clone());
            }
        }
        let mut programs = BTreeMap::new();
        for info in held {
            let maps = info.map_ids()?.unwrap_or_default();
            let layout = maps.iter().find_map(|map| layouts.get(map)).cloned();
            programs.insert(info.id(), Known { info, layout });
        }
        Ok(Self::Known(programs))
    }

    /// The folder of the layout that the link's program works on; none if nobody has pinned its
    /// maps.
    pub(super) fn layout(&self, link: &Link) -> Option<&Path> {
        match self {
            Self::Known(programs) => programs.get(&link.info.program)?.layout.as_deref(),
            Self::Ours(layout) => Some(layout),
        }
    }

    /// The link's program, if the kernel has told it.
    pub(super) fn program(&self, link: &Link) -> Option<&ProgramInfo> {
        match self {
            Self::Known(programs) => Some(&programs.get(&link.info.program)?.info),
            Self::Ours(_) => None,
        }
    }
}

/// The programs that these links hold.
pub(super) fn programs_of(links: &[Link]) -> Result<Vec<ProgramInfo>> {
    let held: BTreeSet<u32> = links.iter().map(|link| link.info.program).collect();
    let mut programs = Vec::new();
    if held.is_empty() {
        return Ok(programs);
    }
    for program in loaded_programs() {
        match program {
            Ok(program) if held.contains(&program.id()) => programs.push(program),
            Ok(_) => {}
            // One that goes while we look is not ours.
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).context(
                    "asking the kernel for the programs that are attached, to take over from another \
                     layout, needs CAP_SYS_ADMIN",
                );
            }
        }
    }
    Ok(programs)
}

fn is_refused(error: &anyhow::Error) -> bool {
    let Some(ProgramError::SyscallError(error)) = error.downcast_ref() else { return false };
    error.io_error.kind() == io::ErrorKind::PermissionDenied
}

/// Removes a folder of pins: links first, so that no program is left whose maps nobody finds again.
pub(super) fn remove_folder(folder: &Path) -> Result<()> {
    let (links, maps): (Vec<_>, Vec<_>) =
        entries(folder)?.into_iter().partition(|pin| file_name(pin).starts_with(READER));
    for pin in links.iter().chain(&maps) {
        remove(pin)?;
    }
    fs::remove_dir(folder).with_context(|| format!("removing {}", folder.display()))
}

/// Removes a pin. That it is gone already is no error.
pub(super) fn remove(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", pin.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn folders(directory: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let mut all = entries(directory)?;
    all.retain(|path| file_name(path).starts_with(prefix) && path.is_dir());
    Ok(all)
}

pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
        .with_context(|| format!("reading {}", folder.display()))?;
    all.sort();
    Ok(all)
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
