//! Sockets that a process is started with, as systemd passes them. Their taker is this binary itself,
//! run again: it takes them before there are threads.

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, ExitCode, Stdio};

use lb_userspace::host::Inherited;
use libtest_mimic::Trial;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_getfd};

use crate::harness::cases;
use crate::harness::netns::Namespace;
use crate::harness::process;

/// The first argument that makes this binary say what it was started with.
pub(crate) const MODE: &str = "__inherited";

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        sockets_are_taken_with_what_waits_in_them,
        what_is_passed_to_another_process_is_left_alone,
        other_descriptors_are_named,
    ]
}

/// Says on standard error what was passed.
pub(crate) fn run() -> ExitCode {
    let text = match Inherited::take() {
        Ok(inherited) => describe(&inherited),
        Err(error) => format!("error: {error:#}\n"),
    };
    eprint!("{text}");
    ExitCode::SUCCESS
}

fn describe(inherited: &Inherited) -> String {
    let mut text = String::new();
    for socket in &inherited.udp {
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).expect("a datagram waits");
        let heard = String::from_utf8_lossy(&buffer[..length]);
        writeln!(text, "udp {heard} {}", flags(socket)).expect("a string takes it");
    }
    for listener in &inherited.tcp {
        listener.accept().expect("a connection waits");
        writeln!(text, "tcp {}", flags(listener)).expect("a string takes it");
    }
    for (variable, value) in std::env::vars().filter(|(name, _)| name.starts_with("LISTEN_")) {
        writeln!(text, "{variable}={value}").expect("a string takes it");
    }
    text
}

fn flags(socket: &impl AsFd) -> String {
    let nonblocking = fcntl_getfl(socket).expect("open").contains(OFlags::NONBLOCK);
    let kept = fcntl_getfd(socket).expect("open").contains(FdFlags::CLOEXEC);
    format!("nonblocking={nonblocking} kept={kept}")
}

/// Starts this binary with the descriptors 3 and 4, and with these variables as a shell sets them.
#[track_caller]
fn start(namespace: &Namespace, third: OwnedFd, fourth: OwnedFd, variables: &str) -> String {
    let this = std::env::current_exe().expect("the test binary knows its path");
    let script =
        format!("exec 3<&0 4<&1 0</dev/null 1>&2; {variables} exec '{}' {MODE}", this.display());
    let mut command: Command = process::command("sh");
    command.args(["-c", &script]).stdin(third).stdout(fourth).stderr(Stdio::piped());
    let output = namespace.run(move || command.spawn().and_then(Child::wait_with_output));
    String::from_utf8_lossy(&output.expect("sh can be run").stderr).into_owned()
}

/// A UDP socket in which a datagram waits, and a listener for which a connection does.
fn sockets(namespace: &Namespace) -> (UdpSocket, TcpListener) {
    namespace.run(|| {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = udp.local_addr().expect("bound");
        udp.send_to(b"question", to).expect("room for a datagram");
        TcpStream::connect(tcp.local_addr().expect("bound")).expect("it listens");
        (udp, tcp)
    })
}

fn sockets_are_taken_with_what_waits_in_them() {
    let namespace = Namespace::new();
    let passed = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=dns:dns LISTEN_FDS_FIRST_FD=9";
    let (udp, tcp) = sockets(&namespace);
    let expected = "udp question nonblocking=true kept=true\ntcp nonblocking=true kept=true\n";
    assert_eq!(start(&namespace, udp.into(), tcp.into(), passed), expected);

    let (udp, tcp) = sockets(&namespace);
    let said = start(&namespace, tcp.into(), udp.into(), "LISTEN_FDS=2");
    assert_eq!(said, expected, "in another order, and without a process id");
}

fn what_is_passed_to_another_process_is_left_alone() {
    let namespace = Namespace::new();
    for variables in ["LISTEN_PID=1 LISTEN_FDS=2 LISTEN_FDNAMES=dns:dns", "LISTEN_PID=1", ""] {
        let (udp, tcp) = sockets(&namespace);
        assert_eq!(start(&namespace, udp.into(), tcp.into(), variables), "", "{variables}");
    }
}

fn other_descriptors_are_named() {
    let namespace = Namespace::new();
    let unix = || OwnedFd::from(UnixDatagram::unbound().expect("a socket"));
    let stream = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound"));
        OwnedFd::from(stream.expect("it listens"))
    };
    let stream = namespace.run(stream);
    let raw = namespace.run(|| {
        use rustix::net::{AddressFamily, SocketType, ipproto::ICMP, socket};
        socket(AddressFamily::INET, SocketType::RAW, Some(ICMP)).expect("root may")
    });
    let file = || OwnedFd::from(std::fs::File::open("/dev/null").expect("it exists"));
    for (description, odd) in
        [("a Unix socket", unix()), ("a connection", stream), ("raw", raw), ("a file", file())]
    {
        let (udp, _) = sockets(&namespace);
        let variables = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=dns:odd";
        let said = start(&namespace, udp.into(), odd, variables);
        assert!(said.starts_with("error: descriptor 4 (odd)"), "{description}: {said}");
        assert!(said.contains("neither a UDP socket"), "{description}: {said}");
    }
    let (udp, tcp) = sockets(&namespace);
    let said = start(&namespace, udp.into(), tcp.into(), "LISTEN_PID=$$ LISTEN_FDS=3");
    assert!(said.starts_with("error: descriptor 5 (without a name)"), "not open: {said}");
}
