//! Bad input and greedy clients, over real sockets: everybody else is served on.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_server::proto::op::{Message, ResponseCode};
use hickory_server::proto::rr::RecordType;
use libtest_mimic::Trial;
use socket2::{Domain, Socket, Type};

use crate::harness::names::{datagrams, question};
use crate::harness::netns::Namespace;
use crate::harness::{Stage, cases, rounds, service};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        nonsense_is_survived_and_told_so,
        a_flood_from_one_client_does_not_keep_others_from_answers,
        a_flood_from_many_strangers_keeps_nobody_from_answers,
        connections_that_stall_are_closed_and_do_not_keep_others_out,
        a_transfer_is_refused_and_everything_is_little,
    ]
}

const NODE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
const NAME: &str = "web.default.svc.cluster.local.";

fn serving() -> (Stage, SocketAddr) {
    let stage = Stage::with_names(&[]);
    stage.apply(&[&service("web", "clusterIP: 10.96.7.7, ports: [{port: 80}]")]);
    let server = stage.names_listener();
    (stage, server)
}

/// Whether `web` is found, from a socket.
fn finds(socket: &UdpSocket, server: SocketAddr, id: u16) -> bool {
    socket.send_to(&question(id, NAME, RecordType::A), server).expect("it is sent");
    let mut buffer = [0; 1_500];
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        let answer = Message::from_vec(&buffer[..length]).expect("an answer can be read");
        if answer.metadata.id == id {
            return answer.answers.len() == 1;
        }
    }
    false
}

fn nonsense_is_survived_and_told_so() {
    let (stage, server) = serving();
    let socket = datagrams(&stage.node, NODE);
    let good = question(1, NAME, RecordType::A);
    let mut random = fastrand::Rng::with_seed(4);
    for round in 0..u16::try_from(rounds(2_000, 60_000)).expect("a small number") {
        let mut packet = good.clone();
        let length = random.usize(..700);
        match round % 4 {
            0 => packet.truncate(random.usize(..packet.len())),
            1 => packet = std::iter::repeat_with(|| random.u8(..)).take(length).collect(),
            2 => packet.extend(std::iter::repeat_n(0xc0, random.usize(..2_000))),
            _ => {
                let at = random.usize(..packet.len());
                packet[at] = random.u8(..);
            }
        }
        socket.send_to(&packet, server).expect("it is sent");
        if round % 100 == 0 {
            assert!(finds(&socket, server, 40_000 + round / 100), "after {round} bad packets");
        }
    }
    assert!(finds(&socket, server, 7));
    let looped = [&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
    let fresh = datagrams(&stage.node, NODE);
    fresh.send_to(&looped, server).expect("it is sent");
    let mut buffer = [0; 512];
    let (length, _) = fresh.recv_from(&mut buffer).expect("an answer");
    let answer = Message::from_vec(&buffer[..length]).expect("it can be read");
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
}

fn a_flood_from_one_client_does_not_keep_others_from_answers() {
    let (mut stage, server) = serving();
    let other = stage.pod("other", "other", &[]);
    let flooding = vec![datagrams(&stage.node, NODE)];
    assert_answers_during_flood(&stage, server, &flooding, other.v4);
}

fn a_flood_from_many_strangers_keeps_nobody_from_answers() {
    let (mut stage, server) = serving();
    let other = stage.pod("other", "other", &[]);
    stage.strangers(100);
    let stranger = |n| datagrams(stage.pods(), Ipv4Addr::new(203, 0, 113, n));
    let flooding: Vec<UdpSocket> = (1..=100).map(stranger).collect();
    assert_answers_during_flood(&stage, server, &flooding, other.v4);
}

#[track_caller]
fn assert_answers_during_flood(
    stage: &Stage,
    server: SocketAddr,
    flooding: &[UdpSocket],
    client: Ipv4Addr,
) {
    let stop = AtomicBool::new(false);
    let packet = question(1, NAME, RecordType::A);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for socket in flooding {
                    let _ = socket.send_to(&packet, server);
                }
            }
        });
        let client = datagrams(stage.pods(), client);
        client.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        let answered = (0..50_u16).filter(|id| finds(&client, server, 1_000 + id)).count();
        stop.store(true, Ordering::Relaxed);
        // The kernel may lose a datagram before the server can look at it.
        assert!(answered >= 25, "{answered} of 50 questions were answered");
    });
}

fn connections_that_stall_are_closed_and_do_not_keep_others_out() {
    let (mut stage, server) = serving();
    let other = stage.pod("other", "other", &[]);
    stage.strangers(40);
    let from = |namespace: &Namespace, address: Ipv4Addr| {
        let stream = namespace.run(move || -> std::io::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((address, 0)).into())?;
            socket.connect_timeout(&server.into(), Duration::from_secs(10))?;
            Ok(socket.into())
        });
        stream.expect("the listener takes connections")
    };
    let mut stalled: Vec<TcpStream> = (0..100).map(|_| from(&stage.node, NODE)).collect();
    // More strangers than all clients together may have connections, if each counted for itself.
    let stranger = |n: u16| Ipv4Addr::new(203, 0, 113, u8::try_from(n % 40 + 1).expect("small"));
    stalled.extend((0..560).map(|n| from(stage.pods(), stranger(n))));
    for (n, stream) in stalled.iter_mut().enumerate() {
        // Nothing, half a length, a length alone, a part of a question, a length that is too much.
        let begun: &[u8] = match n % 5 {
            0 => &[],
            1 => &[0],
            2 => &[0, 40],
            3 => &[0, 40, 1, 2, 3],
            _ => &[255, 255],
        };
        // One that was refused for being too many is closed already.
        let _ = stream.write_all(begun);
    }
    let question = format!("-b {} +tcp web.default.svc.cluster.local", other.v4);
    assert_eq!(stage.dig_status(stage.pods(), &question), "NOERROR");
    for mut stream in stalled {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let ended = stream.read(&mut [0; 16]);
        assert!(!matches!(&ended, Err(e) if e.kind() == ErrorKind::WouldBlock), "it is still open");
    }
}

fn a_transfer_is_refused_and_everything_is_little() {
    let (stage, _) = serving();
    for transfer in ["AXFR", "IXFR=1"] {
        let output = stage.run_in(&stage.node, &["dig", "@10.96.0.10", "cluster.local", transfer]);
        assert!(output.stdout.contains("Transfer failed"), "{output}");
    }
    let all = stage.dig("web.default.svc.cluster.local ANY +notcp");
    assert_eq!(all, ["\"RFC8482\" \"\""]);
    assert_eq!(stage.dig_status(&stage.node, "version.bind CH TXT"), "REFUSED");
    assert_eq!(
        stage.dig_status(&stage.node, "+edns=1 +noednsneg web.default.svc.cluster.local"),
        "BADVERS"
    );
    assert_eq!(stage.dig_status(&stage.node, "+opcode=notify cluster.local"), "NOTIMP");
}
