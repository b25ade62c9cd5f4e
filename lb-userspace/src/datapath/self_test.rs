//! A real connection through a throw-away frontend, from a process below the chosen cgroup: programs
//! that are attached where no process is do nothing, and say nothing.
//!
//! The agent puts the frontend, whose backend is a listener of its own, and runs itself as a child
//! ([`visit`]). Both addresses are the node's own, so that nothing leaves it whatever happens.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::loaded_programs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::maps::Maps;
use super::writer::Writer;
use super::{Change, syscall};
use crate::host::{self, Leaf};
use crate::object::{Key, Kind};
use crate::plan::{
    Backend, Family, Frontend, FrontendKind, Part, Policy, Protocol, ServicePortId, Wanted,
};

/// The hidden command of the child.
pub(crate) const COMMAND: &str = "self-test-visit";

/// An address of the node that nobody listens on. To the programs it is 127.0.0.1, as all of
/// 127.0.0.0/8 is.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 108, 98, 1);

/// How long each step of the child may take: all of them are on this node.
const STEP: Duration = Duration::from_secs(1);
/// How long the child may take to answer.
const PATIENCE: Timespec = Timespec { tv_sec: 6, tv_nsec: 0 };

/// `BPF_CGROUP_INET4_CONNECT` of `enum bpf_attach_type`.
const INET4_CONNECT: u32 = 10;

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Visit {
    /// The connection arrived, and its peer is shown as the frontend.
    Arrived,
    /// Not even the listener itself could be reached.
    Unreachable(String),
    /// The listener could be reached, but not by the frontend.
    Untranslated(String),
}

/// Makes the connection. The frontend is there only meanwhile.
pub(super) fn run<M: Maps>(writer: &mut Writer<M>, cgroup: &Path) -> Result<()> {
    host::netns_cookie().context("not possible before Linux 5.14")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on 127.0.0.1")?;
    let backend = listener.local_addr()?;
    // Nobody else can have this port meanwhile: connections to 127.0.0.1 would go astray.
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on 127.0.0.1")?;
    let frontend = SocketAddr::new(ADDRESS.into(), held.local_addr()?.port());
    let (id, wanted) = service(frontend, backend);
    let leaf = Leaf::new(cgroup)?;
    let refused = writer.apply(vec![(id.clone(), Some(wanted))] as Vec<Change>);
    let refused = refused.into_iter().find(|refused| refused.id == id);
    let visit = match refused {
        None => ask_child(listener, frontend, &leaf),
        Some(refused) => Err(refused.into()),
    };
    writer.apply(vec![(id, None)]);
    judge(visit?, cgroup, &leaf)
}

fn service(frontend: SocketAddr, backend: SocketAddr) -> (ServicePortId, Wanted) {
    let id = ServicePortId {
        // No Service has such a name.
        service: Key::new(Kind::Service, "", "lb self-test"),
        family: Family::V4,
        part: Part::Port(Protocol::Tcp, frontend.port()),
    };
    let wanted = Wanted {
        frontends: vec![Frontend {
            address: Ipv4Addr::LOCALHOST.into(),
            port: frontend.port(),
            kind: FrontendKind::External,
        }],
        backends: vec![Backend {
            address: backend.ip(),
            port: backend.port(),
            cluster: true,
            local: true,
            here: true,
        }],
        policy: Policy::default(),
        ..Wanted::default()
    };
    (id, wanted)
}

fn ask_child(listener: TcpListener, frontend: SocketAddr, leaf: &Leaf) -> Result<Visit> {
    let mut child = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .arg(leaf.path())
        .arg(frontend.to_string())
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a child process")?;
    let answer = read_answer(&mut child);
    // It has answered, or never will.
    let _ended_already = child.kill();
    child.wait().context("waiting for the child process")?;
    let answer = answer?;
    serde_json::from_str(&answer).with_context(|| format!("the child process said {answer:?}"))
}

fn read_answer(child: &mut Child) -> Result<String> {
    let mut stdout = child.stdout.take().context("the child process has no output")?;
    let mut ready = [PollFd::new(&stdout, PollFlags::IN)];
    ensure!(poll(&mut ready, Some(&PATIENCE))? > 0, "the child process does not answer");
    let mut answer = String::new();
    stdout.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What a person should know and do.
fn judge(visit: Visit, cgroup: &Path, leaf: &Leaf) -> Result<()> {
    let (what, error) = match visit {
        Visit::Arrived => return Ok(()),
        Visit::Unreachable(error) => ("cannot connect even to 127.0.0.1", error),
        Visit::Untranslated(error) => ("is not translated", error),
    };
    let places = host::where_processes_are();
    let mut message = format!(
        "a process in a cgroup below {} {what}: {error}. --cgroup must name a folder that holds the \
         processes to be served: {places}",
        cgroup.display()
    );
    let others = other_programs(leaf.path()).unwrap_or_else(|error| vec![format!("{error:#}")]);
    if !others.is_empty() {
        message += &format!(
            ". Other programs decide on connections there and may have refused this one: {}",
            others.join(", ")
        );
    }
    bail!(message)
}

/// The programs that decide on connects in a cgroup, other than the one nearest to it of our name.
fn other_programs(cgroup: &Path) -> Result<Vec<String>> {
    let cgroup = File::open(cgroup)?;
    let ids = syscall::effective_programs(cgroup.as_fd(), INET4_CONNECT)?;
    let mut others: Vec<_> =
        loaded_programs().flatten().filter(|p| ids.contains(&p.id())).collect();
    others.sort_by_key(|program| ids.iter().position(|id| *id == program.id()));
    let own = others.iter().position(|program| program.name_as_str() == Some("connect4"));
    if let Some(own) = own {
        others.remove(own);
    }
    let name = |program: &aya::programs::ProgramInfo| {
        format!("{} (id {})", program.name_as_str().unwrap_or("unnamed"), program.id())
    };
    Ok(others.iter().map(name).collect())
}

/// The child: connects from inside `leaf` to the listener that is its standard input, and then
/// through the frontend.
pub(crate) fn visit(leaf: &Path, frontend: SocketAddrV4) -> io::Result<Visit> {
    host::enter_nodes_namespace();
    // "0" is the writer itself.
    fs::write(leaf.join("cgroup.procs"), "0")?;
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    if let Err(error) = connect(&listener, listener.local_addr()?) {
        return Ok(Visit::Unreachable(error.to_string()));
    }
    Ok(match connect(&listener, frontend.into()) {
        Ok(()) => Visit::Arrived,
        Err(error) => Visit::Untranslated(error.to_string()),
    })
}

/// Connects to `to` and makes sure that it is the listener that is reached, and `to` that is shown.
fn connect(listener: &TcpListener, to: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect_timeout(&to, STEP)?;
    let shown = stream.peer_addr()?;
    if shown != to {
        return Err(io::Error::other(format!("getpeername shows {shown} instead of {to}")));
    }
    let mut ready = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut ready, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }))?;
    let (_, from) = listener.accept()?;
    if from != stream.local_addr()? {
        return Err(io::Error::other(format!("{from} has connected in its place")));
    }
    Ok(())
}
