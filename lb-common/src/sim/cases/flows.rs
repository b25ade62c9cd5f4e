//! Connections from their first packet on.

use alloc::vec;

use super::super::flows::Outcome::{Goes, Gone};
use super::super::packet::{Frame, Ip, Part, Payload};
use super::super::world::{STAND_IN, World};
use super::frames::{Message, frame, packet, too_big};
use super::{Add, Step};
use crate::abi::protocol::{TCP, UDP};
use crate::abi::{Cidr, FrontendKind, Hook, Life, Policy};
use crate::path::Reason;

const SYN: Message = Message::Tcp(2, b"");
const SYN_ACK: Message = Message::Tcp(18, b"");
const DATA: Message = Message::Tcp(24, b"some data");
const ASK: Message = Message::Udp(b"question");
const REPLY: Message = Message::Udp(b"an answer");

pub(super) fn add(v4: bool, add: Add<'_>) {
    local(v4, add);
    elsewhere(v4, add);
    policies(v4, add);
    errors(v4, add);
    fragments(v4, add);
}

fn local(v4: bool, add: Add<'_>) {
    let new = || World::new(v4);
    let who = new().who;
    let (client, pod) = ((who.client(), 5000), (who.local_pod(5), 8080));
    for (name, kind, vip) in [
        ("ClusterIP", FrontendKind::ClusterIp, who.cluster_ip(10)),
        ("NodePort", FrontendKind::NodePort, who.node()),
        ("external IP", FrontendKind::External, who.external(1)),
        ("load balancer's address", FrontendKind::LoadBalancer, who.external(2)),
    ] {
        let world = new().service(1, kind, (vip, 80, TCP), Policy::default(), &[pod.0]);
        let vip = (vip, 80);
        add(
            &alloc::format!("a {name} leads to a pod here, which sees the client"),
            world,
            vec![
                Step::arrives(
                    frame(client, vip, &SYN),
                    Reason::Translated,
                    Goes(frame(client, pod, &SYN)),
                ),
                Step::leaves(
                    frame(pod, client, &SYN_ACK),
                    Reason::Established,
                    Goes(frame(vip, client, &SYN_ACK)),
                ),
                Step::arrives(
                    frame(client, vip, &DATA),
                    Reason::Established,
                    Goes(frame(client, pod, &DATA)),
                ),
                Step::passes(
                    Hook::Egress,
                    frame(pod, (who.client(), 5001), &DATA),
                    Reason::NotService,
                ),
                Step::passes(Hook::Ingress, frame(pod, client, &DATA), Reason::NotService),
            ],
        );
    }
    let vip = (who.cluster_ip(10), 53);
    let world =
        new().service(1, FrontendKind::ClusterIp, (vip.0, 53, UDP), Policy::default(), &[pod.0]);
    add(
        "UDP goes there and back",
        world.clone(),
        vec![
            Step::arrives(
                frame(client, vip, &ASK),
                Reason::Translated,
                Goes(frame(client, pod, &ASK)),
            ),
            Step::leaves(
                frame(pod, client, &REPLY),
                Reason::Established,
                Goes(frame(vip, client, &REPLY)),
            ),
        ],
    );
    let bare = |from: (_, u16), to: (_, u16)| {
        let payload =
            Payload::Udp { ports: [from.1, to.1], checksum: false, data: b"odd".to_vec() };
        Frame::new(Ip::new(from.0, to.0, payload)).bytes()
    };
    add(
        "UDP without a checksum stays without",
        world,
        vec![
            Step::arrives(bare(client, vip), Reason::Translated, Goes(bare(client, pod))),
            Step::leaves(bare(pod, client), Reason::Established, Goes(bare(vip, client))),
        ],
    );
}

