//! The packet programs at network devices, in the place of whatever an earlier agent left there.
//!
//! What is attached, the kernel says each time anew: devices come and go, and one may have the index of
//! another that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use lb_common::abi::{Hook, device};
use serde::{Deserialize, Serialize};

use super::Config;
use super::attach::{fd, id};
use super::device_pins::{DevicePins, Pin};
use super::filters::Filters;
use super::kernel::KernelMaps;
use super::load::Loaded;
use super::pins::remove;
use super::syscall::{self, BPF_TCX_EGRESS, BPF_TCX_INGRESS};
use crate::host;

/// The network devices of the node, as far as the packet programs are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Those whose packets are translated.
    pub selected: Vec<Device>,
    /// The names of others by which packets come that nobody translates.
    pub unseen: Vec<String>,
    /// The node's own addresses towards its default routes, one of each family at most.
    pub sources: Vec<IpAddr>,
}

/// A device whose packets are translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The kernel's number, unique at a time.
    pub index: u32,
    /// Its name at present.
    pub name: String,
    /// What its packets begin with.
    pub framing: Framing,
    /// Behind it are workloads of this node alone.
    pub inside: bool,
}

/// What the packets of a device begin with, as its programs meet them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Bare,
    /// What lb cannot read: the kernel's number of it (`ARPHRD_*`).
    Other(u16),
}

/// `--tc-attach`: how programs are attached to devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TcAttach {
    /// By TCX links where the kernel has them.
    #[default]
    Auto,
    /// By TCX links only (Linux 6.6).
    Tcx,
    /// By filters of a clsact queueing discipline.
    Netlink,
}

/// How programs are attached to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Way {
    /// By a pinned link each.
    Tcx,
    /// By a filter each, which stays where it is.
    Filter,
}

/// The devices' part of `lb status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DevicesStatus {
    /// Those whose packets are to be translated.
    pub selected: Vec<DeviceStatus>,
    /// The names of others that lead somewhere: what is forwarded by them is not translated.
    pub unseen: Vec<String>,
}

/// One device in [`DevicesStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// The kernel's number.
    pub index: u32,
    /// Behind it are workloads of this node alone.
    pub inside: bool,
    /// How the programs are attached, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<Way>,
    /// Why they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Both ways, that of replies first: a packet is translated only when the way back works.
const HOOKS: [Hook; 2] = [Hook::Egress, Hook::Ingress];

/// The programs, by what a device's packets begin with.
const PROGRAMS: [(Framing, Hook, &str); 4] = [
    (Framing::Ethernet, Hook::Ingress, "tc_ingress"),
    (Framing::Ethernet, Hook::Egress, "tc_egress"),
    (Framing::Bare, Hook::Ingress, "tc_ingress_ip"),
    (Framing::Bare, Hook::Egress, "tc_egress_ip"),
];

/// The names of the programs.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PROGRAMS.into_iter().map(|(_, _, name)| name)
}

/// What is attached to which device.
pub(super) struct Attachments {
    bpffs: PathBuf,
    pins: DevicePins,
    way: Way,
    /// `None`: no device (`--no-packet-path`).
    wanted: Option<Devices>,
    status: Vec<DeviceStatus>,
}

