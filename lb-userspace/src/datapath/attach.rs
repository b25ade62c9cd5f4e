//! Our programs at their hooks, in the place of whatever an earlier agent left there.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, Program};

use super::load::Loaded;
use super::pins::{Link, Owners, Pins, readers, remove};
use super::{Config, ProgramStatus, syscall};

/// What a program needs to do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Only what its layout remembers of sockets. It stays until they are gone, beside the reader
    /// of the layout that takes over; to run twice for one event does no harm.
    Reader,
    /// The tables. They must be filled before it decides.
    Decider,
}

/// The hooks, deciders last: a socket is translated only when the way back works.
const PROGRAMS: [(&str, Role); 11] = [
    ("sock_release", Role::Reader),
    ("getpeername4", Role::Reader),
    ("getpeername6", Role::Reader),
    ("recvmsg4", Role::Reader),
    ("recvmsg6", Role::Reader),
    ("connect4", Role::Decider),
    ("connect6", Role::Decider),
    ("sendmsg4", Role::Decider),
    ("sendmsg6", Role::Decider),
    ("post_bind4", Role::Decider),
    ("post_bind6", Role::Decider),
];

/// The names of all programs.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PROGRAMS.into_iter().map(|(hook, _)| hook)
}

fn is_reader(hook: &str) -> bool {
    PROGRAMS.contains(&(hook, Role::Reader))
}

/// The folder of another layout whose tables decide at present. One hook is enough: an agent may
/// have been killed between two of them.
pub(super) fn predecessor(pins: &Pins) -> Result<Option<PathBuf>> {
    let links = pins.links()?;
    let owners = Owners::of(pins, &links)?;
    let mut layouts =
        links.iter().filter(|link| !is_reader(&link.hook)).filter_map(|link| owners.layout(link));
    Ok(layouts.find(|layout| *layout != pins.maps).map(Path::to_owned))
}

/// Puts our programs at every hook. What another layout needs for the sockets that it knows stays.
/// Every step leaves a state in which all sockets are served; done again, it goes on.
pub(super) fn take_place(loaded: &mut Loaded, config: &Config, pins: &Pins) -> Result<()> {
    let cgroup = File::open(&config.cgroup)
        .with_context(|| format!("opening cgroup {}", config.cgroup.display()))?;
    let links = pins.links()?;
    let owners = Owners::of(pins, &links)?;
    for (hook, role) in PROGRAMS {
        let present = links.iter().find(|link| link.hook == hook && link.is_in(&pins.links));
        let placed = match present {
            Some(link) => {
                if role == Role::Reader {
                    keep(link, &owners, pins, &cgroup)?;
                }
                replace(loaded.program(hook)?, link)
            }
            None => attach(loaded.program(hook)?, &cgroup, &pins.links.join(hook)),
        };
        placed.with_context(|| format!("attaching program {hook}"))?;
    }
    dismiss(&links, &owners, pins)?;
    pins.remove_other_cgroups()
}

/// What is attached to our cgroup.
pub(super) fn status(config: &Config, pins: &Pins) -> Result<Vec<ProgramStatus>> {
    let links = pins.links()?.into_iter().filter(|link| link.is_in(&pins.links));
    let status = |link: Link| ProgramStatus {
        name: link.hook,
        id: link.info.program,
        cgroup: config.cgroup.clone(),
    };
    Ok(links.map(status).collect())
}

/// Gives the reader of another layout a link of its own before ours takes its place. So ours is the
/// first to run: of a socket that both know, it knows the later destination.
fn keep(link: &Link, owners: &Owners, pins: &Pins, cgroup: &File) -> Result<()> {
    let (Some(layout), Some(program)) = (owners.layout(link), owners.program(link)) else {
        return Ok(());
    };
    let pin = pins.reader(layout, link);
    // An agent that was killed here has kept it already.
    if layout == pins.maps || pin.exists() {
        return Ok(());
    }
    let keep = || -> Result<()> {
        let program = program.fd()?;
        let kept = syscall::create_link(program.as_fd(), cgroup.as_fd(), link.info.attach_type)?;
        Ok(syscall::pin(kept.as_fd(), &pin)?)
    };
    keep().with_context(|| {
        format!("keeping program {} of {} for its sockets", link.hook, layout.display())
    })
}

/// Lets go of what our programs make needless: hooks that we do not have, the links of cgroups that
/// are not ours, and readers of our own layout that other layouts kept.
fn dismiss(links: &[Link], owners: &Owners, pins: &Pins) -> Result<()> {
    for link in links {
        if link.is_in(&pins.links) {
            if !names().any(|hook| hook == link.hook) {
                remove(&link.pin)?;
            }
            continue;
        }
        match owners.layout(link).filter(|layout| is_reader(&link.hook) && *layout != pins.maps) {
            Some(layout) => {
                let kept = pins.reader(layout, link);
                fs::rename(&link.pin, &kept)
                    .with_context(|| format!("moving {}", link.pin.display()))?;
            }
            None => remove(&link.pin)?,
        }
    }
    readers(&pins.maps)?.iter().try_for_each(|link| remove(&link.pin))
}

/// Calls the method of the program's type: aya gives each type methods of its own by the same names.
macro_rules! with_program {
    ($program:expr, $name:ident => $body:expr) => {
        match $program {
            Program::CgroupSockAddr($name) => $body,
            Program::CgroupSock($name) => $body,
            Program::SchedClassifier($name) => $body,
            other => bail!("unexpected type {:?}", other.prog_type()),
        }
    };
}

/// Has the kernel verify a program.
pub(super) fn verify(program: &mut Program) -> Result<()> {
    with_program!(program, program => Ok(program.load()?))
}

/// The descriptor of a program that the kernel has verified.
pub(super) fn fd(program: &Program) -> Result<BorrowedFd<'_>> {
    with_program!(program, program => Ok(program.fd()?.as_fd()))
}

/// The kernel's number of such a program.
pub(super) fn id(program: &Program) -> Result<u32> {
    with_program!(program, program => Ok(program.info()?.id()))
}

/// Puts a program in the place of the one that a link holds.
fn replace(program: &Program, link: &Link) -> Result<()> {
    syscall::update_link(link.fd.as_fd(), fd(program)?)
        .context("replacing the program that is attached")
}

/// Puts a program at a hook that is free.
#[expect(clippy::wildcard_enum_match_arm, reason = "aya's enum; two variants are of cgroups")]
fn attach(program: &mut Program, cgroup: &File, pin: &Path) -> Result<()> {
    // Links are always of the `multi` kind; aya's name for no flags is Single.
    const MULTI: CgroupAttachMode = CgroupAttachMode::Single;
    let link: FdLink = match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, MULTI)?;
            program.take_link(id)?.try_into()?
        }
        Program::CgroupSock(program) => {
            let id = program.attach(cgroup, MULTI)?;
            program.take_link(id)?.try_into()?
        }
        other => bail!("unexpected type {:?}", other.prog_type()),
    };
    link.pin(pin).with_context(|| format!("pinning it to {}", pin.display()))?;
    Ok(())
}