fn elsewhere(v4: bool, add: Add<'_>) {
    let new = || World::new(v4);
    let who = new().who;
    let (client, pod) = ((who.client(), 5000), (who.remote_pod(6), 8080));
    let vip = (who.node(), 30_080);
    let node = (who.node(), STAND_IN);
    let there = (who.client(), STAND_IN);
    let world =
        new().service(1, FrontendKind::NodePort, (vip.0, vip.1, TCP), Policy::default(), &[pod.0]);
    world.script(0, 1);
    add(
        "the node stands in for a client of a pod elsewhere",
        world,
        vec![
            Step::arrives(
                frame(client, vip, &SYN),
                Reason::Translated,
                Goes(frame(there, pod, &SYN)),
            ),
            Step::leaves(
                frame(there, pod, &SYN),
                Reason::Established,
                Goes(frame(node, pod, &SYN)),
            ),
            Step::arrives(
                frame(pod, node, &SYN_ACK),
                Reason::Established,
                Goes(frame(pod, there, &SYN_ACK)),
            ),
            Step::leaves(
                frame(pod, there, &SYN_ACK),
                Reason::Established,
                Goes(frame(vip, client, &SYN_ACK)),
            ),
            Step::arrives(
                frame(client, vip, &DATA),
                Reason::Established,
                Goes(frame(there, pod, &DATA)),
            ),
        ],
    );

    let pod = (who.local_pod(5), 8080);
    let (itself, there) = ((pod.0, 5000), (pod.0, STAND_IN));
    let vip = (who.cluster_ip(10), 80);
    let world =
        new().service(1, FrontendKind::ClusterIp, (vip.0, 80, TCP), Policy::default(), &[pod.0]);
    world.script(0, 1);
    add(
        "a pod reaches itself",
        world,
        vec![
            Step::arrives(
                frame(itself, vip, &SYN),
                Reason::Translated,
                Goes(frame(there, pod, &SYN)),
            ),
            Step::leaves(
                frame(there, pod, &SYN),
                Reason::Established,
                Goes(frame(node, pod, &SYN)),
            ),
            Step::arrives(
                frame(pod, node, &SYN_ACK),
                Reason::Established,
                Goes(frame(pod, there, &SYN_ACK)),
            ),
            Step::leaves(
                frame(pod, there, &SYN_ACK),
                Reason::Established,
                Goes(frame(vip, itself, &SYN_ACK)),
            ),
        ],
    );

    let neighbour = (who.remote_pod(6), 8080);
    let there = (client.0, STAND_IN);
    let mut world = new().service(
        1,
        FrontendKind::ClusterIp,
        (vip.0, 80, TCP),
        Policy::default(),
        &[neighbour.0],
    );
    world.script(0, 1);
    world.tables.backends.get_mut(&16).expect("the pod's").here = 1;
    add(
        "the node stands in for a client of a pod here that is behind the client's device",
        world,
        vec![
            Step::arrives(
                frame(client, vip, &SYN),
                Reason::Translated,
                Goes(frame(there, neighbour, &SYN)),
            ),
            Step::leaves(
                frame(there, neighbour, &SYN),
                Reason::Established,
                Goes(frame(node, neighbour, &SYN)),
            ),
        ],
    );

    let two = |n| (who.cluster_ip(n), 80);
    let world = new()
        .service(1, FrontendKind::ClusterIp, (two(10).0, 80, TCP), Policy::default(), &[pod.0])
        .service(2, FrontendKind::ClusterIp, (two(11).0, 80, TCP), Policy::default(), &[pod.0]);
    let there = (client.0, STAND_IN);
    add(
        "two addresses with one pod, from one port of the client, are told apart",
        world,
        vec![
            Step::arrives(
                frame(client, two(10), &SYN),
                Reason::Translated,
                Goes(frame(client, pod, &SYN)),
            ),
            Step::arrives(
                frame(client, two(11), &SYN),
                Reason::Translated,
                Goes(frame(there, pod, &SYN)),
            ),
            Step::leaves(
                frame(pod, client, &SYN_ACK),
                Reason::Established,
                Goes(frame(two(10), client, &SYN_ACK)),
            ),
            Step::leaves(
                frame(pod, there, &SYN_ACK),
                Reason::Established,
                Goes(frame(two(11), client, &SYN_ACK)),
            ),
        ],
    );
}

