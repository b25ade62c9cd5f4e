//! Random tables.

use lb_common::abi::protocol::{TCP, UDP};
use lb_common::abi::{Address, Cidr, FrontendKind, Policy};
use lb_common::maglev::{Candidate, fill};
use lb_common::sim::world::World;

use crate::kernel::MAGLEV_SIZE;

/// Services of every kind, few enough for packets to meet them.
pub(crate) fn random(rng: &mut fastrand::Rng) -> World {
    let mut world = World::new(rng.bool());
    world.arrival.inside = rng.u8(..4) == 0;
    // Sometimes so few ports that they run out.
    let scarce = rng.bool();
    world.tables.node.snat_count = if scarce { 1 } else { 4096 };
    for index in 1..=rng.u32(4..12) {
        world = service(rng, world, index, scarce);
    }
    world
}

fn service(rng: &mut fastrand::Rng, world: World, index: u32, scarce: bool) -> World {
    let who = world.who;
    let n = u8::try_from(index).expect("a dozen");
    let (kind, address, port) = match rng.u8(..5) {
        0 => (FrontendKind::NodePort, who.node(), 30_000 + u16::from(n)),
        1 => (FrontendKind::External, who.external(n), 80),
        2 => (FrontendKind::LoadBalancer, who.external(n), 80),
        _ => (FrontendKind::ClusterIp, who.cluster_ip(n), 80),
    };
    let backends: Vec<Address> = (0..rng.u8(..4))
        .map(|k| if rng.bool() { who.local_pod(k) } else { who.remote_pod(k) })
        .collect();
    let table = if rng.u8(..3) == 0 { index } else { 0 };
    let policy = Policy {
        // Whom the kernel had chosen when no port was left, it does not say, and would remember.
        affinity_seconds: if !scarce && rng.u8(..4) == 0 { 10_800 } else { 0 },
        internal_local: rng.u8(..4) == 0,
        external_local: rng.u8(..3) == 0,
        restricted: rng.u8(..3) == 0,
        maglev: table,
    };
    let protocol = if rng.bool() { TCP } else { UDP };
    let mut world = world.service(index, kind, (address, port, protocol), policy, &backends);
    if rng.bool() {
        world.tables.source_ranges.push((index, Cidr::new(who.client(), 128 - rng.u8(..3))));
    }
    if table != 0 {
        let mut slots = vec![0; MAGLEV_SIZE];
        let backends = world.tables.backends.iter().filter(|(id, _)| **id / 16 == index);
        let mut candidates: Vec<Candidate> =
            backends.map(|(id, b)| Candidate::new(b.address, b.port, *id)).collect();
        fill(&mut slots, &mut candidates).expect("a size that is allowed");
        world.tables.maglev.insert(table - 1, slots);
    }
    world
}
