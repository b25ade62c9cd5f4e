//! The test's end of a workload.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use super::protocol::{Failure, Kind, Reply, Request};
use super::{Errno, Held, MODE, Record, Tally};
use serde::de::DeserializeOwned;

use crate::harness::netns::Namespace;
use crate::harness::{process, sandbox};

/// The longest request (a burst of some thousand visits) on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a workload runs.
pub(crate) struct Setup {
    pub(crate) cgroup: PathBuf,
    /// The text of its `/etc/hosts`.
    pub(crate) hosts: Option<String>,
}

/// A running workload; dropped, it is killed.
pub(crate) struct Probe {
    child: RefCell<Child>,
    requests: RefCell<ChildStdin>,
    replies: Receiver<String>,
    next_socket: Cell<u32>,
}

/// What one visit saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Visit {
    /// The pod that answered.
    pub(crate) pod: String,
    /// The peer that `getpeername` or `recvfrom` showed.
    pub(crate) peer: SocketAddr,
}

impl Probe {
    #[track_caller]
    pub(crate) fn start(namespace: &Namespace, setup: Setup) -> Self {
        let hosts = setup.hosts.map(|text| {
            let sandbox = sandbox::get();
            let path = sandbox.directory(sandbox.next_number()).join("hosts");
            fs::write(&path, text).expect("the scratch file system is writable");
            path
        });
        let mut command = process::myself();
        command
            .args([MODE, &std::process::id().to_string()])
            .arg(setup.cgroup)
            .arg(hosts.unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child =
            namespace.run(move || command.spawn()).expect("the test binary can be run again");
        let requests = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, replies) = mpsc::channel();
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let (child, requests) = (RefCell::new(child), RefCell::new(requests));
        Self { child, requests, replies, next_socket: Cell::new(0) }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.borrow().id()
    }

    /// Sends a request; the reply is of the type that the request's kind gives.
    #[track_caller]
    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Errno> {
        let line = serde_json::to_string(request).expect("a request is JSON") + "\n";
        let written = self.requests.borrow_mut().write_all(line.as_bytes());
        written.unwrap_or_else(|error| panic!("the probe is gone before {request:?}: {error}"));
        let reply = self.replies.recv_timeout(PATIENCE);
        let reply = reply.unwrap_or_else(|error| panic!("no reply to {request:?}: {error}"));
        match serde_json::from_str::<Reply>(&reply).expect("a reply is JSON") {
            Ok(value) => Ok(serde_json::from_value(value).expect("of the request's type")),
            Err(Failure::Call(errno)) => Err(errno),
            Err(Failure::Nonsense(problem)) => panic!("{request:?}: {problem}"),
        }
    }

