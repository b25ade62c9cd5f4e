//! Ports by which the node stands in for clients: each endpoint has them all, one for each masqueraded connection. When
//! they run short, connections to that endpoint that are not established go before their time, however much room the table
//! has.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;

use lb_common::abi::{Address, Port, Role};

use super::Table;
use super::connection::Unit;
use super::sweep::{Tally, may_go_early, remove};

/// An endpoint is short of ports if less than this part of them is free: of 32 that a program tries (`new::ATTEMPTS`) more
/// than one packet in ten thousand then finds none ...
const SHORT: usize = 4;
/// ... and gets some back until this part is free.
const ENOUGH: usize = 2;

/// Whose replies a port tells apart: those of an endpoint, by a protocol, to an address of the node.
type Pair = ((Address, Port), u8, Address);

/// Takes connections that are not established out, the longest idle first, of endpoints that are short of ports.
pub(super) fn make_ports(
    table: &mut impl Table,
    left: &[Unit<'_>],
    now: u64,
    tally: &mut Tally,
) -> io::Result<()> {
    let ports = table.ports() as usize;
    let mut pairs: BTreeMap<Pair, Vec<Unit<'_>>> = BTreeMap::new();
    for unit in left {
        if let Some(pair) = pair(*unit) {
            pairs.entry(pair).or_default().push(*unit);
        }
    }
    for ((endpoint, ..), units) in pairs {
        let mut free = ports.saturating_sub(units.len());
        if free >= ports.div_ceil(SHORT) {
            continue;
        }
        tally.short_of_ports = Some(endpoint);
        let may_go = |unit: Unit<'_>| may_go_early(unit, now);
        let mut idle: Vec<_> = units.into_iter().filter(|unit| may_go(*unit)).collect();
        idle.sort_by_key(|unit| Reverse(unit.idle(now)));
        for unit in idle {
            if free >= ports.div_ceil(ENOUGH) {
                break;
            }
            if remove(table, unit, may_go)? {
                tally.subtract(unit);
                tally.early += 1;
                free += 1;
            }
        }
    }
    Ok(())
}

/// For whom a connection, or what is left of one, holds a port.
fn pair(unit: Unit<'_>) -> Option<Pair> {
    let mut entries = unit.entries();
    let reply = entries.find(|entry| entry.flow.role == Role::MasqueradedReply as u8)?;
    let key = &reply.key;
    Some(((key.source, key.source_port), key.protocol, key.destination))
}