fn policies(v4: bool, add: Add<'_>) {
    let new = || World::new(v4);
    let who = new().who;
    let client = (who.client(), 5000);
    let (here, there) = ((who.local_pod(5), 8080), (who.remote_pod(6), 8080));
    let vip = (who.external(1), 80);
    let local = Policy { external_local: true, ..Policy::default() };
    let backends = [here.0, there.0];
    let world = new().service(1, FrontendKind::LoadBalancer, (vip.0, 80, TCP), local, &backends);
    add(
        "externalTrafficPolicy: Local stays on the node, and shows the client",
        world,
        vec![Step::arrives(
            frame(client, vip, &SYN),
            Reason::Translated,
            Goes(frame(client, here, &SYN)),
        )],
    );
    let world = new().service(1, FrontendKind::LoadBalancer, (vip.0, 80, TCP), local, &[there.0]);
    add(
        "externalTrafficPolicy: Local drops what only others could serve",
        world.clone(),
        vec![Step::arrives(frame(client, vip, &SYN), Reason::NoLocalEndpoints, Gone)],
    );
    let mut world = world;
    world.arrival.inside = true;
    world.script(0, 1);
    add(
        "what comes from this node goes to others in spite of it",
        world,
        vec![Step::arrives(
            frame(client, vip, &SYN),
            Reason::Translated,
            Goes(frame((client.0, STAND_IN), there, &SYN)),
        )],
    );
    let restricted = Policy { restricted: true, ..Policy::default() };
    let mut world = new()
        .service(1, FrontendKind::LoadBalancer, (vip.0, 80, TCP), restricted, &[here.0])
        .service(2, FrontendKind::NodePort, (who.node(), 30_080, TCP), restricted, &[here.0]);
    world.tables.source_ranges.push((1, Cidr::new(who.router(), 128)));
    let router = (who.router(), 5000);
    add(
        "loadBalancerSourceRanges narrow a load balancer's address, and no other",
        world,
        vec![
            Step::arrives(frame(client, vip, &SYN), Reason::Filtered, Gone),
            Step::arrives(
                frame(router, vip, &SYN),
                Reason::Translated,
                Goes(frame(router, here, &SYN)),
            ),
            Step::arrives(
                frame(client, (who.node(), 30_080), &SYN),
                Reason::Translated,
                Goes(frame(client, here, &SYN)),
            ),
        ],
    );
    let sticky = Policy { affinity_seconds: 10_800, ..Policy::default() };
    let pods = [who.local_pod(1), who.local_pod(2), who.local_pod(3), who.local_pod(4)];
    let world = new().service(1, FrontendKind::LoadBalancer, (vip.0, 80, TCP), sticky, &pods);
    world.script(2, 4);
    let third = (pods[2], 8080);
    let steps = (5000..5010).map(|port| {
        let client = (client.0, port);
        Step::arrives(
            frame(client, vip, &SYN),
            Reason::Translated,
            Goes(frame(client, third, &SYN)),
        )
    });
    add("sessionAffinity keeps a client's pod, by its address", world, steps.collect());
    let maglev = Policy { maglev: 3, ..Policy::default() };
    let mut world = new().service(1, FrontendKind::LoadBalancer, (vip.0, 80, TCP), maglev, &pods);
    // One that left the list does not count.
    let gone = Life { generation: 7, ..Life::default() };
    world.tables.maglev.insert(2, vec![16 + 3; 251]);
    add(
        "Maglev decides where there is a table",
        world.clone(),
        vec![Step::arrives(
            frame(client, vip, &SYN),
            Reason::Translated,
            Goes(frame(client, (pods[3], 8080), &SYN)),
        )],
    );
    if let Some(backend) = world.tables.backends.get_mut(&(16 + 3)) {
        backend.life = gone.to_word();
    }
    world.script(1, 4);
    add(
        "Maglev's choice is looked at",
        world,
        vec![Step::arrives(
            frame(client, vip, &SYN),
            Reason::Translated,
            Goes(frame(client, (pods[1], 8080), &SYN)),
        )],
    );
}

