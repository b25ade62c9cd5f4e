//! The tables that new flows on the packet path are spread by: see docs/decisions/0018.

use lb_common::maglev::{self, Candidate};

use super::maps::Maps;
use super::set::Endpoint;

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
