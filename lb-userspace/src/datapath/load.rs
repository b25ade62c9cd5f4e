//! The embedded programs: loaded into the kernel over maps that outlive us.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Map, MapData};
use aya::programs::{Program, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

use super::Config;
use super::pins::Pins;
use super::reuse::Wanted;
use super::shared::Shared;
use super::sizes::ORIGIN;
use super::{attach, devices, log};

/// The kernel programs, as `cargo xtask build-ebpf` made them.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf"));

/// The maps that outlive the agent. Each is found again by its name in the pin directory.
const PINNED_MAPS: [&str; 14] = [
    "AFFINITY",
    "DEVICES",
    "FLOWS",
    "FRAGMENTS",
    "MAGLEV",
    "SOURCE_RANGES",
    "FRONTENDS",
    "SERVICES",
    "RUNS",
    "BACKENDS",
    ORIGIN,
    "ORIGIN_OVERFLOW",
    "ORIGIN_FURTHER",
    "STATS",
];

/// Loaded programs, not yet attached.
#[derive(Debug)]
pub(super) struct Loaded {
    ebpf: Ebpf,
    /// What this kernel cannot do.
    pub(super) limits: Vec<String>,
    /// Slots of each table of `MAGLEV`.
    pub(super) maglev_size: u32,
}

impl Loaded {
    /// Has the kernel verify the programs over the pinned maps, which are made if there are none.
    pub(super) fn load(pins: &Pins, config: &Config) -> Result<Self> {
        ensure!(
            !OBJECT.is_empty(),
            "this lb was built without its kernel programs; build it with `cargo xtask build`"
        );
        let sizes = &config.sizes;
        let mut limits = Vec::new();
        let address = ProgramType::CgroupSockAddr;
        let retval = has(address, BpfHelper::BPF_FUNC_set_retval);
        if !retval {
            limits.push("bpf_set_retval is missing (Linux 5.18): refused callers get EPERM".into());
        }
        let mptcp = has(address, BpfHelper::BPF_FUNC_skc_to_mptcp_sock);
        let (retval, mptcp) = (u8::from(retval), u8::from(mptcp));
        let bind_retval = u8::from(has(ProgramType::CgroupSock, BpfHelper::BPF_FUNC_set_retval));
        let origin_mask = sizes.of(ORIGIN) - 1;
        let maglev_size = sizes.maglev;
        let log_level = log::level();

        let mut loader = EbpfLoader::new();
        loader
            .override_global("HAS_RETVAL", &retval, true)
            .override_global("HAS_BIND_RETVAL", &bind_retval, true)
            .override_global("HAS_MPTCP", &mptcp, true)
            .override_global("ORIGIN_MASK", &origin_mask, true)
            .override_global("MAGLEV_SIZE", &maglev_size, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true);
        for (name, entries) in sizes.iter() {
            loader.map_max_entries(name, entries);
        }
        for name in PINNED_MAPS {
            loader.map_pin_path(name, pins.maps.join(name));
        }
        let mut ebpf = loader.load(OBJECT).context("loading the kernel programs")?;
        let wanted = Wanted::parse(OBJECT)?;
        for name in PINNED_MAPS {
            wanted.check(name, sizes, &pins.maps.join(name))?;
        }
        for name in attach::names() {
            attach::verify(program(&mut ebpf, name)?)
                .with_context(|| format!("program {name}: the kernel's verifier refused it"))?;
        }
        let packet_path = config.devices.is_some();
        for name in devices::names().filter(|_| packet_path) {
            attach::verify(program(&mut ebpf, name)?).with_context(|| {
                format!(
                    "program {name}: the kernel's verifier refused it; --no-packet-path does without"
                )
            })?;
        }
        Ok(Self { ebpf, limits, maglev_size })
    }

    /// A program of the object.
    pub(super) fn program(&mut self, name: &str) -> Result<&mut Program> {
        program(&mut self.ebpf, name)
    }

    /// A program of the object that is to be looked at only.
    pub(super) fn loaded_program(&self, name: &str) -> Result<&Program> {
        self.ebpf.program(name).with_context(|| format!("program {name} missing from the object"))
    }

    /// Takes a map out of the object.
    pub(super) fn take_map(&mut self, name: &str) -> Result<Map> {
        self.ebpf.take_map(name).with_context(|| format!("map {name} missing from the object"))
    }

    /// Takes an array out of the object and maps it into memory.
    pub(super) fn share<T: Copy>(&mut self, name: &str) -> Result<Shared<T>> {
        let Map::Array(data) = self.take_map(name)? else { bail!("map {name} is not an array") };
        share(&data).with_context(|| format!("map {name}"))
    }

    /// A map that stays in the object.
    pub(super) fn map(&self, name: &str) -> Result<&Map> {
        self.ebpf.map(name).with_context(|| format!("map {name} missing from the object"))
    }

    /// Maps an array into memory that stays in the object.
    pub(super) fn view<T: Copy>(&self, name: &str) -> Result<Shared<T>> {
        let Map::Array(data) = self.map(name)? else { bail!("map {name} is not an array") };
        share(data).with_context(|| format!("map {name}"))
    }

    /// The object, for what reads it while the agent runs.
    pub(super) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

fn share<T: Copy>(data: &MapData) -> Result<Shared<T>> {
    let info = data.info()?;
    Shared::map(data.fd().as_fd(), info.max_entries(), info.value_size())
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Program> {
    ebpf.program_mut(name).with_context(|| format!("program {name} missing from the object"))
}

/// Whether programs of a type may call a helper. A probe that fails counts as no.
fn has(program: ProgramType, helper: BpfHelper) -> bool {
    is_helper_supported(program, helper).unwrap_or(false)
}