fn errors(v4: bool, add: Add<'_>) {
    let who = World::new(v4).who;
    let (client, router) = ((who.client(), 5000), who.router());
    let (here, there) = ((who.local_pod(5), 8080), (who.remote_pod(6), 8080));
    let vip = (who.node(), 30_080);
    let big = || Message::Udp(&[7; 64]);
    let error =
        |from, to, quoted: &Ip| Frame::new(Ip::error(from, to, too_big(v4), quoted, 1000)).bytes();
    for (name, message, protocol) in [("TCP", DATA, TCP), ("UDP", big(), UDP)] {
        let world = World::new(v4).service(
            1,
            FrontendKind::NodePort,
            (vip.0, vip.1, protocol),
            Policy::default(),
            &[here.0],
        );
        add(
            &alloc::format!("errors about {name} to a pod here are translated"),
            world,
            vec![
                Step::arrives(
                    frame(client, vip, &message),
                    Reason::Translated,
                    Goes(frame(client, here, &message)),
                ),
                Step::arrives(
                    error(router, vip.0, &packet(vip, client, &message)),
                    Reason::Related,
                    Goes(error(router, here.0, &packet(here, client, &message))),
                ),
                Step::leaves(
                    error(here.0, client.0, &packet(client, here, &message)),
                    Reason::Related,
                    Goes(error(vip.0, client.0, &packet(client, vip, &message))),
                ),
                Step::leaves(
                    error(who.node(), client.0, &packet(client, here, &message)),
                    Reason::Related,
                    Goes(error(who.node(), client.0, &packet(client, vip, &message))),
                ),
                Step::passes(
                    Hook::Ingress,
                    error(router, vip.0, &packet(vip, (client.0, 5001), &message)),
                    Reason::NotService,
                ),
            ],
        );
    }
    let (node, stand_in) = ((who.node(), STAND_IN), (client.0, STAND_IN));
    let world = World::new(v4).service(
        1,
        FrontendKind::NodePort,
        (vip.0, vip.1, TCP),
        Policy::default(),
        &[there.0],
    );
    world.script(0, 1);
    add(
        "errors from beyond the node that stands in are translated twice",
        world,
        vec![
            Step::arrives(
                frame(client, vip, &SYN),
                Reason::Translated,
                Goes(frame(stand_in, there, &SYN)),
            ),
            Step::leaves(
                frame(stand_in, there, &SYN),
                Reason::Established,
                Goes(frame(node, there, &SYN)),
            ),
            Step::arrives(
                error(router, node.0, &packet(node, there, &DATA)),
                Reason::Related,
                Goes(error(router, client.0, &packet(stand_in, there, &DATA))),
            ),
            Step::leaves(
                error(router, client.0, &packet(stand_in, there, &DATA)),
                Reason::Related,
                Goes(error(router, client.0, &packet(client, vip, &DATA))),
            ),
            Step::arrives(
                error(router, vip.0, &packet(vip, client, &DATA)),
                Reason::Related,
                Goes(error(router, there.0, &packet(there, stand_in, &DATA))),
            ),
            Step::leaves(
                error(router, there.0, &packet(there, stand_in, &DATA)),
                Reason::Related,
                Goes(error(router, there.0, &packet(there, node, &DATA))),
            ),
        ],
    );
}

fn fragments(v4: bool, add: Add<'_>) {
    const LONG: &[u8] = &[0x5a; 200];
    let who = World::new(v4).who;
    let (client, pod) = ((who.client(), 5000), (who.local_pod(5), 8080));
    let vip = (who.cluster_ip(10), 53);
    let part = |from, to, offset, id| {
        let mut ip = packet(from, to, &Message::Udp(LONG));
        ip.fragment = Some(Part { id, offset, length: 80 });
        Frame::new(ip).bytes()
    };
    let world = World::new(v4).service(
        1,
        FrontendKind::ClusterIp,
        (vip.0, 53, UDP),
        Policy::default(),
        &[pod.0],
    );
    add(
        "fragments follow their first one",
        world,
        vec![
            Step::passes(Hook::Ingress, part(client, vip, 10, 7), Reason::NotService),
            Step::arrives(
                part(client, vip, 0, 7),
                Reason::Translated,
                Goes(part(client, pod, 0, 7)),
            ),
            Step::arrives(
                part(client, vip, 10, 7),
                Reason::Established,
                Goes(part(client, pod, 10, 7)),
            ),
            Step::arrives(
                part(client, vip, 20, 7),
                Reason::Established,
                Goes(part(client, pod, 20, 7)),
            ),
            Step::passes(Hook::Ingress, part(client, vip, 10, 8), Reason::NotService),
            Step::leaves(
                part(pod, client, 0, 9),
                Reason::Established,
                Goes(part(vip, client, 0, 9)),
            ),
            Step::leaves(
                part(pod, client, 10, 9),
                Reason::Established,
                Goes(part(vip, client, 10, 9)),
            ),
            Step::passes(Hook::Ingress, part(pod, client, 10, 9), Reason::NotService),
        ],
    );
}
