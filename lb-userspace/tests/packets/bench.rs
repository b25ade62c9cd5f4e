//! How long the loaded programs take for a packet, in nanoseconds, next to the shortest path through them: that of a frame
//! for another host. Prints one line of JSON. `cargo xtask bench packets` makes a table of many runs.
//!
//! What ends in a known flow is timed by the kernel over many packets in one test run. A test run hands every packet
//! to the program again as the program has left it: so here every flow leads to the next one, and the last one to
//! the first. What changes the tables is timed packet by packet, by the statistics that the kernel keeps of programs; that
//! includes two readings of the clock, and caches that a system call has used in between.

mod cycle;
mod kernel;
mod node;

use aya::sys::{Stats, enable_stats};
use lb_common::abi::protocol::TCP;
use lb_common::abi::{Address, FrontendKind, Hook, Policy};
use lb_common::path::{Operation, Reason};
use lb_common::sim::packet::{Frame, Ip, Payload};
use lb_common::sim::world::World;
use serde_json::{Value, json};

use kernel::Kernel;

/// Packets that are timed at once.
const PACKETS: u32 = 512_000;
/// Flows that are made in one measurement: from that many ports of a client.
const NEW_FLOWS: u16 = 10_000;
/// Known flows, where there are many.
const FLOWS: u32 = 64_000;
/// Entries that the table has room for.
const ROOM: u32 = 262_144;

const SYN: u8 = 2;
const ACK: u8 = 16;
/// The destination of a frame that is for another host.
const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// What a packet takes, and what one takes that is for another host.
struct Timed {
    nanoseconds: f64,
    least: f64,
}

fn main() {
    let rows = node::within(|device| {
        let mut kernel = Kernel::load(device, ROOM, None);
        let families = [("IPv4", true), ("IPv6", false)];
        let rows = families.map(|(family, v4)| {
            measure(&mut kernel, v4).map(|(case, timed)| row(&format!("{family}, {case}"), &timed))
        });
        rows.concat()
    });
    println!("{}", Value::from(rows));
}

fn row(case: &str, timed: &Timed) -> Value {
    json!({ "case": case, "nanoseconds": timed.nanoseconds, "least": timed.least })
}

fn measure(kernel: &mut Kernel, v4: bool) -> [(String, Timed); 5] {
    let world = World::new(v4);
    let pod = |here| match here {
        true => world.who.local_pod(1),
        false => world.who.remote_pod(1),
    };
    [
        ("known flow".to_owned(), known(kernel, &world, 2)),
        (format!("known flow of {FLOWS}"), known(kernel, &world, FLOWS)),
        ("new flow".to_owned(), new(kernel, &world, pod(true))),
        ("new flow, masqueraded".to_owned(), new(kernel, &world, pod(false))),
        ("no Service's packet".to_owned(), untouched(kernel, &world)),
    ]
}

/// Packets of as many known flows, one after the other in random order.
fn known(kernel: &mut Kernel, world: &World, flows: u32) -> Timed {
    kernel.fill(&world.tables, &world.arrival);
    let (destination, port) = cycle::fill(kernel, world, flows);
    let frame = frame(world, 5000, (destination, port), ACK);
    // The first time round, caches fill.
    timed_together(kernel, &frame, flows, Reason::Established);
    timed_together(kernel, &frame, PACKETS / flows * flows, Reason::Established)
}

fn untouched(kernel: &mut Kernel, world: &World) -> Timed {
    kernel.fill(&world.tables, &world.arrival);
    let frame = frame(world, 5000, (world.who.router(), 80), ACK);
    timed_together(kernel, &frame, PACKETS, Reason::NotService)
}

/// Packets that begin a flow each, to one backend.
fn new(kernel: &mut Kernel, world: &World, backend: Address) -> Timed {
    let vip = (world.who.cluster_ip(1), 80);
    let mut world = world.clone().service(
        1,
        FrontendKind::ClusterIp,
        (vip.0, vip.1, TCP),
        Policy::default(),
        &[backend],
    );
    (world.tables.node.snat_first, world.tables.node.snat_count) = (20_000, 40_000);
    kernel.fill(&world.tables, &world.arrival);
    let frames = |world: &World| (1..=NEW_FLOWS).map(|port| frame(world, port, vip, SYN)).collect();
    let frames: Vec<Vec<u8>> = frames(&world);
    let timed = timed_singly(kernel, &frames);
    assert_eq!(kernel.moved((Operation::Ingress, Reason::Translated)), frames.len());
    timed
}

fn frame(world: &World, port: u16, to: (Address, u16), flags: u8) -> Vec<u8> {
    let payload = Payload::Tcp { ports: [port, to.1], flags, options: 0, data: vec![0; 64] };
    Frame::new(Ip::new(world.who.client(), to.0, payload)).bytes()
}

/// The same frame, for another host.
fn for_stranger(frame: &[u8]) -> Vec<u8> {
    [&STRANGER, &frame[STRANGER.len()..]].concat()
}

/// By the kernel's own clock around so many runs, each on what the one before has left.
fn timed_together(kernel: &mut Kernel, frame: &[u8], packets: u32, reason: Reason) -> Timed {
    let count = (Operation::Ingress, reason);
    kernel.moved(count);
    let nanoseconds = together(kernel, frame, packets);
    if reason != Reason::NotService {
        assert_eq!(kernel.moved(count), packets as usize, "packets that were {reason:?}");
    }
    Timed { nanoseconds, least: together(kernel, &for_stranger(frame), packets) }
}

fn together(kernel: &mut Kernel, frame: &[u8], packets: u32) -> f64 {
    let run = kernel.run(Hook::Ingress, frame, None, packets);
    run.expect("a test run takes such frames").duration.as_secs_f64() * 1e9
}

/// By the kernel's statistics of the program.
fn timed_singly(kernel: &mut Kernel, frames: &[Vec<u8>]) -> Timed {
    kernel.moved((Operation::Ingress, Reason::Translated));
    let strangers: Vec<Vec<u8>> = frames.iter().map(|frame| for_stranger(frame)).collect();
    Timed { nanoseconds: singly(kernel, frames), least: singly(kernel, &strangers) }
}

fn singly(kernel: &mut Kernel, frames: &[Vec<u8>]) -> f64 {
    let _counting = enable_stats(Stats::RunTime).expect("root may count");
    let before = kernel.program(Hook::Ingress).info().expect("it is loaded");
    for frame in frames {
        kernel.run(Hook::Ingress, frame, None, 1).expect("a test run takes such frames");
    }
    let after = kernel.program(Hook::Ingress).info().expect("it is loaded");
    let time = after.run_time() - before.run_time();
    time.as_secs_f64() * 1e9 / (after.run_count() - before.run_count()) as f64
}
