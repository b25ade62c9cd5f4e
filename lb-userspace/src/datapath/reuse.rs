//! Whether a pinned map is the one that the programs need. aya takes what it finds under a pin's
//! name, whatever its size.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapInfo;
use aya_obj::Object;

use super::sizes::Sizes;

/// What the programs' object asks for, before the chosen sizes are put in.
pub(super) struct Wanted(Object);

impl Wanted {
    pub(super) fn parse(object: &[u8]) -> Result<Self> {
        Object::parse(object).map(Self).context("reading the kernel programs")
    }

    /// Compares the map pinned at `pin` with what the programs need of the map `name`.
    pub(super) fn check(&self, name: &str, sizes: &Sizes, pin: &Path) -> Result<()> {
        let found = MapInfo::from_pin(pin).with_context(|| format!("reading {}", pin.display()))?;
        let wanted = self.0.maps.get(name);
        let wanted = wanted.with_context(|| format!("map {name} missing from the object"))?;
        let chosen = sizes.iter().find(|(table, _)| *table == name).map(|(_, entries)| entries);
        let kind = found.map_type().map_or(0, |kind| kind as u32);
        let rows = [
            ("type", kind, wanted.map_type()),
            ("bytes of a key", found.key_size(), wanted.key_size()),
            ("bytes of a value", found.value_size(), wanted.value_size()),
            ("entries", found.max_entries(), chosen.unwrap_or(wanted.max_entries())),
            ("flags", found.map_flags(), wanted.map_flags()),
        ];
        let differing = rows.iter().filter(|(_, found, wanted)| found != wanted);
        let differing: Vec<_> = differing
            .map(|(what, found, wanted)| format!("{what}: {found}, where {wanted} is needed"))
            .collect();
        ensure!(
            differing.is_empty(),
            "the map pinned at {} is not one that this lb has made ({}); stop the agent and remove \
             it with `lb cleanup`",
            pin.display(),
            differing.join("; ")
        );
        Ok(())
    }
}
