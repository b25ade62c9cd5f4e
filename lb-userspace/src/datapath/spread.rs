//! The tables that new flows on the packet path are spread by: see docs/decisions/0018.

use lb_common::maglev::{self, Candidate};

use super::maps::Maps;
use super::set::Endpoint;
use super::sizes::{MAGLEV, remedy};
use super::writer::{Installed, Writer, cannot_wait};

/// Makes a table of `MAGLEV` lead to these endpoints, in place. Meanwhile each slot names one of them,
/// or what it named before: a reader looks whether that is still in the list.
pub(super) fn write_table(
    table: u32,
    members: impl Iterator<Item = (Endpoint, u32)>,
    maps: &mut impl Maps,
) {
    let mut slots = vec![maglev::EMPTY; maps.capacity().table_size as usize];
    let candidate = |((address, port), id)| Candidate::new(address, port, id);
    let mut candidates: Vec<_> = members.map(candidate).collect();
    maglev::fill(&mut slots, &mut candidates).expect("the size was chosen among the usable ones");
    for (slot, id) in (0..).zip(slots) {
        if maps.entry(table, slot) != id {
            maps.store_entry(table, slot, id);
        }
    }
}

impl<M: Maps> Writer<M> {
    /// Gives tables to services that found none, as far as there are any by now, and says so when some lack one and
    /// `none_lacked` one before.
    pub(super) fn share_out_tables(&mut self, none_lacked: bool) {
        if self.without_table.is_empty() {
            return;
        }
        let waiting = self.pools.tables.available().1 > 0;
        if waiting && let Err(error) = self.grace() {
            tracing::warn!("tables of map {MAGLEV} stay unused: {}", cannot_wait(&error));
        }
        self.without_table.retain(|id| {
            let Installed { index, set, .. } = self.services.get_mut(id).expect("it has one");
            !set.take_table(*index, &mut self.maps, &mut self.pools)
        });
        if none_lacked {
            self.limit().into_iter().for_each(|limit| tracing::warn!("{limit}"));
        }
    }

    /// What `lb status` says of services that lack a table.
    pub(super) fn limit(&self) -> Option<String> {
        let (needed, capacity) = (self.without_table.len(), self.maps.capacity().tables);
        (needed > 0).then(|| {
            format!(
                "map {MAGLEV} is full: connections from outside to {needed} ports of Services are \
                 spread at random, not as other nodes do; {}",
                remedy(MAGLEV, capacity, needed, 0)
            )
        })
    }
}