impl Attachments {
    /// Of an agent that begins.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let way = match config.tc_attach {
            TcAttach::Tcx => Way::Tcx,
            TcAttach::Netlink => Way::Filter,
            TcAttach::Auto if host::has_tcx() => Way::Tcx,
            TcAttach::Auto => Way::Filter,
        };
        Ok(Self {
            bpffs: config.bpffs.clone(),
            pins: DevicePins::new(&config.bpffs)?,
            way,
            wanted: config.devices.clone(),
            status: Vec::new(),
        })
    }

    /// These are the devices from now on. To be followed by [`Self::settle`].
    pub(super) fn want(&mut self, devices: Devices) {
        self.wanted = Some(devices);
    }

    /// Has the programs at every selected device and at no other. Without `loaded`, as long as other
    /// programs decide, what is attached stays as it is, and nothing new is.
    pub(super) fn settle(&mut self, loaded: Option<&Loaded>, maps: &mut KernelMaps) {
        let devices = self.wanted.clone().unwrap_or_default();
        maps.store_sources(&devices.sources).unwrap_or_else(|error| tracing::error!("{error:#}"));
        if let Err(error) = self.dismiss(&devices.selected, maps) {
            tracing::error!("detaching from network devices: {error:#}");
        }
        let status = devices.selected.iter().map(|device| {
            let result = self.attach(loaded, maps, device);
            DeviceStatus {
                name: device.name.clone(),
                index: device.index,
                inside: device.inside,
                attached: result.is_ok().then_some(self.way),
                error: result.err().map(|error| format!("{error:#}")),
            }
        });
        let status: Vec<_> = status.collect();
        log(&self.status, &status);
        self.status = status;
    }

    /// What `lb status` shows; `None` without a packet path.
    pub(super) fn status(&self) -> Option<DevicesStatus> {
        let wanted = self.wanted.as_ref()?;
        Some(DevicesStatus { selected: self.status.clone(), unseen: wanted.unseen.clone() })
    }

    /// Lets go of devices that are not selected, or gone.
    fn dismiss(&self, selected: &[Device], maps: &mut KernelMaps) -> Result<()> {
        let selected: BTreeSet<u32> = selected.iter().map(|device| device.index).collect();
        let pinned: BTreeMap<u32, BTreeSet<Pin>> = self.pins.read()?;
        for (&index, pins) in pinned.iter().filter(|(index, _)| !selected.contains(index)) {
            for pin in HOOKS.map(Pin::Link) {
                remove(&self.pins.path(index, pin))?;
            }
            if pins.contains(&Pin::Filter) {
                let mut filters = Filters::open(&self.bpffs)?;
                remove_filters(&mut filters, &self.pins, index)?;
            }
        }
        // Last, as a program that still runs looks for it.
        let known = maps.device_indexes()?;
        known.difference(&selected).try_for_each(|&index| maps.delete_device(index))
    }

    fn attach(
        &self,
        loaded: Option<&Loaded>,
        maps: &mut KernelMaps,
        device: &Device,
    ) -> Result<()> {
        let inside = if device.inside { device::INSIDE } else { 0 };
        let attached = maps.device(device.index)? & device::ATTACHED;
        // First, as a program that runs looks for it.
        maps.store_device(device.index, inside | attached)?;
        for hook in HOOKS {
            match self.way {
                Way::Tcx => self.put_link(loaded, device, hook)?,
                Way::Filter => self.put_filter(loaded, device, hook)?,
            }
        }
        maps.store_device(device.index, inside | device::ATTACHED)?;
        // What an agent left that attached in the other way. For a moment both are there: the second
        // finds nothing to translate.
        match self.way {
            Way::Filter => HOOKS
                .into_iter()
                .try_for_each(|hook| remove(&self.pins.path(device.index, Pin::Link(hook)))),
            Way::Tcx if self.pins.has(device.index, Pin::Filter) => {
                remove_filters(&mut Filters::open(&self.bpffs)?, &self.pins, device.index)
            }
            Way::Tcx => Ok(()),
        }
    }

    fn put_link(&self, loaded: Option<&Loaded>, device: &Device, hook: Hook) -> Result<()> {
        let pin = self.pins.path(device.index, Pin::Link(hook));
        let present = self.pins.link(device.index, hook)?;
        let program = program(loaded, device.framing, hook, present.is_some())?;
        match (present, program) {
            (_, None) => Ok(()),
            (Some(link), Some(program)) if link.info.program == id(program)? => Ok(()),
            (Some(link), Some(program)) => syscall::update_link(link.fd.as_fd(), fd(program)?)
                .context("replacing the program that is attached"),
            (None, Some(program)) => {
                let attach_type = match hook {
                    Hook::Ingress => BPF_TCX_INGRESS,
                    Hook::Egress => BPF_TCX_EGRESS,
                };
                let link = syscall::create_tcx_link(fd(program)?, device.index, attach_type)
                    .context("attaching a TCX link (Linux 6.6)")?;
                syscall::pin(link.as_fd(), &pin)
                    .with_context(|| format!("pinning it to {}", pin.display()))
            }
        }
    }

    fn put_filter(&self, loaded: Option<&Loaded>, device: &Device, hook: Hook) -> Result<()> {
        let mut filters = Filters::open(&self.bpffs)?;
        let present = filters.find(device.index, hook)?;
        let Some(program) = program(loaded, device.framing, hook, present.is_some())? else {
            return Ok(());
        };
        self.pins.mark(device.index, Pin::Filter, &device.name)?;
        if present.as_ref().is_some_and(|filter| Some(filter.program) == id(program).ok()) {
            return Ok(());
        }
        if present.is_none() && !self.pins.has(device.index, Pin::Qdisc) {
            self.pins.mark(device.index, Pin::Qdisc, &device.name)?;
            if !filters.add_clsact(device.index)? {
                remove(&self.pins.path(device.index, Pin::Qdisc))?;
            }
        } else if present.is_none() {
            filters.add_clsact(device.index)?;
        }
        filters.put(device.index, hook, present, fd(program)?)
    }
}

