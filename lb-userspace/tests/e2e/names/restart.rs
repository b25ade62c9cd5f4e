//! The agent comes and goes: the server's ClusterIP stays, and answers pause no longer than the agent.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_server::proto::op::Message;
use hickory_server::proto::rr::RecordType;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::names::{datagrams, question};
use crate::harness::{Stage, cases, eventually, service};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_restart_changes_neither_the_address_nor_the_port,
        names_known_before_a_crash_are_answered_after_it,
        the_listener_follows_the_nodes_addresses,
        another_services_address_is_not_taken_from_it,
        a_listener_on_every_address_answers_from_the_one_that_was_asked,
        a_port_that_is_taken_is_named,
        what_is_asked_while_the_agent_is_away_waits_in_sockets_that_are_kept,
    ]
}

const WEB: &str = "clusterIP: 10.96.7.7, ports: [{port: 80}]";

fn a_restart_changes_neither_the_address_nor_the_port() {
    let mut stage = Stage::with_names(&[]);
    stage.apply(&[&service("web", WEB)]);
    let before = stage.names_listener();
    for round in 0..3 {
        if round == 1 {
            stage.agent.kill_nine();
        } else {
            stage.agent.stop(Signal::TERM);
        }
        stage.agent.start();
        assert_eq!(stage.names_listener(), before);
        assert_eq!(stage.dig("web.default.svc.cluster.local A"), ["10.96.7.7"]);
    }
}

