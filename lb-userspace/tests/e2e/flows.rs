//! Collection of flows from the kernel's own table.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData};
use lb_common::abi::{Address, Flow, FlowKey, Hook, Port, Role, protocol};
use lb_userspace::datapath::{Commands, FlowTable};
use lb_userspace::flows::{Entry, Lack, Lifetimes, Table as _, sweep};
use libtest_mimic::Trial;
use rustix::time::{ClockId, clock_gettime};

use crate::harness::{PATIENCE, Stage, cases, eventually, within};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_large_table_is_listed_whole_by_either_command,
        what_is_over_is_taken_out_of_the_kernels_table_by_either_command,
        an_agent_collects_what_it_finds_and_keeps_what_is_in_use,
    ]
}

const KEY: usize = size_of::<FlowKey>();
const VALUE: usize = size_of::<Flow>();
const SECOND: u64 = 1_000_000_000;

const OLD_KERNEL: Commands = Commands { batch: false, take: false };

type Flows<T> = HashMap<T, [u8; KEY], [u8; VALUE]>;

/// The two entries of a TCP connection, established, and used last at this time.
fn connection(client: u32, last_seen: u64) -> [Entry; 2] {
    let address = |number: u32| Address::from(std::net::IpAddr::from(number.to_be_bytes()));
    let client = (address(0x0a00_0000 + client), Port::new(4000));
    let (frontend, backend) =
        ((address(0xc0a8_0001), Port::new(80)), (address(0x0af4_0101), Port::new(8080)));
    let entry =
        |role: Role, hook: Hook, from: [(Address, Port); 2], to: [(Address, Port); 2]| Entry {
            key: FlowKey {
                source: from[0].0,
                source_port: from[0].1,
                destination: from[1].0,
                destination_port: from[1].1,
                protocol: protocol::TCP,
                hook: hook as u8,
                ..FlowKey::NONE
            },
            flow: Flow {
                source: to[0].0,
                source_port: to[0].1,
                destination: to[1].0,
                destination_port: to[1].1,
                role: role as u8,
                seen: 2 | 16,
                packets: 1,
                last_seen,
                ..Flow::NONE
            },
        };
    [
        entry(Role::Request, Hook::Ingress, [client, frontend], [client, backend]),
        entry(Role::Reply, Hook::Egress, [backend, client], [frontend, client]),
    ]
}

fn fill(table: &mut FlowTable, connections: u32, last_seen: u64) {
    for entry in (0..connections).flat_map(|client| connection(client, last_seen)) {
        table.put(&entry).expect("there is room");
    }
}

fn now() -> u64 {
    let now = Duration::try_from(clock_gettime(ClockId::Boottime)).expect("after boot");
    u64::try_from(now.as_nanos()).expect("not 584 years after boot")
}

/// A table as the agent makes it, of which no program knows.
fn table(map: &MapData, commands: Commands) -> FlowTable {
    FlowTable::new(map, commands).expect("a table of flows")
}

fn new_map(entries: u32) -> MapData {
    let word = |size: usize| u32::try_from(size).expect("small");
    let kind = aya::maps::MapType::Hash as u32;
    let map = aya_obj::Map::new_from_params(kind, word(KEY), word(VALUE), entries, 0);
    MapData::create(map, "flows_test", None).expect("a hash can be made")
}

fn a_large_table_is_listed_whole_by_either_command() {
    let map = new_map(262_144);
    fill(&mut table(&map, Commands::ALL), 50_000, 7);
    for (commands, name) in [(Commands::ALL, "in parts"), (OLD_KERNEL, "key by key")] {
        let mut table = table(&map, commands);
        let began = Instant::now();
        let mut list = table.list().expect("listed");
        eprintln!("100,000 entries listed {name} in {:?}", began.elapsed());
        list.sort_unstable_by_key(|entry| entry.key);
        let mut wanted: Vec<_> = (0..50_000).flat_map(|client| connection(client, 7)).collect();
        wanted.sort_unstable_by_key(|entry| entry.key);
        assert!(list == wanted, "{} entries listed {name}, 100,000 are there", list.len());
    }
}

