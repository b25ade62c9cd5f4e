//! Flows of which each leads to the next: what a packet of one becomes is a packet of another.

use lb_common::abi::protocol::TCP;
use lb_common::abi::{Address, Flow, FlowKey, Hook, Port, Role};
use lb_common::sim::world::World;

use super::kernel::{Bytes, Kernel, bytes};

/// Makes so many flows, an even number, in random order; the destination of the first one. From one to the next,
/// address and port change.
pub(crate) fn fill(kernel: &mut Kernel, world: &World, flows: u32) -> (Address, u16) {
    let mut order: Vec<u32> = (0..flows).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    let places: Vec<(Address, u16)> =
        (0_u16..).zip(order).map(|(turn, n)| (address(world, n), 8080 + turn % 2)).collect();
    let client = (world.who.client(), Port::new(5000));
    for (turn, (from, port)) in places.iter().enumerate() {
        let (to, next_port) = places[(turn + 1) % places.len()];
        let key = FlowKey {
            source: client.0,
            source_port: client.1,
            destination: *from,
            destination_port: Port::new(*port),
            protocol: TCP,
            hook: Hook::Ingress as u8,
            ..FlowKey::NONE
        };
        let flow = Flow {
            source: client.0,
            source_port: client.1,
            destination: to,
            destination_port: Port::new(next_port),
            role: Role::Request as u8,
            ..Flow::NONE
        };
        kernel.flows.insert(bytes(&key), Bytes(bytes(&flow)), 0).expect("room");
    }
    places[0]
}

/// One of many addresses.
fn address(world: &World, n: u32) -> Address {
    let [a, b, c, d] = world.who.cluster_ip(0).words();
    Address::from_words([a, b, c, u32::from_be(d).wrapping_add(n).to_be()])
}
