//! The kernel side as the agent sees it: load, attach, pin; wanted state → ordered writes.

mod adopt;
mod alarm;
mod arena;
mod attach;
mod claims;
mod compact;
mod device_pins;
mod devices;
mod elements;
mod fate;
mod filters;
mod flows;
mod former;
mod grace;
mod held;
mod ids;
mod kernel;
mod layout;
mod load;
mod log;
mod maps;
#[cfg(test)]
mod model;
mod pins;
mod pools;
mod ranges;
mod reuse;
mod self_test;
mod set;
mod shared;
mod sizes;
mod snat_ports;
mod sockets;
mod spread;
mod syscall;
mod takeover;
#[cfg(test)]
mod tests;
mod turnover;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, PerCpuArray};
use ipnet::IpNet;
use lb_common::abi::{Address, Port};
use lb_common::path::{Operation, Reason, counter_index};
use serde::{Deserialize, Serialize};

pub(crate) use self::device_pins::FOLDERS as DEVICE_FOLDERS;
pub(crate) use self::devices::remove_all_filters;
pub use self::devices::{Device, DeviceStatus, Devices, DevicesStatus, Framing, TcAttach, Way};
pub use self::flows::{Alarm, Commands, FlowTable, Flows};
use self::kernel::KernelMaps;
use self::load::Loaded;
use self::maps::Maps as _;
pub(crate) use self::pins::PIN_FOLDERS;
use self::pins::Pins;
pub(crate) use self::self_test::{COMMAND as SELF_TEST, visit};
pub use self::sizes::{Size, Sizes};
use self::snat_ports::SnatPorts;
pub use self::sockets::SocketTables;
use self::takeover::Takeover;
use self::writer::Writer;
use crate::host::{self, ExemptCgroup, PortRange, ReservedPorts};
use crate::plan::{ServicePortId, Wanted};
use crate::sockets::{DeadPeer, Membership};

/// Where the datapath lives and what it serves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory on a bpffs that holds the pins.
    pub bpffs: PathBuf,
    /// cgroup v2 directory whose processes are served.
    pub cgroup: PathBuf,
    /// Ranges in which an unallocated address is unreachable, until [`Datapath::service_cidrs`].
    pub service_cidrs: Vec<IpNet>,
    /// cgroups whose processes are left alone, as they are at start.
    pub exempt: Vec<ExemptCgroup>,
    /// How many entries the tables have.
    pub sizes: Sizes,
    /// The network devices, as they are at start; `None` attaches the packet programs to none.
    pub devices: Option<Devices>,
    /// How they are attached.
    pub tc_attach: TcAttach,
    /// `--snat-ports`: those that packets to endpoints elsewhere get; none, where no packets are rewritten.
    pub snat_ports: Option<PortRange>,
    /// What keeps local sockets away from them.
    pub reserved_ports: ReservedPorts,
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
    exempt: Vec<ExemptCgroup>,
    takeover: Takeover,
    self_test: Option<SelfTest>,
    sockets: Option<SocketTables>,
    snat_ports: SnatPorts,
    flows: Option<Flows>,
}

