//! What the kernel says of programs at devices, whatever the agent says.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use aya::maps::{Array, HashMap, Map, MapData, MapInfo};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::TcAttachType;
use aya::programs::{ProgramInfo, SchedClassifier, loaded_programs};
use lb_common::abi::Node;

use crate::harness::netns::Namespace;
use crate::harness::{Agent, eventually};

/// The names of a device's TCX programs on the way in, then those on the way out, in order.
#[track_caller]
pub(super) fn programs(node: &Namespace, device: &str) -> Vec<String> {
    let device = device.to_owned();
    node.run(move || {
        let ways = [TcAttachType::Ingress, TcAttachType::Egress];
        let infos = ways.map(|way| SchedClassifier::query_tcx(&device, way).expect("a device").1);
        let names = infos.iter().flatten().map(|program| program.name_as_str().map(str::to_owned));
        names.collect::<Option<_>>().expect("programs of ours have names")
    })
}

/// The ids of a device's TCX programs, likewise.
#[track_caller]
pub(super) fn program_ids(node: &Namespace, device: &str) -> Vec<u32> {
    let device = device.to_owned();
    node.run(move || {
        let ways = [TcAttachType::Ingress, TcAttachType::Egress];
        let infos = ways.map(|way| SchedClassifier::query_tcx(&device, way).expect("a device").1);
        infos.iter().flatten().map(ProgramInfo::id).collect()
    })
}

/// Waits until the agent says that these devices have the programs, and no others.
#[track_caller]
pub(super) fn await_devices(agent: &Agent, expected: &[&str]) {
    eventually(&format!("the devices are {expected:?}"), || {
        let mut devices = agent.status().devices().expect("a packet path");
        devices.sort();
        if devices == expected { Ok(()) } else { Err(format!("{devices:?}")) }
    });
}

/// What is pinned of devices: names of files, and the ids of those that are links.
#[track_caller]
pub(super) fn pinned(agent: &Agent) -> BTreeMap<String, Option<u32>> {
    let link = |path: PathBuf| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let is_mark = path.is_symlink();
        let open = || FdLink::from(PinnedLink::from_pin(&path).expect("a link")).info();
        (name, (!is_mark).then(|| open().expect("a link").id()))
    };
    folders(agent, "devices-").into_iter().flat_map(entries).map(link).collect()
}

/// The flags of each device that the programs know.
#[track_caller]
pub(super) fn flags(agent: &Agent) -> BTreeMap<u32, u32> {
    let [layout] = &folders(agent, "maps-")[..] else { panic!("one layout") };
    let map = Map::HashMap(MapData::from_pin(layout.join("DEVICES")).expect("a map"));
    let map: HashMap<_, u32, u32> = map.try_into().expect("a hash");
    map.iter().collect::<Result<_, _>>().expect("a listing")
}

/// What the programs know of the node.
#[track_caller]
pub(super) fn node_entry(agent: &Agent) -> [u8; size_of::<Node>()] {
    let ids = agent.status().program_ids();
    let programs = loaded_programs().flatten().filter(|program| ids.contains(&program.id().into()));
    let maps = programs.flat_map(|program| program.map_ids().expect("asked").unwrap_or_default());
    let is_node =
        |id: &u32| MapInfo::from_id(*id).is_ok_and(|map| map.name_as_str() == Some("NODE"));
    let id = { maps }.find(is_node).expect("a program uses NODE");
    let map = Map::Array(MapData::from_id(id).expect("a map"));
    let map: Array<_, [u8; size_of::<Node>()]> = map.try_into().expect("an array");
    map.get(&0, 0).expect("an entry")
}

/// What lies among the agent's pins under such names.
pub(crate) fn folders(agent: &Agent, prefix: &str) -> Vec<PathBuf> {
    let mut all = entries(agent.paths.bpffs.clone());
    all.retain(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)));
    all
}

fn entries(folder: PathBuf) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
