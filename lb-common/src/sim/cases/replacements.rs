//! Connections that end, and others in their place.

use alloc::vec;

use super::super::flows::Outcome::{Goes, Gone};
use super::super::world::{STAND_IN, World};
use super::frames::{Message, frame};
use super::{Add, Step};
use crate::abi::protocol::{TCP, UDP};
use crate::abi::{FrontendKind, Life, Policy};
use crate::path::Reason;

const SYN: Message = Message::Tcp(2, b"");
const DATA: Message = Message::Tcp(24, b"some data");
const RST: Message = Message::Tcp(4, b"");
const ASK: Message = Message::Udp(b"question");

pub(super) fn add(v4: bool, add: Add<'_>) {
    let who = World::new(v4).who;
    let client = (who.client(), 5000);
    let vip = (who.cluster_ip(10), 80);
    let pods = [who.local_pod(1), who.local_pod(2)];
    let first = (pods[0], 8080);
    let world = World::new(v4).service(
        1,
        FrontendKind::ClusterIp,
        (vip.0, 80, TCP),
        Policy::default(),
        &pods,
    );
    world.script(0, 2);
    add(
        "a connection that ended begins anew with the same pod",
        world,
        vec![
            Step::arrives(
                frame(client, vip, &SYN),
                Reason::Translated,
                Goes(frame(client, first, &SYN)),
            ),
            Step::arrives(
                frame(client, vip, &DATA),
                Reason::Established,
                Goes(frame(client, first, &DATA)),
            ),
            Step::arrives(
                frame(client, vip, &RST),
                Reason::Established,
                Goes(frame(client, first, &RST)),
            ),
            Step::arrives(
                frame(client, vip, &SYN),
                Reason::Established,
                Goes(frame(client, first, &SYN)),
            ),
        ],
    );
    let gone = Life { generation: 7, ..Life::default() };
    let unready = Life { present: true, ..gone };
    let one = |protocol| {
        let vip = (vip.0, 80, protocol);
        World::new(v4).service(1, FrontendKind::ClusterIp, vip, Policy::default(), &pods[..1])
    };
    let to_first = |message: &Message| Goes(frame(client, first, message));
    add(
        "a connection stays where it is when its pod leaves the list, a new one does not",
        one(TCP),
        vec![
            Step::arrives(frame(client, vip, &SYN), Reason::Translated, to_first(&SYN)),
            Step::arrives(frame(client, vip, &DATA), Reason::Established, to_first(&DATA)),
            Step::arrives(frame(client, vip, &DATA), Reason::Established, to_first(&DATA))
                .after(16, unready),
            Step::arrives(frame(client, vip, &SYN), Reason::Established, to_first(&SYN)),
            Step::arrives(frame(client, vip, &DATA), Reason::Established, to_first(&DATA))
                .after(16, gone),
        ],
    );
    add(
        "a reset that its sender outlives ends nothing",
        one(TCP),
        vec![
            Step::arrives(frame(client, vip, &SYN), Reason::Translated, to_first(&SYN)),
            Step::arrives(frame(client, vip, &DATA), Reason::Established, to_first(&DATA)),
            Step::arrives(frame(client, vip, &RST), Reason::Established, to_first(&RST)),
            Step::arrives(frame(client, vip, &DATA), Reason::Established, to_first(&DATA)),
            // The pod's to answer, as in the midst of any connection.
            Step::arrives(frame(client, vip, &SYN), Reason::Established, to_first(&SYN))
                .after(16, unready),
        ],
    );
    add(
        "UDP stays with a pod that is not ready, and leaves one that is gone",
        one(UDP),
        vec![
            Step::arrives(frame(client, vip, &ASK), Reason::Translated, to_first(&ASK)),
            Step::arrives(frame(client, vip, &ASK), Reason::Established, to_first(&ASK))
                .after(16, unready),
            // The run still names it, as it does for a moment: so it is chosen again.
            Step::arrives(frame(client, vip, &ASK), Reason::Translated, to_first(&ASK))
                .after(16, gone),
        ],
    );
    add(
        "a handshake with a pod that has left the list begins anew",
        one(TCP),
        vec![
            Step::arrives(frame(client, vip, &SYN), Reason::Translated, to_first(&SYN)),
            Step::arrives(frame(client, vip, &SYN), Reason::Translated, to_first(&SYN))
                .after(16, unready),
        ],
    );
    let there = (who.remote_pod(6), 8080);
    let node_port = (who.node(), 30_080);
    let world = World::new(v4).service(
        1,
        FrontendKind::NodePort,
        (node_port.0, node_port.1, TCP),
        Policy::default(),
        &[there.0],
    );
    add(
        "no two clients share the port by which the node stands in for them",
        world,
        vec![
            Step::arrives(
                frame(client, node_port, &SYN),
                Reason::Translated,
                Goes(frame((client.0, STAND_IN), there, &SYN)),
            ),
            Step::arrives(frame((client.0, 5001), node_port, &SYN), Reason::NoSnatPort, Gone),
        ],
    );
    let mut world = World::new(v4).service(
        1,
        FrontendKind::NodePort,
        (node_port.0, node_port.1, TCP),
        Policy::default(),
        &[there.0],
    );
    world.arrival.attached.remove(&world.arrival.routes[&there.0].device);
    add(
        "what would leave with the client's address in spite of the node's is dropped",
        world,
        vec![Step::arrives(frame(client, node_port, &SYN), Reason::UnseenDevice, Gone)],
    );
    let world = World::new(v4).service(
        1,
        FrontendKind::ClusterIp,
        (vip.0, 80, TCP),
        Policy::default(),
        &pods,
    );
    add(
        "a reset of nobody's connection is not answered",
        world,
        vec![Step::arrives(frame(client, vip, &RST), Reason::Stray, Gone)],
    );
}