fn what_is_over_is_taken_out_of_the_kernels_table_by_either_command() {
    let second = Duration::from_secs;
    let lifetimes = Lifetimes {
        established: second(3600),
        opening: second(60),
        closed: second(10),
        udp: second(60),
    };
    for commands in [Commands::ALL, OLD_KERNEL] {
        let mut table = table(&new_map(262_144), commands);
        fill(&mut table, 50_000, SECOND);
        for entry in (50_000..50_100).flat_map(|client| connection(client, 2 * SECOND)) {
            table.put(&entry).expect("there is room");
        }
        let began = Instant::now();
        let tally = sweep(&mut table, &lifetimes, 3601 * SECOND, Lack::default()).expect("swept");
        eprintln!("{commands:?}: 100,000 of 100,200 entries taken out in {:?}", began.elapsed());
        assert_eq!((tally.collected, tally.established, tally.entries), (50_000, 100, 200));
        assert_eq!(tally.nearest, Some(second(1)));
        let began = Instant::now();
        let tally = sweep(&mut table, &lifetimes, 3602 * SECOND, Lack::default()).expect("swept");
        eprintln!("{commands:?}: the last 200 taken out in {:?}", began.elapsed());
        assert_eq!((tally.collected, tally.entries, tally.nearest), (100, 0, None));
        assert_eq!(table.list().expect("listed"), []);
    }
}

/// The pinned table of the stage's agent.
fn pinned(stage: &Stage) -> MapData {
    let folders =
        std::fs::read_dir(&stage.agent.paths.bpffs).expect("the folder of pins").flatten();
    let mut pins = folders.map(|folder| folder.path().join("FLOWS")).filter(|pin| pin.exists());
    MapData::from_pin(pins.next().expect("FLOWS is pinned")).expect("it can be opened")
}

/// Sets when the entry was used last, as a program does with each packet.
fn touch(map: &mut Flows<MapData>, entry: &Entry, last_seen: u64) {
    let at = std::mem::offset_of!(Flow, last_seen);
    let key = key_bytes(&entry.key);
    let mut value = map.get(&key, 0).expect("the entry is there");
    value[at..at + 8].copy_from_slice(&last_seen.to_ne_bytes());
    map.insert(key, value, 0).expect("it is replaced");
}

/// The key as the kernel has it.
fn key_bytes(key: &FlowKey) -> [u8; KEY] {
    let mut bytes = Vec::new();
    bytes.extend(key.source.bytes());
    bytes.extend(key.destination.bytes());
    bytes.extend(key.source_port.number().to_be_bytes());
    bytes.extend(key.destination_port.number().to_be_bytes());
    bytes.extend([key.protocol, key.hook, 0, 0]);
    bytes.try_into().expect("all fields")
}

fn an_agent_collects_what_it_finds_and_keeps_what_is_in_use() {
    let mut stage = Stage::start();
    assert_eq!(stage.agent.status().used("FLOWS"), 0);
    stage.agent.kill_nine();
    let map = pinned(&stage);
    let mut flows = table(&map, Commands::ALL);
    let mut map = Flows::try_from(Map::HashMap(map)).expect("a hash");
    // Times to come are those of packets that come all the time.
    let in_use = now() + 1000 * SECOND;
    fill(&mut flows, 1000, now());
    let lone = connection(2000, in_use)[0];
    flows.put(&lone).expect("there is room");
    stage.agent.start();
    eventually("the agent has looked", || match stage.agent.status() {
        status if status.flows("established") == 1000 && status.flows("strays") == 1 => Ok(()),
        status => Err(format!("{} are established", status.flows("established"))),
    });
    assert_eq!(stage.agent.status().used("FLOWS"), 2001);

    stage.agent.kill_nine();
    let living = connection(7, in_use);
    touch(&mut map, &living[1], in_use);
    touch(&mut map, &lone, SECOND);
    stage.agent.set_options(&["--flow-established", "1"]);
    stage.agent.start();
    within(PATIENCE * 2, "only what is in use is left", || {
        let status = stage.agent.status();
        match (status.used("FLOWS"), status.flows("established"), status.flows("collected")) {
            (2, 1, 999) => Ok(()),
            counts => Err(format!("(entries, established, collected) is {counts:?}")),
        }
    });
    let left: BTreeSet<_> =
        flows.list().expect("listed").into_iter().map(|entry| entry.key).collect();
    assert_eq!(left, living.map(|entry| entry.key).into());
    touch(&mut map, &living[1], now());
    within(PATIENCE * 2, "it goes when it is not used any more", || {
        match stage.agent.status().used("FLOWS") {
            0 => Ok(()),
            used => Err(format!("{used} entries")),
        }
    });
}
