//! The kernel side as the agent sees it: load, attach, pin; wanted state → ordered writes.

mod adopt;
mod arena;
mod claims;
mod compact;
mod ids;
mod kernel;
mod load;
mod log;
mod maps;
#[cfg(test)]
mod model;
mod pools;
mod set;
mod shared;
mod syscall;
#[cfg(test)]
mod tests;
mod turnover;
mod writer;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use aya::maps::{MapData, PerCpuArray};
use ipnet::IpNet;
use lb_common::abi::Cidr;
use lb_common::path::{Operation, Reason, counter_index};
use serde::{Deserialize, Serialize};

use self::kernel::KernelMaps;
pub(crate) use self::load::PIN_FOLDERS;
use self::load::{Loaded, Pins};
use self::maps::Maps as _;
use self::writer::Writer;
use crate::host::{self, ExemptCgroup};
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
    /// cgroups whose processes are left alone, as they are at start.
    pub exempt: Vec<ExemptCgroup>,
}

/// One change of what the kernel should hold; `None` takes the service port away.
pub type Change = (ServicePortId, Option<Wanted>);

/// A change that could not be made; everything else was.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The service port whose change was refused whole.
    pub id: ServicePortId,
    /// What stands in its way: which map, how large, how much of it is free.
    pub message: String,
}

/// The loaded programs and the tables behind them.
pub struct Datapath {
    writer: Writer<KernelMaps>,
    counters: PerCpuArray<MapData, u64>,
    programs: Vec<ProgramStatus>,
    limits: Vec<String>,
    exempt: Vec<ExemptCgroup>,
    /// Holds the programs' descriptors; the attached ones live by their pinned links.
    _loaded: Loaded,
}

impl Datapath {
    /// Loads the programs and attaches them, in place of those that an earlier agent left, whose
    /// maps are adopted.
    ///
    /// # Errors
    ///
    /// If the kernel refuses programs, maps or pins; the message names which.
    pub fn open(config: &Config) -> Result<Self> {
        let pins = Pins::new(config)?;
        let mut loaded = Loaded::load(&pins)?;
        let mut maps = KernelMaps::new(&mut loaded)?;
        let cidrs: Vec<Cidr> = config.service_cidrs.iter().map(kernel::cidr).collect();
        maps.store_service_cidrs(&cidrs)?;
        match host::netns_cookie() {
            Ok(cookie) => maps.store_netns(cookie),
            Err(error) => loaded.limits.push(format!(
                "this network namespace has no cookie ({error}; Linux 5.14): NodePorts do not work \
                 on loopback, and binding one is not refused"
            )),
        }
        let counters = PerCpuArray::try_from(loaded.take_map("STATS")?).context("map STATS")?;
        log::follow(loaded.ebpf())?;
        maps.store_exempt(&config.exempt)?;
        let writer = Writer::adopt(maps)?;
        let programs = loaded.attach(config, &pins)?;
        Ok(Self {
            writer,
            counters,
            programs,
            limits: loaded.limits.clone(),
            exempt: config.exempt.clone(),
            _loaded: loaded,
        })
    }

    /// Makes the changes visible to the kernel, in safe order. Returns everything that cannot be
    /// made at present, also of earlier calls: it is tried again with the next one.
    pub fn apply(&mut self, changes: Vec<Change>) -> Vec<Refused> {
        self.writer.apply(changes)
    }

    /// Whether an earlier agent left something that nobody has wanted so far.
    pub fn has_adopted(&self) -> bool {
        !self.writer.adopted.is_empty()
    }

    /// Removes what an earlier agent left and nobody wants any more. Call once, when every source
    /// has synced for the first time.
    pub fn prune(&mut self) {
        self.writer.prune();
    }

    /// Leaves the processes of these cgroups alone, and of no others any more. Connections that
    /// they have stay as they are.
    pub fn exempt(&mut self, cgroups: Vec<ExemptCgroup>) {
        if let Err(error) = self.writer.maps.store_exempt(&cgroups) {
            tracing::error!("exempt cgroups: {error:#}");
        }
        self.exempt = cgroups;
    }

    /// What `lb status` shows.
    pub fn status(&self) -> Status {
        Status {
            programs: self.programs.clone(),
            maps: self.fill(),
            counters: self.counters(),
            limits: self.limits.clone(),
            exempt: self.exempt.clone(),
        }
    }

    fn fill(&self) -> Vec<MapStatus> {
        let capacity = self.writer.maps.capacity();
        let (origins, slots) = self.writer.maps.origin_fill();
        let frontends = u32::try_from(self.writer.frontends.len()).unwrap_or(u32::MAX);
        let pools = &self.writer.pools;
        [
            ("FRONTENDS", frontends, capacity.frontends),
            ("SERVICES", pools.services.used(), capacity.services),
            ("RUNS", pools.slots.used(), capacity.slots),
            ("BACKENDS", pools.backends.used(), capacity.backends),
            ("ORIGIN", origins, slots),
        ]
        .map(|(name, used, capacity)| MapStatus {
            name: name.into(),
            used: used.into(),
            capacity: capacity.into(),
        })
        .into()
    }

    /// Counters that are not zero. One that cannot be read is left out.
    fn counters(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut counters: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for &operation in Operation::ALL {
            for &reason in Reason::ALL {
                let values = self.counters.get(&counter_index(operation, reason), 0);
                let count = values.map_or(0, |values| values.iter().sum());
                if count > 0 {
                    let reasons = counters.entry(operation.name().into()).or_default();
                    reasons.insert(reason.name().into(), count);
                }
            }
        }
        counters
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
    /// cgroups whose processes are left alone.
    pub exempt: Vec<ExemptCgroup>,
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
