//! One look at all flows: counting them, and taking out what is over, whole.
//!
//! Programs are at work meanwhile. So a connection is looked at again before it is taken out, and each entry once more as
//! it is taken: if it was used since, all go back.

use std::cmp::Reverse;
use std::io;
use std::time::Duration;

use lb_common::abi::{Address, Flow, Port, Role};

use super::connection::{Unit, units};
use super::ports::make_ports;
use super::rules::{Lifetimes, State};
use super::{Entry, Lack, Table};

/// If no more than this part of the table is free after a sweep for lack of room, connections go before their time ...
const PINCHED: u32 = 64;
/// ... until this part is free ...
const ROOM: u32 = 8;
/// ... but none that was used so short a time ago: a client that repeats a SYN does so after 1, then after 2 seconds
/// (RFC 6298, section 5).
const SPARED: Duration = Duration::from_secs(3);

/// What a sweep found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries that are left.
    pub entries: u64,
    /// TCP connections that are left, established.
    pub established: u64,
    /// TCP connections that are left, their handshake not complete.
    pub opening: u64,
    /// TCP connections that are left, closed.
    pub closed: u64,
    /// UDP flows that are left.
    pub udp: u64,
    /// Entries without partners that are left.
    pub strays: u64,
    /// Connections taken out because they were over.
    pub collected: u64,
    /// Connections taken out before that.
    pub early: u64,
    /// An endpoint to which the node could stand in for hardly any more clients, before connections were taken out.
    pub short_of_ports: Option<(Address, Port)>,
    /// How long it takes until the next one is over, if it is not used again; `None` if there is none.
    pub nearest: Option<Duration>,
}

/// Looks at all flows at `now`, a time as in [`Flow::last_seen`]. If there is a `lack`, it may take out what is not over.
///
/// # Errors
///
/// If the kernel does not do what it is asked.
pub fn sweep(
    table: &mut impl Table,
    lifetimes: &Lifetimes,
    now: u64,
    lack: Lack,
) -> io::Result<Tally> {
    let mut entries = table.list()?;
    let mut tally = Tally { entries: entries.len() as u64, ..Tally::default() };
    let (mut left, mut lone_replies) = (Vec::new(), Vec::new());
    let is_over = |unit: Unit<'_>| unit.idle(now) >= unit.lifetime(lifetimes);
    for unit in units(&mut entries) {
        if is_over(unit) && remove(table, unit, is_over)? {
            tally.entries -= unit.entries().count() as u64;
            tally.collected += u64::from(unit.state().is_some());
            lone_replies.extend(lone_reply(unit));
        } else {
            tally.add(unit);
            let time_left = unit.lifetime(lifetimes).saturating_sub(unit.idle(now));
            tally.nearest = Some(tally.nearest.map_or(time_left, |least| least.min(time_left)));
            if lack != Lack::default() {
                left.push(unit);
            }
        }
    }
    if lack.ports {
        make_ports(table, &left, now, &mut tally)?;
    }
    if lack.room {
        make_room(table, &left, now, &mut tally)?;
    }
    give_back(table, &lone_replies, is_over)?;
    Ok(tally)
}

