//! Frontends that change under a flow.

use alloc::vec;

use super::super::flows::Outcome::{Goes, Gone};
use super::super::world::{STAND_IN, World};
use super::frames::{Message, frame};
use super::{Add, Change, Step};
use crate::abi::protocol::{TCP, UDP};
use crate::abi::{Address, Cidr, FrontendKey, FrontendKind, Hook, Policy, Port};
use crate::path::Reason;

const SYN: Message = Message::Tcp(2, b"");
const DATA: Message = Message::Tcp(24, b"some data");
const FIN: Message = Message::Tcp(17, b"");
const ASK: Message = Message::Udp(b"question");

pub(super) fn add(v4: bool, add: Add<'_>) {
    moved(v4, add);
    narrowed(v4, add);
}

fn key((address, port): (Address, u16), protocol: u8) -> FrontendKey {
    FrontendKey::new(address, Port::new(port), protocol)
}

fn moved(v4: bool, add: Add<'_>) {
    let who = World::new(v4).who;
    let client = (who.client(), 5000);
    let vip = (who.node(), 30_053);
    let (first, second) = ((who.local_pod(1), 8080), (who.local_pod(2), 8080));
    let world = |protocol| {
        World::new(v4)
            .service(
                1,
                FrontendKind::NodePort,
                (vip.0, vip.1, protocol),
                Policy::default(),
                &[first.0],
            )
            .service(
                2,
                FrontendKind::ClusterIp,
                (who.cluster_ip(10), 53, protocol),
                Policy::default(),
                &[second.0],
            )
    };
    let to = |pod, message: &Message| Goes(frame(client, pod, message));
    let moves = |protocol| Change::Frontend(key(vip, protocol), Some((FrontendKind::NodePort, 2)));
    let another =
        Change::Frontend(key((who.external(9), 9), UDP), Some((FrontendKind::External, 2)));
    add(
        "UDP follows a frontend that another Service gets",
        world(UDP),
        vec![
            Step::arrives(frame(client, vip, &ASK), Reason::Translated, to(first, &ASK)),
            Step::arrives(frame(client, vip, &ASK), Reason::Established, to(first, &ASK))
                .following(another),
            Step::arrives(frame(client, vip, &ASK), Reason::Translated, to(second, &ASK))
                .following(moves(UDP)),
            Step::arrives(frame(client, vip, &ASK), Reason::Established, to(second, &ASK)),
            Step::passes(Hook::Egress, frame(first, client, &ASK), Reason::NotService),
        ],
    );
    add(
        "a connection stays where it is when another Service gets its frontend, a new one does not",
        world(TCP),
        vec![
            Step::arrives(frame(client, vip, &SYN), Reason::Translated, to(first, &SYN)),
            Step::arrives(frame(client, vip, &DATA), Reason::Established, to(first, &DATA)),
            Step::arrives(frame(client, vip, &DATA), Reason::Established, to(first, &DATA))
                .following(moves(TCP)),
            Step::arrives(frame(client, vip, &FIN), Reason::Established, to(first, &FIN)),
            Step::arrives(frame(client, vip, &SYN), Reason::Translated, to(second, &SYN)),
        ],
    );
    for (name, message, protocol) in [("UDP", ASK, UDP), ("a new connection", SYN, TCP)] {
        add(
            &alloc::format!("{name} does not find a frontend that is no more"),
            world(protocol),
            vec![
                Step::arrives(
                    frame(client, vip, &message),
                    Reason::Translated,
                    to(first, &message),
                ),
                Step::passes(Hook::Ingress, frame(client, vip, &message), Reason::NotService)
                    .following(Change::Frontend(key(vip, protocol), None)),
                Step::passes(Hook::Egress, frame(first, client, &message), Reason::NotService),
            ],
        );
    }
}

fn narrowed(v4: bool, add: Add<'_>) {
    let who = World::new(v4).who;
    let (client, router) = ((who.client(), 5000), (who.router(), 5000));
    let vip = (who.external(1), 80);
    let (here, there) = ((who.local_pod(5), 8080), (who.remote_pod(6), 8080));
    let world = |protocol, pods: &[Address]| {
        let vip = (vip.0, vip.1, protocol);
        World::new(v4).service(1, FrontendKind::LoadBalancer, vip, Policy::default(), pods)
    };
    for (name, message, protocol) in [("UDP", ASK, UDP), ("a new connection", SYN, TCP)] {
        let restricted = Policy { restricted: true, ..Policy::default() };
        let mut narrow = world(protocol, &[here.0]);
        narrow.tables.source_ranges.push((1, Cidr::new(who.router(), 128)));
        let came = |from| {
            let goes = Goes(frame(from, here, &message));
            Step::arrives(frame(from, vip, &message), Reason::Translated, goes)
        };
        let stays = Goes(frame(router, here, &message));
        add(
            &alloc::format!("{name} obeys loadBalancerSourceRanges that are new"),
            narrow,
            vec![
                came(client),
                came(router),
                Step::arrives(frame(client, vip, &message), Reason::Filtered, Gone)
                    .following(Change::Policy(1, restricted)),
                Step::arrives(frame(router, vip, &message), Reason::Established, stays),
            ],
        );
        let local = Policy { external_local: true, ..Policy::default() };
        let world = world(protocol, &[there.0]);
        world.script(0, 1);
        let stand_in = (client.0, STAND_IN);
        add(
            &alloc::format!("{name} obeys an externalTrafficPolicy: Local that is new"),
            world,
            vec![
                Step::arrives(
                    frame(client, vip, &message),
                    Reason::Translated,
                    Goes(frame(stand_in, there, &message)),
                ),
                Step::arrives(frame(client, vip, &message), Reason::NoLocalEndpoints, Gone)
                    .following(Change::Policy(1, local)),
            ],
        );
    }
}
