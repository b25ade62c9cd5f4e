//! Random packets: of flows there are, of flows there may be, and of none.

use lb_common::abi::protocol::TCP;
use lb_common::abi::{Address, FlowKey, Hook, Port};
use lb_common::sim::packet::{Frame, Ip, Part, Payload};
use lb_common::sim::world::World;

/// TCP's flags that packets have; the first is the most frequent.
const FLAGS: [u8; 8] = [2, 2, 16, 16, 24, 18, 17, 4];

/// A packet, and where it is met.
pub(crate) fn random(rng: &mut fastrand::Rng, world: &World) -> (Hook, Vec<u8>) {
    let flows: Vec<FlowKey> = world.tables.flows.borrow().keys().copied().collect();
    let (hook, key) = match rng.choice(&flows) {
        Some(key) if rng.u8(..5) < 3 => (hook(key), *key),
        _ => (if rng.u8(..5) == 0 { Hook::Egress } else { Hook::Ingress }, stranger(rng, world)),
    };
    let mut packet = match rng.u8(..10) {
        0 => error(rng, world, &key),
        1 => ping(rng, &key),
        _ => {
            let plain = transport(rng, &key);
            dress(rng, plain, 0..=5)
        }
    };
    if rng.u8(..8) == 0 {
        let (offset, length) = if rng.bool() { (0, 48) } else { (rng.u16(3..7), 24) };
        packet.fragment = Some(Part { id: rng.u32(..4), offset, length });
    }
    let tags = (0..rng.usize(..3)).map(|_| if rng.bool() { 0x8100 } else { 0x88a8 }).collect();
    let tags = if rng.u8(..8) == 0 { tags } else { Vec::new() };
    let padding = if rng.u8(..8) == 0 { rng.usize(..6) } else { 0 };
    let mut bytes = Frame { tags, packet, padding }.bytes();
    damage(rng, &mut bytes);
    (hook, bytes)
}

fn hook(key: &FlowKey) -> Hook {
    if key.hook == Hook::Ingress as u8 { Hook::Ingress } else { Hook::Egress }
}

/// A packet of a flow that there may be.
fn stranger(rng: &mut fastrand::Rng, world: &World) -> FlowKey {
    let who = world.who;
    let clients =
        [who.client(), who.router(), who.local_pod(0), who.local_pod(1), who.remote_pod(2)];
    let frontends: Vec<_> = world.tables.frontends.keys().copied().collect();
    let frontend = rng.choice(frontends).expect("there are services");
    let (destination, destination_port, protocol) = match rng.u8(..12) {
        0 => (who.cluster_ip(200), Port::new(80), TCP),
        1 => (who.node(), Port::new(22), TCP),
        2 => (frontend.address, Port::new(rng.u16(79..82)), TCP),
        _ => (frontend.address, frontend.port, frontend.protocol.max(TCP)),
    };
    FlowKey {
        source: rng.choice(clients).expect("five"),
        destination,
        source_port: Port::new(5000 + rng.u16(..4)),
        destination_port,
        protocol,
        ..FlowKey::NONE
    }
}

fn transport(rng: &mut fastrand::Rng, key: &FlowKey) -> Ip {
    let ports = [key.source_port.number(), key.destination_port.number()];
    let data: Vec<u8> =
        (0..rng.usize(..60)).map(|_| rng.choice([0, 0xff, 0x5a]).unwrap_or(0)).collect();
    let payload = if key.protocol == TCP {
        let options = if rng.u8(..4) == 0 { rng.u8(..=10) } else { 0 };
        Payload::Tcp { ports, flags: rng.choice(FLAGS).unwrap_or(2), options, data }
    } else {
        Payload::Udp { ports, checksum: rng.u8(..6) != 0, data }
    };
    Ip::new(key.source, key.destination, payload)
}

/// Options or extension headers, now and then.
fn dress(rng: &mut fastrand::Rng, packet: Ip, many: std::ops::RangeInclusive<u8>) -> Ip {
    if rng.u8(..5) != 0 {
        return packet;
    }
    if packet.source.is_v4() {
        return Ip { options: rng.u8(..=10), ..packet };
    }
    let extension = |rng: &mut fastrand::Rng| (rng.choice([0, 43, 60]).unwrap_or(60), rng.u8(..3));
    let extensions = (0..rng.u8(many)).map(|_| extension(rng)).collect();
    Ip { extensions, ..packet }
}

/// An error about a packet that went the other way.
fn error(rng: &mut fastrand::Rng, world: &World, key: &FlowKey) -> Ip {
    let quoted = transport(rng, &key.reversed());
    let quoted = dress(rng, quoted, 0..=3);
    let kind = match (world.who.v4, rng.u8(..3)) {
        (true, 0) => (3, 4),
        (true, 1) => (11, 0),
        (true, _) => (5, 0),
        (false, 0) => (2, 0),
        (false, 1) => (3, 0),
        (false, _) => (137, 0),
    };
    let from: Address = if rng.bool() { world.who.router() } else { key.source };
    Ip::error(from, key.destination, kind, &quoted, rng.usize(20..120))
}

fn ping(rng: &mut fastrand::Rng, key: &FlowKey) -> Ip {
    let kinds = if key.source.is_v4() { [8, 8, 0] } else { [128, 128, 129] };
    let kind = rng.choice(kinds).unwrap_or(8);
    let data = vec![0x17; 4 + rng.usize(..60)];
    Ip::new(key.source, key.destination, Payload::Icmp { kind, code: 0, data })
}

/// Cuts a frame, or changes a byte behind its addresses, now and then.
fn damage(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    match rng.u8(..20) {
        0 => bytes.truncate(rng.usize(14..=bytes.len())),
        1 => {
            let at = rng.usize(12..bytes.len());
            bytes[at] = rng.u8(..);
        }
        _ => {}
    }
}
