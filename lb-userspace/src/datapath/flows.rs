//! `FLOWS` and its alarm, for those who collect flows.

use std::io;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use lb_common::abi::{Flow, FlowKey};

pub use super::alarm::Alarm;
pub use super::elements::Commands;
use super::elements::Elements;
use super::grace::Grace;
use super::load::Loaded;
use super::sizes;
use crate::flows::{Entry, Table};

/// What the thread that collects flows gets.
#[derive(Debug)]
pub struct Flows {
    /// The flows.
    pub table: FlowTable,
    /// What wakes it.
    pub alarm: Alarm,
}

impl Flows {
    /// To be called before others take `GRACE` and `NODE` out of the object.
    pub(super) fn new(loaded: &mut Loaded) -> Result<Self> {
        let Map::HashMap(flows) = loaded.take_map("FLOWS")? else {
            bail!("map FLOWS is not a hash")
        };
        let table = FlowTable::new(&flows, Commands::ALL).context("map FLOWS")?;
        let table = FlowTable { grace: Some(Grace::new(loaded)?), ..table };
        Ok(Self { table, alarm: Alarm::new(loaded)? })
    }
}

/// `FLOWS`, by system calls.
#[derive(Debug)]
pub struct FlowTable {
    elements: Elements<FlowKey, Flow>,
    /// `None` of a map that no program uses.
    grace: Option<Grace>,
}

impl FlowTable {
    /// The table in a map that no program uses, by these commands as far as the kernel has them.
    ///
    /// # Errors
    ///
    /// If it is no such map.
    pub fn new(map: &MapData, commands: Commands) -> Result<Self> {
        Ok(Self { elements: Elements::new(map, commands)?, grace: None })
    }

    /// What a person can do who needs more room.
    pub fn remedy(&self) -> String {
        let capacity = self.capacity();
        sizes::remedy("FLOWS", capacity, capacity as usize, 0)
    }
}

impl Table for FlowTable {
    fn capacity(&self) -> u32 {
        self.elements.capacity()
    }

    fn list(&mut self) -> io::Result<Vec<Entry>> {
        let all = self.elements.list((FlowKey::NONE, Flow::NONE))?;
        Ok(all.into_iter().map(|(key, flow)| Entry { key, flow }).collect())
    }

    fn look(&mut self, key: &FlowKey) -> io::Result<Option<Flow>> {
        self.elements.look_up(key, Flow::NONE)
    }

    fn take(&mut self, key: &FlowKey) -> io::Result<Option<Flow>> {
        self.elements.take(key, Flow::NONE)
    }

    fn put(&mut self, entry: &Entry) -> io::Result<()> {
        self.elements.add(&entry.key, entry.flow)
    }

    fn settle(&mut self) -> io::Result<()> {
        self.grace.as_ref().map_or(Ok(()), Grace::wait)
    }
}