/// Takes connections that are not established out, the longest idle first, if there is hardly any room.
fn make_room(
    table: &mut impl Table,
    left: &[Unit<'_>],
    now: u64,
    tally: &mut Tally,
) -> io::Result<()> {
    let capacity = u64::from(table.capacity());
    if capacity.saturating_sub(tally.entries) > capacity / u64::from(PINCHED) {
        return Ok(());
    }
    let may_go = |unit: Unit<'_>| may_go_early(unit, now);
    let mut idle: Vec<_> = left.iter().copied().filter(|unit| may_go(*unit)).collect();
    idle.sort_by_key(|unit| Reverse(unit.idle(now)));
    for unit in idle {
        if capacity.saturating_sub(tally.entries) >= capacity / u64::from(ROOM) {
            break;
        }
        if remove(table, unit, may_go)? {
            tally.subtract(unit);
            tally.early += 1;
        }
    }
    Ok(())
}

/// Whether a connection may go before its time: not if it is established, or was used a moment ago.
pub(super) fn may_go_early(unit: Unit<'_>, now: u64) -> bool {
    let kind = unit.state().is_some_and(|state| state != State::Established);
    kind && unit.idle(now) >= SPARED
}

/// Takes all entries of a connection out, or a stray, if it still `may_go`. False if it stays.
pub(super) fn remove(
    table: &mut impl Table,
    unit: Unit<'_>,
    may_go: impl Fn(Unit<'_>) -> bool,
) -> io::Result<bool> {
    let mut fresh = Vec::with_capacity(4);
    for entry in unit.entries() {
        match table.look(&entry.key)? {
            Some(flow) if is_same(&flow, &entry.flow) => fresh.push(Entry { flow, ..*entry }),
            // Gone, or a newer connection's: the next sweep will see what became of it.
            Some(_) | None => return Ok(false),
        }
    }
    if let Some(reply) = lone_reply(unit)
        && has_request(table, &reply, &may_go)?
    {
        return Ok(false);
    }
    let mut units = units(&mut fresh);
    match (units.next(), units.next()) {
        (Some(unit), None) if may_go(unit) => take_out(table, unit),
        _ => Ok(false),
    }
}

/// Takes entries out that were just looked at. False if one was used since: then all are as before.
fn take_out(table: &mut impl Table, unit: Unit<'_>) -> io::Result<bool> {
    let mut taken = Vec::with_capacity(4);
    for entry in unit.entries() {
        match take(table, entry) {
            Ok(Taken::Unused) => taken.push(*entry),
            // A program was faster.
            Ok(Taken::Gone) => {}
            Ok(Taken::Used(flow)) => {
                taken.push(Entry { flow, ..*entry });
                return Ok(!put_back(table, unit, &taken)?);
            }
            Err(error) => {
                put_back(table, unit, &taken)?;
                return Err(error);
            }
        }
    }
    Ok(true)
}

/// What [`take`] took.
enum Taken {
    /// The entry as it was looked at.
    Unused,
    /// The entry, used since.
    Used(Flow),
    /// Nothing, or nothing of this connection.
    Gone,
}

fn take(table: &mut impl Table, entry: &Entry) -> io::Result<Taken> {
    Ok(match table.take(&entry.key)? {
        None => Taken::Gone,
        Some(flow) if flow == entry.flow => Taken::Unused,
        Some(flow) if is_same(&flow, &entry.flow) => Taken::Used(flow),
        Some(flow) => {
            put(table, &Entry { flow, ..*entry })?;
            Taken::Gone
        }
    })
}

/// Puts what was taken back. False if there was no room for all, and none is left of the connection.
fn put_back(table: &mut impl Table, unit: Unit<'_>, taken: &[Entry]) -> io::Result<bool> {
    for entry in taken {
        if let Err(error) = put(table, entry) {
            for entry in unit.entries() {
                take(table, entry)?;
            }
            let full = error.kind() == io::ErrorKind::ArgumentListTooLong;
            return if full { Ok(false) } else { Err(error) };
        }
    }
    Ok(true)
}

/// Puts an entry in, unless there is a newer one.
fn put(table: &mut impl Table, entry: &Entry) -> io::Result<()> {
    match table.put(entry) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Puts those replies back whose request has come: a program that found one for its connection has not made another.
fn give_back(
    table: &mut impl Table,
    replies: &[Entry],
    is_over: impl Fn(Unit<'_>) -> bool,
) -> io::Result<()> {
    if replies.is_empty() {
        return Ok(());
    }
    table.settle()?;
    for reply in replies {
        if has_request(table, reply, &is_over)? {
            put(table, reply)?;
        }
    }
    Ok(())
}

/// Whether there is a request that leads to this reply, and is not over itself.
fn has_request(
    table: &mut impl Table,
    reply: &Entry,
    is_over: impl Fn(Unit<'_>) -> bool,
) -> io::Result<bool> {
    let key = reply.flow.request_key(&reply.key);
    let request = table.look(&key)?.map(|flow| Entry { key, flow });
    Ok(request.is_some_and(|request| {
        request.flow.reply_key(&key) == reply.key && !is_over(Unit::Stray(&request))
    }))
}

/// A reply without its connection.
fn lone_reply(unit: Unit<'_>) -> Option<Entry> {
    match unit {
        Unit::Stray(entry) if entry.flow.role == Role::Reply as u8 => Some(*entry),
        Unit::Stray(_) | Unit::Whole(_) => None,
    }
}

/// Whether packets become the same by both.
fn is_same(one: &Flow, other: &Flow) -> bool {
    let what = |flow: &Flow| {
        let Flow { source, destination, node, source_port, destination_port, role, .. } = *flow;
        (source, destination, node, source_port, destination_port, role)
    };
    what(one) == what(other)
}

impl Tally {
    fn add(&mut self, unit: Unit<'_>) {
        *self.count_of(unit) += 1;
    }

    pub(super) fn subtract(&mut self, unit: Unit<'_>) {
        *self.count_of(unit) -= 1;
        self.entries -= unit.entries().count() as u64;
    }

    fn count_of(&mut self, unit: Unit<'_>) -> &mut u64 {
        match unit.state() {
            Some(State::Established) => &mut self.established,
            Some(State::Opening) => &mut self.opening,
            Some(State::Closed) => &mut self.closed,
            Some(State::Udp) => &mut self.udp,
            None => &mut self.strays,
        }
    }
}
