//! The workload process.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde::Serialize;
use serde_json::Value;
use socket2::Socket;

use super::Errno;
use super::bulk::{self, Stream};
use super::hold::Hold;
use super::load::{Load, burst};
use super::protocol::{Failure, Reply, Request};
use super::record::Recorder;
use super::{resolve, sockets};
use crate::harness::process::die_with;

/// The first argument that makes this binary the workload.
pub(crate) const MODE: &str = "__probe";

/// The workload's main. Arguments: the test process's id, the cgroup, a file to be `/etc/hosts`
/// (or nothing).
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments: Vec<_> = arguments.collect();
    let served = enter(&arguments).and_then(|()| serve());
    if let Err(problem) = served {
        eprintln!("e2e probe: {problem}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn enter(arguments: &[String]) -> io::Result<()> {
    let [parent, cgroup, hosts] = arguments else {
        return Err(io::Error::other("wants a process id, a cgroup and a hosts file"));
    };
    die_with(parent.parse().map_err(io::Error::other)?).map_err(io::Error::other)?;
    raise_open_files();
    // "0" is the writer itself. A socket belongs to the cgroup its process is in when it is made.
    fs::write(Path::new(cgroup).join("cgroup.procs"), "0")?;
    if !hosts.is_empty() {
        use_hosts(Path::new(hosts))?;
    }
    Ok(())
}

/// As many sockets as root allows.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // What is not allowed shows where a socket is one too many.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Makes the file this process's `/etc/hosts`, and that the only source of names.
fn use_hosts(hosts: &Path) -> io::Result<()> {
    // SAFETY: without `UnshareFlags::FILES` no file descriptor changes hands.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    mount_bind(hosts, "/etc/hosts")?;
    let switch = Path::new("/etc/nsswitch.conf");
    if switch.exists() {
        let files_only = hosts.with_extension("nsswitch");
        fs::write(&files_only, "hosts: files\n")?;
        mount_bind(&files_only, switch)?;
    }
    Ok(())
}

fn serve() -> io::Result<()> {
    let mut workload = Workload::default();
    for line in io::stdin().lock().lines() {
        let reply = match serde_json::from_str(&line?) {
            Ok(request) => workload.answer(request),
            Err(error) => Err(Failure::Nonsense(error.to_string())),
        };
        let mut output = io::stdout().lock();
        serde_json::to_writer(&mut output, &reply)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

#[derive(Default)]
struct Workload {
    sockets: HashMap<u32, Socket>,
    load: Option<Load>,
    recorder: Option<Recorder>,
    hold: Hold,
    streams: Vec<Stream>,
}

impl Workload {
    fn answer(&mut self, request: Request) -> Reply {
        self.perform(request).map_err(|error| match error.raw_os_error() {
            Some(number) => Failure::Call(Errno(number)),
            None => Failure::Nonsense(error.to_string()),
        })
    }

    fn perform(&mut self, request: Request) -> io::Result<Value> {
        match request {
            Request::Open { socket, kind } => {
                self.sockets.insert(socket, sockets::open(kind)?);
            }
            Request::OpenColliding { socket, kind, other, slots } => {
                let taken = self.socket(other)?.cookie()? % slots;
                self.sockets.insert(socket, sockets::open_in_slot(kind, slots, taken)?);
            }
            Request::Bind { socket, to } => self.socket(socket)?.bind(&to.into())?,
            Request::SetPriority { socket, priority } => {
                self.socket(socket)?.set_priority(priority)?;
            }
            Request::Connect { socket, to } => sockets::connect(self.socket(socket)?, to)?,
            Request::Disconnect { socket } => rustix::net::connect_unspec(self.socket(socket)?)?,
            Request::Greeting { socket } => return value(sockets::line(self.socket(socket)?)?),
            Request::Echo { socket, payload } => {
                let socket = self.socket(socket)?;
                sockets::send(socket, &payload)?;
                return value(sockets::exactly(socket, payload.len())?);
            }
            Request::PeerName { socket } => return value(sockets::peer(self.socket(socket)?)?),
            Request::Send { socket, payload } => sockets::send(self.socket(socket)?, &payload)?,
            Request::SendTo { socket, to, payload } => {
                sockets::send_to(self.socket(socket)?, to, &payload)?;
            }
            Request::Receive { socket } => return value(sockets::receive(self.socket(socket)?)?),
            Request::Close { socket } => drop(self.sockets.remove(&socket)),
            Request::Burst { kind, to, count } => return value(burst(kind, to, count)),
            Request::LoadStart { kind, to } => self.load = Some(Load::start(kind, to)),
            Request::LoadMark => self.load.as_ref().ok_or_else(no_load)?.mark(),
            Request::LoadStop => return value(self.load.take().ok_or_else(no_load)?.stop()),
            Request::RecordStart { targets } => self.recorder = Some(Recorder::start(targets)),
            Request::RecordStop => {
                return value(self.recorder.take().ok_or_else(no_load)?.stop());
            }
            Request::Hold { kind, to, count } => self.hold.more(kind, to, count)?,
            Request::HoldFrom { kind, sources, to, count } => {
                self.hold.from(kind, &sources, to, count)?;
            }
            Request::HoldAsk => self.hold.ask()?,
            Request::HoldLook => return value(self.hold.look()),
            Request::HoldEnd => self.hold = Hold::default(),
            Request::Transfer { to, bytes } => bulk::transfer(to, bytes)?,
            Request::Datagrams { to, bytes, count } => bulk::datagrams(to, bytes, count)?,
            Request::StreamStart { to } => self.streams.push(Stream::start(to)?),
            Request::StreamsStop => {
                let ended: Vec<_> = self.streams.drain(..).map(Stream::stop).collect();
                return value(ended);
            }
            Request::Resolve { name, service } => return value(resolve::resolve(&name, &service)?),
        }
        Ok(Value::Null)
    }

    fn socket(&self, number: u32) -> io::Result<&Socket> {
        self.sockets
            .get(&number)
            .ok_or_else(|| io::Error::other(format!("no socket {number} is open")))
    }
}

fn value(result: impl Serialize) -> io::Result<Value> {
    Ok(serde_json::to_value(result)?)
}

fn no_load() -> io::Error {
    io::Error::other("no load is running")
}
