//! Ports that local sockets never get by themselves: `net.ipv4.ip_local_reserved_ports` of the agent's own
//! network namespace, which both families obey. Explicit binding goes on to work.
//!
//! The setting may be others' as well, so that lb remembers which ports it was that added, and takes back
//! exactly those. The record is there before the setting changes and goes after it: wherever a process
//! ends, what is reserved for lb alone is on record.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::netns::netns_cookie;
use super::ports::{PortRange, Ports};
use crate::sockets;

/// The setting. `/proc/sys/net` is that of the reading thread's network namespace.
const SETTING: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// The same where a container finds it that can write: its own /proc/sys is read-only, and the node's
/// /proc/sys/net may be handed in.
const HANDED_IN: &str = "/host/proc/sys/net/ipv4/ip_local_reserved_ports";

/// The ports that the kernel chooses from: first and last.
const CHOICE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The record's name in the state folder.
pub(super) const RECORD_FILE: &str = "reserved-ports.json";

/// What the agent of one state folder has reserved.
#[derive(Clone, Debug)]
pub struct ReservedPorts {
    record: PathBuf,
}

/// What was added to the setting, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    /// A number of this boot: settings end with it.
    boot: String,
    /// Of the network namespace; 0 before Linux 5.14.
    cookie: u64,
    /// Those that were not reserved before.
    ports: Ports,
}

impl ReservedPorts {
    /// Those of the agent with this state folder.
    pub fn new(state_dir: &Path) -> Self {
        Self { record: state_dir.join(RECORD_FILE) }
    }

    /// Reserves `range` in this thread's network namespace, unless it is reserved already. What was
    /// reserved before stays so until [`Self::keep_only`].
    ///
    /// # Errors
    ///
    /// If the setting or the record cannot be read or written.
    pub fn reserve(&self, range: PortRange) -> Result<()> {
        let before = self.here()?;
        let reserved = read_setting()?;
        let wanted = Ports::of(Some(range));
        let others = reserved.without(&before);
        let ours = wanted.without(&others).and(&before);
        if ours != before {
            self.write(&ours)?;
        }
        let missing = wanted.without(&reserved);
        if missing.is_empty() { Ok(()) } else { add_to_setting(&missing) }
    }

    /// Takes back what lies outside of `range`; without a range, all that was ever reserved.
    ///
    /// # Errors
    ///
    /// As [`Self::reserve`].
    pub fn keep_only(&self, range: Option<PortRange>) -> Result<()> {
        let before = self.here()?;
        let extra = before.without(&Ports::of(range));
        if !extra.is_empty() {
            remove_from_setting(&extra)?;
            self.write(&before.without(&extra))?;
        }
        Ok(())
    }

    /// Takes back all, in whichever network namespace it is; says what it was. Of one that is gone,
    /// nothing is left to take back.
    ///
    /// # Errors
    ///
    /// As [`Self::reserve`].
    pub fn release(&self) -> Result<Option<Ports>> {
        let Some(record) = self.read()? else { return Ok(None) };
        let released = if record.boot == boot()? { release_of(&record)? } else { None };
        self.write(&Ports::default())?;
        Ok(released)
    }

    /// What is on record of this thread's network namespace. What is of another one is taken back.
    fn here(&self) -> Result<Ports> {
        match self.read()? {
            Some(record) if record.boot == boot()? && record.cookie == cookie() => Ok(record.ports),
            Some(_) => self.release().map(|_| Ports::default()),
            None => Ok(Ports::default()),
        }
    }

    fn read(&self) -> Result<Option<Record>> {
        let bytes = match fs::read(&self.record) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.with_context(|| format!("{} cannot be read", self.record.display()))?,
        };
        let record = serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "{} is damaged, which says what lb has added to {SETTING}; see to that setting, and \
                 remove the file",
                self.record.display()
            )
        })?;
        Ok(Some(record))
    }

    /// Puts on record that `ports` are reserved here, in one step.
    fn write(&self, ports: &Ports) -> Result<()> {
        let context = || format!("{} cannot be written", self.record.display());
        if ports.is_empty() {
            return match fs::remove_file(&self.record) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).with_context(context)
                }
                _ => Ok(()),
            };
        }
        let record = Record { boot: boot()?, cookie: cookie(), ports: ports.clone() };
        let draft = self.record.with_extension("draft");
        let replace = || {
            let mut file = File::create(&draft)?;
            file.write_all(&serde_json::to_vec(&record)?)?;
            file.sync_all()?;
            fs::rename(&draft, &self.record)
        };
        replace().with_context(context)
    }
}