fn names_known_before_a_crash_are_answered_after_it() {
    let mut stage = Stage::with_names(&[]);
    stage.write_manifest("web.yaml", &service("web", WEB));
    eventually("the name is there", || {
        let found = stage.dig("web.default.svc.cluster.local A");
        if found == ["10.96.7.7"] { Ok(()) } else { Err(format!("{found:?}")) }
    });
    stage.agent.kill_nine();
    stage.agent.start();
    // Known or not yet known, but never denied.
    let status = stage.dig_status(&stage.node, "web.default.svc.cluster.local A");
    assert_ne!(status, "NXDOMAIN");
    eventually("the name is there again", || {
        let found = stage.dig("web.default.svc.cluster.local A");
        if found == ["10.96.7.7"] { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

fn the_listener_follows_the_nodes_addresses() {
    let stage = Stage::with_names(&[]);
    stage.apply(&[&service("web", WEB)]);
    let before = stage.names_listener();
    assert_eq!(before.ip(), IpAddr::V4(Ipv4Addr::new(10, 244, 0, 1)));
    stage.node.ip("addr add 10.244.0.2/32 dev eth0");
    stage.node.ip("addr del 10.244.0.1/32 dev eth0");
    let moved = SocketAddr::new(Ipv4Addr::new(10, 244, 0, 2).into(), before.port());
    eventually("the listener has moved", || {
        let now = stage.names_listener();
        if now == moved { Ok(()) } else { Err(now.to_string()) }
    });
    assert_eq!(stage.dig("web.default.svc.cluster.local A"), ["10.96.7.7"]);
}

fn another_services_address_is_not_taken_from_it() {
    let mut stage = Stage::without_agent();
    stage.agent.start();
    stage.apply(&[&service("first", "clusterIP: 10.96.0.10, ports: [{port: 80}]")]);
    stage.agent.stop(Signal::TERM);
    stage.agent.names = true;
    stage.agent.start();
    let log = stage.agent.log();
    assert!(log.contains("names are not served on the usual address"), "{log}");
    let conf = stage.agent.lb(&["resolv-conf"]).ok().stdout;
    let server = conf.lines().find_map(|line| line.strip_prefix("nameserver ")).expect("a server");
    assert_ne!(server, "10.96.0.10");
    let question = format!("@{server} first.default.svc.cluster.local A");
    assert_eq!(stage.dig(&question), ["10.96.0.10"]);
    // It stays where it is, even when the usual address is free again.
    stage.agent.delete("svc", "first");
    stage.agent.stop(Signal::TERM);
    stage.agent.start();
    assert_eq!(stage.agent.lb(&["resolv-conf"]).ok().stdout, conf);
}

fn a_listener_on_every_address_answers_from_the_one_that_was_asked() {
    let stage = Stage::with_names(&["--dns-listen", "0.0.0.0:5399"]);
    stage.apply(&[&service("web", WEB)]);
    stage.node.ip("addr add 10.244.0.9/32 dev eth0");
    // dig drops answers from another address than the one that it asked.
    for address in ["10.244.0.1", "10.244.0.9", "127.0.0.1"] {
        let question = format!("@{address} -p 5399 web.default.svc.cluster.local A");
        assert_eq!(stage.dig(&question), ["10.96.7.7"], "{address}");
    }
    assert_eq!(stage.dig("web.default.svc.cluster.local A"), ["10.96.7.7"]);
}

fn what_is_asked_while_the_agent_is_away_waits_in_sockets_that_are_kept() {
    let mut stage = Stage::without_agent();
    let kept = stage.node.run(|| -> std::io::Result<_> {
        let tcp = TcpListener::bind("10.244.0.1:0")?;
        Ok((UdpSocket::bind(tcp.local_addr()?)?, tcp))
    });
    let kept = kept.expect("a free port");
    let at = kept.0.local_addr().expect("it is bound");
    stage.agent.kept = Some(kept);
    stage.agent.names = true;
    stage.agent.start();
    stage.apply(&[&service("web", WEB)]);
    assert_eq!(stage.names_listener(), at);
    for crash in [false, true] {
        if crash {
            stage.agent.kill_nine();
        } else {
            stage.agent.stop(Signal::TERM);
        }
        let name = "web.default.svc.cluster.local.";
        let question = question(7, name, RecordType::A);
        let datagrams = datagrams(&stage.node, Ipv4Addr::new(10, 244, 0, 1));
        datagrams.send_to(&question, at).expect("the socket is there");
        let stream = stage.node.run(move || TcpStream::connect(at));
        let mut stream = stream.expect("the socket is there");
        let length = u16::try_from(question.len()).expect("it is short").to_be_bytes();
        stream.write_all(&[&length[..], &question].concat()).expect("the socket is there");
        stage.agent.start();
        let mut buffer = [0; 512];
        let (length, _) = datagrams.recv_from(&mut buffer).expect("an answer");
        assert_is_answer(&buffer[..length]);
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let mut prefix = [0; 2];
        stream.read_exact(&mut prefix).expect("an answer");
        let mut answer = vec![0; usize::from(u16::from_be_bytes(prefix))];
        stream.read_exact(&mut answer).expect("an answer");
        assert_is_answer(&answer);
        assert_eq!(stage.dig("web.default.svc.cluster.local A"), ["10.96.7.7"]);
    }
}

#[track_caller]
fn assert_is_answer(bytes: &[u8]) {
    let answer = Message::from_vec(bytes).expect("it can be read");
    let found: Vec<String> = answer.answers.iter().map(|it| it.data.to_string()).collect();
    assert_eq!(found, ["10.96.7.7"], "{answer}");
}

fn a_port_that_is_taken_is_named() {
    let mut stage = Stage::without_agent();
    let taken = stage.node.run(|| TcpListener::bind("10.244.0.1:5399"));
    let taken = taken.expect("it is free");
    stage.agent.names = true;
    stage.agent.set_options(&["--dns-listen", "10.244.0.1:5399"]);
    stage.agent.spawn();
    assert_eq!(stage.agent.gives_up(), 1);
    let log = stage.agent.log();
    for text in ["--dns-listen", "10.244.0.1:5399", "TCP"] {
        assert!(log.contains(text), "{text}: {log}");
    }
    drop(taken);
    stage.agent.start();
}
