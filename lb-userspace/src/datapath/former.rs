//! Layouts that were taken over: kept for the sockets that they remember, and then let go.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{MapData, MapError, MapInfo, MapType};
use memmap2::MmapOptions;

use super::pins::{Pins, maps, programs_of, readers, remove, remove_folder};
use super::sizes::ORIGIN;
use super::{FormerLayout, held};

/// Lets go of all that nobody needs of other layouts, and returns those that sockets still need.
/// To be called when our programs are at every hook and no earlier one is still running.
pub(super) fn collect(pins: &Pins) -> Result<Vec<FormerLayout>> {
    let mut needed = Vec::new();
    for folder in pins.other_layouts()? {
        let layout = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        drop_tables(&folder)?;
        match sockets(&folder)? {
            0 => {
                remove_folder(&folder)?;
                tracing::info!("no socket needs {layout} any more: removed");
            }
            sockets => needed.push(FormerLayout { layout, sockets }),
        }
    }
    Ok(needed)
}

/// Lets go of the maps that no reader uses. Which these are, the kernel knows: the layout may be of
/// a version that has other maps.
fn drop_tables(folder: &Path) -> Result<()> {
    let mut read = BTreeSet::new();
    for program in programs_of(&readers(folder)?)? {
        read.extend(program.map_ids()?.unwrap_or_default());
    }
    for (pin, id) in maps(folder)? {
        if !read.contains(&id) {
            remove(&pin)?;
        }
    }
    Ok(())
}

/// How many sockets the layout remembers.
fn sockets(folder: &Path) -> Result<u64> {
    match slots(folder)? {
        0 => stored(folder),
        slots => Ok(slots),
    }
}

/// How many have their peer, or further ones, in storage of their own.
fn stored(folder: &Path) -> Result<u64> {
    let mut storages = Vec::new();
    for (pin, _) in maps(folder)? {
        let info = MapInfo::from_pin(&pin).with_context(|| format!("map {}", pin.display()))?;
        if info.map_type().is_ok_and(|kind| kind == MapType::SkStorage) {
            let map = info.fd().with_context(|| format!("map {}", pin.display()))?;
            storages.push((map.as_fd().try_clone_to_owned()?, info.value_size()));
        }
    }
    held::count_stored(&storages).context("looking for sockets in /proc")
}

/// How many hold a slot. The rule that every layout keeps: `ORIGIN` is an array that
/// can be mapped into memory, and the first word of an entry is the cookie of the socket that holds
/// it, or 0.
fn slots(folder: &Path) -> Result<u64> {
    let pin = folder.join(ORIGIN);
    let origin = match MapData::from_pin(&pin) {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(0);
        }
        origin => origin.with_context(|| format!("map {}", pin.display()))?,
    };
    let info = origin.info().with_context(|| format!("map {}", pin.display()))?;
    let stride = (info.value_size() as usize).next_multiple_of(8);
    let entries = info.max_entries() as usize;
    let memory = MmapOptions::new()
        .len(entries * stride)
        .map_raw_read_only(origin.fd().as_fd().as_raw_fd())
        .with_context(|| format!("mapping {} into memory", pin.display()))?;
    let cookie = |entry: usize| {
        // SAFETY: a whole entry of at least eight bytes, aligned to as many, inside the mapping.
        // Volatile: programs write it.
        unsafe { memory.as_ptr().add(entry * stride).cast::<u64>().read_volatile() }
    };
    Ok((0..entries).filter(|&entry| cookie(entry) != 0).count() as u64)
}
