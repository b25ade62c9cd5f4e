//! Checksums are right, whoever computes them: with offloads on, off, and off at the node alone.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;

use libtest_mimic::Trial;

use super::{LISTEN, NODE_PORT, node_port};
use crate::harness::lan::NODE;
use crate::harness::netns::Namespace;
use crate::harness::{Lan, cases};
use crate::probe::{Errno, Probe, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![data_and_refusals_are_intact_whoever_computes_checksums]
}

const OFFLOADS: [&str; 5] = ["tx", "rx", "tso", "gso", "gro"];
/// The devices of each namespace.
const DEVICES: [(&str, &[&str]); 6] = [
    ("client", &["eth0"]),
    ("router", &["client0", "br0", "node1", "node2"]),
    ("node", &["eth0", "pods0"]),
    ("near", &["eth0"]),
    ("other", &["eth0", "pods0"]),
    ("far", &["eth0"]),
];

/// What is on or off elsewhere, and at the node. Between veths with offloads on nobody computes a checksum, so nobody sees
/// that a half-made one was not kept up: only a node that must complete it, behind its programs, does.
const SETTINGS: [[&str; 2]; 3] = [["on", "on"], ["off", "off"], ["on", "off"]];

fn data_and_refusals_are_intact_whoever_computes_checksums() {
    let mut lan = Lan::start();
    let near = lan.near_pod("near", "near", &LISTEN).manifest();
    let far = lan.far_pod("far", "far", &LISTEN).manifest();
    let [here, elsewhere, nowhere] = [("near", 0), ("far", 1), ("nobody", 2)]
        .map(|(app, offset)| node_port(app, app, NODE_PORT + offset, ""));
    lan.apply(&[&near, &far, &here, &elsewhere, &nowhere]);
    let log = KernelLog::from_now_on();
    let probe = lan.probe();
    for [elsewhere, at_node] in SETTINGS {
        set_everywhere(&lan, elsewhere, at_node);
        let setting = format!("{elsewhere}, at the node {at_node}");
        for ip in NODE {
            let to = |offset: u16| SocketAddr::new(ip, NODE_PORT + offset);
            assert_intact(&probe, to(0), &format!("to a pod here, offloads {setting}"));
            assert_intact(&probe, to(1), &format!("to a pod elsewhere, offloads {setting}"));
            assert_answers(&probe, to(2), &setting);
        }
    }
    for (name, namespace) in lan.namespaces() {
        assert_eq!(wrong_checksums(namespace), [""; 0], "packets with wrong checksums, {name}");
    }
    log.assert_without("hw csum failure");
}

fn set_everywhere(lan: &Lan, elsewhere: &str, at_node: &str) {
    let namespaces = lan.namespaces();
    for (name, devices) in DEVICES {
        let (_, namespace) = namespaces.iter().find(|(n, _)| *n == name).expect("one of them");
        let setting = if name == "node" { at_node } else { elsewhere };
        for device in devices {
            let offloads = OFFLOADS.map(|offload| format!("{offload} {setting}")).join(" ");
            // One that a device does not have is a complaint, and no failure.
            namespace.command("ethtool", &format!("-K {device} {offloads}"));
        }
    }
    for (namespace, setting) in [(&lan.client, elsewhere), (&*lan.node, at_node)] {
        let shown = namespace.command("ethtool", "-k eth0").ok();
        shown.mentions(&[
            &format!("tx-checksumming: {setting}"),
            &format!("tcp-segmentation-offload: {setting}"),
            &format!("generic-receive-offload: {setting}"),
        ]);
    }
}

#[track_caller]
fn assert_intact(probe: &Probe, to: SocketAddr, what: &str) {
    assert_eq!(probe.transfer(to, 2 << 20), Ok(()), "TCP {what}, {to}");
    assert_eq!(probe.datagrams(to, 1, 20), Ok(()), "small datagrams {what}, {to}");
    assert_eq!(probe.datagrams(to, 1200, 20), Ok(()), "datagrams {what}, {to}");
    assert_eq!(probe.datagrams(to, 8000, 10), Ok(()), "fragments {what}, {to}");
}

/// RST and ICMP, made out of frames whose checksum is complete or not.
#[track_caller]
fn assert_answers(probe: &Probe, to: SocketAddr, setting: &str) {
    for _ in 0..5 {
        assert_refused(&format!("TCP to {to}, offloads {setting}"), probe.tcp(to), Errno::REFUSED);
        assert_refused(&format!("UDP to {to}, offloads {setting}"), probe.udp(to), Errno::REFUSED);
    }
}

/// The namespace's counters of packets with wrong checksums that are not zero.
fn wrong_checksums(namespace: &Namespace) -> Vec<String> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let (v4, v6) = namespace.run(move || (read("snmp"), read("snmp6")));
    let (v4, v6) = (v4.expect("counters of IPv4"), v6.expect("counters of IPv6"));
    let lines: Vec<_> = v4.lines().collect();
    let pairs = lines.chunks(2).flat_map(|pair| {
        pair[0].split_whitespace().zip(pair[1].split_whitespace()).map(|(name, value)| {
            let protocol = pair[0].split(':').next().unwrap_or_default();
            (format!("{protocol}.{name}"), value)
        })
    });
    let v6 = v6.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let all = pairs.chain(v6.map(|(name, value)| (name.to_owned(), value.trim())));
    let wrong = all.filter(|(name, value)| name.ends_with("CsumErrors") && *value != "0");
    wrong.map(|(name, value)| format!("{name} {value}")).collect()
}

/// What the kernel says.
struct KernelLog(File);

impl KernelLog {
    fn from_now_on() -> Self {
        let mut options = File::options();
        let mut log = options
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .expect("root may read the kernel's log");
        log.seek(SeekFrom::End(0)).expect("it can be read from the end on");
        Self(log)
    }

    #[track_caller]
    fn assert_without(mut self, text: &str) {
        let mut record = vec![0; 8 << 10];
        // A record a call, until there is none.
        while let Ok(length) = self.0.read(&mut record) {
            let record = String::from_utf8_lossy(&record[..length]);
            assert!(!record.contains(text), "the kernel says: {record}");
        }
    }
}