/// Why local clients get no port, if that is so: the kernel has none left to choose from.
///
/// # Errors
///
/// If a setting cannot be read.
pub fn no_port_left(range: PortRange) -> Result<Option<String>> {
    let text = fs::read_to_string(CHOICE).context(CHOICE)?;
    let ends: Vec<u16> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let &[first, last] = ends.as_slice() else { return Err(anyhow!("{CHOICE} holds {text:?}")) };
    let choice = Ports::of(PortRange::new(first, last));
    Ok(choice.without(&read_setting()?).is_empty().then(|| {
        format!(
            "net.ipv4.ip_local_port_range ({first} {last}) lies inside of --snat-ports {range} and other \
             reserved ports: local clients get no port (EADDRNOTAVAIL); widen it, as in `sysctl -w \
             net.ipv4.ip_local_port_range=\"32768 60999\"`, or choose another --snat-ports"
        )
    }))
}

/// Takes back what is on record in the network namespace that it is about.
fn release_of(record: &Record) -> Result<Option<Ports>> {
    if record.cookie == cookie() {
        return remove_from_setting(&record.ports).map(Some);
    }
    let mut released = None;
    let problems = sockets::netns::visit(|_| {
        if record.cookie != 0 && record.cookie == cookie() {
            released = Some(remove_from_setting(&record.ports)?);
        }
        Ok(())
    });
    if released.is_none() {
        for problem in problems {
            tracing::warn!("looking for the network namespace with reserved ports: {problem}");
        }
    }
    Ok(released)
}

/// Of this thread's network namespace.
fn cookie() -> u64 {
    netns_cookie().unwrap_or_default()
}

fn boot() -> Result<String> {
    const ID: &str = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(ID).context(ID)?.trim().to_owned())
}

/// In one call: the kernel gives what fits, and nothing to a second one (`proc_do_large_bitmap`,
/// kernel/sysctl.c).
fn read_setting() -> Result<Ports> {
    /// Every other port, each with a comma, and more.
    const MOST: usize = 256 << 10;
    let mut text = vec![0; MOST];
    let length = File::open(SETTING).and_then(|mut file| file.read(&mut text)).context(SETTING)?;
    String::from_utf8_lossy(&text[..length]).parse().map_err(|error| anyhow!("{SETTING}: {error}"))
}

/// What is not written to the beginning is added to what is there, so that nobody else's change is
/// lost (`proc_do_large_bitmap`, kernel/sysctl.c).
fn add_to_setting(ports: &Ports) -> Result<()> {
    let text = format!("{ports}\n");
    open_setting().and_then(|file| file.write_all_at(text.as_bytes(), 1)).with_context(unwritable)
}

/// Returns the ports.
fn remove_from_setting(ports: &Ports) -> Result<Ports> {
    let reserved = read_setting()?;
    let rest = reserved.without(ports);
    if rest != reserved {
        let text = format!("{rest}\n");
        open_setting()
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(unwritable)?;
    }
    Ok(ports.clone())
}

fn open_setting() -> io::Result<File> {
    let open = |path| OpenOptions::new().write(true).open(path);
    match open(SETTING) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            open(HANDED_IN).map_err(|_| error)
        }
        result => result,
    }
}

/// Why the setting cannot be written, if that is so. Nothing is changed.
pub(super) fn why_unwritable() -> Option<io::Error> {
    open_setting().err()
}

