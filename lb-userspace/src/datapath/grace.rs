//! Waiting for programs, for other threads than the one that writes the tables.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData, MapType};

use super::load::Loaded;
use super::syscall::{self, Element};

/// `GRACE`: an update of it returns when every running program has finished.
#[derive(Debug)]
pub(super) struct Grace {
    map: OwnedFd,
    inner: MapData,
}

impl Grace {
    /// To be called before others take `GRACE` out of the object.
    pub(super) fn new(loaded: &Loaded) -> Result<Self> {
        let Map::ArrayOfMaps(map) = loaded.map("GRACE")? else {
            bail!("map GRACE is no array of maps")
        };
        let map = map.fd().as_fd().try_clone_to_owned().context("map GRACE")?;
        let word = u32::try_from(size_of::<u32>())?;
        let inner = aya_obj::Map::new_from_params(MapType::Array as u32, word, word, 1, 0);
        let inner = MapData::create(inner, "grace", None);
        let inner = inner.context("creating the inner map of GRACE")?;
        Ok(Self { map, inner })
    }

    /// Returns when every program that runs now has finished.
    pub(super) fn wait(&self) -> io::Result<()> {
        let (index, mut inner) = (0_u32, self.inner.fd().as_fd().as_raw_fd());
        // SAFETY: an array's index, and a descriptor, which is what an array of maps is given.
        unsafe {
            let (index, inner) = ((&raw const index).cast(), (&raw mut inner).cast());
            syscall::element(self.map.as_fd(), Element::Update, index, inner)
        }
    }
}