    /// A new socket.
    #[track_caller]
    pub(crate) fn open(&self, kind: Kind) -> ProbeSocket<'_> {
        let number = self.next_socket.get();
        self.next_socket.set(number + 1);
        let opened = self.ask::<()>(&Request::Open { socket: number, kind });
        opened.unwrap_or_else(|errno| panic!("cannot open a {kind:?} socket: {errno:?}"));
        ProbeSocket { probe: self, number }
    }

    /// A new socket that finds its slot of `ORIGIN` taken by `other`.
    #[track_caller]
    pub(crate) fn open_colliding(
        &self,
        kind: Kind,
        other: &ProbeSocket<'_>,
        slots: u64,
    ) -> ProbeSocket<'_> {
        let number = self.next_socket.get();
        self.next_socket.set(number + 1);
        let (socket, other) = (number, other.number);
        let opened = self.ask::<()>(&Request::OpenColliding { socket, kind, other, slots });
        opened.unwrap_or_else(|errno| panic!("cannot open a {kind:?} socket: {errno:?}"));
        ProbeSocket { probe: self, number }
    }

    /// Connects a TCP socket, asks who is there, and closes it.
    #[track_caller]
    pub(crate) fn tcp(&self, to: SocketAddr) -> Result<Visit, Errno> {
        self.stream(Kind::tcp(to), to)
    }

    /// [`Probe::tcp`] with a socket of any kind of stream.
    #[track_caller]
    pub(crate) fn stream(&self, kind: Kind, to: SocketAddr) -> Result<Visit, Errno> {
        let socket = self.open(kind);
        socket.connect(to)?;
        Ok(Visit { peer: socket.peer()?, pod: socket.greeting()? })
    }

    /// Connects a UDP socket, asks who is there, and closes it. The peer is what `getpeername`
    /// says; `recvfrom` must agree.
    #[track_caller]
    pub(crate) fn udp(&self, to: SocketAddr) -> Result<Visit, Errno> {
        let socket = self.open(Kind::udp(to));
        socket.connect(to)?;
        let peer = socket.peer()?;
        socket.send("who")?;
        let answer = socket.receive()?;
        assert_eq!(answer.peer, peer, "recvfrom and getpeername of a socket connected to {to}");
        Ok(answer)
    }

    /// Asks who is there with `sendto` on an unconnected UDP socket; the peer is `recvfrom`'s.
    #[track_caller]
    pub(crate) fn udp_unconnected(&self, to: SocketAddr) -> Result<Visit, Errno> {
        let socket = self.open(Kind::udp(to));
        socket.send_to(to, "who")?;
        socket.receive()
    }

    /// So many visits, one after another.
    #[track_caller]
    pub(crate) fn burst(&self, kind: Kind, to: SocketAddr, count: u32) -> Tally {
        self.ask(&Request::Burst { kind, to, count }).expect("a burst counts its failures")
    }

    /// Visits without pause until [`Probe::load_stop`].
    #[track_caller]
    pub(crate) fn load_start(&self, kind: Kind, to: SocketAddr) {
        self.ask::<()>(&Request::LoadStart { kind, to }).expect("a load starts");
    }

    /// Counts the visits that begin from now on apart.
    #[track_caller]
    pub(crate) fn load_mark(&self) {
        self.ask::<()>(&Request::LoadMark).expect("a load is running");
    }

    /// Ends the load: a tally for each period between marks.
    #[track_caller]
    pub(crate) fn load_stop(&self) -> Vec<Tally> {
        self.ask(&Request::LoadStop).expect("a load is running")
    }

    /// Visits these in the background, one after the other.
    #[track_caller]
    pub(crate) fn record_start(&self, targets: &[(Kind, SocketAddr)]) {
        let started = self.ask::<()>(&Request::RecordStart { targets: targets.to_owned() });
        started.expect("a thread of the workload");
    }

    /// Every visit since the start.
    #[track_caller]
    pub(crate) fn record_stop(&self) -> Vec<Record> {
        self.ask(&Request::RecordStop).expect("a recorder was started")
    }

    /// Connects so many sockets and keeps them.
    #[track_caller]
    pub(crate) fn hold(&self, kind: Kind, to: SocketAddr, count: u32) {
        let held = self.ask::<()>(&Request::Hold { kind, to, count });
        held.unwrap_or_else(|errno| panic!("{count} {kind:?} sockets to {to}: {errno:?}"));
    }

    /// The same, each bound to the next of these addresses.
    #[track_caller]
    pub(crate) fn hold_from(&self, kind: Kind, sources: &[IpAddr], to: SocketAddr, count: u32) {
        let request = Request::HoldFrom { kind, sources: sources.to_owned(), to, count };
        let held = self.ask::<()>(&request);
        held.unwrap_or_else(|errno| panic!("{count} {kind:?} sockets to {to}: {errno:?}"));
    }

    /// Asks a question on each socket that is kept: whether all answers are the right ones.
    #[track_caller]
    pub(crate) fn hold_ask(&self) -> Result<(), Errno> {
        self.ask(&Request::HoldAsk)
    }

    /// What `getpeername` shows of all sockets that are kept.
    #[track_caller]
    pub(crate) fn hold_look(&self) -> Held {
        self.ask(&Request::HoldLook).expect("getpeername is counted, not reported")
    }

    /// Closes all sockets that are kept.
    #[track_caller]
    pub(crate) fn hold_end(&self) {
        self.ask::<()>(&Request::HoldEnd).expect("close of the workload's own sockets");
    }

    /// Sends so many bytes on a TCP connection, and reads the same back.
    #[track_caller]
    pub(crate) fn transfer(&self, to: SocketAddr, bytes: usize) -> Result<(), Errno> {
        self.ask(&Request::Transfer { to, bytes })
    }

    /// So many datagrams of so many bytes, each echoed by the address that it was sent to.
    #[track_caller]
    pub(crate) fn datagrams(&self, to: SocketAddr, bytes: usize, count: u32) -> Result<(), Errno> {
        self.ask(&Request::Datagrams { to, bytes, count })
    }

    /// Data goes to and fro on a new TCP connection from now on.
    #[track_caller]
    pub(crate) fn stream_start(&self, to: SocketAddr) {
        let started = self.ask::<()>(&Request::StreamStart { to });
        started.unwrap_or_else(|errno| panic!("connect to {to}: {errno:?}"));
    }

    /// How many bytes went there and back on each of them, or why not.
    #[track_caller]
    pub(crate) fn streams_stop(&self) -> Vec<Result<u64, String>> {
        self.ask(&Request::StreamsStop).expect("streams report")
    }

    /// `getaddrinfo` for a stream socket.
    #[track_caller]
    pub(crate) fn resolve(&self, name: &str, service: &str) -> Vec<IpAddr> {
        let request = Request::Resolve { name: name.to_owned(), service: service.to_owned() };
        self.ask(&request).unwrap_or_else(|errno| panic!("resolving {name}: {errno:?}"))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let mut child = self.child.borrow_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A socket of the workload; dropped, it is closed.
pub(crate) struct ProbeSocket<'probe> {
    probe: &'probe Probe,
    number: u32,
}

