//! Destination → service.

use super::{Destination, Reason, Tables};
use crate::abi::{FrontendEntry, FrontendKey, FrontendKind};

/// The index of the service that `destination` is a frontend of, or why there is none.
///
/// A port that no Service defines is refused on a ClusterIP only: a node's own address keeps its
/// other ports.
#[inline(always)]
pub(super) fn lookup(tables: &impl Tables, destination: &Destination) -> Result<u32, Reason> {
    if let Some(entry) = entry(tables, destination)? {
        return Ok(entry.service());
    }
    match tables.node() {
        Some(node) if node.in_service_cidr(destination.address) => {}
        _ => return Err(Reason::NotService),
    }
    match entry(tables, &FrontendKey::of_address(destination.address))? {
        Some(found) => match found.kind() {
            FrontendKind::Address => Err(Reason::UnknownPort),
            FrontendKind::Port => Err(Reason::Inconsistent),
        },
        None => Err(Reason::Unallocated),
    }
}

/// Reads an entry; again if its memory was handed to another key meanwhile. That this happens
/// twice in one call takes two updates within nanoseconds, and is refused rather than trusted.
#[inline(always)]
fn entry(tables: &impl Tables, key: &FrontendKey) -> Result<Option<FrontendEntry>, Reason> {
    match tables.frontend(key) {
        None => return Ok(None),
        Some(entry) if entry.belongs_to(key) => return Ok(Some(entry)),
        Some(_) => {}
    }
    match tables.frontend(key) {
        None => Ok(None),
        Some(entry) if entry.belongs_to(key) => Ok(Some(entry)),
        Some(_) => Err(Reason::Inconsistent),
    }
}
