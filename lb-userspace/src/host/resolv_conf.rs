//! The `resolv.conf` of named network namespaces: `ip netns exec NAME` shows its command every file of
//! `/etc/netns/NAME` in the place of the one in `/etc` (ip-netns(8)). A command that runs already goes
//! on with what it has.
//!
//! A file of ours begins with a line that names the run folder of the agent that it came from. Files
//! of others are never touched, and an agent's cleanup leaves those of other agents alone. Folders are
//! of no effect when they are empty, so whoever takes the last file away removes them, too.

#[cfg(test)]
mod tests;

use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, fchmod, fstat, linkat, mkdirat, openat, renameat,
    unlinkat,
};
use rustix::io::Errno;

/// Where ip-netns(8) looks for the files of a namespace.
pub const ETC_NETNS: &str = "/etc/netns";

/// The name of the file that is installed.
const FILE: &str = "resolv.conf";

/// What the name of a file begins with that is being written; the writer's process id follows.
const DRAFT: &str = ".resolv.conf.lb-";

/// Around the run folder in the first line of a file of ours.
const MARK: (&str, &str) = (
    "# Written by lb resolv-conf for the agent with the run folder ",
    ". lb cleanup takes it away.",
);

/// No first line of ours is longer: a path has at most 4,096 bytes, each escaped in at most four.
const MARK_LENGTH: u64 = 17 << 10;

/// `rw-r--r--`: whoever runs in the namespace resolves names.
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// The name of a network namespace, by the rules of `ip netns add`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetnsName(String);

impl NetnsName {
    /// Whether `ip netns list` would show it.
    pub fn exists(&self) -> bool {
        Path::new("/run/netns").join(&self.0).symlink_metadata().is_ok()
    }
}

impl FromStr for NetnsName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        /// `NAME_MAX`, include/uapi/linux/limits.h
        const LONGEST: usize = 255;
        match name {
            "" => Err("is empty"),
            "." | ".." => Err("is a folder's own or its parent's name"),
            name if name.contains(['/', '\0']) => Err("has a character that no file name has"),
            name if name.len() > LONGEST => Err("is longer than 255 bytes"),
            name => Ok(Self(name.to_owned())),
        }
    }
}

impl Display for NetnsName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The files of one agent.
#[derive(Clone, Debug)]
pub struct ResolvConfs {
    base: PathBuf,
    owner: String,
}

/// What is in the place of a namespace's file.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Ours,
    /// Of the agent with this run folder.
    OtherAgents(String),
    Strangers,
}

impl ResolvConfs {
    /// Those below `base`, which is [`ETC_NETNS`], of the agent with this `--run-dir`, an absolute path.
    pub fn new(base: &Path, run_dir: &Path) -> Self {
        // Without a slash at the end. Quoted and escaped, it stays on one line whatever it holds.
        let run_dir: PathBuf = run_dir.components().collect();
        Self { base: base.to_owned(), owner: format!("{run_dir:?}") }
    }

