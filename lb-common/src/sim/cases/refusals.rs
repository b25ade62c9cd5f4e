//! Packets that get an answer from the program itself.

use alloc::vec;
use core::net::IpAddr;

use super::super::flows::Outcome::{Gone, Returns};
use super::super::packet::{Frame, Ip, Part};
use super::super::world::World;
use super::frames::{Message, back, frame, packet, ping, reset, unreachable};
use super::{Add, Step};
use crate::abi::protocol::{TCP, UDP};
use crate::abi::{FrontendKey, FrontendKind, Hook, Policy};
use crate::path::Reason;

const SYN: Message = Message::Tcp(2, b"");
const FIN_DATA: Message = Message::Tcp(1, b"bye");
const DATA: Message = Message::Tcp(24, b"some data");
const RST: Message = Message::Tcp(4, b"");
const ASK: Message = Message::Udp(b"question");

pub(super) fn add(v4: bool, add: Add<'_>) {
    refusals(v4, add);
    unallocated(v4, add);
    pings(v4, add);
    nobodies(v4, add);
}

fn refusals(v4: bool, add: Add<'_>) {
    let who = World::new(v4).who;
    let client = (who.client(), 5000);
    let vip = (who.cluster_ip(10), 80);
    let empty = |protocol| {
        World::new(v4).service(
            1,
            FrontendKind::ClusterIp,
            (vip.0, 80, protocol),
            Policy::default(),
            &[],
        )
    };
    for (name, port, reason) in
        [("without endpoints", 80, Reason::NoEndpoints), ("unknown", 81, Reason::UnknownPort)]
    {
        let vip = (vip.0, port);
        let answer = |flags, sequence, acknowledged| {
            Returns(back(reset(vip, client, flags, sequence, acknowledged)))
        };
        // Packets of these tests have the sequence number 1 and acknowledge 2.
        add(
            &alloc::format!("TCP to a port {name} is reset"),
            empty(TCP),
            vec![
                Step::arrives(frame(client, vip, &SYN), reason, answer(20, 0, 2)),
                Step::arrives(frame(client, vip, &FIN_DATA), reason, answer(20, 0, 5)),
                Step::arrives(frame(client, vip, &DATA), reason, answer(4, 2, 0)),
            ],
        );
        let ask = packet(client, vip, &ASK);
        add(
            &alloc::format!("UDP to a port {name} is unreachable"),
            empty(UDP),
            vec![Step::arrives(
                Frame::new(ask.clone()).bytes(),
                reason,
                Returns(unreachable(&ask, (3, 4), 8)),
            )],
        );
    }
    let vip = (who.cluster_ip(10), 80);
    let mut first = packet(client, vip, &Message::Udp(&[1; 100]));
    first.fragment = Some(Part { id: 3, offset: 0, length: 40 });
    let mut later = first.clone();
    later.fragment = Some(Part { id: 3, offset: 5, length: 40 });
    let quoted = if v4 { 8 } else { 16 };
    add(
        "of a fragmented packet the first is answered",
        empty(UDP),
        vec![
            Step::arrives(
                Frame::new(first.clone()).bytes(),
                Reason::NoEndpoints,
                Returns(unreachable(&first, (3, 4), quoted)),
            ),
            Step::passes(Hook::Ingress, Frame::new(later).bytes(), Reason::NotService),
        ],
    );
    add(
        "a reset is not answered by another",
        empty(TCP),
        vec![Step::arrives(frame(client, vip, &RST), Reason::Stray, Gone)],
    );
    let node = (who.node(), 30_080);
    let world = World::new(v4).service(
        1,
        FrontendKind::NodePort,
        (node.0, node.1, TCP),
        Policy::default(),
        &[],
    );
    add(
        "a node keeps the ports that are no NodePorts",
        world,
        vec![
            Step::passes(Hook::Ingress, frame(client, (who.node(), 22), &SYN), Reason::NotService),
            Step::arrives(
                frame(client, node, &SYN),
                Reason::NoEndpoints,
                Returns(back(reset(node, client, 20, 0, 2))),
            ),
        ],
    );
}