/// The program for a device's hook. `None` if the one that is there is to stay.
fn program(
    loaded: Option<&Loaded>,
    framing: Framing,
    hook: Hook,
    is_present: bool,
) -> Result<Option<&aya::programs::Program>> {
    if let Framing::Other(layer) = framing {
        bail!("its packets begin with what lb cannot read (link layer {layer})");
    }
    let of_device = PROGRAMS.iter().find(|(of, at, _)| (*of, *at) == (framing, hook));
    match (loaded, of_device) {
        (Some(loaded), Some((_, _, name))) => loaded.loaded_program(name).map(Some),
        _ if is_present => Ok(None),
        _ => bail!("waits until every source has been read"),
    }
}

/// Removes our filters from a device, and the queueing discipline if it is ours and nobody else uses it.
fn remove_filters(filters: &mut Filters, pins: &DevicePins, index: u32) -> Result<()> {
    for hook in HOOKS {
        if let Some(filter) = filters.find(index, hook)? {
            filters.remove(index, hook, &filter)?;
        }
    }
    if pins.has(index, Pin::Qdisc) {
        filters.remove_clsact_if_unused(index)?;
    }
    remove(&pins.path(index, Pin::Qdisc))?;
    remove(&pins.path(index, Pin::Filter))
}

/// Removes the filters of the agents of this folder of pins in this network namespace, for
/// `lb cleanup`. Returns from how many devices.
pub(crate) fn remove_all_filters(bpffs: &Path) -> Result<usize> {
    let pins = DevicePins::of_this_namespace(bpffs)?;
    pins.warn_of_others(bpffs)?;
    let mut filters = Filters::open(bpffs)?;
    let mut devices = 0;
    for (index, of_device) in pins.read()? {
        if of_device.contains(&Pin::Filter) {
            remove_filters(&mut filters, &pins, index)?;
            devices += 1;
        }
    }
    Ok(devices)
}

/// What is new to a person.
fn log(before: &[DeviceStatus], now: &[DeviceStatus]) {
    for device in now.iter().filter(|device| !before.contains(device)) {
        let DeviceStatus { name, attached, error, .. } = device;
        match (attached, error) {
            (_, Some(error)) => tracing::error!("network device {name}: {error}"),
            (Some(Way::Tcx), None) => tracing::info!("network device {name}: attached"),
            (_, None) => tracing::info!("network device {name}: attached, by filters"),
        }
    }
    let is_there = |gone: &DeviceStatus| now.iter().any(|device| device.index == gone.index);
    for device in before.iter().filter(|device| !is_there(device)) {
        tracing::info!("network device {}: no more", device.name);
    }
}
