//! The embedded programs: loaded into the kernel, attached, and pinned so that they outlive us.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Map, MapData};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, Program, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use lb_common::abi::LAYOUT_VERSION;

use super::shared::Shared;
use super::{Config, ProgramStatus, log, syscall};

/// The kernel programs, as `cargo xtask build-ebpf` made them.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf"));

/// The maps that outlive the agent. Each is found again by its name in the pin directory.
const PINNED_MAPS: [&str; 9] = [
    "AFFINITY",
    "FRONTENDS",
    "SERVICES",
    "RUNS",
    "BACKENDS",
    "ORIGIN",
    "ORIGIN_OVERFLOW",
    "ORIGIN_FURTHER",
    "STATS",
];

/// The hooks, readers of the tables last: a socket is translated only when the way back works.
const PROGRAMS: [&str; 11] = [
    "sock_release",
    "getpeername4",
    "getpeername6",
    "recvmsg4",
    "recvmsg6",
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "post_bind4",
    "post_bind6",
];

/// What the names of our folders of pins begin with.
pub(crate) const PIN_FOLDERS: [&str; 2] = [LINKS, MAPS];
const LINKS: &str = "links-";
const MAPS: &str = "maps-";

/// Loaded programs, not yet attached.
#[derive(Debug)]
pub(super) struct Loaded {
    ebpf: Ebpf,
    /// What this kernel cannot do.
    pub(super) limits: Vec<String>,
}

/// Where pins lie below the directory of the agent.
#[derive(Debug)]
pub(super) struct Pins {
    maps: PathBuf,
    links: PathBuf,
    directory: PathBuf,
}

impl Pins {
    /// Maps are found by the version of their layout, so that another one is never misread; links
    /// by the cgroup that they are attached to (its inode number is its id).
    pub(super) fn new(config: &Config) -> Result<Self> {
        let cgroup = fs::metadata(&config.cgroup)
            .with_context(|| format!("cgroup {}", config.cgroup.display()))?;
        Ok(Self {
            maps: config.bpffs.join(format!("{MAPS}v{LAYOUT_VERSION}")),
            links: config.bpffs.join(format!("{LINKS}{}", cgroup.ino())),
            directory: config.bpffs.clone(),
        })
    }

    fn create(&self) -> Result<()> {
        for directory in [&self.maps, &self.links] {
            fs::create_dir_all(directory)
                .with_context(|| format!("creating {}", directory.display()))?;
        }
        Ok(())
    }

    /// Removes what belongs to another layout or cgroup, after ours has taken over.
    fn remove_others(&self) -> Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            let lbs = PIN_FOLDERS.iter().any(|p| name.to_string_lossy().starts_with(p));
            if lbs && path != self.maps && path != self.links {
                fs::remove_dir_all(&path)
                    .with_context(|| format!("removing {}", path.display()))?;
            }
        }
        Ok(())
    }
}

impl Loaded {
    /// Has the kernel verify the programs over the pinned maps, which are made if there are none.
    pub(super) fn load(pins: &Pins) -> Result<Self> {
        ensure!(
            !OBJECT.is_empty(),
            "this lb was built without its kernel programs; build it with `cargo xtask build`"
        );
        pins.create()?;
        let mut limits = Vec::new();
        let address = ProgramType::CgroupSockAddr;
        let retval = has(address, BpfHelper::BPF_FUNC_set_retval);
        if !retval {
            limits.push("bpf_set_retval is missing (Linux 5.18): refused callers get EPERM".into());
        }
        let mptcp = has(address, BpfHelper::BPF_FUNC_skc_to_mptcp_sock);
        let (retval, mptcp) = (u8::from(retval), u8::from(mptcp));
        let bind_retval = u8::from(has(ProgramType::CgroupSock, BpfHelper::BPF_FUNC_set_retval));
        let log_level = log::level();

        let mut loader = EbpfLoader::new();
        loader
            .override_global("HAS_RETVAL", &retval, true)
            .override_global("HAS_BIND_RETVAL", &bind_retval, true)
            .override_global("HAS_MPTCP", &mptcp, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true);
        for name in PINNED_MAPS {
            loader.map_pin_path(name, pins.maps.join(name));
        }
        let mut ebpf = loader.load(OBJECT).context("loading the kernel programs")?;
        for name in PROGRAMS {
            verify(program(&mut ebpf, name)?)
                .with_context(|| format!("program {name}: the kernel's verifier refused it"))?;
        }
        Ok(Self { ebpf, limits })
    }

    /// Attaches the programs, in place of those that are attached already.
    pub(super) fn attach(&mut self, config: &Config, pins: &Pins) -> Result<Vec<ProgramStatus>> {
        let cgroup = File::open(&config.cgroup)
            .with_context(|| format!("opening cgroup {}", config.cgroup.display()))?;
        let mut attached = Vec::new();
        for name in PROGRAMS {
            let pin = pins.links.join(name);
            let id = attach(program(&mut self.ebpf, name)?, &cgroup, &pin)
                .with_context(|| format!("attaching program {name}"))?;
            attached.push(ProgramStatus { name: name.into(), id, cgroup: config.cgroup.clone() });
        }
        pins.remove_others()?;
        Ok(attached)
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

#[expect(clippy::wildcard_enum_match_arm, reason = "aya's enum; two variants are ours")]
fn verify(program: &mut Program) -> Result<()> {
    match program {
        Program::CgroupSockAddr(program) => program.load()?,
        Program::CgroupSock(program) => program.load()?,
        other => bail!("unexpected type {:?}", other.prog_type()),
    }
    Ok(())
}

/// Puts one program at its hook; its id. aya gives each program type methods of its
/// own by the same names.
#[expect(clippy::wildcard_enum_match_arm, reason = "aya's enum; two variants are ours")]
fn attach(program: &mut Program, cgroup: &File, pin: &Path) -> Result<u32> {
    macro_rules! attach {
        ($program:expr) => {{
            if !replace($program.fd()?.as_fd(), pin)? {
                // Links are always of the `multi` kind; aya's name for no flags is Single.
                let id = $program.attach(cgroup, CgroupAttachMode::Single)?;
                let link: FdLink = $program.take_link(id)?.try_into()?;
                link.pin(pin).with_context(|| format!("pinning it to {}", pin.display()))?;
            }
            Ok($program.info()?.id())
        }};
    }
    match program {
        Program::CgroupSockAddr(program) => attach!(program),
        Program::CgroupSock(program) => attach!(program),
        other => bail!("unexpected type {:?}", other.prog_type()),
    }
}

/// Puts a program in the place of the one that a pinned link holds. False if nothing is pinned.
fn replace(program: BorrowedFd<'_>, pin: &Path) -> Result<bool> {
    match syscall::open_pinned(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => {
            Err(error).with_context(|| format!("opening the link pinned at {}", pin.display()))
        }
        Ok(link) => {
            syscall::update_link(link.as_fd(), program)
                .context("replacing the program that is attached")?;
            Ok(true)
        }
    }
}