fn unallocated(v4: bool, add: Add<'_>) {
    let who = World::new(v4).who;
    let client = (who.client(), 5000);
    let nobody = (who.cluster_ip(99), 80);
    let (ask, syn) = (packet(client, nobody, &ASK), packet(client, nobody, &SYN));
    add(
        "an address of the service range that nobody has is unreachable",
        World::new(v4),
        vec![
            Step::arrives(
                Frame::new(ask.clone()).bytes(),
                Reason::Unallocated,
                Returns(unreachable(&ask, (1, 3), 8)),
            ),
            Step::arrives(
                Frame::new(syn.clone()).bytes(),
                Reason::Unallocated,
                Returns(unreachable(&syn, (1, 3), 20)),
            ),
        ],
    );
    let mut world = World::new(v4);
    world.tables.put(FrontendKey::of_address(nobody.0), FrontendKind::Foreign, 0);
    add(
        "what is left to another proxy passes",
        world,
        vec![
            Step::passes(Hook::Ingress, frame(client, nobody, &SYN), Reason::NotService),
            Step::passes(
                Hook::Ingress,
                Frame::new(ping(client.0, nobody.0, false)).bytes(),
                Reason::NotService,
            ),
        ],
    );
}

fn pings(v4: bool, add: Add<'_>) {
    let who = World::new(v4).who;
    let (client, vip, external) = (who.client(), who.cluster_ip(10), who.external(1));
    let world = || {
        World::new(v4)
            .service(1, FrontendKind::ClusterIp, (vip, 80, TCP), Policy::default(), &[])
            .service(2, FrontendKind::External, (external, 80, TCP), Policy::default(), &[])
    };
    let answered = |vip| {
        Step::arrives(
            Frame::new(ping(client, vip, false)).bytes(),
            Reason::EchoReply,
            Returns(back(ping(vip, client, true))),
        )
    };
    add(
        "a ping to a Service's address is answered, and no other message",
        world(),
        vec![
            answered(vip),
            answered(external),
            Step::passes(
                Hook::Ingress,
                Frame::new(ping(client, who.node(), false)).bytes(),
                Reason::NotService,
            ),
            Step::passes(
                Hook::Ingress,
                Frame::new(ping(client, vip, true)).bytes(),
                Reason::NotService,
            ),
            Step::passes(
                Hook::Egress,
                Frame::new(ping(client, vip, false)).bytes(),
                Reason::NotService,
            ),
        ],
    );
    let mut spent = Frame::new(ping(client, vip, false)).bytes();
    // The last hop that it may go; IPv4's checksum follows.
    if v4 {
        spent[22] = 1;
        spent[24..26].fill(0);
        let sum = crate::checksum::full(0, &spent[14..34]);
        spent[24..26].copy_from_slice(&sum.to_ne_bytes());
    } else {
        spent[21] = 1;
    }
    add(
        "the answer to a ping may go as far as any packet",
        world(),
        vec![Step::arrives(spent, Reason::EchoReply, Returns(back(ping(vip, client, true))))],
    );
    let part = |ip: Ip, offset| Ip { fragment: Some(Part { id: 5, offset, length: 8 }), ..ip };
    let bytes = |ip| Frame::new(ip).bytes();
    let (ask, answer) = (|| ping(client, vip, false), || ping(vip, client, true));
    add(
        "a fragmented ping is answered whole",
        world(),
        vec![
            Step::arrives(
                bytes(part(ask(), 0)),
                Reason::EchoReply,
                Returns(back(part(answer(), 0))),
            ),
            Step::arrives(
                bytes(part(ask(), 1)),
                Reason::EchoReply,
                Returns(back(part(answer(), 1))),
            ),
        ],
    );
}

/// An answer to what claims to come from there would reach many, or come back.
fn nobodies(v4: bool, add: Add<'_>) {
    let who = World::new(v4).who;
    let vip = (who.cluster_ip(10), 80);
    let ranges: &[[u8; 4]] = &[[224, 0, 0, 1], [239, 1, 2, 3], [255; 4], [127, 0, 0, 1], [0; 4]];
    let sources = match v4 {
        true => ranges.iter().map(|source| IpAddr::from(*source)).collect(),
        false => vec![IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]), IpAddr::from([0; 16])],
    };
    let world = World::new(v4).service(
        1,
        FrontendKind::ClusterIp,
        (vip.0, vip.1, TCP),
        Policy::default(),
        &[],
    );
    let steps = sources.into_iter().flat_map(|source| {
        let source = (source.into(), 5000);
        let ping = Frame::new(ping(source.0, vip.0, false)).bytes();
        let unallocated = (who.cluster_ip(99), 80);
        [frame(source, vip, &SYN), frame(source, vip, &ASK), frame(source, unallocated, &ASK), ping]
            .map(|frame| Step::passes(Hook::Ingress, frame, Reason::NotService))
    });
    add("what comes from nobody in particular is not answered", world, steps.collect());
}
