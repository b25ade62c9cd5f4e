//! What the kernel's maps say, told without ids and slots: two agents that serve the same say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::{ProgramInfo, loaded_programs};
use lb_common::abi::{
    Address, Cidr, FrontendEntry, FrontendKey, FrontendKind, Life, Policy, Run, protocol,
};

use super::{Agent, eventually};

/// Opened maps of one agent.
struct Maps {
    frontends: HashMap<MapData, [u8; 20], u64>,
    services: Array<MapData, [u8; 24]>,
    runs: Array<MapData, u32>,
    backends: Array<MapData, [u8; 32]>,
    ranges: LpmTrie<MapData, [u8; 20], u32>,
    node: Array<MapData, [u8; 192]>,
}

impl Agent {
    /// The maps as sorted lines, one for each frontend and for each range of ClusterIPs.
    #[track_caller]
    pub(crate) fn maps(&self) -> Vec<String> {
        eventually("the maps are at rest and agree", || self.try_maps())
    }

    /// The same, unless the agent changes what is read at the moment.
    #[track_caller]
    pub(crate) fn try_maps(&self) -> Result<Vec<String>, String> {
        let maps = Maps::open(&self.paths.bpffs, &self.status().program_ids());
        let ranges = maps.source_ranges()?;
        let mut lines = maps.service_cidrs();
        for entry in &maps.frontends {
            let (key, value) = entry.map_err(|error| format!("FRONTENDS: {error}"))?;
            let (key, entry) = (FrontendKey::from_bytes(key), FrontendEntry(value));
            if !entry.belongs_to(&key) {
                return Err(format!("{key:?} has the value of another key"));
            }
            lines.push(maps.frontend(&key, entry, &ranges)?);
        }
        lines.sort();
        Ok(lines)
    }
}

impl Maps {
    /// Those that are pinned, and those of the programs.
    #[track_caller]
    fn open(bpffs: &Path, programs: &[u64]) -> Self {
        let folder = folder(bpffs);
        let open = |name: &str| {
            let data = MapData::from_pin(folder.join(name));
            let data = data.unwrap_or_else(|error| panic!("{name} is pinned: {error}"));
            Map::from_map_data(data).expect("a map of a known type")
        };
        Self {
            frontends: open("FRONTENDS").try_into().expect("a hash"),
            services: open("SERVICES").try_into().expect("an array"),
            runs: open("RUNS").try_into().expect("an array"),
            backends: open("BACKENDS").try_into().expect("an array"),
            ranges: open("SOURCE_RANGES").try_into().expect("a trie"),
            node: Map::Array(of_programs(programs, "NODE")).try_into().expect("an array"),
        }
    }

    fn frontend(
        &self,
        key: &FrontendKey,
        entry: FrontendEntry,
        ranges: &BTreeMap<u32, BTreeSet<String>>,
    ) -> Result<String, String> {
        let address = IpAddr::from(key.address);
        if !entry.kind().is_port() {
            return Ok(format!("{address} {:?}", entry.kind()));
        }
        let protocol = match key.protocol {
            protocol::TCP => "TCP",
            protocol::UDP => "UDP",
            other => return Err(format!("{key:?} has the protocol {other}")),
        };
        let service = self.services.get(&entry.service(), 0).expect("an entry of SERVICES");
        let [cluster, local, policy] = [0, 8, 16].map(|at| number(&service, at));
        let cluster = self.backends_of(Run::from_word(cluster))?;
        let local = self.backends_of(Run::from_word(local))?;
        let mut line = format!("{address} {}/{protocol} {:?}", key.port.number(), entry.kind());
        line += &format!(" to {}{}", list(&cluster), shown(Policy::from_word(policy)));
        if local != cluster {
            line += &format!(", locally {}", list(&local));
        }
        if entry.kind() == FrontendKind::LoadBalancer
            && let Some(ranges) = ranges.get(&entry.service())
        {
            line += &format!(", for {}", list(ranges));
        }
        Ok(line)
    }

