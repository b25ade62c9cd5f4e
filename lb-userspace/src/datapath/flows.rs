//! `FLOWS` and its alarm, for those who collect flows.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use lb_common::abi::{Flow, FlowKey, Node};

pub use super::alarm::Alarm;
pub use super::elements::Commands;
use super::elements::Elements;
use super::grace::Grace;
use super::load::Loaded;
use super::shared::Shared;
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
        let table = FlowTable { programs: Some(Programs::new(loaded)?), ..table };
        Ok(Self { table, alarm: Alarm::new(loaded)? })
    }
}

/// Adds the connections of another layout's table to ours, but those that ours knows; says how many entries there are. What
/// an entry means is the same in all layouts in which keys and values have these sizes. Backends have other ids there, so
/// none is named: TCP connections go on as they are, and what may begin anew does so.
pub(super) fn carry_over(former: &Path, ours: &Path) -> Result<usize> {
    let open = |folder: &Path| -> Result<Elements<FlowKey, Flow>> {
        let pin = folder.join("FLOWS");
        let map = MapData::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))?;
        Elements::new(&map, Commands::ALL).with_context(|| format!("map {}", pin.display()))
    };
    if !former.join("FLOWS").exists() {
        return Ok(0);
    }
    let (mut former, ours) = (open(former)?, open(ours)?);
    let entries = former.list((FlowKey::NONE, Flow::NONE)).context("listing FLOWS")?;
    for (key, flow) in &entries {
        match ours.add(key, Flow { backend_generation: NO_GENERATION, ..*flow }) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).context("copying FLOWS");
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(entries.len())
}

/// No use of any id has it (`set::next_generation`).
const NO_GENERATION: u32 = 0;

/// `FLOWS`, by system calls.
#[derive(Debug)]
pub struct FlowTable {
    elements: Elements<FlowKey, Flow>,
    /// `None` of a map that no program uses.
    programs: Option<Programs>,
}

/// The programs that use the map.
#[derive(Debug)]
struct Programs {
    grace: Grace,
    node: Shared<Node>,
}

impl Programs {
    fn new(loaded: &Loaded) -> Result<Self> {
        Ok(Self { grace: Grace::new(loaded)?, node: loaded.view("NODE")? })
    }
}

impl FlowTable {
    /// The table in a map that no program uses, by these commands as far as the kernel has them.
    ///
    /// # Errors
    ///
    /// If it is no such map.
    pub fn new(map: &MapData, commands: Commands) -> Result<Self> {
        Ok(Self { elements: Elements::new(map, commands)?, programs: None })
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

    fn ports(&self) -> u32 {
        self.programs.as_ref().map_or(0, |programs| programs.node.get(0).snat_count)
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
        self.programs.as_ref().map_or(Ok(()), |programs| programs.grace.wait())
    }
}
