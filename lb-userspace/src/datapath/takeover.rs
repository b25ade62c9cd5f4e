//! When our programs take the place of those that an earlier agent left: at once if they work on the
//! same maps, else when the tables of ours are filled. See `docs/restart-and-upgrade.md`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::devices::{Attachments, Devices, DevicesStatus};
use super::kernel::KernelMaps;
use super::load::Loaded;
use super::maps::Maps as _;
use super::pins::Pins;
use super::{Config, FormerLayout, ProgramStatus, TakingOver, attach, former};

/// How often to look whether the sockets of a former layout are gone, or to try again what failed.
/// While there is neither, nobody looks.
const CADENCE: Duration = Duration::from_secs(5);

/// The loaded programs on their way to the hooks, and what they leave behind.
pub(super) struct Takeover {
    config: Config,
    pins: Pins,
    /// Holds the programs' descriptors; the attached ones live by their pinned links.
    loaded: Loaded,
    devices: Attachments,
    pending: Option<TakingOver>,
    /// Whether the tables hold all that they should.
    filled: bool,
    /// Layouts whose sockets are not all closed.
    pub(super) former: Vec<FormerLayout>,
    due: Instant,
}

impl Takeover {
    /// Puts the programs at their hooks unless another layout decides there.
    pub(super) fn begin(
        config: Config,
        pins: Pins,
        loaded: Loaded,
        maps: &mut KernelMaps,
    ) -> Result<Self> {
        let pending = attach::predecessor(&pins)?.map(|folder| TakingOver {
            layout: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            error: None,
        });
        let (former, due) = (Vec::new(), Instant::now());
        let devices = Attachments::new(&config)?;
        let mut takeover =
            Self { config, pins, loaded, devices, pending, filled: false, former, due };
        match &takeover.pending {
            None => {
                takeover.take_place()?;
                takeover.settle_devices(maps);
                takeover.collect(maps);
            }
            Some(TakingOver { layout, .. }) => {
                tracing::info!(
                    "taking over from {layout}, which serves on until every source has been read"
                );
                takeover.settle_devices(maps);
            }
        }
        Ok(takeover)
    }

    /// The tables hold all that they should: a takeover can be completed.
    pub(super) fn tables_are_filled(&mut self, maps: &mut KernelMaps) {
        self.filled = true;
        if self.pending.is_some() {
            self.complete(maps);
        }
    }

    /// See [`super::Datapath::upkeep`].
    pub(super) fn upkeep(&mut self, maps: &mut KernelMaps) -> Option<Duration> {
        let failed = self.filled && self.pending.is_some();
        if !failed && self.former.is_empty() {
            return None;
        }
        let wait = self.due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            return Some(wait);
        }
        if failed {
            self.complete(maps);
        } else {
            self.collect(maps);
        }
        Some(CADENCE)
    }

    /// The cgroup whose processes are served.
    pub(super) fn cgroup(&self) -> &Path {
        &self.config.cgroup
    }

    /// What is attached.
    pub(super) fn programs(&self) -> Vec<ProgramStatus> {
        attach::status(&self.config, &self.pins).unwrap_or_else(|error| {
            tracing::error!("{error:#}");
            Vec::new()
        })
    }

    /// Name of our layout's folder.
    pub(super) fn layout(&self) -> String {
        self.pins.maps.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whom a takeover waits for.
    pub(super) fn pending(&self) -> Option<TakingOver> {
        self.pending.clone()
    }

    /// See [`super::Datapath::devices`].
    pub(super) fn set_devices(&mut self, devices: Devices, maps: &mut KernelMaps) {
        self.devices.want(devices);
        self.settle_devices(maps);
    }

    /// Which devices have the packet programs.
    pub(super) fn devices(&self) -> Option<DevicesStatus> {
        self.devices.status()
    }

    /// What this kernel cannot do.
    pub(super) fn limits(&self) -> &[String] {
        &self.loaded.limits
    }

    fn complete(&mut self, maps: &mut KernelMaps) {
        self.due = Instant::now() + CADENCE;
        let result = self.take_place();
        let Some(pending) = &mut self.pending else { return };
        match result {
            Ok(()) => {
                tracing::info!("took over from {}", pending.layout);
                self.pending = None;
                self.settle_devices(maps);
                self.collect(maps);
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!("taking over from {}: {error}", pending.layout);
                pending.error = Some(error);
            }
        }
    }

    fn take_place(&mut self) -> Result<()> {
        attach::take_place(&mut self.loaded, &self.config, &self.pins)
    }

    fn settle_devices(&mut self, maps: &mut KernelMaps) {
        self.devices.settle(self.pending.is_none().then_some(&self.loaded), maps);
    }

    fn collect(&mut self, maps: &mut KernelMaps) {
        self.due = Instant::now() + CADENCE;
        // A program of the former layout may still be running, about to remember its socket.
        let collected = maps.grace().map_err(Into::into).and_then(|()| former::collect(&self.pins));
        match collected {
            Ok(former) => self.former = former,
            Err(error) => tracing::error!("letting former layouts go: {error:#}"),
        }
    }
}
