//! What a batch changes in `FRONTENDS`: moves, deletes, a grace period, inserts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use lb_common::abi::{Address, FrontendEntry, FrontendKey, FrontendKind};

use super::maps::Maps;
use super::writer::{Writer, is_address};
use crate::plan::ServicePortId;

/// The changes of `FRONTENDS` that a batch comes to.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    /// Ports that need an entry, and whose they are.
    pub(super) put: BTreeMap<FrontendKey, ServicePortId>,
    /// Addresses that need an entry of their own.
    pub(super) addresses: BTreeMap<FrontendKey, ServicePortId>,
    /// Entries that nobody who has them wants any more.
    pub(super) drop: BTreeSet<FrontendKey>,
}

/// Why a service port's change, or a part of it, could not be made.
pub(super) type Failures = BTreeMap<ServicePortId, String>;

impl<M: Maps> Writer<M> {
    /// Brings `FRONTENDS` in step, and empties the services that go.
    pub(super) fn turn_over(&mut self, mut turnover: Turnover, failures: &mut Failures) {
        let inserts = self.move_frontends(&mut turnover, failures);
        for installed in self.departing.values_mut() {
            let emptied =
                installed.set.update(installed.index, &[], &mut self.maps, &mut self.pools);
            emptied.expect("an empty set needs no entries");
        }
        let dropped: BTreeSet<Address> = turnover.drop.iter().map(|key| key.address).collect();
        for key in turnover.drop.iter().filter(|key| !is_address(key)) {
            self.delete(key);
        }
        // An index is free again when nothing leads to it any more.
        self.departing.retain(|index, installed| {
            let reachable = installed.frontends.iter().any(|key| self.undeleted.contains(key));
            if !reachable {
                self.pools.services.retire(*index);
            }
            reachable
        });
        self.insert_frontends(inserts, turnover.addresses, failures);
        // Last: an address whose only port has changed stays known throughout.
        for address in dropped {
            if self.only_address(address) {
                self.delete(&FrontendKey::of_address(address));
            }
        }
    }

    /// Hands over frontends that one service gives up and another takes, each by one replacing
    /// update, so that no client finds the address unserved. Returns the entries that are new.
    fn move_frontends(
        &mut self,
        turnover: &mut Turnover,
        failures: &mut Failures,
    ) -> BTreeMap<FrontendKey, ServicePortId> {
        let mut inserts = BTreeMap::new();
        for (key, id) in std::mem::take(&mut turnover.put) {
            let Some(&owner) = self.frontends.get(&key) else {
                inserts.insert(key, id);
                continue;
            };
            let given_up = turnover.drop.remove(&key);
            if let Some(holder) = self.owners.get(&owner).filter(|_| !given_up) {
                failures.insert(id, format!("{key:?} is a frontend of {}", holder.service));
                continue;
            }
            if !self.put(key, &id, failures) {
                self.undeleted.insert(key);
            } else if let Some(other) = self.at(owner) {
                other.frontends.remove(&key);
            }
        }
        inserts
    }

    /// Waits for what was freed, if anything was, and inserts. Ports come first: until the address
    /// is known, its other ports are merely unallocated.
    fn insert_frontends(
        &mut self,
        ports: BTreeMap<FrontendKey, ServicePortId>,
        addresses: BTreeMap<FrontendKey, ServicePortId>,
        failures: &mut Failures,
    ) {
        let nothing = ports.is_empty() && addresses.is_empty();
        if self.freed
            && !nothing
            && let Err(error) = self.grace()
        {
            let message = format!("cannot wait for running programs: {error}");
            let waiting = ports.into_values().chain(addresses.into_values());
            failures.extend(waiting.map(|id| (id, message.clone())));
            return;
        }
        for (key, id) in ports {
            self.put(key, &id, failures);
        }
        for (key, id) in addresses {
            let entry = FrontendEntry::new(&key, FrontendKind::Address, 0);
            match self.maps.put_frontend(&key, entry) {
                Ok(()) => self.frontends.extend([(key, 0)]),
                Err(error) => failures.extend([(id, failed(&error))]),
            }
        }
    }

    fn put(&mut self, key: FrontendKey, id: &ServicePortId, failures: &mut Failures) -> bool {
        let Some(installed) = self.services.get_mut(id) else { return false };
        let entry = FrontendEntry::new(&key, FrontendKind::Port, installed.index);
        if let Err(error) = self.maps.put_frontend(&key, entry) {
            failures.insert(id.clone(), failed(&error));
            return false;
        }
        installed.frontends.insert(key);
        // A replaced element is freed, too.
        self.freed |= self.frontends.insert(key, installed.index).is_some();
        true
    }

    fn delete(&mut self, key: &FrontendKey) {
        if self.maps.delete_frontend(key).is_err() {
            self.undeleted.insert(*key);
            return;
        }
        self.freed = true;
        if let Some(installed) = self.frontends.remove(key).and_then(|owner| self.at(owner)) {
            installed.frontends.remove(key);
        }
    }

    /// Whether no port of this address is left.
    pub(super) fn only_address(&self, address: Address) -> bool {
        let key = FrontendKey::of_address(address);
        let mut ports = self.frontends.range(key..).skip_while(|(k, _)| **k == key);
        self.frontends.contains_key(&key) && ports.next().is_none_or(|(k, _)| k.address != address)
    }
}

fn failed(error: &io::Error) -> String {
    format!("cannot write map FRONTENDS: {error}")
}