impl ProbeSocket<'_> {
    #[track_caller]
    pub(crate) fn bind(&self, to: SocketAddr) -> Result<(), Errno> {
        self.probe.ask(&Request::Bind { socket: self.number, to })
    }

    /// `SO_PRIORITY`.
    #[track_caller]
    pub(crate) fn set_priority(&self, priority: u32) -> Result<(), Errno> {
        self.probe.ask(&Request::SetPriority { socket: self.number, priority })
    }

    #[track_caller]
    pub(crate) fn connect(&self, to: SocketAddr) -> Result<(), Errno> {
        self.probe.ask(&Request::Connect { socket: self.number, to })
    }

    /// `connect` with `AF_UNSPEC`.
    #[track_caller]
    pub(crate) fn disconnect(&self) -> Result<(), Errno> {
        self.probe.ask(&Request::Disconnect { socket: self.number })
    }

    /// The name of the pod at the other end of a TCP connection.
    #[track_caller]
    pub(crate) fn greeting(&self) -> Result<String, Errno> {
        self.probe.ask(&Request::Greeting { socket: self.number })
    }

    /// Sends on a TCP connection, and what came back.
    #[track_caller]
    pub(crate) fn echo(&self, payload: &str) -> Result<String, Errno> {
        let payload = payload.to_owned();
        self.probe.ask(&Request::Echo { socket: self.number, payload })
    }

    /// `getpeername`.
    #[track_caller]
    pub(crate) fn peer(&self) -> Result<SocketAddr, Errno> {
        self.probe.ask(&Request::PeerName { socket: self.number })
    }

    #[track_caller]
    pub(crate) fn send(&self, payload: &str) -> Result<(), Errno> {
        let payload = payload.to_owned();
        self.probe.ask(&Request::Send { socket: self.number, payload })
    }

    #[track_caller]
    pub(crate) fn send_to(&self, to: SocketAddr, payload: &str) -> Result<(), Errno> {
        let payload = payload.to_owned();
        self.probe.ask(&Request::SendTo { socket: self.number, to, payload })
    }

    /// A datagram: the pod that sent it, and its source as `recvfrom` says.
    #[track_caller]
    pub(crate) fn receive(&self) -> Result<Visit, Errno> {
        let (peer, payload): (SocketAddr, String) =
            self.probe.ask(&Request::Receive { socket: self.number })?;
        let pod = payload.split(':').next().unwrap_or_default().to_owned();
        Ok(Visit { pod, peer })
    }
}

impl Drop for ProbeSocket<'_> {
    fn drop(&mut self) {
        // While a test fails the probe may be gone; its sockets are then, too.
        if !thread::panicking() {
            let closed = self.probe.ask::<()>(&Request::Close { socket: self.number });
            closed.expect("close of the workload's own socket");
        }
    }
}