impl Datapath {
    /// Loads the programs over the maps of their layout. If an earlier agent's programs work on the
    /// same maps, or there are none, ours take their place at once; else by [`Self::prune`].
    ///
    /// # Errors
    ///
    /// If the kernel refuses programs, maps or pins; the message names which.
    pub fn open(config: &Config) -> Result<Self> {
        let pins = Pins::new(config)?;
        // If that cannot be told, no maps are to be left that the next agent would take for a predecessor's.
        attach::predecessor(&pins)?;
        let mut loaded = Loaded::load(&pins, config)?;
        let sockets = Some(SocketTables::new(&mut loaded)?);
        let flows = Some(Flows::new(&mut loaded)?);
        let mut maps = KernelMaps::new(&mut loaded)?;
        maps.store_service_cidrs(&kernel::cidrs(&config.service_cidrs))?;
        maps.begin_revision();
        match host::netns_cookie() {
            Ok(cookie) => maps.store_netns(cookie),
            Err(error) => loaded.limits.push(format!(
                "this network namespace has no cookie ({error}; Linux 5.14): NodePorts do not work \
                 on loopback, and binding one is not refused"
            )),
        }
        let snat_ports =
            SnatPorts::begin(config.snat_ports, &config.reserved_ports, &mut loaded.limits);
        maps.store_snat_ports(snat_ports.range);
        let counters = PerCpuArray::try_from(loaded.take_map("STATS")?).context("map STATS")?;
        log::follow(loaded.ebpf())?;
        maps.store_exempt(&config.exempt)?;
        let mut writer = Writer::adopt(maps)?;
        let takeover = Takeover::begin(config.clone(), pins, loaded, &mut writer.maps)?;
        snat_ports.let_go_of_others();
        let exempt = config.exempt.clone();
        Ok(Self { writer, counters, exempt, takeover, self_test: None, sockets, snat_ports, flows })
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

    /// Removes what an earlier agent left and nobody wants any more, and takes the place of another
    /// layout's programs. Call once, when every source has synced for the first time.
    pub fn prune(&mut self) {
        self.writer.prune();
        self.takeover.tables_are_filled(&mut self.writer.maps);
    }

    /// Does what is due in its own time; says in how long to call this again, if ever.
    pub fn upkeep(&mut self) -> Option<Duration> {
        let again = self.takeover.upkeep(&mut self.writer.maps);
        let again = again.into_iter().chain(self.snat_ports.upkeep()).min();
        if self.self_test.is_none() && self.takeover.pending().is_none() {
            self.self_test = Some(self.test());
        }
        again
    }

    /// Whether the programs do what they should, as a process that is served sees it.
    fn test(&mut self) -> SelfTest {
        let result = self_test::run(&mut self.writer, self.takeover.cgroup());
        let error = result.err().map(|error| format!("{error:#}"));
        match &error {
            None => tracing::info!("self-test: connections are translated"),
            Some(error) => tracing::error!("self-test: {error}"),
        }
        SelfTest { ok: error.is_none(), error }
    }

    /// Makes addresses without a Service unreachable in these ranges, and in no others any more.
    ///
    /// # Errors
    ///
    /// If they are too many; then nothing changes.
    pub fn service_cidrs(&mut self, cidrs: &[IpNet]) -> Result<()> {
        self.writer.maps.store_service_cidrs(&kernel::cidrs(cidrs))
    }

    /// Leaves the processes of these cgroups alone, and of no others any more. Connections that
    /// they have stay as they are.
    pub fn exempt(&mut self, cgroups: Vec<ExemptCgroup>) {
        if let Err(error) = self.writer.maps.store_exempt(&cgroups) {
            tracing::error!("exempt cgroups: {error:#}");
        }
        self.exempt = cgroups;
    }

    /// Has the packet programs at these network devices, and at no others any more; those of another
    /// layout stay until [`Self::prune`]. One that fails does not keep the others from it.
    pub fn devices(&mut self, devices: Devices) {
        self.takeover.set_devices(devices, &mut self.writer.maps);
    }

    /// What the programs remember of sockets. `None` at the second call.
    pub fn take_sockets(&mut self) -> Option<SocketTables> {
        self.sockets.take()
    }

    /// The flows of the packet path. `None` at the second call.
    pub fn take_flows(&mut self) -> Option<Flows> {
        self.flows.take()
    }

    /// Whether backends have died since this was last asked.
    pub fn take_deaths(&mut self) -> bool {
        self.writer.pools.deaths.take()
    }

    /// Endpoints that went so short a time ago that they may come back.
    pub fn unsettled(&self) -> BTreeSet<(Address, Port)> {
        self.writer.pools.deaths.unsettled(Instant::now()).collect()
    }

    /// Whether the service port that a dead peer's frontend belongs to has that endpoint again.
    pub fn membership(&self, peer: &DeadPeer) -> Membership {
        self.writer.membership(peer)
    }

    /// What `lb status` shows.
    pub fn status(&self) -> Status {
        let devices = self.takeover.devices();
        Status {
            programs: self.takeover.programs(),
            layout: self.takeover.layout(),
            taking_over: self.takeover.pending(),
            former_layouts: self.takeover.former.clone(),
            self_test: self.self_test.clone(),
            maps: self.fill(),
            counters: self.counters(),
            limits: self.limits(devices.is_some()),
            exempt: self.exempt.clone(),
            devices,
            snat_ports: self.snat_ports.range.map(|range| range.to_string()),
        }
    }

    fn limits(&self, has_packet_path: bool) -> Vec<String> {
        let mut limits = self.takeover.limits().to_vec();
        limits.extend(self.writer.limit());
        if has_packet_path {
            limits.extend(host::not_forwarding());
        }
        limits
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
            ("MAGLEV", pools.tables.used(), capacity.tables),
            ("SOURCE_RANGES", pools.ranges.used, capacity.ranges),
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
    /// Attached programs.
    pub programs: Vec<ProgramStatus>,
    /// Folder of the maps that the agent fills.
    pub layout: String,
    /// Programs over other maps than those still decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taking_over: Option<TakingOver>,
    /// Layouts that were taken over and whose sockets are not all closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_layouts: Vec<FormerLayout>,
    /// Whether a connection through a frontend arrived at the start; none while programs of another
    /// layout decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_test: Option<SelfTest>,
    /// Fill of each map.
    pub maps: Vec<MapStatus>,
    /// operation → reason → count since the programs' maps were made, over all CPUs.
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
    /// What this node cannot do, and what lb does instead.
    pub limits: Vec<String>,
    /// cgroups whose processes are left alone.
    pub exempt: Vec<ExemptCgroup>,
    /// Network devices and their programs; none with `--no-packet-path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<DevicesStatus>,
    /// `--snat-ports`, if local sockets are kept away from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat_ports: Option<String>,
}

/// A takeover that is not complete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TakingOver {
    /// Folder of the maps that still decide.
    pub layout: String,
    /// Why it failed, if it did; it is tried again.
    pub error: Option<String>,
}

/// What came of the connection that an agent makes to test itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfTest {
    /// It arrived, and showed the frontend.
    pub ok: bool,
    /// Why not, and what helps.
    pub error: Option<String>,
}

/// A layout that was taken over and still serves the sockets that it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FormerLayout {
    /// Folder of its maps.
    pub layout: String,
    /// Sockets that it remembers.
    pub sockets: u64,
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
    /// Entries in use; of `MAGLEV`, tables.
    pub used: u64,
    /// Entries it can hold; of `MAGLEV`, tables.
    pub capacity: u64,
}
