//! Fragments follow their first one, which alone has the ports.

use super::{PacketTables, Reason, Work};
use crate::abi::{FragmentPorts, Hook};
use crate::packet::Fragment;

/// Gives a later fragment the ports of its packet. One whose first has not been translated, or has not come yet,
/// passes.
#[inline(always)]
pub(super) fn complete(
    tables: &impl PacketTables,
    hook: Hook,
    work: &mut Work,
) -> Result<(), Reason> {
    if work.parsed.outer.fragment != Fragment::Later {
        return Ok(());
    }
    set_key(hook, work);
    let ports = tables.ports(&work.fragment).ok_or(Reason::NotService)?;
    let tuple = &mut work.parsed.outer.tuple;
    tuple.source_port = ports.source;
    tuple.destination_port = ports.destination;
    Ok(())
}

/// Notes the ports of a packet whose first fragment is translated.
#[inline(always)]
pub(super) fn note(tables: &impl PacketTables, hook: Hook, work: &mut Work) {
    if work.parsed.outer.fragment != Fragment::First {
        return;
    }
    set_key(hook, work);
    let tuple = &work.parsed.outer.tuple;
    let ports = FragmentPorts { source: tuple.source_port, destination: tuple.destination_port };
    tables.note_ports(&work.fragment, ports);
}

#[inline(always)]
fn set_key(hook: Hook, work: &mut Work) {
    let layer = &work.parsed.outer;
    let key = &mut work.fragment;
    key.source = layer.tuple.source;
    key.destination = layer.tuple.destination;
    key.id = layer.fragment_id;
    key.protocol = layer.tuple.protocol;
    key.hook = hook as u8;
    key.reserved = [0; 2];
}