    /// Installs `text` for a namespace in one step, in the place of what was installed before, and
    /// returns where.
    ///
    /// # Errors
    ///
    /// If something is there that is not this agent's, or the folder cannot be written.
    pub fn install(&self, name: &NetnsName, text: &str) -> Result<PathBuf> {
        let path = self.base.join(&name.0).join(FILE);
        let folder = self.make_folder(name)?;
        let fresh = match look(&folder, &self.owner)? {
            Found::Nothing => true,
            Found::Ours => false,
            other @ (Found::OtherAgents(_) | Found::Strangers) => bail!(refused(&path, &other)),
        };
        let draft = format!("{DRAFT}{}", process::id());
        let text = format!("{}{}{}\n{text}", MARK.0, self.owner, MARK.1);
        let placed =
            write(&folder, &draft, &text).and_then(|()| Ok(place(&folder, &draft, fresh)?));
        if placed.is_err() {
            let _ = unlinkat(&folder, &draft, AtFlags::empty());
            self.remove_empty(name)?;
        }
        placed.with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path)
    }

    /// Takes away what was installed for a namespace, and the folders that are empty then. Returns
    /// what went: nothing, if nothing was there.
    ///
    /// # Errors
    ///
    /// If what is there is not this agent's, or cannot be removed.
    pub fn remove(&self, name: &NetnsName) -> Result<Vec<PathBuf>> {
        let Some(folder) = self.open(name)? else { return Ok(Vec::new()) };
        let path = self.base.join(&name.0).join(FILE);
        match look(&folder, &self.owner)? {
            Found::Nothing => Ok(Vec::new()),
            Found::Ours => self.take_away(name, &folder),
            other @ (Found::OtherAgents(_) | Found::Strangers) => bail!(refused(&path, &other)),
        }
    }

    /// Takes away what was installed for any namespace, and returns what went.
    ///
    /// # Errors
    ///
    /// If a folder cannot be read, or a file not be removed.
    pub fn remove_all(&self) -> Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        let entries = match fs::read_dir(&self.base) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(removed),
            entries => {
                entries.with_context(|| format!("{} cannot be read", self.base.display()))?
            }
        };
        // A name that is not UTF-8 was never accepted, and a link to a folder never followed.
        let mut names: Vec<NetnsName> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        names.sort();
        for name in names {
            let Some(folder) = self.open(&name)? else { continue };
            if look(&folder, &self.owner)? == Found::Ours {
                removed.extend(self.take_away(&name, &folder)?);
            }
        }
        Ok(removed)
    }

    fn take_away(&self, name: &NetnsName, folder: &OwnedFd) -> Result<Vec<PathBuf>> {
        let path = self.base.join(&name.0).join(FILE);
        unlinkat(folder, FILE, AtFlags::empty())
            .and_then(|()| remove_drafts(folder))
            .with_context(|| format!("{} cannot be removed", path.display()))?;
        let mut removed = vec![path];
        removed.extend(self.remove_empty(name)?);
        Ok(removed)
    }

    fn make_folder(&self, name: &NetnsName) -> Result<OwnedFd> {
        let path = self.base.join(&name.0);
        let context = || format!("the folder {} cannot be made", path.display());
        match fs::create_dir(&self.base) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.with_context(context)?,
        }
        let base = File::open(&self.base).with_context(context)?;
        match mkdirat(&base, &name.0, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(context),
        }
        self.open(name)?.with_context(context)
    }

    /// The folder of a namespace, if there is one. A link is not followed: it may lead to where others
    /// write.
    fn open(&self, name: &NetnsName) -> Result<Option<OwnedFd>> {
        let path = self.base.join(&name.0);
        let base = match File::open(&self.base) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            base => base.with_context(|| format!("{} cannot be opened", self.base.display()))?,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&base, &name.0, flags, Mode::empty()) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => bail!(
                "{} is no folder, or a symbolic link, which lb does not follow; make it a folder",
                path.display()
            ),
            Err(error) => {
                Err(error).with_context(|| format!("{} cannot be opened", path.display()))
            }
        }
    }

    /// Removes the folder of a namespace if it is empty, and then the one above likewise.
    fn remove_empty(&self, name: &NetnsName) -> Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        for folder in [self.base.join(&name.0), self.base.clone()] {
            match fs::remove_dir(&folder) {
                Ok(()) => removed.push(folder),
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => break,
                Err(error) => {
                    let message = format!("{} cannot be removed", folder.display());
                    return Err(error).context(message);
                }
            }
        }
        Ok(removed)
    }
}

/// Whose file is in the folder.
fn look(folder: &OwnedFd, owner: &str) -> Result<Found> {
    // A pipe would keep the opening waiting.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder, FILE, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        // A symbolic link, or a socket.
        Err(Errno::LOOP | Errno::NXIO) => return Ok(Found::Strangers),
        Err(error) => return Err(error).context(format!("the {FILE} there cannot be opened")),
    };
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Ok(Found::Strangers);
    }
    let mut line = Vec::new();
    BufReader::new(File::from(file).take(MARK_LENGTH)).read_until(b'\n', &mut line)?;
    let line = String::from_utf8_lossy(&line);
    let marked = line.trim_end().strip_prefix(MARK.0).and_then(|rest| rest.strip_suffix(MARK.1));
    Ok(match marked {
        None => Found::Strangers,
        Some(theirs) if theirs == owner => Found::Ours,
        Some(theirs) => Found::OtherAgents(theirs.to_owned()),
    })
}

fn refused(path: &Path, found: &Found) -> String {
    let path = path.display();
    match found {
        Found::OtherAgents(run_dir) => format!(
            "{path} is of another agent; with --remove --run-dir {run_dir} it is taken away"
        ),
        Found::Nothing | Found::Ours | Found::Strangers => {
            format!("{path} was not written by lb and stays as it is; move it away first")
        }
    }
}

fn write(folder: &OwnedFd, draft: &str, text: &str) -> Result<()> {
    // Left by a process that was killed and had the number that this one has.
    let _ = unlinkat(folder, draft, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(folder, draft, flags, FILE_MODE)?;
    // Whatever the umask is.
    fchmod(&file, FILE_MODE)?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes())?;
    Ok(file.sync_all()?)
}

/// Gives the draft its name. A file that came meanwhile where there was none is not replaced.
fn place(folder: &OwnedFd, draft: &str, fresh: bool) -> rustix::io::Result<()> {
    if !fresh {
        return renameat(folder, draft, folder, FILE);
    }
    linkat(folder, draft, folder, FILE, AtFlags::empty())?;
    unlinkat(folder, draft, AtFlags::empty())
}

/// Removes what killed processes were writing.
fn remove_drafts(folder: &OwnedFd) -> rustix::io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if entry.file_name().to_bytes().starts_with(DRAFT.as_bytes()) {
            unlinkat(folder, entry.file_name(), AtFlags::empty())?;
        }
    }
    Ok(())
}
