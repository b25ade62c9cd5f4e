//! What a batch changes in `FRONTENDS`: moves, deletes, a grace period, inserts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use lb_common::abi::{FrontendEntry, FrontendKey};

use super::claims::Claim;
use super::maps::Maps;
use super::writer::{Installed, Writer, is_address};
use crate::plan::ServicePortId;

/// The changes of `FRONTENDS` that a batch comes to.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    /// Frontends that need an entry, and who wants them.
    pub(super) put: BTreeMap<FrontendKey, BTreeSet<Claim>>,
    /// Entries that the one who has them does not want any more.
    pub(super) drop: BTreeSet<FrontendKey>,
}

/// Why a service port's change, or a part of it, could not be made.
pub(super) type Failures = BTreeMap<ServicePortId, String>;

impl<M: Maps> Writer<M> {
    /// Brings `FRONTENDS` in step, and empties the services that go.
    pub(super) fn turn_over(&mut self, mut turnover: Turnover, failures: &mut Failures) {
        let inserts = self.move_frontends(&mut turnover, failures);
        for installed in self.departing.values_mut() {
            let Installed { index, set, .. } = installed;
            let policy = set.policy;
            let emptied = set.update(*index, &[], policy, &mut self.maps, &mut self.pools);
            emptied.expect("an empty set needs no entries");
        }
        // An address goes after its ports, and comes after them: until it is known, its other ports
        // are merely unallocated.
        let (addresses, ports): (Vec<_>, Vec<_>) = turnover.drop.iter().partition(is_address);
        for key in ports.into_iter().chain(addresses) {
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
        let (addresses, ports): (Vec<_>, Vec<_>) =
            inserts.into_iter().partition(|(key, _)| is_address(&key));
        self.insert_frontends(ports.into_iter().chain(addresses).collect(), failures);
    }

    /// Hands over frontends that one service gives up, or loses, and another takes, each by one
    /// replacing update, so that no client finds the address unserved. Returns the entries that are
    /// new.
    fn move_frontends(
        &mut self,
        turnover: &mut Turnover,
        failures: &mut Failures,
    ) -> Vec<(FrontendKey, Claim)> {
        let mut inserts = Vec::new();
        for key in &turnover.drop {
            let claims = self.waiting.take(key);
            if !claims.is_empty() {
                turnover.put.entry(*key).or_default().extend(claims);
            }
        }
        for (key, mut claims) in std::mem::take(&mut turnover.put) {
            let present = self.frontends.get(&key).copied();
            let given_up = turnover.drop.remove(&key);
            let holder = present.filter(|_| !given_up).and_then(|entry| {
                let id = self.owners.get(&entry.service())?.clone();
                Some(Claim::of_holder(id, entry.kind()))
            });
            // A claim of the holder's own is a change of kind.
            let holder = holder.filter(|holder| claims.iter().all(|c| c.id != holder.id));
            claims.extend(holder.clone());
            let winner = claims.pop_first().expect("a key is put because somebody claims it");
            if Some(&winner) != holder.as_ref() {
                match present {
                    None => inserts.push((key, winner)),
                    Some(_) if self.put(key, &winner, failures) => {}
                    Some(_) => {
                        // All stays as it was until the next batch tries again.
                        claims.retain(|claim| Some(claim) != holder.as_ref());
                        if given_up {
                            self.undeleted.insert(key);
                        }
                    }
                }
            }
            claims.into_iter().for_each(|claim| self.waiting.add(key, claim));
        }
        inserts
    }

    /// Waits for what was freed, if anything was, and inserts.
    fn insert_frontends(&mut self, inserts: Vec<(FrontendKey, Claim)>, failures: &mut Failures) {
        if self.freed
            && !inserts.is_empty()
            && let Err(error) = self.grace()
        {
            let message = format!("cannot wait for running programs: {error}");
            failures.extend(inserts.into_iter().map(|(_, claim)| (claim.id, message.clone())));
            return;
        }
        for (key, claim) in inserts {
            self.put(key, &claim, failures);
        }
    }

    /// Makes `key` lead to the service of `claim`, whoever had it.
    fn put(&mut self, key: FrontendKey, claim: &Claim, failures: &mut Failures) -> bool {
        let Some(installed) = self.services.get(&claim.id) else { return false };
        let entry = FrontendEntry::new(&key, claim.kind, installed.index);
        if let Err(error) = self.maps.put_frontend(&key, entry) {
            failures.insert(claim.id.clone(), failed(&error));
            return false;
        }
        if let Some(former) = self.frontends.insert(key, entry) {
            // A replaced element is freed, too.
            self.freed = true;
            if let Some(former) = self.at(former.service()) {
                former.frontends.remove(&key);
            }
        }
        self.at(entry.service()).expect("looked up above").frontends.insert(key);
        true
    }

    fn delete(&mut self, key: &FrontendKey) {
        if self.maps.delete_frontend(key).is_err() {
            self.undeleted.insert(*key);
            return;
        }
        self.freed = true;
        if let Some(former) = self.frontends.remove(key).and_then(|entry| self.at(entry.service()))
        {
            former.frontends.remove(key);
        }
    }
}

fn failed(error: &io::Error) -> String {
    format!("cannot write map FRONTENDS: {error}")
}