fn unwritable() -> String {
    format!(
        "{SETTING} cannot be written; it takes root, and in a container whose /proc/sys is read-only the node's \
         /proc/sys/net at /host/proc/sys/net"
    )
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    fn range(word: &str) -> PortRange {
        word.parse().expect("a range")
    }

    /// Runs `test` in a network namespace of its own, with a state folder; not without root.
    fn inside(test: impl FnOnce(&ReservedPorts) + Send + 'static) {
        let outcome = thread::spawn(move || {
            // SAFETY: without `UnshareFlags::FILES` no file descriptor changes hands.
            if unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.is_ok() {
                let folder = tempfile::tempdir().expect("a temporary folder");
                test(&ReservedPorts::new(folder.path()));
            }
        });
        outcome.join().expect("no panic");
    }

    fn shown() -> String {
        read_setting().expect("readable").to_string()
    }

    fn add(ports: &str) {
        add_to_setting(&ports.parse().expect("ports")).expect("root may");
    }

    #[test]
    fn others_ports_stay_through_changes_of_the_range() {
        inside(|reserved| {
            add("8080,50000-50001");
            reserved.reserve(range("49152-65535")).expect("reserved");
            assert_eq!(shown(), "8080,49152-65535");
            add("9148");
            reserved.reserve(range("40000-50000")).expect("reserved");
            assert_eq!(shown(), "8080,9148,40000-65535", "nothing is let go too early");
            reserved.keep_only(Some(range("40000-50000"))).expect("kept");
            assert_eq!(shown(), "8080,9148,40000-50001");
            let released = reserved.release().expect("released").map(|ports| ports.to_string());
            assert_eq!(released.as_deref(), Some("40000-49999"));
            assert_eq!(shown(), "8080,9148,50000-50001");
            assert_eq!(reserved.release().expect("nothing to do"), None);
        });
    }

    #[test]
    fn what_is_reserved_already_is_not_ours_to_take_back() {
        inside(|reserved| {
            add("40000-65535");
            reserved.reserve(range("49152-65535")).expect("covered");
            assert!(!reserved.record.exists());
            reserved.keep_only(None).expect("nothing to do");
            assert_eq!(shown(), "40000-65535");
        });
    }

    #[test]
    fn a_process_may_end_between_record_and_setting() {
        inside(|reserved| {
            add("8080");
            let range = range("49152-50000");
            reserved.write(&Ports::of(Some(range))).expect("written");
            assert!(reserved.release().expect("released").is_some());
            assert_eq!(shown(), "8080", "ended before the setting was written");

            reserved.reserve(range).expect("reserved");
            remove_from_setting(&Ports::of(Some(range))).expect("root may");
            reserved.keep_only(None).expect("kept");
            assert_eq!((shown().as_str(), reserved.record.exists()), ("8080", false));

            reserved.reserve(range).expect("reserved");
            remove_from_setting(&Ports::of(Some(range))).expect("root may");
            reserved.reserve(range).expect("somebody has written the setting anew");
            assert_eq!(shown(), "8080,49152-50000");
        });
    }

    #[test]
    fn a_record_of_another_boot_or_of_a_namespace_that_is_gone_means_nothing() {
        inside(|reserved| {
            add("49152-50000");
            let write = |boot: String, cookie| {
                let ports = "49152-50000".parse().expect("ports");
                let record = serde_json::to_vec(&Record { boot, cookie, ports }).expect("JSON");
                fs::write(&reserved.record, record).expect("written");
            };
            for (boot, cookie) in [("other".to_owned(), cookie()), (boot().expect("it"), u64::MAX)]
            {
                write(boot, cookie);
                assert_eq!(reserved.release().expect("read"), None);
                assert_eq!((shown().as_str(), reserved.record.exists()), ("49152-50000", false));
            }
            fs::write(&reserved.record, "{").expect("written");
            let error = reserved.release().expect_err("damaged").to_string();
            assert!(error.contains("remove the file"), "{error}");
        });
    }

    #[test]
    fn a_long_list_is_read_and_written_whole() {
        inside(|reserved| {
            let odd: Vec<_> = (1..20_000).step_by(2).map(|port: u16| port.to_string()).collect();
            let odd: Ports = odd.join(",").parse().expect("ports");
            add(&odd.to_string());
            assert_eq!(read_setting().expect("readable"), odd);
            reserved.reserve(range("30000-40000")).expect("reserved");
            reserved.release().expect("released");
            assert_eq!(read_setting().expect("readable"), odd);
        });
    }

    #[test]
    fn it_is_said_if_no_port_is_left() {
        inside(|reserved| {
            let snat = range("49152-65535");
            reserved.reserve(snat).expect("reserved");
            assert_eq!(no_port_left(snat).expect("readable"), None);
            fs::write(CHOICE, "50000 60000").expect("root may");
            let said = no_port_left(snat).expect("readable").expect("there is none");
            assert!(said.contains("--snat-ports 49152-65535") && said.contains("widen"), "{said}");
        });
    }
}
