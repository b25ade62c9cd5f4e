//! Asking for names: with real resolvers, and byte by byte.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use hickory_server::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::command::{Output, run};
use super::netns::Namespace;
use super::{Stage, sandbox};

/// Where ip-netns(8) finds namespaces, and files for them.
const RUN_NETNS: &str = "/run/netns";

impl Stage {
    /// Starts the agent; it answers for names.
    #[track_caller]
    pub(crate) fn with_names(options: &[&str]) -> Self {
        let mut stage = Self::without_agent();
        stage.agent.names = true;
        stage.agent.set_options(options);
        stage.agent.start();
        stage
    }

    /// Runs a program in `namespace` and the stage's cgroup.
    #[track_caller]
    pub(crate) fn run_in(&self, namespace: &Namespace, program: &[&str]) -> Output {
        let procs = self.cgroup.path.join("cgroup.procs");
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(procs).args(program);
        namespace.run(move || run(command, ""))
    }

    /// What dig, on the node, gets from the server's ClusterIP: the answer's lines, sorted.
    #[track_caller]
    pub(crate) fn dig(&self, arguments: &str) -> Vec<String> {
        let output = self.run_in(&self.node, &dig(&format!("+short {arguments}"))).ok();
        let mut lines: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// The status in the header that dig, in `namespace`, gets.
    #[track_caller]
    pub(crate) fn dig_status(&self, namespace: &Namespace, arguments: &str) -> String {
        let output = self.run_in(namespace, &dig(arguments));
        let status = output.stdout.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
        status.unwrap_or_else(|| panic!("no answer: {output}")).to_owned()
    }

    /// Gives the pods' side the addresses 203.0.113.1 and so on, which for the node are behind a router:
    /// not on this node.
    #[track_caller]
    pub(crate) fn strangers(&mut self, count: u8) {
        let router = self.pod("router", "router", &[]);
        let add = |n: u8| format!("addr add 203.0.113.{n}/32 dev eth0");
        self.pods().ip(&(1..=count).map(add).collect::<Vec<_>>().join("\n"));
        self.node.ip(&format!("route add 203.0.113.0/24 via {} dev eth0 onlink", router.v4));
    }

    /// Where questions come to, as `lb status` says.
    #[track_caller]
    pub(crate) fn names_listener(&self) -> SocketAddr {
        let output = self.agent.lb(&["status", "-o", "json"]).ok();
        let status: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
        let listeners = status["dns"]["listeners"].as_array().expect("it answers for names");
        let mut listeners = listeners.iter().filter_map(|it| it.as_str()?.parse().ok());
        listeners.find(SocketAddr::is_ipv4).expect("a listener of IPv4")
    }
}

/// dig against the usual address unless `arguments` name another; two tries of three seconds.
fn dig(arguments: &str) -> Vec<&str> {
    let mut words = vec!["dig", "+time=3", "+tries=2"];
    if !arguments.contains('@') {
        words.push("@10.96.0.10");
    }
    words.extend(arguments.split_whitespace());
    words
}

/// A network namespace under a name, as `ip netns` knows it.
pub(crate) struct Named {
    pub(crate) name: String,
    path: PathBuf,
}

impl Named {
    /// Gives `namespace` a name that nobody has.
    #[track_caller]
    pub(crate) fn new(namespace: &Namespace) -> Self {
        let name = format!("lb-e2e-{}-{}", std::process::id(), sandbox::get().next_number());
        fs::create_dir_all(RUN_NETNS).expect("/run is writable");
        let path = PathBuf::from(RUN_NETNS).join(&name);
        fs::write(&path, "").expect("a place to mount on");
        let place = path.clone();
        namespace
            .run(move || mount_bind("/proc/thread-self/ns/net", &place))
            .expect("a namespace can be mounted");
        Self { name, path }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        let _ = fs::remove_file(&self.path);
        // What `lb resolv-conf --netns` may have left.
        let _ = fs::remove_dir_all(PathBuf::from("/etc/netns").join(&self.name));
    }
}

/// What an upstream server does with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It has this address for every name.
    Answers(Ipv4Addr),
    Silent,
    Refuses,
}

/// An upstream server on 127.0.0.1 in a namespace, for datagrams.
pub(crate) struct Upstream {
    pub(crate) at: SocketAddr,
    asked: Arc<AtomicUsize>,
    socket: Arc<UdpSocket>,
}

impl Upstream {
    #[track_caller]
    pub(crate) fn start(namespace: &Namespace, manner: Manner) -> Self {
        let socket = namespace.run(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
        let socket = Arc::new(socket.expect("loopback is there"));
        let (at, asked) = (socket.local_addr().expect("it is bound"), Arc::default());
        let upstream = Self { at, asked, socket };
        let (socket, asked) = (Arc::clone(&upstream.socket), Arc::clone(&upstream.asked));
        thread::spawn(move || serve(&socket, manner, &asked));
        upstream
    }

    /// How many questions of type A it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(self.socket.as_fd(), rustix::net::Shutdown::Both);
    }
}

fn serve(socket: &UdpSocket, manner: Manner, asked: &AtomicUsize) {
    let mut buffer = [0; 2_048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        // A socket that was shut down.
        if length == 0 {
            return;
        }
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let Some(query) = question.queries.first() else { continue };
        let is_address = query.query_type() == RecordType::A;
        asked.fetch_add(usize::from(is_address), Ordering::Relaxed);
        let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        match manner {
            Manner::Silent => continue,
            Manner::Refuses => answer.metadata.response_code = ResponseCode::Refused,
            Manner::Answers(address) if is_address => {
                let data = RData::A(address.into());
                answer.answers.push(Record::from_rdata(query.name().clone(), 60, data));
            }
            Manner::Answers(_) => {}
        }
        let bytes = answer.to_vec().expect("an answer can be written");
        let _ = socket.send_to(&bytes, from);
    }
}

/// A question as bytes.
pub(crate) fn question(id: u16, name: &str, asked: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name: Name = name.parse().expect("a name");
    message.add_query(Query::query(name, asked));
    message.to_vec().expect("a question can be written")
}

/// A socket for datagrams in `namespace`, with patience, from an address of its own.
#[track_caller]
pub(crate) fn datagrams(namespace: &Namespace, from: Ipv4Addr) -> UdpSocket {
    let socket = namespace.run(move || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(socket)
    });
    socket.unwrap_or_else(|error| panic!("a socket on {from}: {error}"))
}