    /// The endpoints of a run, each of which may be in it once.
    fn backends_of(&self, run: Run) -> Result<BTreeSet<String>, String> {
        let mut all = BTreeSet::new();
        for slot in run.slots() {
            let id = self.runs.get(&slot, 0).expect("a slot of RUNS");
            let backend = self.backends.get(&id, 0).expect("an entry of BACKENDS");
            let address = Address::from_bytes(backend[..16].try_into().expect("16 bytes"));
            let port = u16::from_be_bytes([backend[16], backend[17]]);
            let life = Life::from_word(number(&backend, 24));
            if !life.present || !life.is_in_any() {
                return Err(format!("{address:?} {port} is in a run, but not alive"));
            }
            let here = if backend[18] == 1 { " here" } else { "" };
            if !all.insert(format!("{} {port}{here}", IpAddr::from(address))) {
                return Err(format!("{address:?} {port} is in a run twice"));
            }
        }
        Ok(all)
    }

    fn source_ranges(&self) -> Result<BTreeMap<u32, BTreeSet<String>>, String> {
        let mut all: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for key in self.ranges.keys() {
            let key = key.map_err(|error| format!("SOURCE_RANGES: {error}"))?;
            // A RangeKey: the service, and the address in its 16-byte form.
            let data = key.data();
            let (service, address) = data.split_at(4);
            let service = u32::from_ne_bytes(service.try_into().expect("4 bytes"));
            let address = Address::from_bytes(address.try_into().expect("16 bytes"));
            let bits = key.prefix_len() - 32;
            all.entry(service).or_default().insert(range(address, bits));
        }
        Ok(all)
    }

    fn service_cidrs(&self) -> Vec<String> {
        let node = self.node.get(&0, 0).expect("the entry of NODE");
        let cidr = |bytes: &[u8]| {
            let [network, mask] = [&bytes[..16], &bytes[16..]]
                .map(|half| Address::from_bytes(half.try_into().expect("16 bytes")));
            Cidr { network, mask }
        };
        let used = node[..128].chunks(32).map(cidr).filter(|cidr| *cidr != Cidr::NONE);
        let text =
            |cidr: Cidr| range(cidr.network, u128::from_be_bytes(cidr.mask.bytes()).count_ones());
        used.map(|cidr| format!("service CIDR {}", text(cidr))).collect()
    }
}

/// A map that is not pinned, since every agent makes its own.
#[track_caller]
fn of_programs(programs: &[u64], name: &str) -> MapData {
    let ours = |program: &ProgramInfo| programs.contains(&program.id().into());
    let ids = |program: ProgramInfo| program.map_ids().expect("the kernel tells").into_iter();
    let ids: BTreeSet<u32> =
        loaded_programs().flatten().filter(ours).flat_map(ids).flatten().collect();
    let mut maps = ids.into_iter().filter_map(|id| MapData::from_id(id).ok());
    let named = |map: &MapData| map.info().is_ok_and(|info| info.name_as_str() == Some(name));
    maps.find(named).unwrap_or_else(|| panic!("the programs {programs:?} have no {name}"))
}

/// The folder of the maps that decide.
#[track_caller]
fn folder(bpffs: &Path) -> PathBuf {
    let entries = fs::read_dir(bpffs).expect("the folder of pins").flatten();
    let is_maps = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("maps-"))
    };
    let all: Vec<_> = entries.map(|entry| entry.path()).filter(is_maps).collect();
    let [folder] = &all[..] else { panic!("one folder of maps: {all:?}") };
    folder.clone()
}

/// Bits are counted in the 16-byte form.
fn range(address: Address, bits: u32) -> String {
    let bits = if address.is_v4() { bits - 96 } else { bits };
    format!("{}/{bits}", IpAddr::from(address))
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn list(all: &BTreeSet<String>) -> String {
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    format!("[{}]", all.join(", "))
}

fn shown(policy: Policy) -> String {
    let Policy { affinity_seconds, internal_local, external_local, restricted, maglev } = policy;
    let mut text = String::new();
    if affinity_seconds > 0 {
        text += &format!(", affinity {affinity_seconds} s");
    }
    let flags = [
        (internal_local, "internal local"),
        (external_local, "external local"),
        (restricted, "restricted"),
        (maglev > 0, "maglev"),
    ];
    for (_, name) in flags.iter().filter(|(is_set, _)| *is_set) {
        text += &format!(", {name}");
    }
    text
}
