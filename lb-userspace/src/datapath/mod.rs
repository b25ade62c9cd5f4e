//! The kernel side as the agent sees it: load, attach, pin; wanted state → ordered writes.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::plan::{ServicePortId, Wanted};

/// Where the datapath lives and what it serves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory on a bpffs that holds the pins.
    pub bpffs: PathBuf,
    /// cgroup v2 directory whose processes are served.
    pub cgroup: PathBuf,
    /// Ranges in which an unallocated address is unreachable.
    pub service_cidrs: Vec<IpNet>,
}

/// One change of what the kernel should hold; `None` takes the service port away.
pub type Change = (ServicePortId, Option<Wanted>);

/// A change that could not be made; everything else was.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The service port whose change was refused whole.
    pub id: ServicePortId,
    /// Map, size, and the flag that enlarges it.
    pub message: String,
}

/// The loaded programs and the tables behind them.
#[derive(Debug)]
pub struct Datapath {}

impl Datapath {
    /// Loads and attaches the programs, or adopts what an earlier agent left pinned.
    pub fn open(_config: &Config) -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// Makes the changes visible to the kernel, in safe order. Returns those that were refused.
    pub fn apply(&mut self, _changes: Vec<Change>) -> Vec<Refused> {
        Vec::new()
    }

    /// Removes what an earlier agent left and nobody wants any more. Call once, when every source
    /// has synced for the first time.
    pub fn prune(&mut self) {}

    /// What `lb status` shows.
    pub fn status(&self) -> Status {
        Status::default()
    }
}

/// The datapath's part of `lb status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Loaded programs.
    pub programs: Vec<ProgramStatus>,
    /// Fill of each map.
    pub maps: Vec<MapStatus>,
    /// operation → reason → count since the programs' maps were made, over all CPUs.
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
    /// What this kernel cannot do, and what lb does instead.
    pub limits: Vec<String>,
}

/// One attached program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramStatus {
    /// Its name.
    pub name: String,
    /// The kernel's program id.
    pub id: u32,
    /// Where it is attached.
    pub cgroup: PathBuf,
}

/// Fill of one map, in entries.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapStatus {
    /// Its name.
    pub name: String,
    /// Entries in use.
    pub used: u64,
    /// Entries it can hold.
    pub capacity: u64,
}
